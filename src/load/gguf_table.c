/* The tensors of an imported GGUF file: which of the file's is which of Hugging Face's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "load/gguf_import_internal.h"

enum rows_kind {
    ROWS_HIDDEN,
    ROWS_Q,
    ROWS_KV,
    ROWS_WIDTH,
    ROWS_HEAD,
    ROWS_VOCAB,
    ROWS_EXPERTS,
    ROWS_EXPERT_WIDTH,
    ROWS_ONE
};

/* cols ROWS_ONE: a vector whose length is `rows`. In the order in which transformers saves. */
static const struct role {
    const char *gguf, *name;
    enum rows_kind rows, cols;
    bool rotated; /* rows lie in the order of RoPE */
    enum {
        ALWAYS,
        WITH_BIAS,
        WITH_OUT_BIAS,
        WITH_QK_NORM,
        PRE_NORMS,
        POST_NORMS,
        DENSE,
        ROUTER
    } when;
} LAYER_ROLES[] = {
    {"attn_norm.weight", "input_layernorm.weight", ROWS_HIDDEN, ROWS_ONE, false, ALWAYS},
    {"ffn_down.weight", "mlp.down_proj.weight", ROWS_HIDDEN, ROWS_WIDTH, false, DENSE},
    {"ffn_gate.weight", "mlp.gate_proj.weight", ROWS_WIDTH, ROWS_HIDDEN, false, DENSE},
    {"ffn_up.weight", "mlp.up_proj.weight", ROWS_WIDTH, ROWS_HIDDEN, false, DENSE},
    {"ffn_gate_inp.weight", "mlp.gate.weight", ROWS_EXPERTS, ROWS_HIDDEN, false, ROUTER},
    {"ffn_norm.weight", "post_attention_layernorm.weight", ROWS_HIDDEN, ROWS_ONE, false, PRE_NORMS},
    {"post_attention_norm.weight", "post_attention_layernorm.weight", ROWS_HIDDEN, ROWS_ONE, false,
     POST_NORMS},
    {"post_ffw_norm.weight", "post_feedforward_layernorm.weight", ROWS_HIDDEN, ROWS_ONE, false,
     POST_NORMS},
    {"ffn_norm.weight", "pre_feedforward_layernorm.weight", ROWS_HIDDEN, ROWS_ONE, false,
     POST_NORMS},
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
/* Stacks [experts, rows, cols]; the names are of one expert, "model.layers.N.mlp.experts.E." */
static const struct role EXPERT_ROLES[] = {
    {"ffn_down_exps.weight", "down_proj.weight", ROWS_HIDDEN, ROWS_EXPERT_WIDTH, false, ROUTER},
    {"ffn_gate_exps.weight", "gate_proj.weight", ROWS_EXPERT_WIDTH, ROWS_HIDDEN, false, ROUTER},
    {"ffn_up_exps.weight", "up_proj.weight", ROWS_EXPERT_WIDTH, ROWS_HIDDEN, false, ROUTER},
};
enum { EXPERT_ROLE_COUNT = sizeof EXPERT_ROLES / sizeof *EXPERT_ROLES };
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
    case ROWS_EXPERTS:
        return s->experts;
    case ROWS_EXPERT_WIDTH:
        return s->expert_width;
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

int gguf_tensor_error(const struct gguf *g, const char *name, int code, struct imp_error *err,
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
        return gguf_tensor_error(b->in->source, name, IMP_ERR_FILE, b->err,
                                 "must be one F32 value");
    gguf_dequantize(t, 0, 1, out);
    if (!(*out > 0 && isfinite(*out)))
        return gguf_tensor_error(b->in->source, name, IMP_ERR_FILE, b->err,
                                 "must be positive, finite");
    return 0;
}

/* The tensor of a role, with the shape that the keys ask for: [stack,] rows, cols. */
static int find_tensor(struct table_builder *b, const struct role *role, const char *name,
                       int64_t stack, const struct gguf_tensor **out) {
    const bool vector = role->cols == ROWS_ONE;
    const int64_t rows = size_of(b->shape, role->rows), cols = size_of(b->shape, role->cols);
    const int64_t want[3] = {vector ? rows : cols, vector ? 1 : rows, stack ? stack : 1};
    const struct gguf_tensor *t = take(b, name);
    if (t == NULL)
        return gguf_tensor_error(b->in->source, name, IMP_ERR_FILE, b->err, "is missing");
    bool fits = t->dims == (stack ? 3 : vector ? 1 : 2);
    for (int d = 0; d < t->dims && d < 3; d++) fits = fits && t->shape[d] == want[d];
    *out = t;
    if (fits) return 0;
    char what[160];
    snprintf(what, sizeof what, "has shape [%lld, %lld, %lld], the keys ask for [%lld, %lld, %lld]",
             (long long)t->shape[0], (long long)(t->dims > 1 ? t->shape[1] : 1),
             (long long)(t->dims > 2 ? t->shape[2] : 1), (long long)want[0], (long long)want[1],
             (long long)want[2]);
    return gguf_tensor_error(b->in->source, name, IMP_ERR_FILE, b->err, what);
}

static struct gguf_import_tensor *append(struct table_builder *b, const struct role *role,
                                         const struct gguf_tensor *t, const char *name) {
    const bool vector = role->cols == ROWS_ONE;
    const int64_t rows = size_of(b->shape, role->rows), cols = size_of(b->shape, role->cols);
    struct gguf_import_tensor *to = &b->in->tensors[b->in->tensor_count++];
    *to = (struct gguf_import_tensor){.name = arena_strndup(&b->in->arena, name, strlen(name)),
                                      .source = t,
                                      .dims = vector ? 1 : 2,
                                      .rows = vector ? 1 : rows,
                                      .cols = vector ? rows : cols,
                                      .multiplier = 1};
    if (role->rotated && b->shape->arch->permuted) to->head_rows = b->shape->head_dim;
    if (b->shape->arch->norms_from_one && strstr(role->gguf, "norm")) to->offset = -1;
    return to;
}

static int add_tensor(struct table_builder *b, const struct role *role, int64_t layer) {
    char gguf_name[160], name[160];
    const struct gguf_tensor *t;
    snprintf(gguf_name, sizeof gguf_name, "%s", role->gguf);
    snprintf(name, sizeof name, "%s", role->name);
    if (layer >= 0) {
        snprintf(gguf_name, sizeof gguf_name, "blk.%lld.%s", (long long)layer, role->gguf);
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)layer, role->name);
    }
    int rc = find_tensor(b, role, gguf_name, 0, &t);
    if (rc < 0) return rc;
    return read_multiplier(b, gguf_name, &append(b, role, t, name)->multiplier);
}

static int add_experts(struct table_builder *b, int64_t layer) {
    const struct gguf_tensor *stack[EXPERT_ROLE_COUNT];
    char name[160];
    for (int i = 0; i < EXPERT_ROLE_COUNT; i++) {
        snprintf(name, sizeof name, "blk.%lld.%s", (long long)layer, EXPERT_ROLES[i].gguf);
        int rc = find_tensor(b, &EXPERT_ROLES[i], name, b->shape->experts, &stack[i]);
        if (rc < 0) return rc;
    }
    for (int64_t e = 0; e < b->shape->experts; e++) {
        for (int i = 0; i < EXPERT_ROLE_COUNT; i++) {
            snprintf(name, sizeof name, "model.layers.%lld.mlp.experts.%lld.%s", (long long)layer,
                     (long long)e, EXPERT_ROLES[i].name);
            struct gguf_import_tensor *t = append(b, &EXPERT_ROLES[i], stack[i], name);
            t->first_row = e * t->rows;
        }
    }
    return 0;
}

static bool is_wanted(const struct gguf_shape *s, const struct role *role) {
    switch (role->when) {
    case WITH_BIAS:
        return s->attention_bias;
    case WITH_OUT_BIAS:
        return s->attention_bias && !s->arch->biased;
    case WITH_QK_NORM:
        return s->arch->qk_norm;
    case PRE_NORMS:
        return !s->arch->post_norms;
    case POST_NORMS:
        return s->arch->post_norms;
    case DENSE:
        return s->experts == 0;
    case ROUTER:
        return s->experts > 0;
    case ALWAYS:
        break;
    }
    return true;
}

/* A tensor that nobody asked for changes the model's meaning: say which. */
static int refuse_rest(struct table_builder *b) {
    const struct gguf *g = b->in->source;
    take(b, "rope_freqs.weight"); /* gguf_write_config reads it */
    for (size_t i = 0; i < g->tensor_count; i++) {
        if (!b->used[i])
            return gguf_tensor_error(g, g->tensors[i].name, IMP_ERR_UNSUPPORTED, b->err,
                                     "has no place in this architecture");
    }
    return 0;
}

/* A table costs memory before its tensors are looked up: bound it by the file. */
static int check_size(const struct gguf *g, const struct gguf_shape *s, struct imp_error *err) {
    char name[64];
    if ((uint64_t)s->layers > g->tensor_count)
        return gguf_tensor_error(g, "blk.0.attn_norm.weight", IMP_ERR_FILE, err,
                                 "the file has fewer tensors than layers");
    for (int64_t layer = 0; s->experts > 0 && layer < s->layers; layer++) {
        snprintf(name, sizeof name, "blk.%lld.ffn_down_exps.weight", (long long)layer);
        const struct gguf_tensor *stack = gguf_find_tensor(g, name);
        if (stack == NULL || stack->dims != 3 || stack->shape[2] != s->experts)
            return gguf_tensor_error(g, name, IMP_ERR_FILE, err,
                                     "is missing, or holds another number of experts than the keys "
                                     "say");
    }
    return 0;
}

int gguf_make_table(struct gguf_import *in, const struct gguf_shape *s, struct imp_error *err) {
    int rc = check_size(in->source, s, err);
    if (rc < 0) return rc;
    struct table_builder b = {in, s, err, mem_zero(in->source->tensor_count, sizeof(bool))};
    const int64_t per_layer = LAYER_ROLE_COUNT + s->experts * EXPERT_ROLE_COUNT;
    in->tensors = arena_array(&in->arena, (size_t)(s->layers * per_layer + 3), sizeof *in->tensors);
    rc = add_tensor(&b, &EMBEDDING, -1);
    for (int64_t layer = 0; layer < s->layers && rc == 0; layer++) {
        for (int i = 0; i < LAYER_ROLE_COUNT && rc == 0; i++) {
            if (is_wanted(s, &LAYER_ROLES[i])) rc = add_tensor(&b, &LAYER_ROLES[i], layer);
        }
        if (rc == 0 && s->experts > 0) rc = add_experts(&b, layer);
    }
    if (rc == 0) rc = add_tensor(&b, &FINAL_NORM, -1);
    if (rc == 0 && !s->tied) rc = add_tensor(&b, &HEAD, -1);
    if (rc == 0) rc = refuse_rest(&b);
    free(b.used);
    return rc;
}
