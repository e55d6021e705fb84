"""imp inspect --weights: its numbers computed again with numpy, faults planted in copies of
checkpoints and in checkpoints made here, and no false alarm on any healthy one."""
import json
import os
import pathlib
import shutil
import subprocess

import jsonschema
import block_formats as fmt
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "data" / "models"
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
ENV = {k: v for k, v in os.environ.items() if not k.startswith("IMP_")} | {"IMP_DEVICE": "cpu"}
SCHEMA = json.loads((ROOT / "docs" / "inspect-weights.schema.json").read_text())
ALL = sorted(p.name for p in MODELS.iterdir() if p.is_dir())
REAL = ROOT / "models" / "smollm2-nvfp4"

pytestmark = pytest.mark.skipif(not os.access(IMP, os.X_OK), reason=f"{IMP} is not there")


def call(*arguments):
    return subprocess.run([IMP, *map(str, arguments)], capture_output=True, env=ENV, timeout=120)


def examine(model, *more, status=0):
    done = call("inspect", model, "--weights", "--json", *more)
    assert done.returncode == status, f"exit {done.returncode}: {done.stderr} {done.stdout[:2000]}"
    got = json.loads(done.stdout)
    jsonschema.validate(got, SCHEMA)
    assert (got["verdict"] == "broken") == (status == 2)
    return got


def matrix(report, name):
    return next(m for m in report["matrices"] if m["name"] == name)


def rules(report, tensor=None, level="broken"):
    return {f["rule"] for f in report["findings"]
            if f["level"] == level and tensor in (None, f["tensor"])}


# ---- the numbers ----

def channels(w, axis):
    top = np.abs(w).max(axis=axis)
    median = np.median(top)
    return top.max(), median, int((top > 8 * median).sum())


@pytest.mark.parametrize("model", ["tiny-gqa-nvfp4", "tiny-gqa-modelopt", "tiny-qwen3-moe-modelopt",
                                   "tiny-gpt-oss-mxfp4"])
def test_numbers(model):
    report = examine(MODELS / model)
    checked = 0
    for name, q in fmt.quantised(MODELS / model):
        got = matrix(report, name)
        codes, scales, block = q["codes"], q["scales"], q["block"]
        value = fmt.E2M1[codes & 7] * np.repeat(q["scale_values"], block, axis=1)
        w = np.where(codes & 8, -value, value) * q["multiplier"]
        per_block = (codes & 7).reshape(len(codes), -1, block)
        zeros = (per_block == 0).sum(axis=2)
        two = np.sort(fmt.E2M1[per_block], axis=2)[:, :, -2:]
        assert got["format"] == ("nvfp4" if block == 16 else "mxfp4")
        assert got["codes"] == np.bincount(codes.ravel(), minlength=16).tolist()
        assert got["blocks"] == scales.size
        assert got["zero_share"] == pytest.approx((codes & 7 == 0).mean(), rel=1e-8)
        assert got["dominated_share"] == pytest.approx(
            ((2 * zeros >= block) & (zeros < block)).mean(), rel=1e-8)
        alone = (two[:, :, 1] >= 4 * two[:, :, 0]) & (two[:, :, 1] >= 2)
        assert got["single_share"] == pytest.approx(alone.mean(), rel=1e-8)
        assert got["rms"] == pytest.approx(np.sqrt((w.astype(float) ** 2).mean()), rel=1e-6)
        for side, axis in (("outputs", 1), ("inputs", 0)):
            largest, median, outliers = channels(w.astype(float), axis)
            assert got[side]["largest"] == pytest.approx(largest, rel=1e-6)
            assert got[side]["median"] == pytest.approx(median, rel=1e-6)
            assert got[side]["outliers"] == outliers
        s = got["scales"]
        bins = scales >> 3 & 15 if block == 16 else scales >> 4
        assert s["bins"] == np.bincount(bins.ravel(), minlength=16).tolist()
        assert s["largest"] == pytest.approx(q["scale_values"].max())
        assert s["smallest"] == pytest.approx(q["scale_values"].min())
        if block == 16:
            assert (s["zero"], s["saturated"]) == ((scales == 0).sum(), (scales == 0x7E).sum())
        checked += 1
    assert checked == sum(m.get("format") in ("nvfp4", "mxfp4") for m in report["matrices"]) > 6


def test_threads_change_nothing():
    reports = [examine(MODELS / "tiny-gqa-nvfp4", "-t", n) for n in (1, 3)]
    for report in reports:
        del report["seconds"]
    assert reports[0] == reports[1]


@pytest.mark.parametrize("model", ["tiny-gqa-nvfp4", "tiny-gqa-modelopt", "tiny-gpt-oss-mxfp4",
                                   "tiny-mistral-fp8_dynamic", "tiny-gpt-oss-nvfp4a16"])
def test_reference(model):
    reference = MODELS / model.rsplit("-", 1)[0]
    report = examine(MODELS / model, "--reference", reference)
    assert report["compared"] == len(report["matrices"])
    for m in report["matrices"]:
        if m["format"] in ("nvfp4", "mxfp4"):
            assert 0.05 < m["reference"]["error"] < 0.2 and m["reference"]["cosine"] > 0.98
            assert m["estimated_error"] == pytest.approx(m["reference"]["error"], rel=0.3)
    assert examine(reference, "--reference", MODELS / model)["compared"] == report["compared"]


def test_csv_and_table():
    csv = call("inspect", MODELS / "tiny-gqa-nvfp4", "--weights", "--csv").stdout.decode()
    lines = csv.splitlines()
    assert len(lines) == 17 and len({line.count(",") for line in lines}) == 1
    text = call("inspect", MODELS / "tiny-qwen3-moe-modelopt", "--weights").stdout.decode()
    assert "zero codes by layer" in text and "mlp.experts.down_proj (" in text
    assert call("inspect", MODELS / "tiny-gqa-nvfp4", "--csv").returncode == 1


# ---- no false alarm ----

@pytest.mark.parametrize("model", ALL)
def test_healthy(model):
    report = examine(MODELS / model)
    # The tiny AWQ model has channels scaled far apart, and up to 22 % of zero codes.
    expected = {"zero_codes"} if model.endswith("-awq") else set()
    assert rules(report, level="weak") == expected, report["findings"]


@pytest.mark.skipif(not REAL.is_dir(), reason="models/smollm2-nvfp4 is not there")
def test_healthy_real():
    report = examine(REAL)
    assert not rules(report) | rules(report, level="weak")


# ---- planted faults ----

Q0 = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def copy(tmp_path):
    def make(model):
        shutil.copytree(MODELS / model, tmp_path / model)
        return tmp_path / model
    return make


def test_zeroed_codes(copy):
    folder = copy("tiny-gqa-nvfp4")
    with fmt.edit(folder) as tensors:
        codes = tensors[Q0 + ".weight_packed"]
        rng = np.random.default_rng(1)
        codes &= np.where(rng.random(codes.shape) < 0.45, 0, 15).astype(np.uint8) | np.where(
            rng.random(codes.shape) < 0.45, 0, 0xF0).astype(np.uint8)
    report = examine(folder, status=2)
    assert rules(report, Q0) == {"zero_codes"}
    assert {f["tensor"] for f in report["findings"] if f["level"] == "broken"} == {Q0}
    against = examine(folder, "--reference", MODELS / "tiny-gqa", status=2)
    assert rules(against, Q0) == {"zero_codes", "reference_error"}


@pytest.mark.parametrize("byte,rule", [(0x7F, "scale_nan"), (0xFF, "scale_nan"),
                                       (0xB8, "scale_negative")])
def test_bad_scale_bytes(copy, byte, rule):
    for model in ("tiny-gqa-nvfp4", "tiny-gqa-modelopt"):
        folder = copy(model)
        with fmt.edit(folder) as tensors:
            tensors[Q0 + ".weight_scale"][3, 1] = byte
        assert rule in rules(examine(folder, status=2), Q0)


@pytest.mark.parametrize("model,name", [("tiny-gqa-nvfp4", "weight_global_scale"),
                                        ("tiny-gqa-modelopt", "weight_scale_2")])
def test_inverted_global(copy, model, name):
    folder = copy(model)
    with fmt.edit(folder) as tensors:
        tensors[f"{Q0}.{name}"][...] = 1 / tensors[f"{Q0}.{name}"]
    report = examine(folder, status=2)
    assert "global_inverted" in rules(report, Q0)
    assert {f["tensor"] for f in report["findings"] if f["level"] == "broken"} == {Q0}


def test_all_globals_inverted(copy):
    folder = copy("tiny-gqa-modelopt")
    with fmt.edit(folder) as tensors:
        for name in tensors:
            if name.endswith("weight_scale_2"):
                tensors[name][...] = 1 / tensors[name]
    assert "global_inverted" in rules(examine(folder, status=2))


@pytest.mark.parametrize("factor", [2, 0.5, 8])
def test_expert_factor(copy, factor):
    folder = copy("tiny-qwen3-moe-modelopt")
    name = "model.layers.0.mlp.experts.1.up_proj"
    with fmt.edit(folder) as tensors:
        tensors[name + ".weight_scale_2"][...] *= factor
    report = examine(folder, status=2)
    assert rules(report, name) == {"expert_factor"}
    against = examine(folder, "--reference", MODELS / "tiny-qwen3-moe", status=2)
    assert "reference_factor" in rules(against, name)


def test_duplicated(copy):
    folder = copy("tiny-gqa-nvfp4")
    with fmt.edit(folder) as tensors:
        for part in ("weight_packed", "weight_scale", "weight_global_scale"):
            tensors[f"model.layers.1.mlp.up_proj.{part}"][...] = tensors[
                f"model.layers.0.mlp.up_proj.{part}"]
    assert rules(examine(folder, status=2)) == {"copy"}


def test_dead(copy):
    folder = copy("tiny-gqa-nvfp4")
    with fmt.edit(folder) as tensors:
        tensors[Q0 + ".weight_packed"][...] = 0
    assert rules(examine(folder, status=2), Q0) == {"dead"}


def test_clamped_at_240(copy):
    """What an encoder that ends at 240 makes: the scale is cut, and the codes follow it."""
    folder = copy("tiny-gqa-nvfp4")
    with fmt.edit(folder) as tensors:
        w = np.random.default_rng(2).standard_normal((128, 64)).astype(np.float32)
        codes, scales, multiplier = fmt.quantise(w, clamp=0x77)
        tensors[Q0 + ".weight_packed"][...] = codes
        tensors[Q0 + ".weight_scale"][...] = scales
        tensors[Q0 + ".weight_global_scale"][...] = 1 / multiplier
    assert rules(examine(folder, status=2), Q0) == {"scales_clamped_240"}


@pytest.mark.parametrize("method", ["amax", "sweep"])
def test_smoothquant(copy, tmp_path, method):
    """A fifth of the input channels of one linear a hundred times the others', then quantised."""
    folder, made = copy("tiny-gqa"), tmp_path / "made"
    with fmt.edit(folder) as tensors:
        w = fmt.from_bf16(tensors[Q0 + ".weight"])
        w[:, ::5] *= 100
        tensors[Q0 + ".weight"][...] = fmt.to_bf16(w)
    done = call("quantize", folder, made, "--method", method, "-q")
    assert done.returncode == 0, done.stderr
    report = examine(made, status=2)
    assert rules(report) == {"smoothquant"} == rules(report, Q0)
    rescaled = examine(made, "--reference", MODELS / "tiny-gqa", status=2)
    assert matrix(rescaled, Q0)["reference"]["error"] > 1
