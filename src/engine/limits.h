/* All sizes of a running engine, computed once from model, device and options.
 *
 * Everybody reads the same const struct: the scheduler what fits, admission what can ever fit, the
 * model what to allocate. Nobody computes a size again. */
#ifndef IMP_ENGINE_LIMITS_H
#define IMP_ENGINE_LIMITS_H

#include "engine/options.h"
#include "model/model.h"

struct limits {
    int threads;
    int max_batch;     /* sequences of one step */
    int prefill_chunk; /* prompt rows of one step */
    int64_t context;   /* tokens of one sequence, prompt and answer */
    int kv_blocks;     /* physical blocks of KV_BLOCK_TOKENS */
    int stream_rows;   /* prompt rows whose logits one stream may get from one step */
    struct step_limits step;

    /* The memory plan, bytes. */
    size_t weight_bytes, activation_bytes, scratch_bytes, kv_bytes, kv_block_bytes;
};

/* weight_bytes is the model's own count, or an estimate before it is loaded. A plan that is sound
 * but larger than the machine is IMP_ERR_MEMORY with *out filled. */
int limits_make(const struct model_desc *desc, struct backend *be,
                const struct imp_options *options, int threads, size_t weight_bytes,
                struct limits *out, struct imp_error *err);
size_t limits_total_bytes(const struct limits *limits);

#endif
