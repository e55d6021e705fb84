/* A weight as every layer above the files sees it: one form for all dialects and formats.
 *
 * The matrix is [rows, cols] = [N, K] of y = x W^T. All pointers borrow: from a mapped checkpoint
 * or from its arena, until checkpoint_close. Immutable once made; any thread. */
#ifndef IMP_LOAD_WEIGHT_H
#define IMP_LOAD_WEIGHT_H

#include <stdint.h>

#include "base/arena.h"
#include "num/nvfp4.h"

enum weight_format {
    WEIGHT_F32,   /* data f32  [rows, cols] */
    WEIGHT_F16,   /* data fp16 [rows, cols] */
    WEIGHT_BF16,  /* data bf16 [rows, cols] */
    WEIGHT_FP8,   /* data E4M3 [rows, cols], `scale` as below */
    WEIGHT_NVFP4, /* data u8 [rows, cols/2], even k low; block_scale E4M3 [rows, cols/16] */
    WEIGHT_MXFP4, /* data u8 [rows, cols/2], even k low; block_scale E8M0 [rows, cols/32] */
};

struct weight {
    const char *name; /* the module's path in the checkpoint, for messages */
    enum weight_format format;
    int64_t rows, cols;
    const void *data;
    const uint8_t *block_scale;
    /* FP8 only: f32 [ceil(rows / scale_rows), ceil(cols / scale_cols)], multipliers; NULL: none */
    const float *scale;
    int64_t scale_rows, scale_cols; /* rows and columns that one entry of `scale` covers */
    float multiplier;               /* over the whole tensor, multiplies last; 1 if none */
    float input_multiplier;         /* the activation's scale for W4A4; NAN: none stored */
    /* f32 [cols] (ModelOpt's AWQ): the input is multiplied by it before anything else,
     * y = (x * pre_scale) W^T; NULL: ones. Not part of W: weight_dequantize_row leaves it out. */
    const float *pre_scale;
};

const char *weight_format_name(enum weight_format f); /* "nvfp4" */
int64_t weight_bytes(const struct weight *w);         /* codes and scales as stored */

/* Of one row of data. Here and not in weight.c, because the CUDA module needs it and links nothing
 * of this layer. */
static inline size_t weight_row_bytes(const struct weight *w) {
    switch (w->format) {
    case WEIGHT_F32:
        return (size_t)w->cols * 4;
    case WEIGHT_F16:
    case WEIGHT_BF16:
        return (size_t)w->cols * 2;
    case WEIGHT_FP8:
        return (size_t)w->cols;
    case WEIGHT_NVFP4:
    case WEIGHT_MXFP4:
        break;
    }
    return (size_t)w->cols / 2;
}

/* Of one row of block_scale; 0: none. */
static inline size_t weight_block_row_bytes(const struct weight *w) {
    if (w->block_scale == NULL) return 0;
    return (size_t)(w->cols / (w->format == WEIGHT_NVFP4 ? NVFP4_BLOCK : MXFP4_BLOCK));
}

/* Row `row` as fp32, exact but for the roundings of its own scales. out[cols]. */
void weight_dequantize_row(const struct weight *w, int64_t row, float *out);

/* A weight of `count` rows, the i-th a copy of row[i] of w (in range), in the arena. Exact in every
 * format: scales run along rows. */
struct weight weight_gather_rows(const struct weight *w, const int64_t *row, int64_t count,
                                 struct arena *arena);

#endif
