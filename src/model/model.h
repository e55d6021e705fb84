/* A model on a device: its weights, bound, checked and uploaded, and one forward pass.
 *
 * Owns the device's weights and activations; borrows checkpoint and backend, which outlive it. Used
 * by one thread. The forward pass is one function for every family and backend. */
#ifndef IMP_MODEL_MODEL_H
#define IMP_MODEL_MODEL_H

#include "load/checkpoint.h"
#include "model/desc.h"

struct layer_weights {
    float *input_norm, *post_norm; /* device [hidden] */
    float *q_norm, *k_norm;        /* device [head_dim] or NULL */
    struct matrix *qkv, *out;      /* q, k, v stacked */
    struct matrix *gate_up, *down; /* gate, up stacked */
};

struct model {
    struct model_desc desc;
    struct arena arena; /* desc's arrays */
    struct backend *be;
    struct table *embedding;
    struct matrix *head;
    float *final_norm;                 /* device [hidden] */
    struct layer_weights *layer;       /* [layers] */
    float *frequency[MODEL_MAX_ROPES]; /* device [pairs] */
    size_t weight_bytes, bytes_per_step;

    /* Activations of a step, device, allocated by model_reserve. */
    struct step_limits limits;
    float *h;                       /* [rows, hidden] residual stream */
    void *x;                        /* act [rows, max_cols] input of the next product */
    void *q;                        /* act [rows, heads * head_dim] */
    float *wide;                    /* [rows, widest output of a linear]: q|k|v, then gate|up */
    float *angles[MODEL_MAX_ROPES]; /* [rows, pairs, 2] */
    float *logits;                  /* [out_rows, vocab] */
    void **kv;                      /* [layers] blocks of KV */
};

/* Only the description, from config.json: for inspection. */
int model_describe(const struct config *config, struct arena *arena, struct model_desc *out,
                   struct imp_error *err);

/* Binds every tensor the description asks for, checks shapes, uploads. */
int model_open(struct checkpoint *ck, struct backend *be, imp_progress_fn progress,
               void *progress_ctx, struct model *out, struct imp_error *err);
void model_close(struct model *model); /* zeroed or half-built is fine */

/* Device bytes of activations for these limits, and of one KV block over all layers. */
size_t model_activation_bytes(const struct model_desc *desc, struct backend *be,
                              const struct step_limits *limits);
size_t model_kv_block_bytes(const struct model_desc *desc, struct backend *be);
/* Allocates activations and kv_blocks blocks of KV, all that steps will ever use. */
int model_reserve(struct model *model, const struct step_limits *limits, int kv_blocks,
                  struct imp_error *err);

/* What a caller may look at while a step runs: the input of each linear, before the product.
 * module: the first part of the matrix (MODULE_Q for q|k|v, MODULE_GATE for gate|up). */
typedef void (*model_tap_fn)(void *ctx, enum module module, int layer, const void *x, int rows,
                             int64_t cols);
struct model_tap {
    model_tap_fn fn; /* NULL: none */
    void *ctx;
};

/* One step: logits of batch->out_row into model->logits. The whole step lies between the backend's
 * step_begin and step_end, which this function calls. tap may be NULL. */
int model_forward(struct model *model, const struct batch *batch, const struct model_tap *tap,
                  struct imp_error *err);

#endif
