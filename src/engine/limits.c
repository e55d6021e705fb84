#include "engine/limits.h"

#include <unistd.h>

#include "base/error.h"

enum { DEFAULT_CONTEXT = 8192, DEFAULT_KV_CONTEXTS = 4, STREAM_ROWS = 64 };
static const size_t DEFAULT_KV_BYTES = (size_t)4 << 30;

size_t limits_total_bytes(const struct limits *l) {
    return l->weight_bytes + l->activation_bytes + l->scratch_bytes + l->kv_bytes;
}

static int kv_blocks(const struct imp_options *options, struct limits *l, struct imp_error *err) {
    const int64_t per_sequence = (l->context + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    int64_t blocks = per_sequence * DEFAULT_KV_CONTEXTS;
    int64_t asked = options->value[SETTING_KV_MEMORY];
    if (asked > 0) {
        blocks = asked / (int64_t)l->kv_block_bytes;
    } else if ((size_t)blocks * l->kv_block_bytes > DEFAULT_KV_BYTES) {
        blocks = (int64_t)(DEFAULT_KV_BYTES / l->kv_block_bytes);
        if (blocks < per_sequence) blocks = per_sequence;
    }
    if (blocks < per_sequence)
        return error_set(err, IMP_ERR_MEMORY, NULL,
                         "kv.memory %lld holds %lld blocks of %d tokens (%zu bytes each), but one "
                         "sequence of %lld tokens needs %lld: raise kv.memory or lower "
                         "runtime.context",
                         (long long)asked, (long long)blocks, KV_BLOCK_TOKENS, l->kv_block_bytes,
                         (long long)l->context, (long long)per_sequence);
    if (blocks > INT32_MAX / 2) blocks = INT32_MAX / 2;
    l->kv_blocks = (int)blocks;
    l->kv_bytes = (size_t)blocks * l->kv_block_bytes;
    return 0;
}

int limits_make(const struct model_desc *desc, struct backend *be,
                const struct imp_options *options, int threads, size_t weight_bytes,
                struct limits *out, struct imp_error *err) {
    struct limits l = {.threads = threads, .weight_bytes = weight_bytes};
    l.max_batch = (int)options->value[SETTING_MAX_BATCH];
    l.prefill_chunk = (int)options->value[SETTING_PREFILL_CHUNK];
    l.context = options->value[SETTING_CONTEXT];
    if (l.context > desc->max_context)
        return error_set(err, IMP_ERR_USAGE, NULL,
                         "runtime.context %lld is more than the %lld positions of the model",
                         (long long)l.context, (long long)desc->max_context);
    if (l.context == 0)
        l.context = desc->max_context < DEFAULT_CONTEXT ? desc->max_context : DEFAULT_CONTEXT;
    l.stream_rows = l.prefill_chunk < STREAM_ROWS ? l.prefill_chunk : STREAM_ROWS;
    int out_rows = l.prefill_chunk < 2 * STREAM_ROWS ? l.prefill_chunk : 2 * STREAM_ROWS;
    l.step = (struct step_limits){
        .rows = l.prefill_chunk + l.max_batch,
        .seqs = l.max_batch,
        .out_rows = out_rows + l.max_batch,
        .max_blocks = (int)((l.context + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS),
        .max_cols = model_desc_max_cols(desc),
        .max_heads = model_desc_max_heads(desc),
        .max_head_dim = model_desc_max_head_dim(desc),
        .vocab = desc->vocab,
    };
    l.kv_block_bytes = model_kv_block_bytes(desc, be);
    int rc = kv_blocks(options, &l, err);
    if (rc < 0) return rc;
    l.activation_bytes = model_activation_bytes(desc, be, &l.step);
    l.scratch_bytes = be->ops->scratch_bytes(be, &l.step);

    *out = l;
    size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    if (limits_total_bytes(&l) > machine)
        return error_set(err, IMP_ERR_MEMORY, NULL,
                         "needs %zu MB (weights %zu + activations %zu + scratch %zu + KV %zu), the "
                         "machine has %zu MB",
                         limits_total_bytes(&l) >> 20, l.weight_bytes >> 20,
                         l.activation_bytes >> 20, l.scratch_bytes >> 20, l.kv_bytes >> 20,
                         machine >> 20);
    return 0;
}
