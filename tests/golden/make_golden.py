"""Writes the stored logits that imp is compared with.

    python make_golden.py                       tests/data/models -> tests/data/golden/index.json, *.u16
    python make_golden.py --large FOLDER...     tests/data/golden/smollm2.json

The oracle is transformers in fp32, eager attention, over the exactly expanded file (exact.py). Every
case also has `bf16_diff`, the largest distance of transformers' own bf16 run from it, and
`fp64_diff`, that of a run in double precision: the fp32 oracle's own error.

A .u16 file is a row of cases; a case is [tokens, columns] of uint16, value = low + code * step, whose
error is 8e-6 of the range. Short prompts keep all columns of the vocabulary, long ones every fourth.
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


def cases_of(folder):
    """(ids, fp32 logits, bf16 distance, fp64 distance) per prompt."""
    config, arrays = hf.config_of(folder), exact.expand_folder(folder)
    ids = prompts(config.vocab_size, LENGTHS)
    runs = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        model = hf.build(config, arrays, dtype)
        runs[dtype] = [hf.logits(model, p) for p in ids]
    return [(p, a, float(np.abs(a - b).max()), float(np.abs(a - c).max()))
            for p, a, b, c in zip(ids, *runs.values())]


def write_small():
    out = DATA / "golden"
    out.mkdir(parents=True, exist_ok=True)
    models = {}
    for folder in sorted(p for p in (DATA / "models").iterdir() if p.is_dir()):
        cases, blob = [], b""
        for ids, logits, bf16_diff, fp64_diff in cases_of(folder):
            stride = 1 if len(ids) < 60 else 4
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
              "fp64 %.1e" % max(c["fp64_diff"] / c["range"] for c in cases))
    text = json.dumps({"tools": hf.versions(), "models": models}, indent=None,
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
    args = parser.parse_args()
    write_large(args.large) if args.large else write_small()


if __name__ == "__main__":
    main()
