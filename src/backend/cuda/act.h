/* The order of an act's columns: plain functions for the host and the device. */
#ifndef IMP_BACKEND_CUDA_ACT_H
#define IMP_BACKEND_CUDA_ACT_H

#include <stdint.h>

#include "base/inline.h"

enum { CHUNK_K = 128 }; /* a row of an act ends at a multiple of it */

/* Of an act: elements from one row to the next. */
INLINE_FN int64_t act_stride(int64_t cols) {
    return (cols + CHUNK_K - 1) / CHUNK_K * CHUNK_K;
}
/* Where column k stands in a row of an act. A matrix instruction takes 16 columns; lane quarter c
 * of its operand holds the columns 2c, 2c + 1, 2c + 8, 2c + 9 of those. Four instructions take a
 * group of 64, and this order gives quarter c the columns 16 c .. 16 c + 15, four an instruction: a
 * lane meets one block of scales. It is the order of K in every product. */
INLINE_FN int64_t act_place(int64_t k) {
    return (k & ~63) | (k & 12) << 2 | (k & 2) << 2 | (k >> 3 & 6) | (k & 1);
}
/* The column that stands at `place`. */
INLINE_FN int64_t act_column(int64_t place) {
    return (place & ~63) | (place >> 2 & 14) | (place << 3 & 48) | (place & 1);
}

#endif
