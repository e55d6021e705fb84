/* What one warp of attention does: its pairs' scores, weights and sums. */
#ifndef IMP_BACKEND_CUDA_ATTENTION_WARP_CUH
#define IMP_BACKEND_CUDA_ATTENTION_WARP_CUH

#include "backend/cuda/attention.cuh"

/* Lane 4 g + c has the columns 8 n + 2c, 8 n + 2c + 1 of its warp, of the pairs g and g + 8. */
template <int D, int WN> struct sums {
    static constexpr int COLUMNS = (D / 16 + WN - 1) / WN * 16; /* the last warps may have less */
    float m[2], l[4], o[COLUMNS / 8][4];
};
template <int D, int WM, int WN> struct alignas(16) places { /* in shared memory */
    uint16_t q[WM * TILE][D + 8];
    uint16_t p[WN > 1 ? WM : 1][WN > 1 ? TILE : 1][PART + 8];
    float most[WM][WN][TILE];
};
struct pairs { /* a thread's two rows of a tile; `row` -1: none */
    int row[2], head[2];
    struct visible see[2];
};

template <int D, int WN> __device__ __forceinline__ void clear(struct sums<D, WN> *x) {
    x->m[0] = x->m[1] = -INFINITY;
#pragma unroll
    for (int i = 0; i < 4; i++) x->l[i] = 0;
#pragma unroll
    for (int n = 0; n < x->COLUMNS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) x->o[n][i] = 0;
}

/* Adds the sums of a span to those of the spans before it. */
template <int D, int WN>
__device__ __forceinline__ void merge(struct sums<D, WN> *all, const struct sums<D, WN> &span) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const struct mix x = mix_in(&all->m[h], span.m[h]);
        all->l[2 * h] = mixed(all->l[2 * h], span.l[2 * h], x);
#pragma unroll
        for (int n = 0; n < span.COLUMNS / 8; n++)
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; i++)
                all->o[n][i] = mixed(all->o[n][i], span.o[n][i], x);
    }
}

/* q of a tile in plain order, zeros past d and past the tile. */
template <int D, int WM, int WN>
__device__ __forceinline__ void load_q(struct places<D, WM, WN> *to, const struct attend &a,
                                       const struct tile &t) {
    const int d = a.op.head_dim;
    const int64_t stride = act_stride((int64_t)a.op.heads * d);
    for (int i = threadIdx.x / WARP; i < WM * TILE; i += ATTEND_THREADS / WARP) {
        const int pair = t.pair + i, head = t.kv_head * t.group + pair % t.group;
        const uint16_t *q = (const uint16_t *)a.op.q + (t.row + pair / t.group) * stride;
        for (int k = threadIdx.x % WARP * 2; k < D; k += WARP * 2) {
            const bool there = pair < t.pairs && k < d;
            *(uint32_t *)&to->q[i][k] =
                there ? *(const uint32_t *)(q + act_place((int64_t)head * d + k)) : 0;
        }
    }
}

/* Whether a warp holds its 16 rows of q all the time. */
__host__ __device__ constexpr bool keeps_q(int d) {
    return d <= 128;
}
/* A of 16 rows and the columns k .. k + 15. */
__device__ __forceinline__ void load_a(uint32_t out[4], const uint16_t *rows, int stride, int k) {
    const int lane = threadIdx.x % WARP;
    load_matrices(out, rows + lane % 16 * stride + k + lane / 16 * 8);
}

/* s[n] = q k of the positions from 8 n on of this warp's 64 / WN. */
template <int D, int WN>
__device__ __forceinline__ void scores(float s[PART / WN / 8][4], const uint16_t *q,
                                       const uint32_t kept[][4], const uint16_t *k) {
    enum { STRIDE = D + 8, COUNT = PART / WN };
    const int lane = threadIdx.x % WARP, first = threadIdx.x / WARP % WN * COUNT;
    const uint16_t *row = k + (first + lane / 16 * 8 + lane % 8) * STRIDE + lane / 8 % 2 * 8;
#pragma unroll
    for (int n = 0; n < COUNT / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] = 0;
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        uint32_t x[4];
        if (keeps_q(D)) {
#pragma unroll
            for (int i = 0; i < 4; i++) x[i] = kept[j][i];
        } else {
            load_a(x, q, STRIDE, 16 * j);
        }
#pragma unroll
        for (int n = 0; n < COUNT / 8; n += 2) {
            uint32_t b[4];
            load_matrices(b, row + 8 * n * STRIDE + 16 * j);
            mma(s[n], x, b[0], b[1]);
            mma(s[n + 1], x, b[2], b[3]);
        }
    }
}

template <int COUNT> __device__ __forceinline__ void cap_scores(float s[COUNT][4], float cap) {
    const float scale = __fdiv_rn(1.0f, cap);
#pragma unroll
    for (int n = 0; n < COUNT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] = __fmul_rn(cap, tanh_rn(__fmul_rn(s[n][i], scale)));
}
template <int COUNT>
__device__ __forceinline__ void hide_scores(float s[COUNT][4], const struct pairs &own,
                                            int position) {
#pragma unroll
    for (int n = 0; n < COUNT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = position + 8 * n + threadIdx.x % 4 * 2 + i % 2;
            const struct visible see = own.see[i / 2];
            if (at < see.first || at > see.last) s[n][i] = -INFINITY;
        }
}

/* Scores become weights; m grows, l and o shrink to it. All warps of a tile come here. */
template <int D, int WM, int WN>
__device__ __forceinline__ void weigh(float s[PART / WN / 8][4], struct sums<D, WN> *x,
                                      struct places<D, WM, WN> *shared) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float most[2], decay[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        most[h] = -INFINITY; /* NaN is never the largest; as a weight it comes back */
#pragma unroll
        for (int n = 0; n < PART / WN / 8; n++)
            most[h] = fmaxf(most[h], fmaxf(s[n][2 * h], s[n][2 * h + 1]));
        most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 1));
        most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 2));
        if (WN > 1 && lane % 4 == 0) shared->most[warp / WN][warp % WN][lane / 4 + 8 * h] = most[h];
    }
    if (WN > 1) {
        __syncthreads();
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int w = 0; w < WN; w++)
                most[h] = fmaxf(most[h], shared->most[warp / WN][w][lane / 4 + 8 * h]);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float old = x->m[h];
        x->m[h] = fmaxf(old, __fmul_rn(most[h], LOG2_E));
        decay[h] = decay_to(old, x->m[h]);
        const float base = x->m[h] == -INFINITY ? 0.0f : x->m[h];
#pragma unroll
        for (int n = 0; n < PART / WN / 8; n++)
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; i++)
                s[n][i] = ex2(__fmaf_rn(s[n][i], LOG2_E, -base));
    }
    if (decay[0] == 1 && decay[1] == 1) return;
#pragma unroll
    for (int i = 0; i < 4; i++) x->l[i] = __fmul_rn(x->l[i], decay[i / 2]);
#pragma unroll
    for (int n = 0; n < x->COLUMNS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) x->o[n][i] = __fmul_rn(x->o[n][i], decay[i / 2]);
}

/* This warp's weights where all of its tile find them. */
template <int D, int WM, int WN>
__device__ __forceinline__ void share_weights(struct places<D, WM, WN> *shared,
                                              const float s[PART / WN / 8][4]) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (int n = 0; n < PART / WN / 8; n++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            *(uint32_t *)&shared
                 ->p[warp / WN][lane / 4 + 8 * h][warp % WN * (PART / WN) + 8 * n + lane % 4 * 2] =
                pack_bf16(s[n][2 * h], s[n][2 * h + 1]);
}

/* o += p V and l += p 1. */
template <int D, int WM, int WN>
__device__ __forceinline__ void add_values(struct sums<D, WN> *x,
                                           const struct places<D, WM, WN> *shared,
                                           const float s[PART / WN / 8][4], const uint16_t *v) {
    enum { STRIDE = D + 8, COLUMNS = sums<D, WN>::COLUMNS, ONES = 0x3F803F80 };
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = warp % WN * COLUMNS;
    const uint16_t *row = v + lane % 16 * STRIDE + first + lane / 16 * 8;
#pragma unroll
    for (int j = 0; j < PART / 16; j++) {
        uint32_t p[4];
        if (WN > 1) {
            load_a(p, shared->p[warp / WN][0], PART + 8, 16 * j);
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[i] = pack_bf16(s[2 * j + i / 2][i % 2 * 2], s[2 * j + i / 2][i % 2 * 2 + 1]);
        }
        mma(x->l, p, ONES, ONES);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n += 2) {
            if (D % (16 * WN) != 0 && first + 8 * n >= D) break;
            uint32_t b[4];
            load_transposed(b, row + 16 * j * STRIDE + 8 * n);
            mma(x->o[n], p, b[0], b[1]);
            mma(x->o[n + 1], p, b[2], b[3]);
        }
    }
}

/* Whether this thread's share of a unit holds NaN or Inf. */
template <int D> __device__ __forceinline__ bool has_infinite(const uint16_t *unit) {
    uint32_t found = 0;
    for (int i = threadIdx.x; i < PART * (D / 2); i += ATTEND_THREADS) {
        const uint32_t x = *(const uint32_t *)(unit + i / (D / 2) * (D + 8) + i % (D / 2) * 2);
        found |= ((x & 0x7F807F80u) + 0x00800080u) & 0x80008000u; /* an exponent of ones */
    }
    return found != 0;
}

#endif
