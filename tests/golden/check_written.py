"""Loads what `imp quantize` wrote by the makers' own code and compares it with our reading.

    python check_written.py FOLDER...

compressed-tensors folders: transformers loads them with compressed-tensors; every module's codes are
unpacked by compressed-tensors and its BF16 expansion is what the model computes with. ModelOpt
folders: every matrix is unpacked by ModelOpt's NVFP4QTensor. All values must be equal to exact.py's,
which are fp32; where the makers' code expands to BF16, to those rounded to BF16. The `amax` method's
multiplier is no power of two, so there the makers' order of products may differ in the last place.
"""
import json
import pathlib
import sys

import exact
import hf  # first: it quiets the tools' progress bars

import numpy as np
import torch


def tensor(pair):
    dtype, data = pair
    t = torch.from_numpy(np.array(data))
    return {"F8_E4M3": lambda: t.view(torch.float8_e4m3fn), "BF16": lambda: t.view(torch.bfloat16)}.get(
        dtype, lambda: t)()


def by_modelopt(raw, name):
    from modelopt.torch.quantization.qtensor import NVFP4QTensor
    path = name[:-len(".weight")]
    codes = tensor(raw[name])
    shape = torch.Size((codes.shape[0], codes.shape[1] * 2))
    q = NVFP4QTensor(shape, torch.float32, codes)
    return q.dequantize(dtype=torch.float32, scale=tensor(raw[path + ".weight_scale"]),
                        double_scale=tensor(raw[path + ".weight_scale_2"]),
                        block_sizes={-1: 16}).numpy()


def by_compressed_tensors(raw, name):
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    path = name[:-len(".weight")]
    packed = tensor(raw[path + ".weight_packed"])
    values = unpack_fp4_from_uint8(packed, packed.shape[0], packed.shape[1] * 2, torch.float32)
    scale = tensor(raw[path + ".weight_scale"]).float() / tensor(raw[path + ".weight_global_scale"])
    return (values * scale.repeat_interleave(16, 1)).numpy()


def power_of_two(raw, name):
    path = name[:-len(".weight")]
    pair = raw.get(path + ".weight_scale_2") or raw[path + ".weight_global_scale"]
    return np.frexp(float(pair[1].reshape(-1)[0]))[0] == 0.5


def check(folder):
    raw, ours = exact.read_folder(folder), exact.expand_folder(folder)
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    method = config["quantization_config"]["quant_method"]
    unpack = by_modelopt if method == "modelopt" else by_compressed_tensors
    matrices = [n for n in ours if n not in raw or raw[n][0] == "U8"]
    if not matrices:
        raise SystemExit(f"{folder}: nothing quantised")
    exact_ones = 0
    for name in matrices:
        theirs, mine = unpack(raw, name), ours[name]
        if power_of_two(raw, name):
            exact_ones += 1
            if not np.array_equal(theirs, mine):
                raise SystemExit(f"{folder}: {name}: {(theirs != mine).sum()} values differ")
        elif not np.allclose(theirs, mine, rtol=3e-7, atol=0):
            raise SystemExit(f"{folder}: {name}: values differ")
    print(f"{folder}: {len(matrices)} matrices unpacked by {method}, {exact_ones} bit for bit")
    if method == "modelopt":
        return
    model = hf.auto_class(hf.config_of(folder)).from_pretrained(folder, dtype=torch.bfloat16,
                                                                attn_implementation="eager")
    ids = [1, 5, 9, 200, 17, 33]
    got = hf.logits(model.eval(), ids)
    want = hf.logits(hf.load(folder, torch.bfloat16), ids)
    worst = float(np.abs(got - want).max() / (want.max() - want.min()))
    print(f"{folder}: transformers' own loading, largest difference {worst:.2e} of the range")
    if worst > (0 if exact_ones == len(matrices) else 0.05):
        raise SystemExit(f"{folder}: transformers computes with other weights")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        check(argument)
