#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "load/quant_internal.h"
#include "num/fp.h"

const char *const quant_part_names[PART_COUNT] = {
    [PART_WEIGHT] = "weight",
    [PART_PACKED] = "weight_packed",
    [PART_SCALE] = "weight_scale",
    [PART_SCALE_INV] = "weight_scale_inv", /* a multiplier, whatever its name says */
    [PART_SCALE_2] = "weight_scale_2",
    [PART_GLOBAL] = "weight_global_scale",
    [PART_INPUT_SCALE] = "input_scale",
    [PART_ACTIVATION_SCALE] = "activation_scale", /* Mistral's own FP8 files */
    [PART_INPUT_GLOBAL] = "input_global_scale",
    [PART_PRE_SCALE] = "pre_quant_scale", /* ModelOpt's AWQ */
};

/* A tensor of this name says that the linear is in a format imp does not have. */
static const struct {
    const char *parameter, *format;
} REFUSED[] = {
    {"svdquant_lora_a", "SVDQuant's low-rank branch"},
    {"weight_quantizer.svdquant_lora_a", "SVDQuant's low-rank branch"},
    {"qweight", "GPTQ or AWQ integers (qweight)"},
    {"weight.absmax", "bitsandbytes 4-bit blocks"},
    {"SCB", "bitsandbytes 8-bit rows"},
    {"codes", "additive codebooks (AQLM)"},
    {"compressed", "sparse bitmasks (compressed-tensors)"},
    {"bitmask", "sparse bitmasks (compressed-tensors)"},
    {"W_q", "HQQ integers"},
    {"q_weight", "EXL2 integers"},
    {"trellis", "EXL3 trellises"},
};

const char *const quant_parameters[] = {"weight", "weight_packed", "qweight", "codes", "compressed",
                                        "W_q",    "q_weight",      "trellis", NULL};

static const struct tensor *parameter(const struct quant_module *m, const char *name) {
    char full[CAP_TENSOR_NAME + 64];
    int n = snprintf(full, sizeof full, "%s.%s", m->name, name);
    if (n >= (int)sizeof full) return NULL;
    const int64_t *at = map_find(&m->ck->by_name, slice_of(full));
    return at ? m->ck->tensors[*at] : NULL;
}

/* ---- errors and remarks ---- */

int quant_fail(const struct quant_module *m, int code, const struct tensor *t, const char *fmt,
               ...) {
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
int quant_fail_combination(const struct quant_module *m, const char *why) {
    char list[300] = "";
    size_t n = 0;
    for (int i = 0; i < PART_COUNT; i++) {
        const struct tensor *t = m->part[i];
        char shape[128];
        if (t == NULL || n >= sizeof list) continue;
        tensor_shape_text(t, shape);
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s %s %s", n ? ", " : "",
                              quant_part_names[i], dtype_name(t->dtype), shape);
    }
    return quant_fail(m, IMP_ERR_FILE, NULL, "%s: found %s", why, n ? list : "nothing");
}

void quant_mark_read(struct checkpoint *ck, const struct tensor *t) {
    const int64_t *at = map_find(&ck->by_name, slice_of(t->name)); /* t may be a slice */
    if (at && ck->read) ck->read[*at] = true;
}

bool quant_first_time(const struct quant_module *m, enum quant_remark what) {
    if (m->ck->said & what) return false;
    m->ck->said |= what;
    return true;
}

static bool listed(const struct quant_module *m, yyjson_val *names) {
    size_t i, n;
    yyjson_val *name;
    yyjson_arr_foreach(names, i, n, name) {
        if (yyjson_equals_str(name, m->name)) return true;
    }
    return false;
}

/* The tensors decide; where the configuration says something else, say so, once. */
static void compare_with_config(const struct quant_module *m, const struct weight *w) {
    struct checkpoint *ck = m->ck;
    if (w->format == WEIGHT_F32 || w->format == WEIGHT_F16 || w->format == WEIGHT_BF16) return;
    const char *format = weight_format_name(w->format);
    bool modelopt = m->part[PART_SCALE_2] != NULL, compressed = m->part[PART_GLOBAL] != NULL;
    if (!(ck->declared.formats >> w->format & 1) && quant_first_time(m, SAID_FORMAT))
        log_line(
            ck->log, LOG_WARNING,
            "%s is stored as %s, which the configuration does not mention; going by the tensors",
            m->name, format);
    if (((modelopt && ck->dialect == QUANT_COMPRESSED_TENSORS) ||
         (compressed && ck->dialect == QUANT_MODELOPT)) &&
        quant_first_time(m, SAID_FORMAT))
        log_line(ck->log, LOG_WARNING,
                 "the configuration says %s, the tensors of %s are %s's; going by the tensors",
                 modelopt ? "compressed-tensors" : "ModelOpt", m->name,
                 modelopt ? "ModelOpt" : "compressed-tensors");
    yyjson_val *ignore = yyjson_obj_get(config_get(&ck->config, "quantization_config"), "ignore");
    yyjson_val *root = ck->config.quant ? yyjson_doc_get_root(ck->config.quant) : NULL;
    yyjson_val *exclude = yyjson_obj_get(yyjson_obj_get(root, "quantization"), "exclude_modules");
    if (!(ck->said & SAID_IGNORED) && (listed(m, ignore) || listed(m, exclude)) &&
        quant_first_time(m, SAID_IGNORED))
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

int quant_vector(struct checkpoint *ck, const struct tensor *t, int64_t count, const float **out,
                 struct imp_error *err) {
    char place[sizeof err->where], shape[128];
    error_place(place, t->file, "tensor %s", t->name);
    int64_t n = tensor_elements(t);
    tensor_shape_text(t, shape);
    if (n == 0 || (count != -1 && n != count))
        return error_set(err, IMP_ERR_FILE, place, "%lld values expected, %s found",
                         (long long)count, shape);
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16)
        return error_set(err, IMP_ERR_FILE, place, "F32, F16 or BF16 expected, %s found",
                         dtype_name(t->dtype));
    float *values = arena_array(&ck->arena, (size_t)n, sizeof *values);
    quant_to_floats(t, values);
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(values[i]))
            return error_set(err, IMP_ERR_FILE, place, "value %lld is not finite", (long long)i);
    }
    quant_mark_read(ck, t);
    *out = values;
    return 0;
}

bool quant_scalar(const struct tensor *t, float *out) {
    return t != NULL && tensor_elements(t) == 1 && quant_to_floats(t, out);
}

/* Files have 0, Inf, NaN and memory that nobody wrote where calibration did not reach an expert.
 * The range lets the largest activation be 1e-5 to 1e7. */
static bool usable(float multiplier) {
    return multiplier >= 1e-8f && multiplier <= 1e4f;
}

/* Only W4A4 needs it, and can take it from the activations: so never an error. */
static float input_multiplier(const struct quant_module *m, enum weight_format format) {
    const struct tensor *t =
        m->part[PART_INPUT_SCALE] ? m->part[PART_INPUT_SCALE] : m->part[PART_ACTIVATION_SCALE];
    const struct tensor *divisor = m->part[PART_INPUT_GLOBAL];
    float value = NAN;
    if (t != NULL && divisor == NULL) {
        if (!quant_scalar(t, &value)) value = NAN;
        /* amax/448 for an FP8 activation; NVFP4's range is six times as wide. */
        if (format == WEIGHT_NVFP4 && m->ck->declared.fp8_inputs) value /= 6;
    } else if (divisor != NULL && t == NULL) {
        value = quant_scalar(divisor, &value) ? 1.0f / value : NAN;
    }
    if (usable(value)) return value;
    bool expected = format == WEIGHT_NVFP4 && m->ck->declared.activations;
    if (!t && !divisor && !expected) return NAN;
    m->ck->no_input_scale++;
    if (quant_first_time(m, SAID_INPUT))
        log_line(m->ck->log, LOG_WARNING,
                 "%s has no usable input scale (missing, zero or not finite); it is taken from the "
                 "activations where one is needed",
                 m->name);
    return NAN;
}

/* AWQ smooths the activations: a factor for each column, which ModelOpt leaves in the file where it
 * could not fold it into the layer before. */
static int read_pre_scale(const struct quant_module *m, struct weight *w) {
    const struct tensor *t = m->part[PART_PRE_SCALE];
    char shape[128];
    if (t == NULL) return 0;
    tensor_shape_text(t, shape);
    if (tensor_elements(t) != w->cols ||
        (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16))
        return quant_fail(m, IMP_ERR_FILE, t, "%lld factors expected, %s %s found",
                          (long long)w->cols, dtype_name(t->dtype), shape);
    float *scale = arena_array(&m->ck->arena, (size_t)w->cols, sizeof *scale);
    quant_to_floats(t, scale);
    for (int64_t k = 0; k < w->cols; k++) {
        if (!isfinite(scale[k]) || !(scale[k] > 0))
            return quant_fail(m, IMP_ERR_FILE, t, "factor %lld is %g", (long long)k,
                              (double)scale[k]);
    }
    w->pre_scale = scale;
    return 0;
}

int quant_module_load(const struct quant_module *m, struct weight *out) {
    struct weight w = {.multiplier = 1.0f, .input_multiplier = NAN};
    int rc = quant_module_format(m, &w);
    if (rc == 0) rc = read_pre_scale(m, &w);
    if (rc < 0) return rc;
    w.input_multiplier = input_multiplier(m, w.format);
    w.name = arena_strndup(&m->ck->arena, m->name, strlen(m->name));
    compare_with_config(m, &w);
    for (int i = 0; i < PART_COUNT; i++) {
        if (m->part[i]) quant_mark_read(m->ck, m->part[i]);
    }
    *out = w;
    return 0;
}

int quant_weight(struct checkpoint *ck, const char *module, int64_t rows, int64_t cols,
                 struct weight *out, struct imp_error *err) {
    struct quant_module m = {
        .ck = ck, .name = module, .want_rows = rows, .want_cols = cols, .err = err};
    for (int i = 0; i < PART_COUNT; i++) m.part[i] = parameter(&m, quant_part_names[i]);
    /* What a file of ModelOpt's holds that was saved without its export step. */
    if (m.part[PART_PRE_SCALE] == NULL)
        m.part[PART_PRE_SCALE] = parameter(&m, "input_quantizer._pre_quant_scale");
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        const struct tensor *t = parameter(&m, REFUSED[i].parameter);
        if (t)
            return quant_fail(&m, IMP_ERR_UNSUPPORTED, t, "%s: not supported", REFUSED[i].format);
    }
    return quant_module_load(&m, out);
}
