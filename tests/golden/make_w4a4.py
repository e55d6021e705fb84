"""Logits of W4A4 runs (numerics.activations=nvfp4), for tests/python/test_w4a4.py: `make golden`.

transformers in fp32 on exactly dequantised weights, where the input of every quantised linear is
rounded to NVFP4 by the definition: per 16 columns f = E4M3(amax / (6 a)), saturating, codes the
nearest E2M1 of x / (f a), ties to even; a is the checkpoint's input scale. Dense models only: the
experts of a mixture are no modules of their own there.
"""
import json
import pathlib

import exact
import hf  # first: it quiets the tools' progress bars

import numpy as np
import torch

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
MODELS = ["tiny-gqa-nvfp4", "tiny-gqa-modelopt", "tiny-qwen3-nvfp4"]
E2M1 = [0, .5, 1, 1.5, 2, 3, 4, 6]
BETWEEN = [.25, .75, 1.25, 1.75, 2.5, 3.5, 5.]


def round_input(x, a):
    blocks = x.reshape(-1, 16)
    amax = blocks.abs().amax(1, keepdim=True)
    f = (amax / (6 * a)).clamp(max=448).to(torch.float8_e4m3fn).float()
    unit = blocks.abs() / torch.where(f == 0, 1, f * a)
    code = torch.zeros_like(unit)
    for i, edge in enumerate(BETWEEN):
        above = (unit > edge) | ((unit == edge) & (i % 2 == 1))  # a tie goes to the even code
        code = torch.where(above, E2M1[i + 1], code)
    return torch.where(f == 0, 0, torch.sign(blocks) * code * f * a).reshape(x.shape)


def round_inputs(model, raw):
    for name, module in model.named_modules():
        if name + ".input_global_scale" in raw:
            a = 1 / torch.from_numpy(np.array(raw[name + ".input_global_scale"][1])).reshape(())
        elif name + ".input_scale" in raw:
            a = torch.from_numpy(np.array(raw[name + ".input_scale"][1])).reshape(())
        else:
            continue
        module.forward = lambda x, m=module, a=a: torch.nn.functional.linear(
            round_input(x, a), m.weight, m.bias)


def main():
    cases = {}
    for name in MODELS:
        folder = DATA / "models" / name
        model = hf.load(folder, torch.float32)
        round_inputs(model, exact.read_folder(folder))
        for seed, count in enumerate((1, 24)):
            ids = np.random.default_rng(seed).integers(3, 290, count).tolist()
            cases[f"{name}.{count}"] = {"model": name, "ids": ids}
            np.save(DATA / "golden" / f"w4a4-{name}.{count}.npy", hf.logits(model, ids))
    (DATA / "golden" / "w4a4.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
