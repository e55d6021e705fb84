"""`imp quantize` over the tiny model of every family: names, bytes and values against the files that
the makers' tools wrote and against tests/golden/exact.py, and what imp then computes."""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))
import exact  # noqa: E402

MODELS = ROOT / "tests" / "data" / "models"
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
MAKERS = {"-modelopt": "modelopt", "-modelopt-w4a16": "modelopt",
          "-nvfp4a16": "compressed-tensors", "-nvfp4": "compressed-tensors"}
FILES = "model.safetensors"


def folders():
    return sorted(p.name for p in MODELS.iterdir() if (p / FILES).exists())


def base_of(name):
    """("tiny-gqa", dialect) of a maker's folder whose source is here too."""
    for end, dialect in MAKERS.items():
        if name.endswith(end) and (MODELS / name[:-len(end)] / FILES).exists():
            return name[:-len(end)], dialect
    return None


MADE = [n for n in folders() if base_of(n)]
def is_source(name):
    """Nothing is quantised in it, or only as gpt-oss ships it."""
    config = json.loads((MODELS / name / "config.json").read_text())
    return config.get("quantization_config", {}).get("quant_method", "mxfp4") == "mxfp4"


PLAIN = [n for n in folders() if is_source(n)]
MIXTURES = [n for n in PLAIN if any(".experts." in t for t in exact.read_folder(MODELS / n))]


def quantize(source, target, method, dialect, *flags):
    done = subprocess.run([IMP, "quantize", source, target, "--method", method, "--format", dialect,
                           "--quiet", *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing to remark, a module that calibration missed least of all"
    return target


def score(folder, work, *flags):
    ids = work / "ids.json"
    ids.write_text(json.dumps([int(i) for i in np.random.default_rng(5).integers(3, 290, 40)]))
    done = subprocess.run([IMP, "score", folder, "--ids", ids, "--logits", work / "l.npy", *flags],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(work / "l.npy")


REFERENCE = ["--set", "runtime.reference=true"]


# ---- the makers' own files ----

def left_high(name):
    """What a maker's default recipe quantises and imp leaves as it is, or what a maker drops."""
    return ".linear_attn." in name or "per_layer_" in name or name.startswith("mtp.")


def theirs(name):
    tensors = exact.read_folder(MODELS / name)
    return {k: v for k, v in tensors.items() if not k.endswith(("input_scale", "input_global_scale"))}


@pytest.mark.parametrize("name", [n for n in MADE if base_of(n)[1] == "modelopt"])
def test_amax_gives_modelopts_bytes(name, tmp_path):
    base, dialect = base_of(name)
    ours = exact.read_folder(quantize(MODELS / base, tmp_path / "q", "amax", dialect))
    want = theirs(name)
    # ModelOpt keeps gpt-oss's experts in stacks with one multiplier for all of them.
    skip = (lambda k: left_high(k) or ".experts." in k) if "gpt-oss" in base else left_high
    assert {k for k in ours if not skip(k)} == {k for k in want if not skip(k)}
    same = [k for k in want if not skip(k)]
    assert sum(want[k][0] == "U8" for k in same) > 5
    for k in same:
        assert ours[k][0] == want[k][0] and ours[k][1].tobytes() == want[k][1].tobytes(), k


@pytest.mark.parametrize("name", [n for n in MADE if base_of(n)[1] == "compressed-tensors"])
def test_names_and_shapes_are_llmcompressors(name, tmp_path):
    base, dialect = base_of(name)
    ours = exact.read_folder(quantize(MODELS / base, tmp_path / "q", "sweep", dialect))

    def form(tensors):
        return {k: (v[0], v[1].shape) for k, v in tensors.items() if not left_high(k)}
    assert form(ours) == form(theirs(name))


# ---- values, on the base of what the source holds ----

def mxfp4(blocks, scales):
    values = exact.codes_to_values(blocks) * np.exp2(scales.astype(np.float64) - 127)[..., None]
    return values.reshape(*blocks.shape[:2], -1).astype(np.float32)


def source_values(folder):
    """name -> fp32, experts one by one, by other code than imp's."""
    raw, out = exact.read_folder(folder), {}
    plain = {"BF16": exact.bf16_to_f32, "F32": lambda x: x, "F16": lambda x: x.astype(np.float32)}
    for name, (dtype, data) in raw.items():
        module, _, leaf = name.rpartition(".")
        if leaf.endswith("_scales"):
            continue
        if leaf.endswith("_blocks"):
            data = mxfp4(data, raw[name.replace("_blocks", "_scales")][1])
            leaf = leaf[:-len("_blocks")]
        else:
            data = plain[dtype](data)
            if module.endswith(".experts") and f"{name}_bias" in raw:
                data = data.swapaxes(1, 2)  # gpt-oss in BF16: [in, out]
        if not module.endswith(".experts") or name.startswith("mtp."):
            out[name] = data
            continue
        kind = "bias" if leaf.endswith("_bias") else "weight"
        alternating = f"{module}.gate_up_proj_bias" in raw
        for e in range(len(data)):
            if leaf.startswith("down_proj"):
                out[f"{module}.{e}.down_proj.{kind}"] = data[e]
                continue
            half = data.shape[1] // 2
            gate, up = (slice(0, None, 2), slice(1, None, 2)) if alternating else (
                slice(0, half), slice(half, None))
            out[f"{module}.{e}.gate_proj.{kind}"] = data[e][gate]
            out[f"{module}.{e}.up_proj.{kind}"] = data[e][up]
    return out


@pytest.mark.parametrize("name", PLAIN)
def test_values(name, tmp_path):
    """Both dialects hold one model; it is the source's to NVFP4's precision, and MXFP4 exactly."""
    made = {d: quantize(MODELS / name, tmp_path / d, "sweep", d)
            for d in ("compressed-tensors", "modelopt")}
    ours = exact.expand_folder(made["modelopt"])
    other = exact.expand_folder(made["compressed-tensors"])
    want = source_values(MODELS / name)
    assert set(ours) == set(other) == set(want)
    raw, quantized = exact.read_folder(made["modelopt"]), 0
    for k, w in want.items():
        assert ours[k].shape == w.shape and np.array_equal(ours[k], other[k]), k
        if raw[k][0] != "U8":
            assert np.array_equal(ours[k], w), k
            continue
        quantized += 1
        error = float(((ours[k] - w) ** 2).sum() / (w ** 2).sum())
        if "mxfp4" in name and ".experts." in k:
            assert error == 0, k
        else:
            assert 0.003 < error < 0.012, (k, error)
    assert quantized >= 7


def is_linear(name, shape):
    leaf = name.split(".")[-2]
    embedding = "embed" in leaf and "proj" not in leaf
    return name.endswith(".weight") and len(shape) == 2 and "norm" not in leaf and not embedding


@pytest.mark.parametrize("dialect", ["compressed-tensors", "modelopt"])
@pytest.mark.parametrize("name", PLAIN)
def test_ignore_list_is_true(name, dialect, tmp_path):
    made = quantize(MODELS / name, tmp_path / "q", "amax", dialect)
    config = json.loads((made / "config.json").read_text())
    ignored = config["quantization_config"]["ignore"]
    raw = exact.read_folder(made)
    modules = {k.rsplit(".", 1)[0] for k in raw}
    quantized = {k.rsplit(".", 1)[0] for k in raw if k.endswith(".weight_scale")}
    assert not quantized & set(ignored) and len(set(ignored)) == len(ignored)
    for k, (_, data) in raw.items():
        if is_linear(k, data.shape) and k[:-len(".weight")] not in quantized:
            assert k[:-len(".weight")] in ignored, k
    for module in ignored:  # nothing invented, but for what readers call otherwise
        assert module == "lm_head" or module in modules or module.removeprefix("model.") in modules
    high = ("embed", "norm", "router", "lm_head", ".linear_attn.", "per_layer_", "visual", "vision",
            "mtp.", "shared_expert_gate", "conv1d")
    assert not [m for m in quantized if any(h in m for h in high) or m.endswith("mlp.gate")]


# ---- what imp computes ----

@pytest.mark.parametrize("name", PLAIN)
def test_imp_computes_with_these_values(name, tmp_path):
    """The folder of codes against a BF16 folder of their expansion: with multipliers that are powers
    of two, both hold the same numbers."""
    made = quantize(MODELS / name, tmp_path / "q", "weighted", "compressed-tensors")
    arrays = exact.expand_folder(made)
    plain = tmp_path / "plain"
    shutil.copytree(made, plain)
    config = json.loads((made / "config.json").read_text())
    del config["quantization_config"]
    (plain / "config.json").write_text(json.dumps(config))
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, plain / FILES)
    got, want = score(made, tmp_path, *REFERENCE), score(plain, tmp_path, *REFERENCE)
    assert np.abs(got - want).max() <= 2e-5 * (want.max() - want.min())
    source = score(MODELS / name, tmp_path, *REFERENCE)
    assert np.corrcoef(got.ravel(), source.ravel())[0, 1] > 0.7


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_are_weighted(name, tmp_path):
    """Calibration reaches every part of every expert, and threads change nothing."""
    weighted = exact.read_folder(
        quantize(MODELS / name, tmp_path / "w", "weighted", "modelopt", "--threads", "1"))
    again = exact.read_folder(
        quantize(MODELS / name, tmp_path / "w2", "weighted", "modelopt", "--threads", "2"))
    sweep = exact.read_folder(quantize(MODELS / name, tmp_path / "s", "sweep", "modelopt"))
    experts = [k for k, v in sweep.items() if ".experts." in k and v[0] == "U8"]
    assert len(experts) >= 24 and all((weighted[k][1] == again[k][1]).all() for k in weighted)
    if "mxfp4" not in name:  # there is no error to weigh
        assert all((weighted[k][1] != sweep[k][1]).any() for k in experts)


@pytest.mark.parametrize("name", PLAIN)
def test_none_changes_nothing(name, tmp_path):
    made = quantize(MODELS / name, tmp_path / "n", "none", "compressed-tensors")
    assert "quantization_config" not in json.loads((made / "config.json").read_text())
    assert score(made, tmp_path).tobytes() == score(MODELS / name, tmp_path).tobytes()
    got, want = exact.read_folder(made), exact.read_folder(MODELS / name)
    if "mxfp4" in name:
        want.update({k: v for k, v in exact.read_folder(MODELS / "tiny-gpt-oss").items()
                     if ".experts." in k and k not in want})
        want = {k: v for k, v in want.items() if not k.endswith(("_blocks", "_scales"))}
        assert {k: v[1].shape for k, v in got.items()} == {k: v[1].shape for k, v in want.items()}
        return
    assert {k: (v[0], v[1].tobytes()) for k, v in got.items()} == {
        k: (v[0], v[1].tobytes()) for k, v in want.items()}
