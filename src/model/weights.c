/* Opening a model: what lies outside its layers, and the order of binding. */
#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/str.h"
#include "model/binder.h"
#include "model/families/families.h"

float *binder_upload(struct binder *b, const float *host, int64_t count) {
    struct backend *be = b->model->be;
    const size_t bytes = (size_t)count * sizeof *host;
    float *device = NULL;
    if (b->rc < 0 || (b->rc = be->ops->alloc(be, bytes, (void **)&device, b->err)) < 0) return NULL;
    be->ops->write(be, device, host, bytes);
    b->model->weight_bytes += bytes;
    return device;
}

float *binder_vector(struct binder *b, const char *name, int64_t count, float offset) {
    const float *host;
    if (b->rc < 0) return NULL;
    if ((b->rc = checkpoint_vector(b->ck, name, count, &host, b->err)) < 0) return NULL;
    float *shifted = mem_alloc((size_t)count * sizeof *shifted);
    for (int64_t i = 0; i < count; i++) shifted[i] = host[i] + offset;
    float *device = binder_upload(b, shifted, count);
    free(shifted);
    return device;
}

struct matrix *binder_matrix(struct binder *b, const struct weight *parts, int count,
                             const float *const *bias) {
    struct matrix *matrix = NULL;
    if (b->rc < 0) return NULL;
    struct backend *be = b->model->be;
    b->rc = be->ops->matrix_create(be, parts, count, bias, &matrix, b->err);
    if (b->rc < 0) return NULL;
    b->model->weight_bytes += matrix->bytes;
    b->model->bytes_per_step += matrix->bytes;
    return matrix;
}

static void bind_table(struct binder *b, const struct weight *weight, struct table **out) {
    struct backend *be = b->model->be;
    if (b->rc < 0) return;
    b->rc = be->ops->table_create(be, weight, out, b->err);
    if (b->rc == 0) b->model->weight_bytes += (*out)->bytes;
}

/* The head is lm_head where the file has one, whatever tie_word_embeddings says; without one the
 * model must be tied. */
static void bind_ends(struct binder *b) {
    struct model *model = b->model;
    const struct model_desc *desc = &model->desc;
    struct weight embedding, head;
    if (b->rc < 0) return;
    b->rc = checkpoint_weight(b->ck, "model.embed_tokens", desc->vocab, desc->hidden, &embedding,
                              b->err);
    if (b->rc < 0) return;
    head = embedding;
    if (!desc->tied_head) {
        b->rc = checkpoint_weight(b->ck, "lm_head", desc->vocab, desc->hidden, &head, b->err);
        if (b->rc < 0) return;
    }
    head.multiplier *= desc->logit_scale;
    bind_table(b, &embedding, &model->embedding);
    model->head = binder_matrix(b, &head, 1, NULL);
    model->final_norm = binder_vector(b, "model.norm.weight", desc->hidden, desc->norm_offset);
}

/* hidden^-1/2 goes into the projection's multiplier. */
static void bind_ple(struct binder *b) {
    struct model *model = b->model;
    const struct model_desc *desc = &model->desc;
    const int64_t cols = desc->layers * desc->ple_width;
    struct weight table, projection;
    if (b->rc < 0 || cols == 0) return;
    if ((b->rc = checkpoint_weight(b->ck, "model.embed_tokens_per_layer", desc->ple_vocab, cols,
                                   &table, b->err)) < 0 ||
        (b->rc = checkpoint_weight(b->ck, "model.per_layer_model_projection", cols, desc->hidden,
                                   &projection, b->err)) < 0)
        return;
    projection.multiplier *= (float)(1.0 / sqrt((double)desc->hidden));
    bind_table(b, &table, &model->ple_embedding);
    model->ple_model = binder_matrix(b, &projection, 1, NULL);
    model->ple_model_norm = binder_vector(b, "model.per_layer_projection_norm.weight",
                                          desc->ple_width, desc->norm_offset);
}

static void bind_ropes(struct binder *b) {
    for (int i = 0; i < b->model->desc.rope_count; i++) {
        const struct rope_desc *rope = &b->model->desc.ropes[i];
        b->model->frequency[i] = binder_upload(b, rope->frequency, rope->pairs);
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
        if (b.rc == 0) binder_layer(&b, i);
    }
    bind_ends(&b);
    bind_ple(&b);
    bind_ropes(&b);
    rc = b.rc;
    if (rc < 0) goto fail;
    return 0;
fail:
    model_close(out);
    return rc;
}

void model_close(struct model *model) {
    struct backend *be = model->be;
    if (be == NULL) return;
    for (int i = 0; i < model->desc.layers && model->layer; i++)
        binder_release_layer(be, &model->layer[i]);
    for (int i = 0; i < model->desc.layers && model->state; i++) be->ops->free(be, model->state[i]);
    free(model->layer);
    free(model->state);
    for (int i = 0; i < MODEL_MAX_ROPES; i++) {
        be->ops->free(be, model->frequency[i]);
        be->ops->free(be, model->angles[i]);
    }
    be->ops->table_free(be, model->embedding);
    be->ops->matrix_free(be, model->head);
    be->ops->free(be, model->final_norm);
    be->ops->table_free(be, model->ple_embedding);
    be->ops->matrix_free(be, model->ple_model);
    be->ops->free(be, model->ple_model_norm);
    void *buffers[] = {model->h,      model->x,   model->q,   model->gated,  model->wide,
                       model->branch, model->sum, model->ple, model->expert, model->expert_weight,
                       model->logits};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) be->ops->free(be, buffers[i]);
    arena_free(&model->arena);
    *model = (struct model){0};
}
