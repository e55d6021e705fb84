/* The rules that look at one matrix. */
#include "health/judge.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

enum { BYTE_240 = 0x77, BYTE_448 = 0x7E, FEW_BLOCKS = 64 };

void judge_add(struct health_report *r, const char *rule, enum health_level level,
               enum health_basis basis, const char *tensor, const char *other, double value,
               const char *fmt, ...) {
    const struct health_rule *row = judge_rule(rule);
    struct imp_error escaped = {0};
    char line[sizeof escaped.message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    error_set(&escaped, 0, NULL, "%s", line);
    r->findings = mem_grow(r->findings, (r->finding_count + 1) * sizeof *r->findings);
    r->findings[r->finding_count++] = (struct health_finding){
        .rule = row->id,
        .level = level,
        .basis = basis,
        .tensor = tensor,
        .other = other,
        .value = value,
        .threshold = level == HEALTH_BROKEN ? row->broken : row->weak,
        .text = arena_strndup(&r->arena, escaped.message, strlen(escaped.message))};
}

static double share(uint64_t part, uint64_t all) {
    return all ? (double)part / (double)all : 0;
}

/* The reference says that the model itself is so. */
static bool excused(const struct weights_matrix *m) {
    return m->has_reference && m->difference <= judge_rule("reference_error")->weak;
}

static enum health_level level_of(const char *rule, double value) {
    const struct health_rule *row = judge_rule(rule);
    if (value > row->broken) return HEALTH_BROKEN;
    return value > row->weak ? HEALTH_WEAK : HEALTH_NOTE;
}

/* ---- what no healthy file has ---- */

static void judge_format(struct health_report *r, const struct weights_matrix *m) {
    const struct weights_scales *s = &m->scales;
    if (s->nan)
        judge_add(r, "scale_nan", HEALTH_BROKEN, BASIS_FORMAT, m->name, NULL, (double)s->nan,
                  "%llu of %llu block scales are NaN", (unsigned long long)s->nan,
                  (unsigned long long)m->blocks);
    if (s->negative)
        judge_add(r, "scale_negative", HEALTH_BROKEN, BASIS_FORMAT, m->name, NULL,
                  (double)s->negative, "%llu of %llu block scales are negative",
                  (unsigned long long)s->negative, (unsigned long long)m->blocks);
    if (m->not_finite)
        judge_add(r, "not_finite", HEALTH_BROKEN, BASIS_FORMAT, m->name, NULL,
                  (double)m->not_finite, "%llu weights are NaN or Inf",
                  (unsigned long long)m->not_finite);
    if (m->largest == 0 && !s->nan && !m->not_finite)
        judge_add(r, "dead", HEALTH_BROKEN, BASIS_FORMAT, m->name, NULL, 0, "every weight is 0");
}

/* ---- zero codes and outliers ---- */

static void judge_zeros(struct health_report *r, const struct weights_matrix *m) {
    const double dominated = share(m->dominated, m->blocks);
    const double outliers = (double)m->inputs.outliers / (double)m->cols;
    enum health_level level = level_of("zero_codes", m->zero_share);
    if (level == HEALTH_NOTE) {
        if (dominated > judge_rule("outlier_blocks")->weak && !excused(m))
            judge_add(r, "outlier_blocks", HEALTH_WEAK, BASIS_GAUSSIAN, m->name, NULL, dominated,
                      "outliers leave half of the codes of %.1f %% of the blocks 0",
                      100 * dominated);
        return;
    }
    const bool excuse = excused(m);
    if (excuse) level = HEALTH_NOTE;
    const enum health_basis basis = excuse ? BASIS_REFERENCE : BASIS_GAUSSIAN;
    /* Outliers in some channels for all rows: not few large weights here and there. */
    if (level == HEALTH_BROKEN && outliers >= 0.02 && m->inputs.range >= 16 && dominated >= 0.5)
        judge_add(r, "smoothquant", level, basis, m->name, NULL, m->zero_share,
                  "SmoothQuant in NVFP4: input channels range over %.0fx, %.1f %% of them are "
                  "outliers, %.1f %% of the blocks are theirs, %.1f %% of the codes are 0",
                  m->inputs.range, 100 * outliers, 100 * dominated, 100 * m->zero_share);
    else
        judge_add(r, "zero_codes", level, basis, m->name, NULL, m->zero_share,
                  "%.1f %% of the codes are 0; normal distribution gives 6.8 %%%s",
                  100 * m->zero_share, excuse ? ", but the reference has them too" : "");
}

/* ---- scales ---- */

/* Many blocks at the largest byte, and not fewer than at the one before: they were cut to it. What
 * was not cut falls off towards the largest block, but for evenly distributed weights, where both
 * bytes have many blocks. */
static bool piles_up(const struct weights_matrix *m) {
    const struct weights_scales *s = &m->scales;
    if (m->blocks < FEW_BLOCKS || s->at_largest < 8) return false;
    if (s->at_largest >= 3 * s->below_largest) return true;
    return s->at_largest >= s->below_largest && share(s->below_largest, m->blocks) < 0.1;
}

static void judge_scales(struct health_report *r, const struct weights_matrix *m) {
    const struct weights_scales *s = &m->scales;
    const double zero = share(s->zero, m->blocks), top = share(s->at_largest, m->blocks);
    if (m->format != WEIGHT_NVFP4 || m->largest == 0) return;
    if (zero > judge_rule("scale_zero")->weak)
        judge_add(r, "scale_zero", excused(m) ? HEALTH_NOTE : level_of("scale_zero", zero),
                  excused(m) ? BASIS_REFERENCE : BASIS_GAUSSIAN, m->name, NULL, zero,
                  "%.1f %% of the block scales are 0, and so are their blocks", 100 * zero);
    if (!piles_up(m) || excused(m)) return;
    if (s->largest == BYTE_448 && top > judge_rule("scales_saturated")->weak)
        judge_add(r, "scales_saturated", level_of("scales_saturated", top), BASIS_GAUSSIAN, m->name,
                  NULL, top, "%.1f %% of the block scales are 448: the tensor's scale is too small",
                  100 * top);
    if (s->largest == BYTE_240 && top > judge_rule("scales_clamped_240")->broken)
        judge_add(r, "scales_clamped_240", HEALTH_BROKEN, BASIS_GAUSSIAN, m->name, NULL, top,
                  "%.1f %% of the block scales are 240 and none is larger: an encoder that ends "
                  "at 240",
                  100 * top);
}

static void judge_channels(struct health_report *r, const struct weights_matrix *m) {
    if (!m->has_codes || !(m->inputs.range > judge_rule("channel_range")->weak)) return;
    if (m->zero_share > judge_rule("zero_codes")->weak) return; /* said already */
    judge_add(r, "channel_range", HEALTH_NOTE, BASIS_GAUSSIAN, m->name, NULL, m->inputs.range,
              "the largest input channel is %.0f times the median, %lld channels are outliers",
              m->inputs.range, (long long)m->inputs.outliers);
}

/* ---- against the reference ---- */

static void judge_reference(struct health_report *r, const struct weights_matrix *m) {
    const double factor = fabs(log2(m->norm_ratio));
    if (m->other_shape)
        judge_add(r, "reference_error", HEALTH_WEAK, BASIS_REFERENCE, m->name, NULL, NAN,
                  "the reference has another shape");
    if (!m->has_reference || level_of("reference_error", m->difference) == HEALTH_NOTE) return;
    if (m->cosine > 0.97 && factor > judge_rule("reference_factor")->broken)
        judge_add(r, "reference_factor", HEALTH_BROKEN, BASIS_REFERENCE, m->name, NULL, factor,
                  "the weights are the reference's times %.4g", m->norm_ratio);
    else if (m->rescaled <= judge_rule("reference_error")->weak)
        judge_add(r, "reference_rescaled", HEALTH_NOTE, BASIS_REFERENCE, m->name, NULL, m->rescaled,
                  "off by %.3f, but by %.3f if each channel may have a factor (AWQ, SmoothQuant)",
                  m->difference, m->rescaled);
    else
        judge_add(r, "reference_error", level_of("reference_error", m->difference), BASIS_REFERENCE,
                  m->name, NULL, m->difference, "off by %.3f of the reference's norm, cosine %.4f",
                  m->difference, m->cosine);
}

/* ---- all ---- */

void judge_weights(struct health_report *r) {
    for (size_t i = 0; i < r->count; i++) {
        const struct weights_matrix *m = &r->matrices[i];
        if (m->problem) {
            judge_add(r, "unreadable", HEALTH_BROKEN, BASIS_FORMAT, m->name, NULL, NAN, "%s",
                      m->problem);
            continue;
        }
        judge_format(r, m);
        if (m->has_codes && m->largest > 0) judge_zeros(r, m);
        if (m->has_codes) judge_scales(r, m);
        judge_channels(r, m);
        judge_reference(r, m);
    }
    judge_groups(r);
}
