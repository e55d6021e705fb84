/* The thresholds. docs/weights.md has the measurements behind them. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "health/judge.h"

const struct health_rule health_rules[] = {
    {"unreadable", NAN, NAN, "the tensor cannot be read", "the formats"},
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
    {"input_inverted", NAN, 1, "scale of a linear's input, where 1 over it is what siblings have",
     "healthy models measured: 0.0008 to 0.022"},
    {"input_scale", NAN, NAN, "linears without a usable input scale, where the others have one",
     "calibration that did not reach an expert"},
    {"reference_error", 0.2, 0.5, "relative RMS error against the reference",
     "NVFP4 and MXFP4 give 0.05 to 0.2, mostly 0.1"},
    {"reference_factor", NAN, 0.2, "log2 of the ratio of norms of matrices that are parallel",
     "quantisation keeps the norm"},
    {"reference_rescaled", NAN, NAN,
     "error against the reference that a factor for each channel explains",
     "AWQ and SmoothQuant move factors between layers"},
    /* ---- one file against another ---- */
    {"config", NAN, NAN, "config.json is one of a model", "its fields"},
    {"tensor_missing", NAN, NAN, "tensors that the model of config.json needs", "config.json"},
    {"tensor_shape", NAN, NAN, "tensors that have another shape there", "config.json"},
    {"tensor_extra", NAN, NAN, "tensors that the model has no use for", "config.json"},
    {"ignored_quantised", NAN, NAN, "quantised linears on the list of those that are not",
     "the quantisation's configuration"},
    {"target_plain", NAN, NAN, "unquantised linears that are to be quantised",
     "the quantisation's configuration"},
    {"ignore_unmatched", NAN, NAN, "names on the list of the unquantised that nothing has",
     "the quantisation's configuration"},
    {"format", NAN, NAN, "formats that are announced or stored, but not both",
     "the quantisation's configuration"},
    {"dialect", NAN, NAN, "tensors by the names of the other maker of tools",
     "the quantisation's configuration"},
    {"tokenizer", NAN, NAN, "the tokenizer is there and can be read", "its own file"},
    {"tokenizer_size", 0.9, 1, "ids over the model's rows; weak below, broken above",
     "Qwen3 has 0.998, most models 1, the smallest here 0.94"},
    {"tokenizer_regex", NAN, NAN, "Mistral's vocabulary under Llama 3's expression",
     "transformers' warning of an incorrect regex pattern"},
    {"template", NAN, NAN, "the chat template is there, is read, renders a question and its answer",
     "its own file"},
    {"template_tokens", NAN, NAN, "markers of the template that are tokens", "the tokenizer"},
    {"eos", NAN, NAN, "there are end tokens, and the tokenizer knows them",
     "config.json, generation_config.json"},
    {"eos_of_turn", NAN, NAN, "the token behind a reply in the template is an end token",
     "config.json, generation_config.json"},
};
const size_t health_rule_count = sizeof health_rules / sizeof *health_rules;

const struct health_rule *judge_rule(const char *id) {
    size_t i = 0;
    while (i < health_rule_count && strcmp(health_rules[i].id, id) != 0) i++;
    check(i < health_rule_count);
    return &health_rules[i];
}

const char *health_level_name(enum health_level level) {
    static const char *const names[] = {"note", "weak", "broken"};
    return names[level];
}

const char *health_basis_name(enum health_basis basis) {
    static const char *const names[] = {"format", "gaussian", "siblings", "reference", "files"};
    return names[basis];
}
