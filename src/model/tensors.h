/* Every tensor that the files of a model hold, by its description alone: what model_open will bind,
 * no more and no less. For those who write checkpoints.
 *
 * Names are canonical ("model.layers.0.mlp.up_proj.weight", "lm_head.weight"); what a wrapped model
 * puts before them is the writer's. Pure functions; any thread. */
#ifndef IMP_MODEL_TENSORS_H
#define IMP_MODEL_TENSORS_H

#include "model/desc.h"

/* What the numbers of a tensor mean to the model. */
enum tensor_kind {
    TENSOR_EMBEDDING,       /* a row for each token */
    TENSOR_LAYER_EMBEDDING, /* the same of per-layer embeddings, all layers beside each other */
    TENSOR_HEAD,
    TENSOR_LINEAR,
    TENSOR_RESIDUAL, /* a linear whose output is added to the residual stream */
    TENSOR_ROUTER,
    TENSOR_CONV,
    TENSOR_NORM,       /* gains; 1 does nothing where norm_offset is 0, else 0 */
    TENSOR_PLAIN_NORM, /* gains around 1 whatever norm_offset says */
    TENSOR_BIAS,
    TENSOR_SINKS,
    TENSOR_DT_BIAS,
    TENSOR_A_LOG,
    TENSOR_ROUTER_SCALE, /* per column of what the router reads */
    TENSOR_FACTOR,       /* of an expert or a layer, around 1 */
    TENSOR_CODES,        /* MXFP4: U8, two numbers a byte */
    TENSOR_SCALES,       /* MXFP4: U8, an exponent for each 32 numbers of TENSOR_CODES */
};

/* Which of an expert's matrices, or of their biases. */
enum expert_part { EXPERT_GATE, EXPERT_UP, EXPERT_DOWN, EXPERT_GATE_UP };

struct model_tensor {
    const char *name; /* until the call returns */
    enum tensor_kind kind;
    enum module module; /* MODULE_COUNT outside the layers */
    int layer;          /* -1 outside the layers */
    int dims;
    int64_t shape[4];
    int64_t inputs;        /* of a matrix: numbers that one output sums; of a table: its columns */
    int expert;            /* -1: none, or all of them in one stack */
    enum expert_part part; /* where module is MODULE_EXPERTS */
};

/* How experts are stored (load/experts.h). */
enum expert_form {
    EXPERT_AS_SAVED,   /* one by one or stacked, as transformers saves the family in BF16 */
    EXPERT_ONE_BY_ONE, /* as quantisers write all of them */
    EXPERT_MXFP4,      /* as gpt-oss ships */
};

typedef void (*model_tensor_fn)(void *ctx, const struct model_tensor *tensor);
void model_desc_tensors(const struct model_desc *desc, enum expert_form form, model_tensor_fn fn,
                        void *ctx);
/* Numbers in all of them. Walks the whole list: for once, at opening. */
int64_t model_desc_parameters(const struct model_desc *desc);

#endif
