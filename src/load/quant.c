#include "load/quant.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "num/fp.h"
#include "num/nvfp4.h"

enum part {
    WEIGHT,
    PACKED,
    SCALE,
    SCALE_INV,
    SCALE_2,
    GLOBAL,
    INPUT_SCALE,
    ACTIVATION_SCALE,
    INPUT_GLOBAL,
    PART_COUNT
};

static const char *const PART_NAMES[PART_COUNT] = {
    [WEIGHT] = "weight",
    [PACKED] = "weight_packed",
    [SCALE] = "weight_scale",
    [SCALE_INV] = "weight_scale_inv", /* a multiplier, whatever its name says */
    [SCALE_2] = "weight_scale_2",
    [GLOBAL] = "weight_global_scale",
    [INPUT_SCALE] = "input_scale",
    [ACTIVATION_SCALE] = "activation_scale", /* Mistral's own FP8 files */
    [INPUT_GLOBAL] = "input_global_scale",
};

/* A tensor of this name says that the linear is in a format imp does not have. */
static const struct {
    const char *parameter, *format;
} REFUSED[] = {
    {"pre_quant_scale", "activation smoothing at run time (AWQ, pre_quant_scale)"},
    {"input_quantizer._pre_quant_scale", "activation smoothing at run time (AWQ, pre_quant_scale)"},
    {"svdquant_lora_a", "SVDQuant's low-rank branch"},
    {"weight_quantizer.svdquant_lora_a", "SVDQuant's low-rank branch"},
    {"qweight", "GPTQ or AWQ integers (qweight)"},
    {"weight.absmax", "bitsandbytes 4-bit blocks"},
    {"SCB", "bitsandbytes 8-bit rows"},
    {"codes", "additive codebooks (AQLM)"},
};

const char *const quant_parameters[] = {"weight", "weight_packed", "qweight", "codes", NULL};

enum remark { SAID_FORMAT = 1, SAID_IGNORED = 2, SAID_INPUT = 4, SAID_RANGE = 8, SAID_COPY = 16 };

struct module {
    struct checkpoint *ck;
    const char *name; /* as in the files */
    const struct tensor *part[PART_COUNT];
    int64_t want_rows, want_cols; /* -1: any */
    struct imp_error *err;
};

static const struct tensor *parameter(const struct module *m, const char *name) {
    char full[CAP_TENSOR_NAME + 64];
    int n = snprintf(full, sizeof full, "%s.%s", m->name, name);
    if (n >= (int)sizeof full) return NULL;
    const int64_t *at = map_find(&m->ck->by_name, slice_of(full));
    return at ? m->ck->tensors[*at] : NULL;
}

/* ---- errors and remarks ---- */

static int fail(const struct module *m, int code, const struct tensor *t, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static int fail(const struct module *m, int code, const struct tensor *t, const char *fmt, ...) {
    char place[sizeof m->err->where], line[sizeof m->err->message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (t)
        error_place(place, t->file, "tensor %s", t->name);
    else
        error_place(place, m->ck->path, "module %s", m->name);
    return error_set(m->err, code, place, "%s", line);
}

/* Lists what there is under the module, for a combination that means nothing. */
static int fail_combination(const struct module *m, const char *why) {
    char list[300] = "";
    size_t n = 0;
    for (int i = 0; i < PART_COUNT; i++) {
        const struct tensor *t = m->part[i];
        char shape[128];
        if (t == NULL || n >= sizeof list) continue;
        tensor_shape_text(t, shape);
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s %s %s", n ? ", " : "", PART_NAMES[i],
                              dtype_name(t->dtype), shape);
    }
    return fail(m, IMP_ERR_FILE, NULL, "%s: found %s", why, n ? list : "nothing");
}

static bool first_time(const struct module *m, enum remark what) {
    if (m->ck->said & what) return false;
    m->ck->said |= what;
    return true;
}

static bool listed(const struct module *m, yyjson_val *names) {
    size_t i, n;
    yyjson_val *name;
    yyjson_arr_foreach(names, i, n, name) {
        if (yyjson_equals_str(name, m->name)) return true;
    }
    return false;
}

/* The tensors decide; where the configuration says something else, say so, once. */
static void compare_with_config(const struct module *m, const struct weight *w) {
    struct checkpoint *ck = m->ck;
    if (w->format == WEIGHT_F32 || w->format == WEIGHT_F16 || w->format == WEIGHT_BF16) return;
    const char *format = weight_format_name(w->format);
    bool modelopt = m->part[SCALE_2] != NULL, compressed = m->part[GLOBAL] != NULL;
    if (!(ck->declared.formats >> w->format & 1) && first_time(m, SAID_FORMAT))
        log_line(
            ck->log, LOG_WARNING,
            "%s is stored as %s, which the configuration does not mention; going by the tensors",
            m->name, format);
    if (((modelopt && ck->dialect == QUANT_COMPRESSED_TENSORS) ||
         (compressed && ck->dialect == QUANT_MODELOPT)) &&
        first_time(m, SAID_FORMAT))
        log_line(ck->log, LOG_WARNING,
                 "the configuration says %s, the tensors of %s are %s's; going by the tensors",
                 modelopt ? "compressed-tensors" : "ModelOpt", m->name,
                 modelopt ? "ModelOpt" : "compressed-tensors");
    yyjson_val *ignore = yyjson_obj_get(config_get(&ck->config, "quantization_config"), "ignore");
    yyjson_val *root = ck->config.quant ? yyjson_doc_get_root(ck->config.quant) : NULL;
    yyjson_val *exclude = yyjson_obj_get(yyjson_obj_get(root, "quantization"), "exclude_modules");
    if (!(ck->said & SAID_IGNORED) && (listed(m, ignore) || listed(m, exclude)) &&
        first_time(m, SAID_IGNORED))
        log_line(
            ck->log, LOG_WARNING,
            "the configuration leaves %s unquantised, it is stored as %s; going by the tensors",
            m->name, format);
}

/* ---- reading values ---- */

bool quant_to_floats(const struct tensor *t, float *out) {
    int64_t n = tensor_elements(t);
    uint16_t half;
    switch (t->dtype) {
    case DTYPE_F32:
        if (n > 0) memcpy(out, t->data, (size_t)n * sizeof *out);
        return true;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n; i++) {
            memcpy(&half, t->data + 2 * i, sizeof half);
            out[i] = bf16_decode(half);
        }
        return true;
    case DTYPE_F16:
        for (int64_t i = 0; i < n; i++) {
            memcpy(&half, t->data + 2 * i, sizeof half);
            out[i] = fp16_decode(half);
        }
        return true;
    default:
        return false;
    }
}

/* One number, stored with shape [] or [1]: compressed-tensors writes the second, ModelOpt the
 * first. */
static bool read_scalar(const struct tensor *t, float *out) {
    return t != NULL && tensor_elements(t) == 1 && quant_to_floats(t, out);
}

static int global_scale(const struct module *m, const struct tensor *t, bool divisor, float *out) {
    float stored;
    if (!read_scalar(t, &stored)) {
        char shape[128];
        tensor_shape_text(t, shape);
        return fail(m, IMP_ERR_FILE, t, "one F32 number expected, %s %s found",
                    dtype_name(t->dtype), shape);
    }
    float multiplier = divisor ? 1.0f / stored : stored;
    if (!(stored > 0) || !isfinite(stored) || !isfinite(multiplier) || !(multiplier > 0))
        return fail(m, IMP_ERR_FILE, t, "the scale of the whole tensor is %g", (double)stored);
    *out = multiplier;
    /* A divisor taken for a multiplier, or the reverse, is off by 10^4 to 10^12. */
    float largest = multiplier / NVFP4_AMAX_TO_MULTIPLIER;
    if ((largest < 1e-5f || largest > 1e5f) && first_time(m, SAID_RANGE))
        log_line(m->ck->log, LOG_WARNING,
                 "tensor %s = %g lets weights be as large as %g, which is not plausible", t->name,
                 (double)stored, (double)largest);
    return 0;
}

/* Only W4A4 needs it, and an expert that calibration never reached has none: so never an error. */
static float input_multiplier(const struct module *m, enum weight_format format) {
    const struct tensor *t =
        m->part[INPUT_SCALE] ? m->part[INPUT_SCALE] : m->part[ACTIVATION_SCALE];
    const struct tensor *divisor = m->part[INPUT_GLOBAL];
    float value = NAN;
    if (t != NULL && divisor == NULL) {
        if (!read_scalar(t, &value)) value = NAN;
    } else if (divisor != NULL && t == NULL) {
        value = read_scalar(divisor, &value) ? 1.0f / value : NAN;
    }
    if (isfinite(value) && value > 0) return value;
    bool expected = format == WEIGHT_NVFP4 && m->ck->declared.activations;
    if ((t || divisor || expected) && first_time(m, SAID_INPUT))
        log_line(m->ck->log, LOG_WARNING,
                 "%s has no usable input scale (missing, zero or not finite); it is taken from the "
                 "activations where one is needed",
                 m->name);
    return NAN;
}

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

/* ---- shapes ---- */

/* t is [rows, cols / per_byte]. */
static int matrix(const struct module *m, const struct tensor *t, int per_byte, struct weight *w) {
    char shape[128];
    tensor_shape_text(t, shape);
    if (t->dims == 3)
        return fail(m, IMP_ERR_UNSUPPORTED, t,
                    "stacked matrices %s under one name are not supported", shape);
    if (t->dims != 2 || t->bytes == 0)
        return fail(m, IMP_ERR_FILE, t, "a matrix expected, %s found", shape);
    w->rows = t->shape[0];
    w->cols = t->shape[1] * per_byte;
    w->data = t->data;
    if ((m->want_rows == -1 || m->want_rows == w->rows) &&
        (m->want_cols == -1 || m->want_cols == w->cols))
        return 0;
    char rows[24] = "any", cols[24] = "any";
    if (m->want_rows != -1) snprintf(rows, sizeof rows, "%lld", (long long)m->want_rows);
    if (m->want_cols != -1) snprintf(cols, sizeof cols, "%lld", (long long)m->want_cols);
    return fail(m, IMP_ERR_FILE, t,
                "[%s, %s] weights expected, [%lld, %lld] found (stored as %s %s)", rows, cols,
                (long long)w->rows, (long long)w->cols, dtype_name(t->dtype), shape);
}

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

/* One scale byte for `block` codes of a row. */
static int block_scales(const struct module *m, const struct weight *w, int block) {
    const struct tensor *t = m->part[SCALE];
    char shape[128];
    tensor_shape_text(t, shape);
    if (w->cols % block != 0)
        return fail(m, IMP_ERR_FILE, t, "rows of %lld weights are not whole blocks of %d",
                    (long long)w->cols, block);
    int64_t per_row = w->cols / block;
    if (t->dims == 2 && t->shape[0] == w->rows && t->shape[1] == per_row) return 0;
    int64_t padded = round_up(w->rows, 128) * round_up(per_row, 4);
    const char *hint = "";
    if (tensor_elements(t) == padded) hint = " (padded or swizzled for one GPU's layout)";
    if (t->dims == 2 && t->shape[0] == w->rows && t->shape[1] * 2 == per_row &&
        block == NVFP4_BLOCK)
        return fail(m, IMP_ERR_UNSUPPORTED, t, "NVFP4 with blocks of 32 is not supported (%s)",
                    shape);
    return fail(m, IMP_ERR_FILE, t, "block scales [%lld, %lld] expected, %s found%s",
                (long long)w->rows, (long long)per_row, shape, hint);
}

/* ---- formats ---- */

static int load_nvfp4(const struct module *m, const struct tensor *codes, struct weight *w) {
    const struct tensor *scale = m->part[SCALE];
    bool divisor = codes == m->part[PACKED];
    const struct tensor *global = m->part[divisor ? GLOBAL : SCALE_2];
    if (global == NULL)
        return fail_combination(m, divisor ? "NVFP4 codes without weight_global_scale"
                                           : "NVFP4 codes without weight_scale_2");
    w->format = WEIGHT_NVFP4;
    int rc = matrix(m, codes, 2, w);
    if (rc == 0) rc = block_scales(m, w, NVFP4_BLOCK);
    if (rc == 0) rc = global_scale(m, global, divisor, &w->multiplier);
    if (rc < 0) return rc;
    int64_t bad = quant_find_bad_e4m3_scale(scale->data, scale->bytes);
    if (bad >= 0)
        return fail(m, IMP_ERR_FILE, scale,
                    "block scale %lld, at byte %llu of the file, is 0x%02X: %s", (long long)bad,
                    (unsigned long long)scale->file_offset + (uint64_t)bad, scale->data[bad],
                    (scale->data[bad] & 0x7F) == 0x7F ? "not a number" : "negative");
    w->block_scale = scale->data;
    return 0;
}

static int load_mxfp4(const struct module *m, const struct tensor *codes, struct weight *w) {
    const struct tensor *scale = m->part[SCALE];
    if (m->part[GLOBAL] || m->part[SCALE_2])
        return fail_combination(m, "MXFP4 has no scale of the whole tensor");
    w->format = WEIGHT_MXFP4;
    int rc = matrix(m, codes, 2, w);
    if (rc == 0) rc = block_scales(m, w, MXFP4_BLOCK);
    if (rc < 0) return rc;
    int64_t bad = quant_find_bad_e8m0_scale(scale->data, scale->bytes);
    if (bad >= 0)
        return fail(m, IMP_ERR_FILE, scale,
                    "block scale %lld, at byte %llu of the file, is 0xFF: "
                    "not a number",
                    (long long)bad, (unsigned long long)scale->file_offset + (uint64_t)bad);
    w->block_scale = scale->data;
    return 0;
}

static int load_fp4(const struct module *m, const struct tensor *codes, struct weight *w) {
    const struct tensor *scale = m->part[SCALE];
    if (scale == NULL) return fail_combination(m, "4-bit codes without weight_scale");
    if (scale->dtype == DTYPE_F8_E4M3) return load_nvfp4(m, codes, w);
    if (scale->dtype == DTYPE_U8 || scale->dtype == DTYPE_F8_E8M0) return load_mxfp4(m, codes, w);
    return fail_combination(m, "block scales are neither E4M3 nor E8M0");
}

/* The rows and columns that one entry of a [rows, cols] grid of scales covers. A quotient is not
 * enough to tell: 576 rows under 5 scales are blocks of 128. */
static bool block_size(const struct module *m, const struct weight *w, int64_t rows, int64_t cols,
                       int64_t *block_rows, int64_t *block_cols) {
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

static int fp8_scale_shape(const struct module *m, const struct tensor *t, struct weight *w) {
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
    return fail(m, IMP_ERR_FILE, t, "%s scales fit no layout for FP8 weights [%lld, %lld]", shape,
                (long long)w->rows, (long long)w->cols);
}

static int fp8_scales(const struct module *m, const struct tensor *t, struct weight *w) {
    int rc = fp8_scale_shape(m, t, w);
    if (rc < 0) return rc;
    int64_t n = tensor_elements(t);
    float *scale = arena_array(&m->ck->arena, (size_t)n, sizeof *scale);
    quant_to_floats(t, scale);
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(scale[i]) || scale[i] < 0)
            return fail(m, IMP_ERR_FILE, t, "scale %lld is %g", (long long)i, (double)scale[i]);
    }
    w->scale = scale;
    return 0;
}

static int load_fp8(const struct module *m, struct weight *w) {
    const struct tensor *t = m->part[SCALE] ? m->part[SCALE] : m->part[SCALE_INV];
    if (t == NULL) return fail_combination(m, "FP8 weights without a scale");
    if (m->part[SCALE_2] || m->part[GLOBAL])
        return fail_combination(m, "FP8 weights with a second scale");
    if (t->dtype == DTYPE_U8 || t->dtype == DTYPE_F8_E8M0)
        return fail(m, IMP_ERR_UNSUPPORTED, t,
                    "MXFP8 (FP8 weights under E8M0 scales) is not supported");
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16)
        return fail(m, IMP_ERR_FILE, t, "FP8 scales of dtype %s", dtype_name(t->dtype));
    w->format = WEIGHT_FP8;
    int rc = matrix(m, m->part[WEIGHT], 1, w);
    if (rc < 0) return rc;
    if (tensor_elements(t) != 1) return fp8_scales(m, t, w);
    read_scalar(t, &w->multiplier);
    if (isfinite(w->multiplier) && w->multiplier > 0) return 0;
    return fail(m, IMP_ERR_FILE, t, "the scale of the whole tensor is %g", (double)w->multiplier);
}

static int load_plain(const struct module *m, struct weight *w) {
    const struct tensor *t = m->part[WEIGHT];
    if (m->part[SCALE] || m->part[SCALE_INV] || m->part[SCALE_2] || m->part[GLOBAL])
        return fail_combination(m, "unquantised weights with scales");
    w->format = t->dtype == DTYPE_F32   ? WEIGHT_F32
                : t->dtype == DTYPE_F16 ? WEIGHT_F16
                                        : WEIGHT_BF16;
    int rc = matrix(m, t, 1, w);
    if (rc < 0 || (uintptr_t)t->data % (size_t)(dtype_bits(t->dtype) / 8) == 0) return rc;
    /* A writer that does not pad its header leaves numbers where they cannot be read in place. */
    void *copy = arena_alloc(&m->ck->arena, t->bytes);
    memcpy(copy, t->data, t->bytes);
    w->data = copy;
    if (first_time(m, SAID_COPY))
        log_line(m->ck->log, LOG_INFO, "tensor %s is not aligned in its file: copied", t->name);
    return 0;
}

static int load_any(const struct module *m, struct weight *w) {
    const struct tensor *packed = m->part[PACKED], *weight = m->part[WEIGHT];
    if ((packed && weight) || (packed && m->part[SCALE_2]) || (weight && m->part[GLOBAL]) ||
        (m->part[SCALE] && m->part[SCALE_INV]))
        return fail_combination(m, "tensors of two conventions at once");
    if (packed) {
        if (packed->dtype == DTYPE_I32)
            return fail(m, IMP_ERR_UNSUPPORTED, packed,
                        "packed integers (pack-quantized) are not supported");
        if (packed->dtype == DTYPE_U8) return load_fp4(m, packed, w);
        return fail_combination(m, "packed weights of a dtype that means nothing");
    }
    if (weight == NULL) return fail_combination(m, "no linear under this name");
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
        return fail(m, IMP_ERR_UNSUPPORTED, weight,
                    "8-bit integers (int-quantized) are not supported");
    default:
        return fail(m, IMP_ERR_UNSUPPORTED, weight, "weights of dtype %s are not supported",
                    dtype_name(weight->dtype));
    }
}

int quant_weight(struct checkpoint *ck, const char *module, int64_t rows, int64_t cols,
                 struct weight *out, struct imp_error *err) {
    struct module m = {.ck = ck, .name = module, .want_rows = rows, .want_cols = cols, .err = err};
    for (int i = 0; i < PART_COUNT; i++) m.part[i] = parameter(&m, PART_NAMES[i]);
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        const struct tensor *t = parameter(&m, REFUSED[i].parameter);
        if (t) return fail(&m, IMP_ERR_UNSUPPORTED, t, "%s: not supported", REFUSED[i].format);
    }
    struct weight w = {.multiplier = 1.0f, .input_multiplier = NAN};
    int rc = load_any(&m, &w);
    if (rc < 0) return rc;
    w.input_multiplier = input_multiplier(&m, w.format);
    w.name = arena_strndup(&ck->arena, module, strlen(module));
    compare_with_config(&m, &w);
    *out = w;
    return 0;
}
