#!/bin/sh
# Speed on a GPU: one command, LIMIT seconds at most (default 560). Ceilings of the machine first and
# last, between them models of real shapes with random weights, made here; table last.
#
#   COMMIT=... scripts/gpu-bench.sh [CONFIGURATION:LAYERS...]
#
# OUT/h100.csv (default build/gpu) has the rows as bench/results/h100.csv has them, under its header.
set -u
cd "$(dirname "$0")/.." || exit 1
export COMMIT="${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 exec python3 bench/gpu.py "$@"
