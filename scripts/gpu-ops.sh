#!/bin/sh
# The tests of every op on the GPU (make cuda gpu-ops built them): a line a program, ok or FAIL with
# its counts, and under it what failed first. IMP_TEST_GPU=cpu: on what stands in for a GPU.
set -u
cd "$(dirname "$0")/.."
export IMP_TEST_GPU=${IMP_TEST_GPU:-1}
folder=build/gpu-ops
rc=0
# The backend is looked for beside the program.
[ ! -e build/libimp_cuda.so ] || cp build/libimp_cuda.so "$folder/" || exit 1
lines() { grep -c "^\[  *$1 \] [a-z]" "$folder/log"; }
for name in rows fast attention gdn moe sample; do
    start=$(date +%s) said=ok
    timeout 200 "$folder/test_$name" >"$folder/log" 2>&1 || { said="FAIL ($?)" rc=1; }
    passed=$(lines OK) failed=$(grep '^\[  FAILED  \] [a-z]' "$folder/log" | sort -u | wc -l)
    echo "$said $name: $passed passed, $failed failed, $(($(date +%s) - start)) s"
    [ "$said" = ok ] || grep -E '^\[ RUN|^ERROR|FAILED|rror:' "$folder/log" |
        grep -B 1 -A 1 '^ERROR' | cut -c 1-200 | head -n 24
done
exit $rc
