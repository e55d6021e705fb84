/* What is quantised: a GGUF file or a SafeTensors folder as one list of tensors and small files.
 *
 * Owns the mappings and every name; all of it lives until source_close. Rows are converted one by
 * one from the mapping, so nothing here grows with the model. Immutable after opening; any thread
 * may read rows. */
#ifndef IMP_QUANTIZE_SOURCE_H
#define IMP_QUANTIZE_SOURCE_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/caps.h"
#include "base/log.h"
#include "imp/imp.h"
#include "num/dtype.h"

struct source_tensor {
    const char *name; /* Hugging Face's: "model.layers.0.mlp.up_proj.weight" */
    enum dtype dtype; /* of a float type rows are read, and BF16 or NVFP4 is written */
    int dims;
    int64_t shape[CAP_TENSOR_DIMS];
    int64_t rows, cols; /* cols: the last dimension (1 for a scalar); rows: all others together */
    const uint8_t *raw; /* the bytes as they stand, where `dtype` says what they are; else NULL: a
                           tensor that is no float is then made by read_bytes */
    bool as_it_is;      /* raw is copied: no float, or one that must not be rounded */
};

struct source_file { /* a file of the new folder that the source already has */
    const char *name;
    const char *text; /* zero-terminated content, or NULL: */
    const char *path; /* copy this file */
};

struct source {
    const char *path; /* as given */
    bool is_folder;
    struct source_tensor *tensors;
    size_t tensor_count;
    const char *config;        /* config.json as text */
    struct source_file *files; /* all but config.json and weights */
    size_t file_count;
    struct arena arena;
    void *state; /* of the kind that opened it */
    int (*read)(const struct source *s, size_t tensor, int64_t first, int64_t count, float *out,
                struct imp_error *err);
    /* The same rows as bytes; only where a tensor needs it. */
    void (*read_bytes)(const struct source *s, size_t tensor, int64_t first, int64_t count,
                       uint8_t *out);
    void (*close)(struct source *s);
};

/* A checkpoint that is quantised already is IMP_ERR_UNSUPPORTED, but for gpt-oss's MXFP4. split:
 * experts stored in stacks are listed one by one, as makers name them ("experts.7.up_proj"). */
int source_open(const char *path, bool split, const struct log *log, struct source *out,
                struct imp_error *err);
void source_close(struct source *s); /* zeroed or half-built is fine */

/* Rows first .. first + count - 1 of a float tensor as fp32, out[count][cols]. A value that is not
 * finite is IMP_ERR_FILE naming tensor and row. */
int source_read(const struct source *s, size_t tensor, int64_t first, int64_t count, float *out,
                struct imp_error *err);

bool source_is_float(enum dtype dtype); /* F64, F32, F16, BF16 */

/* The two kinds; `out` arrives zeroed but for `path`, and source_close unwinds a failure. */
int source_open_gguf(struct source *out, struct imp_error *err);
int source_open_folder(const struct log *log, bool split, struct source *out,
                       struct imp_error *err);

#endif
