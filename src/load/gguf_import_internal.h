/* What the files of the GGUF import share: reading keys with a range and a name for the error. */
#ifndef IMP_LOAD_GGUF_IMPORT_INTERNAL_H
#define IMP_LOAD_GGUF_IMPORT_INTERNAL_H

#include "load/gguf_import.h"

/* What the converter of llama.cpp makes of a family. */
struct gguf_architecture {
    const char *name;                    /* "qwen3moe" */
    const char *model_type, *class_name; /* Hugging Face's: "qwen3_moe", "Qwen3MoeForCausalLM" */
    const char *const *keys;             /* of this one alone, NULL at the end; or NULL */
    bool permuted;                       /* rows of q and k in the order of interleaved RoPE */
    bool biased;         /* always biases of q, k, v and never of the output; no field says so */
    bool qk_norm;        /* norms of q and k per head */
    bool post_norms;     /* norms of the mixer's and the ffn's output: Gemma 3 */
    bool norms_from_one; /* one was added to norm weights */
    bool mixture;
};

/* The model's numbers, checked against each other. */
struct gguf_shape {
    const struct gguf_architecture *arch;
    int64_t layers, hidden, width, heads, kv_heads, head_dim, context, vocab;
    double eps, theta;
    bool tied, attention_bias;
    int64_t experts, top_k, expert_width;         /* experts 0: none */
    int64_t window, window_pattern, query_scalar; /* of Gemma 3; window 0: none */
    double window_theta, logit_softcap;           /* softcap 0: none */
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

/* "PATH: tensor NAME" as place of an error. */
int gguf_tensor_error(const struct gguf *g, const char *name, int code, struct imp_error *err,
                      const char *what);
/* "PATH: key KEY" as place of an error. */
int gguf_key_error(const struct gguf *g, const char *key, int code, struct imp_error *err,
                   const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* in->tensors; IMP_ERR_UNSUPPORTED for a tensor that has no place. */
int gguf_make_table(struct gguf_import *in, const struct gguf_shape *shape, struct imp_error *err);
/* Config texts; arena and shape are filled already. */
int gguf_write_config(struct gguf_import *in, const struct gguf_shape *shape,
                      struct imp_error *err);
int gguf_write_tokenizer(struct gguf_import *in, const struct gguf_shape *shape,
                         struct imp_error *err);

#endif
