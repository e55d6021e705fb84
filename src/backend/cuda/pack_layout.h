/* A stack's formats and the order of its chunks (pack.cuh says what a stack is): plain functions
 * for the host and the device, so that tests/unit/pack_layout.c can hold them without a GPU. */
#ifndef IMP_BACKEND_CUDA_PACK_LAYOUT_H
#define IMP_BACKEND_CUDA_PACK_LAYOUT_H

#include <stdint.h>

#include "base/inline.h"

enum { SEGMENTS = 8, TILE_ROWS = 16 };

/* PACK_FP4: E2M1 with a scale per 16: NVFP4, and MXFP4 whose scales fit. Lane l's word j of 8 (one
 *     instruction each) at (j / 4) * 512 + l * 16 + (j % 4) * 4, then at 1024 + 4 l its four
 *     scales: of rows l / 4 and l / 4 + 8 for the first 64 k, then the second. Scales are re-coded
 *     to five bits of exponent and three of mantissa, which is exact, and the 2^8 that is left over
 *     is in the row's multiplier; a block whose scale is zero has zero codes.
 * PACK_FP8: E4M3; lane l's 16 bytes of instructions 2 j, 2 j + 1 at j * 512 + l * 16; again 2^8 is
 *     in the row's multiplier.
 * PACK_BF16: lane l's four registers of instruction j at j * 512 + l * 16. A weight with more bits
 *     than BF16 has is the exact sum of `planes` of them: chunk t holds plane t % planes.
 * PACK_NVFP4: W4A4 where the device multiplies NVFP4 itself: see nvfp4_layout.h. Segments and the
 *     order of chunks are the same, an instruction is not. linear_plain alone takes it; the others
 *     have PACK_FORMATS, which they expand to BF16. */
enum pack_format { PACK_FP4, PACK_FP8, PACK_BF16, PACK_FORMATS, PACK_NVFP4 = PACK_FORMATS };
INLINE_FN int pack_chunk_k(enum pack_format f) {
    return f == PACK_BF16 ? 64 : 128;
}
INLINE_FN int pack_bytes(enum pack_format f) {
    return f == PACK_FP4 || f == PACK_NVFP4 ? 1152 : 2048;
}

/* What becomes of a packed row's sum: y[out] = sum * multiplier + bias. out -1: padding. */
struct row_info {
    float multiplier, bias;
    int32_t out, unused;
};

/* First chunk of segment q. */
INLINE_FN int segment_begin(int q, int chunks) {
    return (int)((unsigned)(q * chunks) / SEGMENTS);
}
/* Where chunk t of segment q stands among a tile's, both counted with their planes. */
INLINE_FN int stack_place(int q, int t, int chunks, int planes) {
    const int each = chunks / SEGMENTS, full = each * planes;
    if (t < full) return t * SEGMENTS + q;
    const int longer = chunks % SEGMENTS, rank = segment_begin(q, chunks) - q * each;
    return full * SEGMENTS + (t - full) * longer + rank;
}

#endif
