/* Whether a checkpoint is any good: statistics of every linear, taken in one pass, and findings, by
 * rules over the statistics and over what the checkpoint's files say of each other. Nothing is
 * printed here.
 *
 * A matrix is a linear of the language model, or gate, up or down of one expert, however the file
 * stores experts. docs/weights.md explains the numbers and the thresholds. health_examine reads
 * with as many threads as it is told; its results depend on their number in no bit. */
#ifndef IMP_HEALTH_HEALTH_H
#define IMP_HEALTH_HEALTH_H

#include "base/arena.h"
#include "base/str.h"
#include "imp/imp.h"
#include "load/weight.h"

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

enum health_level { HEALTH_NOTE, HEALTH_WEAK, HEALTH_BROKEN, HEALTH_LEVELS };
enum health_basis {
    BASIS_FORMAT,    /* no number of a healthy file can be so */
    BASIS_GAUSSIAN,  /* what normally distributed weights would give, and nothing else */
    BASIS_SIBLINGS,  /* the same part in other layers, or other experts */
    BASIS_REFERENCE, /* the other model */
    BASIS_FILES,     /* another file of the checkpoint */
};

struct health_finding {
    const char *rule; /* "zero_codes": a row of health_rules */
    enum health_level level;
    enum health_basis basis;
    const char *tensor; /* of a matrix or tensor, or NULL: the whole checkpoint */
    const char *other;  /* a second one, or NULL */
    double value, threshold;
    const char *text; /* one sentence with the numbers */
};

struct health_rule {
    const char *id;
    double weak, broken; /* thresholds; NAN: the rule has no such level, or is no threshold */
    const char *meaning; /* what is measured, against what */
    const char *source;  /* where the thresholds come from */
};
extern const struct health_rule health_rules[];
extern const size_t health_rule_count;

struct health_report {
    const char *path, *reference;    /* the latter NULL without one */
    struct weights_matrix *matrices; /* by layer, then name */
    size_t count;
    struct health_finding *findings; /* the worst first */
    size_t finding_count;
    uint64_t bytes;  /* read, of the checkpoint itself */
    double seconds;  /* for reading them, without opening */
    size_t compared; /* matrices that found a reference */
    struct arena arena;
};

/* path: as checkpoint_open takes it; reference: the same model in another format, or NULL. What is
 * wrong inside the files is a finding; an error is what leaves nothing to examine: files that
 * cannot be opened or are cut short, a broken config.json, not a single linear. */
int health_examine(const char *path, const char *reference, int threads, struct health_report *out,
                   struct imp_error *err);
void health_report_free(struct health_report *report); /* zeroed is fine */

/* The verdict: HEALTH_BROKEN, or what is still healthy. */
enum health_level health_worst(const struct health_report *report); /* NOTE without findings */
const char *health_level_name(enum health_level level);             /* "broken" */
const char *health_basis_name(enum health_basis basis);             /* "siblings" */

/* One JSON object, as docs/inspect-weights.schema.json has it; and CSV, a line for each matrix. */
void health_report_json(const struct health_report *report, struct str *out);
void health_report_csv(const struct health_report *report, struct str *out);

#endif
