"""Writes the stored logits that imp is compared with.

    python make_golden.py [--only PREFIX...]    tests/data/models -> tests/data/golden/index.json, *.u16
    python make_golden.py --large FOLDER...     tests/data/golden/smollm2.json

The oracle is transformers in fp32, eager attention, over the exactly expanded file (exact.py). Every
case also has `bf16_diff`, the largest distance of transformers' own bf16 run from it, and
`fp64_diff`, that of a run in double precision: the fp32 oracle's own error.

A .u16 file is a row of cases; a case is [tokens, columns] of uint16, value = low + code * step, whose
error is 8e-6 of the range. Short prompts keep all columns of the vocabulary, long ones every fourth
(Llama) or, to keep the repository small, every fifth and thirteenth (the other families).
"""
import argparse
import json
import pathlib

import numpy as np
import torch

import exact
import hf
from make_checkpoints import random_ids

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent / "data"
LENGTHS = [1, 2, 7, 17, 31, 64, 65, 130]
LARGE_LENGTHS = [1, 17, 48, 130]


def prompts(vocab, lengths):
    return [random_ids(vocab, 1, n, 1000 + i)[0] for i, n in enumerate(lengths)]


def stride_of(family, tokens):
    if family == "llama":
        return 1 if tokens < 60 else 4
    return 1 if tokens < 10 else 5 if tokens < 60 else 13


@torch.no_grad()
def narrowest(model, ids):
    """The first position where a router nearly chose another expert, or None: where the k-th and
    the next score lie closer than a tenth of the scores' spread, which is more than bf16 is off."""
    found, hooks = [], []
    k = getattr(model.config.get_text_config(), "num_experts_per_tok", None)
    k = k or getattr(model.config.get_text_config(), "top_k_experts", None)

    def look(module, inputs, _):
        linear = getattr(module, "proj", module)
        x = inputs[0].reshape(-1, linear.weight.shape[1])
        scores = torch.nn.functional.linear(x, linear.weight, getattr(linear, "bias", None))
        top = scores.sort(-1, descending=True).values
        found.extend((top[:, k - 1] - top[:, k] < 0.1 * scores.std()).nonzero().flatten().tolist())
    for module in model.modules():
        if type(module).__name__.endswith("Router"):
            hooks.append(getattr(module, "proj", module).register_forward_hook(look))
    if hooks:
        hf.logits(model, ids)
    for h in hooks:
        h.remove()
    return min(found, default=None)


def decided(model, ids, seed):
    """The same prompt with other tokens where a router would have to toss a coin. Rounding then
    changes an expert's output and never the choice of the expert, and a difference of logits
    measures arithmetic. (Causal: what stands before the position keeps its scores.)"""
    g = np.random.Generator(np.random.PCG64(seed))
    while (at := narrowest(model, ids)) is not None:
        ids[at] = int(g.integers(0, model.config.get_text_config().vocab_size))
    return ids


def cases_of(folder):
    """(ids, fp32 logits, bf16 distance, fp64 distance) per prompt."""
    ids = prompts(hf.config_of(folder).get_text_config().vocab_size, LENGTHS)
    runs = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        model = hf.load(folder, dtype)
        if dtype == torch.float32:
            ids = [decided(model, p, len(p)) for p in ids]
        runs[dtype] = [hf.logits(model, p) for p in ids]
    return [(p, a, float(np.abs(a - b).max()), float(np.abs(a - c).max()))
            for p, a, b, c in zip(ids, *runs.values())]


def write_small(only):
    out = DATA / "golden"
    out.mkdir(parents=True, exist_ok=True)
    models = json.loads((out / "index.json").read_text())["models"] if only else {}
    for folder in sorted(p for p in (DATA / "models").iterdir() if p.is_dir()):
        if only and not folder.name.startswith(tuple(only)):
            continue
        family, cases, blob = hf.config_of(folder).model_type, [], b""
        for ids, logits, bf16_diff, fp64_diff in cases_of(folder):
            stride = stride_of(family, len(ids))
            kept = logits[:, ::stride]
            low, high = float(logits.min()), float(logits.max())
            step = (high - low) / 65535
            codes = np.rint((kept.astype(np.float64) - low) / step).astype("<u2")
            cases.append(dict(ids=ids, offset=len(blob), columns=kept.shape[1], stride=stride,
                              low=low, step=step, range=high - low, bf16_diff=bf16_diff,
                              fp64_diff=fp64_diff))
            blob += codes.tobytes()
        (out / f"{folder.name}.u16").write_bytes(blob)
        models[folder.name] = cases
        print(folder.name, "range %.1f" % cases[-1]["range"],
              "bf16 %.4f" % max(c["bf16_diff"] / c["range"] for c in cases),
              "fp64 %.1e" % max(c["fp64_diff"] / c["range"] for c in cases), flush=True)
    text = json.dumps({"tools": hf.versions(), "models": dict(sorted(models.items()))}, indent=None,
                      separators=(",", ":"))
    (out / "index.json").write_text(text.replace('{"ids"', '\n{"ids"') + "\n")


def write_large(folders):
    """For models that are not committed: the 16 largest logits of each position, and sums."""
    models = {}
    for folder in folders:
        config, arrays = hf.config_of(folder), exact.expand_folder(folder)
        ids = prompts(config.vocab_size, LARGE_LENGTHS)
        full, half = hf.build(config, arrays), hf.build(config, arrays, torch.bfloat16)
        full, half = ([hf.logits(m, p) for p in ids] for m in (full, half))
        cases = []
        for p, a, b in zip(ids, full, half):
            top = np.argsort(-a, axis=1, kind="stable")[:, :16]
            cases.append(dict(
                ids=p, range=float(a.max() - a.min()), bf16_diff=float(np.abs(a - b).max()),
                top_ids=top.tolist(),
                top_logits=[[round(float(v), 5) for v in row]
                            for row in np.take_along_axis(a, top, 1)],
                mean=[round(float(v), 6) for v in a.astype(np.float64).mean(1)],
                rms=[round(float(v), 6) for v in np.sqrt((a.astype(np.float64) ** 2).mean(1))]))
        models[folder.name] = cases
        print(folder.name, ["%.4f" % (c["bf16_diff"] / c["range"]) for c in cases])
    text = json.dumps({"tools": hf.versions(), "models": models}, separators=(",", ":"))
    (DATA / "golden" / "smollm2.json").write_text(text.replace('{"ids"', '\n{"ids"') + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", nargs="*", type=pathlib.Path)
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    write_large(args.large) if args.large else write_small(args.only)


if __name__ == "__main__":
    main()
