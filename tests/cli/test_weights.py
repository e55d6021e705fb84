"""imp inspect --weights: its numbers computed again with numpy, faults planted in the weights of
copies of checkpoints and in checkpoints made here, and no false alarm on any healthy one.
test_weights_files.py has the faults of the other files."""
import pathlib

import numpy as np
import pytest

import block_formats as fmt
from health import ALL, MODELS, REAL, SKIP, call, copy, examine, matrix, rules  # noqa: F401

pytestmark = SKIP


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
    # The AWQ model has channels scaled far apart, and up to 22 % of zero codes. Granite's end token
    # is its family's, its tokenizer and its template are those of all these models.
    expected = {"zero_codes"} if model.endswith("-awq") else set()
    granite = model.startswith("tiny-granite")
    report = examine(MODELS / model, status=2 if granite else 0)
    assert rules(report) == ({"eos_of_turn"} if granite else set())
    assert rules(report, level="weak") == expected, report["findings"]


@pytest.mark.skipif(not REAL.is_dir(), reason="models/smollm2-nvfp4 is not there")
def test_healthy_real():
    report = examine(REAL)
    assert not rules(report) | rules(report, level="weak")


# ---- planted faults ----

Q0 = "model.layers.0.self_attn.q_proj"


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


def test_norm_is_not_finite(copy):
    folder, name = copy("tiny-gqa"), "model.layers.1.input_layernorm.weight"
    with fmt.edit(folder) as tensors:
        tensors[name][5] = 0x7F80
    assert rules(examine(folder, status=2), name) == {"unreadable"}


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


@pytest.mark.parametrize("model,a,b", [
    ("tiny-gqa-modelopt", "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"),
    ("tiny-qwen3-moe-modelopt", "model.layers.0.mlp.experts.2.gate_proj",
     "model.layers.0.mlp.experts.2.up_proj")])
def test_globals_of_shards(copy, model, a, b):
    assert "globals_of_shards" not in rules(examine(MODELS / model), level="note")
    folder = copy(model)
    with fmt.edit(folder) as tensors:
        tensors[b + ".weight_scale_2"][...] *= 1.25
    report = examine(folder)
    [found] = [f for f in report["findings"] if f["rule"] == "globals_of_shards"]
    assert (found["tensor"], found["other"]) == (a, b) and found["value"] == pytest.approx(1.25)


def test_unusable_input_scale(copy):
    for value in (0, np.inf, np.nan):
        folder = copy("tiny-gqa-modelopt")
        with fmt.edit(folder) as tensors:
            tensors[Q0 + ".input_scale"][...] = value
        assert rules(examine(folder), Q0, "weak") == {"input_scale"}


@pytest.mark.parametrize("model,name", [("tiny-gqa-nvfp4", "input_global_scale"),
                                        ("tiny-gqa-modelopt", "input_scale")])
def test_inverted_input_scale(copy, model, name):
    folder = copy(model)
    with fmt.edit(folder) as tensors:
        tensors[f"{Q0}.{name}"][...] = 1 / tensors[f"{Q0}.{name}"]
    assert rules(examine(folder, status=2)) == {"input_inverted"}


# ---- what is no finding ----

def test_errors(copy, tmp_path):
    """One line on standard error, nothing else, and the exit status of its kind."""
    folder = copy("tiny-gqa-nvfp4")
    whole = (folder / "model.safetensors").read_bytes()

    def refused(status, *arguments):
        done = call("inspect", *arguments, "--weights")
        assert (done.returncode, done.stdout) == (status, b""), done.stderr
        assert done.stderr.startswith(b"imp: ") and done.stderr.count(b"\n") == 1
        return done.stderr.decode()

    assert "nowhere" in refused(5, tmp_path / "nowhere")
    for size in (len(whole) - 1, len(whole) // 2, 100, 0):
        (folder / "model.safetensors").write_bytes(whole[:size])
        assert "model.safetensors" in refused(3, folder)
        assert "model.safetensors" in refused(3, MODELS / "tiny-gqa", "--reference", folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    refused(3, folder)
    (folder / "model.safetensors").rmdir()
    refused(3, folder)
    (folder / "config.json").write_text("{")
    assert "config.json" in refused(3, folder)


@pytest.mark.skipif(not pathlib.Path("/dev/full").is_char_device(), reason="no /dev/full")
@pytest.mark.parametrize("form", [["--json"], ["--csv"], []])
def test_full_disk(form):
    with open("/dev/full", "wb") as full:
        done = call("inspect", MODELS / "tiny-gqa-nvfp4", "--weights", "-q", *form, stdout=full)
    assert done.returncode == 5 and b"standard output: cannot write" in done.stderr
