/* Which rows the next step computes.
 *
 * First every running sequence that has all but its last token in the cache: one row each. Then
 * prompts, in order of admission, in chunks, until the step's rows are used up. Sequences are
 * admitted in order of arrival as long as there are blocks for the tokens they have; for the answer
 * they take one after the other. If there is none left, the sequence admitted last gives all of its
 * own back and waits at the head of the queue: it will compute its tokens again, to the same bits.
 * One sequence alone always fits, so the first admitted always goes on. How a prompt is cut into
 * chunks never changes a result.
 * The engine's thread alone; allocates nothing after creation. */
#ifndef IMP_ENGINE_SCHEDULER_H
#define IMP_ENGINE_SCHEDULER_H

#include "engine/kv.h"
#include "engine/seat.h"
#include "engine/stream.h"

struct plan_entry {
    struct imp_stream *seq;
    int first, count; /* tokens [first, first + count) of the sequence are this step's rows */
    int out_first, out_count; /* of these rows, logits are wanted from this one on */
    bool prompt_logits;       /* and go to the caller */
};

struct plan {
    struct plan_entry *entry; /* [max_batch] */
    int count, rows, out_rows;
};

struct scheduler {
    const struct limits *limits;
    bool prefix_cache;
    struct kv *kv;
    struct seats *seats;
    struct imp_stream **queue; /* waiting, in order of arrival; grows at submission only */
    int queue_count, queue_capacity;
    struct imp_stream **running; /* [max_batch] in order of admission */
    int running_count;
    int64_t preempt_every, plans; /* for tests: see runtime.preempt_every */
    uint64_t preemptions;
};

void scheduler_create(struct scheduler *s, const struct limits *limits, struct kv *kv,
                      struct seats *seats, bool prefix_cache);
void scheduler_destroy(struct scheduler *s);
void scheduler_add(struct scheduler *s, struct imp_stream *seq); /* from the inbox */
void scheduler_plan(struct scheduler *s, struct plan *plan);
/* Takes a sequence out, wherever it is, and gives its blocks back. */
void scheduler_remove(struct scheduler *s, struct imp_stream *seq);
/* After a step: hands blocks that became full to the prefix cache. */
void scheduler_computed(struct scheduler *s, struct imp_stream *seq);

#endif
