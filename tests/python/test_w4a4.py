"""numerics.activations=nvfp4 against stored logits: see tests/golden/make_w4a4.py."""
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
GOLDEN = ROOT / "tests" / "data" / "golden"
CASES = json.loads((GOLDEN / "w4a4.json").read_text())


def logits(model, ids, tmp_path, *settings):
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    flags = [x for s in settings for x in ("--set", s)]
    subprocess.run([IMP, "score", ROOT / "tests" / "data" / "models" / model, "--ids",
                    tmp_path / "ids.json", "--logits", tmp_path / "out.npy", *flags], check=True)
    return np.load(tmp_path / "out.npy")


@pytest.mark.parametrize("case", CASES)
def test_reference(case, tmp_path):
    want = np.load(GOLDEN / f"w4a4-{case}.npy")
    model, ids = CASES[case]["model"], CASES[case]["ids"]
    got = logits(model, ids, tmp_path, "runtime.reference=true", "numerics.activations=nvfp4")
    assert np.abs(got - want).max() <= 1e-3 * (want.max() - want.min())
    # and the rounding is not nothing
    plain = logits(model, ids, tmp_path, "runtime.reference=true")
    assert np.abs(plain - want).max() > 1e-2 * (want.max() - want.min())


def test_score_prints_what_it_costs():
    model = ROOT / "tests" / "data" / "models" / "tiny-gqa-nvfp4"
    text = next((ROOT / "tests" / "data" / "prose").glob("*.txt"))
    done = subprocess.run([IMP, "score", model, "--text", text, "--tokens", "400", "--window", "100",
                           "--set", "numerics.activations=nvfp4", "--json"],
                          check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert result["kl"] > 1e-3 and 0.3 < result["top1_agreement"] < 1


@pytest.mark.parametrize("case", CASES)
def test_a_row_depends_on_itself_alone(case, tmp_path):
    """The fast path: whole, in chunks, and alone; the same bits."""
    model, ids = CASES[case]["model"], CASES[case]["ids"]
    mode = "numerics.activations=nvfp4"
    whole = logits(model, ids, tmp_path, mode)
    for chunk in (1, 7):
        assert np.array_equal(whole,
                              logits(model, ids, tmp_path, mode, f"runtime.prefill_chunk={chunk}"))
