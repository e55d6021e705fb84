/* From the sums of the pass to the numbers of a matrix. Pure. */
#ifndef IMP_HEALTH_SUMMARY_H
#define IMP_HEALTH_SUMMARY_H

#include "health/list.h"
#include "health/pass.h"
#include "health/weights.h"

size_t summary_row_blocks(const struct weight *w); /* block scales of a row; 0: none */
void summary_add(struct pass *to, const struct pass *more, int64_t cols);
void summary_finish(const struct list_view *view, const struct pass *pass,
                    const float *output_largest, struct weights_matrix *out);

#endif
