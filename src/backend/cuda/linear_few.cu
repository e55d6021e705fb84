/* y = x W^T for a few rows of x, near the memory's speed: the linears of a decode step.
 *
 * One block a multiprocessor, which with runtime.pdl asks for its first weights while the kernel
 * before still works (LINEAR_FEW_SHARED sees to both). One thread streams weights into a
 * ring of stages, each the eight segments' chunks of a tile; two groups of eight warps take the
 * tiles in turns, a warp a segment; one warp adds the segments' sums and writes. Each group has a
 * ring of its own: with one ring for both, a group that skips slots mistakes the barriers' parity.
 *
 * x goes to shared memory by plain loads: the bulk copies are a queue, and x would wait in it
 * behind the weights that were asked for before. */
#include "backend/cuda/pack.cuh"

enum {
    GROUPS = 2,
    COMPUTE_WARPS = GROUPS * SEGMENTS,
    FEW_THREADS = (COMPUTE_WARPS + 2) * WARP,
    FEW_ROWS = 8,
    SUM_SLOTS = 2,
    SUM_BYTES = SEGMENTS * WARP * 16,
    SHARED_BYTES = LINEAR_FEW_SHARED,
    MOST_STAGES = 6 /* of a group's ring; see INFO_SLOTS */
};
/* Shared memory: barriers, a chunk's worth of zeros of x, what is known of tiles' rows, sums, x,
 * the rings. */
enum { FULL_AT = 0, EMPTY_AT = 256, SUMS_FULL_AT = 512, SUMS_FREE_AT = 544, ZERO_AT = 640 };
enum { INFO_BYTES = TILE_ROWS * sizeof(struct row_info), INFO_SLOTS = 16 };
enum { ZERO_BYTES = 384, INFO_AT = 1024, SUMS_AT = INFO_AT + INFO_SLOTS * INFO_BYTES };
enum { X_AT = SUMS_AT + SUM_SLOTS * SUM_BYTES };
static_assert(ZERO_AT + ZERO_BYTES <= INFO_AT, "zeros and what is known of rows overlap");
static_assert(GROUPS * (MOST_STAGES + 2) <= INFO_SLOTS, "the stream would overtake the sums");

struct few_args {
    const uint8_t *data;
    const struct row_info *row;
    int chunks, planes, tiles;
    int stages; /* of a group's ring */
    const uint16_t *x;
    float *y;
    int64_t x_stride, y_stride;
    int rows;
    bool add;
    struct glu_out glu;
    const float *row_multiplier; /* [rows] or NULL */
};

/* Bytes from one row of x to the next: 16 more, so that eight rows lie in eight places of the
 * banks; the zeros that stand for rows that are not there do too. */
static __host__ __device__ __forceinline__ int x_row_bytes(int64_t x_stride) {
    return (int)x_stride * 2 + 16;
}
static __host__ __device__ __forceinline__ int ring_at(int64_t x_stride, int rows) {
    return (X_AT + rows * x_row_bytes(x_stride) + 127) / 128 * 128;
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* Stages of a tile: those with all eight segments, then those of the longer ones alone. */
struct tile_stages {
    int full, all, longer; /* longer: chunks in each of the last all - full */
};
static __device__ __forceinline__ struct tile_stages tile_stages(const struct few_args &a) {
    const int each = a.chunks / SEGMENTS, longer = a.chunks % SEGMENTS;
    return {each * a.planes, (each + (longer > 0)) * a.planes, longer};
}

template <enum pack_format F>
static __device__ void stream_weights(const struct few_args &a, uint32_t shared, int ring) {
    int step = 0; /* of the first tile in turn, over both groups */
    bool released = false;
    enum { STAGE = pack<F>::BYTES * SEGMENTS };
    const struct tile_stages n = tile_stages(a);
    const int64_t tile_bytes = (int64_t)a.chunks * a.planes * pack<F>::BYTES;
    int slot[GROUPS] = {}, phase[GROUPS];
    for (int g = 0; g < GROUPS; g++) phase[g] = 1; /* a fresh barrier's: free */
    for (int first = blockIdx.x; first < a.tiles; first += GROUPS * gridDim.x, step += GROUPS) {
        for (int s = 0; s < n.all; s++) {
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                const int tile = first + g * gridDim.x;
                if (tile >= a.tiles) continue;
                const uint32_t at = 8 * (g * a.stages + slot[g]);
                const int bytes = s < n.full ? STAGE : n.longer * pack<F>::BYTES;
                const int64_t from = s < n.full ? (int64_t)s * STAGE
                                                : (int64_t)n.full * STAGE + (s - n.full) * bytes;
                if (!released && phase[g] == 0) { /* the ring was filled once */
                    depend_release();
                    released = true;
                }
                barrier_wait(shared + EMPTY_AT + at, phase[g]);
                barrier_expect(shared + FULL_AT + at, bytes + (s == 0 ? (int)INFO_BYTES : 0));
                if (s == 0)
                    copy_weights(shared + INFO_AT + (step + g) % INFO_SLOTS * INFO_BYTES,
                                 a.row + (int64_t)tile * TILE_ROWS, INFO_BYTES,
                                 shared + FULL_AT + at);
                copy_weights(shared + ring + (g * a.stages + slot[g]) * STAGE,
                             a.data + tile * tile_bytes + from, bytes, shared + FULL_AT + at);
                if (++slot[g] == a.stages) slot[g] = 0, phase[g] ^= 1;
            }
        }
    }
    if (!released) depend_release();
}

/* A lane's four sums of a tile: of row lane / 4 + 8 (i / 2), token lane % 4 * 2 + i % 2. */
struct lane_sums {
    float v[4];
};

/* What LINEAR_ADD adds a tile's sums to. */
static __device__ __forceinline__ struct lane_sums load_old(const struct few_args &a, int tile,
                                                            int lane) {
    struct lane_sums old = {};
    if (!a.add || tile >= a.tiles) return old;
    const struct row_info *rows = a.row + (int64_t)tile * TILE_ROWS + lane / 4;
    const int out[2] = {rows[0].out, rows[8].out};
    for (int i = 0; i < 4; i++) {
        const int token = lane % 4 * 2 + i % 2;
        if (token < a.rows && out[i / 2] >= 0) old.v[i] = a.y[token * a.y_stride + out[i / 2]];
    }
    return old;
}

/* by: the tokens' multipliers. */
static __device__ __forceinline__ void write_tile(const struct few_args &a, int tile, int lane,
                                                  const struct row_info info[2],
                                                  const struct lane_sums &sum,
                                                  const struct lane_sums &old, const float by[2]) {
    for (int e = 0; e < 2; e++) {
        const int token = lane % 4 * 2 + e;
        if (token >= a.rows) continue;
        if (a.glu.out) {
            a.glu.out[token * a.glu.stride + tile * 8 + lane / 4] =
                glu_output(a.glu, info[0], info[1], sum.v[e], sum.v[e + 2], by[e]);
            continue;
        }
        for (int h = 0; h < 2; h++) {
            if (info[h].out < 0) continue;
            const float y = row_output(info[h], sum.v[e + 2 * h], by[e]);
            a.y[token * a.y_stride + info[h].out] = a.add ? __fadd_rn(old.v[e + 2 * h], y) : y;
        }
    }
}

/* Adds the segments of each tile, in ascending order, and writes. What is to be done with a tile's
 * rows came with its first weights: a load of its own would wait in the memory's queue behind what
 * was asked for ahead, and cost a microsecond or two a kernel. For the same reason old values are
 * asked for two tiles ahead. INFO_SLOTS is more tiles than the stream can be ahead of this warp: of
 * each group one whose sums wait, one that is worked on, and a ring of others. */
static __device__ void write_sums(const struct few_args &a, const uint8_t *memory, uint32_t shared,
                                  int lane) {
    const int every = (int)gridDim.x;
    int step = 0;
    float by[2];
    depend_wait();
    struct lane_sums old = load_old(a, blockIdx.x, lane),
                     next = load_old(a, blockIdx.x + every, lane);
    for (int e = 0; e < 2; e++) by[e] = row_multiplier(a.row_multiplier, lane % 4 * 2 + e, a.rows);
    for (int tile = blockIdx.x; tile < a.tiles; tile += every, step++) {
        const int slot = step % SUM_SLOTS, use = step / SUM_SLOTS;
        struct lane_sums sum = {};
        barrier_wait(shared + SUMS_FULL_AT + 8 * slot, use & 1);
        const struct row_info *rows =
            (const struct row_info *)(memory + INFO_AT + step % INFO_SLOTS * INFO_BYTES);
        const struct row_info info[2] = {rows[lane / 4], rows[lane / 4 + 8]};
        for (int q = 0; q < SEGMENTS; q++) {
            const float4 s =
                *(const float4 *)(memory + SUMS_AT + slot * SUM_BYTES + q * 512 + lane * 16);
            sum.v[0] = __fadd_rn(sum.v[0], s.x), sum.v[1] = __fadd_rn(sum.v[1], s.y);
            sum.v[2] = __fadd_rn(sum.v[2], s.z), sum.v[3] = __fadd_rn(sum.v[3], s.w);
        }
        __syncwarp();
        if (lane == 0) barrier_arrive(shared + SUMS_FREE_AT + 8 * slot);
        write_tile(a, tile, lane, info, sum, old, by);
        old = next;
        next = load_old(a, tile + 2 * every, lane);
    }
}

/* All rows of x to shared memory, by all the warps that compute. */
static __device__ void load_x(const struct few_args &a, uint8_t *memory) {
    const int vectors = (int)a.x_stride / 8, thread = threadIdx.x;
    for (int r = 0; r < a.rows; r++) {
        const uint4 *from = (const uint4 *)(a.x + r * a.x_stride);
        uint4 *to = (uint4 *)(memory + X_AT + r * x_row_bytes(a.x_stride));
        for (int v = thread; v < vectors; v += COMPUTE_WARPS * WARP) to[v] = __ldcg(from + v);
    }
    asm volatile("bar.sync 1, %0;" ::"n"(COMPUTE_WARPS * WARP) : "memory");
}

/* Four matrices of 8 x 8: the B operands of two instructions. */
static __device__ __forceinline__ void load_b(uint32_t b[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(address));
}

/* A group's place in its ring, as addresses. */
template <int STAGE> struct stage_place {
    uint32_t full, data, first_full, first_data, last_full;
    uint32_t zero; /* 0 that the compiler does not know */
    int phase;
    __device__ __forceinline__ void next(void) {
        data += STAGE;
        full += 8;
        if (full == last_full) {
            full = first_full;
            data = first_data;
            phase ^= 1;
        }
    }
};
enum { EMPTY_FROM_FULL = EMPTY_AT - FULL_AT };

/* Takes this warp's chunk of a stage, gives the stage back, and adds the products to d. */
template <enum pack_format F>
static __device__ __forceinline__ void
take_stage(const struct stage_place<pack<F>::BYTES * SEGMENTS> &at, uint32_t chunk, uint32_t x,
           int lane, float d[4]) {
    struct lane_chunk<F> w;
    w.zero = at.zero;
    barrier_wait(at.full, at.phase);
    w.load_shared(at.data + chunk, lane);
    __syncwarp();
    if (lane == 0) barrier_arrive(at.full + EMPTY_FROM_FULL + w.loaded());
    w.ready();
    for_steps<lane_chunk<F>::STEPS / 2>([&](auto pair) {
        constexpr int J = 2 * decltype(pair)::value;
        uint32_t b[4], frag[4];
        load_b(b, x + J * 32);
        w.template fragment<J>(frag);
        mma_bf16(d, frag, b[0], b[1]);
        w.template fragment<J + 1>(frag);
        mma_bf16(d, frag, b[2], b[3]);
    });
}

template <enum pack_format F>
static __device__ void multiply(const struct few_args &a, uint8_t *memory, uint32_t shared,
                                int ring) {
    enum { STAGE = pack<F>::BYTES * SEGMENTS, CHUNK = pack<F>::BYTES, X = pack<F>::CHUNK_K * 2 };
    const int group = threadIdx.x / WARP / SEGMENTS, q = threadIdx.x / WARP % SEGMENTS;
    const int lane = threadIdx.x % WARP;
    const struct tile_stages n = tile_stages(a);
    const int first_chunk = segment_begin(q, a.chunks);
    const int mine = (segment_begin(q + 1, a.chunks) - first_chunk) * a.planes;
    const int rank = first_chunk - q * (a.chunks / SEGMENTS); /* among the longer ones */
    const bool live = lane % 8 < a.rows; /* other lanes read zeros, and stay there */
    const uint32_t in_row = lane / 8 * 16;
    const uint32_t x0 =
        live ? shared + X_AT + lane % 8 * x_row_bytes(a.x_stride) + in_row + first_chunk * X
             : shared + ZERO_AT + lane % 8 * 16 + in_row;
    const uint32_t x_step = live ? X : 0;
    struct stage_place<STAGE> at;
    at.full = at.first_full = shared + FULL_AT + 8 * group * a.stages;
    at.data = at.first_data = shared + ring + group * a.stages * STAGE + lane * 16;
    at.last_full = at.first_full + 8 * a.stages;
    at.phase = 0;
    at.zero = (uint32_t)a.planes >> 31;
    const uint32_t sum_at = shared + SUMS_AT + q * 512 + lane * 16;
    int step = group;
    depend_wait();
    load_x(a, memory);
    for (int tile = blockIdx.x + group * gridDim.x; tile < a.tiles;
         tile += GROUPS * gridDim.x, step += GROUPS) {
        float d[4] = {};
        uint32_t x = x0;
        int plane = 0;
#pragma unroll 1
        for (int s = 0; s < n.all; s++) {
            if (s < mine) {
                take_stage<F>(at, (s < n.full ? q : rank) * CHUNK, x, lane, d);
                if (F != PACK_BF16 || ++plane == a.planes) x += x_step, plane = 0;
            } else {
                barrier_wait(at.full, at.phase);
                if (lane == 0) barrier_arrive(at.full + EMPTY_FROM_FULL);
            }
            at.next();
        }
        const int sum = step % SUM_SLOTS, use = step / SUM_SLOTS;
        if (use) barrier_wait(shared + SUMS_FREE_AT + 8 * sum, (use - 1) & 1);
        asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(sum_at + sum * SUM_BYTES),
                     "f"(d[0]), "f"(d[1]), "f"(d[2]), "f"(d[3])
                     : "memory");
        __syncwarp();
        if (lane == 0) barrier_arrive(shared + SUMS_FULL_AT + 8 * sum);
    }
}
#endif

template <enum pack_format F>
__global__ void __launch_bounds__(FEW_THREADS, 2) few_kernel(const __grid_constant__ few_args a) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    extern __shared__ __align__(1024) uint8_t memory[];
    const uint32_t shared = shared_address(memory);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int ring = ring_at(a.x_stride, a.rows);
    if (warp == COMPUTE_WARPS && lane == 0) {
        for (int i = 0; i < GROUPS * a.stages; i++) {
            barrier_init(shared + FULL_AT + 8 * i, 1);
            barrier_init(shared + EMPTY_AT + 8 * i, SEGMENTS);
        }
        for (int i = 0; i < SUM_SLOTS; i++) {
            barrier_init(shared + SUMS_FULL_AT + 8 * i, SEGMENTS);
            barrier_init(shared + SUMS_FREE_AT + 8 * i, 1);
        }
        barrier_init_done();
    }
    if (threadIdx.x < ZERO_BYTES / 4) ((uint32_t *)(memory + ZERO_AT))[threadIdx.x] = 0;
    __syncthreads();
    if (warp == COMPUTE_WARPS) {
        if (lane == 0) stream_weights<F>(a, shared, ring);
    } else if (warp == COMPUTE_WARPS + 1) {
        write_sums(a, memory, shared, lane);
    } else {
        multiply<F>(a, memory, shared, ring);
    }
#endif
}

/* ---- host ---- */

static int stage_bytes(enum pack_format f) {
    return SEGMENTS * pack_bytes(f);
}

bool linear_few(struct cuda_backend *cuda, const struct linear_job *job) {
    const struct stack *s = job->stack;
    if (!cuda->bulk_copies || job->rows > FEW_ROWS) return false;
    const int room = SHARED_BYTES - ring_at(job->x_stride, job->rows);
    int stages = room / stage_bytes(s->format) / GROUPS;
    if (stages > MOST_STAGES) stages = MOST_STAGES;
    if (stages < 2) return false;
    const struct few_args a = {s->data,   s->row,   s->chunks, s->planes,          s->tiles,
                               stages,    job->x,   job->y,    job->x_stride,      job->y_stride,
                               job->rows, job->add, job->glu,  job->row_multiplier};
    const unsigned blocks = (unsigned)(s->tiles < cuda->processors ? s->tiles : cuda->processors);
    void (*kernel)(few_args) = s->format == PACK_FP4   ? few_kernel<PACK_FP4>
                               : s->format == PACK_FP8 ? few_kernel<PACK_FP8>
                                                       : few_kernel<PACK_BF16>;
    gpu_launch(cuda, "linear of few rows", kernel, blocks, FEW_THREADS, SHARED_BYTES, a);
    return true;
}

void linear_few_reserve(struct cuda_backend *cuda) {
    if (!cuda->bulk_copies) return;
    gpu_allow_shared(cuda, few_kernel<PACK_FP4>, SHARED_BYTES);
    gpu_allow_shared(cuda, few_kernel<PACK_FP8>, SHARED_BYTES);
    gpu_allow_shared(cuda, few_kernel<PACK_BF16>, SHARED_BYTES);
}
