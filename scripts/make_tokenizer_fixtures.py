#!/usr/bin/env python3
"""Small tokenizers with each family's settings, and what the package `tokenizers` makes of the texts.

    python3 scripts/make_tokenizer_fixtures.py        (PyPI: tokenizers 0.23)

Reads tests/data/tokenizer/cases.jsonl and writes tests/data/tokenizer/FAMILY/{tokenizer.json,
expected.json}. The vocabularies are trained on those texts, so no model's own file is needed.

expected.json: "ids" for every case, without what the post-processor adds; by index of the case and
only where they differ: "plain" (special tokens as plain text), "decoded" (other than the text),
"skipped" (decoded without special tokens, other than "decoded"); "around": ids of case 0 with what
the post-processor adds.
"""
import json
import pathlib
import re

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "tokenizer"
VOCAB = 1200

WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LEAD = r"[^\r\n\p{L}\p{N}]?"
CAMEL = (LEAD + UPPER + "*" + LOWER + "+", LEAD + UPPER + "+" + LOWER + "*")
SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
PATTERNS = {
    "llama3": f"{WORD}|{LEAD}\\p{{L}}+|\\p{{N}}{{1,3}}| ?[^\\s\\p{{L}}\\p{{N}}]+[\\r\\n]*|{REST}",
    "qwen2": f"{WORD}|{LEAD}\\p{{L}}+|\\p{{N}}| ?[^\\s\\p{{L}}\\p{{N}}]+[\\r\\n]*|{REST}",
    "qwen35": f"{WORD}|{LEAD}[\\p{{L}}\\p{{M}}]+|\\p{{N}}"
              f"| ?[^\\s\\p{{L}}\\p{{M}}\\p{{N}}]+[\\r\\n]*|{REST}",
    "tekken": f"{CAMEL[0]}|{CAMEL[1]}|\\p{{N}}|{SYMBOLS}|{REST}",
    "o200k": f"{CAMEL[0]}{WORD}?|{CAMEL[1]}{WORD}?|\\p{{N}}{{1,3}}|{SYMBOLS}|{REST}",
}


def special(*names):
    return [AddedToken(n, special=True, normalized=False) for n in names]


def byte_level_parts(pattern, **options):
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tail = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, tail])


def byte_level(texts, pre, norm=None, first=(), last=(), post=None, **model):
    t = Tokenizer(models.BPE(**model))
    t.pre_tokenizer = pre
    if norm:
        t.normalizer = norm
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=list(first), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_tokens(list(last))
    if post:
        t.post_processor = post(t)
    return t


def template(name):
    return lambda t: processors.TemplateProcessing(
        single=f"{name} $A", pair=f"{name} $A {name} $B:1",
        special_tokens=[(name, t.token_to_id(name))])


def smollm2(texts):
    pre = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return byte_level(texts, pre, first=special("<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                                "<repo_name>", "<jupyter_code>"),
                      unk_token="<|endoftext|>")


def llama3(texts):
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
             "<|eot_id|>", "<|python_tag|>")
    def post(t):
        return processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                    template("<|begin_of_text|>")(t)])
    return byte_level(texts, byte_level_parts(PATTERNS["llama3"]), last=special(*names), post=post,
                      ignore_merges=True)


QWEN = special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>") + [
    AddedToken(n, special=False, normalized=False)
    for n in ("<tool_call>", "</tool_call>", "<think>", "</think>")]


def qwen2(texts):
    return byte_level(texts, byte_level_parts(PATTERNS["qwen2"]), norm=normalizers.NFC(), last=QWEN)


def qwen35(texts):
    return byte_level(texts, byte_level_parts(PATTERNS["qwen35"]), norm=normalizers.NFC(),
                      last=QWEN)


def tekken(texts):
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[TOOL_CALLS]"]
    names += [f"<SPECIAL_{i}>" for i in range(len(names), 40)]
    return byte_level(texts, byte_level_parts(PATTERNS["tekken"]), first=special(*names),
                      post=template("<s>"), ignore_merges=True)


def o200k(texts):
    return byte_level(texts, byte_level_parts(PATTERNS["o200k"]), last=special(
        "<|startoftext|>", "<|endoftext|>", "<|return|>", "<|channel|>", "<|start|>", "<|end|>",
        "<|message|>", "<|call|>"))


def sentencepiece(texts, norm, pre, decoder, post, added=(), keep_alphabet=300, **model):
    names = ["<pad>", "<eos>", "<bos>", "<unk>"] if "<bos>" in post else ["<unk>", "<s>", "</s>"]
    names += [f"<0x{i:02X}>" for i in range(256)]
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>", **model))
    t.normalizer = norm
    if pre:
        t.pre_tokenizer = pre
    # Trained on words, used on whole texts: without a pre-tokenizer training would merge lines.
    words = [w for x in texts for w in re.findall(r" {0,2}[^ ]+| +", x)]
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=names, show_progress=False,
                                  limit_alphabet=keep_alphabet, max_token_length=12)
    t.train_from_iterator(words, trainer)
    # The byte tokens belong to the vocabulary alone, as in real files.
    doc = json.loads(t.to_str())
    doc["added_tokens"] = [a for a in doc["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(doc))
    t.add_tokens(list(added))
    t.decoder = decoder
    t.post_processor = template(post)(t)
    return t


def gemma(texts):
    added = special("<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>")
    added += [AddedToken(x, special=False, normalized=False)
              for x in ("\n\n", "\n\n\n", "\u2581\u2581", "<b>", "</b>", "\t\t")]
    decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                 decoders.Fuse()])
    return sentencepiece(texts, normalizers.Replace(" ", "\u2581"),
                         pre_tokenizers.Split(" ", "merged_with_previous"), decoder, "<bos>",
                         added)


LLAMA2_DECODER = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                  decoders.Strip(" ", 1, 0)]


def llama2(texts):
    norm = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return sentencepiece(texts, norm, None, decoders.Sequence(LLAMA2_DECODER), "<s>")


def metaspace(texts):
    """Llama-2 as later exports write it, and special tokens that are normalized."""
    added = [AddedToken("<|user|>", special=True, normalized=True),
             AddedToken("<tool>", special=False, normalized=True)]
    pre = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first", split=True)
    decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="first")
    return sentencepiece(texts, normalizers.NFKC(), pre, decoder, "<s>", added)


def oddments(texts):
    """What no family of today uses all at once: strips, single words, lower case, unknowns."""
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=False))
    t.normalizer = normalizers.Sequence([
        normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(),
        normalizers.Replace(Regex(r"[ \t]{2,}"), " "), normalizers.Strip(left=True, right=True)])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation(behavior="contiguous"), pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Split("q", "merged_with_next"), pre_tokenizers.Split(Regex("z+"), "removed"),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex(r"[aeiou]"), "merged_with_previous", invert=True)])
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=700, special_tokens=["[UNK]"], limit_alphabet=200, show_progress=False))
    t.add_tokens([
        AddedToken("<|im_start|>", special=True, normalized=False, lstrip=True),
        AddedToken("<|im_end|>", special=True, normalized=False, rstrip=True),
        AddedToken("The", single_word=True, normalized=False),
        AddedToken("And", single_word=True, normalized=True),
        AddedToken("<S>", special=True, normalized=True, lstrip=True, rstrip=True),
        AddedToken("hum", normalized=False), AddedToken("human beings", normalized=False)])
    return t


FAMILIES = (smollm2, llama3, qwen2, qwen35, tekken, o200k, gemma, llama2, metaspace, oddments)


def expected(t, texts):
    out = {"ids": [], "plain": {}, "decoded": {}, "skipped": {}}
    for i, text in enumerate(texts):
        t.encode_special_tokens = False
        ids = t.encode(text, add_special_tokens=False).ids
        t.encode_special_tokens = True
        plain = t.encode(text, add_special_tokens=False).ids
        decoded = t.decode(ids, skip_special_tokens=False)
        skipped = t.decode(ids, skip_special_tokens=True)
        out["ids"].append(ids)
        if plain != ids:
            out["plain"][str(i)] = plain
        if decoded != text:
            out["decoded"][str(i)] = decoded
        if skipped != decoded:
            out["skipped"][str(i)] = skipped
    t.encode_special_tokens = False
    out["around"] = t.encode(texts[0]).ids
    return out


def main():
    lines = (ROOT / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    for family in FAMILIES:
        folder = ROOT / family.__name__
        folder.mkdir(exist_ok=True)
        t = family(texts)
        # Old files write a merge as "a b", new ones as a pair: some of each.
        doc = json.loads(t.to_str())
        if family in (smollm2, llama2, qwen2):
            doc["model"]["merges"] = [" ".join(pair) for pair in doc["model"]["merges"]]
        text = json.dumps(doc, ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
        t = Tokenizer.from_str(text)
        text = json.dumps(expected(t, texts), separators=(",", ":"))
        (folder / "expected.json").write_text(text + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
