/* From the sums of the pass to the numbers of a matrix. Pure. */
#ifndef IMP_HEALTH_SUMMARY_H
#define IMP_HEALTH_SUMMARY_H

#include "health/health.h"
#include "health/list.h"
#include "health/pass.h"

void summary_add(struct pass *to, const struct pass *more, int64_t cols);
void summary_finish(const struct list_view *view, const struct pass *pass,
                    const float *output_largest, struct weights_matrix *out);

#endif
