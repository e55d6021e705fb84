"""The tokenizer against the package `tokenizers`, text by text: ids, places of added tokens, text.

IMP_BIN: the binary (build/imp); IMP_TOKENIZER_PROBE: build/tool_tokenizer_probe.
IMP_TOKENIZER_STRINGS: generated texts a tokenizer (2000).
IMP_TOKENIZER_DIRS: further folders with a tokenizer.json, between colons: real vocabularies.
"""
import json
import os
import pathlib
import random
import re
import subprocess

import pytest

tokenizers = pytest.importorskip("tokenizers")
from tokenizer_strings import generate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data" / "tokenizer"
BIN = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
PROBE = pathlib.Path(os.environ.get("IMP_TOKENIZER_PROBE", ROOT / "build" / "tool_tokenizer_probe"))
COUNT = int(os.environ.get("IMP_TOKENIZER_STRINGS", "2000"))
FOLDERS = sorted(p.parent for p in DATA.glob("*/tokenizer.json"))
FOLDERS += [pathlib.Path(p) for p in os.environ.get("IMP_TOKENIZER_DIRS", "").split(":") if p]
SEED = 20261124

pytestmark = pytest.mark.skipif(not os.access(BIN, os.X_OK), reason=f"{BIN} is not there")


def run(*args):
    done = subprocess.run([*map(str, args)], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode("utf-8")


def probe(folder, path):
    return [json.loads(line) for line in run(PROBE, folder, path).split("\n")[:-1]]


def write(path, texts):
    path.write_text(json.dumps(texts), encoding="ascii")
    return path


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda p: p.name)
def model(request, tmp_path_factory):
    source = (request.param / "tokenizer.json").read_text(encoding="utf-8")
    theirs = tokenizers.Tokenizer.from_str(source)
    theirs.no_truncation()
    theirs.no_padding()
    doc = json.loads(source)
    specials = [a["content"] for a in doc["added_tokens"]]
    lines = (DATA / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    texts += generate(COUNT, SEED, specials)
    path = write(tmp_path_factory.mktemp("texts") / "texts.json", texts)
    ours = probe(request.param, path)
    assert len(ours) == len(texts)
    return request.param, theirs, doc, texts, ours


def test_ids(model):
    _, theirs, _, texts, ours = model
    for key, plain in ("ids", False), ("plain", True):
        theirs.encode_special_tokens = plain
        for text, line in zip(texts, ours):
            assert line[key] == theirs.encode(text, add_special_tokens=False).ids, ascii(text)


@pytest.mark.parametrize("flag", ["", "--plain", "--add-special"])
def test_command(model, tmp_path, flag):
    folder, theirs, _, texts, _ = model
    texts = texts[::5]
    args = [flag] if flag else []
    ours = json.loads(run(BIN, "tokenize", folder, "--texts", write(tmp_path / "t", texts), *args))
    theirs.encode_special_tokens = flag == "--plain"
    for text, ids in zip(texts, ours, strict=True):
        assert ids == theirs.encode(text, add_special_tokens=flag == "--add-special").ids


def test_decode(model):
    """Whole, and as a stream: the pieces joined are the whole."""
    _, theirs, _, texts, ours = model
    theirs.encode_special_tokens = False
    for text, line in zip(texts, ours):
        for key, skip in ("text", False), ("skipped", True):
            assert line[key] == theirs.decode(line["ids"], skip_special_tokens=skip), ascii(text)
        assert line["stream"], ascii(text)


def test_places_of_added_tokens(model):
    """In the text as it stands, with the spaces that lstrip and rstrip take."""
    _, theirs, doc, texts, ours = model
    merged = {"".join(m) if isinstance(m, list) else m.replace(" ", "")
              for m in doc["model"]["merges"]}
    # Ids that only an added token gives, and that are looked for in the text as it stands.
    ids = {a["id"] for a in doc["added_tokens"]
           if not a["normalized"] and a["content"] not in merged and len(a["content"]) > 1
           and a["content"] != doc["model"]["unk_token"]}
    theirs.encode_special_tokens = False
    seen = 0
    for text, line in zip(texts, ours):
        encoding = theirs.encode(text, add_special_tokens=False)
        want = [[i, *o] for i, o in zip(encoding.ids, encoding.offsets) if i in ids]
        raw = text.encode("utf-8")
        got = [[i, len(raw[:a].decode("utf-8")), len(raw[:b].decode("utf-8"))]
               for i, a, b in line["added"] if i in ids]
        assert got == want, ascii(text)
        seen += len(got)
    assert seen > 0 or not ids


def test_bytes(model, tmp_path):
    """Cut at every byte, and bytes that are no text: each broken sequence is one U+FFFD."""
    folder, theirs, doc, texts, _ = model
    rng = random.Random(SEED)
    broken = [[rng.choice(b"a\x80\xbf\xc0\xc3\xe0\xe4\xed\xa0\xf0\x9f\xf4\xff")
               for _ in range(rng.randrange(1, 12))] for _ in range(500)]
    cut = [list(t.encode("utf-8")[:-1]) for t in texts[:200]]
    items = texts[::4] + broken + cut
    path = write(tmp_path / "texts.json", items)
    lines = probe(folder, path)
    vocab = theirs.get_vocab(with_added_tokens=False)
    fallback = [f"<0x{b:02X}>" for b in range(256)]
    if doc["decoder"] and doc["decoder"]["type"] == "ByteLevel":
        for item, line in zip(items, lines, strict=True):
            raw = item.encode("utf-8") if isinstance(item, str) else bytes(item)
            assert line["bytes"] == raw.decode("utf-8", "replace"), raw
    elif doc["model"]["byte_fallback"] and all(f in vocab for f in fallback):
        for item, line in zip(items, lines, strict=True):
            raw = item.encode("utf-8") if isinstance(item, str) else bytes(item)
            ids = [vocab[fallback[b]] for b in raw]
            assert line["bytes"] == theirs.decode(ids, skip_special_tokens=False), raw
    # As input: each broken byte counts as one U+FFFD.
    meant = [re.sub("[\udc80-\udcff]", "\ufffd", bytes(b).decode("utf-8", "surrogateescape"))
             for b in broken]
    theirs.encode_special_tokens = False
    for text, line in zip(meant, lines[len(texts[::4]):]):
        assert line["ids"] == theirs.encode(text, add_special_tokens=False).ids, ascii(text)
