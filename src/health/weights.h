/* Whether the weights of a checkpoint are any good: statistics of every linear, taken in one pass,
 * and findings, computed by rules from the statistics. Nothing is printed here.
 *
 * A matrix is a linear of the language model, or gate, up or down of one expert, however the file
 * stores experts. docs/weights.md explains the numbers and the thresholds. weights_examine reads
 * with as many threads as it is told; its results depend on their number in no bit. */
#ifndef IMP_HEALTH_WEIGHTS_H
#define IMP_HEALTH_WEIGHTS_H

#include "load/checkpoint.h"

enum { WEIGHTS_CODES = 16, WEIGHTS_SCALE_BINS = 16 };

/* Largest magnitude of each output channel (row) or input channel (column). */
struct weights_channels {
    double largest, median;
    double range;     /* largest over median; Inf where the median is 0 and the largest is not */
    int64_t outliers; /* channels over WEIGHTS_OUTLIER medians; of a median of 0, all but zeros */
};
#define WEIGHTS_OUTLIER 8.0

struct weights_matrix {
    const char *name;  /* of the module; "...experts.3.gate_proj" also where the file has a stack */
    const char *part;  /* what its siblings share: "self_attn.q_proj", "mlp.experts.gate_proj" */
    int layer, expert; /* -1: none */
    const char *problem; /* NULL, or why it cannot be read: nothing below is then known */
    enum weight_format format;
    int64_t rows, cols;
    uint64_t bytes;                      /* codes and scales */
    double multiplier, input_multiplier; /* struct weight */
    uint64_t hash;                       /* of codes, or values, and block scales */
    double rms, largest;
    double zero_share;   /* weights that are 0 by their code */
    uint64_t not_finite; /* FP8, BF16, F16, F32: NaN and Inf */
    struct weights_channels outputs, inputs;

    /* ---- NVFP4 and MXFP4 ---- */
    bool has_codes;
    uint64_t codes[WEIGHTS_CODES];
    uint64_t blocks;
    uint64_t dominated; /* at least half of its codes zero, but not all: outliers made the scale */
    uint64_t single;    /* one code at least 4 times any other's magnitude */
    double error;       /* expected of the rounding, relative RMS; see docs/weights.md */
    struct weights_scales {
        uint64_t zero, saturated, nan, negative; /* saturated: 448 */
        int smallest, largest;                   /* as bytes, of those that are numbers; -1: none */
        uint64_t bins[WEIGHTS_SCALE_BINS];       /* by exponent; E8M0: upper half */
        uint64_t at_largest, below_largest;      /* blocks with that byte; with the one before */
        double sixes_largest, sixes_rest; /* codes of magnitude 6 a block, there and elsewhere */
    } scales;

    /* ---- with a reference ---- */
    bool has_reference; /* one of the same part, layer, expert and shape */
    bool other_shape;   /* there is one of another shape */
    double difference;  /* relative RMS error against it */
    double cosine, norm_ratio;
    double
        rescaled; /* the error that is left if every channel, input or output, may have a factor */
};

enum weights_level { WEIGHTS_NOTE, WEIGHTS_WEAK, WEIGHTS_BROKEN, WEIGHTS_LEVELS };
enum weights_basis {
    BASIS_FORMAT,    /* no number of a healthy file can be so */
    BASIS_GAUSSIAN,  /* what normally distributed weights would give, and nothing else */
    BASIS_SIBLINGS,  /* the same part in other layers, or other experts */
    BASIS_REFERENCE, /* the other model */
};

struct weights_finding {
    const char *rule; /* "zero_codes": a row of weights_rules */
    enum weights_level level;
    enum weights_basis basis;
    const char *tensor; /* a matrix's name, or NULL: the whole checkpoint */
    const char *other;  /* a second one, or NULL */
    double value, threshold;
    const char *text; /* one sentence with the numbers */
};

struct weights_rule {
    const char *id;
    double weak, broken; /* thresholds; NAN: the rule has no such level, or is no threshold */
    const char *meaning; /* what is measured, against what */
    const char *source;  /* where the thresholds come from */
};
extern const struct weights_rule weights_rules[];
extern const size_t weights_rule_count;

struct weights_report {
    const char *path, *reference;    /* the latter NULL without one */
    struct weights_matrix *matrices; /* by layer, then name */
    size_t count;
    struct weights_finding *findings; /* the worst first */
    size_t finding_count;
    uint64_t bytes;  /* read, of the checkpoint itself */
    double seconds;  /* for reading them, without opening */
    size_t compared; /* matrices that found a reference */
    struct arena arena;
};

/* ck (and reference, or NULL) must be open and are changed: scales are no longer checked. The
 * report keeps nothing of them. IMP_ERR_FILE without a single linear. */
int weights_examine(struct checkpoint *ck, struct checkpoint *reference, int threads,
                    struct weights_report *out, struct imp_error *err);
void weights_report_free(struct weights_report *report); /* zeroed is fine */

enum weights_level weights_worst(const struct weights_report *report); /* NOTE without findings */
const char *weights_level_name(enum weights_level level);              /* "broken" */
const char *weights_basis_name(enum weights_basis basis);              /* "siblings" */

/* One JSON document, as docs/inspect-weights.schema.json has it; and CSV, a line for each matrix.
 */
void weights_report_json(const struct weights_report *report, struct str *out);
void weights_report_csv(const struct weights_report *report, struct str *out);

#endif
