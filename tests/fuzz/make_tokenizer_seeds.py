#!/usr/bin/env python3
"""Seeds of the fuzz targets tokenizer_json, tekken_json, regex, tokenizer_encode, tokenizer_decode.

    python3 tests/fuzz/make_tokenizer_seeds.py        writes tests/fuzz/corpus/TARGET
"""
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent / "corpus"
SPLIT = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\p{N}{1,3}|\s+(?!\S)|\s+"},
         "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def model(**more):
    return {"type": "BPE", "dropout": None, "unk_token": "u", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {"u": 0, "a": 1, "b": 2, "ab": 3, "\u2581": 4, "e": 5, "l": 6, "<0xC3>": 7},
            "merges": ["a b"], **more}


def token(i, content, **more):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True, **more}


def tokenizer_json():
    kinds = ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt", "StripAccents"]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    spaces = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    yield "byte_level", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [token(8, "<s>"), token(9, "</s>", lstrip=True, rstrip=True)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, BYTES]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [8], "tokens": ["<s>"]}}},
        "decoder": BYTES, "model": model(ignore_merges=True)}
    yield "sentencepiece", {
        "added_tokens": [token(8, "aa", normalized=True, single_word=True)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"}, replace]},
        "decoder": {"type": "Sequence", "decoders": [
            spaces, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": model(byte_fallback=True, fuse_unk=True, merges=[["a", "b"]])}
    yield "parts", {
        "normalizer": {"type": "Sequence", "normalizers": [
            *({"type": k} for k in kinds[3:]),
            {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": "[ \\t]{2,}"}, "content": "a"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "WhitespaceSplit"},
            {"type": "CharDelimiterSplit", "delimiter": "b"},
            {"type": "FixedLength", "length": 3}]},
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always",
                    "split": True},
        "model": model()}
    yield "metaspace", {
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first",
                          "split": True},
        "decoder": {"type": "Fuse"}, "model": model(unk_token=None)}


def tekken_json():
    pattern = r"\\s+|\\p{L}+|\\p{N}|[^\\s\\p{L}\\p{N}]+"
    tokens = "," + json.dumps({"rank": 256, "token_bytes": "YWI=", "token_str": "ab"})
    tokens += "," + json.dumps({"rank": 257, "token_bytes": "bGw=", "token_str": None})
    specials = json.dumps([{"rank": i, "token_str": s, "is_control": True}
                           for i, s in enumerate(["<unk>", "<s>", "</s>", "[INST]"])])
    # Special tokens, tokens listed and tokens used over 256, version: see the target.
    for name, head, rest in (
            ("v3", "\x0a\x02\x0c\x00", ""), ("v3_cut", "\x0a\x02\x0b\x00", ""),
            ("v13", "\x0a\x02\x0c\x03", f',"special_tokens":{specials},"type":"Tekken","version":1'),
            ("full", "\x04\x02\x05\x02", f',"special_tokens":{specials},"image":{{}},"audio":{{}}')):
        yield name, f"{head}{pattern}\n{tokens}\n{rest}"
    yield "whole", ('{"config":{"pattern":"a","num_vocab_tokens":1,"default_vocab_size":1,'
                    '"default_num_special_tokens":0,"version":"v7"},'
                    '"vocab":[{"rank":0,"token_bytes":"AA==","token_str":null}]}')


def regex():
    known = json.loads((HERE.parents[1] / "data/tokenizer/qwen35/tokenizer.json").read_text("utf-8"))
    pattern = known["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    patterns = [pattern, r"\s+(?!\S)|\s+", r"(?i:'s|'t)|[^\r\n\p{L}]?\p{L}{1,3}+", r"(?<=a)b|(?>a*)c",
                r"[\w\-\x{41}-\u0044]*?d|^$", r"\p{Han}+|\P{L}|\d\D\S\W|.", r"x{2,}y{,3}(a|b(c))?"]
    for i, p in enumerate(patterns):
        yield f"p{i}", p + "\0Hello it's 12345 \u4e2d\u6587\n\n  abcd XxxyYac \U0001f600"


def tokenizer_encode():
    texts = ["Hello <|im_start|>user\nit's 12345 \u4e2d\u6587<|im_end|>", "e\u0301\u2581  \n\n<0x41>",
             "\U0001f468\u200d\U0001f469\u200d\U0001f467 <tool>The human beings"]
    for family in range(5):
        for i, text in enumerate(texts):
            yield f"f{family}_{i}", chr(family) + chr(80) + text


def main():
    for target in (tokenizer_json, tekken_json, regex, tokenizer_encode):
        folder = HERE / target.__name__
        folder.mkdir(parents=True, exist_ok=True)
        for name, seed in target():
            text = seed if isinstance(seed, str) else json.dumps(seed, ensure_ascii=False)
            (folder / name).write_bytes(text.encode("utf-8"))
    folder = HERE / "tokenizer_decode"
    folder.mkdir(parents=True, exist_ok=True)
    for family in range(6):
        ids = bytes(b for i in range(2, 300, 7) for b in (i & 255, i >> 8))
        (folder / f"f{family}").write_bytes(bytes([family]) + ids)


if __name__ == "__main__":
    main()
