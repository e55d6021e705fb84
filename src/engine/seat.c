#include "engine/seat.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"

void seats_create(struct seats *s, const struct limits *limits, uint64_t shuffle) {
    *s = (struct seats){.limits = limits, .free_count = limits->seats};
    if (limits->window_blocks > 0)
        kv_create(&s->window, limits->seats * limits->window_blocks, shuffle);
    s->free_slot = mem_alloc((size_t)limits->seats * sizeof *s->free_slot);
    for (int32_t i = 0; i < limits->seats; i++) s->free_slot[i] = limits->seats - 1 - i;
}

void seats_destroy(struct seats *s) {
    kv_destroy(&s->window);
    free(s->free_slot);
    *s = (struct seats){0};
}

/* The first logical block that a row at `position` sees. */
static int first_visible(const struct seats *s, int64_t position) {
    int64_t from = position - s->limits->window + 1;
    return from > 0 ? (int)(from / KV_BLOCK_TOKENS) : 0;
}

/* Holds the windows' blocks that the row after `found` blocks sees; all or none. */
static bool hold_twins(struct seats *s, struct imp_stream *seq, const struct kv *kv, int found) {
    const int first = first_visible(s, (int64_t)found * KV_BLOCK_TOKENS);
    int i = found - 1;
    for (; i >= first; i--) {
        const struct kv_block *b = &kv->block[seq->blocks[i]];
        if (!kv_hold(&s->window, b->twin, b->twin_generation)) break;
        seq->window_blocks[i] = b->twin;
    }
    if (i < first) {
        seq->window_first = first;
        return true;
    }
    for (i++; i < found; i++) {
        kv_release(&s->window, seq->window_blocks[i]);
        seq->window_blocks[i] = -1;
    }
    return false;
}

int seat_take(struct seats *s, struct imp_stream *seq, const struct kv *kv, int found) {
    if (s->free_count == 0) return -1;
    seq->slot = s->free_slot[--s->free_count];
    seq->window_first = 0;
    if (s->limits->recurrent) found = 0;
    if (seq->window_blocks == NULL) return found;
    while (found > 0 && !hold_twins(s, seq, kv, found)) found--;
    seq->spare_count = s->limits->window_blocks - (found > 0 ? found - seq->window_first : 0);
    check(seq->spare_count >= 0);
    bool taken = kv_take(&s->window, seq->spare_blocks, seq->spare_count);
    check(taken); /* every seat holds window_blocks at most */
    return found;
}

static void leave_behind(struct seats *s, struct imp_stream *seq, int end) {
    for (; seq->window_first < end; seq->window_first++) {
        int32_t *block = &seq->window_blocks[seq->window_first];
        if (*block < 0) continue;
        kv_release(&s->window, *block);
        *block = -1;
        bool taken = kv_take(&s->window, &seq->spare_blocks[seq->spare_count], 1);
        check(taken);
        seq->spare_count++;
    }
}

void seat_leave(struct seats *s, struct imp_stream *seq) {
    s->free_slot[s->free_count++] = seq->slot;
    if (seq->window_blocks == NULL) return;
    for (int i = seq->block_count - 1; i >= seq->window_first; i--) {
        if (seq->window_blocks[i] >= 0) kv_release(&s->window, seq->window_blocks[i]);
        seq->window_blocks[i] = -1;
    }
    while (seq->spare_count > 0) kv_release(&s->window, seq->spare_blocks[--seq->spare_count]);
}

void seat_advance(struct seats *s, struct imp_stream *seq, int first, int count) {
    if (seq->window_blocks == NULL) return;
    leave_behind(s, seq, first_visible(s, first));
    const int last = (first + count - 1) / KV_BLOCK_TOKENS;
    for (int i = first / KV_BLOCK_TOKENS; i <= last; i++) {
        if (seq->window_blocks[i] >= 0) continue;
        check(seq->spare_count > 0);
        seq->window_blocks[i] = seq->spare_blocks[--seq->spare_count];
    }
}

void seat_publish(const struct seats *s, const struct imp_stream *seq, struct kv *kv, int i) {
    if (seq->window_blocks == NULL || seq->window_blocks[i] < 0) return;
    struct kv_block *b = &kv->block[seq->blocks[i]];
    b->twin = seq->window_blocks[i];
    b->twin_generation = kv_generation(&s->window, b->twin);
}
