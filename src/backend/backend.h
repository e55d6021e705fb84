/* What a device must be able to do to run a model: memory, weights, and a table of fused ops.
 *
 * The model (model/forward) fills argument structs and calls ops in order; it never looks at device
 * memory. Pointers named device are made by alloc and may only be handed to ops, read and write.
 * Every backend implements every op; nothing is optional. A backend knows nothing of requests,
 * sequences beyond struct batch, or model families.
 *
 * Threads: one thread drives a backend (the engine's). Ops may return before the device is done;
 * only read and step_end wait. Ops cannot fail to their caller: what goes wrong on the device is
 * kept and returned by step_end. Between step_begin and step_end nothing is allocated.
 *
 * One arithmetic (docs/architecture.md): what an op gives for a row depends on that row, on its
 * sequence's earlier positions, and on the weights. Never on `rows`, on the row's place in the
 * batch, on the chunking, on the physical KV blocks, or on the number of threads. */
#ifndef IMP_BACKEND_BACKEND_H
#define IMP_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imp/imp.h"
#include "load/weight.h"

struct backend;

/* Positions of one KV block. Attention works in parts of this many positions, cut at absolute
 * positions, merged in ascending order. */
enum { KV_BLOCK_TOKENS = 64 };

/* ---- one step ---- */

/* The rows of a step, flat, in host memory; read during step_begin, and `out_row` not after.
 * The rows of one sequence stand together and have consecutive ascending positions. */
struct batch {
    int rows, seqs, out_rows;
    const int32_t *token;    /* [rows] ids, in range */
    const int32_t *position; /* [rows] absolute, from 0 */
    const int32_t *seq;      /* [rows] index into the sequences of this batch, ascending */
    const int32_t *seq_row;  /* [seqs + 1] first row of each sequence, and `rows` */
    const int32_t *blocks;   /* [seqs, max_blocks] physical block of each logical block */
    int max_blocks;
    const int32_t *out_row; /* [out_rows] rows whose logits are wanted, ascending */
};

/* The most that any step will ask for: reserve() allocates all scratch memory from it. */
struct step_limits {
    int rows, seqs, out_rows, max_blocks;
    int64_t max_cols; /* of any linear's input */
    int max_heads;    /* query heads of any layer */
    int max_head_dim;
    int64_t vocab; /* columns of the logits */
};

/* ---- weights ---- */

/* Weights stacked along their rows that share one input (q, k, v; gate, up; one alone). Each part
 * keeps its own format, block scales and multiplier. */
struct matrix {
    int64_t rows, cols; /* rows of all parts together */
    size_t bytes;       /* device memory it holds; what one use of it reads */
};
/* Rows to be gathered (embeddings). May borrow the weight's host bytes: they outlive it. */
struct table {
    int64_t rows, cols;
    size_t bytes;
};

/* ---- arguments of the ops ----
 * Shapes: R is batch.rows, or batch.out_rows where `rows` says ROWS_OUT. All matrices row-major.
 * "act" is the backend's form of an input of a matrix product (BF16 by contract, FP32 in the plain
 * reference; its order inside a row is private): act_bytes(cols) a row. Everything else is fp32. */

enum op_rows { ROWS_ALL, ROWS_OUT };

/* h[r] = table[token[r]] * scale */
struct op_embed {
    const struct table *table;
    float scale;
    float *h; /* [R, table->cols] */
};

/* out[r] = act( h[r] * (mean(h[r]^2) + eps)^-1/2 * weight ), statistics in fp32.
 * ROWS_OUT: row i of out is made from row out_row[i] of h. */
struct op_norm {
    enum op_rows rows;
    const float *h;      /* [batch.rows, cols] */
    const float *weight; /* [cols], what multiplies (1 + w already added); NULL: ones */
    float eps;
    int64_t cols;
    void *out; /* act [R, cols] */
};

/* y[r] = x[r] W^T + bias (STORE), or y[r] += the same (ADD).
 * Each product is a sum in one fixed order of K that depends on the shape and format of W alone. */
enum linear_mode { LINEAR_STORE, LINEAR_ADD };
struct op_linear {
    enum op_rows rows;
    enum linear_mode mode;
    const struct matrix *matrix;
    const void *x; /* act [R, matrix->cols] */
    float *y;      /* [R, matrix->rows] */
};

/* cos and sin of position * frequency times amplitude, in fp32, for each row:
 * out[r][2 i] = A cos(p f_i), out[r][2 i + 1] = A sin(p f_i). The product p f_i is rounded to fp32
 * before the cosine, as transformers does. */
struct op_rope_angles {
    const float *frequency; /* [pairs] */
    int pairs;
    float amplitude;
    float *out; /* [R, pairs, 2] */
};

/* Splits q, k, v; norms q and k per head (if weights are given); rotates pairs (i, i + pair_offset)
 * of q and k for i < pairs, other dims unchanged; multiplies q by q_scale; writes k and v into the
 * sequence's KV blocks at the row's position. */
struct op_qkv {
    const float *qkv; /* [R, (heads + 2 kv_heads) * head_dim]: q heads, k heads, v heads */
    int heads, kv_heads, head_dim;
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float eps;
    const float *angles; /* [R, pairs, 2] of op_rope_angles */
    int pairs, pair_offset;
    float q_scale;
    void *q;  /* act [R, heads * head_dim] */
    void *kv; /* this layer's KV blocks */
};

/* Query head j reads kv head j / (heads / kv_heads). Score s = q k (q_scale is in q already),
 * softcap c > 0: c tanh(s / c). Row at position p sees positions q with p - window < q <= p (window
 * 0: all). Softmax in fp32; with sinks one more logit per head enters the denominator alone. Parts
 * as said at KV_BLOCK_TOKENS: m = -inf, l = 0, o = 0; each part in ascending order of position. */
struct op_attention {
    const void *q;  /* act [R, heads * head_dim] */
    const void *kv; /* this layer's KV blocks */
    int heads, kv_heads, head_dim;
    int window;
    float softcap;
    const float *sinks; /* [heads] or NULL */
    void *out;          /* act [R, heads * head_dim] */
};

/* out = act( f(gate) * up ) */
enum glu_kind { GLU_SILU, GLU_GELU_TANH };
struct op_glu {
    enum glu_kind kind;
    const float *gate_up; /* [R, 2 cols]: gate, then up */
    int64_t cols;
    void *out; /* act [R, cols] */
};

/* Draws one token per row of logits. Order: repetition, presence and frequency penalties, then
 * temperature, top-k, top-p, min-p over what is left, then the draw by rng_uniform(seed, 0,
 * position). Ties go to the lower id. temperature 0: the largest logit after penalties. */
struct sample_row {
    float temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    int32_t top_k;
    uint64_t seed, position;
    const int32_t *seen;      /* [seen_count] distinct ids of prompt and answer, any order */
    const int32_t *generated; /* [seen_count] how often the answer holds each (0: prompt only) */
    int seen_count;
    int top_count; /* of most likely ids wanted, 0 .. CAP_LOGPROBS */
    bool want_logprob;
};
struct sample_result {
    int32_t token;
    bool finite; /* false: the row held NaN or +Inf; token is then 0 and must not be used */
    uint64_t logits_hash;
    float logprob; /* natural log of softmax(raw logits)[token] */
    int32_t top_ids[20];
    float top_logprobs[20]; /* descending; ties: lower id first */
};
struct op_sample {
    const float *logits; /* device [out_rows, vocab] */
    int64_t vocab;       /* columns of logits */
    int64_t usable;      /* ids at and past this are never drawn (padding rows of the head) */
    const int32_t *row;  /* [count] which rows of logits */
    const struct sample_row *params; /* [count] host */
    struct sample_result *results;   /* [count] host, filled when it returns */
    int count;
};

/* ---- the table ---- */

struct backend_ops {
    void (*destroy)(struct backend *be);

    /* Device memory, for the lifetime of a plan: uninitialised. free accepts NULL. */
    int (*alloc)(struct backend *be, size_t bytes, void **out, struct imp_error *err);
    void (*free)(struct backend *be, void *device);
    void (*write)(struct backend *be, void *device, const void *host, size_t bytes);
    void (*read)(struct backend *be, void *host, const void *device, size_t bytes); /* waits */

    /* bias[i]: [parts[i].rows] host fp32 or NULL; bias itself may be NULL. */
    int (*matrix_create)(struct backend *be, const struct weight *parts, int count,
                         const float *const *bias, struct matrix **out, struct imp_error *err);
    void (*matrix_free)(struct backend *be, struct matrix *matrix);
    size_t (*matrix_bytes)(struct backend *be, const struct weight *parts, int count);
    int (*table_create)(struct backend *be, const struct weight *weight, struct table **out,
                        struct imp_error *err);
    void (*table_free)(struct backend *be, struct table *table);

    size_t (*act_bytes)(struct backend *be, int64_t cols);
    /* rows of an act as fp32 in their plain order, to host memory: for taps and traces. Waits. */
    void (*act_read)(struct backend *be, const void *act, int rows, int64_t cols, float *host);
    size_t (*kv_block_bytes)(struct backend *be, int kv_heads,
                             int head_dim); /* one layer, K and V */
    size_t (*scratch_bytes)(struct backend *be, const struct step_limits *max);
    int (*reserve)(struct backend *be, const struct step_limits *max, struct imp_error *err);

    void (*step_begin)(struct backend *be, const struct batch *batch);
    int (*step_end)(struct backend *be, struct imp_error *err);

    void (*embed)(struct backend *be, const struct op_embed *op);
    void (*norm)(struct backend *be, const struct op_norm *op);
    void (*linear)(struct backend *be, const struct op_linear *op);
    void (*rope_angles)(struct backend *be, const struct op_rope_angles *op);
    void (*qkv)(struct backend *be, const struct op_qkv *op);
    void (*attention)(struct backend *be, const struct op_attention *op);
    void (*glu)(struct backend *be, const struct op_glu *op);
    void (*sample)(struct backend *be, const struct op_sample *op);
};

/* The head of every backend; the rest is private to it. */
struct backend {
    const struct backend_ops *ops;
    char name[80]; /* "cpu, AVX-512 BF16, 2 threads" */
};

enum backend_kind { BACKEND_CPU, BACKEND_CPU_REFERENCE, BACKEND_GPU };
struct backend_options {
    enum backend_kind kind;
    int threads;     /* >= 1 */
    bool round_bf16; /* reference only: round where the contract rounds (act and KV to BF16) */
    const char *isa; /* fast CPU only: NULL the best, or "avx512", "avx2", "portable" */
};
int backend_open(const struct backend_options *options, struct backend **out,
                 struct imp_error *err);
void backend_close(struct backend *be); /* NULL is fine */

#endif
