"""imp synth: checkpoints of random weights from real configurations, and what the other commands make
of them.

IMP_BIN names the binary (default build/imp). Only models whose few layers are small are made here;
tests/unit/synth.c has every family in small.
"""
import json
import os
import pathlib
import re
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "tests" / "data" / "configs"
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
ENV = {k: v for k, v in os.environ.items() if not k.startswith("IMP_")}

pytestmark = pytest.mark.skipif(not os.access(IMP, os.X_OK), reason=f"{IMP} is not there")


def call(*arguments):
    return subprocess.run([IMP, *map(str, arguments)], stdin=subprocess.DEVNULL,
                          capture_output=True, env=ENV, timeout=300)


def imp(*arguments):
    done = call(*arguments)
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}: {done.stderr.decode()}"
    return done.stdout.decode()


@pytest.fixture(scope="module")
def ids(tmp_path_factory):
    path = tmp_path_factory.mktemp("ids") / "ids.json"
    path.write_text(json.dumps([(i * 37 + i * i) % 256 for i in range(90)]))
    return path


def logits(folder, ids):
    out = pathlib.Path(folder) / "logits.npy"
    imp("score", folder, "--ids", ids, "--logits", out, "--quiet")
    return np.load(out).astype(np.float64)


# Two layers of each kind that the model has. `away`: rounding to four bits moves logits by about a
# tenth for every linear that they pass, and layers that have seen random weights alone amplify it.
@pytest.mark.parametrize("name, layers, away", [
    ("SmolLM2-135M-Instruct", 2, 0.6),
    ("Qwen3.5-0.8B", 2, 0.7),
])
def test_real_configurations(tmp_path, ids, name, layers, away):
    found = {}
    for dialect in ("bf16", "compressed-tensors", "modelopt"):
        new = tmp_path / dialect
        done = call("synth", CONFIGS / name / "config.json", new, "--layers", layers, "--vocab", 320,
                    "--format", dialect)
        assert done.returncode == 0 and done.stdout == b"", done.stderr
        assert f"wrote {new} in" in done.stderr.decode().splitlines()[-1]
        got = json.loads(imp("inspect", new, "--json"))
        assert got["supported"] and got["layers"] == layers and got["vocab_size"] == 320
        assert got["dialect"] == ("none" if dialect == "bf16" else dialect)
        found[dialect] = logits(new, ids)
        x = found[dialect]
        assert x.shape == (90, 320) and np.isfinite(x).all()
        assert 1 < x.std() < 8 and x.std(axis=0).mean() > 0.5 and abs(x).max() < 100
    exact = found["bf16"]
    for dialect in ("compressed-tensors", "modelopt"):
        assert 0 < np.linalg.norm(found[dialect] - exact) < away * np.linalg.norm(exact)
    rows = imp("bench", tmp_path / "modelopt", "-p", "8", "-n", "4", "-b", "1,3", "--json")
    assert all(re.fullmatch("[0-9a-f]{16}", json.loads(row)["logits_hash"])
               for row in rows.splitlines())


def test_text_goes_in_and_comes_out(tmp_path):
    new = tmp_path / "new"
    imp("synth", CONFIGS / "SmolLM2-135M-Instruct", new, "--layers", "1", "--quiet")
    text = "Größe \n<|end|> 漢字"
    tokens = json.loads(imp("tokenize", new, text))
    assert 256 in tokens and max(tokens) == 256
    assert imp("tokenize", new, "--decode", json.dumps(tokens)) == text + "\n"
    got = json.loads(imp("inspect", new, "--json"))
    assert got["tensor_count"] == 1 + 2 + 7 * 3 + 1 and got["vocab_size"] == 49152
    assert imp("run", new, "-p", "hello", "-n", "4", "--temperature", "1", "--seed", "3", "--quiet")
    (tmp_path / "book.txt").write_text("A text of some length. " * 20)
    got = json.loads(imp("score", new, "--text", tmp_path / "book.txt", "--window", "64", "--json"))
    assert got["tokens"] > 300 and 5 < got["nll"] < 40


def test_refusals(tmp_path):
    def fails(status, words, *arguments):
        done = call("synth", *arguments)
        message = done.stderr.decode()
        assert done.returncode == status and message.count("\n") == 1 and words in message, message

    new = tmp_path / "new"
    fails(4, "mixtral", CONFIGS / "Mixtral-8x7B-v0.1", new)
    fails(1, "2 kinds of layers", CONFIGS / "Qwen3.5-0.8B", new, "--layers", "1")
    fails(1, "the model has 24", CONFIGS / "Qwen3.5-0.8B", new, "--layers", "25")
    fails(4, "gpt_oss", CONFIGS / "Qwen3-0.6B", new, "--format", "mxfp4")
    fails(1, "--vocab", CONFIGS / "Qwen3-0.6B", new, "--vocab", "12")
    fails(1, "not empty", CONFIGS / "Qwen3-0.6B", CONFIGS)
    fails(5, "config.json", tmp_path / "nothing", new)
    assert list(tmp_path.iterdir()) == []
