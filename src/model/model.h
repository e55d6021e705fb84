/* A model on a device: its weights, bound, checked and uploaded, and one forward pass.
 *
 * Owns the device's weights and activations; borrows checkpoint and backend, which outlive it. Used
 * by one thread. The forward pass is one function for every family and backend. */
#ifndef IMP_MODEL_MODEL_H
#define IMP_MODEL_MODEL_H

#include "load/checkpoint.h"
#include "model/desc.h"
#include "model/stage.h"

/* What a description says a layer lacks is NULL. Vectors are device fp32. */
struct layer_weights {
    float *input_norm, *mixer_post_norm;                  /* [hidden] */
    float *ffn_norm, *ffn_post_norm;                      /* [hidden] */
    float *q_norm, *k_norm;                               /* [head_dim] */
    float *sinks;                                         /* [heads] */
    float *gdn_conv, *gdn_decay, *gdn_dt_bias, *gdn_norm; /* as op_gdn */
    struct matrix *in, *out;                              /* of the mixer: q|k|v, or q|k|v|z|b|a */
    struct matrix *gate_up, *down;                        /* of the dense ffn */
    struct matrix *shared_gate_up, *shared_down;          /* gate|up|gate of the expert's output */
    struct experts *experts;
    bool interleaved;                                  /* rows of the experts' gate_up */
    float *router, *router_bias, *router_norm;         /* as op_route */
    float *expert_scale;                               /* [experts] */
    float *dense_post_norm, *moe_norm, *moe_post_norm; /* [hidden] */
    struct matrix *ple_gate, *ple_proj;
    float *ple_norm; /* [hidden] */
    float scale;     /* of h at the layer's end; 1 if none */
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
    struct table *ple_embedding;       /* [ple_vocab, layers * ple_width] */
    struct matrix *ple_model;          /* hidden to layers * ple_width */
    float *ple_model_norm;             /* device [ple_width] */
    size_t weight_bytes, bytes_per_step;

    /* Activations of a step, device, allocated by model_reserve. */
    struct step_limits limits;
    float *h;                       /* [rows, hidden] residual stream */
    void *x;                        /* act [rows, max_cols] input of the next product */
    void *q;                        /* act [rows, heads * head_dim] */
    void *gated;                    /* act [rows, widest ffn] what glu makes */
    float *wide;                    /* [rows, widest output of a linear]: q|k|v, then gate|up */
    float *branch, *sum;            /* [rows, hidden] where outputs are normed before they count */
    float *ple;                     /* [rows, layers, ple_width] */
    int32_t *expert;                /* [rows, top_k] */
    float *expert_weight;           /* [rows, top_k] */
    float *angles[MODEL_MAX_ROPES]; /* [rows, pairs, 2] */
    float *logits;                  /* [out_rows, vocab] */
    void **state;                   /* [layers] blocks of KV, or slots of recurrent state */
};

/* Only the description, from config.json: for inspection. */
int model_describe(const struct config *config, struct arena *arena, struct model_desc *out,
                   struct imp_error *err);

/* Binds every tensor the description asks for, checks shapes, uploads. */
int model_open(struct checkpoint *ck, struct backend *be, imp_progress_fn progress,
               void *progress_ctx, struct model *out, struct imp_error *err);
void model_close(struct model *model); /* zeroed or half-built is fine */

/* ---- memory (plan.c) ---- */

/* What sequences keep between steps. */
struct model_memory {
    int blocks[KV_GROUPS]; /* of KV */
    int slots;             /* of recurrent state */
};
/* Columns of the widest row that a stage leaves. */
int64_t model_stage_max_cols(const struct model_desc *desc);
/* Device bytes of activations for these limits, of one KV block over all layers of a group, and of
 * one slot over all layers (0: no recurrent state). */
size_t model_activation_bytes(const struct model_desc *desc, struct backend *be,
                              const struct step_limits *limits);
size_t model_kv_block_bytes(const struct model_desc *desc, struct backend *be, enum kv_group group);
size_t model_slot_bytes(const struct model_desc *desc, struct backend *be);
/* Allocates activations and memory, all that steps will ever use. */
int model_reserve(struct model *model, const struct step_limits *limits,
                  const struct model_memory *memory, struct imp_error *err);

/* What a caller may look at while a step runs: the input of each linear, before the product.
 * module: the first part of the matrix (MODULE_Q for q|k|v, MODULE_GATE for gate|up); last: its
 * last part. Experts: MODULE_EXPERTS with what the router's choice reads (model->expert says who),
 * then, if the tap has room for it, MODULE_EXPERTS_DOWN with top_k rows for every row, slot by
 * slot.
 */
typedef void (*model_tap_fn)(void *ctx, enum module module, enum module last, int layer,
                             const void *x, int rows, int64_t cols);
/* And what each stage leaves (stage_table tells of which rows and in which form): x is device
 * memory, to be read with the backend's read or act_read before the call returns. layer -1: of no
 * layer. */
typedef void (*model_stage_fn)(void *ctx, enum stage stage, int layer, const void *x, int64_t cols);
struct model_tap {
    model_tap_fn fn;      /* NULL: none */
    void *ctx;            /* of both */
    void *inner;          /* device act [rows, top_k, width] of the experts, or NULL. CPU only */
    model_stage_fn stage; /* NULL: none */
};

/* One step: logits of batch->out_row into model->logits. Begins the backend's step and queues all
 * of it; the caller may sample from the logits, and ends the step. tap may be NULL. */
void model_queue(struct model *model, const struct batch *batch, const struct model_tap *tap);
/* The same, and ends the step. */
int model_forward(struct model *model, const struct batch *batch, const struct model_tap *tap,
                  struct imp_error *err);

#endif
