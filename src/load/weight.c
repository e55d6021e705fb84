#include "load/weight.h"

#include <stddef.h>
#include <string.h>

#include "num/fp.h"

const char *weight_format_name(enum weight_format f) {
    static const char *const names[] = {"f32", "f16", "bf16", "fp8", "nvfp4", "mxfp4"};
    return names[f];
}

int64_t weight_bytes(const struct weight *w) {
    int64_t n = w->rows * w->cols;
    switch (w->format) {
    case WEIGHT_F32:
        return n * 4;
    case WEIGHT_F16:
    case WEIGHT_BF16:
        return n * 2;
    case WEIGHT_NVFP4:
        return n / 2 + n / NVFP4_BLOCK + 4;
    case WEIGHT_MXFP4:
        return n / 2 + n / MXFP4_BLOCK;
    case WEIGHT_FP8:
        break;
    }
    if (w->scale == NULL) return n;
    return n + 4 * ((w->rows + w->scale_rows - 1) / w->scale_rows) *
                   ((w->cols + w->scale_cols - 1) / w->scale_cols);
}

static void dequantize_fp8(const struct weight *w, int64_t row, float *out) {
    const uint8_t *x = (const uint8_t *)w->data + row * w->cols;
    const float *scale = NULL;
    if (w->scale)
        scale = w->scale + row / w->scale_rows * ((w->cols + w->scale_cols - 1) / w->scale_cols);
    for (int64_t k = 0; k < w->cols; k++)
        out[k] = e4m3_decode(x[k]) * (scale ? scale[k / w->scale_cols] : 1.0f) * w->multiplier;
}

static void dequantize_mxfp4(const struct weight *w, int64_t row, float *out) {
    const uint8_t *codes = (const uint8_t *)w->data + row * w->cols / 2;
    const uint8_t *scales = w->block_scale + row * w->cols / MXFP4_BLOCK;
    for (int64_t k = 0; k < w->cols; k++) {
        uint8_t code = k & 1 ? codes[k / 2] >> 4 : codes[k / 2] & 15;
        out[k] = e2m1_decode(code) * e8m0_decode(scales[k / MXFP4_BLOCK]) * w->multiplier;
    }
}

void weight_dequantize_row(const struct weight *w, int64_t row, float *out) {
    const int64_t n = w->cols;
    const float m = w->multiplier;
    switch (w->format) {
    case WEIGHT_F32:
        for (int64_t k = 0; k < n; k++) out[k] = ((const float *)w->data)[row * n + k] * m;
        break;
    case WEIGHT_F16:
        for (int64_t k = 0; k < n; k++)
            out[k] = fp16_decode(((const uint16_t *)w->data)[row * n + k]) * m;
        break;
    case WEIGHT_BF16:
        for (int64_t k = 0; k < n; k++)
            out[k] = bf16_decode(((const uint16_t *)w->data)[row * n + k]) * m;
        break;
    case WEIGHT_FP8:
        dequantize_fp8(w, row, out);
        break;
    case WEIGHT_NVFP4:
        nvfp4_dequantize_row((const uint8_t *)w->data + row * n / 2,
                             w->block_scale + row * n / NVFP4_BLOCK, w->multiplier, n, out);
        break;
    case WEIGHT_MXFP4:
        dequantize_mxfp4(w, row, out);
        break;
    }
}

struct weight weight_gather_rows(const struct weight *w, const int64_t *row, int64_t count,
                                 struct arena *arena) {
    const size_t data_bytes = weight_row_bytes(w), block_bytes = weight_block_row_bytes(w);
    struct weight out = *w;
    out.rows = count;
    uint8_t *data = arena_array(arena, (size_t)count, data_bytes), *block = NULL;
    float *scale = NULL;
    const int64_t per_row = w->scale ? (w->cols + w->scale_cols - 1) / w->scale_cols : 0;
    if (block_bytes) block = arena_array(arena, (size_t)count, block_bytes);
    if (per_row) scale = arena_array(arena, (size_t)(count * per_row), sizeof *scale);
    for (int64_t i = 0; i < count; i++) {
        const int64_t from = row[i];
        memcpy(data + (size_t)i * data_bytes, (const uint8_t *)w->data + (size_t)from * data_bytes,
               data_bytes);
        if (block_bytes)
            memcpy(block + (size_t)i * block_bytes, w->block_scale + (size_t)from * block_bytes,
                   block_bytes);
        if (per_row)
            memcpy(scale + i * per_row, w->scale + from / w->scale_rows * per_row,
                   (size_t)per_row * sizeof *scale);
    }
    out.data = data;
    out.block_scale = block;
    out.scale = scale;
    if (per_row) out.scale_rows = 1;
    return out;
}
