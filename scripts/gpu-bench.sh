#!/bin/sh
# Speed on a GPU: one command, bounded in time. Ceilings first and last, then models of real shapes
# with random weights, made here. Results go to the folder OUT (default build/gpu): bench.csv has a
# line a model and batch, with the share of the copy bandwidth that a decode step reads weights at.
set -u
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu} work=${WORK:-/tmp/imp-gpu-bench}
mkdir -p "$out" "$work"
ceilings() { # copy bytes/s (read and written) and bf16 flop/s of cuBLAS
    python3 - <<'PY'
import torch, time
def best(f, n):
    f(); torch.cuda.synchronize(); t = []
    for _ in range(n):
        s = time.perf_counter(); f(); torch.cuda.synchronize(); t.append(time.perf_counter() - s)
    return min(t)
a = torch.randn(1 << 28, device="cuda"); b = torch.empty_like(a)
x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16); y = x.T.contiguous()
print(2 * a.numel() * 4 / best(lambda: b.copy_(a), 20), 2 * 8192 ** 3 / best(lambda: x @ y, 20))
PY
}
before=$(ceilings)
echo "copy bytes/s, bf16 flop/s: $before" | tee "$out/ceilings.txt"
echo "model,layers,batch,prompt,decode,prefill_tok_s,decode_tok_s,bytes_step,share_of_copy" >"$out/bench.csv"
bench() { # CONFIG LAYERS
    rm -rf "$work/m"
    build/imp synth "tests/data/configs/$1" "$work/m" --layers "$2" --format modelopt --quiet || return 1
    timeout 200 build/imp bench "$work/m" -p 512 -n 32 -b 1,8,32 --device cuda --csv --quiet 2>&1 |
        tail -n +2 | awk -F, -v m="$1" -v l="$2" -v c="${before%% *}" '{
            printf "%s,%s,%s,%s,%s,%s,%s,%s,%.3f\n", m, l, $1, $2, $3, $4, $5, $6, $6*$5/$1/c}' |
        tee -a "$out/bench.csv"
}
bench Qwen3-8B 36
bench Qwen3-30B-A3B 8
bench Qwen3.6-35B-A3B 8
echo "copy bytes/s, bf16 flop/s: $(ceilings)" | tee -a "$out/ceilings.txt"
