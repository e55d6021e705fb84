/* The gated delta net as the plain recurrence, row by row, in prefill and decode alike: one form,
 * so equal bits. (The substitution by chunks of 64 is another order of sums and would have to serve
 * decode too; a state that stays in registers makes the walk cheap enough without it.)
 *
 * Three kernels, with a row of scratch for each row of the step (struct gdn_layout).
 *
 * prepare: all that waits for no state, a warp a head of a row: the convolution, q and k divided by
 * their norms, their product, alpha (the decay) and beta. It leaves op.in and the slot as they are,
 * so rows may be taken in any order.
 *
 * delta: the state. Columns do not meet, so a block takes 256 / LANES columns of a value head
 * through all rows of a sequence: 128 blocks for one sequence and 32 heads of 128. LANES lanes have
 * a pair of columns, each with 16 of key_dim (padded with zeros) in registers: 8 lanes up to 128,
 * 16 up to 256, 32 up to 512. With S the state before the row,
 *     change = beta (v - alpha S^T k);  o = alpha S^T q + (q k) change;  S = alpha S + k change^T
 * which is the definition with S put into o: both products with S are made at once, and the next
 * row waits for one sum across lanes, not two. o takes v's place in the scratch. Rows come to
 * shared memory in groups, the next one under way while one is worked on.
 *
 * finish: norm, gate and act, a warp a head of a row.
 *
 * prepare and delta let the next kernel start after their own depend_wait(), when all that came
 * before them has ended. So delta and finish may read ahead of theirs what the kernel just before
 * them does not write: the state of a decode step is on its way while prepare runs.
 *
 * Slot: [3, channels] inputs of the convolution, then for each block of delta its registers, as
 * float4 [STATE / 4, threads]. 128 x 128 has no padding; small dims pay for 128 x 32. */
#include <cuda_pipeline_primitives.h>

#include "backend/cuda/cuda.cuh"

enum { HISTORY = GDN_CONV - 1, MAX_DIM = 512, SIZES = 3 };
enum { WARPS = HEAD_THREADS / WARP, FEW_ROWS = 64, TILE_ROWS = 8 };
enum { PART = 16, COLUMNS = 2, STATE = COLUMNS * PART }; /* of a thread of delta */

/* A row of scratch, in floats: q and k of each key head [key_heads, 2, keys], v and later o
 * [value_heads, values], then alpha, beta, q k and 0 of each value head. */
struct gdn_layout {
    int size;         /* 0, 1, 2: neither dim is past 128, 256, 512 */
    int keys, values; /* key_dim and value_dim with their padding */
    int64_t value_at, gate_at, row_floats;
    int64_t state_at, slot_floats;
};

struct gdn_args {
    struct op_gdn op;
    struct dev_batch batch;
    struct gdn_layout at;
    float *scratch;
    int64_t channels, in_stride, out_stride;
    int tile; /* rows that a warp of prepare takes */
};

static int size_of(int dim) {
    return dim <= 128 ? 0 : dim <= 256 ? 1 : 2;
}

static struct gdn_layout layout_of(const struct gdn_shape *s) {
    struct gdn_layout at = {};
    at.size = size_of(s->key_dim > s->value_dim ? s->key_dim : s->value_dim);
    at.keys = 128 << size_of(s->key_dim);
    at.values = (s->value_dim + WARP - 1) / WARP * WARP;
    at.value_at = (int64_t)s->key_heads * 2 * at.keys;
    at.gate_at = at.value_at + (int64_t)s->value_heads * at.values;
    at.row_floats = at.gate_at + (int64_t)s->value_heads * 4;
    at.state_at = (HISTORY * gdn_channels(s) + 3) / 4 * 4;
    at.slot_floats = at.state_at + (int64_t)s->value_heads * at.keys * at.values;
    return at;
}

size_t cuda_gdn_state_bytes(struct backend *be, const struct gdn_shape *shape) {
    (void)be;
    return (size_t)layout_of(shape).slot_floats * sizeof(float);
}

size_t cuda_gdn_bytes(const struct step_limits *max) {
    if (max->gdn.value_heads == 0) return 0;
    return (size_t)max->rows * (size_t)layout_of(&max->gdn).row_floats * sizeof(float);
}

int cuda_gdn_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                     struct imp_error *err) {
    const size_t bytes = cuda_gdn_bytes(max);
    return bytes ? cuda_alloc(&cuda->base, bytes, (void **)&cuda->gdn_rows, err) : 0;
}

void cuda_gdn_release(struct cuda_backend *cuda) {
    cuda_free(&cuda->base, cuda->gdn_rows);
}

/* ---- prepare: lane l holds the elements l, l + 32, ... of a head, zeros past its dim ---- */

/* The inputs of row r of a sequence that begins at row `first` of the step, r >= -HISTORY; NULL:
 * zeros. */
__device__ __forceinline__ const float *inputs_of(const struct gdn_args &args, int first, int r,
                                                  bool fresh, const float *saved) {
    if (r >= 0) return args.op.in + (first + r) * args.in_stride;
    return fresh ? NULL : saved + (HISTORY + r) * args.channels;
}

/* What the convolution of a row reads, the oldest first. */
__device__ __forceinline__ void find_taps(const struct gdn_args &args, int row,
                                          const float *tap[GDN_CONV]) {
    const struct dev_batch &batch = args.batch;
    const int seq = batch.seq[row], position = batch.position[row], first = batch.seq_row[seq];
    const float *saved = (const float *)args.op.state + batch.slot[seq] * args.at.slot_floats;
    const bool fresh = position == row - first;
    for (int j = 0; j < GDN_CONV; j++)
        tap[j] = inputs_of(args, first, row - first - HISTORY + j, fresh, saved);
}

template <int V>
__device__ __forceinline__ void load_conv(const float *conv, int64_t channel, int dim,
                                          float4 w[V]) {
    const int lane = threadIdx.x % WARP;
    for (int i = 0; i < V; i++) {
        const int k = lane + i * WARP;
        w[i] = k < dim ? ((const float4 *)conv)[channel + k] : make_float4(0, 0, 0, 0);
    }
}

template <int V>
__device__ __forceinline__ void convolve(const float *const tap[GDN_CONV], int64_t channel, int dim,
                                         const float4 w[V], float x[V]) {
    const int lane = threadIdx.x % WARP;
    float in[GDN_CONV][V];
    for (int j = 0; j < GDN_CONV; j++)
        for (int i = 0; i < V; i++) {
            const int k = lane + i * WARP;
            in[j][i] = tap[j] && k < dim ? tap[j][channel + k] : 0;
        }
    for (int i = 0; i < V; i++) {
        float sum = __fmaf_rn(w[i].x, in[0][i], 0.0f);
        sum = __fmaf_rn(w[i].y, in[1][i], sum);
        sum = __fmaf_rn(w[i].z, in[2][i], sum);
        sum = __fmaf_rn(w[i].w, in[3][i], sum);
        x[i] = sum * sigmoid(sum);
    }
}

template <int V> __device__ __forceinline__ float head_dot(const float a[V], const float b[V]) {
    float sum = 0;
    for (int i = 0; i < V; i++) sum = __fmaf_rn(a[i], b[i], sum);
    return warp_sum(sum);
}

template <int V>
__device__ __forceinline__ void store_scaled(const float x[V], float scale, int padded, float *to) {
    for (int i = 0; i < V; i++)
        if (i * WARP < padded) to[threadIdx.x % WARP + i * WARP] = x[i] * scale;
}

/* q and k of one key head. */
template <int V>
__device__ __forceinline__ void prepare_key(const struct gdn_args &args, int head, int64_t channel,
                                            const float4 w[2][V], const float *const tap[GDN_CONV],
                                            float *row) {
    const struct gdn_shape &s = args.op.shape;
    const int share = s.value_heads / s.key_heads, keys = args.at.keys;
    float q[V], k[V];
    convolve<V>(tap, channel, s.key_dim, w[0], q);
    convolve<V>(tap, channel + (int64_t)s.key_heads * s.key_dim, s.key_dim, w[1], k);
    const float q_scale = 1.0f / sqrtf((float)s.key_dim) / sqrtf(head_dot<V>(q, q) + 1e-6f);
    const float k_scale = 1.0f / sqrtf(head_dot<V>(k, k) + 1e-6f);
    const float product = head_dot<V>(q, k) * q_scale * k_scale;
    float *to = row + (int64_t)head * 2 * keys;
    store_scaled<V>(q, q_scale, keys, to);
    store_scaled<V>(k, k_scale, keys, to + keys);
    float4 *gate = (float4 *)(row + args.at.gate_at) + head * share;
    for (int i = threadIdx.x % WARP; i < share; i += WARP)
        *(float2 *)&gate[i].z = make_float2(product, 0);
}

/* v and the gates of one value head. */
template <int V>
__device__ __forceinline__ void prepare_value(const struct gdn_args &args, int head,
                                              int64_t channel, const float4 w[V],
                                              const float *const tap[GDN_CONV], float *row) {
    const struct op_gdn &op = args.op;
    const struct gdn_shape &s = op.shape;
    const float *b = tap[HISTORY] + args.channels + (int64_t)s.value_heads * s.value_dim + head;
    const float step = b[s.value_heads] + op.dt_bias[head];
    const float soft = step > 20.0f ? step : log1pf(expf(step));
    float v[V];
    convolve<V>(tap, channel, s.value_dim, w, v);
    store_scaled<V>(v, 1.0f, args.at.values, row + args.at.value_at + head * args.at.values);
    if (threadIdx.x % WARP == 0)
        *(float2 *)(row + args.at.gate_at + head * 4) =
            make_float2(expf(-op.decay[head] * soft), sigmoid(*b));
}

template <int V> __global__ void prepare_kernel(struct gdn_args args) {
    const struct gdn_shape &s = args.op.shape;
    const int task = blockIdx.y * WARPS + threadIdx.x / WARP, head = task - s.key_heads;
    const int row = blockIdx.x * args.tile, end = min(row + args.tile, args.batch.rows);
    const bool of_keys = head < 0;
    const int64_t keys = (int64_t)s.key_heads * s.key_dim;
    const int64_t channel =
        of_keys ? (int64_t)task * s.key_dim : 2 * keys + (int64_t)head * s.value_dim;
    float4 w[2][V];
    if (head < s.value_heads)
        load_conv<V>(args.op.conv, channel, of_keys ? s.key_dim : s.value_dim, w[0]);
    if (of_keys) load_conv<V>(args.op.conv, channel + keys, s.key_dim, w[1]);
    depend_wait();
    depend_release();
    if (head >= s.value_heads) return;
    for (int r = row; r < end; r++) {
        const float *tap[GDN_CONV];
        float *to = args.scratch + r * args.at.row_floats;
        find_taps(args, r, tap);
        if (of_keys)
            prepare_key<V>(args, task, channel, w, tap, to);
        else
            prepare_value<V>(args, head, channel, w[0], tap, to);
    }
}

/* ---- delta ---- */

/* A group of rows in shared memory: q and k, v, and (alpha, beta, q k, 0). */
template <int LANES> struct delta_group {
    enum { KEYS = PART * LANES, COLS = COLUMNS * HEAD_THREADS / LANES, ROWS = 1024 / KEYS };
    float4 key[ROWS][2][KEYS / 4];
    float4 value[ROWS][COLS / 4];
    float4 gate[ROWS];
};

/* Asks for a group's rows of scratch, as many as `rows` still are; key, value and gate are those of
 * the first. */
template <int LANES>
__device__ __forceinline__ void fetch_group(const float *key, const float *value, const float *gate,
                                            int64_t stride, int rows, delta_group<LANES> *to) {
    typedef delta_group<LANES> size;
    enum { KEY_PIECES = 2 * size::KEYS / 4, VALUE_PIECES = size::COLS / 4 };
    const int t = threadIdx.x;
#pragma unroll
    for (int i = 0; i < size::ROWS * KEY_PIECES; i += HEAD_THREADS) {
        const int r = (i + t) / KEY_PIECES, k = (i + t) % KEY_PIECES;
        if (r < rows) __pipeline_memcpy_async(&to->key[r][0][0] + k, key + r * stride + 4 * k, 16);
    }
    const int r = t / VALUE_PIECES, k = t % VALUE_PIECES;
    if (r < rows && r < size::ROWS)
        __pipeline_memcpy_async(&to->value[r][k], value + r * stride + 4 * k, 16);
    if (t < rows && t < size::ROWS) __pipeline_memcpy_async(&to->gate[t], gate + t * stride, 16);
    __pipeline_commit();
}

/* The last three inputs of a sequence take their places in the slot, which prepare has read by now.
 * Each block of the sequence has a share of the channels. */
__device__ __forceinline__ void keep_inputs(const struct gdn_args &args, int first, int n,
                                            bool fresh, float *saved) {
    const float *from[HISTORY];
    for (int i = 0; i < HISTORY; i++)
        from[i] = inputs_of(args, first, n - HISTORY + i, fresh, saved);
#pragma unroll 1
    for (int64_t c = (int64_t)blockIdx.x * HEAD_THREADS + threadIdx.x; c < args.channels;
         c += (int64_t)gridDim.x * HEAD_THREADS) {
        float x[HISTORY];
        for (int i = 0; i < HISTORY; i++) x[i] = from[i] ? from[i][c] : 0;
        for (int i = 0; i < HISTORY; i++) saved[i * args.channels + c] = x[i];
    }
}

template <int LANES> __device__ __forceinline__ float lanes_sum(float x) {
    for (int width = LANES / 2; width > 0; width /= 2) x += __shfl_xor_sync(~0u, x, width);
    return x;
}

/* Takes a thread's part of two columns through one row; gives the pair's o. */
template <int LANES>
__device__ __forceinline__ float2 delta_row(const delta_group<LANES> &group, int r,
                                            float state[COLUMNS][PART]) {
    const int lane = threadIdx.x % LANES;
    const float4 gate = group.gate[r];
    const float2 v = ((const float2 *)group.value[r])[threadIdx.x / LANES];
    float q[PART], k[PART], held[COLUMNS] = {}, seen[COLUMNS] = {};
#pragma unroll
    for (int i = 0; i < PART / 4; i++) {
        *(float4 *)&k[4 * i] = group.key[r][1][lane + LANES * i];
        *(float4 *)&q[4 * i] = group.key[r][0][lane + LANES * i];
    }
#pragma unroll
    for (int i = 0; i < PART; i++) {
        for (int c = 0; c < COLUMNS; c++) {
            held[c] = __fmaf_rn(state[c][i], k[i], held[c]);
            seen[c] = __fmaf_rn(state[c][i], q[i], seen[c]);
        }
    }
    float change[COLUMNS], o[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) {
        held[c] = lanes_sum<LANES>(held[c]);
        change[c] = __fmul_rn(gate.y, __fmaf_rn(-gate.x, held[c], c ? v.y : v.x));
    }
#pragma unroll
    for (int i = 0; i < PART; i++) {
        for (int c = 0; c < COLUMNS; c++)
            state[c][i] = __fmaf_rn(k[i], change[c], __fmul_rn(gate.x, state[c][i]));
    }
    for (int c = 0; c < COLUMNS; c++)
        o[c] = __fmaf_rn(gate.z, change[c], __fmul_rn(gate.x, lanes_sum<LANES>(seen[c])));
    return make_float2(o[0], o[1]);
}

/* Block: (columns of a value head, sequence). */
template <int LANES>
__global__ void __launch_bounds__(HEAD_THREADS) delta_kernel(struct gdn_args args) {
    typedef delta_group<LANES> size;
    __shared__ delta_group<LANES> group[2];
    const struct gdn_shape &s = args.op.shape;
    const int tiles = args.at.values / size::COLS, head = blockIdx.x / tiles, seq = blockIdx.y;
    const int key_head = head / (s.value_heads / s.key_heads);
    const int64_t stride = args.at.row_floats;
    const int first = args.batch.seq_row[seq], n = args.batch.seq_row[seq + 1] - first;
    const bool fresh = args.batch.position[first] == 0;
    float *slot = (float *)args.op.state + args.batch.slot[seq] * args.at.slot_floats;
    float4 *kept = (float4 *)(slot + args.at.state_at) +
                   (int64_t)blockIdx.x * (STATE / 4 * HEAD_THREADS) + threadIdx.x;
    float state[COLUMNS][PART];
#pragma unroll
    for (int i = 0; i < STATE / 4; i++)
        *(float4 *)&state[4 * i / PART][4 * i % PART] =
            fresh ? make_float4(0, 0, 0, 0) : kept[i * HEAD_THREADS];
    depend_wait();
    depend_release();

    float *row = args.scratch + first * stride;
    const float *key = row + (int64_t)key_head * 2 * size::KEYS;
    const float *gate = row + args.at.gate_at + head * 4;
    float *value = row + args.at.value_at + (int64_t)blockIdx.x * size::COLS;
    float *out = value + COLUMNS * (threadIdx.x / LANES);
    fetch_group<LANES>(key, value, gate, stride, n, &group[0]);
    keep_inputs(args, first, n, fresh, slot);

    for (int done = 0, half = 0; done < n; done += size::ROWS, half ^= 1) {
        __pipeline_wait_prior(0);
        __syncthreads(); /* the group is there, the one before it done with */
        const int next = done + size::ROWS, rows = min(n - done, (int)size::ROWS);
        fetch_group<LANES>(key + next * stride, value + next * stride, gate + next * stride, stride,
                           n - next, &group[half ^ 1]);
#pragma unroll 1
        for (int r = 0; r < rows; r++, out += stride) {
            const float2 o = delta_row<LANES>(group[half], r, state);
            if (threadIdx.x % LANES == 0) *(float2 *)out = o;
        }
    }
#pragma unroll
    for (int i = 0; i < STATE / 4; i++)
        kept[i * HEAD_THREADS] = *(const float4 *)&state[4 * i / PART][4 * i % PART];
}

/* ---- finish ---- */

template <int V> __global__ void finish_kernel(struct gdn_args args) {
    const struct op_gdn &op = args.op;
    const struct gdn_shape &s = op.shape;
    const int64_t row = blockIdx.x, values = (int64_t)s.value_heads * s.value_dim;
    const int head = blockIdx.y * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int64_t column = (int64_t)head * s.value_dim;
    const float *from =
        args.scratch + row * args.at.row_floats + args.at.value_at + (int64_t)head * args.at.values;
    const float *gate = op.in + row * args.in_stride + args.channels + column;
    uint16_t *out = (uint16_t *)op.out + row * args.out_stride;
    float o[V], z[V];
    for (int i = 0; i < V; i++) {
        const int j = lane + i * WARP;
        z[i] = head < s.value_heads && j < s.value_dim ? gate[j] : 0;
    }
    depend_wait();
    depend_release();
    if (head >= s.value_heads) return;
    for (int i = 0; i < V; i++) {
        const int j = lane + i * WARP;
        o[i] = j < s.value_dim ? from[j] : 0;
    }
    const float scale = 1.0f / sqrtf(head_dot<V>(o, o) / (float)s.value_dim + op.eps);
    for (int i = 0; i < V; i++) {
        const int j = lane + i * WARP;
        if (j >= s.value_dim) break;
        out[act_place(column + j)] =
            bf16_encode(o[i] * scale * op.norm[j] * (z[i] * sigmoid(z[i])));
    }
    for (int64_t k = values + lane; head == 0 && k < args.out_stride; k += WARP)
        out[act_place(k)] = 0;
}

/* ---- the op ---- */

typedef void (*gdn_kernel)(struct gdn_args);
static const gdn_kernel PREPARE[SIZES] = {prepare_kernel<4>, prepare_kernel<8>, prepare_kernel<16>};
static const gdn_kernel DELTA[SIZES] = {delta_kernel<8>, delta_kernel<16>, delta_kernel<32>};
static const gdn_kernel FINISH[SIZES] = {finish_kernel<4>, finish_kernel<8>, finish_kernel<16>};

void cuda_gdn(struct backend *be, const struct op_gdn *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const struct gdn_shape *s = &op->shape;
    const struct gdn_layout at = layout_of(s);
    const unsigned rows = (unsigned)cuda->batch.rows, seqs = (unsigned)cuda->batch.seqs;
    const unsigned tile = rows <= FEW_ROWS ? 1 : TILE_ROWS;
    const unsigned heads = (unsigned)s->value_heads, tasks = (unsigned)s->key_heads + heads;
    const unsigned columns = COLUMNS * HEAD_THREADS * PART / (unsigned)at.keys; /* of a block */
    check(s->key_dim <= MAX_DIM && s->value_dim <= MAX_DIM);
    check(at.row_floats <= layout_of(&cuda->limits.gdn).row_floats);
    const int64_t out_stride = act_stride((int64_t)s->value_heads * s->value_dim);
    const struct gdn_args args = {
        *op, cuda->batch, at, cuda->gdn_rows, gdn_channels(s), gdn_row(s), out_stride, (int)tile};
    gpu_launch(cuda, "gdn prepare", PREPARE[at.size],
               dim3((rows + tile - 1) / tile, (tasks + WARPS - 1) / WARPS), HEAD_THREADS, 0, args);
    gpu_launch(cuda, "gdn delta", DELTA[size_of(s->key_dim)],
               dim3(heads * (unsigned)at.values / columns, seqs), HEAD_THREADS, 0, args);
    gpu_launch(cuda, "gdn finish", FINISH[at.size], dim3(rows, (heads + WARPS - 1) / WARPS),
               HEAD_THREADS, 0, args);
}
