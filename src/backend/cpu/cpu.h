/* What the two CPU backends share: the head of the object, host memory, the batch, the sampler.
 *
 * reference/ is plain loops in fp32, one obvious way to write each op; fast/ is written for the
 * machine. fast/ may not call reference/ nor the other way round; both may call what is here. */
#ifndef IMP_BACKEND_CPU_CPU_H
#define IMP_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "base/thread.h"

/* Alignment of everything that ops touch: a cache line, and the widest vector. */
enum { CPU_ALIGN = 64 };
static inline size_t cpu_round_up(size_t bytes) {
    return (bytes + CPU_ALIGN - 1) / CPU_ALIGN * CPU_ALIGN;
}

struct cpu_backend {
    struct backend base;
    struct pool *pool;
    struct batch batch; /* of the running step; arrays live in the caller's memory until step_end */
    bool round_bf16;
    /* What differs between the two, for the ops that they share. */
    const struct cpu_hooks *hooks;
    struct cpu_moe *moe; /* scratch, or NULL */
    bool nvfp4_activations;
    bool changes_input; /* some matrix has a struct cpu_input that does something */
    struct cpu_input_scratch *input;
    float *sample_logits; /* [sample_ids_count] scratch of the sampler */
    int32_t *sample_ids;
    int64_t sample_ids_count;
};

/* What a matrix does to its input before the product. */
struct cpu_input {
    const float *pre_scale; /* [cols] or NULL */
    bool nvfp4;             /* NVFP4 parts see the input rounded to NVFP4 */
    float multiplier;       /* for that, from the file; NAN: each row its own */
};
/* The input as the parts see it. */
struct cpu_inputs {
    const void *x, *rounded; /* act; rounded: of NVFP4 parts, NULL: as x */
    const float *multiplier; /* [rows] of what `rounded` gives, or NULL */
};

/* out[c] = silu(sum over j, the oldest first, of weight[j][c] in[j][c]); out may be the last in. */
struct gdn_conv {
    const float *weight[GDN_CONV], *in[GDN_CONV];
    float *out;
    int count;
};
/* Some columns of a head's state through `rows` rows: S = alpha S; S += k (beta (v - S^T k))^T;
 * v = S^T q. Pointers are to the first row's, `stride` floats before the next one's. */
enum { GDN_COLUMNS = 32 };
struct gdn_tile {
    float *state; /* [key_dim, GDN_COLUMNS], 0 past `columns` */
    const float *q, *k, *alpha, *beta;
    float *v;
    int64_t stride;
    int rows, key_dim, columns;
};

/* Linears that one call of the hook takes. */
enum { LINEAR_GROUP = 64 };

struct cpu_hooks {
    /* fp32 to row `row` of an act */
    void (*store_row)(const struct cpu_backend *cpu, const float *x, int64_t cols, void *act,
                      int64_t row);
    void (*load_row)(const void *act, int64_t cols, int64_t row, float *out);
    /* The ops on the first rows of their arguments, whatever the batch has: rows[i] of op[i], and
     * those are written to different places; `rows`. */
    void (*linears)(struct cpu_backend *cpu, const struct op_linear *op, const int *rows,
                    int count);
    void (*glu)(struct cpu_backend *cpu, const struct op_glu *op, int rows);
    void (*gdn_conv)(const struct gdn_conv *conv);
    void (*gdn_delta)(const struct gdn_tile *tile);
    /* o = o * scale * norm * silu(z) */
    void (*gdn_gate)(float *o, const float *z, const float *norm, float scale, int64_t n);
    /* y = cap tanh(y / cap) */
    void (*softcap)(float *y, int64_t n, float cap);
};

int cpu_reference_open(const struct backend_options *options, struct backend **out,
                       struct imp_error *err);
int cpu_fast_open(const struct backend_options *options, struct backend **out,
                  struct imp_error *err);

/* What every CPU backend reserves: scratch of the sampler and of the experts. */
size_t cpu_scratch_bytes(struct backend *be, const struct step_limits *max);
int cpu_reserve(struct cpu_backend *cpu, const struct step_limits *max, struct imp_error *err);
/* Ends the pool and frees what is above; the caller frees the object itself. */
void cpu_close(struct cpu_backend *cpu);

/* Shared entries of the op table. */
int cpu_alloc(struct backend *be, size_t bytes, void **out, struct imp_error *err);
void cpu_free(struct backend *be, void *device);
void cpu_write(struct backend *be, void *device, const void *host, size_t bytes);
void cpu_read(struct backend *be, void *host, const void *device, size_t bytes);
int cpu_table_create(struct backend *be, const struct weight *weight, struct table **out,
                     struct imp_error *err);
void cpu_table_free(struct backend *be, struct table *table);
void cpu_step_begin(struct backend *be, const struct batch *batch);
int cpu_step_end(struct backend *be, struct imp_error *err);
void cpu_linear_glu(struct backend *be, const struct op_linear_glu *op);
void cpu_embed(struct backend *be, const struct op_embed *op);
void cpu_rope_angles(struct backend *be, const struct op_rope_angles *op);
void cpu_sample(struct backend *be, const struct op_sample *op);
/* rows.c */
/* One op on rows 0 .. rows - 1, task_rows of them to a task. */
struct cpu_row_job {
    struct cpu_backend *cpu;
    const void *op;
    int rows, task_rows;
    void (*row)(const struct cpu_row_job *job, int64_t row);
};
void cpu_share_rows(const struct cpu_row_job *job);
void cpu_convert(struct backend *be, const struct op_convert *op);
void cpu_post_norm(struct backend *be, const struct op_post_norm *op);
void cpu_softcap(struct backend *be, const struct op_softcap *op);
void cpu_route(struct backend *be, const struct op_route *op);
float cpu_dot(const float *a, const float *b, int64_t n);
/* input.c */
int cpu_input_make(struct cpu_backend *cpu, const struct weight *parts, int count,
                   struct cpu_input *out, struct imp_error *err);
size_t cpu_input_scratch_bytes(struct backend *be, const struct step_limits *max);
int cpu_input_reserve(struct cpu_backend *cpu, const struct step_limits *max,
                      struct imp_error *err);
void cpu_input_release(struct cpu_backend *cpu);
struct cpu_inputs cpu_change_input(struct cpu_backend *cpu, const struct cpu_input *input,
                                   const void *x, int64_t cols, int rows);
/* moe.c */
int cpu_experts_create(struct backend *be, struct matrix *const *gate_up,
                       struct matrix *const *down, int count, struct experts **out,
                       struct imp_error *err);
void cpu_experts_free(struct backend *be, struct experts *experts);
size_t cpu_moe_scratch_bytes(struct backend *be, const struct step_limits *max);
int cpu_moe_reserve(struct cpu_backend *cpu, const struct step_limits *max, struct imp_error *err);
void cpu_moe_release(struct cpu_backend *cpu);
void cpu_moe(struct backend *be, const struct op_moe *op);
/* gdn.c */
size_t cpu_gdn_state_bytes(struct backend *be, const struct gdn_shape *shape);
void cpu_gdn(struct backend *be, const struct op_gdn *op);

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* -ffp-contract=off and a fixed order of sums: every clone gives the same bits. */
#define VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTOR_CLONES
#endif

/* Rows that an op works on. */
static inline int cpu_rows(const struct cpu_backend *cpu, enum op_rows rows) {
    return rows == ROWS_OUT ? cpu->batch.out_rows : cpu->batch.rows;
}

struct cpu_table {
    struct table base;
    struct weight weight;
};

#endif
