"""Writes tests/data/nvfp4/activations.safetensors: rows of BF16 activations as the makers' own code
quantises them for W4A4, in both conventions of the input scale.

    python make_activations.py

x [rows, 96] BF16. ModelOpt (NVFP4QTensor): `mo.scale` F32 [rows] is input_scale, a multiplier;
compressed-tensors (dynamic "local" tensor groups): `ct.scale` is input_global_scale, a divisor.
`*.codes` U8 [rows, 48], even element low; `*.scales` F8_E4M3 [rows, 6]. The rows of `ct.scale` are
those of `mo.scale` in turn: a power of two, a value rounded to BF16 as llm-compressor saves, any.
"""
import pathlib

import torch
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.quant_scheme import NVFP4
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp
from modelopt.torch.quantization.qtensor import NVFP4QTensor
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "nvfp4" / "activations.safetensors"
ROWS, COLUMNS = 96, 96


def rows():
    """Gaussian, heavy tails, outlier channels, ties at every step, zeros, wide ranges."""
    g = torch.Generator().manual_seed(7)
    x = torch.randn(ROWS, COLUMNS, generator=g)
    x[16:32] = x[16:32] ** 3
    x[32:48, ::17] *= 60
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 0.0, 6.0])
    x[48:64] = ties.repeat(6) * torch.where(torch.arange(COLUMNS) % 3 == 0, -1.0, 1.0)
    x[48:64] *= 2.0 ** torch.arange(-8, 8).unsqueeze(1)
    x[64:80] *= 2.0 ** torch.randint(-12, 13, (16, 6), generator=g).repeat_interleave(16, 1)
    x[80, :] = 0
    x[81, 16:] = 0
    return x.to(torch.bfloat16)


def compressed_tensors(x, divisor):
    args = NVFP4["input_activations"]
    scale, zero = compute_dynamic_scales_and_zp(x, args, module=None, global_scale=divisor)
    q = quantize(x, scale, zero, args, global_scale=divisor)
    return pack_fp4_to_uint8(q.to(torch.bfloat16)), scale.to(torch.float8_e4m3fn)


def modelopt(x, multiplier):
    q, scale, _ = NVFP4QTensor.quantize(x, 16, weights_scaling_factor_2=multiplier)
    return q._quantized_data, scale


def main():
    x = rows()
    out = {"x": x, "mo.scale": [], "mo.codes": [], "mo.scales": [], "ct.scale": [], "ct.codes": [],
           "ct.scales": []}
    for i in range(ROWS):
        row = x[i:i + 1].float()
        amax = row.abs().max().clamp(min=1e-3)
        amax = amax * [1.0, 0.25, 3.0, 0.9][i % 4]  # calibrated right, too low, too high, too low
        divisor = (2688 / amax).reshape(1)
        if i % 3 == 0:
            divisor = torch.exp2(divisor.log2().floor())
        if i % 3 == 1:
            divisor = divisor.to(torch.bfloat16).float()
        for name, scale, make in (("ct", divisor, compressed_tensors),
                                  ("mo", (amax / 2688).reshape(1), modelopt)):
            codes, scales = make(row.clone(), scale)
            out[f"{name}.scale"].append(scale)
            out[f"{name}.codes"].append(codes.reshape(-1))
            out[f"{name}.scales"].append(scales.reshape(-1))
    for name, value in out.items():
        if name.endswith(".scale"):
            out[name] = torch.cat(value)
        elif name != "x":
            out[name] = torch.stack(value)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(out, OUT)


if __name__ == "__main__":
    main()
