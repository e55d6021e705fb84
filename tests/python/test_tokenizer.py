"""`imp tokenize` against the package `tokenizers`, text by text.

IMP_BIN: the binary (build/imp). IMP_TOKENIZER_STRINGS: generated texts a tokenizer (2000).
IMP_TOKENIZER_DIRS: further folders with a tokenizer.json, between colons: real vocabularies.
"""
import json
import os
import pathlib
import subprocess

import pytest

tokenizers = pytest.importorskip("tokenizers")
from tokenizer_strings import generate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data" / "tokenizer"
BIN = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
COUNT = int(os.environ.get("IMP_TOKENIZER_STRINGS", "2000"))
FOLDERS = sorted(p.parent for p in DATA.glob("*/tokenizer.json"))
FOLDERS += [pathlib.Path(p) for p in os.environ.get("IMP_TOKENIZER_DIRS", "").split(":") if p]
SEED = 20261124

pytestmark = pytest.mark.skipif(not os.access(BIN, os.X_OK), reason=f"{BIN} is not there")


def imp(*args):
    done = subprocess.run([BIN, "tokenize", *map(str, args)], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode("utf-8")


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda p: p.name)
def model(request):
    source = (request.param / "tokenizer.json").read_text(encoding="utf-8")
    theirs = tokenizers.Tokenizer.from_str(source)
    theirs.no_truncation()
    theirs.no_padding()
    specials = [a["content"] for a in json.loads(source)["added_tokens"]]
    lines = (DATA / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    texts += generate(COUNT, SEED, specials)
    return request.param, theirs, texts


def compare(model, tmp_path, flags, plain, around):
    folder, theirs, texts = model
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(texts), encoding="ascii")
    ours = json.loads(imp(folder, "--texts", path, *flags))
    assert len(ours) == len(texts)
    theirs.encode_special_tokens = plain
    for text, ids in zip(texts, ours):
        assert ids == theirs.encode(text, add_special_tokens=around).ids, ascii(text)


def test_ids(model, tmp_path):
    compare(model, tmp_path, [], False, False)


def test_plain(model, tmp_path):
    compare(model, tmp_path, ["--plain"], True, False)


def test_add_special(model, tmp_path):
    compare(model, tmp_path, ["--add-special"], False, True)


def test_decode(model):
    folder, theirs, texts = model
    theirs.encode_special_tokens = False
    shown = theirs.get_added_tokens_decoder()
    for text in texts[:514:25] + texts[514:544]:
        ids = theirs.encode(text, add_special_tokens=False).ids
        # Whether special tokens are shown is not the question here.
        ids = [i for i in ids if i not in shown or not shown[i].special]
        got = imp(folder, "--decode", json.dumps(ids))
        want = theirs.decode(ids, skip_special_tokens=False)
        assert got in (want, want + "\n"), ascii(text)
