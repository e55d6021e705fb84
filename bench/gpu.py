"""What scripts/gpu-bench.sh does: ceilings, models, ceilings; rows of CSV.

Needs torch for the ceilings: a copy on the device (bytes read and written), a bf16 product of cuBLAS,
a copy from pinned memory of the host, and one node of a graph of empty kernels. A decode step is held
against the copy: share_of_copy is the bytes of a step over its time over the copy's bytes/s.
"""
import csv
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
IMP = os.environ.get("IMP_BIN", str(ROOT / "build" / "imp"))
OUT = pathlib.Path(os.environ.get("OUT", ROOT / "build" / "gpu"))
WORK = pathlib.Path(os.environ.get("WORK", "/tmp/imp-gpu-bench"))
END = time.monotonic() + float(os.environ.get("LIMIT", 560))
RESERVE = 20  # seconds kept for the last ceilings
MODELS = ["Qwen3-8B:36", "Qwen3-30B-A3B:48", "Qwen3.6-35B-A3B:40"]
# Decode after a prompt of 512; prompts alone in one step.
RUNS = [["-p", "512", "-n", "64", "-b", "1,8,32,128"],
        ["-p", "2048", "-n", "2", "-b", "1", "--set", "runtime.prefill_chunk=4096"],
        ["-p", "4096", "-n", "2", "-b", "1", "--set", "runtime.prefill_chunk=4096"]]
FROM_BENCH = ["batch", "prompt_tokens", "decode_tokens", "prefill_tokens_per_s",
              "decode_tokens_per_s", "bytes_per_step"]
CEILINGS = ["copy", "cublas_bf16", "pinned_h2d", "graph_node_us"]


def ceilings():
    """Runs in a process of its own, so that nothing of torch's stays on the GPU."""
    import torch

    def best(f, n):
        f()
        torch.cuda.synchronize()
        times = []
        for _ in range(n):
            start = time.perf_counter()
            f()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return min(times)
    a = torch.randn(1 << 28, device="cuda")
    b = torch.empty_like(a)
    x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    y = x.T.contiguous()
    host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    one, nodes, graph = torch.zeros(1, device="cuda"), 1000, torch.cuda.CUDAGraph()
    one.add_(1)
    with torch.cuda.graph(graph):
        for _ in range(nodes):
            one.add_(1)
    print(json.dumps({
        "copy": 2 * a.numel() * 4 / best(lambda: b.copy_(a), 20),
        "cublas_bf16": 2 * 8192 ** 3 / best(lambda: x @ y, 20),
        "pinned_h2d": host.numel() / best(lambda: there.copy_(host, non_blocking=True), 10),
        "graph_node_us": best(graph.replay, 20) / nodes * 1e6}))


def measure_ceilings():
    done = subprocess.run([sys.executable, __file__, "--ceilings"], capture_output=True, text=True)
    if done.returncode:
        print("ceilings:", done.stderr.strip()[-300:])
        return {}
    found = json.loads(done.stdout)
    print("ceilings:", ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
    return found


def limited(command):
    """(lines of its output, what went wrong), within the time that is left."""
    left = END - RESERVE - time.monotonic()
    if left <= 1:
        return [], "no time left"
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode().splitlines(), "cut off: no time left"
    return done.stdout.splitlines(), done.stderr.strip()[-200:] if done.returncode else ""


def bench(model, layers):
    """One dict a row; says what goes wrong and goes on."""
    folder, rows, start = WORK / model, [], time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    _, wrong = limited([IMP, "synth", ROOT / "tests" / "data" / "configs" / model, folder, "--layers",
                        layers, "--format", "modelopt", "--quiet"])
    print(f"{model}, {layers} layers: made in {time.monotonic() - start:.0f} s {wrong}")
    for flags in RUNS if not wrong else []:
        lines, wrong = limited([IMP, "bench", folder, "--device", "cuda", "--json", *flags])
        for line in lines:
            if line.endswith("}"):  # a line may be cut off
                found = json.loads(line)
                rows.append({"model": model, "layers": layers, **{k: found[k] for k in FROM_BENCH}})
        if wrong:
            print(f"{model}, {' '.join(flags)}: {wrong}")
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{model}: {time.monotonic() - start:.0f} s in all")
    return rows


def write(rows, before, after):
    with open(ROOT / "bench" / "results" / "h100.csv") as f:
        columns = f.readline().strip().split(",")
    for row in rows:
        row |= {"date": datetime.date.today().isoformat(), "commit": os.environ.get("COMMIT", ""),
                "command": "scripts/gpu-bench.sh"}
        for when, found in (("before", before), ("after", after)):
            row |= {f"{k}_{when}": f"{found[k]:.4g}" for k in CEILINGS if k in found}
        if "copy" in before and row["decode_tokens"] > 2:
            step = row["batch"] / row["decode_tokens_per_s"] if row["decode_tokens_per_s"] else 0
            row["share_of_copy"] = f"{row['bytes_per_step'] / step / before['copy']:.3f}" if step else ""
    with open(OUT / "h100.csv", "w", newline="") as f:
        out = csv.DictWriter(f, columns, restval="", lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    before, rows = measure_ceilings(), []
    for item in sys.argv[1:] or MODELS:
        model, layers = item.rsplit(":", 1)
        rows += bench(model, int(layers))
        write(rows, before, {})
    write(rows, before, measure_ceilings())
    print(f"\n{'model':18} layers batch prompt  prefill tok/s  decode tok/s  share of copy")
    for r in rows:
        print(f"{r['model']:18} {r['layers']:6} {r['batch']:5} {r['prompt_tokens']:6} "
              f"{r['prefill_tokens_per_s']:14.0f} {r['decode_tokens_per_s']:13.1f} "
              f"{r.get('share_of_copy', ''):>14}")
    return not rows


if __name__ == "__main__":
    sys.exit(ceilings() if sys.argv[1:] == ["--ceilings"] else main())
