#include "engine/limits.h"

#include <unistd.h>

#include "base/error.h"

enum { DEFAULT_CONTEXT = 8192, DEFAULT_KV_CONTEXTS = 4, STREAM_ROWS = 64 };
static const size_t DEFAULT_KV_BYTES = (size_t)4 << 30;

size_t limits_total_bytes(const struct limits *l) {
    return l->weight_bytes + l->activation_bytes + l->scratch_bytes + l->kv_bytes +
           l->window_bytes + l->state_bytes;
}

static int widest_window(const struct model_desc *desc) {
    int widest = 0;
    for (int i = 0; i < desc->layers; i++) {
        if (desc->layer[i].attention.window > widest) widest = desc->layer[i].attention.window;
    }
    return widest;
}

/* Blocks that a window and the rows of one step can touch. */
static int window_blocks(const struct limits *l, int64_t per_sequence) {
    if (l->window == 0) return 0;
    int64_t positions = (int64_t)l->window - 1 + l->prefill_chunk + 1;
    int64_t blocks = (positions + KV_BLOCK_TOKENS - 2) / KV_BLOCK_TOKENS + 1;
    return (int)(blocks < per_sequence ? blocks : per_sequence);
}

/* What sequences keep: blocks by their length, and for each seat a fixed part (the blocks of its
 * windows, its recurrent state). As many seats as find room if each sequence has a quarter of the
 * context, but blocks for one whole context at least; all other memory is blocks. */
static int plan_kv(const struct imp_options *options, struct limits *l, struct imp_error *err) {
    const int64_t per_sequence = (l->context + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    l->window_blocks = window_blocks(l, per_sequence);
    const size_t seat = (size_t)l->window_blocks * l->window_block_bytes + l->slot_bytes;
    const size_t whole = (size_t)per_sequence * l->kv_block_bytes + seat;
    const size_t asked = (size_t)options->value[SETTING_KV_MEMORY];
    size_t memory = asked;
    if (asked == 0) {
        memory = whole * DEFAULT_KV_CONTEXTS;
        if (memory > DEFAULT_KV_BYTES) memory = DEFAULT_KV_BYTES;
        if (memory < whole) memory = whole;
    }
    if (memory < whole)
        return error_set(err, IMP_ERR_MEMORY, NULL,
                         "kv.memory %zu is too little for one sequence of %lld tokens, which needs "
                         "%zu (%lld blocks of %zu bytes and %zu of fixed state): raise kv.memory "
                         "or lower runtime.context",
                         memory, (long long)l->context, whole, (long long)per_sequence,
                         l->kv_block_bytes, seat);
    const size_t full = whole - seat;
    size_t seats = (size_t)l->max_batch;
    if (seat && seats > memory / (seat + full / 4)) seats = memory / (seat + full / 4);
    while (seats > 1 && seats * seat + full > memory) seats--;
    size_t blocks = seats * (size_t)per_sequence;
    if (l->kv_block_bytes) blocks = (memory - seats * seat) / l->kv_block_bytes;
    if (blocks > INT32_MAX / 2) blocks = INT32_MAX / 2;
    l->seats = (int)seats;
    l->kv_blocks = (int)blocks;
    l->kv_bytes = blocks * l->kv_block_bytes;
    l->window_bytes = seats * (size_t)l->window_blocks * l->window_block_bytes;
    l->state_bytes = seats * l->slot_bytes;
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
    };
    model_desc_limits(desc, &l.step);
    l.window = widest_window(desc);
    l.kv_block_bytes = model_kv_block_bytes(desc, be, KV_FULL);
    l.window_block_bytes = model_kv_block_bytes(desc, be, KV_WINDOW);
    l.slot_bytes = model_slot_bytes(desc, be);
    l.recurrent = l.slot_bytes > 0;
    int rc = plan_kv(options, &l, err);
    if (rc < 0) return rc;
    l.activation_bytes = model_activation_bytes(desc, be, &l.step);
    l.scratch_bytes = be->ops->scratch_bytes(be, &l.step);

    *out = l;
    size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    if (limits_total_bytes(&l) > machine)
        return error_set(err, IMP_ERR_MEMORY, NULL,
                         "needs %zu MB (weights %zu + activations %zu + scratch %zu + KV %zu + "
                         "state %zu), the machine has %zu MB",
                         limits_total_bytes(&l) >> 20, l.weight_bytes >> 20,
                         l.activation_bytes >> 20, l.scratch_bytes >> 20,
                         (l.kv_bytes + l.window_bytes) >> 20, l.state_bytes >> 20, machine >> 20);
    return 0;
}
