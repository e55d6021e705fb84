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
    s->queue_capacity = 64;
    s->queue = mem_zero((size_t)s->queue_capacity, sizeof *s->queue);
}

void scheduler_destroy(struct scheduler *s) {
    free(s->running);
    free(s->queue);
    *s = (struct scheduler){0};
}

void scheduler_add(struct scheduler *s, struct imp_stream *seq) {
    if (s->queue_count == s->queue_capacity) {
        s->queue_capacity *= 2;
        s->queue = mem_grow(s->queue, (size_t)s->queue_capacity * sizeof *s->queue);
    }
    s->queue[s->queue_count++] = seq;
    seq->state = SEQ_QUEUED;
}

/* Takes every block the sequence may need, some of them from the prefix cache. The last token of a
 * prompt is always computed: its logits are wanted. */
static bool admit(struct scheduler *s, struct imp_stream *seq) {
    int found = 0;
    if (s->prefix_cache && !seq->request.prompt_logits)
        found = kv_find_prefix(s->kv, seq->tokens, (seq->prompt_count - 1) / KV_BLOCK_TOKENS,
                               seq->blocks);
    int usable = seat_take(s->seats, seq, s->kv, found);
    while (found > usable && found > 0) kv_release(s->kv, seq->blocks[--found]);
    if (usable < 0) return false;
    seq->block_count = found;
    if (!kv_take(s->kv, seq->blocks + found, seq->block_capacity - found)) {
        seat_leave(s->seats, seq);
        while (found > 0) kv_release(s->kv, seq->blocks[--found]);
        seq->block_count = 0;
        return false;
    }
    seq->block_count = seq->block_capacity;
    seq->published = found;
    seq->computed = found * KV_BLOCK_TOKENS;
    seq->state = SEQ_RUNNING;
    seq->started_ms = clock_ms();
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

static void add_entry(struct scheduler *s, struct plan *plan, struct imp_stream *seq, int count) {
    struct plan_entry *e = &plan->entry[plan->count++];
    *e = (struct plan_entry){.seq = seq, .first = seq->computed, .count = count};
    seat_advance(s->seats, seq, e->first, count);
    bool last = e->first + count == seq->token_count;
    if (seq->request.prompt_logits && e->first < seq->prompt_count) {
        e->out_count = count;
    } else if (last && seq->request.max_tokens > 0) {
        e->out_first = count - 1;
        e->out_count = 1;
    }
    plan->rows += count;
    plan->out_rows += e->out_count;
}

void scheduler_plan(struct scheduler *s, struct plan *plan) {
    plan->count = plan->rows = plan->out_rows = 0;
    admit_waiting(s);
    for (int i = 0; i < s->running_count; i++) {
        struct imp_stream *seq = s->running[i];
        bool decodes = seq->computed >= seq->prompt_count && seq->computed + 1 == seq->token_count;
        if (decodes && stream_has_room(seq)) add_entry(s, plan, seq, 1);
    }
    int left = s->limits->prefill_chunk;
    /* Rows that may ask for logits beyond one a sequence. */
    int out_left = s->limits->step.out_rows - s->limits->max_batch;
    for (int i = 0; i < s->running_count && left > 0; i++) {
        struct imp_stream *seq = s->running[i];
        int count = seq->prompt_count - seq->computed;
        if (count <= 0 || !stream_has_room(seq)) continue;
        if (count > left) count = left;
        if (seq->request.prompt_logits) {
            if (count > s->limits->stream_rows) count = s->limits->stream_rows;
            if (count > out_left) count = out_left;
            out_left -= count;
        }
        if (count == 0) continue;
        left -= count;
        add_entry(s, plan, seq, count);
    }
}

static void take_out(struct imp_stream **list, int *count, const struct imp_stream *seq) {
    for (int i = 0; i < *count; i++) {
        if (list[i] != seq) continue;
        memmove(list + i, list + i + 1, (size_t)(*count - i - 1) * sizeof *list);
        (*count)--;
        return;
    }
}

void scheduler_remove(struct scheduler *s, struct imp_stream *seq) {
    if (seq->state == SEQ_QUEUED) take_out(s->queue, &s->queue_count, seq);
    if (seq->state == SEQ_RUNNING) {
        take_out(s->running, &s->running_count, seq);
        seat_leave(s->seats, seq);
    }
    /* From the end, so that the beginning of a prefix is the last to be forgotten. */
    while (seq->block_count > 0) kv_release(s->kv, seq->blocks[--seq->block_count]);
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
