/* From a plan to the flat arrays that a backend reads. Allocated once; filled anew each step. */
#ifndef IMP_ENGINE_BATCH_H
#define IMP_ENGINE_BATCH_H

#include "engine/scheduler.h"

struct batch_arrays {
    int32_t *token, *position, *seq, *seq_row, *blocks, *window_blocks, *slot, *out_row;
};

void batch_create(struct batch_arrays *a, const struct step_limits *max);
void batch_destroy(struct batch_arrays *a);
void batch_fill(struct batch_arrays *a, const struct plan *plan, const struct step_limits *max,
                struct batch *out);

#endif
