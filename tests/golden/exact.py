"""Reads a checkpoint's tensors and expands NVFP4 exactly, in fp32, without the makers' code.

Both dialects store E2M1 codes (two a byte, even column low) under one E4M3 scale byte per 16
columns and one fp32 scalar per matrix: compressed-tensors writes that scalar as a divisor
(weight_global_scale), ModelOpt as a multiplier (weight_scale_2). code * scale has at most 6
significant bits; the product with the scalar is rounded once, to fp32. compressed-tensors' own
expansion rounds to BF16 and so is no oracle at 1e-3.
"""
import json
import pathlib

import numpy as np

E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def e4m3_table():
    out = np.empty(256, np.float32)
    for b in range(256):
        sign, e, m = (-1.0 if b & 0x80 else 1.0), b >> 3 & 15, b & 7
        if b & 0x7F == 0x7F:
            out[b] = np.nan
        else:
            out[b] = sign * (m * 2.0 ** -9 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7))
    return out


E4M3 = e4m3_table()


def bf16_to_f32(u16):
    return (u16.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16)


def read_safetensors(path):
    """name -> (dtype string, numpy array of the raw element type)."""
    raw = np.memmap(path, np.uint8, "r")
    n = int.from_bytes(bytes(raw[:8]), "little")
    header = json.loads(bytes(raw[8:8 + n]))
    types = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F8_E4M3": np.uint8,
             "U8": np.uint8, "I64": np.int64, "I32": np.int32}
    out = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        a, b = info["data_offsets"]
        data = raw[8 + n + a:8 + n + b].view(types[info["dtype"]]).reshape(info["shape"])
        out[name] = (info["dtype"], data)
    return out


def read_folder(folder):
    folder = pathlib.Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    out = {}
    for name in files:
        out.update(read_safetensors(folder / name))
    return out


def codes_to_values(packed):
    out = np.empty(packed.shape[:-1] + (packed.shape[-1] * 2,), np.float32)
    out[..., 0::2] = E2M1[packed & 15]
    out[..., 1::2] = E2M1[packed >> 4]
    return out


def expand_nvfp4(packed, scale_bytes, multiplier):
    """The value of every weight; multiplier is an fp32 number (a divisor arrives as its inverse in
    double, so that the one rounding is that of the exact quotient)."""
    unit = codes_to_values(packed) * np.repeat(E4M3[scale_bytes & 0x7F], 16, axis=-1)
    return (unit.astype(np.float64) * float(multiplier)).astype(np.float32)


def expand_mxfp4(blocks, scales):
    """[E, N, K/32, 16] codes and [E, N, K/32] E8M0 exponents -> [E, K, N]; exact in fp32."""
    unit = codes_to_values(blocks) * np.exp2(scales.astype(np.float32) - 127)[..., None]
    return np.swapaxes(unit.reshape(unit.shape[:2] + (-1,)), 1, 2)


def expand_folder(folder):
    """name -> fp32 array, under the names an unquantised checkpoint has."""
    tensors, out = read_folder(folder), {}
    for name, (dtype, data) in tensors.items():
        if name.endswith(".weight_packed"):
            path = name[:-len(".weight_packed")]
            divisor = float(tensors[path + ".weight_global_scale"][1].reshape(-1)[0])
            scale = tensors[path + ".weight_scale"][1]
            out[path + ".weight"] = expand_nvfp4(data, scale, 1.0 / divisor)
        elif name.endswith(".weight") and dtype == "U8":
            path = name[:-len(".weight")]
            multiplier = tensors[path + ".weight_scale_2"][1].reshape(-1)[0]
            out[name] = expand_nvfp4(data, tensors[path + ".weight_scale"][1], multiplier)
        elif name.endswith("_blocks"):
            # gpt-oss: rows are outputs, while its plain tensors are [E, inputs, outputs].
            out[name[:-len("_blocks")]] = expand_mxfp4(data, tensors[name[:-6] + "scales"][1])
        elif name.endswith("_scales"):
            continue
        elif name.endswith((".weight_scale", ".weight_scale_2", ".weight_global_scale",
                            ".input_scale", ".input_global_scale")):
            continue
        elif dtype == "BF16":
            out[name] = bf16_to_f32(data)
        elif dtype in ("F16", "F32"):
            out[name] = data.astype(np.float32)
        else:
            raise SystemExit(f"{folder}: {name}: unexpected dtype {dtype}")
    return out
