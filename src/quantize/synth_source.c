#include "quantize/synth_source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/error.h"
#include "base/rng.h"
#include "base/str.h"
#include "num/fp.h"
#include "num/nvfp4.h"

/* One tensor's numbers. `stream` is the module's; an expert's matrix has one of its own near it. */
struct fill {
    enum tensor_kind kind;
    enum expert_part part;
    int expert; /* -1: none, or a stack */
    bool experts, pairs, turned;
    uint64_t stream;
    float mean, sd;
    int64_t stack_rows; /* outputs of one expert in a stack */
    int64_t inputs;
};

struct synth {
    uint64_t seed;
    struct rng_table table;
    struct fill *fill;     /* [tensor_count] */
    size_t room;           /* of both arrays */
    struct source *source; /* while it is made */
    const struct model_desc *desc;
    const char *prefix;
};

/* ---- what is usual ---- */

static const float GAIN_SPREAD = 0.15f; /* of a norm's gains, over their mean */

/* Per-head gains that make scores of q and k about 1 wide, whatever the model multiplies them by.
 */
static float head_gain(const struct attention_desc *a) {
    return (float)(1.0 / sqrt(sqrt((double)a->head_dim) * (double)a->q_scale));
}

/* Logits some 2.5 wide. */
static float head_sd(const struct model_desc *desc) {
    return 2.5f / ((float)sqrt((double)desc->hidden) * desc->logit_scale);
}

static float embedding_sd(const struct model_desc *desc) {
    return desc->tied_head ? head_sd(desc) : 1.0f / desc->embed_scale;
}

static float bias_sd(enum module module) {
    if (module == MODULE_Q || module == MODULE_K || module == MODULE_V) return 0.5f;
    return module == MODULE_ROUTER ? 0.3f : 0.1f;
}

/* Mean and spread, such that what flows through the model stays about 1 wide. */
static void set_statistics(const struct model_desc *desc, const struct model_tensor *t,
                           struct fill *f) {
    const float unit = t->inputs > 0 ? (float)(1.0 / sqrt((double)t->inputs)) : 0;
    f->mean = 0;
    f->sd = unit;
    switch (t->kind) {
    case TENSOR_EMBEDDING:
        f->sd = embedding_sd(desc);
        break;
    case TENSOR_LAYER_EMBEDDING: /* the model multiplies by the same root */
        f->sd = (float)(1.0 / sqrt((double)desc->ple_width));
        break;
    case TENSOR_HEAD:
        f->sd = head_sd(desc);
        break;
    case TENSOR_RESIDUAL: /* 2 in each layer add up */
        f->sd = unit / (float)sqrt(2.0 * desc->layers);
        break;
    case TENSOR_CODES:
    case TENSOR_SCALES:
        if (t->part == EXPERT_DOWN) f->sd = unit / (float)sqrt(2.0 * desc->layers);
        break;
    case TENSOR_ROUTER:
        f->sd = 2 * unit;
        break;
    case TENSOR_NORM:
        f->mean = 1;
        if (t->module == MODULE_Q_NORM || t->module == MODULE_K_NORM)
            f->mean = head_gain(&desc->layer[t->layer].attention);
        f->sd = GAIN_SPREAD * f->mean;
        break;
    case TENSOR_PLAIN_NORM:
        f->mean = 1;
        f->sd = GAIN_SPREAD;
        break;
    case TENSOR_BIAS:
        f->sd = bias_sd(t->module);
        break;
    case TENSOR_ROUTER_SCALE: /* the model divides by the same root */
        f->mean = (float)sqrt((double)desc->hidden);
        f->sd = 0.1f * f->mean;
        break;
    case TENSOR_FACTOR:
        f->mean = 1;
        f->sd = 0.05f;
        break;
    case TENSOR_SINKS:
        f->sd = 1;
        break;
    case TENSOR_LINEAR:
    case TENSOR_CONV:
    case TENSOR_DT_BIAS:
    case TENSOR_A_LOG:
        break;
    }
    if (t->kind == TENSOR_NORM) f->mean -= desc->norm_offset;
}

/* ---- numbers ---- */

/* A few input channels carry several times what the others do, as trained models have them. */
static uint64_t channel_hash(uint64_t stream, int64_t k) {
    uint64_t h = (stream ^ (uint64_t)k) * 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

static float channel_factor(uint64_t stream, int64_t k) {
    const uint64_t h = channel_hash(stream, k);
    const float spread = 0.75f + 0.5f * (float)(h >> 40) * 0x1p-24f;
    return (h % 128 == 0 ? 4 * spread : spread) / 1.0679f; /* root of the mean square */
}

/* Where output `row` of a stack of experts has its numbers. */
static uint64_t locate(const struct fill *f, int64_t expert, int64_t *row) {
    enum expert_part part = f->part;
    if (part == EXPERT_GATE_UP && f->pairs) {
        part = *row % 2 ? EXPERT_UP : EXPERT_GATE;
        *row /= 2;
    } else if (part == EXPERT_GATE_UP) {
        const int64_t half = f->stack_rows / 2;
        part = *row < half ? EXPERT_GATE : EXPERT_UP;
        *row %= half;
    }
    return f->stream + 4 * (uint64_t)expert + (uint64_t)part;
}

/* What the inputs first .. first + count - 1 of any output are multiplied by. */
static void run_factors(const struct fill *f, int64_t first, int64_t count, float *out) {
    const bool channels = f->kind == TENSOR_LINEAR || f->kind == TENSOR_RESIDUAL ||
                          f->kind == TENSOR_CODES || f->kind == TENSOR_SCALES;
    for (int64_t k = 0; k < count; k++)
        out[k] = channels ? f->sd * channel_factor(f->stream, first + k) : f->sd;
}

/* Those inputs of one output, times their factors. */
static void matrix_run(const struct synth *s, const struct fill *f, int64_t output, int64_t first,
                       int64_t count, const float *factors, float *out) {
    uint64_t stream = f->stream;
    int64_t row = output;
    if (f->experts && f->expert >= 0) {
        stream += 4 * (uint64_t)f->expert + (uint64_t)f->part;
    } else if (f->experts) {
        row = output % f->stack_rows;
        stream = locate(f, output / f->stack_rows, &row);
    }
    rng_normals(&s->table, s->seed, stream, (uint64_t)(row * f->inputs + first), (size_t)count,
                out);
    for (int64_t k = 0; k < count; k++) out[k] *= factors[k];
}

/* Outputs first .. first + count - 1, some columns at a time: their factors serve all rows. */
static void matrix_rows(const struct synth *s, const struct fill *f, int64_t first, int64_t count,
                        float *out) {
    enum { RUN = 2048 };
    float factors[RUN];
    for (int64_t k = 0; k < f->inputs; k += RUN) {
        const int64_t n = f->inputs - k < RUN ? f->inputs - k : RUN;
        run_factors(f, k, n, factors);
        for (int64_t r = 0; r < count; r++)
            matrix_run(s, f, first + r, k, n, factors, out + r * f->inputs + k);
    }
}

/* Rows of inputs of a stack that lies transposed: all outputs of one expert beside each other. */
static void turned_rows(const struct synth *s, const struct fill *f, int64_t first, int64_t count,
                        float *out) {
    enum { RUN = 64 };
    float run[RUN], factors[RUN];
    while (count > 0) {
        const int64_t expert = first / f->inputs, at = first % f->inputs;
        int64_t n = f->inputs - at < count ? f->inputs - at : count;
        if (n > RUN) n = RUN;
        run_factors(f, at, n, factors);
        for (int64_t c = 0; c < f->stack_rows; c++) {
            matrix_run(s, f, expert * f->stack_rows + c, at, n, factors, run);
            for (int64_t k = 0; k < n; k++) out[k * f->stack_rows + c] = run[k];
        }
        first += n;
        count -= n;
        out += n * f->stack_rows;
    }
}

static void bias_rows(const struct synth *s, const struct fill *f, int64_t first, int64_t count,
                      int64_t cols, float *out) {
    for (int64_t i = first * cols; i < (first + count) * cols; i++) {
        uint64_t stream = f->stream;
        int64_t row = i;
        if (f->experts && f->expert >= 0) {
            stream += 4 * (uint64_t)f->expert + (uint64_t)f->part;
        } else if (f->experts) {
            row = i % cols;
            stream = locate(f, i / cols, &row);
        }
        rng_normals(&s->table, s->seed, stream, (uint64_t)row, 1, out);
        *out++ *= f->sd;
    }
}

/* Numbers one by one: vectors are short. */
static float vector_value(const struct synth *s, const struct fill *f, int64_t i) {
    float n;
    const double u = rng_uniform(s->seed, f->stream, (uint64_t)i);
    rng_normals(&s->table, s->seed, f->stream, (uint64_t)i, 1, &n);
    if (f->kind == TENSOR_A_LOG) return (float)log(1 + 15 * u); /* decays of 1 to 16 */
    if (f->kind == TENSOR_DT_BIAS) {                            /* time steps of 0.001 to 0.1 */
        const double dt = exp(log(0.001) + u * log(100.0));
        return (float)(dt + log(-expm1(-dt))); /* what softplus makes dt of */
    }
    if (f->kind == TENSOR_CONV) return 0.5f * n;
    const bool gain = f->kind == TENSOR_NORM || f->kind == TENSOR_PLAIN_NORM;
    const bool outlier = gain && channel_hash(f->stream, i) % 64 == 0;
    return f->mean + f->sd * n + (outlier ? 2 * f->sd / GAIN_SPREAD : 0); /* three times the gain */
}

static int read_rows(const struct source *source, size_t tensor, int64_t first, int64_t count,
                     float *out, struct imp_error *err) {
    (void)err;
    const struct synth *s = source->state;
    const struct fill *f = &s->fill[tensor];
    const int64_t cols = source->tensors[tensor].cols;
    if (f->kind == TENSOR_BIAS) {
        bias_rows(s, f, first, count, cols, out);
    } else if (f->turned) {
        turned_rows(s, f, first, count, out);
    } else if (f->inputs > 0 && f->kind != TENSOR_CONV) {
        check(f->inputs == cols);
        matrix_rows(s, f, first, count, out);
    } else {
        for (int64_t i = 0; i < count * cols; i++) out[i] = vector_value(s, f, first * cols + i);
    }
    return 0;
}

/* ---- MXFP4 ---- */

/* OCP MX: the scale is the power of two of the largest magnitude over that of the largest code. */
static int block_exponent(const float *x) {
    float amax = 0;
    int exponent;
    for (int i = 0; i < MXFP4_BLOCK; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    if (amax == 0) return 0;
    frexpf(amax, &exponent);
    return exponent - 3;
}

static void encode_block(const float *x, uint8_t *codes) {
    const float factor = ldexpf(1.0f, -block_exponent(x));
    for (int i = 0; i < MXFP4_BLOCK; i += 2)
        codes[i / 2] = (uint8_t)(e2m1_encode(x[i] * factor) | e2m1_encode(x[i + 1] * factor) << 4);
}

static void read_bytes(const struct source *source, size_t tensor, int64_t first, int64_t count,
                       uint8_t *out) {
    const struct synth *s = source->state;
    const struct fill *f = &s->fill[tensor];
    const int64_t blocks = f->inputs / MXFP4_BLOCK; /* of an output */
    const bool codes = f->kind == TENSOR_CODES;     /* a row is a block; else an output */
    const int64_t end = codes ? first + count : (first + count) * blocks;
    float x[MXFP4_BLOCK], factors[MXFP4_BLOCK];
    for (int64_t b = codes ? first : first * blocks; b < end; b++) {
        run_factors(f, b % blocks * MXFP4_BLOCK, MXFP4_BLOCK, factors);
        matrix_run(s, f, b / blocks, b % blocks * MXFP4_BLOCK, MXFP4_BLOCK, factors, x);
        if (codes) {
            encode_block(x, out);
            out += MXFP4_BLOCK / 2;
        } else {
            *out++ = (uint8_t)(127 + block_exponent(x));
        }
    }
}

/* ---- the list ---- */

/* The module's stream: that of all matrices of a layer's experts, or of all their biases, is one.
 */
static uint64_t stream_of(const struct model_tensor *t) {
    char name[64];
    if (t->module != MODULE_EXPERTS) return XXH3_64bits(t->name, strlen(t->name));
    const char *what = t->kind == TENSOR_BIAS ? "biases" : "experts";
    int n = snprintf(name, sizeof name, "%s of layer %d", what, t->layer);
    return XXH3_64bits(name, (size_t)n);
}

static struct fill fill_of(const struct model_desc *desc, const struct model_tensor *t) {
    struct fill f = {.kind = t->kind,
                     .part = t->part,
                     .expert = t->expert,
                     .experts = t->module == MODULE_EXPERTS,
                     .stream = stream_of(t),
                     .inputs = t->inputs};
    set_statistics(desc, t, &f);
    if (!f.experts || f.expert >= 0) return f;
    const struct moe_desc *m = &desc->layer[t->layer].moe;
    f.stack_rows = t->part == EXPERT_DOWN ? desc->hidden : 2 * m->width;
    f.pairs = m->layout == EXPERTS_GPT_OSS;
    f.turned = f.pairs && t->dims == 3 && t->kind != TENSOR_SCALES;
    return f;
}

static const char *stored_name(struct synth *s, const char *name) {
    static const char model[] = "model.", outside[] = "language_model.model.";
    struct arena *arena = &s->source->arena;
    if (strncmp(name, model, sizeof model - 1) == 0)
        return arena_printf(arena, "%s%s", s->prefix, name + sizeof model - 1);
    const bool head_outside = strcmp(s->prefix, outside) == 0;
    return arena_printf(arena, "%s%s", head_outside ? "language_model." : "", name);
}

static void add_tensor(void *ctx, const struct model_tensor *t) {
    struct synth *s = ctx;
    struct source *source = s->source;
    if (source->tensor_count == s->room) {
        s->room = s->room ? 2 * s->room : 256;
        source->tensors = mem_grow(source->tensors, s->room * sizeof *source->tensors);
        s->fill = mem_grow(s->fill, s->room * sizeof *s->fill);
    }
    struct source_tensor *to = &source->tensors[source->tensor_count];
    s->fill[source->tensor_count++] = fill_of(s->desc, t);
    const bool bytes = t->kind == TENSOR_CODES || t->kind == TENSOR_SCALES;
    *to = (struct source_tensor){.name = stored_name(s, t->name),
                                 .dtype = bytes ? DTYPE_U8 : DTYPE_F32,
                                 .dims = t->dims,
                                 .rows = 1,
                                 .cols = t->shape[t->dims - 1]};
    memcpy(to->shape, t->shape, sizeof t->shape);
    for (int d = 0; d + 1 < t->dims; d++) to->rows *= t->shape[d];
}

static void close_synth(struct source *source) {
    struct synth *s = source->state;
    free(s->fill);
    free(source->tensors);
    free(s);
}

void synth_source_make(const struct model_desc *desc, const char *prefix, enum expert_form form,
                       uint64_t seed, struct source *out) {
    struct synth *s = mem_zero(1, sizeof *s);
    s->seed = seed;
    s->source = out;
    s->desc = desc;
    s->prefix = prefix;
    rng_table_make(&s->table);
    out->state = s;
    out->read = read_rows;
    out->read_bytes = read_bytes;
    out->close = close_synth;
    model_desc_tensors(desc, form, add_tensor, s);
}
