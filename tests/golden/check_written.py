"""Loads what `imp quantize` wrote by the makers' own code and compares it with our reading.

    python check_written.py [--imp BIN] FOLDER...

compressed-tensors folders: transformers loads them with compressed-tensors; every module's codes are
unpacked by compressed-tensors and its BF16 expansion is what the model computes with. ModelOpt
folders: every matrix is unpacked by ModelOpt's NVFP4QTensor. All values must be equal to exact.py's,
which are fp32; where the makers' code expands to BF16, to those rounded to BF16. The `amax` method's
multiplier is no power of two, so there the makers' order of products may differ in the last place.
With --imp, imp's fp32 reference must give the logits that transformers gives in fp32 with exact.py's
values, to 1e-3 of their range.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

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


def restack(arrays, gpt_oss):
    """Experts one by one as the stacks that transformers reads of gemma4 and gpt_oss."""
    out = {n: a for n, a in arrays.items() if ".experts." not in n}
    for module in sorted({n.split(".experts.")[0] for n in arrays if ".experts." in n}):
        def stack(leaf):
            parts, base = [], f"{module}.experts."
            while f"{base}{len(parts)}.{leaf}" in arrays:
                parts.append(arrays[f"{base}{len(parts)}.{leaf}"])
            return np.stack(parts)
        for kind in ("weight", "bias") if gpt_oss else ("weight",):
            gate, up = stack(f"gate_proj.{kind}"), stack(f"up_proj.{kind}")
            down, end = stack(f"down_proj.{kind}"), "_bias" if kind == "bias" else ""
            both = np.concatenate([gate, up], 1)
            if gpt_oss:  # rows alternate, and matrices stand transposed
                both = np.stack([gate, up], 2).reshape(both.shape)
                if kind == "weight":
                    both, down = both.swapaxes(1, 2), down.swapaxes(1, 2)
            out[f"{module}.experts.gate_up_proj{end}"] = both
            out[f"{module}.experts.down_proj{end}"] = down
    return out


def exact_model(folder, dtype=torch.float32):
    arrays = exact.expand_folder(folder)
    kind = hf.config_of(folder).get_text_config().model_type
    if any(".experts." in n for n in arrays) and kind in ("gemma4_text", "gpt_oss"):
        return hf.read(folder, restack(arrays, kind == "gpt_oss"), dtype)
    return hf.load(folder, dtype)


IDS = [1, 5, 9, 200, 17, 33, 299, 64, 64, 3, 128, 77]


def by_imp(imp, folder):
    with tempfile.TemporaryDirectory() as work:
        ids, out = pathlib.Path(work, "ids.json"), pathlib.Path(work, "logits.npy")
        ids.write_text(json.dumps(IDS))
        subprocess.run([imp, "score", folder, "--ids", ids, "--logits", out, "--quiet", "--set",
                        "runtime.reference=true"], check=True)
        return np.load(out)


def share(got, want):
    return float(np.abs(got - want).max() / (want.max() - want.min()))


def check_logits(imp, folder):
    worst = share(by_imp(imp, folder), hf.logits(exact_model(folder), IDS))
    print(f"{folder}: imp against transformers in fp32, largest difference {worst:.2e} of the range")
    if worst > 1e-3:
        raise SystemExit(f"{folder}: imp computes with other weights")


def check(folder, imp=None):
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
    if imp:
        check_logits(imp, folder)
    # transformers 5.17 makes experts anew that a file has one by one and quantised, the makers' own
    # files' too.
    if method == "modelopt" or any(".experts." in n for n in ours):
        return
    model = hf.auto_class(hf.config_of(folder)).from_pretrained(folder, dtype=torch.bfloat16,
                                                                attn_implementation="eager")
    worst = share(hf.logits(model.eval(), IDS), hf.logits(hf.load(folder, torch.bfloat16), IDS))
    print(f"{folder}: transformers' own loading, largest difference {worst:.2e} of the range")
    if worst > (0 if exact_ones == len(matrices) else 0.05):
        raise SystemExit(f"{folder}: transformers computes with other weights")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--imp", help="this binary's logits must be transformers'")
    parser.add_argument("folders", nargs="+")
    args = parser.parse_args()
    for folder in args.folders:
        check(folder, args.imp)


if __name__ == "__main__":
    main()
