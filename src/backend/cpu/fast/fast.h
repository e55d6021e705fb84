/* The fast CPU backend: private structures, layouts, and the table of kernels of one instruction
 * set.
 *
 * act: BF16 rows of act_stride(cols) elements; what is past cols is zero, so that kernels may read
 * whole pairs and groups. Every op that makes an act row writes that padding.
 *
 * Weights are packed in blocks of 16 rows of W: a vector lane is an output, each output has an
 * accumulator of its own, and K runs in one order whatever the number of rows of x or the
 * instruction set's width. K is cut into segments (one block scale, or 256): a segment's products
 * are summed from +0 and the sum is added, times the scale, to the output's accumulator.
 *
 * Owned by the backend object; kernels are pure functions of their arguments. */
#ifndef IMP_CPU_FAST_FAST_H
#define IMP_CPU_FAST_FAST_H

#include "backend/cpu/cpu.h"

enum {
    BLOCK_ROWS = 16,
    /* Rows of x that stay in the second-level cache while a task goes through its weights. */
    TILE_ROWS = 96,
    /* Query rows that attention takes through the KV blocks together. */
    ATTEND_ROWS = 8,
    PLAIN_SEGMENT = 256,
    ALIGN_BYTES = 64,
};

enum pack_kind {
    PACK_NVFP4, /* u32 [K/8, 16]: word (c, r), half e, nibble j is k = 8 c + 2 j + e; E4M3 [K/16,
                   16] */
    PACK_MXFP4, /* the same codes; E8M0 [K/32, 16] */
    PACK_FP8,   /* u32 [K/4, 16]: half e, byte j is k = 4 c + 2 j + e; f32 [1 or segments, 16] */
    PACK_BF16,  /* u32 [K/2, 16]: half e is k = 2 c + e */
    PACK_F16,   /* fp16 [K, 16] */
    PACK_F32,   /* f32 [K, 16] */
};

/* Rows of one weight. Blocks lie one behind the other: codes, then scales. */
struct fast_part {
    enum pack_kind kind;
    int64_t first_row, rows; /* in the matrix; the last block is filled up with zero rows */
    int64_t first_block, blocks;
    int64_t cols;         /* padded with zeros to the group of `kind` */
    int64_t segment_cols; /* even; the last segment may be shorter */
    int64_t segments;
    int64_t scale_stride; /* PACK_FP8: floats from one segment's scales to the next, 16 or 0 */
    size_t block_bytes, scale_offset;
    uint8_t *data;
    float *multiplier; /* [blocks, 16], multiplies last */
    float *bias;       /* [blocks, 16] */
};

struct fast_matrix {
    struct matrix base;
    int count;
    int64_t blocks; /* of all parts */
    void *memory;
    struct fast_part part[];
};

/* One part's blocks times some rows of x. */
struct linear_task {
    const struct fast_part *part;
    int64_t block_first, block_count; /* in the part */
    const uint16_t *x;                /* first row */
    int64_t x_stride;
    float *y;         /* first row, column 0 of the matrix */
    int64_t y_stride; /* columns of the matrix */
    int rows;
    enum linear_mode mode;
};

/* A query's online softmax. */
struct attend_query {
    const uint32_t *q; /* pairs of BF16 [head_dim / 2] */
    float *o;          /* [value_stride(head_dim)], 64-byte aligned */
    float m, l;
    float sink;        /* a logit of the denominator alone; -inf: none */
    const float *gate; /* [head_dim] or NULL */
};
/* One KV block of one kv head, positions lo <= p < hi of it, for queries that all see just those.
 */
struct attend_part {
    const uint32_t *k; /* [head_dim / 2, 64] pairs */
    const uint16_t *v; /* [64, value_stride(head_dim)] */
    int head_dim, lo, hi;
    float softcap;
};

struct fast_kernels {
    const char *name, *title; /* "avx512", "AVX-512 BF16" */
    void (*linear)(const struct linear_task *task);
    void (*norm_row)(const float *h, const float *weight, float eps, int64_t cols, uint16_t *out);
    void (*glu_row)(const struct op_glu *op, const float *gate, const float *up, float factor,
                    int64_t cols, uint16_t *out);
    void (*attend)(struct attend_query *const *query, int count, const struct attend_part *part);
    void (*attend_finish)(struct attend_query *query, int head_dim, uint16_t *out);
    void (*store_row)(const float *x, int64_t cols, uint16_t *out);
    /* the ops that both CPU backends share, for this instruction set */
    struct cpu_hooks hooks;
};
extern const struct fast_kernels fast_kernels_portable;
#if defined(__x86_64__)
extern const struct fast_kernels fast_kernels_avx2, fast_kernels_avx512;
#endif

struct fast_backend {
    struct cpu_backend cpu;
    const struct fast_kernels *kernels;
    uint8_t *scratch; /* [threads, scratch_stride] */
    size_t scratch_stride;
};

/* Elements from one act row to the next: whole cache lines, an odd number of them, so that the same
 * column of many rows does not fall into one set of the first-level cache. */
static inline int64_t act_stride(int64_t cols) {
    int64_t lines = (cols * 2 + ALIGN_BYTES - 1) / ALIGN_BYTES;
    return (lines | 1) * (ALIGN_BYTES / 2);
}
static inline int64_t value_stride(int64_t head_dim) {
    return (head_dim + 15) / 16 * 16;
}
/* Elements of BF16 that K and V of one head take in one block: pairs of K by position, then V. */
static inline int64_t kv_head_stride(int64_t head_dim) {
    return (head_dim + value_stride(head_dim)) * KV_BLOCK_TOKENS;
}
static inline uint16_t *kv_head_at(const void *kv, int64_t block, int kv_heads, int head,
                                   int head_dim) {
    return (uint16_t *)(uintptr_t)kv + (block * kv_heads + head) * kv_head_stride(head_dim);
}

/* pack.c */
int fast_matrix_create(struct backend *be, const struct weight *parts, int count,
                       const float *const *bias, struct matrix **out, struct imp_error *err);
void fast_matrix_free(struct backend *be, struct matrix *matrix);
size_t fast_matrix_bytes(struct backend *be, const struct weight *parts, int count);
/* linear.c, rows.c, attention.c */
void fast_linear(struct backend *be, const struct op_linear *op);
void fast_linears(struct cpu_backend *cpu, const struct op_linear *op, const int *rows, int count);
void fast_norm(struct backend *be, const struct op_norm *op);
void fast_glu(struct backend *be, const struct op_glu *op);
void fast_glu_rows(struct cpu_backend *cpu, const struct op_glu *op, int rows);
void fast_store_row(const struct cpu_backend *cpu, const float *x, int64_t cols, void *act,
                    int64_t row);
void fast_qkv(struct backend *be, const struct op_qkv *op);
void fast_attention(struct backend *be, const struct op_attention *op);
size_t fast_attention_scratch(int max_head_dim);

#endif
