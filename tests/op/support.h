/* Random weights and what they stand for, in double: for tests and timings of ops. */
#ifndef IMP_TESTS_OP_SUPPORT_H
#define IMP_TESTS_OP_SUPPORT_H

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "base/str.h"
#include "num/fp.h"
#include "op/cases.h"

static inline uint32_t case_bits(uint64_t stream, uint64_t i) {
    uint32_t out[4];
    rng_block(7, stream, i / 4, out);
    return out[i % 4];
}
static inline float case_normal(uint64_t stream, uint64_t i) {
    /* near enough to a normal: the sum of four uniforms, cheap */
    uint32_t out[4];
    rng_block(11, stream, i, out);
    double sum = 0;
    for (int j = 0; j < 4; j++) sum += out[j] * 0x1p-32 - 0.5;
    return (float)(sum * 1.7320508);
}
static inline void case_fill(float *out, int64_t n, uint64_t stream, float scale) {
    for (int64_t i = 0; i < n; i++) out[i] = case_normal(stream, (uint64_t)i) * scale;
}

static inline void case_weight_plain(struct weight *w, uint64_t stream) {
    const int64_t n = w->rows * w->cols;
    const int64_t size = w->format == WEIGHT_F32 ? 4 : w->format == WEIGHT_FP8 ? 1 : 2;
    uint8_t *data = mem_alloc((size_t)(n * size));
    for (int64_t i = 0; i < n && w->format == WEIGHT_FP8; i++) {
        uint8_t byte = (uint8_t)case_bits(stream, (uint64_t)i);
        data[i] = (byte & 0x7F) == 0x7F ? 1 : byte; /* every code, subnormals too */
    }
    for (int64_t i = 0; i < n && w->format != WEIGHT_FP8; i++) {
        float x = case_normal(stream, (uint64_t)i) * 0.5f;
        uint16_t half = w->format == WEIGHT_F16 ? fp16_encode(x) : bf16_encode(x);
        memcpy(data + i * size, size == 4 ? (void *)&x : (void *)&half, (size_t)size);
    }
    w->data = data;
}

static inline void case_weight_fp4(struct weight *w, uint64_t stream) {
    const int64_t group = w->format == WEIGHT_NVFP4 ? 16 : 32;
    const int64_t bytes = w->rows * w->cols / 2, groups = w->rows * w->cols / group;
    uint8_t *data = mem_alloc((size_t)bytes), *scale = mem_alloc((size_t)groups);
    for (int64_t i = 0; i < bytes; i++) data[i] = (uint8_t)case_bits(stream, (uint64_t)i);
    for (int64_t i = 0; i < groups; i++) {
        uint32_t u = case_bits(stream + 1, (uint64_t)i);
        /* NVFP4: any scale, also 0, the subnormals, 448 and one negative in 64; MXFP4: 2^-8..2^7 */
        uint8_t s = (uint8_t)(u % 127);
        if ((u >> 20) % 64 == 0) s |= 0x80;
        scale[i] = w->format == WEIGHT_NVFP4 ? s : (uint8_t)(119 + u % 16);
    }
    w->data = data;
    w->block_scale = scale;
}

/* Weights of one part, made from the stream; freed with case_weight_free. */
static inline struct weight case_weight(const struct case_part *part, int64_t cols,
                                        uint64_t stream) {
    struct weight w = {.name = "case", .format = part->format, .rows = part->rows, .cols = cols};
    w.multiplier = 1.0f;
    w.input_multiplier = NAN;
    if (part->format == WEIGHT_NVFP4 || part->format == WEIGHT_MXFP4) {
        case_weight_fp4(&w, stream);
        if (part->format == WEIGHT_NVFP4) w.multiplier = 0.00123f + 0.0001f * (float)(stream % 7);
        return w;
    }
    case_weight_plain(&w, stream);
    if (part->format != WEIGHT_FP8) return w;
    w.multiplier = 0.75f;
    if (part->scale_rows == 0) return w;
    w.scale_rows = part->scale_rows;
    w.scale_cols = part->scale_cols;
    int64_t n =
        (w.rows + w.scale_rows - 1) / w.scale_rows * ((w.cols + w.scale_cols - 1) / w.scale_cols);
    float *scale = mem_alloc((size_t)n * sizeof *scale);
    for (int64_t i = 0; i < n; i++) scale[i] = 0.01f + fabsf(case_normal(stream + 2, (uint64_t)i));
    w.scale = scale;
    return w;
}

/* Loading refuses negative scales of NVFP4, of which the reference knows nothing. */
static inline void case_scales_positive(struct weight *w) {
    uint8_t *scale = (uint8_t *)(uintptr_t)w->block_scale;
    for (int64_t i = 0; w->format == WEIGHT_NVFP4 && i < w->rows * w->cols / 16; i++)
        scale[i] &= 0x7F;
}

static inline void case_weight_free(struct weight *w) {
    free((void *)(uintptr_t)w->data);
    free((void *)(uintptr_t)w->block_scale);
    free((void *)(uintptr_t)w->scale);
    free((void *)(uintptr_t)w->pre_scale);
}

/* One element, exact: every product here has few enough bits for a double. */
static inline double case_element(const struct weight *w, int64_t row, int64_t col) {
    const int64_t i = row * w->cols + col;
    const uint8_t *bytes = w->data;
    const uint16_t *halves = w->data;
    double x = 0;
    switch (w->format) {
    case WEIGHT_F32:
        x = ((const float *)w->data)[i];
        break;
    case WEIGHT_F16:
        x = fp16_decode(halves[i]);
        break;
    case WEIGHT_BF16:
        x = bf16_decode(halves[i]);
        break;
    case WEIGHT_FP8:
        x = e4m3_decode(bytes[i]);
        if (w->scale)
            x *= w->scale[row / w->scale_rows * ((w->cols + w->scale_cols - 1) / w->scale_cols) +
                          col / w->scale_cols];
        break;
    case WEIGHT_NVFP4:
        x = (double)e2m1_decode(bytes[i / 2] >> 4 * (i & 1) & 15) *
            e4m3_decode(w->block_scale[i / 16]);
        break;
    case WEIGHT_MXFP4:
        x = (double)e2m1_decode(bytes[i / 2] >> 4 * (i & 1) & 15) *
            e8m0_decode(w->block_scale[i / 32]);
        break;
    }
    return x * w->multiplier;
}

#endif
