"""numerics.activations=nvfp4 on the GPU: every small model with NVFP4 weights.

    python3 w4a4.py IMP [DEVICE]        needs numpy alone; prints a line a model, totals last

Held against the reference on the CPU in the same mode, which rounds where the contract does and is
itself held to transformers (tests/python/test_w4a4.py). A sum that is off by its last bit can move a
code of the next input by a whole step, and attention on a GPU rounds its weights to BF16, so logits of
two right programs differ: on an H100 by 0.02 to 0.80 of what the mode itself changes in the reference
(root mean squares over all prompts). The bound is
MOST of it, which sees a GPU that rounds nothing, off by all of it, and little else: each op is held to
the exact result by tests/op/w4a4.c. Beside it stands the fast CPU backend's. And the same request gives
the same bytes: whole, in chunks, alone and beside others.
"""
import json
import pathlib
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from golden import DATA, score

DEVICE = (sys.argv[2:] or ["cuda"])[0]
NVFP4, MOST = "numerics.activations=nvfp4", 0.9


def distance(a, b):
    return float(np.sqrt(np.mean(np.square(np.concatenate(a) - np.concatenate(b)), dtype=float)))


def try_model(model, prompts):
    """(passed, line)"""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        device = "runtime.device=" + DEVICE
        try:
            rounded = ["runtime.device=cpu", "runtime.reference=rounded"]
            want = score(model, prompts, work, *rounded, NVFP4)
            mode = distance(want, score(model, prompts, work, *rounded))
            cpu = distance(want, score(model, prompts, work, "runtime.device=cpu", NVFP4))
            arrays = score(model, prompts, work, device, NVFP4)
            wrong = []
            for name, some, more in [("again", prompts, []), ("alone", prompts[-1:], []),
                                     ("chunk 1", prompts, ["runtime.prefill_chunk=1"]),
                                     ("chunk 7", prompts, ["runtime.prefill_chunk=7"])]:
                other = score(model, some, work, device, NVFP4, *more)
                if not all(map(np.array_equal, other, arrays[-len(some):])):
                    wrong.append(name)
        except RuntimeError as error:
            return False, f"FAIL {model:32} {error}"
    gpu = distance(want, arrays)
    ok = gpu <= MOST * mode and not wrong
    equal = "not equal: " + ", ".join(wrong) if wrong else "bytes equal"
    return ok, (f"{'ok  ' if ok else 'FAIL'} {model:32} the mode changes {mode:.3g}, of that off "
                f"{gpu / mode:.4f}, the CPU {cpu / mode:.4f}; {equal}")


def has_nvfp4(model):
    config = (DATA / "models" / model / "config.json").read_text().lower()
    return "nvfp4" in config or '"num_bits": 4' in config


def main():
    index = json.loads((DATA / "golden" / "index.json").read_text())["models"]
    models = {m: [c["ids"] for c in cases] for m, cases in index.items() if has_nvfp4(m)}
    failed = 0
    with ThreadPoolExecutor(8) as pool:
        for ok, line in pool.map(try_model, models, models.values()):
            print(line, flush=True)
            failed += not ok
    print(f"W4A4 on {DEVICE}: {len(models) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
