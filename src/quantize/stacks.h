/* Experts that a file stores in stacks, seen as the matrices that they are.
 *
 *   gate_up_proj [E, 2I, H], down_proj [E, H, I]     gate's rows first (qwen3_5_moe, gemma4)
 *   gate_up_proj [E, H, 2I], down_proj [E, I, H]     with biases [E, 2I], [E, H]: gpt-oss, where
 *                                                    rows of gate and up alternate
 *   gate_up_proj_blocks [E, 2I, H/32, 16], _scales   the same in MXFP4, not transposed
 *
 * No ".weight" behind the names. Views borrow from the checkpoint. Pure; any thread. */
#ifndef IMP_QUANTIZE_STACKS_H
#define IMP_QUANTIZE_STACKS_H

#include "load/checkpoint.h"
#include "quantize/source.h"

/* Element (row, col) of a matrix is element
 *     base + row / group_rows * group_step + row % group_rows * row_step + col * col_step
 * of the tensor. */
struct view {
    const uint8_t *data;
    const uint8_t *scales; /* E8M0, one for 32 elements: data are E2M1 codes, two a byte; or NULL */
    enum dtype dtype;      /* of the data, without scales */
    int64_t base, group_rows, group_step, row_step, col_step;
};

/* out[cols] */
void view_read_row(const struct view *view, int64_t row, int64_t cols, float *out);

/* The tensors that stand for one tensor of the files. */
struct stack_part {
    struct source_tensor tensor;
    struct view view;
};

/* Whether t belongs to a stack that is to be taken apart: any stack, if split; else one in MXFP4,
 * which becomes a stack of floats. IMP_ERR_FILE or IMP_ERR_UNSUPPORTED for a stack that cannot be.
 * 1: yes, and *count says into how many; 0: no. */
int stack_count(const struct checkpoint *ck, const struct tensor *t, bool split, size_t *count,
                struct imp_error *err);
/* Those, in order; names go to the arena. out[count]. */
void stack_parts(const struct checkpoint *ck, const struct tensor *t, bool split,
                 struct arena *arena, struct stack_part *out);

#endif
