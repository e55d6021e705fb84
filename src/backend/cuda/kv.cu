/* Between the qkv product and attention: norms, rotation, and K and V into their blocks.
 *
 * A warp makes one head of a row, a lane the same dims of it from load to store; VECTOR
 * neighbouring dims at a time where everything is aligned. The one thing that crosses lanes is the
 * partner of a rotated dim, through shared memory. */
#include "backend/cuda/kv.cuh"

enum { QKV_WARPS = 4, MAX_HEAD = 512 };

template <int VECTOR>
__device__ __forceinline__ void load_floats(float out[VECTOR], const float *from) {
    if (VECTOR == 4) {
        const float4 x = *(const float4 *)from;
        out[0] = x.x, out[1] = x.y, out[2] = x.z, out[3] = x.w;
    } else {
        for (int j = 0; j < VECTOR; j++) out[j] = from[j];
    }
}

/* VECTOR neighbours of K or V. */
template <int VECTOR> __device__ __forceinline__ void store_kv(uint16_t *to, const float *x) {
    if (VECTOR == 4) {
        uint32_t y[2];
        for (int j = 0; j < 2; j++)
            y[j] = bf16_encode(x[2 * j]) | (uint32_t)bf16_encode(x[2 * j + 1]) << 16;
        *(uint2 *)to = make_uint2(y[0], y[1]);
    } else {
        for (int j = 0; j < VECTOR; j++) to[j] = bf16_encode(x[j]);
    }
}
template <int VECTOR> __device__ __forceinline__ void store_kv(uint8_t *to, const float *x) {
    if (VECTOR == 4) {
        uint32_t y = 0;
        for (int j = 0; j < 4; j++) y |= (uint32_t)e4m3_encode(x[j]) << 8 * j;
        *(uint32_t *)to = y;
    } else {
        for (int j = 0; j < VECTOR; j++) to[j] = e4m3_encode(x[j]);
    }
}

/* VECTOR neighbours of q from column k on, a multiple of VECTOR: pairs stay together in an act. */
template <int VECTOR>
__device__ __forceinline__ void store_q(uint16_t *row, int64_t k, const float *x, float scale) {
    if (VECTOR == 4) {
        for (int j = 0; j < 4; j += 2)
            *(uint32_t *)(row + act_place(k + j)) =
                bf16_encode(x[j] * scale) | (uint32_t)bf16_encode(x[j + 1] * scale) << 16;
    } else {
        for (int j = 0; j < VECTOR; j++) row[act_place(k + j)] = bf16_encode(x[j] * scale);
    }
}

/* Dim i of a head after rotation. */
__device__ __forceinline__ float rotated(const float *x, int i, const struct op_qkv &op,
                                         const float *angles) {
    const int pair = i < op.pairs ? i : i - op.pair_offset;
    if (pair < 0 || pair >= op.pairs) return x[i];
    const float c = angles[2 * pair], s = angles[2 * pair + 1];
    if (i < op.pairs) return __fsub_rn(__fmul_rn(x[i], c), __fmul_rn(x[i + op.pair_offset], s));
    return __fadd_rn(__fmul_rn(x[i], c), __fmul_rn(x[pair], s));
}

__device__ __forceinline__ float q_factor(const struct op_qkv &op, int position) {
    if (op.q_growth == 0) return op.q_scale;
    return op.q_scale *
           (1.0f + op.q_growth * logf(1.0f + floorf((float)position / op.q_growth_tokens)));
}

/* Heads in blockIdx.y and warps: q's, then k's, then v's. */
template <int VECTOR, class E>
__global__ void __launch_bounds__(QKV_WARPS *WARP)
    qkv_kernel(struct op_qkv op, struct dev_batch batch, int heads) {
    __shared__ float shared[QKV_WARPS][MAX_HEAD];
    enum { STEP = WARP * VECTOR };
    const int head = blockIdx.y * QKV_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int64_t r = blockIdx.x;
    const int d = op.head_dim;
    depend_release();
    depend_wait();
    if (head >= heads) return;
    const bool is_q = head < op.heads, is_v = head >= op.heads + op.kv_heads;
    const int kv_head = is_q ? 0 : (head - op.heads) % op.kv_heads;
    const int position = batch.position[r], seq = batch.seq[r];
    const float *from = op.qkv + r * op.row_cols;
    from += is_q ? (int64_t)head * op.q_step
                 : (int64_t)op.heads * op.q_step +
                       (int64_t)(is_v && !op.v_from_k ? op.kv_heads + kv_head : kv_head) * d;
    const float *weight = is_q ? op.q_norm : is_v ? NULL : op.k_norm;
    const float *angles = op.angles + r * op.pairs * 2;
    float *x = shared[threadIdx.x / WARP], sum = 0;
    for (int i = lane * VECTOR; i < d; i += STEP) {
        float value[VECTOR];
        load_floats<VECTOR>(value, from + i);
        for (int j = 0; j < VECTOR; j++) {
            x[i + j] = value[j];
            sum = __fmaf_rn(value[j], value[j], sum);
        }
    }
    if (weight || (is_v && op.v_norm)) {
        const float scale = 1.0f / sqrtf(warp_sum(sum) / (float)d + op.eps);
        for (int i = lane * VECTOR; i < d; i += STEP)
            for (int j = 0; j < VECTOR; j++)
                x[i + j] = x[i + j] * scale * (weight ? weight[i + j] : 1.0f);
    }
    __syncwarp();
    const int64_t cols = (int64_t)op.heads * d;
    uint16_t *q = (uint16_t *)op.q + r * act_stride(cols);
    const float factor = q_factor(op, position);
    E *to = NULL;
    if (!is_q) {
        const int32_t *blocks = block_table(batch, op.group, seq);
        to = kv_rows<E>(op.kv, blocks[position / KV_BLOCK_TOKENS], is_v, op.kv_heads, kv_head, d) +
             position % KV_BLOCK_TOKENS * d;
    }
    for (int i = lane * VECTOR; i < d; i += STEP) {
        float value[VECTOR];
        for (int j = 0; j < VECTOR; j++) value[j] = is_v ? x[i + j] : rotated(x, i + j, op, angles);
        if (is_q) {
            store_q<VECTOR>(q, (int64_t)head * d + i, value, factor);
        } else {
            store_kv<VECTOR>(to + i, value);
        }
    }
    if (head != 0) return;
    for (int64_t k = cols + lane; k < act_stride(cols); k += WARP) q[act_place(k)] = 0;
}

/* The shapes alone decide: sums of the norms differ. */
static bool is_aligned(const struct op_qkv *op) {
    return op->head_dim % 4 == 0 && op->q_step % 4 == 0 && op->row_cols % 4 == 0;
}

void cuda_qkv(struct backend *be, const struct op_qkv *op) {
    struct cuda_backend *cuda = cuda_of(be);
    check(op->head_dim <= MAX_HEAD && (uintptr_t)op->qkv % sizeof(float4) == 0);
    const int heads = op->kv ? op->heads + 2 * op->kv_heads : op->heads;
    const dim3 grid((unsigned)cuda->batch.rows, (unsigned)(heads + QKV_WARPS - 1) / QKV_WARPS);
    void (*const kernel[2][2])(struct op_qkv, struct dev_batch,
                               int) = {{qkv_kernel<1, uint16_t>, qkv_kernel<1, uint8_t>},
                                       {qkv_kernel<4, uint16_t>, qkv_kernel<4, uint8_t>}};
    gpu_launch(cuda, "qkv", kernel[is_aligned(op)][cuda->kv_fp8], grid, QKV_WARPS * WARP, 0, *op,
               cuda->batch, heads);
}
