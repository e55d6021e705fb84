/* The thresholds. docs/weights.md has the measurements behind them. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "health/judge.h"

const struct weights_rule weights_rules[] = {
    {"unreadable", NAN, NAN, "the linear cannot be read", "the formats"},
    {"scale_nan", NAN, 0, "block scales that are NaN", "E4M3 and E8M0"},
    {"scale_negative", NAN, 0, "block scales with a sign", "block scales are magnitudes"},
    {"not_finite", NAN, 0, "weights that are NaN or Inf", "no healthy weight is"},
    {"dead", NAN, 0, "all weights are 0", "no healthy linear is"},
    {"global_range", NAN, 1e4, "largest weight, or 1 over it, by the tensor's scale",
     "healthy models measured: 0.1 to 9"},
    {"global_inverted", NAN, 1e4, "the same, and 1 over the scale is what siblings have",
     "healthy models measured: 0.1 to 9"},
    {"scale_zero", 0.01, 0.25, "share of block scales that are 0",
     "a judgement: block scales underflow below 1/450,000 of the largest"},
    {"zero_codes", 0.2, 0.25, "share of zero codes", "normal distribution 0.068, Laplace 0.128"},
    {"smoothquant", NAN, 0.25,
     "share of zero codes, where channels are outliers and most blocks are theirs",
     "one real case: 0.45 with 20 % outlier channels and 98 % of the blocks hit"},
    {"outlier_blocks", 0.1, NAN, "share of blocks with half of their codes 0",
     "normal distribution 5e-6, Laplace 0.0016"},
    {"scales_saturated", 0.01, 0.05, "share of block scales at 448 that clip their blocks",
     "a maker's rule reaches 448 in the largest block"},
    {"scales_clamped_240", NAN, 0.005, "share of block scales at 240, above which there is none",
     "an encoder that takes exponent 15 for NaN"},
    {"channel_range", 64, NAN, "largest input channel over the median",
     "healthy models measured: up to 12"},
    {"expert_factor", NAN, 0.15,
     "distance of an expert's norm from a power of two of its siblings'",
     "experts of a layer are of one size"},
    {"norm", 4, NAN, "RMS over the median of its siblings, or 1 over it",
     "a judgement: no healthy model measured has a finding"},
    {"copy", NAN, 0, "two matrices of the same bytes", "no two trained linears are"},
    {"globals_of_shards", 1, NAN, "ratio of the tensor scales of linears that runtimes fuse",
     "makers share one"},
    {"reference_error", 0.2, 0.5, "relative RMS error against the reference",
     "NVFP4 and MXFP4 give 0.05 to 0.2, mostly 0.1"},
    {"reference_factor", NAN, 0.2, "log2 of the ratio of norms of matrices that are parallel",
     "quantisation keeps the norm"},
    {"reference_rescaled", NAN, NAN,
     "error against the reference that a factor for each channel explains",
     "AWQ and SmoothQuant move factors between layers"},
};
const size_t weights_rule_count = sizeof weights_rules / sizeof *weights_rules;

const struct weights_rule *judge_rule(const char *id) {
    size_t i = 0;
    while (i < weights_rule_count && strcmp(weights_rules[i].id, id) != 0) i++;
    check(i < weights_rule_count);
    return &weights_rules[i];
}

const char *weights_level_name(enum weights_level level) {
    static const char *const names[] = {"note", "weak", "broken"};
    return names[level];
}

const char *weights_basis_name(enum weights_basis basis) {
    static const char *const names[] = {"format", "gaussian", "siblings", "reference"};
    return names[basis];
}
