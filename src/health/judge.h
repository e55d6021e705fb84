/* Findings from the statistics: the rules, and no statistic of their own. */
#ifndef IMP_HEALTH_JUDGE_H
#define IMP_HEALTH_JUDGE_H

#include "health/weights.h"

void weights_judge(struct weights_report *report);

/* For the files of the rules: adds one. `text` is printf's. */
const struct weights_rule *judge_rule(const char *id);
void judge_add(struct weights_report *report, const char *rule, enum weights_level level,
               enum weights_basis basis, const struct weights_matrix *tensor,
               const struct weights_matrix *other, double value, const char *fmt, ...)
    __attribute__((format(printf, 8, 9)));
/* Rules that look at several matrices: siblings, copies, shards. judge_groups.c */
void judge_groups(struct weights_report *report);

#endif
