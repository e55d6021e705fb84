"""device_bits for a model of each kind of state and for real shapes, three processes a model.

    python3 bits.py [--device cuda] [--layers 4] [--repeats 32] [--batch 256] [--only NAME ...] [--small]

The first process runs every variant, the others the request alone; all must print the same hash. A
line a model: variants that are equal, and the first lines that are not.
"""
import argparse
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import shapes

SMALL = ["tiny-smol-nvfp4a16", "tiny-bias-nvfp4a16", "tiny-mistral-window", "tiny-mistral-fp8_dynamic",
         "tiny-qwen3-moe-modelopt", "tiny-qwen3.5-moe", "tiny-qwen3-next-modelopt", "tiny-gemma3",
         "tiny-gemma4-ple", "tiny-gemma4-moe-nvfp4", "tiny-gpt-oss-mxfp4"]
PROGRAM = shapes.ROOT / "build" / "device_bits"


def program(folder, args, *more):
    """(lines, hash) of one process; the last line is the hash."""
    done = subprocess.run([PROGRAM, folder, "--device", args.device, "--repeats", str(args.repeats),
                           "--batch", str(args.batch), *more], capture_output=True, text=True,
                          timeout=args.seconds)
    lines = done.stdout.splitlines()
    if not lines or not lines[-1].startswith("hash"):
        raise RuntimeError((done.stderr.strip() or f"exit status {done.returncode}")[-200:])
    return lines[:-1], lines[-1]


def try_model(name, args):
    start = time.time()
    try:
        shape = next((s for s in shapes.SHAPES if s[0] == name), None)
        folder = (shapes.made(shape[0], shape[1], args.layers) if shape
                  else shapes.ROOT / "tests" / "data" / "models" / name)
        if folder is None:
            return f"skip {name:38} its configuration is not in build/configs", []
        lines, first = program(folder, args)
        hashes = [first] + [program(folder, args, "--hash-only")[1] for _ in range(2)]
        counts = [re.search(r"(\d+)/(\d+) equal", line) for line in lines]
        wrong = [line for line, c in zip(lines, counts) if c and c[1] != c[2]]
        equal, total = (sum(int(c[i]) for c in counts if c) for i in (1, 2))
        same = sum(h == first for h in hashes)
        ok = equal == total and same == 3
        text = f"{equal}/{total} equal, processes {same}/3; {time.time() - start:.0f} s"
        return f"{'ok  ' if ok else 'FAIL'} {name:38} {text}", wrong
    except (RuntimeError, subprocess.SubprocessError) as error:
        return f"FAIL {name:38} {error}", []


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=32)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--jobs", type=int, default=4, help="models at a time")
    parser.add_argument("--seconds", type=float, default=240, help="of one process")
    parser.add_argument("--small", action="store_true", help="only the small models")
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    names = args.only or SMALL + ([] if args.small else [s[0] for s in shapes.SHAPES])
    table = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for line, wrong in pool.map(lambda name: try_model(name, args), names):
            table.append(line)
            print("\n".join([line] + ["     " + w for w in wrong[:6]]), flush=True)
    failed = sum(t.startswith("FAIL") for t in table)
    print(f"bits: {sum(t.startswith('ok') for t in table)} passed, {failed} failed, "
          f"{sum(t.startswith('skip') for t in table)} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
