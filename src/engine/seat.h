/* What a running sequence keeps whatever its length: a slot of recurrent state, and the KV blocks
 * of layers that see a window, which move along with it.
 *
 * A sequence that is admitted gets all it will ever need; as its window moves on, blocks left
 * behind go back to the pool, where the prefix cache may still find them, and others are taken.
 * Invariant: a seat holds window_blocks blocks, so the pool of seats * window_blocks never runs
 * dry. The engine's thread alone. */
#ifndef IMP_ENGINE_SEAT_H
#define IMP_ENGINE_SEAT_H

#include "engine/kv.h"
#include "engine/stream.h"

struct seats {
    const struct limits *limits;
    struct kv window; /* pool of the windows' blocks; total 0: no layer has one */
    int32_t *free_slot;
    int free_count;
};

void seats_create(struct seats *s, const struct limits *limits, uint64_t shuffle);
void seats_destroy(struct seats *s);

/* Seats a sequence whose first `found` blocks of `kv` came from the prefix cache. How many of them
 * it can use: fewer than found, if the windows' blocks before that place are gone; -1 if no seat is
 * free. */
int seat_take(struct seats *s, struct imp_stream *seq, const struct kv *kv, int found);
void seat_leave(struct seats *s, struct imp_stream *seq);

/* Makes room for rows at positions first .. first + count - 1, which no longer see what lies before
 * the window of the first. */
void seat_advance(struct seats *s, struct imp_stream *seq, int first, int count);
/* Notes at block i of `kv`, now complete, which block of the windows has the same positions. */
void seat_publish(const struct seats *s, const struct imp_stream *seq, struct kv *kv, int i);

#endif
