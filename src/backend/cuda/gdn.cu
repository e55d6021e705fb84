/* The gated delta net as the plain recurrence, row by row, in prefill and decode alike.
 *
 * The convolution: a thread a channel of a sequence, from its last row back, in place. The state: a
 * block a value head of a sequence, a thread a column, so that nothing is added across threads but
 * the norms. Slot: [3, channels] inputs of the convolution, then [value_heads, key_dim, value_dim].
 */
#include "backend/cuda/cuda.cuh"

enum { HISTORY = GDN_CONV - 1, MAX_DIM = 512 };

struct gdn_args {
    struct op_gdn op;
    struct dev_batch batch;
    int64_t channels, stride, slot_floats, out_stride; /* stride: of a row of op.in */
};

static int64_t state_floats(const struct gdn_shape *s) {
    return HISTORY * gdn_channels(s) + (int64_t)s->value_heads * s->key_dim * s->value_dim;
}

size_t cuda_gdn_state_bytes(struct backend *be, const struct gdn_shape *shape) {
    (void)be;
    return (size_t)state_floats(shape) * sizeof(float);
}

__global__ void conv_kernel(struct gdn_args args) {
    const struct op_gdn &op = args.op;
    const struct dev_batch &batch = args.batch;
    const int64_t channels = args.channels, stride = args.stride;
    const int64_t c = (int64_t)blockIdx.x * HEAD_THREADS + threadIdx.x;
    const int seq = blockIdx.y;
    depend_wait();
    depend_release();
    if (c >= channels) return;
    const int first = batch.seq_row[seq], n = batch.seq_row[seq + 1] - first;
    float *saved = (float *)op.state + batch.slot[seq] * args.slot_floats + c;
    float *u = op.in + first * stride + c, before[HISTORY], w[GDN_CONV];
    for (int j = 0; j < GDN_CONV; j++) w[j] = op.conv[c * GDN_CONV + j];
    for (int i = 0; i < HISTORY; i++)
        before[i] = batch.position[first] == 0 ? 0 : saved[i * channels];
    for (int i = 0; i < HISTORY; i++) {
        const int r = n - HISTORY + i;
        saved[i * channels] = r >= 0 ? u[r * stride] : before[HISTORY + r];
    }
    for (int r = n - 1; r >= 0; r--) {
        float sum = 0;
        for (int j = 0; j < GDN_CONV; j++) {
            const int at = r - HISTORY + j;
            sum = __fmaf_rn(w[j], at >= 0 ? u[at * stride] : before[HISTORY + at], sum);
        }
        u[r * stride] = sum * sigmoid(sum);
    }
}

__device__ void load_unit(const float *from, int n, float factor, float *to) {
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += HEAD_THREADS) sum = __fmaf_rn(from[i], from[i], sum);
    const float scale = factor / sqrtf(head_sum(sum) + 1e-6f);
    for (int i = threadIdx.x; i < n; i += HEAD_THREADS) to[i] = from[i] * scale;
}

__global__ void delta_kernel(struct gdn_args args) {
    const struct op_gdn &op = args.op;
    const struct dev_batch &batch = args.batch;
    __shared__ float q[MAX_DIM], k[MAX_DIM];
    const struct gdn_shape s = op.shape;
    const int head = blockIdx.x, seq = blockIdx.y, key_head = head / (s.value_heads / s.key_heads);
    const int64_t channels = args.channels, stride = args.stride;
    const int64_t values = (int64_t)s.value_heads * s.value_dim;
    depend_wait();
    depend_release();
    const int first = batch.seq_row[seq], end = batch.seq_row[seq + 1];
    const bool fresh = batch.position[first] == 0;
    float *state = (float *)op.state + batch.slot[seq] * args.slot_floats + HISTORY * channels +
                   (int64_t)head * s.key_dim * s.value_dim;
    for (int64_t i = threadIdx.x; fresh && i < (int64_t)s.key_dim * s.value_dim; i += HEAD_THREADS)
        state[i] = 0;
    for (int r = first; r < end; r++) {
        const float *in = op.in + r * stride, *z = in + channels + (int64_t)head * s.value_dim;
        const float *v = in + 2 * (int64_t)s.key_heads * s.key_dim + (int64_t)head * s.value_dim;
        const float b = in[channels + values + head];
        const float a = in[channels + values + s.value_heads + head] + op.dt_bias[head];
        const float soft = a > 20.0f ? a : log1pf(expf(a));
        const float alpha = expf(-op.decay[head] * soft), beta = sigmoid(b);
        __syncthreads(); /* q and k of the row before are done with; the zeros are there */
        load_unit(in + (int64_t)key_head * s.key_dim, s.key_dim, 1.0f / sqrtf((float)s.key_dim), q);
        load_unit(in + (int64_t)(s.key_heads + key_head) * s.key_dim, s.key_dim, 1.0f, k);
        __syncthreads();
        float o[MAX_DIM / HEAD_THREADS] = {}, squares = 0;
        for (int j = threadIdx.x, n = 0; j < s.value_dim; j += HEAD_THREADS, n++) {
            float m = 0;
            for (int i = 0; i < s.key_dim; i++) {
                float x = __fmul_rn(state[i * s.value_dim + j], alpha);
                state[i * s.value_dim + j] = x;
                m = __fmaf_rn(x, k[i], m);
            }
            const float change = beta * (v[j] - m);
            for (int i = 0; i < s.key_dim; i++) {
                float x = __fmaf_rn(k[i], change, state[i * s.value_dim + j]);
                state[i * s.value_dim + j] = x;
                o[n] = __fmaf_rn(x, q[i], o[n]);
            }
            squares = __fmaf_rn(o[n], o[n], squares);
        }
        const float scale = 1.0f / sqrtf(head_sum(squares) / (float)s.value_dim + op.eps);
        const int64_t at = (int64_t)head * s.value_dim;
        uint16_t *out = (uint16_t *)op.out + r * args.out_stride;
        for (int j = threadIdx.x, n = 0; j < s.value_dim; j += HEAD_THREADS, n++)
            out[act_place(at + j)] = bf16_encode(o[n] * scale * op.norm[j] * (z[j] * sigmoid(z[j])));
        if (head == 0 && values + threadIdx.x < args.out_stride)
            out[act_place(values + threadIdx.x)] = 0;
    }
}

void cuda_gdn(struct backend *be, const struct op_gdn *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const struct gdn_shape *s = &op->shape;
    const unsigned seqs = (unsigned)cuda->batch.seqs;
    const unsigned tiles = (unsigned)((gdn_channels(s) + HEAD_THREADS - 1) / HEAD_THREADS);
    check(s->key_dim <= MAX_DIM && s->value_dim <= MAX_DIM);
    const int64_t values = (int64_t)s->value_heads * s->value_dim;
    const struct gdn_args args = {*op,        cuda->batch,     gdn_channels(s),
                                  gdn_row(s), state_floats(s), act_stride(values)};
    gpu_launch(cuda, "gdn convolution", conv_kernel, dim3(tiles, seqs), HEAD_THREADS, 0, args);
    gpu_launch(cuda, "gdn", delta_kernel, dim3((unsigned)s->value_heads, seqs), HEAD_THREADS, 0,
               args);
}
