"""Random chains of normalizers, pre-tokenizers, decoders and added tokens against `tokenizers`.

Each case takes a vocabulary of tests/data/tokenizer and gives it other parts, as its own
tokenizer.json. Either imp makes of every text what the package makes of it, or it refuses the file
for one of the reasons in REFUSED. (Where the package itself panics there is nothing to compare: its
Strip decoder does on tokens that are too short.) IMP_TOKENIZER_CHAINS: cases (150).
"""
import json
import os
import pathlib
import random
import subprocess

import pytest

tokenizers = pytest.importorskip("tokenizers")
from tokenizer_strings import generate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data" / "tokenizer"
PROBE = pathlib.Path(os.environ.get("IMP_TOKENIZER_PROBE", ROOT / "build" / "tool_tokenizer_probe"))
CHAINS = int(os.environ.get("IMP_TOKENIZER_CHAINS", "150"))
GROUPS = 15

REFUSED = ["text could grow more than", "stands behind Fuse or ByteLevel",
           "only one character can be replaced", "behind a normalizer that moves the start",
           "0 bytes when normalized"]

pytestmark = pytest.mark.skipif(not os.access(PROBE, os.X_OK), reason=f"{PROBE} is not there")

BEHAVIOURS = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
REGEXES = [r"\s+", r"[aeiou]+", r"\p{L}+|\p{N}", r"(?i:the|and)", r"[^\s\p{L}]", r"\d{1,3}",
           r"\w+", r"[\r\n]+", r"\p{M}", r"(?<=a)b|\s(?=\S)", r"\p{Lu}\p{Ll}*", r" {2,}"]
STRINGS = [" ", "a", "\u2581", "th", "\n", ".", "e\u0301", "\u4e2d"]


def of_package(call, *args, **how):
    try:
        return call(*args, **how)
    except BaseException as e:
        if type(e).__name__ != "PanicException":
            raise
        return None


def pattern(rng):
    return {"Regex": rng.choice(REGEXES)} if rng.random() < 0.6 else {"String": rng.choice(STRINGS)}


def normalizer(rng):
    kind = rng.choice(["NFC", "NFD", "NFKC", "NFKD", "Replace", "Replace", "Prepend", "Strip",
                       "Lowercase", "Nmt", "StripAccents"])
    part = {"type": kind}
    if kind == "Replace":
        part |= {"pattern": pattern(rng), "content": rng.choice(["", " ", "\u2581", "xy", "a"])}
    if kind == "Prepend":
        part["prepend"] = rng.choice(["\u2581", " ", "xy"])
    if kind == "Strip":
        part |= {"strip_left": rng.random() < 0.5, "strip_right": rng.random() < 0.5}
    return part


def pre_tokenizer(rng):
    kind = rng.choice(["Split", "Split", "Split", "Digits", "Punctuation", "Whitespace",
                       "WhitespaceSplit", "CharDelimiterSplit", "FixedLength", "Metaspace",
                       "BertPreTokenizer"])
    part = {"type": kind}
    if kind == "Split":
        part |= {"pattern": pattern(rng), "behavior": rng.choice(BEHAVIOURS),
                 "invert": rng.random() < 0.3}
    if kind == "Digits":
        part["individual_digits"] = rng.random() < 0.5
    if kind == "Punctuation":
        part["behavior"] = rng.choice(BEHAVIOURS)
    if kind == "CharDelimiterSplit":
        part["delimiter"] = rng.choice(["a", " ", "\u4e2d"])
    if kind == "FixedLength":
        part["length"] = rng.randrange(1, 6)
    if kind == "Metaspace":
        part |= {"replacement": rng.choice(["\u2581", "_"]), "split": rng.random() < 0.5,
                 "prepend_scheme": rng.choice(["always", "first", "never"])}
    return part


def byte_level(rng):
    return {"type": "ByteLevel", "add_prefix_space": rng.random() < 0.5, "trim_offsets": True,
            "use_regex": rng.random() < 0.5}


def decoder(rng):
    kind = rng.choice(["ByteLevel", "ByteFallback", "Metaspace", "Fuse", "Strip", "Replace"])
    part = {"type": kind}
    if kind == "ByteLevel":
        part |= {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    if kind == "Metaspace":
        part |= {"replacement": "\u2581", "split": True,
                 "prepend_scheme": rng.choice(["always", "first", "never"])}
    if kind == "Strip":
        part |= {"content": rng.choice([" ", "a", "\u2581"]), "start": rng.randrange(3),
                 "stop": rng.randrange(3)}
    if kind == "Replace":
        part |= {"pattern": {"String": rng.choice(STRINGS)}, "content": rng.choice(["", " ", "ab"])}
    return part


def chain(rng, part, key, kind, most):
    members = [part(rng) for _ in range(rng.randrange(most + 1))]
    if len(members) == 1 and rng.random() < 0.5:
        return members[0]
    return {"type": kind, key: members} if members else None


def added(rng):
    contents = rng.sample(["<s>", "<|x|>", "the", "The", " a", "a ", "Z\u0301", "ab", "abc", "\n",
                           "<", "\u4e2d", "E", "ing", "\u2581\u2581", "1"], rng.randrange(6))
    return [{"content": c, "single_word": rng.random() < 0.3,
             "lstrip": rng.random() < 0.3, "rstrip": rng.random() < 0.3,
             "normalized": rng.random() < 0.4, "special": rng.random() < 0.5}
            for c in contents]


def make(rng, sources):
    family = rng.choice(sorted(sources))
    doc = json.loads(sources[family])
    model = doc["model"]
    model["ignore_merges"] = rng.random() < 0.5
    model["fuse_unk"] = rng.random() < 0.5
    if rng.random() < 0.5:
        model["merges"] = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    doc["normalizer"] = chain(rng, normalizer, "normalizers", "Sequence", 3)
    doc["decoder"] = chain(rng, decoder, "decoders", "Sequence", 4)
    doc["pre_tokenizer"] = chain(rng, pre_tokenizer, "pretokenizers", "Sequence", 3)
    if "\u0120" in model["vocab"] and rng.random() < 0.8:
        parts = [doc["pre_tokenizer"]] if doc["pre_tokenizer"] else []
        doc["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*parts, byte_level(rng)]}
    doc["post_processor"] = None
    doc["added_tokens"] = []
    normal = tokenizers.Tokenizer.from_str(json.dumps(doc)).normalizer
    first_id, seen = 1 + max(model["vocab"].values()), set()
    for token in added(rng):
        # Which of two that are the same when normalized it takes, the package leaves to chance.
        content = token["content"]
        match = normal.normalize_str(content) if normal and token["normalized"] else content
        if content not in model["vocab"] and match not in seen:
            doc["added_tokens"].append({"id": first_id + len(seen), **token})
            seen.add(match)
    return doc


@pytest.fixture(scope="module")
def sources():
    return {p.parent.name: p.read_text(encoding="utf-8") for p in DATA.glob("*/tokenizer.json")}


@pytest.mark.parametrize("group", range(GROUPS))
def test_chains(group, sources, tmp_path):
    rng = random.Random(group)
    agreed = 0
    for case in range(CHAINS // GROUPS):
        doc = make(rng, sources)
        source = json.dumps(doc)
        texts = list(generate(60, rng.random(), [a["content"] for a in doc["added_tokens"]]))
        texts += ["", " ", "the The theThe", " a  a ", "e\u0301\u0301Z\u0301", "abc ab\n\nabab"]
        (tmp_path / "tokenizer.json").write_text(source, encoding="ascii")
        (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="ascii")
        done = subprocess.run([PROBE, tmp_path, tmp_path / "texts.json"], capture_output=True,
                              timeout=60)
        said = done.stderr.decode()
        if done.returncode == 3:
            assert any(why in said for why in REFUSED), (said, source)
            continue
        assert done.returncode == 0, (done.returncode, said[-2000:])
        theirs = tokenizers.Tokenizer.from_str(source)
        lines = done.stdout.decode("utf-8").split("\n")[:-1]
        parts = {k: v for k, v in doc.items() if k != "model"}
        for text, line in zip(texts, lines, strict=True):
            ours, what = json.loads(line), (case, ascii(text), json.dumps(parts))
            theirs.encode_special_tokens = True
            plain = of_package(theirs.encode, text, add_special_tokens=False)
            assert plain is None or ours["plain"] == plain.ids, what
            theirs.encode_special_tokens = False
            ids = of_package(theirs.encode, text, add_special_tokens=False)
            assert ids is None or ours["ids"] == ids.ids, what
            for key, skip in ("text", False), ("skipped", True):
                text = of_package(theirs.decode, ours["ids"], skip_special_tokens=skip)
                assert text is None or ours[key] == text, what
            assert ours["stream"], what
        agreed += 1
    assert agreed > 0
