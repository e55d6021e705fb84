/* The forward pass: one walk over the description, the same for every family and device. */
#include <stdlib.h>

#include "base/error.h"
#include "base/str.h"
#include "model/model.h"

static int64_t widest_output(const struct model_desc *desc) {
    int64_t widest = 0;
    for (int i = 0; i < desc->layers; i++) {
        const struct attention_desc *a = &desc->layer[i].attention;
        int64_t qkv = (int64_t)(a->heads + 2 * a->kv_heads) * a->head_dim;
        int64_t gate_up = 2 * desc->layer[i].ffn.width;
        if (qkv > widest) widest = qkv;
        if (gate_up > widest) widest = gate_up;
    }
    return widest;
}

struct activation_sizes {
    size_t h, x, q, wide, logits, angles[MODEL_MAX_ROPES];
};

static struct activation_sizes activation_sizes(const struct model_desc *desc, struct backend *be,
                                                const struct step_limits *limits) {
    struct activation_sizes s = {0};
    size_t rows = (size_t)limits->rows;
    s.h = rows * (size_t)desc->hidden * sizeof(float);
    s.x = rows * be->ops->act_bytes(be, model_desc_max_cols(desc));
    int64_t q = 0;
    for (int i = 0; i < desc->layers; i++) {
        const struct attention_desc *a = &desc->layer[i].attention;
        if ((int64_t)a->heads * a->head_dim > q) q = (int64_t)a->heads * a->head_dim;
    }
    s.q = rows * be->ops->act_bytes(be, q);
    s.wide = rows * (size_t)widest_output(desc) * sizeof(float);
    s.logits = (size_t)limits->out_rows * (size_t)desc->vocab * sizeof(float);
    for (int i = 0; i < desc->rope_count; i++)
        s.angles[i] = rows * (size_t)desc->ropes[i].pairs * 2 * sizeof(float);
    return s;
}

size_t model_activation_bytes(const struct model_desc *desc, struct backend *be,
                              const struct step_limits *limits) {
    struct activation_sizes s = activation_sizes(desc, be, limits);
    size_t total = s.h + s.x + s.q + s.wide + s.logits;
    for (int i = 0; i < desc->rope_count; i++) total += s.angles[i];
    return total;
}

size_t model_kv_block_bytes(const struct model_desc *desc, struct backend *be) {
    size_t total = 0;
    for (int i = 0; i < desc->layers; i++) {
        const struct attention_desc *a = &desc->layer[i].attention;
        total += be->ops->kv_block_bytes(be, a->kv_heads, a->head_dim);
    }
    return total;
}

int model_reserve(struct model *model, const struct step_limits *limits, int kv_blocks,
                  struct imp_error *err) {
    struct backend *be = model->be;
    struct activation_sizes s = activation_sizes(&model->desc, be, limits);
    model->limits = *limits;
    int rc;
    if ((rc = be->ops->alloc(be, s.h, (void **)&model->h, err)) < 0 ||
        (rc = be->ops->alloc(be, s.x, &model->x, err)) < 0 ||
        (rc = be->ops->alloc(be, s.q, &model->q, err)) < 0 ||
        (rc = be->ops->alloc(be, s.wide, (void **)&model->wide, err)) < 0 ||
        (rc = be->ops->alloc(be, s.logits, (void **)&model->logits, err)) < 0 ||
        (rc = be->ops->reserve(be, limits, err)) < 0)
        return rc;
    for (int i = 0; i < model->desc.rope_count; i++) {
        rc = be->ops->alloc(be, s.angles[i], (void **)&model->angles[i], err);
        if (rc < 0) return rc;
    }
    model->kv = mem_zero((size_t)model->desc.layers, sizeof *model->kv);
    for (int i = 0; i < model->desc.layers; i++) {
        const struct attention_desc *a = &model->desc.layer[i].attention;
        size_t bytes = be->ops->kv_block_bytes(be, a->kv_heads, a->head_dim) * (size_t)kv_blocks;
        if ((rc = be->ops->alloc(be, bytes, &model->kv[i], err)) < 0) return rc;
    }
    return 0;
}

struct walk {
    struct model *model;
    const struct batch *batch;
    const struct model_tap *tap;
};

static void linear(const struct walk *w, enum module module, int layer, enum linear_mode mode,
                   const struct matrix *matrix, const void *x, float *y) {
    struct backend *be = w->model->be;
    if (w->tap && w->tap->fn)
        w->tap->fn(w->tap->ctx, module, layer, x, w->batch->rows, matrix->cols);
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, mode, matrix, x, y});
}

static void attention_block(const struct walk *w, int i) {
    struct model *m = w->model;
    struct backend *be = m->be;
    const struct attention_desc *a = &m->desc.layer[i].attention;
    const struct layer_weights *lw = &m->layer[i];
    const struct rope_desc *rope = &m->desc.ropes[a->rope];
    be->ops->norm(be, &(struct op_norm){.h = m->h,
                                        .weight = lw->input_norm,
                                        .eps = m->desc.norm_eps,
                                        .cols = m->desc.hidden,
                                        .out = m->x});
    linear(w, MODULE_Q, i, LINEAR_STORE, lw->qkv, m->x, m->wide);
    be->ops->qkv(be, &(struct op_qkv){.qkv = m->wide,
                                      .heads = a->heads,
                                      .kv_heads = a->kv_heads,
                                      .head_dim = a->head_dim,
                                      .q_norm = lw->q_norm,
                                      .k_norm = lw->k_norm,
                                      .eps = m->desc.norm_eps,
                                      .angles = m->angles[a->rope],
                                      .pairs = rope->pairs,
                                      .pair_offset = rope->pair_offset,
                                      .q_scale = a->q_scale,
                                      .q = m->q,
                                      .kv = m->kv[i]});
    be->ops->attention(be, &(struct op_attention){.q = m->q,
                                                  .kv = m->kv[i],
                                                  .heads = a->heads,
                                                  .kv_heads = a->kv_heads,
                                                  .head_dim = a->head_dim,
                                                  .window = a->window,
                                                  .softcap = a->softcap,
                                                  .out = m->x});
    linear(w, MODULE_O, i, LINEAR_ADD, lw->out, m->x, m->h);
}

static void ffn_block(const struct walk *w, int i) {
    struct model *m = w->model;
    struct backend *be = m->be;
    const struct ffn_desc *f = &m->desc.layer[i].ffn;
    const struct layer_weights *lw = &m->layer[i];
    be->ops->norm(be, &(struct op_norm){.h = m->h,
                                        .weight = lw->post_norm,
                                        .eps = m->desc.norm_eps,
                                        .cols = m->desc.hidden,
                                        .out = m->x});
    linear(w, MODULE_GATE, i, LINEAR_STORE, lw->gate_up, m->x, m->wide);
    be->ops->glu(be, &(struct op_glu){f->kind, m->wide, f->width, m->x});
    linear(w, MODULE_DOWN, i, LINEAR_ADD, lw->down, m->x, m->h);
}

int model_forward(struct model *model, const struct batch *batch, const struct model_tap *tap,
                  struct imp_error *err) {
    check(batch->rows >= 1 && batch->rows <= model->limits.rows);
    check(batch->out_rows <= model->limits.out_rows && batch->seqs <= model->limits.seqs);
    check(batch->max_blocks <= model->limits.max_blocks);
    struct backend *be = model->be;
    const struct walk w = {model, batch, tap};
    be->ops->step_begin(be, batch);
    be->ops->embed(be, &(struct op_embed){model->embedding, model->desc.embed_scale, model->h});
    for (int i = 0; i < model->desc.rope_count; i++) {
        const struct rope_desc *rope = &model->desc.ropes[i];
        be->ops->rope_angles(be, &(struct op_rope_angles){model->frequency[i], rope->pairs,
                                                          rope->amplitude, model->angles[i]});
    }
    for (int i = 0; i < model->desc.layers; i++) {
        attention_block(&w, i);
        ffn_block(&w, i);
    }
    if (batch->out_rows > 0) {
        be->ops->norm(be, &(struct op_norm){ROWS_OUT, model->h, model->final_norm,
                                            model->desc.norm_eps, model->desc.hidden, model->x});
        be->ops->linear(
            be, &(struct op_linear){ROWS_OUT, LINEAR_STORE, model->head, model->x, model->logits});
    }
    return be->ops->step_end(be, err);
}
