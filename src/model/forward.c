/* The forward pass: one walk over the description, the same for every family and device. */
#include <math.h>

#include "base/error.h"
#include "model/model.h"

struct walk {
    struct model *model;
    const struct batch *batch;
    const struct model_tap *tap;
};

static void tap_rows(const struct walk *w, enum module module, enum module last, int layer,
                     const void *x, int rows, int64_t cols) {
    if (w->tap && w->tap->fn) w->tap->fn(w->tap->ctx, module, last, layer, x, rows, cols);
}

static void tap(const struct walk *w, enum module module, enum module last, int layer,
                const void *x, int64_t cols) {
    tap_rows(w, module, last, layer, x, w->batch->rows, cols);
}

/* layer -1: of no layer */
static void trace(const struct walk *w, enum stage stage, int layer, const void *x, int64_t cols) {
    if (w->tap && w->tap->stage) w->tap->stage(w->tap->ctx, stage, layer, x, cols);
}

static void linear(const struct walk *w, enum linear_mode mode, const struct matrix *matrix,
                   const void *x, float *y) {
    struct backend *be = w->model->be;
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, mode, matrix, x, y});
}

static void norm(const struct walk *w, const float *weight) {
    struct model *m = w->model;
    m->be->ops->norm(m->be, &(struct op_norm){.h = m->h,
                                              .weight = weight,
                                              .eps = m->desc.norm_eps,
                                              .cols = m->desc.hidden,
                                              .out = m->x});
}

/* y = scale (norm(x)) or scale (y + norm(x)), over the residual stream's columns */
static void post_norm(const struct walk *w, enum linear_mode mode, const float *x,
                      const float *weight, float scale, float *y) {
    struct model *m = w->model;
    m->be->ops->post_norm(m->be, &(struct op_post_norm){.mode = mode,
                                                        .x = x,
                                                        .weight = weight,
                                                        .eps = m->desc.norm_eps,
                                                        .scale = scale,
                                                        .groups = 1,
                                                        .cols = m->desc.hidden,
                                                        .y = y});
}

/* ---- mixers: norm(h) in x; the result goes to y ---- */

static void attention(const struct walk *w, int i) {
    struct model *m = w->model;
    struct backend *be = m->be;
    const struct attention_desc *a = &m->desc.layer[i].attention;
    const struct layer_weights *lw = &m->layer[i];
    const struct rope_desc *rope = &m->desc.ropes[a->rope];
    const bool owns_kv = !a->shares_kv;
    const enum module last = !owns_kv ? MODULE_Q : a->v_from_k ? MODULE_K : MODULE_V;
    tap(w, MODULE_Q, last, i, m->x, m->desc.hidden);
    linear(w, LINEAR_STORE, lw->in, m->x, m->wide);
    trace(w, STAGE_QKV, i, m->wide, lw->in->rows);
    be->ops->qkv(be, &(struct op_qkv){.qkv = m->wide,
                                      .row_cols = lw->in->rows,
                                      .heads = a->heads,
                                      .kv_heads = a->kv_heads,
                                      .head_dim = a->head_dim,
                                      .q_step = attention_q_step(a),
                                      .v_from_k = a->v_from_k,
                                      .v_norm = a->v_norm,
                                      .q_norm = lw->q_norm,
                                      .k_norm = lw->k_norm,
                                      .eps = m->desc.norm_eps,
                                      .angles = m->angles[a->rope],
                                      .pairs = rope->pairs,
                                      .pair_offset = rope->pair_offset,
                                      .q_scale = a->q_scale,
                                      .q_growth = a->q_growth,
                                      .q_growth_tokens = a->q_growth_tokens,
                                      .group = attention_group(a),
                                      .q = m->q,
                                      .kv = owns_kv ? m->state[i] : NULL});
    trace(w, STAGE_Q, i, m->q, (int64_t)a->heads * a->head_dim);
    be->ops->attention(be, &(struct op_attention){.q = m->q,
                                                  .kv = m->state[a->shares_kv ? a->kv_layer : i],
                                                  .heads = a->heads,
                                                  .kv_heads = a->kv_heads,
                                                  .head_dim = a->head_dim,
                                                  .group = attention_group(a),
                                                  .window = a->window,
                                                  .softcap = a->softcap,
                                                  .sinks = lw->sinks,
                                                  .gate = a->gate ? m->wide + a->head_dim : NULL,
                                                  .gate_row = lw->in->rows,
                                                  .gate_step = attention_q_step(a),
                                                  .out = m->x});
    trace(w, STAGE_ATTENTION, i, m->x, lw->out->cols);
    tap(w, MODULE_O, MODULE_O, i, m->x, lw->out->cols);
}

static void delta_net(const struct walk *w, int i) {
    struct model *m = w->model;
    struct backend *be = m->be;
    const struct layer_weights *lw = &m->layer[i];
    const struct gdn_desc *g = &m->desc.layer[i].gdn;
    tap(w, g->grouped ? MODULE_GDN_QKVZ : MODULE_GDN_QKV, g->grouped ? MODULE_GDN_BA : MODULE_GDN_A,
        i, m->x, m->desc.hidden);
    linear(w, LINEAR_STORE, lw->in, m->x, m->wide);
    trace(w, STAGE_GDN_IN, i, m->wide, lw->in->rows);
    be->ops->gdn(be, &(struct op_gdn){.shape = g->shape,
                                      .in = m->wide,
                                      .conv = lw->gdn_conv,
                                      .decay = lw->gdn_decay,
                                      .dt_bias = lw->gdn_dt_bias,
                                      .norm = lw->gdn_norm,
                                      .eps = m->desc.norm_eps,
                                      .state = m->state[i],
                                      .out = m->x});
    trace(w, STAGE_GDN, i, m->x, lw->out->cols);
    tap(w, MODULE_GDN_OUT, MODULE_GDN_OUT, i, m->x, lw->out->cols);
}

static void mixer_block(const struct walk *w, int i) {
    struct model *m = w->model;
    const struct layer_weights *lw = &m->layer[i];
    norm(w, lw->input_norm);
    trace(w, STAGE_INPUT_NORM, i, m->x, m->desc.hidden);
    if (m->desc.layer[i].mixer == MIXER_GDN) {
        delta_net(w, i);
    } else {
        attention(w, i);
    }
    if (m->desc.post_norms) {
        linear(w, LINEAR_STORE, lw->out, m->x, m->branch);
        trace(w, STAGE_MIXER, i, m->branch, m->desc.hidden);
        post_norm(w, LINEAR_ADD, m->branch, lw->mixer_post_norm, 1.0f, m->h);
    } else {
        linear(w, LINEAR_ADD, lw->out, m->x, m->h);
    }
    trace(w, STAGE_H_MIXER, i, m->h, m->desc.hidden);
}

/* ---- ffn: norm(h) in x; the result is stored in or added to y ---- */

/* glu(x W^T) to m->gated; the product itself lies in m->wide where somebody looks at it. */
static void gated(const struct walk *w, enum stage product, int i, const struct matrix *matrix,
                  const struct op_glu *glu) {
    struct model *m = w->model;
    if (w->tap == NULL) {
        m->be->ops->linear_glu(m->be, &(struct op_linear_glu){matrix, m->x, m->wide, *glu});
        return;
    }
    linear(w, LINEAR_STORE, matrix, m->x, m->wide);
    trace(w, product, i, m->wide, matrix->rows);
    m->be->ops->glu(m->be, glu);
}

static void dense(const struct walk *w, int i, enum linear_mode mode, float *y) {
    struct model *m = w->model;
    const struct ffn_desc *f = &m->desc.layer[i].ffn;
    const struct layer_weights *lw = &m->layer[i];
    tap(w, MODULE_GATE, MODULE_UP, i, m->x, m->desc.hidden);
    gated(w, STAGE_GATE_UP, i, lw->gate_up,
          &(struct op_glu){.kind = f->kind,
                           .gate = m->wide,
                           .up = m->wide + f->width,
                           .gate_row = 2 * f->width,
                           .up_row = 2 * f->width,
                           .step = 1,
                           .cols = f->width,
                           .out = m->gated});
    trace(w, STAGE_GLU, i, m->gated, f->width);
    tap(w, MODULE_DOWN, MODULE_DOWN, i, m->gated, f->width);
    linear(w, mode, lw->down, m->gated, y);
}

static void experts(const struct walk *w, int i, enum linear_mode mode, float *y) {
    struct model *m = w->model;
    const struct moe_desc *moe = &m->desc.layer[i].moe;
    const struct layer_weights *lw = &m->layer[i];
    void *inner = w->tap ? w->tap->inner : NULL;
    tap(w, MODULE_EXPERTS, MODULE_EXPERTS, i, m->x, m->desc.hidden);
    m->be->ops->moe(m->be, &(struct op_moe){.mode = mode,
                                            .experts = lw->experts,
                                            .x = m->x,
                                            .expert = m->expert,
                                            .weight = m->expert_weight,
                                            .top_k = moe->top_k,
                                            .kind = moe->kind,
                                            .limit = moe->limit,
                                            .interleaved = lw->interleaved,
                                            .y = y,
                                            .inner = inner});
    trace(w, STAGE_EXPERTS, i, y, m->desc.hidden);
    if (inner)
        tap_rows(w, MODULE_EXPERTS_DOWN, MODULE_EXPERTS_DOWN, i, inner, w->batch->rows * moe->top_k,
                 moe->width);
}

/* The expert that every token takes, added to y. */
static void shared_expert(const struct walk *w, int i, float *y) {
    struct model *m = w->model;
    const struct moe_desc *moe = &m->desc.layer[i].moe;
    const struct layer_weights *lw = &m->layer[i];
    const int64_t width = moe->shared_width, row = lw->shared_gate_up->rows;
    tap(w, MODULE_SHARED_GATE, moe->shared_gate ? MODULE_SHARED_EXPERT_GATE : MODULE_SHARED_UP, i,
        m->x, m->desc.hidden);
    gated(w, STAGE_SHARED_GATE_UP, i, lw->shared_gate_up,
          &(struct op_glu){.kind = moe->kind,
                           .limit = moe->limit,
                           .gate = m->wide,
                           .up = m->wide + width,
                           .gate_row = row,
                           .up_row = row,
                           .step = 1,
                           .row_gate = moe->shared_gate ? m->wide + 2 * width : NULL,
                           .cols = width,
                           .out = m->gated});
    trace(w, STAGE_SHARED_GLU, i, m->gated, width);
    tap(w, MODULE_SHARED_DOWN, MODULE_SHARED_DOWN, i, m->gated, width);
    linear(w, LINEAR_ADD, lw->shared_down, m->gated, y);
}

static void route(const struct walk *w, int i) {
    struct model *m = w->model;
    const struct moe_desc *moe = &m->desc.layer[i].moe;
    const struct layer_weights *lw = &m->layer[i];
    m->be->ops->route(m->be,
                      &(struct op_route){.h = m->h,
                                         .norm = moe->router_norm ? lw->router_norm : lw->ffn_norm,
                                         .eps = m->desc.norm_eps,
                                         .cols = m->desc.hidden,
                                         .router = lw->router,
                                         .bias = lw->router_bias,
                                         .expert_scale = lw->expert_scale,
                                         .experts = moe->experts,
                                         .top_k = moe->top_k,
                                         .renormalize = moe->renormalize,
                                         .expert = m->expert,
                                         .weight = m->expert_weight});
    trace(w, STAGE_EXPERT_IDS, i, m->expert, moe->top_k);
    trace(w, STAGE_EXPERT_WEIGHTS, i, m->expert_weight, moe->top_k);
}

/* Dense ffn and experts side by side: each has its norms, and h waits for both. The sum is in
 * m->sum. */
static void parallel_ffn(const struct walk *w, int i) {
    struct model *m = w->model;
    const struct layer_weights *lw = &m->layer[i];
    dense(w, i, LINEAR_STORE, m->branch);
    trace(w, STAGE_DENSE, i, m->branch, m->desc.hidden);
    post_norm(w, LINEAR_STORE, m->branch, lw->dense_post_norm, 1.0f, m->sum);
    norm(w, lw->moe_norm);
    trace(w, STAGE_MOE_NORM, i, m->x, m->desc.hidden);
    experts(w, i, LINEAR_STORE, m->branch);
    post_norm(w, LINEAR_ADD, m->branch, lw->moe_post_norm, 1.0f, m->sum);
}

static void ffn_block(const struct walk *w, int i) {
    struct model *m = w->model;
    const struct layer_desc *layer = &m->desc.layer[i];
    const struct layer_weights *lw = &m->layer[i];
    const enum linear_mode mode = m->desc.post_norms ? LINEAR_STORE : LINEAR_ADD;
    float *y = m->desc.post_norms ? m->sum : m->h;
    if (layer->moe.experts) route(w, i);
    norm(w, lw->ffn_norm);
    trace(w, STAGE_FFN_NORM, i, m->x, m->desc.hidden);
    if (layer->ffn.width && layer->moe.experts) {
        parallel_ffn(w, i);
    } else if (layer->moe.experts) {
        experts(w, i, mode, y);
        if (layer->moe.shared_width) shared_expert(w, i, y);
    } else {
        dense(w, i, mode, y);
    }
    const float scale = m->desc.ple_width ? 1.0f : lw->scale;
    if (m->desc.post_norms) {
        trace(w, STAGE_FFN, i, m->sum, m->desc.hidden);
        post_norm(w, LINEAR_ADD, m->sum, lw->ffn_post_norm, scale, m->h);
    }
    trace(w, STAGE_H_FFN, i, m->h, m->desc.hidden);
}

/* ---- per-layer embeddings ---- */

/* All layers' rows for the step: (embedding of the token + norm of a projection of h) / sqrt 2 */
static void make_ple(const struct walk *w) {
    struct model *m = w->model;
    struct backend *be = m->be;
    be->ops->embed(be, &(struct op_embed){m->ple_embedding, m->desc.ple_scale, m->ple});
    be->ops->convert(be, &(struct op_convert){m->h, m->desc.hidden, m->x});
    linear(w, LINEAR_STORE, m->ple_model, m->x, m->wide);
    be->ops->post_norm(be, &(struct op_post_norm){.mode = LINEAR_ADD,
                                                  .x = m->wide,
                                                  .weight = m->ple_model_norm,
                                                  .eps = m->desc.norm_eps,
                                                  .scale = (float)sqrt(0.5),
                                                  .groups = m->desc.layers,
                                                  .cols = m->desc.ple_width,
                                                  .y = m->ple});
    trace(w, STAGE_PLE, -1, m->ple, m->desc.layers * m->desc.ple_width);
}

static void ple_block(const struct walk *w, int i) {
    struct model *m = w->model;
    struct backend *be = m->be;
    const struct layer_weights *lw = &m->layer[i];
    const int64_t width = m->desc.ple_width;
    be->ops->convert(be, &(struct op_convert){m->h, m->desc.hidden, m->x});
    tap(w, MODULE_PLE_GATE, MODULE_PLE_GATE, i, m->x, m->desc.hidden);
    linear(w, LINEAR_STORE, lw->ple_gate, m->x, m->wide);
    trace(w, STAGE_PLE_GATE, i, m->wide, width);
    be->ops->glu(be, &(struct op_glu){.kind = GLU_GELU_TANH,
                                      .gate = m->wide,
                                      .up = m->ple + i * width,
                                      .gate_row = width,
                                      .up_row = m->desc.layers * width,
                                      .step = 1,
                                      .cols = width,
                                      .out = m->x});
    trace(w, STAGE_PLE_GLU, i, m->x, width);
    tap(w, MODULE_PLE_PROJ, MODULE_PLE_PROJ, i, m->x, width);
    linear(w, LINEAR_STORE, lw->ple_proj, m->x, m->branch);
    trace(w, STAGE_PLE_OUT, i, m->branch, m->desc.hidden);
    post_norm(w, LINEAR_ADD, m->branch, lw->ple_norm, lw->scale, m->h);
    trace(w, STAGE_H_PLE, i, m->h, m->desc.hidden);
}

/* ---- the step ---- */

static void logits(const struct walk *w) {
    struct model *m = w->model;
    struct backend *be = m->be;
    be->ops->norm(be, &(struct op_norm){ROWS_OUT, m->h, m->final_norm, m->desc.norm_eps,
                                        m->desc.hidden, m->x});
    trace(w, STAGE_FINAL_NORM, -1, m->x, m->desc.hidden);
    be->ops->linear(be, &(struct op_linear){ROWS_OUT, LINEAR_STORE, m->head, m->x, m->logits});
    if (m->desc.logit_softcap > 0)
        be->ops->softcap(be, &(struct op_softcap){m->logits, m->desc.vocab, m->desc.logit_softcap});
    trace(w, STAGE_LOGITS, -1, m->logits, m->desc.vocab);
}

void model_queue(struct model *model, const struct batch *batch, const struct model_tap *taps) {
    check(batch->rows >= 1 && batch->rows <= model->limits.rows);
    check(batch->out_rows <= model->limits.out_rows && batch->seqs <= model->limits.seqs);
    check(batch->max_blocks <= model->limits.max_blocks);
    struct backend *be = model->be;
    const struct walk w = {model, batch, taps};
    be->ops->step_begin(be, batch);
    be->ops->embed(be, &(struct op_embed){model->embedding, model->desc.embed_scale, model->h});
    trace(&w, STAGE_EMBEDDING, -1, model->h, model->desc.hidden);
    if (model->desc.ple_width) make_ple(&w);
    for (int i = 0; i < model->desc.rope_count; i++) {
        const struct rope_desc *rope = &model->desc.ropes[i];
        be->ops->rope_angles(be, &(struct op_rope_angles){model->frequency[i], rope->pairs,
                                                          rope->amplitude, model->angles[i]});
    }
    for (int i = 0; i < model->desc.layers; i++) {
        mixer_block(&w, i);
        ffn_block(&w, i);
        if (model->desc.ple_width) ple_block(&w, i);
    }
    if (batch->out_rows > 0) logits(&w);
}

int model_forward(struct model *model, const struct batch *batch, const struct model_tap *taps,
                  struct imp_error *err) {
    model_queue(model, batch, taps);
    return model->be->ops->step_end(model->be, err);
}
