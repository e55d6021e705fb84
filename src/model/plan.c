/* Sizes and allocation of everything that a step writes. */
#include "base/error.h"
#include "base/str.h"
#include "model/model.h"

static int64_t widest_output(const struct model_desc *desc) {
    int64_t widest = desc->layers * desc->ple_width;
    for (int i = 0; i < desc->layers; i++) {
        const struct layer_desc *layer = &desc->layer[i];
        widest = max64(widest, layer->mixer == MIXER_GDN ? gdn_row(&layer->gdn.shape)
                                                         : attention_row(&layer->attention));
        widest = max64(widest, 2 * layer->ffn.width);
        widest = max64(widest, 2 * layer->moe.shared_width + 1);
    }
    return widest;
}

int64_t model_stage_max_cols(const struct model_desc *desc) {
    return max64(max64(model_desc_max_cols(desc), widest_output(desc)),
                 max64(desc->vocab, MOE_MAX_TOP_K));
}

static int64_t query_cols(const struct model_desc *desc) {
    int64_t cols = 2;
    for (int i = 0; i < desc->layers; i++) {
        const struct attention_desc *a = &desc->layer[i].attention;
        cols = max64(cols, (int64_t)a->heads * a->head_dim);
    }
    return cols;
}

static int64_t gated_cols(const struct model_desc *desc) {
    int64_t cols = desc->ple_width;
    for (int i = 0; i < desc->layers; i++)
        cols = max64(cols, max64(desc->layer[i].ffn.width, desc->layer[i].moe.shared_width));
    return cols;
}

/* One buffer of the step: where its pointer stands in struct model, and its size. */
struct buffer {
    void **at;
    size_t bytes;
};
enum { MAX_BUFFERS = 11 + MODEL_MAX_ROPES };

static int list_buffers(struct model *m, const struct model_desc *desc, struct backend *be,
                        const struct step_limits *limits, struct buffer out[MAX_BUFFERS]) {
    const size_t rows = (size_t)limits->rows, row = rows * sizeof(float);
    const size_t hidden = row * (size_t)desc->hidden, top_k = row * (size_t)limits->moe_top_k;
    int n = 0;
    out[n++] = (struct buffer){(void **)&m->h, hidden};
    out[n++] = (struct buffer){&m->x, rows * be->ops->act_bytes(be, model_desc_max_cols(desc))};
    out[n++] = (struct buffer){&m->q, rows * be->ops->act_bytes(be, query_cols(desc))};
    if (gated_cols(desc))
        out[n++] = (struct buffer){&m->gated, rows * be->ops->act_bytes(be, gated_cols(desc))};
    out[n++] = (struct buffer){(void **)&m->wide, row * (size_t)widest_output(desc)};
    out[n++] = (struct buffer){(void **)&m->logits,
                               (size_t)limits->out_rows * (size_t)desc->vocab * sizeof(float)};
    if (desc->post_norms) {
        out[n++] = (struct buffer){(void **)&m->branch, hidden};
        out[n++] = (struct buffer){(void **)&m->sum, hidden};
    }
    if (desc->ple_width)
        out[n++] =
            (struct buffer){(void **)&m->ple, row * (size_t)(desc->layers * desc->ple_width)};
    if (top_k) {
        out[n++] = (struct buffer){(void **)&m->expert, top_k};
        out[n++] = (struct buffer){(void **)&m->expert_weight, top_k};
    }
    for (int i = 0; i < desc->rope_count; i++)
        out[n++] = (struct buffer){(void **)&m->angles[i], row * (size_t)desc->ropes[i].pairs * 2};
    return n;
}

size_t model_activation_bytes(const struct model_desc *desc, struct backend *be,
                              const struct step_limits *limits) {
    struct model nobody = {0};
    struct buffer buffers[MAX_BUFFERS];
    int count = list_buffers(&nobody, desc, be, limits, buffers);
    size_t total = 0;
    for (int i = 0; i < count; i++) total += buffers[i].bytes;
    return total;
}

/* Of one layer: its KV block or its slot, and which of the two. */
static size_t layer_kv_bytes(const struct model_desc *desc, struct backend *be, int i) {
    const struct attention_desc *a = &desc->layer[i].attention;
    if (desc->layer[i].mixer != MIXER_ATTENTION || a->shares_kv) return 0;
    return be->ops->kv_block_bytes(be, a->kv_heads, a->head_dim);
}
static size_t layer_slot_bytes(const struct model_desc *desc, struct backend *be, int i) {
    if (desc->layer[i].mixer != MIXER_GDN) return 0;
    return be->ops->gdn_state_bytes(be, &desc->layer[i].gdn.shape);
}

size_t model_kv_block_bytes(const struct model_desc *desc, struct backend *be,
                            enum kv_group group) {
    size_t total = 0;
    for (int i = 0; i < desc->layers; i++) {
        if (attention_group(&desc->layer[i].attention) == group)
            total += layer_kv_bytes(desc, be, i);
    }
    return total;
}

size_t model_slot_bytes(const struct model_desc *desc, struct backend *be) {
    size_t total = 0;
    for (int i = 0; i < desc->layers; i++) total += layer_slot_bytes(desc, be, i);
    return total;
}

int model_reserve(struct model *model, const struct step_limits *limits,
                  const struct model_memory *memory, struct imp_error *err) {
    struct backend *be = model->be;
    const struct model_desc *desc = &model->desc;
    struct buffer buffers[MAX_BUFFERS];
    const int count = list_buffers(model, desc, be, limits, buffers);
    int rc = be->ops->reserve(be, limits, err);
    model->limits = *limits;
    for (int i = 0; i < count && rc == 0; i++)
        rc = be->ops->alloc(be, buffers[i].bytes, buffers[i].at, err);
    model->state = mem_zero((size_t)desc->layers, sizeof *model->state);
    for (int i = 0; i < desc->layers && rc == 0; i++) {
        size_t bytes = layer_slot_bytes(desc, be, i) * (size_t)memory->slots;
        if (bytes == 0)
            bytes = layer_kv_bytes(desc, be, i) *
                    (size_t)memory->blocks[attention_group(&desc->layer[i].attention)];
        if (bytes > 0) rc = be->ops->alloc(be, bytes, &model->state[i], err);
    }
    return rc;
}
