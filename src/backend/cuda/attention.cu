/* Writing K and V, and attention over the KV blocks of a row.
 *
 * A block of threads makes one query head of one row: the KV blocks it sees in ascending order,
 * each one part of an online softmax. Inside a part a warp makes a score (lanes over the head's
 * dims, a butterfly), then a thread owns dims of the output and walks the part's positions. So what
 * a row gets depends on its position and its sequence's KV alone. */
#include <math.h>

#include "backend/cuda/cuda.cuh"

enum { HEAD_WARPS = HEAD_THREADS / WARP, MAX_HEAD = 1024 };

struct kv_place {
    uint16_t *k, *v; /* head_dim values */
};

__device__ __forceinline__ struct kv_place kv_at(const void *kv, const int32_t *blocks,
                                                 int position, int kv_heads, int head, int d) {
    const int64_t plane = (int64_t)kv_heads * KV_BLOCK_TOKENS * d;
    uint16_t *block = (uint16_t *)kv + 2 * (int64_t)blocks[position / KV_BLOCK_TOKENS] * plane;
    const int64_t at = ((int64_t)head * KV_BLOCK_TOKENS + position % KV_BLOCK_TOKENS) * d;
    return {block + at, block + plane + at};
}

/* In shared memory: norm (weight may be NULL) in place. */
__device__ void norm_head(float *x, int d, const float *weight, float eps) {
    float sum = 0;
    for (int i = threadIdx.x; i < d; i += HEAD_THREADS) sum = __fmaf_rn(x[i], x[i], sum);
    const float scale = 1.0f / sqrtf(head_sum(sum) / (float)d + eps);
    for (int i = threadIdx.x; i < d; i += HEAD_THREADS)
        x[i] = x[i] * scale * (weight ? weight[i] : 1.0f);
    __syncthreads();
}

__device__ void rotate(float *x, const float *angles, int pairs, int offset) {
    for (int i = threadIdx.x; i < pairs; i += HEAD_THREADS) {
        const float c = angles[2 * i], s = angles[2 * i + 1], a = x[i], b = x[i + offset];
        x[i] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
        x[i + offset] = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
    }
    __syncthreads();
}

/* Past the columns of an act's row; by the blocks of head 0. */
__device__ void zero_rest(uint16_t *row, int64_t cols, int head) {
    if (head == 0 && cols + threadIdx.x < act_stride(cols)) row[act_place(cols + threadIdx.x)] = 0;
}

/* blockIdx.y: q heads, then k heads, then v heads. */
__global__ void qkv_kernel(struct op_qkv op, struct dev_batch batch) {
    __shared__ float x[MAX_HEAD];
    const int64_t r = blockIdx.x;
    const int head = blockIdx.y, d = op.head_dim;
    const bool is_q = head < op.heads, is_v = head >= op.heads + op.kv_heads;
    const int kv_head = is_q ? 0 : (head - op.heads) % op.kv_heads;
    const float *from = op.qkv + r * op.row_cols;
    from += is_q ? (int64_t)head * op.q_step
                 : (int64_t)op.heads * op.q_step +
                       (int64_t)(is_v && !op.v_from_k ? op.kv_heads + kv_head : kv_head) * d;
    depend_wait();
    depend_release();
    for (int i = threadIdx.x; i < d; i += HEAD_THREADS) x[i] = from[i];
    __syncthreads();
    const float *weight = is_q ? op.q_norm : is_v ? NULL : op.k_norm;
    if (weight || (is_v && op.v_norm)) norm_head(x, d, weight, op.eps);
    if (!is_v) rotate(x, op.angles + r * op.pairs * 2, op.pairs, op.pair_offset);
    const int position = batch.position[r];
    if (is_q) {
        float scale = op.q_scale;
        if (op.q_growth != 0)
            scale *= 1.0f + op.q_growth * logf(1.0f + floorf((float)position / op.q_growth_tokens));
        const int64_t cols = (int64_t)op.heads * d, at = (int64_t)head * d;
        uint16_t *q = (uint16_t *)op.q + r * act_stride(cols);
        for (int i = threadIdx.x; i < d; i += HEAD_THREADS)
            q[act_place(at + i)] = bf16_encode(x[i] * scale);
        zero_rest(q, cols, head);
        return;
    }
    const int32_t *blocks = batch.blocks[op.group] + (int64_t)batch.seq[r] * batch.block_stride;
    const struct kv_place at = kv_at(op.kv, blocks, position, op.kv_heads, kv_head, d);
    uint16_t *to = is_v ? at.v : at.k;
    for (int i = threadIdx.x; i < d; i += HEAD_THREADS) to[i] = bf16_encode(x[i]);
}

void cuda_qkv(struct backend *be, const struct op_qkv *op) {
    struct cuda_backend *cuda = cuda_of(be);
    check(op->head_dim <= MAX_HEAD);
    const unsigned heads = (unsigned)(op->kv ? op->heads + 2 * op->kv_heads : op->heads);
    gpu_launch(cuda, "qkv", qkv_kernel, dim3((unsigned)cuda->batch.rows, heads), HEAD_THREADS, 0,
               *op, cuda->batch);
}

__global__ void attention_kernel(struct op_attention op, struct dev_batch batch) {
    __shared__ float q[MAX_HEAD], p[KV_BLOCK_TOKENS], shared_alpha;
    const int64_t r = blockIdx.x;
    const int head = blockIdx.y, d = op.head_dim, lane = threadIdx.x % WARP;
    const int64_t cols = (int64_t)op.heads * d, at = (int64_t)head * d, stride = act_stride(cols);
    depend_wait();
    depend_release();
    const int kv_head = head / (op.heads / op.kv_heads), last = batch.position[r];
    const int first = op.window > 0 && last >= op.window ? last - op.window + 1 : 0;
    const int32_t *blocks = batch.blocks[op.group] + (int64_t)batch.seq[r] * batch.block_stride;
    const uint16_t *query = (const uint16_t *)op.q + r * stride;
    float o[MAX_HEAD / HEAD_THREADS] = {};
    float m = -INFINITY, l = 0; /* of thread 0 */
    for (int i = threadIdx.x; i < d; i += HEAD_THREADS) q[i] = bf16_decode(query[act_place(at + i)]);
    for (int block = first / KV_BLOCK_TOKENS; block <= last / KV_BLOCK_TOKENS; block++) {
        const int start = block * KV_BLOCK_TOKENS;
        const int lo = first > start ? first - start : 0;
        const int hi = last - start < KV_BLOCK_TOKENS ? last - start + 1 : KV_BLOCK_TOKENS;
        __syncthreads();
        for (int i = lo + threadIdx.x / WARP; i < hi; i += HEAD_WARPS) {
            const uint16_t *k = kv_at(op.kv, blocks, start + i, op.kv_heads, kv_head, d).k;
            float s = 0;
            for (int c = lane; c < d; c += WARP) s = __fmaf_rn(q[c], bf16_decode(k[c]), s);
            s = warp_sum(s);
            if (op.softcap > 0) s = op.softcap * tanhf(s / op.softcap);
            if (lane == 0) p[i] = s;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            float most = m, sum = 0;
            for (int i = lo; i < hi; i++) most = p[i] > most || p[i] != p[i] ? p[i] : most;
            for (int i = lo; i < hi; i++) sum += p[i] = expf(p[i] - most);
            shared_alpha = expf(m - most);
            l = __fmaf_rn(l, shared_alpha, sum);
            m = most;
        }
        __syncthreads();
        for (int i = threadIdx.x, n = 0; i < d; i += HEAD_THREADS, n++) {
            float sum = o[n] * shared_alpha;
            for (int j = lo; j < hi; j++)
                sum = __fmaf_rn(
                    p[j],
                    bf16_decode(kv_at(op.kv, blocks, start + j, op.kv_heads, kv_head, d).v[i]),
                    sum);
            o[n] = sum;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) { /* what the sums are multiplied by */
        float most = m, total = l;
        if (op.sinks) {
            most = fmaxf(m, op.sinks[head]);
            total = __fmaf_rn(l, expf(m - most), expf(op.sinks[head] - most));
        }
        p[0] = expf(m - most);
        p[1] = total;
    }
    __syncthreads();
    const float *gate = op.gate ? op.gate + r * op.gate_row + (int64_t)head * op.gate_step : NULL;
    uint16_t *out = (uint16_t *)op.out + r * stride;
    for (int i = threadIdx.x, n = 0; i < d; i += HEAD_THREADS, n++) {
        float value = o[n] * p[0] / p[1];
        if (gate) value *= sigmoid(gate[i]);
        out[act_place(at + i)] = bf16_encode(value);
    }
    zero_rest(out, cols, head);
}

void cuda_attention(struct backend *be, const struct op_attention *op) {
    struct cuda_backend *cuda = cuda_of(be);
    check(op->head_dim <= MAX_HEAD && op->heads % op->kv_heads == 0);
    gpu_launch(cuda, "attention", attention_kernel,
               dim3((unsigned)cuda->batch.rows, (unsigned)op->heads), HEAD_THREADS, 0, *op,
               cuda->batch);
}
