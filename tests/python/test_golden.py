"""Logits of imp against transformers in fp32, as stored in tests/data/golden.

IMP_BIN names the binary (default build/imp). The reference path (runtime.reference=true) must lie
within 1e-3 of the logit range at every prompt. The fast path must lie no further away than
transformers' own bf16 run of the same checkpoint: its largest difference over all prompts, and on
average over the prompts clearly less. (Prompt by prompt both are draws of one rounding error: a
prompt of one token can come out lucky in bf16.) With IMP_LARGE=FOLDER, holding what `make_checkpoints.py --gguf` wrote, SmolLM2 is compared too.
"""
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
LARGE = os.environ.get("IMP_LARGE")
TINY = json.loads((DATA / "golden" / "index.json").read_text())["models"]
SMOL = json.loads((DATA / "golden" / "smollm2.json").read_text())["models"] if LARGE else {}
PERPLEXITY = json.loads((DATA / "golden" / "perplexity.json").read_text())
PATHS = {"reference": ["--set", "runtime.reference=true"], "fast": []}


def imp(*arguments):
    done = subprocess.run([IMP, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


def logits(folder, prompts, path, work):
    """One float32 array a prompt. Several prompts run together, as the command promises."""
    names = []
    for i, ids in enumerate(prompts):
        names.append(work / f"ids{i}.json")
        names[-1].write_text(json.dumps(ids))
    out = work / "logits.npy"
    flags = [f for name in names for f in ("--ids", name)]
    imp("score", folder, *flags, "--logits", out, *PATHS[path])
    files = [out] if len(prompts) == 1 else [work / f"logits.{i}.npy" for i in range(len(prompts))]
    arrays = [np.load(f) for f in files]
    for a, ids in zip(arrays, prompts):
        assert a.dtype == np.float32 and a.shape[0] == len(ids) and np.isfinite(a).all()
    return arrays


def stored(model, case):
    blob = np.fromfile(DATA / "golden" / f"{model}.u16", "<u2",
                       len(case["ids"]) * case["columns"], offset=case["offset"])
    values = case["low"] + blob.astype(np.float64) * case["step"]
    return values.reshape(len(case["ids"]), case["columns"])


def allowed(cases, case, path):
    rounding = case.get("step", 0) / 2  # of the stored values
    bf16 = max(c["bf16_diff"] for c in cases)
    return (1e-3 * case["range"] if path == "reference" else bf16) + rounding


def compare(model, cases, case, got, path):
    want = stored(model, case)
    got = got[:, ::case["stride"]]
    assert got.shape == want.shape
    diff = np.abs(got - want)
    row, column = np.unravel_index(diff.argmax(), diff.shape)
    assert diff.max() <= allowed(cases, case, path), (
        f"{model}, {len(case['ids'])} tokens, {path}: off by {diff.max():.3g} at position {row}, id "
        f"{column * case['stride']}; {allowed(cases, case, path):.3g} allowed, range "
        f"{case['range']:.3g}")
    return diff.max() / case["bf16_diff"]


def test_every_model_has_a_golden():
    assert sorted(TINY) == sorted(p.name for p in (DATA / "models").iterdir() if p.is_dir())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", TINY)
def test_logits(model, path, tmp_path):
    cases = TINY[model]
    assert len(cases) >= 8
    arrays = logits(DATA / "models" / model, [c["ids"] for c in cases], path, tmp_path)
    shares = [compare(model, cases, case, got, path) for case, got in zip(cases, arrays)]
    assert np.mean(shares) <= 0.8, f"{model}, {path}: {np.mean(shares):.2f} of bf16's own difference"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", TINY)
def test_logits_alone(model, path, tmp_path):
    """The longest prompt by itself."""
    case = TINY[model][-1]
    got = logits(DATA / "models" / model, [case["ids"]], path, tmp_path)[0]
    compare(model, TINY[model], case, got, path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", SMOL)
def test_large_logits(model, path, tmp_path):
    cases = SMOL[model]
    arrays = logits(pathlib.Path(LARGE) / model, [c["ids"] for c in cases], path, tmp_path)
    for case, got in zip(cases, arrays):
        limit = allowed(cases, case, path) + 1e-5  # five decimals are stored
        picked = np.take_along_axis(got, np.array(case["top_ids"]), 1)
        assert np.abs(picked - np.array(case["top_logits"])).max() <= limit, (model, path)
        got = got.astype(np.float64)
        assert np.abs(got.mean(1) - case["mean"]).max() <= limit
        assert np.abs(np.sqrt((got ** 2).mean(1)) - case["rms"]).max() <= limit


FOLDERS = {"original": "smollm2", "llm-compressor": "smollm2-nvfp4a16", "modelopt": "smollm2-modelopt"}


@pytest.mark.parametrize("path,windows,tolerance", [("reference", 1, 1e-3), ("fast", 8, 3e-3)])
@pytest.mark.parametrize("model", FOLDERS if LARGE else [])
def test_perplexity(model, path, windows, tolerance):
    window = PERPLEXITY["window"]
    out = json.loads(imp("score", pathlib.Path(LARGE) / FOLDERS[model], "--text",
                         DATA / "prose" / PERPLEXITY["text"], "--window", window, "--tokens",
                         window * windows, "--json", *PATHS[path]))
    want = float(np.exp(np.mean(PERPLEXITY["models"][model]["windows"][:windows])))
    assert abs(out["perplexity"] / want - 1) <= tolerance
