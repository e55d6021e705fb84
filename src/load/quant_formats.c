/* The formats themselves: which one the tensors of a linear make, shapes, scale bytes. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "load/quant_internal.h"
#include "num/fp.h"
#include "num/nvfp4.h"

/* Eight bytes at a time: (b & 7F) + 1 has its high bit set only for b = 7F and FF. */
#define LOW_BITS  0x7F7F7F7F7F7F7F7Full
#define HIGH_BITS 0x8080808080808080ull
#define ONES      0x0101010101010101ull

int64_t quant_find_bad_e4m3_scale(const uint8_t *scales, size_t count) {
    enum { RUN = 4096 };
    for (size_t start = 0; start < count; start += RUN) {
        size_t n = count - start < RUN ? count - start : RUN, i = 0;
        uint64_t bad = 0, word;
        for (; i + 8 <= n; i += 8) {
            memcpy(&word, scales + start + i, 8);
            bad |= ((word & LOW_BITS) + ONES) | word;
        }
        if (!(bad & HIGH_BITS) && i == n) continue;
        for (i = 0; i < n; i++) {
            if (scales[start + i] >= 0x7F) return (int64_t)(start + i);
        }
    }
    return -1;
}

int64_t quant_find_bad_e8m0_scale(const uint8_t *scales, size_t count) {
    const uint8_t *at = count ? memchr(scales, 0xFF, count) : NULL;
    return at ? at - scales : -1;
}

int quant_check_e4m3_scales(const struct quant_module *m, const struct tensor *scale) {
    if (m->ck->keep_bad_scales) return 0;
    int64_t bad = quant_find_bad_e4m3_scale(scale->data, scale->bytes);
    if (bad < 0) return 0;
    return quant_fail(m, IMP_ERR_FILE, scale,
                      "block scale %lld, at byte %llu of the file, is 0x%02X: %s", (long long)bad,
                      (unsigned long long)scale->file_offset + (uint64_t)bad, scale->data[bad],
                      (scale->data[bad] & 0x7F) == 0x7F ? "not a number" : "negative");
}

static int global_scale(const struct quant_module *m, const struct tensor *t, bool divisor,
                        float *out) {
    float stored;
    if (!quant_scalar(t, &stored)) {
        char shape[128];
        tensor_shape_text(t, shape);
        return quant_fail(m, IMP_ERR_FILE, t, "one F32 number expected, %s %s found",
                          dtype_name(t->dtype), shape);
    }
    float multiplier = divisor ? 1.0f / stored : stored;
    *out = multiplier;
    if (m->ck->keep_bad_scales) return 0;
    if (!(stored > 0) || !isfinite(stored) || !isfinite(multiplier) || !(multiplier > 0))
        return quant_fail(m, IMP_ERR_FILE, t, "the scale of the whole tensor is %g",
                          (double)stored);
    /* A divisor taken for a multiplier, or the reverse, is off by 10^4 to 10^12. */
    float largest = multiplier / NVFP4_AMAX_TO_MULTIPLIER;
    if ((largest < 1e-5f || largest > 1e5f) && quant_first_time(m, SAID_RANGE))
        log_line(m->ck->log, LOG_WARNING,
                 "tensor %s = %g lets weights be as large as %g, which is not plausible", t->name,
                 (double)stored, (double)largest);
    return 0;
}

/* ---- shapes ---- */

/* t is [rows, cols / per_byte]. */
static int matrix(const struct quant_module *m, const struct tensor *t, int per_byte,
                  struct weight *w) {
    char shape[128];
    tensor_shape_text(t, shape);
    if (t->dims == 3)
        return quant_fail(m, IMP_ERR_UNSUPPORTED, t,
                          "stacked matrices %s under one name are not supported", shape);
    if (t->dims != 2 || t->bytes == 0)
        return quant_fail(m, IMP_ERR_FILE, t, "a matrix expected, %s found", shape);
    w->rows = t->shape[0];
    w->cols = t->shape[1] * per_byte;
    w->data = t->data;
    if ((m->want_rows == -1 || m->want_rows == w->rows) &&
        (m->want_cols == -1 || m->want_cols == w->cols))
        return 0;
    char rows[24] = "any", cols[24] = "any";
    if (m->want_rows != -1) snprintf(rows, sizeof rows, "%lld", (long long)m->want_rows);
    if (m->want_cols != -1) snprintf(cols, sizeof cols, "%lld", (long long)m->want_cols);
    return quant_fail(m, IMP_ERR_FILE, t,
                      "[%s, %s] weights expected, [%lld, %lld] found (stored as %s %s)", rows, cols,
                      (long long)w->rows, (long long)w->cols, dtype_name(t->dtype), shape);
}

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

/* One scale byte for `block` codes of a row. */
static int block_scales(const struct quant_module *m, const struct weight *w, int block) {
    const struct tensor *t = m->part[PART_SCALE];
    char shape[128];
    tensor_shape_text(t, shape);
    if (w->cols % block != 0)
        return quant_fail(m, IMP_ERR_FILE, t, "rows of %lld weights are not whole blocks of %d",
                          (long long)w->cols, block);
    int64_t per_row = w->cols / block;
    if (t->dims == 2 && t->shape[0] == w->rows && t->shape[1] == per_row) return 0;
    int64_t padded = round_up(w->rows, 128) * round_up(per_row, 4);
    const char *hint = "";
    if (tensor_elements(t) == padded) hint = " (padded or swizzled for one GPU's layout)";
    if (t->dims == 2 && t->shape[0] == w->rows && t->shape[1] * 2 == per_row &&
        block == NVFP4_BLOCK)
        return quant_fail(m, IMP_ERR_UNSUPPORTED, t,
                          "NVFP4 with blocks of 32 is not supported (%s)", shape);
    return quant_fail(m, IMP_ERR_FILE, t, "block scales [%lld, %lld] expected, %s found%s",
                      (long long)w->rows, (long long)per_row, shape, hint);
}

/* ---- formats ---- */

static int load_nvfp4(const struct quant_module *m, const struct tensor *codes, struct weight *w) {
    const struct tensor *scale = m->part[PART_SCALE];
    bool divisor = codes == m->part[PART_PACKED];
    const struct tensor *global = m->part[divisor ? PART_GLOBAL : PART_SCALE_2];
    if (global == NULL)
        return quant_fail_combination(m, divisor ? "NVFP4 codes without weight_global_scale"
                                                 : "NVFP4 codes without weight_scale_2");
    w->format = WEIGHT_NVFP4;
    int rc = matrix(m, codes, 2, w);
    if (rc == 0) rc = block_scales(m, w, NVFP4_BLOCK);
    if (rc == 0) rc = global_scale(m, global, divisor, &w->multiplier);
    if (rc == 0) rc = quant_check_e4m3_scales(m, scale);
    if (rc < 0) return rc;
    w->block_scale = scale->data;
    return 0;
}

static int load_mxfp4(const struct quant_module *m, const struct tensor *codes, struct weight *w) {
    const struct tensor *scale = m->part[PART_SCALE];
    if (m->part[PART_GLOBAL] || m->part[PART_SCALE_2])
        return quant_fail_combination(m, "MXFP4 has no scale of the whole tensor");
    w->format = WEIGHT_MXFP4;
    int rc = matrix(m, codes, 2, w);
    if (rc == 0) rc = block_scales(m, w, MXFP4_BLOCK);
    if (rc < 0) return rc;
    int64_t bad = quant_find_bad_e8m0_scale(scale->data, scale->bytes);
    if (bad >= 0 && !m->ck->keep_bad_scales)
        return quant_fail(m, IMP_ERR_FILE, scale,
                          "block scale %lld, at byte %llu of the file, is 0xFF: "
                          "not a number",
                          (long long)bad, (unsigned long long)scale->file_offset + (uint64_t)bad);
    w->block_scale = scale->data;
    return 0;
}

static int load_fp4(const struct quant_module *m, const struct tensor *codes, struct weight *w) {
    const struct tensor *scale = m->part[PART_SCALE];
    if (scale == NULL) return quant_fail_combination(m, "4-bit codes without weight_scale");
    if (scale->dtype == DTYPE_F8_E4M3) return load_nvfp4(m, codes, w);
    if (scale->dtype == DTYPE_U8 || scale->dtype == DTYPE_F8_E8M0) return load_mxfp4(m, codes, w);
    if (codes == m->part[PART_WEIGHT] && !m->part[PART_SCALE_2] &&
        (scale->dtype == DTYPE_F32 || scale->dtype == DTYPE_F16 || scale->dtype == DTYPE_BF16))
        return quant_fail(m, IMP_ERR_UNSUPPORTED, codes,
                          "4-bit integers (ModelOpt's INT4 and AWQ) are not supported");
    return quant_fail_combination(m, "block scales are neither E4M3 nor E8M0");
}

/* The rows and columns that one entry of a [rows, cols] grid of scales covers. A quotient is not
 * enough to tell: 576 rows under 5 scales are blocks of 128. */
static bool block_size(const struct quant_module *m, const struct weight *w, int64_t rows,
                       int64_t cols, int64_t *block_rows, int64_t *block_cols) {
    const struct quant_declared *d = &m->ck->declared;
    const int64_t sizes[3][2] = {
        {d->block_rows, d->block_cols}, {128, 128}, {w->rows / rows, w->cols / cols}};
    for (int i = 0; i < 3; i++) {
        int64_t r = sizes[i][0], c = sizes[i][1];
        if (r < 1 || c < 1) continue;
        if ((w->rows + r - 1) / r != rows || (w->cols + c - 1) / c != cols) continue;
        *block_rows = r;
        *block_cols = c;
        return true;
    }
    return false;
}

static int fp8_scale_shape(const struct quant_module *m, const struct tensor *t, struct weight *w) {
    char shape[128];
    tensor_shape_text(t, shape);
    int64_t rows = t->dims > 0 ? t->shape[0] : 1, cols = 1;
    bool grid = t->dims == 1 || t->dims == 2;
    if (t->dims == 2) cols = t->shape[1];
    if (t->dims == 4 && t->shape[1] == 1 && t->shape[3] == 1) { /* ModelOpt: [R, 1, C, 1] */
        cols = t->shape[2];
        grid = true;
    }
    if (grid && rows == w->rows && cols == 1) {
        w->scale_rows = 1;
        w->scale_cols = w->cols;
        return 0;
    }
    if (grid && t->dims != 1 && rows > 0 && cols > 0 && rows <= w->rows && cols <= w->cols &&
        block_size(m, w, rows, cols, &w->scale_rows, &w->scale_cols))
        return 0;
    return quant_fail(m, IMP_ERR_FILE, t, "%s scales fit no layout for FP8 weights [%lld, %lld]",
                      shape, (long long)w->rows, (long long)w->cols);
}

static int fp8_scales(const struct quant_module *m, const struct tensor *t, struct weight *w) {
    int rc = fp8_scale_shape(m, t, w);
    if (rc < 0) return rc;
    int64_t n = tensor_elements(t);
    float *scale = arena_array(&m->ck->arena, (size_t)n, sizeof *scale);
    quant_to_floats(t, scale);
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(scale[i]) || scale[i] < 0)
            return quant_fail(m, IMP_ERR_FILE, t, "scale %lld is %g", (long long)i,
                              (double)scale[i]);
    }
    w->scale = scale;
    return 0;
}

static int load_fp8(const struct quant_module *m, struct weight *w) {
    const struct tensor *t = m->part[PART_SCALE] ? m->part[PART_SCALE] : m->part[PART_SCALE_INV];
    if (t == NULL) return quant_fail_combination(m, "FP8 weights without a scale");
    if (m->part[PART_SCALE_2] || m->part[PART_GLOBAL])
        return quant_fail_combination(m, "FP8 weights with a second scale");
    if (t->dtype == DTYPE_U8 || t->dtype == DTYPE_F8_E8M0)
        return quant_fail(m, IMP_ERR_UNSUPPORTED, t,
                          "MXFP8 (FP8 weights under E8M0 scales) is not supported");
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16)
        return quant_fail(m, IMP_ERR_FILE, t, "FP8 scales of dtype %s", dtype_name(t->dtype));
    w->format = WEIGHT_FP8;
    int rc = matrix(m, m->part[PART_WEIGHT], 1, w);
    if (rc < 0) return rc;
    if (tensor_elements(t) != 1) return fp8_scales(m, t, w);
    quant_scalar(t, &w->multiplier);
    if (isfinite(w->multiplier) && w->multiplier > 0) return 0;
    return quant_fail(m, IMP_ERR_FILE, t, "the scale of the whole tensor is %g",
                      (double)w->multiplier);
}

static int load_plain(const struct quant_module *m, struct weight *w) {
    const struct tensor *t = m->part[PART_WEIGHT];
    if (m->part[PART_SCALE] || m->part[PART_SCALE_INV] || m->part[PART_SCALE_2] ||
        m->part[PART_GLOBAL])
        return quant_fail_combination(m, "unquantised weights with scales");
    w->format = t->dtype == DTYPE_F32   ? WEIGHT_F32
                : t->dtype == DTYPE_F16 ? WEIGHT_F16
                                        : WEIGHT_BF16;
    int rc = matrix(m, t, 1, w);
    if (rc < 0 || (uintptr_t)t->data % (size_t)(dtype_bits(t->dtype) / 8) == 0) return rc;
    /* A writer that does not pad its header leaves numbers where they cannot be read in place. */
    void *copy = arena_alloc(&m->ck->arena, t->bytes);
    memcpy(copy, t->data, t->bytes);
    w->data = copy;
    if (quant_first_time(m, SAID_COPY))
        log_line(m->ck->log, LOG_INFO, "tensor %s is not aligned in its file: copied", t->name);
    return 0;
}

int quant_module_format(const struct quant_module *m, struct weight *w) {
    const struct tensor *packed = m->part[PART_PACKED], *weight = m->part[PART_WEIGHT];
    if ((packed && weight) || (packed && m->part[PART_SCALE_2]) ||
        (weight && m->part[PART_GLOBAL]) || (m->part[PART_SCALE] && m->part[PART_SCALE_INV]))
        return quant_fail_combination(m, "tensors of two conventions at once");
    if (packed) {
        if (packed->dtype == DTYPE_I32)
            return quant_fail(m, IMP_ERR_UNSUPPORTED, packed,
                              "packed integers (pack-quantized) are not supported");
        if (packed->dtype == DTYPE_U8) return load_fp4(m, packed, w);
        return quant_fail_combination(m, "packed weights of a dtype that means nothing");
    }
    if (weight == NULL) return quant_fail_combination(m, "no linear under this name");
    switch (weight->dtype) {
    case DTYPE_U8:
        return load_fp4(m, weight, w);
    case DTYPE_F8_E4M3:
        return load_fp8(m, w);
    case DTYPE_F32:
    case DTYPE_F16:
    case DTYPE_BF16:
        return load_plain(m, w);
    case DTYPE_I8:
        return quant_fail(m, IMP_ERR_UNSUPPORTED, weight,
                          "8-bit integers (int-quantized) are not supported");
    default:
        return quant_fail(m, IMP_ERR_UNSUPPORTED, weight, "weights of dtype %s are not supported",
                          dtype_name(weight->dtype));
    }
}
