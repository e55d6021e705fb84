#include "backend/cpu/fast/simd_avx2.h"

#include "backend/cpu/fast/linear_kernels.h"
/* these use the one above */
#include "backend/cpu/fast/row_kernels.h"
/* and these both */
#include "backend/cpu/fast/attention_kernels.h"
#include "backend/cpu/fast/gdn_kernels.h"

const struct fast_kernels fast_kernels_avx2 = {
    .name = "avx2",
    .title = "AVX2",
    .linear = kernel_linear,
    .norm_row = kernel_norm_row,
    .glu_row = kernel_glu_row,
    .attend = kernel_attend,
    .attend_finish = kernel_attend_finish,
    .store_row = kernel_store_row,
    .hooks = {fast_store_row, fast_load_row, fast_linears, fast_glu_rows, kernel_gdn_conv,
              kernel_gdn_delta, kernel_gdn_gate, kernel_softcap},
};
