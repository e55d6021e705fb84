#!/bin/sh
# Everything that needs a GPU and says right or wrong: one command, bounded in time, table last.
# Binaries are built beforehand (make cuda cuda-check gpu-ops); results go to the folder OUT (default
# build/gpu).
set -u
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu}
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/device.txt"
rc=0
step() { # NAME SECONDS COMMAND...
    name=$1 seconds=$2
    shift 2
    timeout "$seconds" "$@" >"$out/$name.txt" 2>&1 || rc=1
    tail -n "${LINES_SHOWN:-12}" "$out/$name.txt"
}
step fp_device 120 build/fp_device_90a
LINES_SHOWN=60 step ops 300 scripts/gpu-ops.sh
LINES_SHOWN=80 step golden 400 python3 tests/device/golden.py build/imp
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        step "$tool" 120 compute-sanitizer --tool $tool --error-exitcode 9 build/imp score \
            tests/data/models/tiny-qwen3.5-moe --ids tests/device/ids.json --logits "$out/l.npy" \
            --set runtime.device=cuda
    done
fi
exit $rc
