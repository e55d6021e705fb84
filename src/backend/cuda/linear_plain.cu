/* y = x W^T on any device and for any number of rows, with mma.sync; also for experts, where each
 * group of slots has a weight of its own.
 *
 * A block of eight warps makes 16 rows of W for up to 8 COLUMNS rows of x: a warp a segment of K,
 * straight from memory, then all of them add the segments' sums in ascending order. The order of
 * every sum is pack.cuh's, so the bits are those of the other linear kernels. */
#include "backend/cuda/nvfp4_mma.cuh"
#include "backend/cuda/pack.cuh"

enum { THREADS = SEGMENTS * WARP };

struct plain_args {
    const uint8_t *data;
    const struct row_info *row;
    int chunks, planes;
    const uint16_t *x;
    float *y;
    int64_t x_stride, y_stride;
    int rows;
    bool add;
    struct glu_out glu;
    const float *row_multiplier; /* of rows, or slots; or NULL */
    struct slot_groups groups;   /* of experts; else weights is NULL */
};

/* Which rows of x and y a block has: those of the slots [first, first + count). */
struct plain_rows {
    const uint8_t *data;
    const struct row_info *row;
    const int32_t *slot; /* NULL: the slot is its own number */
    int first, count, share;
};

template <int COLUMNS>
static __device__ __forceinline__ struct plain_rows rows_of_block(const struct plain_args &a) {
    struct plain_rows r = {a.data, a.row, NULL, (int)blockIdx.y * 8 * COLUMNS, 0, 1};
    if (a.groups.weights == NULL) {
        r.count = min(a.rows - r.first, 8 * COLUMNS);
        return r;
    }
    const bool direct = a.groups.items == NULL;
    if (!direct && (int)blockIdx.y >= *a.groups.count) return r;
    const int slot = (int)blockIdx.y;
    const struct slot_item item =
        direct ? slot_item{a.groups.expert[slot], slot, 1} : a.groups.items[slot];
    const struct expert_stack weights = a.groups.weights[item.expert];
    if (weights.kind != a.groups.kind) return r;
    r.data = weights.data;
    r.row = weights.row;
    r.slot = a.groups.slot;
    r.first = item.first;
    r.count = item.count;
    r.share = a.groups.x_share;
    return r;
}
static __device__ __forceinline__ int slot_at(const struct plain_rows &r, int i) {
    return r.slot ? r.slot[r.first + i] : r.first + i;
}

/* Adds the products of a chunk at column k0. x: of this lane's token in each column of eight, or
 * NULL. */
template <enum pack_format F, int COLUMNS>
static __device__ __forceinline__ void add_chunk(const uint8_t *chunk,
                                                 const uint16_t *const x[COLUMNS], int64_t k0,
                                                 int lane, float d[COLUMNS][4]) {
    struct lane_chunk<F> w;
    w.zero = 0;
    w.load(chunk + lane * 16, lane);
    w.ready();
    k0 += lane % 4 * 2;
    auto step = [&](auto j_) {
        constexpr int J = decltype(j_)::value;
        uint32_t a[4];
        w.template fragment<J>(a);
        for (int c = 0; c < COLUMNS; c++) {
            uint32_t b0 = 0, b1 = 0;
            if (x[c]) {
                b0 = *(const uint32_t *)(x[c] + k0 + 16 * J);
                b1 = *(const uint32_t *)(x[c] + k0 + 16 * J + 8);
            }
            mma_bf16(d[c], a, b0, b1);
        }
    };
    for_steps<lane_chunk<F>::STEPS>(step);
}

template <enum pack_format F, int COLUMNS>
__global__ void __launch_bounds__(THREADS) plain_kernel(const __grid_constant__ plain_args a) {
    __shared__ float4 sums[SEGMENTS][COLUMNS][WARP];
    const int q = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int first = segment_begin(q, a.chunks);
    const int count = (segment_begin(q + 1, a.chunks) - first) * a.planes;
    depend_release();
    depend_wait();
    const struct plain_rows r = rows_of_block<COLUMNS>(a);
    if (r.count <= 0) return;
    const uint8_t *tile = r.data + (int64_t)blockIdx.x * a.chunks * a.planes * pack<F>::BYTES;
    const uint16_t *x[COLUMNS];
    float d[COLUMNS][4] = {};
    for (int c = 0; c < COLUMNS; c++) {
        const int i = c * 8 + lane / 4;
        x[c] = i < r.count ? a.x + slot_at(r, i) / r.share * a.x_stride : NULL;
    }
    for (int t = 0; t < count; t++) {
        const uint8_t *chunk = tile + stack_place(q, t, a.chunks, a.planes) * pack<F>::BYTES;
        const int64_t k0 = (int64_t)(first + t / a.planes) * pack<F>::CHUNK_K;
        if constexpr (F == PACK_NVFP4)
            add_nvfp4_chunk<COLUMNS>(chunk, x, a.x_stride, k0, lane, d);
        else
            add_chunk<F, COLUMNS>(chunk, x, k0, lane, d);
    }
    for (int c = 0; c < COLUMNS; c++)
        sums[q][c][lane] = make_float4(d[c][0], d[c][1], d[c][2], d[c][3]);
    __syncthreads();
    for (int i = threadIdx.x; i < COLUMNS * WARP * 2; i += THREADS) {
        const int c = i / (WARP * 2), l = i / 2 % WARP, e = i % 2, token = c * 8 + l % 4 * 2 + e;
        const int row = blockIdx.x * TILE_ROWS + l / 4;
        const struct row_info info[2] = {r.row[row], r.row[row + 8]};
        if (token >= r.count) continue;
        float total[2] = {};
        for (int s = 0; s < SEGMENTS; s++) {
            total[0] = __fadd_rn(total[0], ((const float *)&sums[s][c][l])[e]);
            total[1] = __fadd_rn(total[1], ((const float *)&sums[s][c][l])[e + 2]);
        }
        const int64_t to = slot_at(r, token);
        const float by = row_multiplier(a.row_multiplier, to, to + 1);
        if (a.glu.out) {
            a.glu.out[to * a.glu.stride + blockIdx.x * 8 + l / 4] =
                glu_output(a.glu, info[0], info[1], total[0], total[1], by);
            continue;
        }
        for (int h = 0; h < 2; h++) {
            if (info[h].out < 0) continue;
            const float sum = row_output(info[h], total[h], by);
            float *y = a.y + to * a.y_stride + info[h].out;
            *y = a.add ? __fadd_rn(*y, sum) : sum;
        }
    }
}

template <enum pack_format F>
static void launch(struct cuda_backend *cuda, const struct plain_args *a, int tiles, int groups) {
    const bool few = groups == 0 ? a->rows <= 8 : a->groups.columns == 1;
    const int per = few ? 8 : 32;
    const unsigned y = groups ? (unsigned)groups : (unsigned)((a->rows + per - 1) / per);
    if (few)
        gpu_launch(cuda, "linear", plain_kernel<F, 1>, dim3((unsigned)tiles, y), THREADS, 0, *a);
    else
        gpu_launch(cuda, "linear", plain_kernel<F, 4>, dim3((unsigned)tiles, y), THREADS, 0, *a);
}

static void launch_format(struct cuda_backend *cuda, enum pack_format f, const struct plain_args *a,
                          int tiles, int groups) {
    if (f == PACK_FP4) launch<PACK_FP4>(cuda, a, tiles, groups);
    if (f == PACK_FP8) launch<PACK_FP8>(cuda, a, tiles, groups);
    if (f == PACK_BF16) launch<PACK_BF16>(cuda, a, tiles, groups);
    if (f == PACK_NVFP4) launch<PACK_NVFP4>(cuda, a, tiles, groups);
}

void linear_plain(struct cuda_backend *cuda, const struct linear_job *job) {
    const struct stack *s = job->stack;
    const struct plain_args a = {s->data,   s->row,   s->chunks,     s->planes,
                                 job->x,    job->y,   job->x_stride, job->y_stride,
                                 job->rows, job->add, job->glu,      job->row_multiplier,
                                 {}};
    launch_format(cuda, s->format, &a, s->tiles, 0);
}

void linear_groups(struct cuda_backend *cuda, const struct linear_job *job,
                   const struct slot_groups *groups, int most_items) {
    const struct stack *s = job->stack;
    const struct plain_args a = {NULL,   NULL,     s->chunks,     s->planes,
                                 job->x, job->y,   job->x_stride, job->y_stride,
                                 0,      job->add, job->glu,      job->row_multiplier,
                                 *groups};
    launch_format(cuda, s->format, &a, s->tiles, most_items);
}
