#!/bin/sh
# The tests of every op on the GPU (make cuda gpu-ops built them): a line a program, ok or FAIL with
# its counts, and under it a line for each case that failed. IMP_TEST_GPU=cpu: on what stands in for
# a GPU.
set -u
cd "$(dirname "$0")/.." || exit 1
export IMP_TEST_GPU="${IMP_TEST_GPU:-1}"
folder=build/gpu-ops
rc=0
# The backend is looked for beside the program.
[ ! -e build/libimp_cuda.so ] || cp build/libimp_cuda.so "$folder/" || exit 1
# What cmocka said: the first complaint of each case, and a case that never ended.
failures() {
    awk '/^\[ RUN/ { name = substr($0, 14); open = 1; next }
         /^\[  *OK \]/ { open = 0; next }
         /^\[ *ERROR *\] --- (\[|$)/ { next }
         open && /^ERROR: |^\[ *ERROR *\] --- / {
             sub(/^ERROR: |^\[ *ERROR *\] --- /, ""); print "     " name ": " $0; open = 0 }
         END { if (open) print "     " name ": it did not end" }' "$folder/log" | cut -c 1-180
}
for name in rows fast w4a4 attention gdn moe sample sample_match; do
    start=$(date +%s) said=ok
    timeout 150 "$folder/test_$name" >"$folder/log" 2>&1 || { said="FAIL ($?)" rc=1; }
    failures >"$folder/failures"
    echo "$said $name: $(grep -c '^\[  *OK \]' "$folder/log") passed," \
        "$(wc -l <"$folder/failures") failed, $(($(date +%s) - start)) s"
    head -n 12 "$folder/failures"
done
exit $rc
