/* What the files of the GGUF import share: reading keys with a range and a name for the error. */
#ifndef IMP_LOAD_GGUF_IMPORT_INTERNAL_H
#define IMP_LOAD_GGUF_IMPORT_INTERNAL_H

#include "load/gguf_import.h"

/* The model's numbers, checked against each other. */
struct gguf_shape {
    int64_t layers, hidden, width, heads, kv_heads, head_dim, context, vocab;
    double eps, theta;
    bool tied, attention_bias;
    bool permuted; /* rows of q and k lie in the order of interleaved RoPE */
};

/* A whole number of key `key`, or `absent` if there is none (absent < min: the key must be there).
 */
int gguf_key_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t absent,
                 int64_t *out, struct imp_error *err);
int gguf_key_float(const struct gguf *g, const char *key, double min, double max, double absent,
                   double *out, struct imp_error *err);
int gguf_key_bool(const struct gguf *g, const char *key, bool absent, bool *out,
                  struct imp_error *err);
/* {NULL, 0} if absent. */
int gguf_key_string(const struct gguf *g, const char *key, struct slice *out,
                    struct imp_error *err);

/* "PATH: key KEY" as place of an error. */
int gguf_key_error(const struct gguf *g, const char *key, int code, struct imp_error *err,
                   const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* Config texts; arena and shape are filled already. */
int gguf_write_config(struct gguf_import *in, const struct gguf_shape *shape,
                      struct imp_error *err);
int gguf_write_tokenizer(struct gguf_import *in, const struct gguf_shape *shape,
                         struct imp_error *err);

#endif
