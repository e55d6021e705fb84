"""Perplexity of a text by transformers in fp32: the figures that `imp score --text` must meet.

    python ppl.py --gguf FILE [--model NAME=FOLDER ...] [--tokens 8192] [--write]

The text is encoded whole, without special tokens, and cut into windows of 1024 without overlap, each
from an empty cache; a window predicts all its tokens but the first. KL and top-1 agreement are
against the first model named. `windows` are the means of single
windows, so that a shorter text can be compared too. --write keeps the figures in tests/data/golden/perplexity.json.
"""
import argparse
import json
import math
import pathlib

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
    """The figures, and the log-probabilities themselves for the models that follow."""
    nll, kl, same, count, kept, windows = 0.0, 0.0, 0, 0, [], []
    for i, (x, logp) in enumerate(log_probabilities(model, ids, window)):
        this = -logp[torch.arange(len(x) - 1), x[1:]].double().sum().item()
        windows.append(round(this / (len(x) - 1), 7))
        nll += this
        count += len(x) - 1
        if reference is None:
            kept.append(logp)
        else:
            ref = reference[i]
            kl += (ref.exp() * (ref - logp)).double().sum().item()
            same += (ref.argmax(-1) == logp.argmax(-1)).sum().item()
    out = dict(tokens=count, nll=nll / count, perplexity=math.exp(nll / count), windows=windows)
    if reference is not None:
        out.update(kl=kl / count, top1_agreement=same / count)
    return out, kept


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    ids = hf.gguf_tokenizer(args.gguf).encode(TEXT.read_text(), add_special_tokens=False).ids
    ids = ids[:args.tokens]
    results, reference = {}, None
    for item in args.model:
        name, folder = item.split("=", 1)
        model = hf.load(folder)
        results[name], kept = score(model, ids, args.window, reference)
        print(name, json.dumps(results[name]), flush=True)
        reference = kept if reference is None else reference
    if args.write:
        path = DATA / "golden" / "perplexity.json"
        old = json.loads(path.read_text())["models"] if path.exists() else {}
        document = dict(text=TEXT.name, tokens=args.tokens, window=args.window,
                        first_ids=ids[:16], tools=hf.versions(), models={**old, **results})
        path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
