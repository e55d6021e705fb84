#!/bin/sh
# Everything that needs a GPU and says right or wrong: one command, bounded in time, table last.
# Binaries are built beforehand (make cuda-check); results go to the folder OUT (default build/gpu).
set -u
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu}
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/device.txt"
timeout 120 build/fp_device_90a >"$out/fp_device.txt" 2>&1
rc=$?
cat "$out/fp_device.txt"
exit $rc
