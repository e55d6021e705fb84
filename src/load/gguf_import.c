#include "load/gguf_import.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "load/gguf_import_internal.h"

/* ---- shape ---- */

static const char *const GEMMA3_KEYS[] = {"attention.sliding_window",
                                          "attention.sliding_window_pattern", "rope.freq_base_swa",
                                          "final_logit_softcapping", NULL};
static const char *const QWEN3MOE_KEYS[] = {"expert_feed_forward_length", NULL};
static const struct gguf_architecture ARCHITECTURES[] = {
    {.name = "llama", .model_type = "llama", .class_name = "LlamaForCausalLM", .permuted = true},
    {.name = "qwen2", .model_type = "qwen2", .class_name = "Qwen2ForCausalLM", .biased = true},
    {.name = "qwen3", .model_type = "qwen3", .class_name = "Qwen3ForCausalLM", .qk_norm = true},
    {.name = "qwen3moe",
     .model_type = "qwen3_moe",
     .class_name = "Qwen3MoeForCausalLM",
     .keys = QWEN3MOE_KEYS,
     .qk_norm = true,
     .mixture = true},
    {.name = "gemma3",
     .model_type = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .keys = GEMMA3_KEYS,
     .qk_norm = true,
     .post_norms = true,
     .norms_from_one = true},
};

static int read_architecture(struct gguf_import *in, struct gguf_shape *shape,
                             struct imp_error *err) {
    struct slice name;
    int rc = gguf_key_string(in->source, "general.architecture", &name, err);
    if (rc < 0) return rc;
    for (size_t i = 0; i < sizeof ARCHITECTURES / sizeof *ARCHITECTURES; i++) {
        if (!slice_equal(name, slice_of(ARCHITECTURES[i].name))) continue;
        in->architecture = ARCHITECTURES[i].name;
        shape->arch = &ARCHITECTURES[i];
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
static int refuse_unknown_keys(const struct gguf_import *in, const struct gguf_architecture *arch,
                               struct imp_error *err) {
    size_t stem = strlen(in->architecture);
    check(arch != NULL);
    for (size_t i = 0; i < in->source->key_count; i++) {
        struct slice key = in->source->keys[i];
        if (!slice_starts(key, in->architecture) || key.size <= stem || key.data[stem] != '.')
            continue;
        struct slice suffix = {key.data + stem + 1, key.size - stem - 1};
        bool known = false;
        for (size_t j = 0; j < sizeof KNOWN_KEYS / sizeof *KNOWN_KEYS && !known; j++)
            known = slice_equal(suffix, slice_of(KNOWN_KEYS[j]));
        for (const char *const *own = arch->keys; own && *own && !known; own++)
            known = slice_equal(suffix, slice_of(*own));
        if (known) continue;
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)(key.size > 120 ? 120 : key.size), key.data);
        return gguf_key_error(in->source, name, IMP_ERR_UNSUPPORTED, err, "is not known");
    }
    return 0;
}

static int check_heads(const struct key_reader *k, const struct gguf_shape *s, int64_t value_dim,
                       int64_t rotated) {
    const struct gguf *g = k->in->source;
    char key[128];
    if (s->heads % s->kv_heads != 0)
        return gguf_key_error(g, arch_key(k, "attention.head_count_kv", key), IMP_ERR_FILE, k->err,
                              "%lld does not divide the %lld query heads", (long long)s->kv_heads,
                              (long long)s->heads);
    if (rotated > s->head_dim)
        return gguf_key_error(g, arch_key(k, "rope.dimension_count", key), IMP_ERR_FILE, k->err,
                              "%lld is more than the head's %lld", (long long)rotated,
                              (long long)s->head_dim);
    if (rotated != s->head_dim || value_dim != s->head_dim || s->head_dim % 2 != 0)
        return gguf_key_error(g, arch_key(k, "rope.dimension_count", key), IMP_ERR_UNSUPPORTED,
                              k->err, "%lld of a key head of %lld and a value head of %lld",
                              (long long)rotated, (long long)s->head_dim, (long long)value_dim);
    return 0;
}

static int read_experts(struct key_reader *k, struct gguf_shape *s) {
    char key[128];
    if (!s->arch->mixture) {
        s->experts = arch_int(k, "expert_count", 0, CAP_EXPERTS, 0);
        if (k->rc < 0 || s->experts == 0) return k->rc;
        return gguf_key_error(k->in->source, arch_key(k, "expert_count", key), IMP_ERR_UNSUPPORTED,
                              k->err, "mixtures of experts of this architecture are not imported");
    }
    s->experts = arch_int(k, "expert_count", 1, CAP_EXPERTS, 0);
    s->top_k = arch_int(k, "expert_used_count", 1, s->experts > 0 ? s->experts : 1, 0);
    s->expert_width = arch_int(k, "expert_feed_forward_length", 1, CAP_HIDDEN, 0);
    return k->rc;
}

/* What Gemma 3 has besides. The window's rope and its pattern have keys in few files. */
static int read_window(struct key_reader *k, struct gguf_shape *s) {
    if (!s->arch->post_norms) return 0;
    s->window = arch_int(k, "attention.sliding_window", 1, CAP_CONTEXT, 0);
    s->window_pattern = arch_int(k, "attention.sliding_window_pattern", 1, CAP_LAYERS, 6);
    s->window_theta = arch_float(k, "rope.freq_base_swa", 1, 1e12, 10000);
    s->logit_softcap = arch_float(k, "final_logit_softcapping", 0, 1e6, 0);
    /* No key: 27B alone divides by another number than the head's. */
    s->query_scalar = s->layers == 62 ? s->hidden / s->heads : s->head_dim;
    return k->rc;
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
    s->context = arch_int(&k, "context_length", 1, CAP_CONTEXT, 0);
    s->eps = arch_float(&k, "attention.layer_norm_rms_epsilon", 1e-12, 1, -1);
    s->theta = arch_float(&k, "rope.freq_base", 1, 1e12, s->arch->post_norms ? 1e6 : 10000);
    if (k.rc < 0) return k.rc;
    int rc = check_heads(&k, s, value_dim, rotated);
    if (rc == 0) rc = read_experts(&k, s);
    return rc < 0 ? rc : read_window(&k, s);
}

static int refuse_split(const struct gguf *g, struct imp_error *err) {
    int64_t shards;
    int rc = gguf_key_int(g, "split.count", 0, UINT16_MAX, 0, &shards, err);
    if (rc < 0 || shards <= 1) return rc;
    return gguf_key_error(g, "split.count", IMP_ERR_UNSUPPORTED, err,
                          "the model is split over %lld files: join them first", (long long)shards);
}

static const char EMBEDDING[] = "token_embd.weight", HEAD[] = "output.weight";

int gguf_import_open(const struct gguf *g, struct gguf_import *out, struct imp_error *err) {
    struct gguf_shape shape = {0};
    *out = (struct gguf_import){.source = g};
    int rc;
    if ((rc = refuse_split(g, err)) < 0 || (rc = read_architecture(out, &shape, err)) < 0 ||
        (rc = refuse_unknown_keys(out, shape.arch, err)) < 0 ||
        (rc = read_shape(out, &shape, err)) < 0)
        return rc;
    const struct gguf_tensor *embedding = gguf_find_tensor(g, EMBEDDING);
    if (embedding == NULL || embedding->dims != 2)
        return gguf_tensor_error(g, EMBEDDING, IMP_ERR_FILE, err, "is missing or is no matrix");
    shape.vocab = embedding->shape[1];
    if (shape.vocab > CAP_VOCAB)
        return gguf_tensor_error(g, EMBEDDING, IMP_ERR_FILE, err, "has too many rows");
    shape.tied = gguf_find_tensor(g, HEAD) == NULL;
    shape.attention_bias = shape.arch->biased || gguf_find_tensor(g, "blk.0.attn_q.bias") != NULL;
    if ((rc = gguf_make_table(out, &shape, err)) < 0 ||
        (rc = gguf_write_config(out, &shape, err)) < 0 ||
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
    int64_t from = t->dims == 2 ? t->first_row + file_row(row, t->head_rows) : 0;
    if (t->dims == 1) {
        read_vector(t, out);
    } else {
        gguf_dequantize(t->source, from * t->cols, t->cols, out);
    }
    for (int64_t k = 0; k < t->cols; k++) {
        out[k] *= t->multiplier;
        if (t->offset != 0) out[k] += t->offset; /* -0 stays what it is */
        if (!isfinite(out[k])) {
            char what[100];
            snprintf(what, sizeof what, "row %lld, column %lld is not finite (data at byte %llu)",
                     (long long)row, (long long)k, (unsigned long long)t->source->file_offset);
            return gguf_tensor_error(import->source, t->source->name, IMP_ERR_FILE, err, what);
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
