/* Moments of what every linear reads: h[k] = mean over tokens of x_k^2.
 *
 * A struct moments owns its names and vectors until moments_free. Filled by one thread; reading is
 * safe from any thread once nobody adds. */
#ifndef IMP_QUANTIZE_CALIBRATE_H
#define IMP_QUANTIZE_CALIBRATE_H

#include "base/arena.h"
#include "base/log.h"
#include "base/map.h"
#include "imp/imp.h"

struct moments_entry {
    const char
        *module;    /* of policy_input: "model.layers.0.self_attn.q_proj", as the files spell it */
    const float *h; /* [cols]; modules that read the same input may share one */
    int64_t cols;
};

struct moments { /* zero-initialise to start */
    struct moments_entry *entries;
    size_t count, capacity;
    struct map by_module; /* into entries */
    struct arena arena;
};

/* Copies the name and, unless h is the same pointer as the last one added gave back, the vector.
 * Returns the stored vector, to be handed in again for a module with the same input. All values
 * are >= 0 and finite. Adding a module twice is a programmer's error. */
const float *moments_add(struct moments *m, const char *module, const float *h, int64_t cols);
/* NULL if the module was never added. */
const struct moments_entry *moments_find(const struct moments *m, const char *module);
void moments_free(struct moments *m); /* zeroed is fine */

/* Runs `tokens` uniform random ids (counter-based, seed 0) through the model in `folder`, a
 * complete SafeTensors checkpoint in BF16, F16 or F32, in windows from an empty cache, at the
 * precision of the fp32 reference, and adds the moments of every linear that it has. Those of an
 * expert are over the rows that chose it, with the layer's average mixed in, so that one that no
 * row chose is weighted like its layer. progress may be NULL; non-zero from it is
 * IMP_ERR_CANCELLED. On failure *out is empty. */
struct calibrate_options {
    const char *folder;
    uint32_t tokens, threads; /* threads 0: all */
    imp_progress_fn progress; /* stage "calibrate", unit "tokens" */
    void *progress_ctx;
    const struct log *log;
};
int calibrate_input_moments(const struct calibrate_options *options, struct moments *out,
                            struct imp_error *err);

#endif
