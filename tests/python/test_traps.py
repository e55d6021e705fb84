"""Would the goldens see it? Faults that engines really had, planted one at a time.

A wrong engine on the right file computes what the right engine computes on some wrong file: rotary
pairs mixed up are rows of q and k permuted, a forgotten +1 is a gain less 1, a router that does not
renormalise is another field of the configuration. Each test plants such a fault in a copy of a tiny
checkpoint, runs imp's reference path on it and demands that the logits leave the stored golden by
more than test_golden.py allows. The control runs the same copy without a fault. HARMLESS are the
changes that must not move a bit.

    python tests/python/test_traps.py       prints the table of tests/golden/TRAPS.md
"""
import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "golden"), str(ROOT / "tests" / "python")]

import exact
import layouts
import test_golden as golden

MODELS = ROOT / "tests" / "data" / "models"


class Checkpoint:
    """A copy of a tiny checkpoint whose tensors and configuration may be changed."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        shutil.copytree(MODELS / name, folder)
        self.tensors = layouts.copy_of(exact.read_folder(folder))
        self.config = json.loads((folder / "config.json").read_text())
        self.text = self.config.get("text_config", self.config)

    def names(self, *ends):
        found = [n for n in self.tensors if n.endswith(ends)
                 and not n.startswith(("mtp.", "model.visual", "model.vision", "vision"))]
        assert found, f"{self.name}: no tensor ends with {ends}"
        return found

    def change(self, ends, function, keep=lambda name: True):
        """Replaces every value of the tensors whose names end so; F32, so that nothing else moves."""
        for name in filter(keep, self.names(*([ends] if isinstance(ends, str) else ends))):
            dtype, data = self.tensors[name]
            value = exact.bf16_to_f32(data) if dtype == "BF16" else data
            assert dtype in ("BF16", "F32")
            self.tensors[name] = ("F32", np.ascontiguousarray(function(value), np.float32))

    def value(self, name):
        dtype, data = self.tensors[name]
        return exact.bf16_to_f32(data) if dtype == "BF16" else data

    def write(self):
        (self.folder / "config.json").write_text(json.dumps(self.config))
        layouts.write_safetensors(self.folder / "model.safetensors", self.tensors)
        return self.folder


def zero(x):
    return 0 * x


def times(factor):
    return lambda x: x * np.float32(factor)


def plus(term):
    return lambda x: x + np.float32(term)


def set_to(value):
    return lambda x: np.full_like(x, value)


def field(path, value):
    """A fault in the configuration of the text model; DROP takes the field away."""
    def plant(c):
        *outer, last = path.split(".")
        at = c.text
        for key in outer:
            at = at[key]
        if value is DROP:
            del at[last]
        else:
            at[last] = value
    return plant


DROP = object()
NORMS = ("norm.weight", "layernorm.weight")


def not_gated(name):
    return "linear_attn.norm" not in name


def rows(heads, order):
    """The rows of each of `heads` heads in another order; a vector counts as one row each."""
    def apply(x):
        by_head = x.reshape(heads, -1, *x.shape[1:])
        return by_head[:, order].reshape(x.shape)
    return apply


def permuted_pairs(order_of, layers=lambda name: True):
    """q and k, their norms and biases, with each head's channels in another order."""
    def plant(c):
        t = c.text
        dim = t.get("head_dim") or t["hidden_size"] // t["num_attention_heads"]
        for end, heads in ((("q_proj.weight", "q_proj.bias"), t["num_attention_heads"]),
                           (("k_proj.weight", "k_proj.bias"), t["num_key_value_heads"]),
                           (("q_norm.weight", "k_norm.weight"), 1)):
            if any(n.endswith(end) for n in c.tensors):
                c.change(end, lambda x, h=heads: rows(h, order_of(x.shape[0] // h, dim))(x), layers)
    return plant


def interleaved(dim, _):
    """Pairs (2i, 2i + 1) in place of (i, i + d/2)."""
    return np.concatenate([np.arange(0, dim, 2), np.arange(1, dim, 2)])


def partial_pairs(dim, _):
    """Pairs (i, i + n) of the first 2n channels in place of (i, i + d/2), n = d/8."""
    n = dim // 8
    rest = np.arange(2 * n, dim)
    half = dim // 2 - n
    return np.concatenate([np.arange(n), rest[:half], np.arange(n, 2 * n), rest[half:]])


def q_and_gate_as_halves(c):
    heads = c.text["num_attention_heads"]

    def apply(x):
        both = x.reshape(2, heads, -1, x.shape[1])  # read as all of q, then all of the gate
        return both.swapaxes(0, 1).reshape(x.shape)
    c.change("q_proj.weight", apply)


def gate_of_attention_gone(c):
    heads = c.text["num_attention_heads"]

    def no_gate(x):
        out = x.reshape(heads, 2, -1, x.shape[1]).copy()
        out[:, 1] = 0  # sigmoid gives a half
        return out.reshape(x.shape)
    c.change("q_proj.weight", no_gate)
    c.change("self_attn.o_proj.weight", times(2))


def gate_of_shared_expert_gone(c):
    c.change("shared_expert_gate.weight", zero)
    c.change("shared_expert.down_proj.weight", times(2))


def ungrouped_qkvz(c):
    """qwen3_next's rows read as all of q, all of k, all of v, all of z."""
    t = c.text
    groups, dk, dv = (t["linear_num_key_heads"], t["linear_key_head_dim"],
                      t["linear_value_head_dim"] * t["linear_num_value_heads"]
                      // t["linear_num_key_heads"])

    def apply(x):
        parts = np.split(x, np.cumsum([groups * dk, groups * dk, groups * dv]))
        by_group = [p.reshape(groups, -1, x.shape[1]) for p in parts]
        return np.concatenate(by_group, 1).reshape(x.shape)
    c.change("in_proj_qkvz.weight", apply)


def value_heads_by_remainder(c):
    """Value head h takes key head h % Hk in place of h // (Hv / Hk), as GGUF orders them."""
    t = c.text
    hk, hv, dk, dv = (t["linear_num_key_heads"], t["linear_num_value_heads"],
                      t["linear_key_head_dim"], t["linear_value_head_dim"])
    order = np.arange(hv).reshape(-1, hk).T.reshape(-1)  # the head that should stand at each place

    def heads(x, width):
        return x.reshape(hv, width, *x.shape[1:])[order].reshape(x.shape)

    def channels(x):
        return np.concatenate([x[:2 * hk * dk], heads(x[2 * hk * dk:], dv)])
    c.change(("in_proj_qkv.weight", "conv1d.weight"), channels)
    c.change("in_proj_z.weight", lambda x: heads(x, dv))
    c.change(("in_proj_a.weight", "in_proj_b.weight", "A_log", "dt_bias"), lambda x: heads(x, 1))
    c.change("linear_attn.out_proj.weight",
             lambda x: heads(np.ascontiguousarray(x.T), dv).T)


def swap(one, other):
    def plant(c):
        for name in c.names(one):
            twin = name[:-len(one)] + other
            c.tensors[name], c.tensors[twin] = c.tensors[twin], c.tensors[name]
    return plant


def up_before_gate(c):
    c.change("experts.gate_up_proj", lambda x: np.concatenate(np.split(x, 2, 1)[::-1], 1))


def gate_and_up_as_halves(c):
    def apply(x):
        return np.stack(np.split(x, 2, -1), -1).reshape(x.shape)
    c.change(("experts.gate_up_proj", "experts.gate_up_proj_bias"), apply)


def value_after_key_norm(c):
    """Full layers of gemma4 without v_proj: V carries k_norm's gain."""
    for name in c.names("k_norm.weight"):
        layer = name.removesuffix("k_norm.weight")
        if layer + "v_proj.weight" in c.tensors:
            continue
        gain = c.value(name)
        c.change(layer + "o_proj.weight",
                 lambda x: x * np.tile(gain, x.shape[1] // gain.size)[None])


def router_reads_normed_stream(c):
    for name in c.names("router.scale"):
        gain = c.value(name.replace("router.scale", "pre_feedforward_layernorm_2.weight"))
        c.change(name, lambda x: x * gain)


def no_root_of_d(c):
    """A scale of d^-1/2 where gemma4 has 1."""
    c.change("q_norm.weight", lambda x: x * np.float32(x.size ** -0.5))


def embedding_scale(factor):
    """The stream's scale alone: the tied head's is taken back in the final gain."""
    def plant(c):
        offset = 1.0 if c.text["model_type"] == "gemma3_text" else 0.0
        c.change("embed_tokens.weight", times(factor))
        c.change(("model.norm.weight", "language_model.norm.weight"),
                 lambda x: (x + offset) / np.float32(factor) - offset)
    return plant


def root(n):
    """sqrt(n) as BF16 over sqrt(n)."""
    value = np.float32(np.sqrt(n))
    return value / exact.bf16_to_f32(exact.f32_to_bf16(value[None]))[0]


FINAL = ("model.norm.weight", "language_model.norm.weight")

# trap -> [(golden, fault)]. The number before the dot is the row of the list of traps; `0` are those
# of the seed's own history.
FAULTS = {
    "1.topk_not_renormalised": [("tiny-qwen3-moe", field("norm_topk_prob", False)),
                                ("tiny-qwen3-next", field("norm_topk_prob", False))],
    "1.topk_default_is_false": [("tiny-qwen3-moe", field("norm_topk_prob", DROP))],
    "1.topk_renormalised_anyway": [("tiny-qwen3-moe-raw", field("norm_topk_prob", True))],
    "2.gemma4_scale_of_q": [("tiny-gemma4", no_root_of_d), ("tiny-gemma4-ple", no_root_of_d)],
    "2.gemma4_gain_plus_one": [("tiny-gemma4", lambda c: c.change(NORMS, plus(1)))],
    "2.gemma4_value_after_key_norm": [("tiny-gemma4", value_after_key_norm)],
    "2.gemma4_router_reads_normed": [("tiny-gemma4-moe", router_reads_normed_stream)],
    "2.gemma4_router_scale_gone": [("tiny-gemma4-moe",
                                    lambda c: c.change("router.scale", set_to(1)))],
    "2.gemma4_expert_scale_gone": [("tiny-gemma4-moe",
                                    lambda c: c.change("per_expert_scale", set_to(1)))],
    "2.gemma4_layer_scalar_gone": [("tiny-gemma4", lambda c: c.change("layer_scalar", set_to(1)))],
    "2.gemma4_ple_scale_gone": [("tiny-gemma4-ple", lambda c: c.change(
        "embed_tokens_per_layer.weight", times(16 ** -0.5)))],
    "3.rope_proportional_pairs": [("tiny-gemma4-ple", permuted_pairs(
        partial_pairs, lambda n: "layers.1." in n or "layers.4." in n))],
    "4.embedding_scale_gone": [("tiny-gemma3-text", embedding_scale(48 ** -0.5))],
    "4.embedding_scale_unrounded": [("tiny-gemma4", embedding_scale(root(48)))],
    "5.q_and_gate_as_halves": [("tiny-qwen3.5", q_and_gate_as_halves),
                               ("tiny-qwen3-next", q_and_gate_as_halves)],
    "5.attention_gate_gone": [("tiny-qwen3.5", gate_of_attention_gone)],
    "6.qkvz_not_grouped": [("tiny-qwen3-next", ungrouped_qkvz)],
    "6.value_head_of_wrong_key": [("tiny-qwen3.5-moe", value_heads_by_remainder)],
    "6.beta_and_alpha_swapped": [("tiny-qwen3.5", swap("in_proj_a.weight", "in_proj_b.weight"))],
    "7.decay_sign_of_a_log": [("tiny-qwen3.5", lambda c: c.change("A_log", lambda x: -x)),
                              ("tiny-qwen3-next", lambda c: c.change("A_log", lambda x: -x))],
    "7.decay_without_dt_bias": [("tiny-qwen3.5", lambda c: c.change("dt_bias", zero))],
    "7.conv_newest_first": [("tiny-qwen3.5", lambda c: c.change(
        "conv1d.weight", lambda x: x[..., ::-1])), ("tiny-qwen3-next", lambda c: c.change(
            "conv1d.weight", lambda x: x[..., ::-1]))],
    "10.rope_interleaved": [(m, permuted_pairs(interleaved)) for m in (
        "tiny-gqa", "tiny-mistral", "tiny-mistral3", "tiny-qwen2", "tiny-qwen3")],
    "14.window_one_more": [(m, field("sliding_window", 25)) for m in (
        "tiny-mistral-window", "tiny-gemma3-text", "tiny-gemma4", "tiny-gpt-oss")],
    "14.window_one_less": [(m, field("sliding_window", 23)) for m in (
        "tiny-mistral-window", "tiny-gemma3", "tiny-gemma4-ple", "tiny-gpt-oss")],
    "14.window_forgotten": [("tiny-mistral-window", field("sliding_window", None))],
    "0.gain_without_plus_one": [(m, lambda c: c.change(NORMS, plus(-1), not_gated)) for m in (
        "tiny-gemma3-text", "tiny-qwen3-next", "tiny-qwen3.5", "tiny-qwen3.5-moe")],
    "0.final_gain_without_plus_one": [(m, lambda c: c.change(FINAL, plus(-1))) for m in (
        "tiny-gemma3-text", "tiny-qwen3.5", "tiny-qwen3.5-moe")],
    "0.gated_norm_plus_one": [("tiny-qwen3.5", lambda c: c.change(
        "linear_attn.norm.weight", plus(1)))],
    "0.eps": [("tiny-bias", field("rms_norm_eps", 1e-5)),
              ("tiny-qwen3.5", field("rms_norm_eps", 1e-5))],
    "0.scale_of_q": [("tiny-gemma3-text", field("query_pre_attn_scalar", 16)),
                     ("tiny-gemma3", field("query_pre_attn_scalar", 16))],
    "0.logit_softcap_gone": [("tiny-gemma4", field("final_logit_softcapping", None))],
    "0.shared_expert_gate_gone": [("tiny-qwen3.5-moe", gate_of_shared_expert_gone),
                                  ("tiny-qwen3-next", gate_of_shared_expert_gone)],
    "0.yarn_attention_factor": [("tiny-gpt-oss", field("rope_scaling.attention_factor", 1.0)),
                                ("tiny-ministral3", field("rope_parameters.mscale_all_dim", DROP))],
    "0.yarn_truncated": [("tiny-gpt-oss", field("rope_scaling.truncate", True))],
    "0.yarn_factor": [("tiny-ministral3", field("rope_parameters.factor", 1.5))],
    "0.query_scale_of_position": [("tiny-ministral3", field("rope_parameters.llama_4_scaling_beta",
                                                            1e-9))],
    "0.linear_rope_on_no_layer": [("tiny-gemma3", field("rope_scaling", None))],
    "0.one_base_for_both_kinds": [("tiny-gemma3-text", field("rope_local_base_freq", 1e6))],
    "0.layer_kinds_shifted": [("tiny-gemma3-text", lambda c: c.text["layer_types"].reverse())],
    "0.rotates_whole_head": [("tiny-qwen3.5", field("rope_parameters.partial_rotary_factor", 1.0))],
    "0.bias_forgotten": [("tiny-qwen2", lambda c: c.change("bias", zero)),
                         ("tiny-gpt-oss", lambda c: c.change("_proj.bias", zero)),
                         ("tiny-gpt-oss", lambda c: c.change("router.bias", zero)),
                         ("tiny-gpt-oss", lambda c: c.change("down_proj_bias", zero))],
    "0.glu_not_clamped": [("tiny-gpt-oss", field("swiglu_limit", 1000.0))],
    "0.sinks_forgotten": [("tiny-gpt-oss", lambda c: c.change("sinks", set_to(-1e4)))],
    "0.gate_and_up_order": [("tiny-gpt-oss", gate_and_up_as_halves),
                            ("tiny-qwen3.5-moe", up_before_gate)],
    "0.multipliers": [("tiny-granite", field(f, 1.0)) for f in (
        "embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")],
}


def lying_ignore_list(c):
    q = c.config["quantization_config"]
    q["ignore"] = ["lm_head", "model.layers.0.mlp*", "re:.*self_attn.*"]


def nan_in_pictures(c):
    for name in list(c.tensors):
        if "visual" in name or "vision" in name:
            dtype, data = c.tensors[name]
            c.tensors[name] = (dtype, np.full_like(data, 0x7FC0))


def second_copy(c):
    """Mistral's own file beside the others, in its own names and order."""
    layouts.write_safetensors(c.folder / "consolidated.safetensors",
                              {"layers.0.attention.wq.weight": ("F32", np.ones((2, 2), np.float32))})


def head_beside_tied(c):
    name = next(n for n in c.tensors if n.endswith("embed_tokens.weight"))
    c.tensors["lm_head.weight"] = c.tensors[name]


def without_mtp(c):
    for name in [n for n in c.tensors if n.startswith("mtp.")]:
        del c.tensors[name]


HARMLESS = {
    "2.gemma4_last_layer_is_full": ("tiny-gemma4", lambda c: c.text["layer_types"].__setitem__(
        -1, "sliding_attention")),
    "10.consolidated_file_beside": ("tiny-mistral3", second_copy),
    "13.head_beside_tied": ("tiny-qwen3", head_beside_tied),
    "15.ignore_list_lies": ("tiny-qwen3-modelopt", lying_ignore_list),
    "15.ignore_list_lies_too": ("tiny-qwen3-nvfp4", lying_ignore_list),
    "0.pictures_are_not_read": ("tiny-qwen3.5-moe", nan_in_pictures),
    "0.mtp_is_not_needed": ("tiny-qwen3.5", without_mtp),
}

CASES = [(trap, at) for trap, faults in FAULTS.items() for at in range(len(faults))]


def logits_of(name, plant, work):
    checkpoint = Checkpoint(name, work / "model")
    plant(checkpoint)
    prompts = [c["ids"] for c in golden.TINY[name]]
    return golden.logits(checkpoint.write(), prompts, "reference", work)


def distance(name, arrays):
    """The largest difference from the golden, in units of what test_golden.py allows."""
    cases = golden.TINY[name]
    return max(float(np.abs(got[:, ::case["stride"]] - golden.stored(name, case)).max()
                     / golden.allowed(cases, case, "reference"))
               for case, got in zip(cases, arrays))


@pytest.mark.parametrize("trap,at", CASES, ids=[f"{t}-{FAULTS[t][a][0]}-{a}" for t, a in CASES])
def test_golden_sees(trap, at, tmp_path):
    name, plant = FAULTS[trap][at]
    seen = distance(name, logits_of(name, plant, tmp_path))
    assert seen > 1, f"{trap} in {name}: only {seen:.2f} of what the golden allows"


@pytest.mark.parametrize("name", sorted({FAULTS[t][a][0] for t, a in CASES}))
def test_control(name, tmp_path):
    """The copy itself is not the fault: the same tensors, written by the same writer as F32."""
    same = logits_of(name, lambda c: c.change(NORMS, lambda x: x), tmp_path)
    assert distance(name, same) <= 1


@pytest.mark.parametrize("trap", HARMLESS)
def test_harmless(trap, tmp_path):
    name, plant = HARMLESS[trap]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    got = logits_of(name, plant, tmp_path / "a")
    want = logits_of(name, lambda c: None, tmp_path / "b")
    assert all(np.array_equal(a, b) for a, b in zip(got, want)), trap


def main():
    print("| trap | golden | difference, in units of what is allowed |\n|---|---|---|")
    for trap, at in CASES:
        name, plant = FAULTS[trap][at]
        with tempfile.TemporaryDirectory() as work:
            seen = distance(name, logits_of(name, plant, pathlib.Path(work)))
        print(f"| {trap} | {name} | {seen:.3g} |", flush=True)


if __name__ == "__main__":
    main()
