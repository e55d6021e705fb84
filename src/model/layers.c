/* The tensors of one layer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "model/binder.h"

static const struct model_desc *desc_of(const struct binder *b) {
    return &b->model->desc;
}

static float *vector(struct binder *b, enum module module, int layer, int64_t count, float offset) {
    char name[128];
    module_name(desc_of(b), module, layer, name);
    return binder_vector(b, name, count, offset);
}

/* A norm over the residual stream. */
static float *hidden_norm(struct binder *b, enum module module, int layer) {
    return vector(b, module, layer, desc_of(b)->hidden, desc_of(b)->norm_offset);
}

/* The same on the host, in the checkpoint's arena. */
static const float *host_vector(struct binder *b, enum module module, int layer, int64_t count) {
    char name[128];
    const float *host = NULL;
    module_name(desc_of(b), module, layer, name);
    if (b->rc == 0) b->rc = checkpoint_vector(b->ck, name, count, &host, b->err);
    return b->rc == 0 ? host : NULL;
}

static bool find_weight(struct binder *b, enum module module, int layer, int64_t rows, int64_t cols,
                        struct weight *out) {
    char name[128];
    module_name(desc_of(b), module, layer, name);
    if (b->rc == 0) b->rc = checkpoint_weight(b->ck, name, rows, cols, out, b->err);
    return b->rc == 0;
}

struct part {
    enum module module;
    int64_t rows;
    bool bias;
};
enum { MAX_PARTS = 4 };

/* Linears on one input as one matrix, each product times `scale`. */
static struct matrix *bind_parts(struct binder *b, int layer, const struct part *parts, int count,
                                 int64_t cols, float scale) {
    struct weight weights[MAX_PARTS];
    const float *bias[MAX_PARTS] = {0};
    for (int i = 0; i < count && b->rc == 0; i++) {
        char name[128];
        if (!find_weight(b, parts[i].module, layer, parts[i].rows, cols, &weights[i])) break;
        weights[i].multiplier *= scale;
        if (!parts[i].bias) continue;
        module_name(desc_of(b), parts[i].module, layer, name);
        strcat(name, ".bias");
        b->rc = checkpoint_vector(b->ck, name, parts[i].rows, &bias[i], b->err);
        if (b->rc < 0 || scale == 1.0f) continue;
        float *scaled = arena_array(&b->ck->arena, (size_t)parts[i].rows, sizeof *scaled);
        for (int64_t k = 0; k < parts[i].rows; k++) scaled[k] = bias[i][k] * scale;
        bias[i] = scaled;
    }
    return binder_matrix(b, weights, count, bias);
}

static void bind_attention(struct binder *b, int i, struct layer_weights *w) {
    const struct model_desc *desc = desc_of(b);
    const struct attention_desc *a = &desc->layer[i].attention;
    const int64_t q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim;
    const bool owns_kv = !a->shares_kv;
    const struct part in[] = {{MODULE_Q, (int64_t)a->heads * attention_q_step(a), a->qkv_bias},
                              {MODULE_K, kv, a->qkv_bias},
                              {MODULE_V, kv, a->qkv_bias}};
    const struct part out[] = {{MODULE_O, desc->hidden, a->out_bias}};
    if (a->qk_norm) {
        w->q_norm = vector(b, MODULE_Q_NORM, i, a->head_dim, desc->norm_offset);
        if (owns_kv) w->k_norm = vector(b, MODULE_K_NORM, i, a->head_dim, desc->norm_offset);
    }
    if (a->sinks) w->sinks = vector(b, MODULE_SINKS, i, a->heads, 0);
    w->in = bind_parts(b, i, in, !owns_kv ? 1 : a->v_from_k ? 2 : 3, desc->hidden, 1.0f);
    w->out = bind_parts(b, i, out, 1, q, desc->residual_scale);
}

/* ---- gated delta net ---- */

/* The rows of q k v z, or b a, one key head's after another's, in the order of op_gdn: each kind's
 * rows of all key heads together. size[kind]: rows of a kind in one key head. */
static struct weight ungroup(struct binder *b, const struct weight *w, const int64_t *size,
                             int kinds, int key_heads) {
    int64_t *row = mem_alloc((size_t)w->rows * sizeof *row), n = 0, group = 0, first = 0;
    for (int i = 0; i < kinds; i++) group += size[i];
    for (int i = 0; i < kinds; first += size[i++]) {
        for (int head = 0; head < key_heads; head++) {
            for (int64_t k = 0; k < size[i]; k++) row[n++] = head * group + first + k;
        }
    }
    struct weight out = weight_gather_rows(w, row, n, &b->ck->arena);
    free(row);
    return out;
}

static struct matrix *bind_grouped(struct binder *b, int i) {
    const struct model_desc *desc = desc_of(b);
    const struct gdn_shape *s = &desc->layer[i].gdn.shape;
    const int64_t ratio = s->value_heads / s->key_heads, values = ratio * s->value_dim;
    const int64_t qkvz[] = {s->key_dim, s->key_dim, values, values}, ba[] = {ratio, ratio};
    struct weight w[2];
    if (!find_weight(b, MODULE_GDN_QKVZ, i,
                     gdn_channels(s) + (int64_t)s->value_heads * s->value_dim, desc->hidden,
                     &w[0]) ||
        !find_weight(b, MODULE_GDN_BA, i, 2 * s->value_heads, desc->hidden, &w[1]))
        return NULL;
    w[0] = ungroup(b, &w[0], qkvz, 4, s->key_heads);
    w[1] = ungroup(b, &w[1], ba, 2, s->key_heads);
    return binder_matrix(b, w, 2, NULL);
}

static void bind_gdn(struct binder *b, int i, struct layer_weights *w) {
    const struct model_desc *desc = desc_of(b);
    const struct gdn_desc *g = &desc->layer[i].gdn;
    const struct gdn_shape *s = &g->shape;
    const int64_t values = (int64_t)s->value_heads * s->value_dim;
    const struct part in[] = {{MODULE_GDN_QKV, gdn_channels(s), false},
                              {MODULE_GDN_Z, values, false},
                              {MODULE_GDN_B, s->value_heads, false},
                              {MODULE_GDN_A, s->value_heads, false}};
    const struct part out[] = {{MODULE_GDN_OUT, desc->hidden, false}};
    w->in = g->grouped ? bind_grouped(b, i) : bind_parts(b, i, in, 4, desc->hidden, 1.0f);
    w->out = bind_parts(b, i, out, 1, values, desc->residual_scale);
    w->gdn_conv = vector(b, MODULE_GDN_CONV, i, gdn_channels(s) * GDN_CONV, 0);
    w->gdn_dt_bias = vector(b, MODULE_GDN_DT_BIAS, i, s->value_heads, 0);
    w->gdn_norm = vector(b, MODULE_GDN_NORM, i, s->value_dim, 0);
    const float *a_log = host_vector(b, MODULE_GDN_A_LOG, i, s->value_heads);
    if (a_log == NULL) return;
    float *decay = mem_alloc((size_t)s->value_heads * sizeof *decay);
    for (int k = 0; k < s->value_heads; k++) decay[k] = expf(a_log[k]);
    w->gdn_decay = binder_upload(b, decay, s->value_heads);
    free(decay);
}

/* ---- ffn ---- */

static void bind_dense(struct binder *b, int i, struct layer_weights *w) {
    const struct model_desc *desc = desc_of(b);
    const struct ffn_desc *f = &desc->layer[i].ffn;
    const struct part gate_up[] = {{MODULE_GATE, f->width, f->bias},
                                   {MODULE_UP, f->width, f->bias}};
    const struct part down[] = {{MODULE_DOWN, desc->hidden, f->bias}};
    w->gate_up = bind_parts(b, i, gate_up, 2, desc->hidden, 1.0f);
    w->down = bind_parts(b, i, down, 1, f->width, desc->residual_scale);
}

static void bind_router(struct binder *b, int i, struct layer_weights *w) {
    const struct model_desc *desc = desc_of(b);
    const struct moe_desc *m = &desc->layer[i].moe;
    struct weight router;
    if (!find_weight(b, MODULE_ROUTER, i, m->experts, desc->hidden, &router)) return;
    float *rows = mem_alloc((size_t)(m->experts * desc->hidden) * sizeof *rows);
    for (int e = 0; e < m->experts; e++) weight_dequantize_row(&router, e, rows + e * desc->hidden);
    w->router = binder_upload(b, rows, m->experts * desc->hidden);
    free(rows);
    if (m->router_bias) {
        char name[128];
        module_name(desc, MODULE_ROUTER, i, name);
        strcat(name, ".bias");
        w->router_bias = binder_vector(b, name, m->experts, 0);
    }
    if (m->expert_scale) w->expert_scale = vector(b, MODULE_EXPERT_SCALE, i, m->experts, 0);
    const float *scale =
        m->router_norm ? host_vector(b, MODULE_ROUTER_SCALE, i, desc->hidden) : NULL;
    if (scale == NULL) return;
    float *norm = mem_alloc((size_t)desc->hidden * sizeof *norm);
    for (int64_t k = 0; k < desc->hidden; k++)
        norm[k] = scale[k] * (float)(1.0 / sqrt((double)desc->hidden));
    w->router_norm = binder_upload(b, norm, desc->hidden);
    free(norm);
}

static void bind_expert(struct binder *b, int i, int e, struct layer_weights *w,
                        struct matrix **gate_up, struct matrix **down) {
    const struct model_desc *desc = desc_of(b);
    const struct moe_desc *m = &desc->layer[i].moe;
    struct expert expert = {0};
    char name[128];
    module_name(desc, MODULE_EXPERTS, i, name);
    if (b->rc == 0)
        b->rc = checkpoint_expert(b->ck, name, m->layout, m->experts, e, m->width, desc->hidden,
                                  &expert, b->err);
    if (b->rc == 0 && m->layout == EXPERTS_GPT_OSS &&
        (expert.gate_up_bias == NULL || expert.down_bias == NULL))
        b->rc = error_set(b->err, IMP_ERR_FILE, b->ck->path, "the biases of %s.%d are missing",
                          name, e);
    if (b->rc < 0) return;
    const float *bias[2] = {expert.gate_up_bias, NULL};
    if (expert.gate_up_bias && expert.gate_up_count == 2) bias[1] = expert.gate_up_bias + m->width;
    w->interleaved = expert.interleaved;
    expert.down.multiplier *= desc->residual_scale;
    *gate_up = binder_matrix(b, expert.gate_up, expert.gate_up_count, bias);
    *down = binder_matrix(b, &expert.down, 1, &expert.down_bias);
}

static void bind_experts(struct binder *b, int i, struct layer_weights *w) {
    const struct moe_desc *m = &desc_of(b)->layer[i].moe;
    struct backend *be = b->model->be;
    struct matrix **gate_up = mem_zero((size_t)m->experts, sizeof *gate_up);
    struct matrix **down = mem_zero((size_t)m->experts, sizeof *down);
    const size_t before = b->model->bytes_per_step;
    for (int e = 0; e < m->experts && b->rc == 0; e++)
        bind_expert(b, i, e, w, &gate_up[e], &down[e]);
    /* One token reads top_k of them. */
    const size_t all = b->model->bytes_per_step - before;
    b->model->bytes_per_step = before + all / (size_t)m->experts * (size_t)m->top_k;
    if (b->rc == 0) {
        b->rc = be->ops->experts_create(be, gate_up, down, m->experts, &w->experts, b->err);
    } else {
        for (int e = 0; e < m->experts; e++) {
            be->ops->matrix_free(be, gate_up[e]);
            be->ops->matrix_free(be, down[e]);
        }
    }
    free(gate_up);
    free(down);
    if (!be->borrows_weights) checkpoint_drop_copies(b->ck);
}

static void bind_shared(struct binder *b, int i, struct layer_weights *w) {
    const struct model_desc *desc = desc_of(b);
    const struct moe_desc *m = &desc->layer[i].moe;
    const struct part gate_up[] = {{MODULE_SHARED_GATE, m->shared_width, false},
                                   {MODULE_SHARED_UP, m->shared_width, false},
                                   {MODULE_SHARED_EXPERT_GATE, 1, false}};
    const struct part down[] = {{MODULE_SHARED_DOWN, desc->hidden, false}};
    w->shared_gate_up = bind_parts(b, i, gate_up, m->shared_gate ? 3 : 2, desc->hidden, 1.0f);
    w->shared_down = bind_parts(b, i, down, 1, m->shared_width, desc->residual_scale);
}

/* ---- the layer ---- */

static void bind_norms(struct binder *b, int i, struct layer_weights *w) {
    const struct model_desc *desc = desc_of(b);
    const struct layer_desc *layer = &desc->layer[i];
    w->input_norm = hidden_norm(b, MODULE_INPUT_NORM, i);
    w->ffn_norm = hidden_norm(b, MODULE_FFN_NORM, i);
    if (desc->post_norms) {
        w->mixer_post_norm = hidden_norm(b, MODULE_MIXER_POST_NORM, i);
        w->ffn_post_norm = hidden_norm(b, MODULE_FFN_POST_NORM, i);
    }
    if (layer->ffn.width && layer->moe.experts) {
        w->dense_post_norm = hidden_norm(b, MODULE_DENSE_POST_NORM, i);
        w->moe_norm = hidden_norm(b, MODULE_MOE_NORM, i);
        w->moe_post_norm = hidden_norm(b, MODULE_MOE_POST_NORM, i);
    }
}

void binder_layer(struct binder *b, int i) {
    const struct model_desc *desc = desc_of(b);
    const struct layer_desc *layer = &desc->layer[i];
    struct layer_weights *w = &b->model->layer[i];
    const struct part ple_gate[] = {{MODULE_PLE_GATE, desc->ple_width, false}};
    const struct part ple_proj[] = {{MODULE_PLE_PROJ, desc->hidden, false}};
    w->scale = 1.0f;
    bind_norms(b, i, w);
    if (layer->mixer == MIXER_GDN) {
        bind_gdn(b, i, w);
    } else {
        bind_attention(b, i, w);
    }
    if (layer->ffn.width) bind_dense(b, i, w);
    if (layer->moe.experts) {
        bind_router(b, i, w);
        bind_experts(b, i, w);
    }
    if (layer->moe.shared_width) bind_shared(b, i, w);
    if (desc->ple_width) {
        w->ple_gate = bind_parts(b, i, ple_gate, 1, desc->hidden, 1.0f);
        w->ple_proj = bind_parts(b, i, ple_proj, 1, desc->ple_width, 1.0f);
        w->ple_norm = hidden_norm(b, MODULE_PLE_NORM, i);
    }
    const float *scale = desc->layer_scale ? host_vector(b, MODULE_LAYER_SCALE, i, 1) : NULL;
    if (scale) w->scale = *scale;
}

void binder_release_layer(struct backend *be, struct layer_weights *w) {
    float *vectors[] = {w->input_norm,  w->mixer_post_norm, w->ffn_norm,     w->ffn_post_norm,
                        w->q_norm,      w->k_norm,          w->sinks,        w->gdn_conv,
                        w->gdn_decay,   w->gdn_dt_bias,     w->gdn_norm,     w->router,
                        w->router_bias, w->router_norm,     w->expert_scale, w->dense_post_norm,
                        w->moe_norm,    w->moe_post_norm,   w->ple_norm};
    struct matrix *matrices[] = {
        w->in,          w->out,      w->gate_up, w->down, w->shared_gate_up,
        w->shared_down, w->ple_gate, w->ple_proj};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) be->ops->free(be, vectors[i]);
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        be->ops->matrix_free(be, matrices[i]);
    be->ops->experts_free(be, w->experts);
}
