"""Perplexity of a text by transformers in fp32: the figures that `imp score --text` must meet.

    python ppl.py --gguf FILE [--model NAME=FOLDER ...] [--tokens 8192] [--imp BIN] [--write]

The text is encoded without special tokens and cut into windows of 1024 without overlap, each
from an empty cache; a window predicts all its tokens but the first. KL and top-1 agreement are
against the first model named. `windows` are the means of single
windows, so that a shorter text can be compared too. With --imp, that binary's reference
must give the same within --within. --write keeps the figures in tests/data/golden.
"""
import argparse
import json
import math
import pathlib
import subprocess

import torch

import hf

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
TEXT = DATA / "prose" / "news-from-nowhere.txt"


@torch.no_grad()
def log_probabilities(model, ids, window):
    """One [predicted tokens, vocabulary] tensor a window."""
    for start in range(0, len(ids), window):
        x = torch.tensor([ids[start:start + window]])
        if x.shape[1] > 1:
            yield x[0], torch.log_softmax(model(x).logits[0, :-1], -1)


def score(model, ids, window, reference):
    """The figures; `reference` is computed again, window by window: 262144 columns are too many to
    keep."""
    nll, kl, same, count, windows = 0.0, 0.0, 0, 0, []
    others = log_probabilities(reference, ids, window) if reference is not None else None
    for x, logp in log_probabilities(model, ids, window):
        this = -logp[torch.arange(len(x) - 1), x[1:]].double().sum().item()
        windows.append(round(this / (len(x) - 1), 7))
        nll += this
        count += len(x) - 1
        if others is not None:
            ref = next(others)[1]
            same += (ref.argmax(-1) == logp.argmax(-1)).sum().item()
            kl += sum((r.exp() * (r - p)).sum().double().item() for r, p in zip(ref, logp))
    out = dict(tokens=count, nll=nll / count, perplexity=math.exp(nll / count), windows=windows)
    if others is not None:
        out.update(kl=kl / count, top1_agreement=same / count)
    return out


def compare(imp, folder, expected, args):
    """The same windows of the same text by imp's fp32 reference."""
    done = subprocess.run([imp, "score", folder, "--text", TEXT, "--window", str(args.window),
                           "--tokens", str(args.tokens), "--json", "--quiet", "--set",
                           "runtime.reference=true"], capture_output=True, text=True, check=True)
    got = json.loads(done.stdout)
    off = got["perplexity"] / expected["perplexity"] - 1
    print(f"  imp: perplexity {got['perplexity']:.5f}, {100 * off:+.4f} %", flush=True)
    if got["tokens"] != expected["tokens"] or abs(off) > args.within:
        raise SystemExit(f"{folder}: imp and transformers disagree")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--ids", type=pathlib.Path, help="keep the text's ids here")
    parser.add_argument("--imp", help="this binary must give the same perplexities")
    parser.add_argument("--within", type=float, default=1e-3)
    parser.add_argument("--write", nargs="?", const="perplexity.json", metavar="NAME.json")
    args = parser.parse_args()
    # Far more text than so many tokens take: what comes later changes none of them.
    ids = hf.gguf_ids(args.gguf, TEXT.read_text()[:8 * args.tokens])[:args.tokens]
    if args.ids:
        args.ids.write_text(json.dumps(ids))
    results, reference = {}, None
    for item in args.model:
        name, folder = item.split("=", 1)
        model = hf.load(folder)
        results[name] = score(model, ids, args.window, reference)
        print(name, json.dumps(results[name]), flush=True)
        if args.imp:
            compare(args.imp, folder, results[name], args)
        reference = model if reference is None else reference
    if args.write:
        path = DATA / "golden" / args.write
        old = json.loads(path.read_text())["models"] if path.exists() else {}
        document = dict(text=TEXT.name, tokens=args.tokens, window=args.window,
                        first_ids=ids[:16], tools=hf.versions(), models={**old, **results})
        path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
