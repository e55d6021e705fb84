"""Real shapes, four layers, random weights: imp on the GPU against transformers on the same GPU.

    python3 families.py [--device cuda] [--layers 4] [--only NAME ...] [--vocab N]

Needs torch and transformers. transformers gets what the checkpoint's numbers mean, expanded here:
E2M1 code times block scale is exact, the product with the tensor's scale is rounded once, to fp32.
Its fp32 run is the measure and its own bf16 run the yardstick: over three prompts, no logit of imp's
may lie further from fp32 than bf16's furthest does. A line a prompt, then one a model.

With 8 experts of 128 a router nearly tosses a coin in one position of four, in each layer. Another
expert moves logits by as much in imp as in bf16, so the furthest says which of both had the dearest
toss. Models with routers may therefore also pass "by nine in ten": each position's largest difference,
and of these the median and what nine positions in ten stay below; both must be no more than bf16's.
"""
import argparse
import json
import os
import sys
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from safetensors import safe_open

import shapes

LENGTHS = [5, 64, 300]
E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])
SCALES = ("_scale", "_scale_2", "_global_scale", "_scales", "input_scale")


# ---- the checkpoint's numbers ----

def values(packed):
    """uint8 [..., n] -> fp32 [..., 2n]; the even one is the low half."""
    table = E2M1.to(packed.device)
    pair = torch.stack([table[(packed & 15).int()], table[(packed >> 4).int()]], -1)
    return pair.reshape(*packed.shape[:-1], -1)


def expand_nvfp4(packed, scales, multiplier):
    v = values(packed)
    unit = v.view(*v.shape[:-1], -1, 16) * scales.float().abs()[..., None]
    return (unit.double() * multiplier).float().view(v.shape)


def expand_mxfp4(blocks, exponents):
    """[E, N, K/32, 16] -> [E, K, N], as gpt-oss's own tensors lie."""
    v = values(blocks) * torch.exp2(exponents.float() - 127)[..., None]
    return v.flatten(2).transpose(1, 2).contiguous()


def read(folder, device):
    out = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt", device=device) as f:
            out.update({name: f.get_tensor(name) for name in f.keys()})
    return out


def expand(tensors):
    """name -> fp32, under the names of an unquantised text model. Empties `tensors`."""
    out = {}
    for name in sorted(tensors):
        stem = name.removesuffix(".weight").removesuffix(".weight_packed")
        plain = stem if name.endswith(("_blocks", "_bias")) else stem + ".weight"
        t = tensors[name]
        if name.endswith(".weight_packed"):
            multiplier = 1 / tensors[stem + ".weight_global_scale"].double().item()
            out[plain] = expand_nvfp4(t, tensors[stem + ".weight_scale"], multiplier)
        elif name.endswith(".weight") and t.dtype == torch.uint8:
            multiplier = tensors[stem + ".weight_scale_2"].double().item()
            out[plain] = expand_nvfp4(t, tensors[stem + ".weight_scale"], multiplier)
        elif name.endswith("_blocks"):
            out[name[:-len("_blocks")]] = expand_mxfp4(t, tensors[name[:-len("blocks")] + "scales"])
        elif not name.endswith(SCALES) or name.endswith(("router.scale", "per_expert_scale")):
            out[name] = t.float()
    tensors.clear()
    return {text_name(n): t for n, t in out.items()}


def text_name(name):
    """Of the text model alone: wrappers for pictures put a prefix before it."""
    return name.replace("model.language_model.", "model.").replace("language_model.", "")


def stack_experts(state):
    """One tensor an expert -> the stacks that transformers' modules have."""
    layers = sorted({n.split(".experts.")[0] for n in state if ".experts.0." in n})
    for layer in layers:
        def take(part):
            found = []
            while (name := f"{layer}.experts.{len(found)}.{part}_proj.weight") in state:
                found.append(state.pop(name))
            return torch.stack(found)
        state[f"{layer}.experts.gate_up_proj"] = torch.cat([take("gate"), take("up")], 1)
        state[f"{layer}.experts.down_proj"] = take("down")
    return state


# ---- the runs ----

def exactly():
    """fp32 means fp32: cuDNN would otherwise run convolutions in TF32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def build(folder, state, dtype, device):
    fields = json.loads((folder / "config.json").read_text())
    fields.pop("quantization_config", None)
    config = transformers.AutoConfig.for_model(**fields).get_text_config()
    if "lm_head.weight" in state:
        config.tie_word_embeddings = False
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="eager", experts_implementation="eager")
    missing, spare = model.load_state_dict({k: t.to(dtype) for k, t in state.items()},
                                           strict=False, assign=True)
    if config.tie_word_embeddings:
        model.tie_weights()
        missing = [m for m in missing if m != "lm_head.weight"]
    if missing or spare:
        raise RuntimeError(f"parameters missing {missing[:5]}, spare {spare[:5]}")
    for module in model.modules():
        # Gemma's factor is BF16 in every real file; fp32 weights would leave it unrounded.
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = module.embed_scale.to(torch.bfloat16).to(dtype)
    return model.eval()


@torch.no_grad()
def logits(model, prompts, device):
    return [model(torch.tensor([p], device=device)).logits[0].float().cpu().numpy() for p in prompts]


def of_imp(folder, prompts, device):
    with tempfile.TemporaryDirectory() as work:
        flags = []
        for i, ids in enumerate(prompts):
            with open(f"{work}/{i}.json", "w") as f:
                json.dump(ids, f)
            flags += ["--ids", f"{work}/{i}.json"]
        shapes.imp("score", folder, *flags, "--logits", f"{work}/l.npy", "--device", device)
        return [np.load(f"{work}/l.{i}.npy") for i in range(len(prompts))]


def compare(name, folder, args):
    config = json.loads((folder / "config.json").read_text())
    vocab = config.get("text_config", config)["vocab_size"]
    random = np.random.Generator(np.random.PCG64(1))
    prompts = [random.integers(0, vocab, n).tolist() for n in LENGTHS]
    got = of_imp(folder, prompts, args.device)
    state = stack_experts(expand(read(folder, args.device)))
    runs = []
    for dtype in (torch.float32, torch.bfloat16):
        model = build(folder, state, dtype, args.device)
        runs.append(logits(model, prompts, args.device))
        del model
    return verdict(name, got, runs[1], runs[0], any(".experts." in n for n in state))


def figures(got, want):
    """Of each position's largest difference: the largest, what nine in ten stay below, the median."""
    off = np.concatenate([np.abs(g - w).max(1) for g, w in zip(got, want)])
    return float(off.max()), float(np.quantile(off, 0.9)), float(np.median(off))


def verdict(name, got, bf16, want, experts):
    for n, g, b, w in zip(LENGTHS, got, bf16, want):
        a, c = figures([g], [w]), figures([b], [w])
        print(f"  {n:4} tokens: largest {a[0]:.4f} ({c[0]:.4f} in bf16), nine in ten {a[1]:.4f} "
              f"({c[1]:.4f}), median {a[2]:.4f} ({c[2]:.4f}); range {w.max() - w.min():.1f}", flush=True)
    a, c = figures(got, want), figures(bf16, want)
    by_most = experts and a[0] > c[0] and a[1] <= c[1] and a[2] <= c[2]
    return f"{'ok  ' if a[0] <= c[0] or by_most else 'FAIL'} {name:36} largest {a[0]:.4f} of " \
           f"{c[0]:.4f}, nine in ten {a[1] / c[1]:.2f}, median {a[2] / c[2]:.2f}" \
           f"{', by nine in ten' if by_most else ''}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=0, help="fewer tokens, for a quick look on a CPU")
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    exactly()
    table = []
    for name, form, _ in shapes.SHAPES:
        if args.only and name not in args.only:
            continue
        start = time.time()
        try:
            folder = shapes.made(name, form, args.layers, args.vocab)
            if folder is None:
                table.append(f"skip {name:38} its configuration is not in build/configs")
                continue
            print(name, flush=True)
            table.append(f"{compare(name, folder, args)}; {time.time() - start:.0f} s")
        except Exception as error:  # of transformers, too, which raises all kinds: a row, not the end
            table.append(f"FAIL {name:38} {str(error)[-200:]}")
        print(table[-1], flush=True)
        if args.device != "cpu":
            torch.cuda.empty_cache()
    failed = sum(t.startswith("FAIL") for t in table)
    print("\n".join(table))
    print(f"families, {args.layers} layers: {sum(t.startswith('ok') for t in table)} passed, "
          f"{failed} failed, {sum(t.startswith('skip') for t in table)} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
