#include "model/tensors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

struct walk {
    const struct model_desc *desc;
    enum expert_form form;
    model_tensor_fn visit;
    void *ctx;
    int layer;
};

enum { NAME_ROOM = 192 };

static struct model_tensor tensor_of(const struct walk *w, enum module module,
                                     enum tensor_kind kind, int dims, const int64_t *shape) {
    struct model_tensor t = {
        .kind = kind, .module = module, .layer = w->layer, .dims = dims, .expert = -1};
    memcpy(t.shape, shape, (size_t)dims * sizeof *shape);
    return t;
}

static void visit(const struct walk *w, enum module module, const char *name, enum tensor_kind kind,
                  int64_t inputs, int dims, const int64_t *shape) {
    struct model_tensor t = tensor_of(w, module, kind, dims, shape);
    t.name = name;
    t.inputs = inputs;
    w->visit(w->ctx, &t);
}

static void visit_expert(const struct walk *w, const char *name, enum tensor_kind kind, int expert,
                         enum expert_part part, int64_t inputs, int dims, const int64_t *shape) {
    struct model_tensor t = tensor_of(w, MODULE_EXPERTS, kind, dims, shape);
    t.name = name;
    t.inputs = inputs;
    t.expert = expert;
    t.part = part;
    w->visit(w->ctx, &t);
}

static void vector(const struct walk *w, enum module module, enum tensor_kind kind, int64_t count) {
    char name[128];
    module_name(w->desc, module, w->layer, name);
    visit(w, module, name, kind, 0, 1, &count);
}

/* A linear of the layer and, if it has one, its bias. */
static void linear(const struct walk *w, enum module module, enum tensor_kind kind, int64_t rows,
                   int64_t cols, bool bias) {
    char module_path[128], name[NAME_ROOM];
    const int64_t shape[] = {rows, cols};
    module_name(w->desc, module, w->layer, module_path);
    snprintf(name, sizeof name, "%s.weight", module_path);
    visit(w, module, name, kind, cols, 2, shape);
    if (!bias) return;
    snprintf(name, sizeof name, "%s.bias", module_path);
    visit(w, module, name, TENSOR_BIAS, 0, 1, &rows);
}

static void visit_attention(const struct walk *w, const struct attention_desc *a) {
    const int64_t hidden = w->desc->hidden, q = (int64_t)a->heads * a->head_dim;
    const int64_t kv = (int64_t)a->kv_heads * a->head_dim;
    linear(w, MODULE_Q, TENSOR_LINEAR, (int64_t)a->heads * attention_q_step(a), hidden,
           a->qkv_bias);
    if (a->qk_norm) vector(w, MODULE_Q_NORM, TENSOR_NORM, a->head_dim);
    if (!a->shares_kv) {
        linear(w, MODULE_K, TENSOR_LINEAR, kv, hidden, a->qkv_bias);
        if (a->qk_norm) vector(w, MODULE_K_NORM, TENSOR_NORM, a->head_dim);
        if (!a->v_from_k) linear(w, MODULE_V, TENSOR_LINEAR, kv, hidden, a->qkv_bias);
    }
    if (a->sinks) vector(w, MODULE_SINKS, TENSOR_SINKS, a->heads);
    linear(w, MODULE_O, TENSOR_RESIDUAL, hidden, q, a->out_bias);
}

static void visit_gdn(const struct walk *w, const struct gdn_desc *g) {
    const struct gdn_shape *s = &g->shape;
    const int64_t hidden = w->desc->hidden, values = (int64_t)s->value_heads * s->value_dim;
    const int64_t conv[] = {gdn_channels(s), 1, GDN_CONV};
    char name[128];
    if (g->grouped) {
        linear(w, MODULE_GDN_QKVZ, TENSOR_LINEAR, gdn_channels(s) + values, hidden, false);
        linear(w, MODULE_GDN_BA, TENSOR_LINEAR, 2 * (int64_t)s->value_heads, hidden, false);
    } else {
        linear(w, MODULE_GDN_QKV, TENSOR_LINEAR, gdn_channels(s), hidden, false);
        linear(w, MODULE_GDN_Z, TENSOR_LINEAR, values, hidden, false);
        linear(w, MODULE_GDN_B, TENSOR_LINEAR, s->value_heads, hidden, false);
        linear(w, MODULE_GDN_A, TENSOR_LINEAR, s->value_heads, hidden, false);
    }
    module_name(w->desc, MODULE_GDN_CONV, w->layer, name);
    visit(w, MODULE_GDN_CONV, name, TENSOR_CONV, GDN_CONV, 3, conv);
    vector(w, MODULE_GDN_DT_BIAS, TENSOR_DT_BIAS, s->value_heads);
    vector(w, MODULE_GDN_A_LOG, TENSOR_A_LOG, s->value_heads);
    vector(w, MODULE_GDN_NORM, TENSOR_PLAIN_NORM, s->value_dim);
    linear(w, MODULE_GDN_OUT, TENSOR_RESIDUAL, hidden, values, false);
}

/* ---- experts ---- */

static void one_expert(const struct walk *w, const struct moe_desc *m, const char *module,
                       int expert) {
    static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
    const int64_t hidden = w->desc->hidden;
    char name[NAME_ROOM];
    for (int i = 0; i < 3; i++) {
        const bool down = i == 2;
        const int64_t shape[] = {down ? hidden : m->width, down ? m->width : hidden};
        snprintf(name, sizeof name, "%s.%d.%s.weight", module, expert, names[i]);
        visit_expert(w, name, down ? TENSOR_RESIDUAL : TENSOR_LINEAR, expert, (enum expert_part)i,
                     shape[1], 2, shape);
        if (m->layout != EXPERTS_GPT_OSS) continue;
        snprintf(name, sizeof name, "%s.%d.%s.bias", module, expert, names[i]);
        visit_expert(w, name, TENSOR_BIAS, expert, (enum expert_part)i, 0, 1, shape);
    }
}

/* gpt-oss's own stacks lie transposed in BF16; in MXFP4 they do not, and rows come in blocks. */
static void expert_stack(const struct walk *w, const struct moe_desc *m, const char *module,
                         bool down) {
    const int64_t rows = down ? w->desc->hidden : 2 * m->width;
    const int64_t cols = down ? m->width : w->desc->hidden;
    const bool turned = m->layout == EXPERTS_GPT_OSS;
    const int64_t plain[] = {m->experts, turned ? cols : rows, turned ? rows : cols};
    const int64_t blocks[] = {m->experts, rows, cols / 32, 16};
    const enum tensor_kind kind = down ? TENSOR_RESIDUAL : TENSOR_LINEAR;
    const enum expert_part part = down ? EXPERT_DOWN : EXPERT_GATE_UP;
    char stack[160], name[NAME_ROOM];
    snprintf(stack, sizeof stack, "%s.%s", module, down ? "down_proj" : "gate_up_proj");
    if (w->form == EXPERT_MXFP4) {
        snprintf(name, sizeof name, "%s_blocks", stack);
        visit_expert(w, name, TENSOR_CODES, -1, part, cols, 4, blocks);
        snprintf(name, sizeof name, "%s_scales", stack);
        visit_expert(w, name, TENSOR_SCALES, -1, part, cols, 3, blocks);
    } else {
        visit_expert(w, stack, kind, -1, part, cols, 3, plain);
    }
    if (m->layout != EXPERTS_GPT_OSS) return;
    snprintf(name, sizeof name, "%s_bias", stack);
    visit_expert(w, name, TENSOR_BIAS, -1, part, 0, 2, (const int64_t[]){m->experts, rows});
}

static void visit_moe(const struct walk *w, const struct moe_desc *m) {
    const int64_t hidden = w->desc->hidden;
    char module[128];
    linear(w, MODULE_ROUTER, TENSOR_ROUTER, m->experts, hidden, m->router_bias);
    if (m->router_norm) vector(w, MODULE_ROUTER_SCALE, TENSOR_ROUTER_SCALE, hidden);
    if (m->expert_scale) vector(w, MODULE_EXPERT_SCALE, TENSOR_FACTOR, m->experts);
    module_name(w->desc, MODULE_EXPERTS, w->layer, module);
    if (w->form == EXPERT_MXFP4 || (w->form == EXPERT_AS_SAVED && m->stacked)) {
        expert_stack(w, m, module, false);
        expert_stack(w, m, module, true);
    } else {
        for (int e = 0; e < m->experts; e++) one_expert(w, m, module, e);
    }
    if (m->shared_width == 0) return;
    linear(w, MODULE_SHARED_GATE, TENSOR_LINEAR, m->shared_width, hidden, false);
    linear(w, MODULE_SHARED_UP, TENSOR_LINEAR, m->shared_width, hidden, false);
    linear(w, MODULE_SHARED_DOWN, TENSOR_RESIDUAL, hidden, m->shared_width, false);
    if (m->shared_gate) linear(w, MODULE_SHARED_EXPERT_GATE, TENSOR_LINEAR, 1, hidden, false);
}

/* ---- the whole ---- */

static void visit_norms(const struct walk *w, const struct layer_desc *layer) {
    const int64_t hidden = w->desc->hidden;
    vector(w, MODULE_INPUT_NORM, TENSOR_NORM, hidden);
    vector(w, MODULE_FFN_NORM, TENSOR_NORM, hidden);
    if (w->desc->post_norms) {
        vector(w, MODULE_MIXER_POST_NORM, TENSOR_NORM, hidden);
        vector(w, MODULE_FFN_POST_NORM, TENSOR_NORM, hidden);
    }
    if (layer->ffn.width == 0 || layer->moe.experts == 0) return;
    vector(w, MODULE_DENSE_POST_NORM, TENSOR_NORM, hidden);
    vector(w, MODULE_MOE_NORM, TENSOR_NORM, hidden);
    vector(w, MODULE_MOE_POST_NORM, TENSOR_NORM, hidden);
}

static void visit_layer(const struct walk *w) {
    const struct model_desc *desc = w->desc;
    const struct layer_desc *layer = &desc->layer[w->layer];
    const struct ffn_desc *f = &layer->ffn;
    visit_norms(w, layer);
    if (layer->mixer == MIXER_GDN) {
        visit_gdn(w, &layer->gdn);
    } else {
        visit_attention(w, &layer->attention);
    }
    if (f->width) {
        linear(w, MODULE_GATE, TENSOR_LINEAR, f->width, desc->hidden, f->bias);
        linear(w, MODULE_UP, TENSOR_LINEAR, f->width, desc->hidden, f->bias);
        linear(w, MODULE_DOWN, TENSOR_RESIDUAL, desc->hidden, f->width, f->bias);
    }
    if (layer->moe.experts) visit_moe(w, &layer->moe);
    if (desc->ple_width) {
        linear(w, MODULE_PLE_GATE, TENSOR_LINEAR, desc->ple_width, desc->hidden, false);
        linear(w, MODULE_PLE_PROJ, TENSOR_RESIDUAL, desc->hidden, desc->ple_width, false);
        vector(w, MODULE_PLE_NORM, TENSOR_NORM, desc->hidden);
    }
    if (desc->layer_scale) vector(w, MODULE_LAYER_SCALE, TENSOR_FACTOR, 1);
}

void model_desc_tensors(const struct model_desc *desc, enum expert_form form, model_tensor_fn fn,
                        void *ctx) {
    struct walk w = {.desc = desc, .form = form, .visit = fn, .ctx = ctx, .layer = -1};
    const int64_t table[] = {desc->vocab, desc->hidden}, cols = desc->layers * desc->ple_width;
    const int64_t ple_table[] = {desc->ple_vocab, cols}, ple_model[] = {cols, desc->hidden};
    visit(&w, MODULE_COUNT, "model.embed_tokens.weight", TENSOR_EMBEDDING, desc->hidden, 2, table);
    if (desc->ple_width) {
        visit(&w, MODULE_COUNT, "model.embed_tokens_per_layer.weight", TENSOR_LAYER_EMBEDDING, cols,
              2, ple_table);
        visit(&w, MODULE_COUNT, "model.per_layer_model_projection.weight", TENSOR_LINEAR,
              desc->hidden, 2, ple_model);
        visit(&w, MODULE_COUNT, "model.per_layer_projection_norm.weight", TENSOR_NORM, 0, 1,
              &desc->ple_width);
    }
    for (w.layer = 0; w.layer < desc->layers; w.layer++) visit_layer(&w);
    w.layer = -1;
    visit(&w, MODULE_COUNT, "model.norm.weight", TENSOR_NORM, 0, 1, &desc->hidden);
    if (!desc->tied_head)
        visit(&w, MODULE_COUNT, "lm_head.weight", TENSOR_HEAD, desc->hidden, 2, table);
}

static void add_numbers(void *ctx, const struct model_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->dims; i++) n *= t->shape[i];
    *(int64_t *)ctx += n;
}

int64_t model_desc_parameters(const struct model_desc *desc) {
    int64_t total = 0;
    model_desc_tensors(desc, EXPERT_AS_SAVED, add_numbers, &total);
    return total;
}
