#!/bin/sh
# Everything that needs a GPU and says right or wrong: one command, LIMIT seconds at most, table last.
#
#   scripts/gpu-test.sh [PART...]      fp linear ops golden w4a4 bits failpoints memory families
#                                      perplexity memcheck racecheck initcheck synccheck; or all
#
# Binaries are built beforehand: make cuda cuda-check device gpu-ops.
# What a part prints goes to OUT/PART.txt (default build/gpu); a part that would run past the limit is
# cut off, or not begun, and that counts as failed. One that lacks its program is skipped.
set -u
cd "$(dirname "$0")/.." || exit 1
out=${OUT:-build/gpu} limit=${LIMIT:-540}
all="fp linear ops golden w4a4 bits failpoints memory families perplexity memcheck racecheck initcheck synccheck"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

need() { [ -x "$1" ] || command -v "$1" >/dev/null || { echo "skip: there is no $1"; exit 77; }; }

failpoints() {
    need build/device_failpoints
    rc=0
    for set in runtime.graphs=auto runtime.graphs=never; do
        echo "$set"
        build/device_failpoints tests/data/models/tiny-smol-nvfp4a16 --seconds 60 --set "$set" || rc=1
    done
    return "$rc"
}

# Prompts and steps of one row and of three, in a model of each kind of layer.
sanitizer() { # TOOL
    need compute-sanitizer
    rc=0
    for model in tiny-smol-nvfp4a16 tiny-qwen3.5-moe tiny-gpt-oss-mxfp4 tiny-gemma4-ple; do
        echo "$1: $model"
        compute-sanitizer --tool "$1" --error-exitcode 9 build/imp bench "tests/data/models/$model" \
            -p 70 -n 4 -b 3 --device cuda || rc=1
    done
    return "$rc"
}

run_part() { # NAME
    case $1 in
    fp) need build/fp_device_90a; build/fp_device_90a ;;
    linear) need build/device_linear; build/device_linear check ;;
    ops) scripts/gpu-ops.sh ;;
    failpoints) failpoints ;;
    golden | w4a4) python3 "tests/device/$1.py" build/imp ;;
    bits) need build/device_bits; python3 tests/device/bits.py ;;
    memory) python3 tests/device/memory.py ;;
    families | perplexity) python3 "tests/device/$1.py" ;;
    *check) sanitizer "$1" ;;
    *) echo "gpu-test.sh: no part \"$1\"; there are: $all" >&2; exit 1 ;;
    esac
}

most_seconds() { # NAME: what one part may take
    case $1 in
    fp) echo 30 ;;
    ops) echo 200 ;;
    bits | families | golden | w4a4) echo 240 ;;
    failpoints) echo 150 ;;
    *) echo 120 ;;
    esac
}

if [ "${1:-}" = --part ]; then run_part "$2"; exit; fi

mkdir -p "$out"
: >"$out/table.txt"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/device.txt"
begin=$(date +%s) failed=0
# shellcheck disable=SC2048 # names of parts have no spaces
for part in ${*:-$all}; do
    start=$(date +%s)
    seconds=$(most_seconds "$part") left=$((begin + limit - start))
    [ "$seconds" -le "$left" ] || seconds=$left
    verdict=late
    if [ "$seconds" -gt 0 ]; then
        echo "== $part"
        timeout "$seconds" "$0" --part "$part" >"$out/$part.txt" 2>&1
        case $? in 0) verdict=ok ;; 77) verdict=skip ;; 124) verdict=late ;; *) verdict=FAIL ;; esac
        tail -n "${LINES_SHOWN:-12}" "$out/$part.txt"
    fi
    case $verdict in FAIL | late) failed=1 ;; esac
    printf '%-5s %-11s %4d s  %s\n' $verdict "$part" $(($(date +%s) - start)) \
        "$(tail -n 1 "$out/$part.txt" 2>/dev/null | cut -c 1-70)" >>"$out/table.txt"
done
echo "== all"
cat "$out/table.txt"
exit $failed
