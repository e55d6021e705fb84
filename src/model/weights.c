/* Binding a checkpoint's tensors to a description, and uploading them. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "model/families/families.h"
#include "model/model.h"

struct binder {
    struct model *model;
    struct checkpoint *ck;
    struct imp_error *err;
    int rc; /* first error; later calls do nothing */
};

static float *bind_vector(struct binder *b, const char *name, int64_t count, float offset) {
    const float *host;
    if (b->rc < 0) return NULL;
    if ((b->rc = checkpoint_vector(b->ck, name, count, &host, b->err)) < 0) return NULL;
    float *shifted = mem_alloc((size_t)count * sizeof *shifted), *device = NULL;
    for (int64_t i = 0; i < count; i++) shifted[i] = host[i] + offset;
    struct backend *be = b->model->be;
    b->rc = be->ops->alloc(be, (size_t)count * sizeof *shifted, (void **)&device, b->err);
    if (b->rc == 0) {
        be->ops->write(be, device, shifted, (size_t)count * sizeof *shifted);
        b->model->weight_bytes += (size_t)count * sizeof *shifted;
    }
    free(shifted);
    return device;
}

static float *bind_norm(struct binder *b, enum module module, int layer, int64_t count) {
    char name[128];
    module_name(module, layer, name);
    strcat(name, ".weight");
    return bind_vector(b, name, count, b->model->desc.norm_offset);
}

struct part {
    enum module module;
    int64_t rows;
    bool bias;
};

/* Up to three linears on one input as one matrix. */
static struct matrix *bind_matrix(struct binder *b, int layer, const struct part *parts, int count,
                                  int64_t cols) {
    struct weight weights[3];
    const float *bias[3] = {0};
    struct matrix *matrix = NULL;
    for (int i = 0; i < count && b->rc == 0; i++) {
        char name[128];
        module_name(parts[i].module, layer, name);
        b->rc = checkpoint_weight(b->ck, name, parts[i].rows, cols, &weights[i], b->err);
        if (b->rc < 0 || !parts[i].bias) continue;
        strcat(name, ".bias");
        b->rc = checkpoint_vector(b->ck, name, parts[i].rows, &bias[i], b->err);
    }
    if (b->rc < 0) return NULL;
    struct backend *be = b->model->be;
    b->rc = be->ops->matrix_create(be, weights, count, bias, &matrix, b->err);
    if (b->rc < 0) return NULL;
    b->model->weight_bytes += matrix->bytes;
    b->model->bytes_per_step += matrix->bytes;
    return matrix;
}

static void bind_layer(struct binder *b, int i) {
    const struct model_desc *desc = &b->model->desc;
    const struct attention_desc *a = &desc->layer[i].attention;
    const struct ffn_desc *f = &desc->layer[i].ffn;
    const int64_t q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim;
    struct layer_weights *w = &b->model->layer[i];
    const struct part qkv[] = {
        {MODULE_Q, q, a->qkv_bias}, {MODULE_K, kv, a->qkv_bias}, {MODULE_V, kv, a->qkv_bias}};
    const struct part out[] = {{MODULE_O, desc->hidden, a->out_bias}};
    const struct part gate_up[] = {{MODULE_GATE, f->width, f->bias},
                                   {MODULE_UP, f->width, f->bias}};
    const struct part down[] = {{MODULE_DOWN, desc->hidden, f->bias}};
    w->input_norm = bind_norm(b, MODULE_INPUT_NORM, i, desc->hidden);
    w->post_norm = bind_norm(b, MODULE_POST_NORM, i, desc->hidden);
    if (a->qk_norm) {
        w->q_norm = bind_norm(b, MODULE_Q_NORM, i, a->head_dim);
        w->k_norm = bind_norm(b, MODULE_K_NORM, i, a->head_dim);
    }
    w->qkv = bind_matrix(b, i, qkv, 3, desc->hidden);
    w->out = bind_matrix(b, i, out, 1, q);
    w->gate_up = bind_matrix(b, i, gate_up, 2, desc->hidden);
    w->down = bind_matrix(b, i, down, 1, f->width);
}

/* The head is lm_head where the file has one, whatever tie_word_embeddings says; without one the
 * model must be tied. */
static void bind_ends(struct binder *b) {
    struct model *model = b->model;
    struct backend *be = model->be;
    struct weight embedding, head;
    if (b->rc < 0) return;
    b->rc = checkpoint_weight(b->ck, "model.embed_tokens", model->desc.vocab, model->desc.hidden,
                              &embedding, b->err);
    if (b->rc < 0) return;
    head = embedding;
    if (!model->desc.tied_head) {
        b->rc = checkpoint_weight(b->ck, "lm_head", model->desc.vocab, model->desc.hidden, &head,
                                  b->err);
        if (b->rc < 0) return;
    }
    if ((b->rc = be->ops->table_create(be, &embedding, &model->embedding, b->err)) < 0) return;
    if ((b->rc = be->ops->matrix_create(be, &head, 1, NULL, &model->head, b->err)) < 0) return;
    model->weight_bytes += model->embedding->bytes + model->head->bytes;
    model->bytes_per_step += model->head->bytes;
    model->final_norm =
        bind_vector(b, "model.norm.weight", model->desc.hidden, model->desc.norm_offset);
}

static void bind_ropes(struct binder *b) {
    struct backend *be = b->model->be;
    for (int i = 0; i < b->model->desc.rope_count && b->rc == 0; i++) {
        const struct rope_desc *rope = &b->model->desc.ropes[i];
        size_t bytes = (size_t)rope->pairs * sizeof *rope->frequency;
        b->rc = be->ops->alloc(be, bytes, (void **)&b->model->frequency[i], b->err);
        if (b->rc == 0) be->ops->write(be, b->model->frequency[i], rope->frequency, bytes);
    }
}

int model_describe(const struct config *config, struct arena *arena, struct model_desc *out,
                   struct imp_error *err) {
    return model_desc_make(config, arena, out, err);
}

int model_open(struct checkpoint *ck, struct backend *be, imp_progress_fn progress,
               void *progress_ctx, struct model *out, struct imp_error *err) {
    *out = (struct model){.be = be};
    int rc = model_describe(&ck->config, &out->arena, &out->desc, err);
    if (rc < 0) goto fail;
    if (!out->desc.tied_head && !checkpoint_has(ck, "lm_head")) out->desc.tied_head = true;
    out->layer = mem_zero((size_t)out->desc.layers, sizeof *out->layer);
    struct binder b = {out, ck, err, 0};
    for (int i = 0; i < out->desc.layers && b.rc == 0; i++) {
        if (progress && progress(progress_ctx, "loading weights", (uint64_t)i,
                                 (uint64_t)out->desc.layers, "layers") != 0)
            b.rc = error_set(err, IMP_ERR_CANCELLED, ck->path, "loading was cancelled");
        if (b.rc == 0) bind_layer(&b, i);
    }
    bind_ends(&b);
    bind_ropes(&b);
    rc = b.rc;
    if (rc < 0) goto fail;
    return 0;
fail:
    model_close(out);
    return rc;
}

static void release_layer(struct backend *be, struct layer_weights *w) {
    be->ops->free(be, w->input_norm);
    be->ops->free(be, w->post_norm);
    be->ops->free(be, w->q_norm);
    be->ops->free(be, w->k_norm);
    be->ops->matrix_free(be, w->qkv);
    be->ops->matrix_free(be, w->out);
    be->ops->matrix_free(be, w->gate_up);
    be->ops->matrix_free(be, w->down);
}

void model_close(struct model *model) {
    struct backend *be = model->be;
    if (be == NULL) return;
    for (int i = 0; i < model->desc.layers && model->layer; i++)
        release_layer(be, &model->layer[i]);
    for (int i = 0; i < model->desc.layers && model->kv; i++) be->ops->free(be, model->kv[i]);
    free(model->layer);
    free(model->kv);
    for (int i = 0; i < MODEL_MAX_ROPES; i++) {
        be->ops->free(be, model->frequency[i]);
        be->ops->free(be, model->angles[i]);
    }
    be->ops->table_free(be, model->embedding);
    be->ops->matrix_free(be, model->head);
    be->ops->free(be, model->final_norm);
    be->ops->free(be, model->h);
    be->ops->free(be, model->x);
    be->ops->free(be, model->q);
    be->ops->free(be, model->wide);
    be->ops->free(be, model->logits);
    arena_free(&model->arena);
    *model = (struct model){0};
}
