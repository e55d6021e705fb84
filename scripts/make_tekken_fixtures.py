#!/usr/bin/env python3
"""Small tekken.json files, and what the package `mistral-common` makes of the texts.

    python3 scripts/make_tekken_fixtures.py                     (PyPI: mistral-common 1.13)
    python3 scripts/make_tekken_fixtures.py --compare [FOLDER ...]

The second form compares imp (build/tool_tokenizer_probe) with the package on the texts and on 5,000
generated ones, for folders with a tekken.json; without any, for the real files inside the package.

The first reads tests/data/tokenizer/cases.jsonl and the vocabulary trained on them in tekken/tokenizer.json;
writes tests/data/tokenizer/{tekken-v3,tekken-v13}/{tekken.json,expected.json}. expected.json is as
make_tokenizer_fixtures.py describes it. The package itself never reads a special token in a text:
here a text is cut at their names, the longest first, and the parts are encoded by the package.
"""
import base64
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import mistral_common
from mistral_common.tokens.tokenizers.tekken import SpecialTokenPolicy, Tekkenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "tokenizer"
V13 = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
       "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[SYSTEM_PROMPT]",
       "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]",
       "<|im_start|>", "<|im_end|>", "[\u00e9 \u4e2d]"]


def byte_of():
    """The alphabet of byte-level vocabularies: printable Latin-1, the rest from U+0100."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def trained_tokens():
    doc = json.loads((ROOT / "tekken" / "tokenizer.json").read_text(encoding="utf-8"))
    alphabet = byte_of()
    tokens = [bytes([b]) for b in range(256)]
    for left, right in doc["model"]["merges"]:
        token = bytes(alphabet[c] for c in left + right)
        if token not in tokens:
            tokens.append(token)
    return tokens


def entry(rank, token):
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    return {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": text}


def document(version, tokens, used, specials, named):
    pattern = json.loads((ROOT / "tekken" / "tokenizer.json").read_text(encoding="utf-8"))
    pattern = pattern["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    doc = {"config": {"pattern": pattern, "num_vocab_tokens": len(tokens),
                      "default_vocab_size": specials + used,
                      "default_num_special_tokens": specials, "version": version},
           "vocab": [entry(i, t) for i, t in enumerate(tokens)]}
    if named:
        doc["special_tokens"] = [{"rank": i, "token_str": n, "is_control": n != "[THINK]"}
                                 for i, n in enumerate(named)]
        doc |= {"type": "Tekken", "version": 1,
                "image": {"image_patch_size": 14, "max_image_size": 1540}}
    return doc


def expected(t, texts):
    names = sorted((s["token_str"] for s in t._all_special_tokens), key=len, reverse=True)
    cut = re.compile("(" + "|".join(map(re.escape, names)) + ")")
    out = {"ids": [], "plain": {}, "decoded": {}, "skipped": {}}
    for i, text in enumerate(texts):
        ids = []
        for k, part in enumerate(cut.split(text)):
            ids += [t.get_special_token(part)] if k % 2 else t.encode(part, False, False)
        plain = t.encode(text, False, False)
        decoded = t.decode(ids, SpecialTokenPolicy.KEEP)
        skipped = t.decode(ids, SpecialTokenPolicy.IGNORE)
        out["ids"].append(ids)
        for key, value, usual in (("plain", plain, ids), ("decoded", decoded, text),
                                  ("skipped", skipped, decoded)):
            if value != usual:
                out[key][str(i)] = value
    out["around"] = t.encode(texts[0], True, False)
    return out


def compare(folder, texts):
    t = Tekkenizer.from_file(folder / "tekken.json")
    names = [s["token_str"] for s in t._all_special_tokens[:40]]
    sys.path.insert(0, str(ROOT.parents[1] / "python"))
    from tokenizer_strings import generate
    texts = texts + list(generate(5000, 7, names))
    with tempfile.NamedTemporaryFile("w") as f:
        json.dump(texts, f)
        f.flush()
        probe = ROOT.parents[2] / "build" / "tool_tokenizer_probe"
        out = subprocess.run([probe, folder, f.name], check=True, capture_output=True).stdout
    wrong = 0
    for text, line in zip(texts, out.decode("utf-8").split("\n")[:-1], strict=True):
        ours = json.loads(line)
        ids = ours["ids"]
        same = (ours["plain"] == t.encode(text, False, False) and ours["stream"] and
                ours["text"] == t.decode(ids, SpecialTokenPolicy.KEEP) and
                ours["skipped"] == t.decode(ids, SpecialTokenPolicy.IGNORE))
        wrong += not same
    print(f"{folder}: {len(texts)} texts, {wrong} differ")
    return wrong


def compare_all(folders, texts):
    if folders:
        return sum(compare(pathlib.Path(f), texts) for f in folders)
    wrong = 0
    for file in sorted(pathlib.Path(mistral_common.__file__).parent.glob("data/tekken_*.json")):
        with tempfile.TemporaryDirectory() as folder:
            print(file.name, end=": ")
            (pathlib.Path(folder) / "tekken.json").symlink_to(file)
            wrong += compare(pathlib.Path(folder), texts)
    return wrong


def main():
    lines = (ROOT / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    if sys.argv[1:2] == ["--compare"]:
        sys.exit(compare_all(sys.argv[2:], texts) != 0)
    tokens = trained_tokens()
    # The first is cut: its last 100 tokens are for larger models. The second has a filler.
    for name, doc in (
            ("tekken-v3", document("v3", tokens[:800], 700, 30, None)),
            ("tekken-v13", document("v13", tokens, len(tokens), len(V13) + 2, V13))):
        folder = ROOT / name
        folder.mkdir(exist_ok=True)
        text = json.dumps(doc, ensure_ascii=False, separators=(",", ":"))
        (folder / "tekken.json").write_text(text + "\n", encoding="utf-8")
        text = json.dumps(expected(Tekkenizer.from_file(folder / "tekken.json"), texts),
                          separators=(",", ":"))
        (folder / "expected.json").write_text(text + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
