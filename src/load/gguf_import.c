#include "load/gguf_import.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "load/gguf_import_internal.h"

/* ---- keys ---- */

int gguf_key_error(const struct gguf *g, const char *key, int code, struct imp_error *err,
                   const char *fmt, ...) {
    char place[sizeof err->where], message[sizeof err->message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    error_place(place, g->path, "key %s", key);
    return error_set(err, code, place, "%s", message);
}

int gguf_key_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t absent,
                 int64_t *out, struct imp_error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (v == NULL) {
        if (absent < min) return gguf_key_error(g, key, IMP_ERR_FILE, err, "is missing");
        *out = absent;
        return 0;
    }
    if (v->kind == GGUF_KIND_ARRAY)
        return gguf_key_error(g, key, IMP_ERR_UNSUPPORTED, err, "one number per layer");
    if (v->kind != GGUF_KIND_UINT && v->kind != GGUF_KIND_INT)
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "must be a whole number");
    bool fits = v->kind == GGUF_KIND_INT ? v->i >= min && v->i <= max
                                         : v->u <= (uint64_t)max && (int64_t)v->u >= min;
    if (!fits)
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "must be from %lld to %lld",
                              (long long)min, (long long)max);
    *out = v->kind == GGUF_KIND_INT ? v->i : (int64_t)v->u;
    return 0;
}

int gguf_key_float(const struct gguf *g, const char *key, double min, double max, double absent,
                   double *out, struct imp_error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (v == NULL) {
        if (absent < min) return gguf_key_error(g, key, IMP_ERR_FILE, err, "is missing");
        *out = absent;
        return 0;
    }
    if (v->kind != GGUF_KIND_FLOAT || !(v->f >= min && v->f <= max))
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "must be a number from %g to %g", min,
                              max);
    *out = v->f;
    return 0;
}

int gguf_key_bool(const struct gguf *g, const char *key, bool absent, bool *out,
                  struct imp_error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    *out = absent;
    if (v == NULL) return 0;
    if (v->kind != GGUF_KIND_BOOL)
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "must be true or false");
    *out = v->b;
    return 0;
}

int gguf_key_string(const struct gguf *g, const char *key, struct slice *out,
                    struct imp_error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    *out = (struct slice){0};
    if (v == NULL) return 0;
    if (v->kind != GGUF_KIND_STRING)
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "must be a string");
    if (!utf8_valid(v->s.data, v->s.size))
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "is not UTF-8");
    *out = v->s;
    return 0;
}

/* ---- shape ---- */

static const struct {
    const char *architecture;
    bool permuted;
} ARCHITECTURES[] = {{"llama", true}, {"qwen2", false}, {"qwen3", false}};

static int read_architecture(struct gguf_import *in, struct gguf_shape *shape,
                             struct imp_error *err) {
    struct slice name;
    int rc = gguf_key_string(in->source, "general.architecture", &name, err);
    if (rc < 0) return rc;
    for (size_t i = 0; i < sizeof ARCHITECTURES / sizeof *ARCHITECTURES; i++) {
        if (!slice_equal(name, slice_of(ARCHITECTURES[i].architecture))) continue;
        in->architecture = ARCHITECTURES[i].architecture;
        shape->permuted = ARCHITECTURES[i].permuted;
        return 0;
    }
    return gguf_key_error(in->source, "general.architecture", IMP_ERR_UNSUPPORTED, err,
                          "\"%.*s\" is not an architecture that imp imports",
                          (int)(name.size > 60 ? 60 : name.size), name.data ? name.data : "");
}

struct key_reader {
    const struct gguf_import *in;
    struct imp_error *err;
    int rc; /* first error */
};

static const char *arch_key(const struct key_reader *k, const char *suffix, char out[128]) {
    snprintf(out, 128, "%s.%s", k->in->architecture, suffix);
    return out;
}

static int64_t arch_int(struct key_reader *k, const char *suffix, int64_t min, int64_t max,
                        int64_t absent) {
    char key[128];
    int64_t value = absent;
    if (k->rc == 0)
        k->rc =
            gguf_key_int(k->in->source, arch_key(k, suffix, key), min, max, absent, &value, k->err);
    return value;
}

static double arch_float(struct key_reader *k, const char *suffix, double min, double max,
                         double absent) {
    char key[128];
    double value = absent;
    if (k->rc == 0)
        k->rc = gguf_key_float(k->in->source, arch_key(k, suffix, key), min, max, absent, &value,
                               k->err);
    return value;
}

/* Keys of the architecture that are read here and in gguf_config.c, or that change nothing. */
static const char *const KNOWN_KEYS[] = {
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "expert_count",
    "expert_used_count",
    "context_length",
    "attention.layer_norm_rms_epsilon",
    "vocab_size",
};

/* A sliding window, a logit scale: a key that nobody reads would be a model that quietly differs.
 */
static int refuse_unknown_keys(const struct gguf_import *in, struct imp_error *err) {
    size_t stem = strlen(in->architecture);
    for (size_t i = 0; i < in->source->key_count; i++) {
        struct slice key = in->source->keys[i];
        if (!slice_starts(key, in->architecture) || key.size <= stem || key.data[stem] != '.')
            continue;
        struct slice suffix = {key.data + stem + 1, key.size - stem - 1};
        bool known = false;
        for (size_t j = 0; j < sizeof KNOWN_KEYS / sizeof *KNOWN_KEYS && !known; j++)
            known = slice_equal(suffix, slice_of(KNOWN_KEYS[j]));
        if (known) continue;
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)(key.size > 120 ? 120 : key.size), key.data);
        return gguf_key_error(in->source, name, IMP_ERR_UNSUPPORTED, err, "is not known");
    }
    return 0;
}

static int read_shape(struct gguf_import *in, struct gguf_shape *s, struct imp_error *err) {
    struct key_reader k = {in, err, 0};
    s->layers = arch_int(&k, "block_count", 1, CAP_LAYERS, 0);
    s->hidden = arch_int(&k, "embedding_length", 1, CAP_HIDDEN, 0);
    s->width = arch_int(&k, "feed_forward_length", 1, CAP_HIDDEN, 0);
    s->heads = arch_int(&k, "attention.head_count", 1, CAP_HEADS, 0);
    if (k.rc < 0) return k.rc;
    s->kv_heads = arch_int(&k, "attention.head_count_kv", 1, s->heads, s->heads);
    int64_t derived = s->hidden / s->heads > 2 ? s->hidden / s->heads : 2;
    s->head_dim = arch_int(&k, "attention.key_length", 2, 1024, derived);
    int64_t value_dim = arch_int(&k, "attention.value_length", 2, 1024, s->head_dim);
    int64_t rotated = arch_int(&k, "rope.dimension_count", 2, 1024, s->head_dim);
    int64_t experts = arch_int(&k, "expert_count", 0, CAP_EXPERTS, 0);
    s->context = arch_int(&k, "context_length", 1, CAP_CONTEXT, 0);
    s->eps = arch_float(&k, "attention.layer_norm_rms_epsilon", 1e-12, 1, -1);
    s->theta = arch_float(&k, "rope.freq_base", 1, 1e12, 10000);
    if (k.rc < 0) return k.rc;
    char key[128];
    if (s->heads % s->kv_heads != 0)
        return gguf_key_error(in->source, arch_key(&k, "attention.head_count_kv", key),
                              IMP_ERR_FILE, err, "%lld does not divide the %lld query heads",
                              (long long)s->kv_heads, (long long)s->heads);
    if (rotated > s->head_dim)
        return gguf_key_error(in->source, arch_key(&k, "rope.dimension_count", key), IMP_ERR_FILE,
                              err, "%lld is more than the head's %lld", (long long)rotated,
                              (long long)s->head_dim);
    if (rotated != s->head_dim || value_dim != s->head_dim || s->head_dim % 2 != 0)
        return gguf_key_error(in->source, arch_key(&k, "rope.dimension_count", key),
                              IMP_ERR_UNSUPPORTED, err,
                              "%lld of a key head of %lld and a value head of %lld",
                              (long long)rotated, (long long)s->head_dim, (long long)value_dim);
    if (experts > 0)
        return gguf_key_error(in->source, arch_key(&k, "expert_count", key), IMP_ERR_UNSUPPORTED,
                              err, "mixtures of experts are not imported from GGUF");
    return 0;
}

static int refuse_split(const struct gguf *g, struct imp_error *err) {
    int64_t shards;
    int rc = gguf_key_int(g, "split.count", 0, UINT16_MAX, 0, &shards, err);
    if (rc < 0 || shards <= 1) return rc;
    return gguf_key_error(g, "split.count", IMP_ERR_UNSUPPORTED, err,
                          "the model is split over %lld files: join them first", (long long)shards);
}

/* ---- the table of tensors ---- */

enum rows_kind { ROWS_HIDDEN, ROWS_Q, ROWS_KV, ROWS_WIDTH, ROWS_HEAD, ROWS_VOCAB, ROWS_ONE };

/* cols ROWS_ONE: a vector whose length is `rows`. In the order in which transformers saves. */
static const struct role {
    const char *gguf, *name;
    enum rows_kind rows, cols;
    bool rotated; /* rows lie in the order of RoPE */
    enum { ALWAYS, WITH_BIAS, WITH_OUT_BIAS, WITH_QK_NORM } when;
} LAYER_ROLES[] = {
    {"attn_norm.weight", "input_layernorm.weight", ROWS_HIDDEN, ROWS_ONE, false, ALWAYS},
    {"ffn_down.weight", "mlp.down_proj.weight", ROWS_HIDDEN, ROWS_WIDTH, false, ALWAYS},
    {"ffn_gate.weight", "mlp.gate_proj.weight", ROWS_WIDTH, ROWS_HIDDEN, false, ALWAYS},
    {"ffn_up.weight", "mlp.up_proj.weight", ROWS_WIDTH, ROWS_HIDDEN, false, ALWAYS},
    {"ffn_norm.weight", "post_attention_layernorm.weight", ROWS_HIDDEN, ROWS_ONE, false, ALWAYS},
    {"attn_k.bias", "self_attn.k_proj.bias", ROWS_KV, ROWS_ONE, true, WITH_BIAS},
    {"attn_k.weight", "self_attn.k_proj.weight", ROWS_KV, ROWS_HIDDEN, true, ALWAYS},
    {"attn_k_norm.weight", "self_attn.k_norm.weight", ROWS_HEAD, ROWS_ONE, false, WITH_QK_NORM},
    {"attn_output.bias", "self_attn.o_proj.bias", ROWS_HIDDEN, ROWS_ONE, false, WITH_OUT_BIAS},
    {"attn_output.weight", "self_attn.o_proj.weight", ROWS_HIDDEN, ROWS_Q, false, ALWAYS},
    {"attn_q.bias", "self_attn.q_proj.bias", ROWS_Q, ROWS_ONE, true, WITH_BIAS},
    {"attn_q.weight", "self_attn.q_proj.weight", ROWS_Q, ROWS_HIDDEN, true, ALWAYS},
    {"attn_q_norm.weight", "self_attn.q_norm.weight", ROWS_HEAD, ROWS_ONE, false, WITH_QK_NORM},
    {"attn_v.bias", "self_attn.v_proj.bias", ROWS_KV, ROWS_ONE, false, WITH_BIAS},
    {"attn_v.weight", "self_attn.v_proj.weight", ROWS_KV, ROWS_HIDDEN, false, ALWAYS},
};
enum { LAYER_ROLE_COUNT = sizeof LAYER_ROLES / sizeof *LAYER_ROLES };
static const struct role EMBEDDING = {
    "token_embd.weight", "model.embed_tokens.weight", ROWS_VOCAB, ROWS_HIDDEN, false, ALWAYS};
static const struct role FINAL_NORM = {
    "output_norm.weight", "model.norm.weight", ROWS_HIDDEN, ROWS_ONE, false, ALWAYS};
static const struct role HEAD = {"output.weight", "lm_head.weight", ROWS_VOCAB, ROWS_HIDDEN, false,
                                 ALWAYS};

static int64_t size_of(const struct gguf_shape *s, enum rows_kind kind) {
    switch (kind) {
    case ROWS_HIDDEN:
        return s->hidden;
    case ROWS_Q:
        return s->heads * s->head_dim;
    case ROWS_KV:
        return s->kv_heads * s->head_dim;
    case ROWS_WIDTH:
        return s->width;
    case ROWS_HEAD:
        return s->head_dim;
    case ROWS_VOCAB:
        return s->vocab;
    case ROWS_ONE:
        break;
    }
    return 1;
}

struct table_builder {
    struct gguf_import *in;
    const struct gguf_shape *shape;
    struct imp_error *err;
    bool *used; /* [tensor_count] tensors of the file that have a place */
};

static int tensor_error(const struct gguf *g, const char *name, int code, struct imp_error *err,
                        const char *what) {
    char place[sizeof err->where];
    error_place(place, g->path, "tensor %s", name);
    return error_set(err, code, place, "%s", what);
}

static const struct gguf_tensor *take(struct table_builder *b, const char *name) {
    const struct gguf_tensor *t = gguf_find_tensor(b->in->source, name);
    if (t) b->used[t - b->in->source->tensors] = true;
    return t;
}

/* A tensor of NVFP4 has its second scale beside it: "blk.0.attn_q.scale", one value. */
static int read_multiplier(struct table_builder *b, const char *gguf_name, float *out) {
    char name[160];
    size_t stem = strlen(gguf_name) - strlen(".weight");
    *out = 1;
    if (strcmp(gguf_name + stem, ".weight") != 0) return 0;
    snprintf(name, sizeof name, "%.*s.input_scale", (int)stem, gguf_name);
    take(b, name); /* says how activations were quantised: of no use for weights */
    snprintf(name, sizeof name, "%.*s.scale", (int)stem, gguf_name);
    const struct gguf_tensor *t = take(b, name);
    if (t == NULL) return 0;
    if (t->dims != 1 || t->shape[0] != 1 || t->type != GGUF_F32)
        return tensor_error(b->in->source, name, IMP_ERR_FILE, b->err, "must be one F32 value");
    gguf_dequantize(t, 0, 1, out);
    if (!(*out > 0 && isfinite(*out)))
        return tensor_error(b->in->source, name, IMP_ERR_FILE, b->err, "must be positive, finite");
    return 0;
}

static int add_tensor(struct table_builder *b, const struct role *role, int64_t layer) {
    char gguf_name[160], name[160];
    snprintf(gguf_name, sizeof gguf_name, "%s", role->gguf);
    snprintf(name, sizeof name, "%s", role->name);
    if (layer >= 0) {
        snprintf(gguf_name, sizeof gguf_name, "blk.%lld.%s", (long long)layer, role->gguf);
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)layer, role->name);
    }
    const struct gguf_tensor *t = take(b, gguf_name);
    if (t == NULL)
        return tensor_error(b->in->source, gguf_name, IMP_ERR_FILE, b->err, "is missing");
    bool vector = role->cols == ROWS_ONE;
    int64_t rows = size_of(b->shape, role->rows), cols = size_of(b->shape, role->cols);
    bool fits = vector ? t->dims == 1 && t->shape[0] == rows
                       : t->dims == 2 && t->shape[0] == cols && t->shape[1] == rows;
    if (!fits) {
        char what[120];
        snprintf(what, sizeof what, "has shape [%lld, %lld], the keys ask for [%lld, %lld]",
                 (long long)t->shape[0], (long long)(t->dims > 1 ? t->shape[1] : 1),
                 (long long)(vector ? rows : cols), (long long)(vector ? 1 : rows));
        return tensor_error(b->in->source, gguf_name, IMP_ERR_FILE, b->err, what);
    }
    struct gguf_import_tensor *to = &b->in->tensors[b->in->tensor_count++];
    *to = (struct gguf_import_tensor){.name = arena_strndup(&b->in->arena, name, strlen(name)),
                                      .source = t,
                                      .dims = vector ? 1 : 2,
                                      .rows = vector ? 1 : rows,
                                      .cols = vector ? rows : cols};
    if (role->rotated && b->shape->permuted) to->head_rows = b->shape->head_dim;
    return read_multiplier(b, gguf_name, &to->multiplier);
}

static bool is_wanted(const struct gguf_import *in, const struct gguf_shape *s,
                      const struct role *role) {
    switch (role->when) {
    case WITH_BIAS:
        return s->attention_bias;
    case WITH_OUT_BIAS:
        return s->attention_bias && strcmp(in->architecture, "qwen2") != 0;
    case WITH_QK_NORM:
        return strcmp(in->architecture, "qwen3") == 0;
    default:
        return true;
    }
}

/* A tensor that nobody asked for changes the model's meaning: say which. */
static int refuse_rest(struct table_builder *b) {
    const struct gguf *g = b->in->source;
    take(b, "rope_freqs.weight"); /* gguf_write_config reads it */
    for (size_t i = 0; i < g->tensor_count; i++) {
        if (!b->used[i])
            return tensor_error(g, g->tensors[i].name, IMP_ERR_UNSUPPORTED, b->err,
                                "has no place in this architecture");
    }
    return 0;
}

static int make_table(struct gguf_import *in, const struct gguf_shape *s, struct imp_error *err) {
    struct table_builder b = {in, s, err, mem_zero(in->source->tensor_count, sizeof(bool))};
    in->tensors =
        arena_array(&in->arena, (size_t)s->layers * LAYER_ROLE_COUNT + 3, sizeof *in->tensors);
    int rc = add_tensor(&b, &EMBEDDING, -1);
    for (int64_t layer = 0; layer < s->layers && rc == 0; layer++) {
        for (int i = 0; i < LAYER_ROLE_COUNT && rc == 0; i++) {
            if (is_wanted(in, s, &LAYER_ROLES[i])) rc = add_tensor(&b, &LAYER_ROLES[i], layer);
        }
    }
    if (rc == 0) rc = add_tensor(&b, &FINAL_NORM, -1);
    if (rc == 0 && !s->tied) rc = add_tensor(&b, &HEAD, -1);
    if (rc == 0) rc = refuse_rest(&b);
    free(b.used);
    return rc;
}

int gguf_import_open(const struct gguf *g, struct gguf_import *out, struct imp_error *err) {
    struct gguf_shape shape = {0};
    *out = (struct gguf_import){.source = g};
    int rc;
    if ((rc = refuse_split(g, err)) < 0 || (rc = read_architecture(out, &shape, err)) < 0 ||
        (rc = refuse_unknown_keys(out, err)) < 0 || (rc = read_shape(out, &shape, err)) < 0)
        return rc;
    const struct gguf_tensor *embedding = gguf_find_tensor(g, EMBEDDING.gguf);
    if (embedding == NULL || embedding->dims != 2)
        return tensor_error(g, EMBEDDING.gguf, IMP_ERR_FILE, err, "is missing or is no matrix");
    shape.vocab = embedding->shape[1];
    if (shape.vocab > CAP_VOCAB)
        return tensor_error(g, EMBEDDING.gguf, IMP_ERR_FILE, err, "has too many rows");
    shape.tied = gguf_find_tensor(g, HEAD.gguf) == NULL;
    /* Qwen2 always has biases and no field that says so. */
    shape.attention_bias =
        strcmp(out->architecture, "qwen2") == 0 || gguf_find_tensor(g, "blk.0.attn_q.bias") != NULL;
    /* A table of layers costs memory before its tensors are looked up: bound it by the file. */
    if ((uint64_t)shape.layers > g->tensor_count)
        return tensor_error(g, "blk.0.attn_norm.weight", IMP_ERR_FILE, err,
                            "the file has fewer tensors than layers");
    if ((rc = make_table(out, &shape, err)) < 0 || (rc = gguf_write_config(out, &shape, err)) < 0 ||
        (rc = gguf_write_tokenizer(out, &shape, err)) < 0) {
        gguf_import_close(out);
        return rc;
    }
    return 0;
}

void gguf_import_close(struct gguf_import *import) {
    free(import->config);
    free(import->generation_config);
    free(import->tokenizer);
    free(import->tokenizer_config);
    arena_free(&import->arena);
    *import = (struct gguf_import){0};
}

/* ---- rows ---- */

/* Where row w of a head stands in the file: Hugging Face has the first halves of all pairs, then
 * the second halves; the file has pair after pair. */
static int64_t file_row(int64_t row, int64_t head_rows) {
    if (head_rows == 0) return row;
    int64_t head = row / head_rows * head_rows, w = row % head_rows, half = head_rows / 2;
    return head + 2 * (w % half) + w / half;
}

static void read_vector(const struct gguf_import_tensor *t, float *out) {
    if (t->head_rows == 0) {
        gguf_dequantize(t->source, 0, t->cols, out);
        return;
    }
    /* Vectors are short: dequantise all, then place each. */
    float *plain = mem_alloc((size_t)t->cols * sizeof *plain);
    gguf_dequantize(t->source, 0, t->cols, plain);
    for (int64_t i = 0; i < t->cols; i++) out[i] = plain[file_row(i, t->head_rows)];
    free(plain);
}

int gguf_import_row(const struct gguf_import *import, size_t index, int64_t row, float *out,
                    struct imp_error *err) {
    check(index < import->tensor_count);
    const struct gguf_import_tensor *t = &import->tensors[index];
    check(row >= 0 && row < t->rows);
    int64_t from = t->dims == 2 ? file_row(row, t->head_rows) : 0;
    if (t->dims == 1) {
        read_vector(t, out);
    } else {
        gguf_dequantize(t->source, from * t->cols, t->cols, out);
    }
    for (int64_t k = 0; k < t->cols; k++) {
        out[k] *= t->multiplier;
        if (!isfinite(out[k])) {
            char what[100];
            snprintf(what, sizeof what, "row %lld, column %lld is not finite (data at byte %llu)",
                     (long long)row, (long long)k, (unsigned long long)t->source->file_offset);
            return tensor_error(import->source, t->source->name, IMP_ERR_FILE, err, what);
        }
    }
    return 0;
}

int gguf_import_rows(const struct gguf_import *import, size_t index, int64_t first, int64_t count,
                     float *out, struct imp_error *err) {
    int64_t cols = import->tensors[index].cols;
    for (int64_t i = 0; i < count; i++) {
        int rc = gguf_import_row(import, index, first + i, out + i * cols, err);
        if (rc < 0) return rc;
    }
    return 0;
}
