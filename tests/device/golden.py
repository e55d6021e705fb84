"""Every small model of tests/data/models on the GPU, against the logits stored for them.

    python3 golden.py IMP [SETTING...]        needs numpy alone; prints a line a model, totals last

Two things: no prompt's logits lie further from transformers' fp32 than its own bf16 run of the model
does (as tests/python/test_golden.py has it for the CPU); and the same request gives the same bytes:
whole and in chunks of 1, 7 and 64, alone and beside seven others, KV blocks in another order, twice.
Some models at a time: a process of CUDA spends most of its time beginning.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
IMP, SETTINGS = sys.argv[1], sys.argv[2:]


def score(model, prompts, work, *settings):
    """The logits of every prompt, from one call of `imp score`."""
    flags = []
    for i, ids in enumerate(prompts):
        (work / f"ids{i}.json").write_text(json.dumps(ids))
        flags += ["--ids", work / f"ids{i}.json"]
    for s in settings:
        flags += ["--set", s]
    done = subprocess.run([IMP, "score", DATA / "models" / model, *map(str, flags), "--logits",
                           work / "l.npy"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    names = ["l.npy"] if len(prompts) == 1 else [f"l.{i}.npy" for i in range(len(prompts))]
    return [np.load(work / n) for n in names]


def logits(model, prompts, work, *settings):
    return score(model, prompts, work, "runtime.device=cuda", *SETTINGS, *settings)


def golden(model, cases, arrays):
    """The largest share of what is allowed."""
    worst = 0
    allowed = max(c["bf16_diff"] for c in cases)
    for case, got in zip(cases, arrays):
        blob = np.fromfile(DATA / "golden" / f"{model}.u16", "<u2",
                           len(case["ids"]) * case["columns"], offset=case["offset"])
        want = (case["low"] + blob.astype(np.float64) * case["step"]).reshape(len(case["ids"]), -1)
        diff = np.abs(got[:, ::case["stride"]] - want).max()
        worst = max(worst, diff / (allowed + case["step"] / 2))
    return worst


def bits(model, cases, arrays, work):
    """Names of the ways in which the bytes differ."""
    prompts, last = [c["ids"] for c in cases], len(cases) - 1
    wrong = []
    for name, settings in [("again", []), ("chunk 1", ["runtime.prefill_chunk=1"]),
                           ("chunk 7", ["runtime.prefill_chunk=7"]),
                           ("chunk 64", ["runtime.prefill_chunk=64"]),
                           ("shuffled", ["kv.shuffle=99"]), ("cold", ["runtime.warmup=false"])]:
        other = logits(model, prompts, work, *settings)
        if any(not np.array_equal(a, b) for a, b in zip(arrays, other)):
            wrong.append(name)
    alone = logits(model, [prompts[last]], work)[0]
    if not np.array_equal(alone, arrays[last]):
        wrong.append("alone")
    return wrong


def try_model(model, cases):
    """(passed, line)"""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        try:
            arrays = logits(model, [c["ids"] for c in cases], work)
            share, wrong = golden(model, cases, arrays), bits(model, cases, arrays, work)
        except RuntimeError as error:
            return False, f"FAIL {model:32} {error}"
    ok = share <= 1 and not wrong
    equal = "not equal: " + ", ".join(wrong) if wrong else "bytes equal"
    return ok, f"{'ok  ' if ok else 'FAIL'} {model:32} {share:.2f} of bf16's difference, {equal}"


def main():
    index = json.loads((DATA / "golden" / "index.json").read_text())["models"]
    failures = []
    with ThreadPoolExecutor(8) as pool:
        for ok, line in pool.map(try_model, index, index.values()):
            print(line, flush=True)
            failures += [] if ok else [line]
    print("\n".join(failures))
    print(f"models on the GPU: {len(index) - len(failures)} passed, {len(failures)} failed")
    return len(failures) > 0


if __name__ == "__main__":
    sys.exit(main())
