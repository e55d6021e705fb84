"""What `imp inspect --memory` plans against what the GPU's driver counts while the model is open.

    python3 memory.py [--layers 4] [--within 100]

The machine's GPU must be ours alone: memory in use is read for the whole GPU, before and at its most
while `imp score` runs. A CUDA context has a cost of its own (kernels, stacks, the driver's tables);
it is what a small model of the same family takes beyond its plan. A large model may take at most that
and --within MB more than planned, or less; a line a model.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time

import shapes

SETTINGS = [[], ["--ctx", "4096", "--set", "runtime.max_batch=32", "--set", "kv.memory=6G"]]


class Watch:
    """The most bytes in use on the GPU between entering and leaving."""

    def __init__(self):
        try:
            import pynvml
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            self.used = lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used
        except Exception:  # no such package, or no driver behind it: then the driver's own program
            self.used = lambda: int(subprocess.run(
                ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"],
                capture_output=True, text=True, check=True).stdout.split()[0]) << 20

    def __enter__(self):
        self.before = self.most = self.used()
        self.going = True
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while self.going:
            self.most = max(self.most, self.used())
            time.sleep(0.01)

    def __exit__(self, *_):
        self.going = False
        self.thread.join()


def plan(folder, settings):
    found = json.loads(shapes.imp("inspect", folder, "--json", "--device", "cuda", *settings))
    return found["memory"]["total_bytes"]


def taken(watch, folder, settings):
    """Beyond what was in use before. The prompt fills some steps, so that all kernels are loaded."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as ids:
        json.dump([i % 250 for i in range(200)], ids)
        ids.flush()
        with watch:
            shapes.imp("score", folder, "--ids", ids.name, "--logits", ids.name + ".npy", "--device",
                       "cuda", *settings)
    return watch.most - watch.before


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--within", type=float, default=100, help="MB")
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    watch, table, failed = Watch(), [], 0
    for name, form, small in shapes.SHAPES:
        if args.only and name not in args.only:
            continue
        folder = shapes.made(name, form, args.layers)
        if folder is None:
            table.append(f"skip {name:38} its configuration is not in build/configs")
            continue
        tiny = shapes.ROOT / "tests" / "data" / "models" / small
        try:
            context = taken(watch, tiny, []) - plan(tiny, [])
            for settings in SETTINGS:
                want, got = plan(folder, settings), taken(watch, folder, settings)
                beyond = (got - context - want) / 1e6
                ok = beyond <= args.within
                failed += not ok
                table.append(f"{'ok  ' if ok else 'FAIL'} {name:38} plan {want / 1e6:8.0f} MB, taken "
                             f"{got / 1e6:8.0f}, context {context / 1e6:4.0f}, beyond {beyond:+7.1f}")
                print(table[-1], flush=True)
        except RuntimeError as error:
            failed += 1
            table.append(f"FAIL {name:38} {error}")
            print(table[-1], flush=True)
    print(f"memory, {args.layers} layers: {sum(t.startswith('ok') for t in table)} passed, "
          f"{failed} failed, {sum(t.startswith('skip') for t in table)} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
