/* Findings from the statistics: the rules, and no statistic of their own. */
#ifndef IMP_HEALTH_JUDGE_H
#define IMP_HEALTH_JUDGE_H

#include "health/health.h"
#include "load/checkpoint.h"

/* The tensors against what the model of config.json asks for. Reads the plain ones, so it comes
 * before whoever reads the linears. judge_tensors.c */
void judge_tensors(struct health_report *report, struct checkpoint *ck);
/* Every matrix, by itself and among others. */
void judge_weights(struct health_report *report);
/* What the configuration says of the quantisation, against the matrices. judge_declared.c */
void judge_declared(struct health_report *report, const struct checkpoint *ck);
/* Tokenizer, chat template, end tokens, against each other. judge_text.c */
void judge_text(struct health_report *report, const struct checkpoint *ck);

/* ---- for the files of the rules ---- */

const struct health_rule *judge_rule(const char *id);
/* Adds one; tensor and other may be NULL. `fmt` is printf's; what it quotes out of files is
 * escaped. */
void judge_add(struct health_report *report, const char *rule, enum health_level level,
               enum health_basis basis, const char *tensor, const char *other, double value,
               const char *fmt, ...) __attribute__((format(printf, 8, 9)));
/* Rules that look at several matrices: siblings, copies, shards. judge_groups.c */
void judge_groups(struct health_report *report);

#endif
