/* Ops on single rows: a block of ROW_THREADS threads a row, or a thread an element. */
#include "backend/cuda/cuda.cuh"

__global__ void embed_kernel(struct dev_weight w, const int32_t *token, float scale, float *h) {
    const int64_t row = blockIdx.x;
    depend_release();
    depend_wait();
    const int64_t id = token[row];
    for (int64_t k = threadIdx.x; k < w.cols; k += ROW_THREADS)
        h[row * w.cols + k] = __fmul_rn(__fmul_rn(weight_value(&w, id, k), w.multiplier), scale);
}

void cuda_embed(struct backend *be, const struct op_embed *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const struct cuda_table *t = (const struct cuda_table *)op->table;
    gpu_launch(cuda, "embed", embed_kernel, (unsigned)cuda->batch.rows, ROW_THREADS, 0, t->weight,
               cuda->batch.token, op->scale, op->h);
}

/* Four columns of an act's row from column k on, k a multiple of four; past cols they are 0. */
static __device__ __forceinline__ void store_four(uint16_t *row, int64_t k, int64_t cols,
                                                  const float v[4]) {
    uint32_t pair[2];
    for (int i = 0; i < 2; i++) {
        const uint32_t low = k + 2 * i < cols ? bf16_encode(v[2 * i]) : 0;
        const uint32_t high = k + 2 * i + 1 < cols ? bf16_encode(v[2 * i + 1]) : 0;
        pair[i] = high << 16 | low;
    }
    *(uint32_t *)(row + act_place(k)) = pair[0];
    *(uint32_t *)(row + act_place(k + 2)) = pair[1];
}

/* A row stays in registers: a thread has four columns of every 4 NORM_THREADS. More than NORM_FOURS
 * of them are read again. */
enum { NORM_THREADS = 512, NORM_FOURS = 4 };

static __device__ __forceinline__ void load_four(const float *x, int64_t k, int64_t cols,
                                                 float v[4]) {
    if (k + 4 <= cols && (cols & 3) == 0) {
        const float4 f = *(const float4 *)(x + k);
        v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
        return;
    }
    for (int i = 0; i < 4; i++) v[i] = k + i < cols ? x[k + i] : 0;
}

static __device__ float norm_sum(float x) {
    __shared__ float part[NORM_THREADS / WARP];
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = x;
    __syncthreads();
    float total = 0;
    for (int i = 0; i < NORM_THREADS / WARP; i++) total += part[i];
    return total;
}

__global__ void __launch_bounds__(NORM_THREADS)
    norm_kernel(const float *h, const int32_t *from, const float *weight, float eps, int64_t cols,
                uint16_t *out) {
    const int64_t stride = act_stride(cols), k0 = threadIdx.x * 4, step = NORM_THREADS * 4;
    float v[NORM_FOURS][4], w[NORM_FOURS][4], sum = 0;
    for (int i = 0; i < NORM_FOURS; i++) {
        w[i][0] = w[i][1] = w[i][2] = w[i][3] = 1;
        if (weight) load_four(weight, k0 + i * step, cols, w[i]);
    }
    depend_release();
    depend_wait();
    const float *x = h + (from ? from[blockIdx.x] : (int64_t)blockIdx.x) * cols;
    uint16_t *to = out + blockIdx.x * stride;
    for (int i = 0; i < NORM_FOURS; i++) load_four(x, k0 + i * step, cols, v[i]);
    for (int i = 0; i < NORM_FOURS; i++)
        for (int j = 0; j < 4; j++) sum = __fmaf_rn(v[i][j], v[i][j], sum);
    for (int64_t k = k0 + NORM_FOURS * step; k < cols; k += step) {
        float more[4];
        load_four(x, k, cols, more);
        for (int j = 0; j < 4; j++) sum = __fmaf_rn(more[j], more[j], sum);
    }
    const float scale = 1.0f / sqrtf(norm_sum(sum) / (float)cols + eps);
    for (int i = 0; i < NORM_FOURS; i++) {
        if (k0 + i * step >= stride) break;
        for (int j = 0; j < 4; j++) v[i][j] = v[i][j] * scale * w[i][j];
        store_four(to, k0 + i * step, cols, v[i]);
    }
    for (int64_t k = k0 + NORM_FOURS * step; k < stride; k += step) {
        float more[4], by[4] = {1, 1, 1, 1};
        load_four(x, k, cols, more);
        if (weight) load_four(weight, k, cols, by);
        for (int j = 0; j < 4; j++) more[j] = more[j] * scale * by[j];
        store_four(to, k, cols, more);
    }
}

void cuda_norm(struct backend *be, const struct op_norm *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const int rows = cuda_rows(cuda, op->rows);
    if (rows == 0) return;
    gpu_launch(cuda, "norm", norm_kernel, (unsigned)rows, NORM_THREADS, 0, op->h,
               op->rows == ROWS_OUT ? cuda->batch.out_row : NULL, op->weight, op->eps, op->cols,
               (uint16_t *)op->out);
}

__global__ void convert_kernel(const float *x, int64_t rows, int64_t cols, uint16_t *out) {
    const int64_t i = (int64_t)blockIdx.x * ROW_THREADS + threadIdx.x, stride = act_stride(cols);
    const int64_t r = i / stride, k = i % stride;
    depend_release();
    depend_wait();
    if (r < rows) out[r * stride + act_place(k)] = k < cols ? bf16_encode(x[r * cols + k]) : 0;
}

void cuda_convert(struct backend *be, const struct op_convert *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const int rows = cuda->batch.rows;
    gpu_launch(cuda, "convert", convert_kernel, cuda_blocks(rows * act_stride(op->cols)),
               ROW_THREADS, 0, op->x, rows, op->cols, (uint16_t *)op->out);
}

__global__ void post_norm_kernel(struct op_post_norm op) {
    const float *x = op.x + blockIdx.x * op.cols;
    float *y = op.y + blockIdx.x * op.cols;
    depend_release();
    depend_wait();
    const float scale = row_scale(x, op.cols, op.eps);
    for (int64_t k = threadIdx.x; k < op.cols; k += ROW_THREADS) {
        float n = __fmul_rn(__fmul_rn(x[k], scale), op.weight ? op.weight[k] : 1.0f);
        y[k] = __fmul_rn(op.scale, op.mode == LINEAR_ADD ? __fadd_rn(y[k], n) : n);
    }
}

void cuda_post_norm(struct backend *be, const struct op_post_norm *op) {
    struct cuda_backend *cuda = cuda_of(be);
    gpu_launch(cuda, "post_norm", post_norm_kernel, (unsigned)(cuda->batch.rows * op->groups),
               ROW_THREADS, 0, *op);
}

__global__ void rope_kernel(struct op_rope_angles op, const int32_t *position, int64_t rows) {
    const int64_t i = (int64_t)blockIdx.x * ROW_THREADS + threadIdx.x;
    depend_release();
    depend_wait();
    if (i >= rows * op.pairs) return;
    const float angle = __fmul_rn((float)position[i / op.pairs], op.frequency[i % op.pairs]);
    op.out[2 * i] = op.amplitude * cosf(angle);
    op.out[2 * i + 1] = op.amplitude * sinf(angle);
}

void cuda_rope_angles(struct backend *be, const struct op_rope_angles *op) {
    struct cuda_backend *cuda = cuda_of(be);
    gpu_launch(cuda, "rope_angles", rope_kernel, cuda_blocks((int64_t)cuda->batch.rows * op->pairs),
               ROW_THREADS, 0, *op, cuda->batch.position, cuda->batch.rows);
}

__global__ void glu_kernel(struct op_glu op, int64_t rows) {
    const int64_t i = (int64_t)blockIdx.x * ROW_THREADS + threadIdx.x, stride = act_stride(op.cols);
    const int64_t r = i / stride, k = i % stride;
    uint16_t *out = (uint16_t *)op.out + r * stride + act_place(k);
    depend_release();
    depend_wait();
    if (r >= rows) return;
    if (k >= op.cols) {
        *out = 0;
        return;
    }
    float value = glu_value(op.kind, op.limit, op.gate[r * op.gate_row + k * op.step],
                            op.up[r * op.up_row + k * op.step]);
    if (op.row_gate) value *= sigmoid(op.row_gate[r * op.gate_row]);
    *out = bf16_encode(value);
}

void cuda_glu_rows(struct cuda_backend *cuda, const struct op_glu *op, int64_t rows) {
    gpu_launch(cuda, "glu", glu_kernel, cuda_blocks(rows * act_stride(op->cols)), ROW_THREADS, 0,
               *op, rows);
}

void cuda_glu(struct backend *be, const struct op_glu *op) {
    cuda_glu_rows(cuda_of(be), op, cuda_of(be)->batch.rows);
}

__global__ void softcap_kernel(float *y, int64_t n, float cap) {
    const int64_t i = (int64_t)blockIdx.x * ROW_THREADS + threadIdx.x;
    depend_release();
    depend_wait();
    if (i < n) y[i] = cap * tanhf(y[i] / cap);
}

void cuda_softcap(struct backend *be, const struct op_softcap *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const int64_t n = cuda->batch.out_rows * op->cols;
    gpu_launch(cuda, "softcap", softcap_kernel, cuda_blocks(n), ROW_THREADS, 0, op->y, n, op->cap);
}
