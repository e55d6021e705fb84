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
    int kv_blocks;     /* physical blocks of KV_BLOCK_TOKENS, of layers that see everything */
    int seats;         /* sequences that run at once, by what each keeps whatever its length */
    int window;        /* positions that layers with a window see; 0: no such layer */
    int window_blocks; /* physical blocks of those layers that one sequence keeps */
    bool recurrent;    /* sequences keep a state that cannot be cut at a position */
    int stream_rows;   /* prompt rows whose logits one stream may get from one step */
    struct step_limits step;

    /* The memory plan, bytes. */
    size_t weight_bytes, activation_bytes, scratch_bytes;
    size_t kv_bytes, kv_block_bytes;         /* all blocks, one */
    size_t window_bytes, window_block_bytes; /* seats * window_blocks of them, one */
    size_t state_bytes, slot_bytes;          /* seats of them, one */
};

/* weight_bytes is the model's own count, or an estimate before it is loaded. A plan that is sound
 * but larger than the machine is IMP_ERR_MEMORY with *out filled. */
int limits_make(const struct model_desc *desc, struct backend *be,
                const struct imp_options *options, int threads, size_t weight_bytes,
                struct limits *out, struct imp_error *err);
size_t limits_total_bytes(const struct limits *limits);

#endif
