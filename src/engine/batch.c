#include "engine/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static int32_t *ints(int64_t count) {
    return mem_zero((size_t)count, sizeof(int32_t));
}

void batch_create(struct batch_arrays *a, const struct step_limits *max) {
    a->token = ints(max->rows);
    a->position = ints(max->rows);
    a->seq = ints(max->rows);
    a->seq_row = ints(max->seqs + 1);
    a->blocks = ints((int64_t)max->seqs * max->max_blocks);
    a->window_blocks = ints((int64_t)max->seqs * max->max_blocks);
    a->slot = ints(max->seqs);
    a->out_row = ints(max->out_rows);
}

void batch_destroy(struct batch_arrays *a) {
    free(a->token);
    free(a->position);
    free(a->seq);
    free(a->seq_row);
    free(a->blocks);
    free(a->window_blocks);
    free(a->slot);
    free(a->out_row);
    *a = (struct batch_arrays){0};
}

void batch_fill(struct batch_arrays *a, const struct plan *plan, const struct step_limits *max,
                struct batch *out) {
    check(plan->rows <= max->rows && plan->count <= max->seqs && plan->out_rows <= max->out_rows);
    int row = 0, out_rows = 0;
    for (int i = 0; i < plan->count; i++) {
        const struct plan_entry *e = &plan->entry[i];
        a->seq_row[i] = row;
        for (int j = 0; j < e->out_count; j++) a->out_row[out_rows++] = row + e->out_first + j;
        for (int j = 0; j < e->count; j++, row++) {
            a->token[row] = e->seq->tokens[e->first + j];
            a->position[row] = e->first + j;
            a->seq[row] = i;
        }
        int32_t *blocks = a->blocks + (int64_t)i * max->max_blocks;
        memcpy(blocks, e->seq->blocks, (size_t)e->seq->block_count * sizeof *blocks);
        a->slot[i] = e->seq->slot;
        if (e->seq->window_blocks == NULL) continue;
        memcpy(a->window_blocks + (int64_t)i * max->max_blocks, e->seq->window_blocks,
               (size_t)e->seq->block_count * sizeof *blocks);
    }
    a->seq_row[plan->count] = row;
    *out = (struct batch){.rows = row,
                          .seqs = plan->count,
                          .out_rows = out_rows,
                          .token = a->token,
                          .position = a->position,
                          .seq = a->seq,
                          .seq_row = a->seq_row,
                          .blocks = {a->blocks, a->window_blocks},
                          .slot = a->slot,
                          .max_blocks = max->max_blocks,
                          .out_row = a->out_row};
}
