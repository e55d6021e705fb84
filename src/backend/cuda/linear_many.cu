/* y = x W^T for many rows of x with wgmma (sm_90a): the linears of a prompt, and of decode steps of
 * more rows than linear_few takes.
 *
 * Weights are the A operand, expanded in registers: a warpgroup owns 64 rows of W, and every weight
 * that it expands meets all TOKENS rows of x in one instruction. One thread asks for activations
 * (tensor copies, 128-byte swizzle, 64 k a stage), another for weights: one copy takes the same
 * chunk of all row tiles of the block; a copy for each cost up to 40 %. The next fragments are
 * expanded while the last instructions run. At a segment's end the sums are added to a second set
 * of registers, after the next segment's first fragments are expanded.
 *
 * SPLIT: where that gives too few blocks to fill the device, a block makes one segment of a tile,
 * its sums go to memory, and a second kernel adds the eight of them in ascending order. (The last
 * block to end adding them was slower: one block then reads what eight wrote.) The order of every
 * sum is pack.cuh's in all forms, so which one runs changes the time alone. */
#include "backend/cuda/pack.cuh"
#include "backend/cuda/wgmma.cuh"

enum { EXPAND_X = 64, SHARED_MOST = 227 << 10, SPLIT_BYTES = 64 << 20 };

struct many_args {
    const struct row_info *row;
    float *y;
    int64_t y_stride;
    int tokens, tiles, chunks, planes;
    bool add;
    struct glu_out glu;
    const float *row_multiplier; /* [tokens] or NULL */
    float4 *sums;                /* SPLIT: of quad i of a thread at sum_at + 128 i + thread */
};

/* TOKENS a block, GROUPS warpgroups of 64 rows, BATCH fragments expanded before their instructions
 * go out together; two blocks share a multiprocessor where BLOCKS is 2. GLU: what write_tile does;
 * a choice at run time would cost the large tiles registers that they have not. */
template <enum pack_format F_, int TOKENS_, int GROUPS_, int BATCH_, bool SPLIT_, int BLOCKS_,
          bool GLU_>
struct many {
    static constexpr enum pack_format F = F_;
    static constexpr bool GLU = GLU_;
    enum { TOKENS = TOKENS_, GROUPS = GROUPS_, BATCH = BATCH_, SPLIT = SPLIT_, BLOCKS = BLOCKS_ };
    enum { TILES = 4 * GROUPS, THREADS = (GROUPS + 1) * 128 };
    enum { X_STAGE = TOKENS * EXPAND_X * 2, W_STAGE = TILES * pack<F_>::BYTES };
    enum { ROOM = (BLOCKS == 2 ? 113 << 10 : SHARED_MOST) - 1024 };
    enum { W_FIT = ROOM / 3 / W_STAGE, W_STAGES = W_FIT < 2 ? 2 : W_FIT > 4 ? 4 : W_FIT };
    enum { X_FIT = (ROOM - W_STAGES * W_STAGE) / X_STAGE, X_STAGES = X_FIT > 10 ? 10 : X_FIT };
    enum { BYTES = 1024 + X_STAGES * X_STAGE + W_STAGES * W_STAGE };
    static_assert(X_STAGES >= 2, "no room for activations");
    static_assert(lane_chunk<F_>::STEPS / BATCH % 2 == 0, "fragments take turns");
};

/* Where a warpgroup's sums of a segment begin; tile: without its segment. */
static __device__ __forceinline__ int64_t sum_at(int tile, int group, int groups, int segment,
                                                 int tokens) {
    return ((int64_t)(tile * groups + group) * SEGMENTS + segment) * (tokens / 8) * 128;
}

static __host__ __device__ __forceinline__ int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}
/* Tile u: groups of 8 row blocks, token blocks outer, so that a wave shares both in L2. */
static __device__ __forceinline__ void tile_at(int u, int row_blocks, int token_blocks, int &r,
                                               int &t) {
    enum { TOGETHER = 8 };
    const int group = u / (TOGETHER * token_blocks), v = u % (TOGETHER * token_blocks);
    const int height = min((int)TOGETHER, row_blocks - group * TOGETHER);
    r = group * TOGETHER + v % height;
    t = v / height;
}

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WGMMA 1

static __device__ __forceinline__ void copy_tensor2(uint32_t to, const CUtensorMap *map, int x,
                                                    int y, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(barrier)
                 : "memory");
}
static __device__ __forceinline__ void copy_tensor3(uint32_t to, const CUtensorMap *map, int x,
                                                    int y, int z, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier)
                 : "memory");
}

static __device__ __forceinline__ void prefetch_map(const CUtensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* Registers move from the warps that copy to those that multiply. */
template <int N, bool MORE> static __device__ __forceinline__ void set_registers(void) {
    if (MORE)
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
    else
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* A place in a ring of stages. */
template <int STAGES> struct ring {
    int slot, phase;
    __device__ __forceinline__ void next(void) {
        if (++slot == STAGES) slot = 0, phase ^= 1;
    }
};

/* What a block works on: rows, tokens, and segments [first, end). */
struct work {
    int r, t, first, end, index; /* index: of the tile without its segment */
};
template <class C>
static __device__ __forceinline__ struct work work_at(const many_args &a, int u) {
    const int row_blocks = ceil_div(a.tiles, C::TILES),
              token_blocks = ceil_div(a.tokens, C::TOKENS);
    struct work w;
    w.index = C::SPLIT ? u / SEGMENTS : u;
    w.first = C::SPLIT ? u % SEGMENTS : 0;
    w.end = C::SPLIT ? w.first + 1 : (int)SEGMENTS;
    tile_at(w.index, row_blocks, token_blocks, w.r, w.t);
    return w;
}
template <class C> static __host__ __device__ __forceinline__ int work_count(const many_args &a) {
    return ceil_div(a.tiles, C::TILES) * ceil_div(a.tokens, C::TOKENS) * (C::SPLIT ? SEGMENTS : 1);
}
static __device__ __forceinline__ int segment_length(const many_args &a, int q) {
    return (segment_begin(q + 1, a.chunks) - segment_begin(q, a.chunks)) * a.planes;
}

/* Shared memory: barriers, the rings of x and of weights. */
enum { X_FULL = 0, X_FREE = 128, W_FULL = 256, W_FREE = 384, RINGS = 1024 };

template <class C>
static __device__ void stream_x(const many_args &a, const CUtensorMap *map, uint32_t shared) {
    enum { K = pack<C::F>::CHUNK_K };
    struct ring<C::X_STAGES> at = {
        0, 1
    };
    for (int u = blockIdx.x; u < work_count<C>(a); u += gridDim.x) {
        const struct work w = work_at<C>(a, u);
        for (int q = w.first; q < w.end; q++) {
            const int begin = segment_begin(q, a.chunks), count = segment_length(a, q);
            for (int t = 0; t < count * (K / EXPAND_X); t++) {
                const int chunk = begin + t / (K / EXPAND_X) / a.planes;
                barrier_wait(shared + X_FREE + 8 * at.slot, at.phase);
                barrier_expect(shared + X_FULL + 8 * at.slot, C::X_STAGE);
                copy_tensor2(shared + RINGS + at.slot * C::X_STAGE, map,
                             chunk * K + t % (K / EXPAND_X) * EXPAND_X, w.t * C::TOKENS,
                             shared + X_FULL + 8 * at.slot);
                at.next();
            }
        }
    }
}

template <class C>
static __device__ void stream_w(const many_args &a, const CUtensorMap *map, uint32_t shared) {
    struct ring<C::W_STAGES> at = {
        0, 1
    };
    const uint32_t ring = shared + RINGS + C::X_STAGES * C::X_STAGE;
    for (int u = blockIdx.x; u < work_count<C>(a); u += gridDim.x) {
        const struct work w = work_at<C>(a, u);
        for (int q = w.first; q < w.end; q++) {
            const int count = segment_length(a, q);
            for (int t = 0; t < count; t++) {
                barrier_wait(shared + W_FREE + 8 * at.slot, at.phase);
                barrier_expect(shared + W_FULL + 8 * at.slot, C::W_STAGE);
                copy_tensor3(ring + at.slot * C::W_STAGE, map, 0,
                             stack_place(q, t, a.chunks, a.planes), w.r * C::TILES,
                             shared + W_FULL + 8 * at.slot);
                at.next();
            }
        }
    }
}

/* A warpgroup's registers for a tile. */
template <class C> struct tile_sums {
    float part[C::TOKENS / 2], total[C::SPLIT ? 1 : C::TOKENS / 2];
};

/* The last instructions of a segment are done: take their sums. */
template <class C> static __device__ __forceinline__ void fold(struct tile_sums<C> &s) {
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < C::TOKENS / 2; i++) asm volatile("" : "+f"(s.part[i])::"memory");
    if constexpr (!C::SPLIT) {
#pragma unroll
        for (int i = 0; i < C::TOKENS / 2; i++) s.total[i] = __fadd_rn(s.total[i], s.part[i]);
    }
}

template <class C> struct consumer {
    uint32_t shared, zero; /* zero: 0 that the compiler does not know */
    uint32_t weights;      /* this lane's, in stage 0 */
    uint64_t operand;
    struct ring<C::X_STAGES> x;
    struct ring<C::W_STAGES> w;
    int last_x; /* the stage of x that the instructions in flight read */

    __device__ __forceinline__ void free_x(int lane) {
        __syncwarp();
        if (lane == 0) barrier_arrive(shared + X_FREE + 8 * last_x);
    }
};

/* Products of one chunk. first: its segment begins here; open: the segment before is not folded. */
template <class C>
static __device__ __forceinline__ void chunk_products(struct consumer<C> &c, struct tile_sums<C> &s,
                                                      uint32_t frag[2][C::BATCH][4], int lane,
                                                      bool first, bool open) {
    struct lane_chunk<C::F> w;
    barrier_wait(c.shared + W_FULL + 8 * c.w.slot, c.w.phase);
    w.zero = c.zero;
    w.load_shared(c.weights + c.w.slot * C::W_STAGE, lane);
    __syncwarp();
    if (lane == 0) barrier_arrive(c.shared + W_FREE + 8 * c.w.slot + w.loaded());
    c.w.next();
    w.ready();
    for_steps<lane_chunk<C::F>::STEPS / C::BATCH>([&](auto batch_) {
        constexpr int J = decltype(batch_)::value * C::BATCH, IN_X = J % 4;
        auto &f = frag[J / C::BATCH % 2];
        for_steps<C::BATCH>([&](auto b_) {
            constexpr int B = decltype(b_)::value;
            asm volatile("" : "+r"(w.w[w.word_of(J + B)])); /* expand here, not earlier */
            w.template fragment<J + B>(f[B]);
            for (int i = 0; i < 4 && C::F == PACK_BF16; i++)
                asm volatile("" : "+r"(f[B][i])); /* and not later, among the instructions */
        });
        if (!C::SPLIT && J == 0 && first && open) {
            fold<C>(s);
            c.free_x(lane);
        }
        if (IN_X == 0) barrier_wait(c.shared + X_FULL + 8 * c.x.slot, c.x.phase);
        const uint64_t operand = c.operand + (uint32_t)(c.x.slot * (C::X_STAGE >> 4));
        wgmma_fence();
#pragma unroll
        for (int b = 0; b < C::BATCH; b++)
            wgmma(s.part, f[b], operand + 2 * (IN_X + b), !first || J + b > 0);
        wgmma_commit();
        wgmma_wait<1>(); /* the batch before is done: its fragments may be written again */
        if (IN_X == 0 && (!first || J > 0)) c.free_x(lane);
        if (IN_X + C::BATCH == 4) {
            c.last_x = c.x.slot;
            c.x.next();
        }
    });
}

template <class C>
static __device__ __forceinline__ void store_sums(const many_args &a, const struct work &w,
                                                  bool empty, const struct tile_sums<C> &s) {
    const int thread = threadIdx.x % 128, group = threadIdx.x / 128;
    float4 *out = a.sums + sum_at(w.index, group, C::GROUPS, w.first, C::TOKENS) + thread;
#pragma unroll
    for (int i = 0; i < C::TOKENS / 8; i++)
        __stcg(out + i * 128, empty ? make_float4(0, 0, 0, 0)
                                    : make_float4(s.part[4 * i], s.part[4 * i + 1],
                                                  s.part[4 * i + 2], s.part[4 * i + 3]));
}

/* A tile as glu(gate, up): lanes of neighbouring outputs exchange one of two tokens, so that each
 * writes two outputs of one. */
template <class C>
static __device__ __forceinline__ void
write_gated(const many_args &a, const struct work &w, int tile, int lane,
            const struct row_info info[2], const float total[C::TOKENS / 2]) {
    const bool odd = lane / 4 % 2;
    uint16_t *out = a.glu.out + tile * 8 + lane / 4 - odd;
#pragma unroll
    for (int i = 0; i < C::TOKENS / 2; i += 4) {
        const int token = w.t * C::TOKENS + i / 4 * 8 + lane % 4 * 2 + odd;
        const float even_by = row_multiplier(a.row_multiplier, token - odd, a.tokens);
        const float odd_by = row_multiplier(a.row_multiplier, token - odd + 1, a.tokens);
        const uint32_t even_token =
            glu_output(a.glu, info[0], info[1], total[i], total[i + 2], even_by);
        const uint32_t odd_token =
            glu_output(a.glu, info[0], info[1], total[i + 1], total[i + 3], odd_by);
        const uint32_t other = __shfl_xor_sync(~0u, odd ? even_token : odd_token, 4);
        const uint32_t pair = odd ? odd_token << 16 | other : other << 16 | even_token;
        if (token < a.tokens) *(uint32_t *)(out + token * a.glu.stride) = pair;
    }
}

/* A tile as it is. */
template <class C>
static __device__ __forceinline__ void write_plain(const many_args &a, const struct work &w,
                                                   int lane, const struct row_info info[2],
                                                   const float total[C::TOKENS / 2]) {
#pragma unroll
    for (int i0 = 0; i0 < C::TOKENS / 2; i0 += 8) {
        float old[8];
#pragma unroll
        for (int i = i0; a.add && i < i0 + 8; i++) {
            const int token = w.t * C::TOKENS + i / 4 * 8 + lane % 4 * 2 + i % 2;
            const int out = info[i / 2 % 2].out;
            old[i - i0] = token < a.tokens && out >= 0 ? a.y[token * a.y_stride + out] : 0;
        }
#pragma unroll
        for (int i = i0; i < i0 + 8; i++) {
            const struct row_info &r = info[i / 2 % 2];
            const int token = w.t * C::TOKENS + i / 4 * 8 + lane % 4 * 2 + i % 2;
            if (token >= a.tokens || r.out < 0) continue;
            const float by = row_multiplier(a.row_multiplier, token, a.tokens);
            const float y = row_output(r, total[i], by);
            a.y[token * a.y_stride + r.out] = a.add ? __fadd_rn(old[i - i0], y) : y;
        }
    }
}

template <class C>
static __device__ __forceinline__ void write_tile(const many_args &a, const struct work &w,
                                                  int warp, int lane,
                                                  const float total[C::TOKENS / 2]) {
    const int tile = w.r * C::TILES + warp, row = tile * TILE_ROWS + lane / 4;
    if (tile >= a.tiles) return;
    const struct row_info info[2] = {a.row[row], a.row[row + 8]};
    if constexpr (C::GLU)
        write_gated<C>(a, w, tile, lane, info, total);
    else
        write_plain<C>(a, w, lane, info, total);
}

template <class C>
static __device__ __forceinline__ void multiply(const many_args &a, uint32_t shared) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    struct consumer<C> c;
    c.shared = shared;
    c.zero = (uint32_t)a.planes >> 31;
    c.weights = shared + RINGS + C::X_STAGES * C::X_STAGE + warp * pack<C::F>::BYTES + lane * 16;
    c.operand = wgmma_operand(shared + RINGS);
    c.x = {0, 0};
    c.w = {0, 0};
    c.last_x = 0;
    struct tile_sums<C> s;
    uint32_t frag[2][C::BATCH][4];
    depend_wait();
    for (int u = blockIdx.x; u < work_count<C>(a); u += gridDim.x) {
        const struct work w = work_at<C>(a, u);
#pragma unroll
        for (int i = 0; i < (C::SPLIT ? 1 : C::TOKENS / 2); i++) s.total[i] = 0;
        if constexpr (C::SPLIT) {
            const int count = segment_length(a, w.first);
            for (int t = 0; t < count; t++) chunk_products<C>(c, s, frag, lane, t == 0, false);
            fold<C>(s);
            if (count > 0) c.free_x(lane);
            store_sums<C>(a, w, count == 0, s);
        } else {
            bool open = false;
            for (int q = 0; q < SEGMENTS; q++) {
                const int count = segment_length(a, q);
                for (int t = 0; t < count; t++) chunk_products<C>(c, s, frag, lane, t == 0, open);
                open |= count > 0;
            }
            fold<C>(s);
            c.free_x(lane);
            write_tile<C>(a, w, warp, lane, s.total);
        }
    }
}
#endif

template <class C>
__global__ void __launch_bounds__(C::THREADS, C::BLOCKS)
    many_kernel(const __grid_constant__ CUtensorMap weights, const __grid_constant__ CUtensorMap x,
                const __grid_constant__ many_args a) {
#ifdef HAS_WGMMA
    extern __shared__ __align__(1024) uint8_t memory[];
    const uint32_t shared = shared_address(memory);
    const int warp = threadIdx.x / WARP;
    enum { CONSUMERS = C::GROUPS * 4, THREADS_AHEAD = 64 };
    if (threadIdx.x == THREADS_AHEAD) prefetch_map(&weights);
    if (threadIdx.x == THREADS_AHEAD + 1) prefetch_map(&x);
    if (threadIdx.x == 0) {
        for (int i = 0; i < C::X_STAGES; i++) {
            barrier_init(shared + X_FULL + 8 * i, 1);
            barrier_init(shared + X_FREE + 8 * i, CONSUMERS);
        }
        for (int i = 0; i < C::W_STAGES; i++) {
            barrier_init(shared + W_FULL + 8 * i, 1);
            barrier_init(shared + W_FREE + 8 * i, CONSUMERS);
        }
        barrier_init_done();
    }
    __syncthreads();
    depend_release();
    if (warp >= CONSUMERS) {
        set_registers<C::BLOCKS == 2 ? 32 : 40, false>();
        if (threadIdx.x == CONSUMERS * WARP + WARP) stream_w<C>(a, &weights, shared);
        if (threadIdx.x == CONSUMERS * WARP) {
            depend_wait();
            stream_x<C>(a, &x, shared);
        }
    } else {
        set_registers<C::BLOCKS == 2 ? 104 : 232, true>();
        multiply<C>(a, shared);
    }
#endif
}

/* Adds the segments of SPLIT and writes y: a thread a quad of one of that kernel's threads. */
__global__ void __launch_bounds__(ROW_THREADS)
    join_kernel(const many_args a, int tokens, int groups, int row_blocks, int token_blocks) {
    const int quads = tokens / 8, per_group = quads * 128;
    const int i = (int)(blockIdx.x * ROW_THREADS + threadIdx.x);
    const int thread = i % 128, quad = i / 128 % quads, group = i / per_group % groups;
    const int tile = i / per_group / groups;
    depend_release();
    depend_wait();
    if (tile >= row_blocks * token_blocks) return;
    int r, t;
    tile_at(tile, row_blocks, token_blocks, r, t);
    const int token = t * tokens + quad * 8 + thread % 4 * 2;
    const int row = ((r * groups + group) * 4 + thread / WARP) * TILE_ROWS + thread % WARP / 4;
    if (row >= a.tiles * TILE_ROWS || token >= a.tokens) return;
    float4 s[SEGMENTS], v = {0, 0, 0, 0};
    const struct row_info info[2] = {a.row[row], a.row[row + 8]};
    for (int q = 0; q < SEGMENTS; q++)
        s[q] = __ldcg(a.sums + sum_at(tile, group, groups, q, tokens) + quad * 128 + thread);
    for (int q = 0; q < SEGMENTS; q++)
        v = {__fadd_rn(v.x, s[q].x), __fadd_rn(v.y, s[q].y), __fadd_rn(v.z, s[q].z),
             __fadd_rn(v.w, s[q].w)};
    const float sum[4] = {v.x, v.y, v.z, v.w};
    const float by[2] = {row_multiplier(a.row_multiplier, token, a.tokens),
                         row_multiplier(a.row_multiplier, token + 1, a.tokens)};
    const int output = ((r * groups + group) * 4 + thread / WARP) * 8 + thread % WARP / 4;
    for (int e = 0; e < 2 && a.glu.out; e++) {
        if (token + e < a.tokens)
            a.glu.out[(token + e) * a.glu.stride + output] =
                glu_output(a.glu, info[0], info[1], sum[e], sum[e + 2], by[e]);
    }
    for (int e = 0; e < 4 && !a.glu.out; e++) {
        const struct row_info &of = info[e / 2];
        if (token + e % 2 >= a.tokens || of.out < 0) continue;
        float *y = a.y + (token + e % 2) * a.y_stride + of.out;
        const float total = row_output(of, sum[e], by[e % 2]);
        *y = a.add ? __fadd_rn(*y, total) : total;
    }
}

/* ---- host ---- */

struct instance {
    int tokens, groups, blocks, bytes, threads;
    bool split;
    void (*kernel[2])(const CUtensorMap, const CUtensorMap, const many_args); /* [1]: with GLU */
};
/* Only FP4 has large tiles with GLU; segments are joined by a kernel that can do both. */
template <enum pack_format F, int TOKENS, int BATCH, bool SPLIT, int BLOCKS>
static struct instance instance_of(void) {
    using C = many<F, TOKENS, 2, BATCH, SPLIT, BLOCKS, false>;
    constexpr bool GLU = F == PACK_FP4 && !SPLIT;
    return {C::TOKENS,
            C::GROUPS,
            C::BLOCKS,
            C::BYTES,
            C::THREADS,
            SPLIT,
            {many_kernel<C>,
             GLU || SPLIT ? many_kernel<many<F, TOKENS, 2, BATCH, SPLIT, BLOCKS, GLU>> : NULL}};
}
enum { INSTANCES = 7 };
template <enum pack_format F> static const struct instance *instances_of(void) {
    enum { DEEP = F == PACK_BF16 ? 2 : 4 };
    static const struct instance table[INSTANCES] = {
        instance_of<F, 192, 2, false, 1>(), instance_of<F, 128, 2, false, 1>(),
        instance_of<F, 64, 2, false, 1>(),  instance_of<F, 128, 2, true, 1>(),
        instance_of<F, 64, 2, true, 2>(),   instance_of<F, 32, DEEP, true, 2>(),
        instance_of<F, 16, DEEP, true, 2>()};
    return table;
}
static const struct instance *instances(enum pack_format f) {
    return f == PACK_FP4   ? instances_of<PACK_FP4>()
           : f == PACK_FP8 ? instances_of<PACK_FP8>()
                           : instances_of<PACK_BF16>();
}

/* Cycles that an instance takes, roughly: waves of blocks, a step of 16 k at the tensor cores'
 * speed but not under 120 cycles of latency, and for SPLIT the way of the sums through L2. */
static double cost(const struct instance *i, const struct linear_job *job, int processors) {
    const struct stack *s = job->stack;
    if (i->kernel[job->glu.out != NULL] == NULL) return INFINITY;
    const int row_blocks = ceil_div(s->tiles, 4 * i->groups);
    const int token_blocks = ceil_div(job->rows, i->tokens);
    const double tiles = (double)row_blocks * token_blocks;
    const double steps = (double)s->chunks * s->planes * pack_chunk_k(s->format) / 16;
    const double step = fmax(120, i->blocks * i->groups * i->tokens / 2 / 0.88);
    const int places = processors * i->blocks;
    if (!i->split) return ceil(tiles / places) * (steps * step + 2500);
    const double sums = tiles * SEGMENTS * i->groups * 64 * i->tokens * sizeof(float);
    if (sums > SPLIT_BYTES) return INFINITY;
    return ceil(tiles * SEGMENTS / places) * (steps / SEGMENTS * step + 1000) + 4500 +
           2 * sums / 2500;
}

static const struct instance *choose(const struct linear_job *job, int processors) {
    const struct instance *table = instances(job->stack->format), *best = table;
    double least = cost(best, job, processors);
    for (int i = 1; i < INSTANCES; i++) {
        const double cycles = cost(&table[i], job, processors);
        if (cycles >= least) continue;
        best = &table[i];
        least = cycles;
    }
    return best;
}

static bool encode_map(struct cuda_backend *cuda, CUtensorMap *map, CUtensorMapDataType type,
                       int rank, const void *from, const cuuint64_t *size, const cuuint64_t *stride,
                       const cuuint32_t *box, CUtensorMapSwizzle swizzle) {
    const cuuint32_t steps[3] = {1, 1, 1};
    const CUresult rc =
        cuda->encode_map(map, type, (cuuint32_t)rank, (void *)from, size, stride, box, steps,
                         CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return gpu_keep(cuda, rc == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue,
                    "cuTensorMapEncodeTiled");
}
static bool map_weights(struct cuda_backend *cuda, CUtensorMap *map, const struct stack *s,
                        int tiles) {
    const cuuint64_t bytes = (cuuint64_t)pack_bytes(s->format);
    const cuuint64_t chunks = (cuuint64_t)s->chunks * s->planes;
    const cuuint64_t size[3] = {bytes / 8, chunks, (cuuint64_t)s->tiles};
    const cuuint64_t stride[2] = {bytes, bytes * chunks};
    const cuuint32_t box[3] = {(cuuint32_t)bytes / 8, 1, (cuuint32_t)tiles};
    return encode_map(cuda, map, CU_TENSOR_MAP_DATA_TYPE_FLOAT64, 3, s->data, size, stride, box,
                      CU_TENSOR_MAP_SWIZZLE_NONE);
}
static bool map_x(struct cuda_backend *cuda, CUtensorMap *map, const struct linear_job *job,
                  int tokens) {
    const cuuint64_t size[2] = {(cuuint64_t)job->x_stride, (cuuint64_t)job->rows};
    const cuuint64_t stride[1] = {(cuuint64_t)job->x_stride * 2};
    const cuuint32_t box[2] = {EXPAND_X, (cuuint32_t)tokens};
    return encode_map(cuda, map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, job->x, size, stride, box,
                      CU_TENSOR_MAP_SWIZZLE_128B);
}

bool linear_many_gates(const struct stack *s) {
    return s->format == PACK_FP4 || s->format == PACK_NVFP4;
}

bool linear_many(struct cuda_backend *cuda, const struct linear_job *job) {
    if (!cuda->wgmma) return false;
    if (cuda->replaying) return true;
    const struct stack *s = job->stack;
    const struct instance *i = choose(job, cuda->processors);
    CUtensorMap weights, x;
    if (!map_weights(cuda, &weights, s, 4 * i->groups) || !map_x(cuda, &x, job, i->tokens))
        return true;
    const struct many_args a = {s->row,    job->y,    job->y_stride, job->rows, s->tiles,
                                s->chunks, s->planes, job->add,      job->glu,  job->row_multiplier,
                                cuda->sums};
    const int row_blocks = ceil_div(s->tiles, 4 * i->groups);
    const int token_blocks = ceil_div(job->rows, i->tokens);
    const int count = row_blocks * token_blocks * (i->split ? SEGMENTS : 1);
    const int places = cuda->processors * i->blocks;
    gpu_launch(cuda, "linear of many rows", i->kernel[job->glu.out != NULL],
               (unsigned)(count < places ? count : places), (unsigned)i->threads, (size_t)i->bytes,
               weights, x, a);
    if (i->split) {
        const int64_t threads =
            (int64_t)row_blocks * token_blocks * i->groups * i->tokens / 8 * 128;
        gpu_launch(cuda, "sum of segments", join_kernel, cuda_blocks(threads), ROW_THREADS, 0, a,
                   i->tokens, i->groups, row_blocks, token_blocks);
    }
    return true;
}

size_t linear_many_bytes(void) {
    return SPLIT_BYTES;
}

int linear_many_reserve(struct cuda_backend *cuda, struct imp_error *err) {
    if (!cuda->wgmma) return 0;
    for (int f = 0; f < PACK_FORMATS; f++) {
        const struct instance *table = instances((enum pack_format)f);
        for (int i = 0; i < INSTANCES; i++) {
            for (int g = 0; g < 2 && table[i].kernel[g]; g++)
                gpu_allow_shared(cuda, table[i].kernel[g], (size_t)table[i].bytes);
        }
    }
    cudaDriverEntryPointQueryResult found;
    gpu_call(cuda,
             cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)&cuda->encode_map,
                                              12000, cudaEnableDefault, &found));
    int rc = cuda_alloc(&cuda->base, linear_many_bytes(), (void **)&cuda->sums, err);
    if (rc < 0) return rc;
    return cuda_error(cuda, err);
}
