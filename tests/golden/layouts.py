"""Layouts of real files that no tool writes from a tiny model on a CPU, made from its plain file.

Everything here works on `name -> (dtype string, array)`, as exact.read_folder gives it.
"""
import json
import shutil

import numpy as np

import exact


def write_safetensors(path, tensors):
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        dtype, array = tensors[name]
        data = np.ascontiguousarray(array).tobytes()
        header[name] = dict(dtype=dtype, shape=list(array.shape), data_offsets=[at, at + len(data)])
        blobs.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def copy_of(tensors):
    return {n: (d, np.array(a)) for n, (d, a) in tensors.items()}


# ---- Qwen3.5 and Qwen3.6 ----

def stack_experts(tensors):
    """Hub files of qwen3_5_moe hold `experts.gate_up_proj` [E, 2I, H] and `experts.down_proj`
    [E, H, I] without `.weight`; transformers' save_pretrained splits a model that it did not load
    from such a file into one tensor an expert."""
    out = {n: t for n, t in tensors.items() if ".experts." not in n}
    for layer in sorted({n.split(".experts.")[0] for n in tensors if ".experts." in n}):
        def stack(kind):
            names = [n for n in tensors if n.startswith(f"{layer}.experts.") and kind in n]
            return np.stack([tensors[f"{layer}.experts.{e}.{kind}.weight"][1]
                             for e in range(len(names))])
        out[f"{layer}.experts.gate_up_proj"] = (
            "BF16", np.concatenate([stack("gate_proj"), stack("up_proj")], 1))
        out[f"{layer}.experts.down_proj"] = ("BF16", stack("down_proj"))
    return out


def add_mtp(tensors, seed):
    """The multi-token prediction head, which transformers drops: the shapes of the model's own
    full-attention layer, random numbers. And A_log and the gated norm in F32, as their module keeps
    them, with digits that BF16 has not."""
    g = np.random.Generator(np.random.PCG64(seed))
    prefix = "model.language_model.layers.2."
    hidden = tensors["model.language_model.norm.weight"][1].shape[0]
    shapes = {f"mtp.layers.0.{n[len(prefix):]}": t[1].shape for n, t in tensors.items()
              if n.startswith(prefix)}
    shapes.update({"mtp.fc.weight": (hidden, 2 * hidden), "mtp.norm.weight": (hidden,),
                   "mtp.pre_fc_norm_embedding.weight": (hidden,),
                   "mtp.pre_fc_norm_hidden.weight": (hidden,)})
    out = dict(tensors)
    for name in sorted(shapes):
        x = 0.2 * g.standard_normal(shapes[name], np.float32)
        out[name] = ("BF16", exact.f32_to_bf16(x))
    for name, (_, data) in tensors.items():
        if name.endswith(("A_log", "linear_attn.norm.weight")):
            value = exact.bf16_to_f32(data)
            out[name] = ("F32", value * (1 + 1e-3 * g.standard_normal(value.shape, np.float32)))
    return out


# ---- gpt-oss ----

def mxfp4(values):
    """[..., K] fp32 -> (blocks U8 [..., K/32, 16], scales U8 [..., K/32]): the exponent of the
    largest magnitude less E2M1's own, codes to nearest, low nibble first."""
    x = values.reshape(values.shape[:-1] + (-1, 32))
    amax = np.abs(x).max(-1)
    exponent = np.floor(np.log2(np.where(amax > 0, amax, 1))).astype(np.int32) - 2
    x = x / np.exp2(exponent.astype(np.float64))[..., None]
    middles = (exact.E2M1[1:8] + exact.E2M1[:7]) / 2
    codes = np.searchsorted(middles, np.abs(x)).astype(np.uint8) | (x < 0).astype(np.uint8) << 3
    return codes[..., 0::2] | codes[..., 1::2] << 4, (exponent + 127).astype(np.uint8)


def gpt_oss_mxfp4(tensors):
    """As openai's files: `*_blocks` [E, rows, K/32, 16], rows = outputs, gate and up alternating."""
    out = dict(tensors)
    for name in [n for n in tensors if n.endswith((".gate_up_proj", ".experts.down_proj"))]:
        value = exact.bf16_to_f32(out.pop(name)[1])
        blocks, scales = mxfp4(np.swapaxes(value, 1, 2))
        out[name + "_blocks"], out[name + "_scales"] = ("U8", blocks), ("U8", scales)
    return out


MXFP4_CONFIG = dict(modules_to_not_convert=["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                            "model.embed_tokens", "lm_head"], quant_method="mxfp4")


# ---- the table ----

def rewrite(folder, change):
    tensors = copy_of(exact.read_folder(folder))
    write_safetensors(folder / "model.safetensors", change(tensors))


def derive(source, name, change, quantization):
    """A folder beside `source` with the same tokenizer, other tensors and a quantization_config."""
    target = source.parent / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = quantization
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    rewrite(target, change)
    print(f"{name}: {sum(f.stat().st_size for f in target.iterdir())} bytes")


# What is done to the plain file of a family before the tools read it.
PLAIN = {"qwen3.5": lambda t: add_mtp(t, 31), "qwen3.5-moe": stack_experts}
# name -> (suffix, change, quantization_config)
DERIVED = {"gpt-oss": [("mxfp4", gpt_oss_mxfp4, MXFP4_CONFIG)]}
