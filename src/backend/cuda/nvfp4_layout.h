/* NVFP4 as the block-scaled tensor cores of sm_120a take it, and how it stands in memory for them.
 *
 * One instruction (PTX ISA 8.7: mma.sync m16n8k64, kind::mxf4nvf4, scale_vec::4X, ue4m3) adds to a
 * 16 x 8 tile D the products of 64 columns: A, 16 rows of W, times B, 8 rows of x, each block of 16
 * columns times its two scales. A register holds eight codes of one row, ascending k from the low
 * nibble, and a register of scales the four blocks of one row, ascending from the low byte. With
 * selectors 0 the scales of A come from the lanes 0 and 1 of each four, those of B from lane 0; all
 * lanes load some.
 *
 * A chunk of W, 16 rows by 128 columns, is two steps of an instruction: the lanes' four registers
 * each, step by step, then the scales of the rows, step by step. A row of x is its codes, then its
 * scales, in the order of K, in the place of an act's row of as many columns.
 *
 * Pure functions, the same lines for the host and for CUDA; tests/unit/w4a4_layout.c runs the
 * instruction lane by lane on them. */
#ifndef IMP_BACKEND_CUDA_NVFP4_LAYOUT_H
#define IMP_BACKEND_CUDA_NVFP4_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/inline.h"

enum { NVFP4_STEP_K = 64, NVFP4_STEPS = 2, NVFP4_CHUNK_BYTES = 1152 };

/* ---- which element a lane holds ---- */

/* The row of W of register r of A, and the first of its eight columns. */
INLINE_FN int nvfp4_a_row(int lane, int r) {
    return lane / 4 + 8 * (r & 1);
}
INLINE_FN int nvfp4_a_k(int lane, int r) {
    return 8 * (lane % 4) + 32 * (r >> 1);
}
/* The row of W whose scales the lane gives. */
INLINE_FN int nvfp4_a_scale_row(int lane) {
    return lane / 4 + 8 * (lane & 1);
}
/* The row of x of both registers of B and of its scales, and the first column of register r. */
INLINE_FN int nvfp4_b_row(int lane) {
    return lane / 4;
}
INLINE_FN int nvfp4_b_k(int lane, int r) {
    return 8 * (lane % 4) + 32 * r;
}

/* ---- where it stands in memory: bytes from the start of the chunk, or of the row of x ---- */

INLINE_FN int nvfp4_words_at(int step, int lane) { /* the lane's four registers of A */
    return step * 512 + lane * 16;
}
INLINE_FN int nvfp4_scales_at(int step, int row) {
    return 1024 + step * 64 + row * 4;
}
INLINE_FN int64_t nvfp4_x_codes_at(int64_t k) {
    return k / 2;
}
INLINE_FN int64_t nvfp4_x_scales_at(int64_t stride, int64_t k) { /* stride: columns of the act */
    return stride / 2 + k / 16;
}

/* ---- packing ---- */

/* Rows as files have them: codes [cols / 2], scales [cols / 16], cols a multiple of 16. */
struct nvfp4_rows {
    const uint8_t *codes, *scales;
    size_t codes_row, scales_row; /* bytes from one to the next */
    int64_t cols;
};

INLINE_FN uint8_t nvfp4_raw_scale(const struct nvfp4_rows *from, int row, int64_t k) {
    return k < from->cols ? from->scales[(size_t)row * from->scales_row + (size_t)(k / 16)] : 0;
}
/* Columns k .. k + 7. The sign of a scale, which the instruction has not, goes to the codes. */
INLINE_FN uint32_t nvfp4_raw_word(const struct nvfp4_rows *from, int row, int64_t k) {
    const uint8_t scale = nvfp4_raw_scale(from, row, k);
    uint32_t word = 0;
    if ((scale & 0x7F) == 0) return 0;
    const uint8_t *codes = from->codes + (size_t)row * from->codes_row + k / 2;
    for (int i = 0; i < 4; i++) word |= (uint32_t)codes[i] << (8 * i);
    return scale & 0x80 ? word ^ 0x88888888u : word;
}

/* What `lane` packs of the chunk of rows 0 .. 15 from column k0 on: its registers, and a row's
 * scales. True if one of these is a NaN: it becomes 0, and the row has to be spoilt otherwise. */
INLINE_FN bool nvfp4_pack_lane(const struct nvfp4_rows *from, int64_t k0, int lane, uint8_t *to) {
    const int scale_row = nvfp4_a_scale_row(lane);
    bool nan = false;
    for (int step = 0; step < NVFP4_STEPS; step++) {
        const int64_t k = k0 + step * NVFP4_STEP_K;
        for (int r = 0; r < 4; r++) {
            const uint32_t word =
                nvfp4_raw_word(from, nvfp4_a_row(lane, r), k + nvfp4_a_k(lane, r));
            memcpy(to + nvfp4_words_at(step, lane) + 4 * r, &word, sizeof word);
        }
        if (lane % 4 > 1) continue;
        for (int b = 0; b < 4; b++) {
            const uint8_t scale = nvfp4_raw_scale(from, scale_row, k + 16 * b) & 0x7F;
            nan |= scale == 0x7F;
            to[nvfp4_scales_at(step, scale_row) + b] = scale == 0x7F ? 0 : scale;
        }
    }
    return nan;
}

/* A block of x, columns k .. k + 15, into its row. */
INLINE_FN void nvfp4_put_block(uint8_t *row, int64_t stride, int64_t k, const uint8_t codes[8],
                               uint8_t scale) {
    memcpy(row + nvfp4_x_codes_at(k), codes, 8);
    row[nvfp4_x_scales_at(stride, k)] = scale;
}

#endif
