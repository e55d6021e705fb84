"""SmolLM2's perplexity on the GPU against transformers' fp32 on the same GPU: within 0.3 %.

    python3 perplexity.py [--model FOLDER] [--device cuda] [--tokens 8192]

The model, as `imp quantize` makes it, is too large to travel with the repository at once. So here:

    tar c -C models smollm2-nvfp4 | xz -T0 | split -b 44M -d - build/smollm2.

and there, each piece in a call of its own, which carries that piece alone, into IMP_WORK:

    mkdir -p /tmp/imp-gpu && cp build/smollm2.* /tmp/imp-gpu

Without --model the pieces are joined. The text is the same as tests/data/golden/perplexity.json's:
windows of 1024 tokens, each from an empty cache, all tokens but the first of each predicted.
"""
import argparse
import io
import json
import math
import pathlib
import sys
import tarfile

import torch

import families
import shapes

TEXT = shapes.ROOT / "tests" / "data" / "prose" / "news-from-nowhere.txt"
WINDOW, WITHIN = 1024, 3e-3


def joined():
    """The model's folder, of its pieces; None if they are not there."""
    folder = shapes.WORK / "smollm2-nvfp4"
    pieces = sorted(shapes.WORK.glob("smollm2.??")) or sorted(shapes.ROOT.glob("build/smollm2.??"))
    if not folder.exists() and pieces:
        shapes.WORK.mkdir(parents=True, exist_ok=True)
        whole = io.BytesIO(b"".join(p.read_bytes() for p in pieces))
        with tarfile.open(fileobj=whole, mode="r:xz") as archive:
            archive.extractall(shapes.WORK, filter="data")
    return folder if folder.exists() else None


def of_imp(folder, args):
    return json.loads(shapes.imp("score", folder, "--text", TEXT, "--window", WINDOW, "--tokens",
                                 args.tokens, "--json", "--device", args.device))


@torch.no_grad()
def of_transformers(model, ids, device):
    nll, count = 0.0, 0
    for start in range(0, len(ids) - 1, WINDOW):
        x = torch.tensor([ids[start:start + WINDOW]], device=device)
        logp = torch.log_softmax(model(x).logits[0, :-1].float(), -1)
        nll -= logp.gather(1, x[0, 1:, None]).double().sum().item()
        count += x.shape[1] - 1
    return math.exp(nll / count), count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=8192)
    args = parser.parse_args()
    folder = args.model or joined()
    if folder is None:
        print("skip perplexity: neither --model nor the pieces of SmolLM2 are here")
        return 0
    families.exactly()
    # Far more text than so many tokens take: what comes later changes none of them.
    text = TEXT.read_text()[:8 * args.tokens]
    ids = json.loads(shapes.imp("tokenize", folder, "-", "--plain", input=text))[:args.tokens]
    got = of_imp(folder, args)
    state = families.expand(families.read(folder, args.device))
    failed = False
    for dtype, within in ((torch.float32, WITHIN), (torch.bfloat16, None)):
        model = families.build(folder, state, dtype, args.device)
        want, count = of_transformers(model, ids, args.device)
        off = got["perplexity"] / want - 1
        bad = within is not None and (count != got["tokens"] or abs(off) > within)
        failed |= bad
        print(f"{'FAIL' if bad else 'ok  ' if within else '    '} imp {got['perplexity']:.5f} over "
              f"{got['tokens']} tokens, transformers {str(dtype)[6:]} {want:.5f} over {count}: "
              f"{100 * off:+.4f} %", flush=True)
    print(f"perplexity: {1 - failed} passed, {int(failed)} failed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
