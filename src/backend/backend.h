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

/* Layers that see everything and layers that see a window have block tables of their own, so that
 * what a window has left behind can be given back. */
enum kv_group { KV_FULL, KV_WINDOW, KV_GROUPS };

/* ---- one step ---- */

/* The rows of a step, flat, in host memory; read during step_begin, and `out_row` not after.
 * The rows of one sequence stand together and have consecutive ascending positions. */
struct batch {
    int rows, seqs, out_rows;
    const int32_t *token;    /* [rows] ids, in range */
    const int32_t *position; /* [rows] absolute, from 0 */
    const int32_t *seq;      /* [rows] index into the sequences of this batch, ascending */
    const int32_t *seq_row;  /* [seqs + 1] first row of each sequence, and `rows` */
    /* [seqs, max_blocks] physical block of each logical block; of KV_WINDOW only those are valid
     * that a row of this step sees or writes */
    const int32_t *blocks[KV_GROUPS];
    int max_blocks;
    const int32_t *slot;    /* [seqs] where the sequence keeps its recurrent state */
    const int32_t *out_row; /* [out_rows] rows whose logits are wanted, ascending */
};

/* Heads and their dims of a gated delta net: see op_gdn. */
struct gdn_shape {
    int key_heads, value_heads, key_dim, value_dim;
};

/* The most that any step will ask for: reserve() allocates all scratch memory from it. */
struct step_limits {
    int rows, seqs, out_rows, max_blocks;
    int64_t max_cols; /* of any linear's input */
    int max_heads;    /* query heads of any layer */
    int max_head_dim;
    int64_t vocab; /* columns of the logits */
    /* mixtures of experts: the largest of any layer; 0: none */
    int moe_top_k;
    int64_t moe_width, moe_hidden;
    struct gdn_shape
        gdn; /* gated delta nets: the largest of any layer, number by number; 0: none */
};

/* ---- weights ---- */

/* Weights stacked along their rows that share one input (q, k, v; gate, up; one alone). Each part
 * keeps its own format, block scales and multiplier. */
struct matrix {
    int64_t rows, cols; /* rows of all parts together */
    size_t bytes;       /* device memory it holds; what one use of it reads */
};
/* The experts of one layer, each a gate_up and a down matrix; owns them. */
struct experts {
    int count;
    int64_t width, hidden;
    size_t bytes;
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

/* out[r] = act( x[r] ) */
struct op_convert {
    const float *x; /* [R, cols] */
    int64_t cols;
    void *out; /* act [R, cols] */
};

/* y[i] = scale * n[i] (STORE), or y[i] = scale * (y[i] + n[i]) (ADD), for each of `groups` parts of
 * cols in every row, where n[i] = x[i] * (mean(x[i]^2) + eps)^-1/2 * weight. */
enum linear_mode { LINEAR_STORE, LINEAR_ADD };
struct op_post_norm {
    enum linear_mode mode;
    const float *x;      /* [R, groups, cols] */
    const float *weight; /* [cols]; NULL: ones */
    float eps, scale;
    int64_t groups, cols;
    float *y; /* [R, groups, cols] */
};

/* y[r] = x[r] W^T + bias (STORE), or y[r] += the same (ADD). A weight's pre_scale multiplies x
 * first, rounded as an act is; with nvfp4_activations what an NVFP4 weight sees of that is
 * nvfp4_round_activation's, whose multiplier multiplies with the weight's own.
 * Each product is a sum in one fixed order of K that depends on the shape and format of W alone. */
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

/* Splits q, k, v; norms q and k per head (if weights are given) and v (if asked, without weights);
 * rotates pairs (i, i + pair_offset) of q and k for i < pairs, other dims unchanged; multiplies q
 * by q_scale, and by 1 + q_growth ln(1 + floor(position / q_growth_tokens)); writes k and v into
 * the sequence's KV blocks at the row's position. Without kv only q is there and made. */
struct op_qkv {
    const float *qkv; /* [R, row_cols]: q heads, k heads, v heads unless v_from_k */
    int64_t row_cols;
    int heads, kv_heads, head_dim;
    int q_step;    /* from one q head to the next: head_dim, or more where a gate lies between */
    bool v_from_k; /* v is what k was before its norm */
    bool v_norm;
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float eps;
    const float *angles; /* [R, pairs, 2] of op_rope_angles */
    int pairs, pair_offset;
    float q_scale, q_growth; /* q_growth 0: none */
    float q_growth_tokens;
    enum kv_group group;
    void *q;  /* act [R, heads * head_dim] */
    void *kv; /* this layer's KV blocks, or NULL */
};

/* Query head j reads kv head j / (heads / kv_heads). Score s = q k (q_scale is in q already),
 * softcap c > 0: c tanh(s / c). Row at position p sees positions q with p - window < q <= p (window
 * 0: all). Softmax in fp32; with sinks one more logit per head enters the denominator alone. Parts
 * as said at KV_BLOCK_TOKENS: m = -inf, l = 0, o = 0; each part in ascending order of position.
 * With a gate g the head's output is multiplied by 1 / (1 + e^-g), element by element. */
struct op_attention {
    const void *q;  /* act [R, heads * head_dim] */
    const void *kv; /* this layer's KV blocks */
    int heads, kv_heads, head_dim;
    enum kv_group group;
    int window;
    float softcap;
    const float *sinks; /* [heads] or NULL */
    const float *gate;  /* head j of row r at gate + r * gate_row + j * gate_step, or NULL */
    int64_t gate_row;
    int gate_step;
    void *out; /* act [R, heads * head_dim] */
};

/* out = act( f(gate) * up * 1 / (1 + e^-row_gate) ). GLU_CLAMPED (gpt-oss) is, with g and u cut at
 * limit (g from above only), g / (1 + e^(-1.702 g)) * (u + 1). */
enum glu_kind { GLU_SILU, GLU_GELU_TANH, GLU_CLAMPED };
struct op_glu {
    enum glu_kind kind;
    float limit;
    const float *gate, *up;   /* element k of row r at [r * row + k * step] */
    int64_t gate_row, up_row; /* floats from one row to the next */
    int step;                 /* 1, or 2 where gate and up alternate */
    const float *row_gate;    /* [r * gate_row] one number a row, or NULL: no such factor */
    int64_t cols;
    void *out; /* act [R, cols] */
};

/* op_linear into y, then op_glu on it. y need not be written: a kernel may keep it to itself. */
struct op_linear_glu {
    const struct matrix *matrix; /* rows: gate, then up */
    const void *x;               /* act [R, matrix->cols] */
    float *y;                    /* [R, matrix->rows]; what glu reads lies in it */
    struct op_glu glu;
};

/* Picks each row's experts, all in fp32: n = h * (mean(h^2) + eps)^-1/2 * norm; logits n W^T +
 * bias; the top_k largest (ties: the lower index), descending; weights their softmax (renormalize),
 * or the softmax over all experts; times expert_scale of the chosen. */
struct op_route {
    const float *h;    /* [R, cols] */
    const float *norm; /* [cols] or NULL: ones */
    float eps;
    int64_t cols;
    const float *router;       /* [experts, cols] */
    const float *bias;         /* [experts] or NULL */
    const float *expert_scale; /* [experts] or NULL */
    int experts, top_k;        /* top_k <= MOE_MAX_TOP_K */
    bool renormalize;
    int32_t *expert; /* [R, top_k] */
    float *weight;   /* [R, top_k] */
};
enum { MOE_MAX_TOP_K = 64 };

/* y[r] = (or +=) sum over slots, ascending, of weight * expert(x[r]), each a GLU between two
 * linears as above. The sum starts from +0 and is added once. */
struct op_moe {
    enum linear_mode mode;
    const struct experts *experts;
    const void *x;         /* act [R, hidden] */
    const int32_t *expert; /* [R, top_k] */
    const float *weight;   /* [R, top_k] */
    int top_k;
    enum glu_kind kind;
    float limit;
    bool interleaved; /* rows of gate_up alternate gate and up; else gate, then up */
    float *y;         /* [R, hidden] */
    void *inner;      /* act [R, top_k, width]: what each slot's down read; or NULL. CPU only */
};

/* Gated delta net (Yang et al. 2024) of one layer: a causal convolution of 4 with SiLU over the
 * channels q|k|v, then per value head h, with q and k of key head h / (value_heads / key_heads)
 * divided by (sum of squares + 1e-6)^1/2 and q by key_dim^1/2 too:
 *     S = e^(-decay softplus(a + dt_bias)) S;  S += k (sigmoid(b) (v - S^T k))^T;  o = S^T q
 * out = act( o * (mean(o^2) + eps)^-1/2 * norm * silu(z) ), per head. State and the three last
 * inputs of the convolution live in the sequence's slot; at position 0 they start from zeros. */
enum { GDN_CONV = 4 };
struct op_gdn {
    struct gdn_shape shape;
    float *in;            /* [R, row]: q k v z b a, each all heads; overwritten */
    const float *conv;    /* [channels, GDN_CONV], the oldest first */
    const float *decay;   /* [value_heads] e^A_log */
    const float *dt_bias; /* [value_heads] */
    const float *norm;    /* [value_dim] */
    float eps;
    void *state; /* this layer's slots, gdn_state_bytes each */
    void *out;   /* act [R, value_heads * value_dim] */
};
static inline int64_t gdn_channels(const struct gdn_shape *s) {
    return 2 * (int64_t)s->key_heads * s->key_dim + (int64_t)s->value_heads * s->value_dim;
}
static inline int64_t gdn_row(const struct gdn_shape *s) {
    return gdn_channels(s) + (int64_t)s->value_heads * (s->value_dim + 2);
}

/* y = cap tanh(y / cap), over out_rows */
struct op_softcap {
    float *y; /* [out_rows, cols] */
    int64_t cols;
    float cap;
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
    uint64_t logits_hash; /* of the row as it is, all of its columns: num/hash.h */
    float logprob;        /* natural log of softmax(raw logits)[token] */
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
    /* Takes over the matrices, one pair an expert, also where it fails. */
    int (*experts_create)(struct backend *be, struct matrix *const *gate_up,
                          struct matrix *const *down, int count, struct experts **out,
                          struct imp_error *err);
    void (*experts_free)(struct backend *be, struct experts *experts);
    int (*table_create)(struct backend *be, const struct weight *weight, struct table **out,
                        struct imp_error *err);
    void (*table_free)(struct backend *be, struct table *table);

    size_t (*act_bytes)(struct backend *be, int64_t cols);
    /* rows of an act as fp32 in their plain order, to host memory: for taps and traces. Waits. */
    void (*act_read)(struct backend *be, const void *act, int rows, int64_t cols, float *host);
    size_t (*kv_block_bytes)(struct backend *be, int kv_heads,
                             int head_dim); /* one layer, K and V */
    size_t (*gdn_state_bytes)(struct backend *be,
                              const struct gdn_shape *shape); /* one layer, one slot */
    size_t (*scratch_bytes)(struct backend *be, const struct step_limits *max);
    int (*reserve)(struct backend *be, const struct step_limits *max, struct imp_error *err);

    void (*step_begin)(struct backend *be, const struct batch *batch);
    int (*step_end)(struct backend *be, struct imp_error *err);

    void (*embed)(struct backend *be, const struct op_embed *op);
    void (*norm)(struct backend *be, const struct op_norm *op);
    void (*convert)(struct backend *be, const struct op_convert *op);
    void (*post_norm)(struct backend *be, const struct op_post_norm *op);
    void (*linear)(struct backend *be, const struct op_linear *op);
    void (*linear_glu)(struct backend *be, const struct op_linear_glu *op);
    void (*rope_angles)(struct backend *be, const struct op_rope_angles *op);
    void (*qkv)(struct backend *be, const struct op_qkv *op);
    void (*attention)(struct backend *be, const struct op_attention *op);
    void (*glu)(struct backend *be, const struct op_glu *op);
    void (*route)(struct backend *be, const struct op_route *op);
    void (*moe)(struct backend *be, const struct op_moe *op);
    void (*gdn)(struct backend *be, const struct op_gdn *op);
    void (*softcap)(struct backend *be, const struct op_softcap *op);
    void (*sample)(struct backend *be, const struct op_sample *op);
};

/* The head of every backend; the rest is private to it. */
struct backend {
    const struct backend_ops *ops;
    char name[80];        /* "cpu, AVX-512 BF16, 2 threads" */
    bool borrows_weights; /* matrices read the weights' host bytes at every use: they must stay */
};

enum backend_kind { BACKEND_CPU, BACKEND_CPU_REFERENCE, BACKEND_GPU };
struct backend_options {
    enum backend_kind kind;
    int threads;     /* >= 1 */
    int device;      /* which GPU */
    bool round_bf16; /* reference only: round where the contract rounds (act and KV to BF16) */
    bool nvfp4_activations; /* inputs of NVFP4 matrices are quantised to NVFP4 too, row by row */
    bool graphs;            /* GPU only: decode steps are captured, and replayed from then on. Then
                             * the ops between step_begin and step_end must be the same in every step
                             * of as many rows */
    bool plain_linears;     /* GPU only: the simplest kernel for every product, for tests */
    bool pdl;               /* GPU only: a kernel may start before the one before it has ended */
    bool kv_fp8;            /* GPU only: K and V are stored as E4M3 */
    int64_t fail_call;      /* GPU only: this call of the runtime, counted from 1, fails; 0: none */
    const char *isa;        /* fast CPU only: NULL the best, or "avx512", "avx2", "portable" */
};
int backend_open(const struct backend_options *options, struct backend **out,
                 struct imp_error *err);
void backend_close(struct backend *be); /* NULL is fine */
/* Whether what a GPU needs lies beside the program; there may still be no driver or no device. */
bool backend_gpu_exists(void);

#endif
