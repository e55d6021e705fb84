/* Drawing tokens on the device: what the host hands over, what comes back, and what the kernels of
 * the sampler share.
 *
 * A call is cut into rounds that its buffers can hold, nearly always one. A round's states (zeros),
 * arguments and lists of seen ids go over in one copy; its states come back in one. A row is cut
 * into parts of PART columns, a block each; parts meet in the state by atomics on integers. */
#ifndef IMP_BACKEND_CUDA_SAMPLE_CUH
#define IMP_BACKEND_CUDA_SAMPLE_CUH

#include "backend/cuda/cuda.cuh"
#include "backend/cuda/sample_order.h"
extern "C" {
#include "base/caps.h"
#include "base/rng.h"
#include "num/hash.h"
}

enum { PART = 2048, PART_THREADS = 256, PART_EACH = PART / PART_THREADS };

/* What is found of a row. All zeros before the first kernel. */
struct sample_state {
    uint64_t best;    /* the largest logit_key after penalties << 32 | ~id */
    uint64_t hash;    /* sum of hash_element */
    uint32_t largest; /* logit_key, before penalties */
    int32_t token;    /* of a row that is drawn; else `best` has it */
    float logprob;
    int32_t top_ids[CAP_LOGPROBS];
    float top_logprobs[CAP_LOGPROBS];
};

struct sample_args {
    int32_t row;
    int32_t seen_first, seen_count; /* in sample_round.seen */
    float repetition_penalty, presence_penalty, frequency_penalty, temperature, top_p;
    int32_t top_k;           /* 0: all */
    uint32_t floor_distance; /* min-p keeps distances up to this */
    bool draws;              /* temperature > 0 */
    bool ordered; /* top-k or top-p: the kept ones are drawn in their order, else by id */
    bool want_logprob;
    int32_t top_count;
    uint64_t seed, position;
};

struct sample_seen {
    int32_t id, generated;
};

struct sample_round {
    const float *logits;
    int vocab, usable, rows, parts;
    float mass_scale;
    struct sample_state *state;     /* [rows] */
    const struct sample_args *args; /* [rows] */
    const struct sample_seen *seen;
    /* Scratch. Of rows that are drawn: */
    uint32_t *distance; /* [rows, distance_stride] */
    int64_t distance_stride;
    uint64_t *part_mass;            /* [rows, parts] */
    uint64_t *bin_mass, *bin_count; /* [rows, BINS] */
    /* Of rows with logprobs: */
    double *part_total; /* [rows, parts] */
    uint64_t *part_top; /* [rows, parts, CAP_LOGPROBS] */
};

/* sample_draw.cu: the rows with args.draws, after the scan */
void cuda_draw_reserve(struct cuda_backend *cuda);
void cuda_draw(struct cuda_backend *cuda, const struct sample_round *round);

#ifdef __CUDACC__

/* Value j of this thread in its part of a row is column part_column(j); ascending in j. */
__device__ __forceinline__ int part_column(int j) {
    return (int)(blockIdx.x * PART + j * PART_THREADS + threadIdx.x);
}

__device__ __forceinline__ void load_part(const struct sample_round &r, const struct sample_args &a,
                                          float x[PART_EACH]) {
    const float *row = r.logits + (int64_t)a.row * r.vocab;
    for (int j = 0; j < PART_EACH; j++) x[j] = part_column(j) < r.vocab ? row[part_column(j)] : 0;
}

/* The penalties on this block's part, rounded as the CPU rounds them. Ids of the list are distinct:
 * every element has one writer. */
__device__ __forceinline__ void penalise_part(const struct sample_round &r,
                                              const struct sample_args &a, float x[PART_EACH]) {
    __shared__ float part[PART];
    if (a.seen_count == 0) return;
    for (int j = 0; j < PART_EACH; j++) part[j * PART_THREADS + threadIdx.x] = x[j];
    __syncthreads();
    for (int i = threadIdx.x; i < a.seen_count; i += PART_THREADS) {
        const struct sample_seen seen = r.seen[a.seen_first + i];
        const int at = seen.id - (int)blockIdx.x * PART;
        if (at < 0 || at >= PART) continue;
        float y = part[at];
        y = y > 0 ? __fdiv_rn(y, a.repetition_penalty) : __fmul_rn(y, a.repetition_penalty);
        if (seen.generated > 0) {
            const float often = __fmul_rn(a.frequency_penalty, (float)seen.generated);
            y = __fsub_rn(y, __fadd_rn(a.presence_penalty, often));
        }
        part[at] = y;
    }
    __syncthreads();
    for (int j = 0; j < PART_EACH; j++) x[j] = part[j * PART_THREADS + threadIdx.x];
}

__device__ __forceinline__ uint64_t warp_sum_mass(uint64_t x) {
    for (int width = WARP / 2; width > 0; width /= 2) x += __shfl_xor_sync(~0u, x, width);
    return x;
}

/* The largest key << 32 | ~id of a warp. */
__device__ __forceinline__ uint64_t warp_best(uint64_t x) {
    const uint32_t key = (uint32_t)(x >> 32), most = __reduce_max_sync(~0u, key);
    const uint32_t rest = __reduce_max_sync(~0u, key == most ? (uint32_t)x : 0);
    return (uint64_t)most << 32 | rest;
}
INLINE_FN uint64_t best_of(uint32_t key, uint32_t id) {
    return (uint64_t)key << 32 | (uint32_t)~id;
}
INLINE_FN int32_t best_id(uint64_t best) {
    return (int32_t) ~(uint32_t)best;
}

#endif
#endif
