/* What a thread block of attention knows, and the arithmetic that more than one kernel makes. */
#ifndef IMP_BACKEND_CUDA_ATTENTION_CUH
#define IMP_BACKEND_CUDA_ATTENTION_CUH

#include <math.h>

#include "backend/cuda/ring.cuh"

enum { SPAN = 256, TILE = 16 };
static const float LOG2_E = 1.44269504f;

struct attend {
    struct op_attention op;
    struct dev_batch batch;
    int first_row; /* of this launch; its partials count from there */
    int slots;     /* spans of a row that go to scratch; 0: a block merges them itself */
    float *partial_o, *partial_ml; /* [row, head, slot, partial_stride(d)] and [.., 2] */
};
static inline __host__ __device__ int partial_stride(int d) {
    return (d + 3) / 4 * 4;
}

/* (token, head) pairs of one sequence and one kv head, heads first, from `pair` on. */
struct tile {
    int row, position; /* of the sequence's first row in this step */
    int pair, pairs;   /* the first one; all of the sequence */
    int group;         /* heads of the kv head */
    int kv_head;
    const int32_t *blocks;
};
struct tokens { /* of a sequence's rows in this step, both inclusive */
    int from, to;
};

__device__ __forceinline__ struct visible visible_at(int position, int window) {
    return {window > 0 && position >= window ? position - window + 1 : 0, position};
}

/* ---- arithmetic that several kernels must make alike: no expression for a compiler to fuse ----
 */

/* What a sum is multiplied by when the largest score so far grows from `old` to `most`. */
__device__ __forceinline__ float decay_to(float old, float most) {
    return ex2(__fsub_rn(old, most == -INFINITY ? 0.0f : most));
}
struct mix {
    float so_far, more;
};
__device__ __forceinline__ struct mix mix_in(float *m, float more) {
    const float old = *m;
    *m = fmaxf(old, more);
    return {decay_to(old, *m), decay_to(more, *m)};
}
__device__ __forceinline__ float mixed(float so_far, float more, struct mix x) {
    return __fmaf_rn(more, x.more, __fmul_rn(so_far, x.so_far));
}
/* What the merged o is multiplied by. */
__device__ __forceinline__ float out_factor(float m, float l, const float *sinks, int head) {
    if (sinks == NULL) return __fdiv_rn(1.0f, l);
    const struct mix x = mix_in(&m, __fmul_rn(sinks[head], LOG2_E));
    return __fdiv_rn(x.so_far, mixed(l, 1.0f, x));
}
/* An element of the output. A span of which a row sees nothing can turn -0 into 0, so all are. */
__device__ __forceinline__ float out_value(float o, float factor, const float *gate, int column) {
    const float x = __fadd_rn(__fmul_rn(o, factor), 0.0f);
    if (gate == NULL) return x;
    const float e = ex2(__fmul_rn(gate[column], -LOG2_E));
    return __fmul_rn(x, reciprocal(__fadd_rn(1.0f, e)));
}

/* tanh: near 0 by its series, so that small scores stay exact. */
__device__ __forceinline__ float tanh_rn(float x) {
    const float y = fabsf(x), square = __fmul_rn(x, x);
    float series = __fmaf_rn(square, 62.0f / 2835, -17.0f / 315);
    series = __fmaf_rn(square, series, 2.0f / 15);
    series = __fmaf_rn(square, series, -1.0f / 3);
    series = __fmaf_rn(__fmul_rn(x, square), series, x);
    const float e = ex2(__fmul_rn(y, -2 * LOG2_E));
    const float far = copysignf(__fmul_rn(__fsub_rn(1.0f, e), reciprocal(__fadd_rn(1.0f, e))), x);
    return y < 0.25f ? series : far; /* NaN: far */
}

#endif
