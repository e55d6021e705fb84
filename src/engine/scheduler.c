#include "engine/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

void scheduler_create(struct scheduler *s, const struct limits *limits, struct kv *kv,
                      struct seats *seats, bool prefix_cache) {
    *s = (struct scheduler){.limits = limits, .kv = kv, .seats = seats};
    s->prefix_cache = prefix_cache && !limits->recurrent;
    s->running = mem_zero((size_t)limits->max_batch, sizeof *s->running);
    s->queue_capacity = 64 + 2 * limits->max_batch;
    s->queue = mem_zero((size_t)s->queue_capacity, sizeof *s->queue);
}

void scheduler_destroy(struct scheduler *s) {
    free(s->running);
    free(s->queue);
    *s = (struct scheduler){0};
}

void scheduler_add(struct scheduler *s, struct imp_stream *seq) {
    /* Whoever runs may come back into the queue, inside a step. */
    if (s->queue_count + s->limits->max_batch >= s->queue_capacity) {
        s->queue_capacity *= 2;
        s->queue = mem_grow(s->queue, (size_t)s->queue_capacity * sizeof *s->queue);
    }
    s->queue[s->queue_count++] = seq;
    seq->state = SEQ_QUEUED;
}

static void take_out(struct imp_stream **list, int *count, const struct imp_stream *seq) {
    for (int i = 0; i < *count; i++) {
        if (list[i] != seq) continue;
        memmove(list + i, list + i + 1, (size_t)(*count - i - 1) * sizeof *list);
        (*count)--;
        return;
    }
}

static int blocks_for(int tokens) {
    return (tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
}

/* Gives everything back, from the end, so that the beginning of a prefix is the last to be
 * forgotten. */
static void give_back(struct scheduler *s, struct imp_stream *seq) {
    take_out(s->running, &s->running_count, seq);
    seat_leave(s->seats, seq);
    while (seq->block_count > 0) kv_release(s->kv, seq->blocks[--seq->block_count]);
}

/* Takes the blocks of the tokens there are, some of them from the prefix cache. The last token is
 * always computed: its logits are wanted. Whoever runs already may need a block each soon. */
static bool admit(struct scheduler *s, struct imp_stream *seq) {
    const int need = blocks_for(seq->token_count);
    int found = 0;
    if (s->prefix_cache && !seq->request.prompt_logits)
        found = kv_find_prefix(s->kv, seq->tokens, (seq->token_count - 1) / KV_BLOCK_TOKENS,
                               seq->blocks);
    int usable = seat_take(s->seats, seq, s->kv, found);
    while (found > usable && found > 0) kv_release(s->kv, seq->blocks[--found]);
    if (usable < 0) return false;
    seq->block_count = found;
    if (s->kv->unheld < need - found + s->running_count ||
        !kv_take(s->kv, seq->blocks + found, need - found)) {
        seat_leave(s->seats, seq);
        while (found > 0) kv_release(s->kv, seq->blocks[--found]);
        seq->block_count = 0;
        return false;
    }
    seq->block_count = need;
    seq->published = found;
    seq->computed = found * KV_BLOCK_TOKENS;
    seq->state = SEQ_RUNNING;
    if (seq->started_ms == 0) seq->started_ms = clock_ms();
    s->running[s->running_count++] = seq;
    return true;
}

static void admit_waiting(struct scheduler *s) {
    int taken = 0;
    while (taken < s->queue_count && s->running_count < s->limits->max_batch &&
           admit(s, s->queue[taken]))
        taken++;
    s->queue_count -= taken;
    memmove(s->queue, s->queue + taken, (size_t)s->queue_count * sizeof *s->queue);
}

/* Room in the queue is kept for everybody who runs: see scheduler_add. */
static void preempt(struct scheduler *s, struct imp_stream *seq) {
    give_back(s, seq);
    memmove(s->queue + 1, s->queue, (size_t)s->queue_count * sizeof *s->queue);
    s->queue[0] = seq;
    s->queue_count++;
    seq->state = SEQ_QUEUED;
    s->preemptions++;
}

/* The block of the sequence's next row, if need be from those admitted after it. False if it had to
 * give back its own. */
static bool have_block(struct scheduler *s, struct imp_stream *seq) {
    const int need = blocks_for(seq->computed + 1);
    while (seq->block_count < need && !kv_take(s->kv, seq->blocks + seq->block_count, 1)) {
        struct imp_stream *last = s->running[s->running_count - 1];
        preempt(s, last);
        if (last == seq) return false;
    }
    if (seq->block_count < need) seq->block_count = need;
    return true;
}

static void add_entry(struct scheduler *s, struct plan *plan, struct imp_stream *seq, int count) {
    struct plan_entry *e = &plan->entry[plan->count++];
    *e = (struct plan_entry){.seq = seq, .first = seq->computed, .count = count};
    seat_advance(s->seats, seq, e->first, count);
    if (seq->delivered < seq->prompt_count) {
        e->prompt_logits = true;
        e->out_first = seq->delivered > e->first ? seq->delivered - e->first : 0;
        e->out_count = count > e->out_first ? count - e->out_first : 0;
    } else if (e->first + count == seq->token_count && seq->request.max_tokens > 0) {
        e->out_first = count - 1;
        e->out_count = 1;
    }
    plan->rows += count;
    plan->out_rows += e->out_count;
}

/* All but the last token are in the cache, and that one was drawn. */
static bool decodes(const struct imp_stream *seq) {
    return seq->computed >= seq->prompt_count && seq->computed + 1 == seq->token_count;
}

void scheduler_plan(struct scheduler *s, struct plan *plan) {
    plan->count = plan->rows = plan->out_rows = 0;
    if (s->preempt_every && ++s->plans % s->preempt_every == 0 && s->running_count > 0)
        preempt(s, s->running[s->running_count - 1]);
    for (int i = 0; i < s->running_count; i++) {
        struct imp_stream *seq = s->running[i];
        if (decodes(seq) && stream_has_room(seq) && have_block(s, seq)) add_entry(s, plan, seq, 1);
    }
    admit_waiting(s);
    int left = s->limits->prefill_chunk;
    /* Rows that may ask for logits beyond one a sequence. */
    int out_left = s->limits->step.out_rows - s->limits->max_batch;
    for (int i = 0; i < s->running_count && left > 0; i++) {
        struct imp_stream *seq = s->running[i];
        int count = seq->token_count - seq->computed;
        if (count <= 0 || decodes(seq) || !stream_has_room(seq)) continue;
        if (count > left) count = left;
        if (seq->delivered < seq->prompt_count) { /* only these rows' logits are for the caller */
            if (count > seq->prompt_count - seq->computed)
                count = seq->prompt_count - seq->computed;
            if (count > s->limits->stream_rows) count = s->limits->stream_rows;
            if (count > out_left) count = out_left;
            out_left -= count;
        }
        if (count == 0) continue;
        left -= count;
        add_entry(s, plan, seq, count);
    }
}

void scheduler_remove(struct scheduler *s, struct imp_stream *seq) {
    if (seq->state == SEQ_QUEUED) take_out(s->queue, &s->queue_count, seq);
    if (seq->state == SEQ_RUNNING) give_back(s, seq);
    seq->state = SEQ_DONE;
}

void scheduler_computed(struct scheduler *s, struct imp_stream *seq) {
    if (!s->prefix_cache) return;
    for (; (seq->published + 1) * KV_BLOCK_TOKENS <= seq->computed; seq->published++) {
        int i = seq->published;
        seat_publish(s->seats, seq, s->kv, i);
        kv_publish(s->kv, seq->blocks[i], i > 0 ? seq->blocks[i - 1] : -1,
                   seq->tokens + (size_t)i * KV_BLOCK_TOKENS);
    }
}
