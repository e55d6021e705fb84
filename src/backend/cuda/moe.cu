/* Routing and the experts. Every (row, slot) is computed by itself: the same sums as a linear of
 * one row, whatever other rows chose. */
#include <stdlib.h>

#include "backend/cuda/cuda.cuh"
extern "C" {
#include "base/caps.h"
}

enum { EXPERT_PARTS = 3, MOE_WARPS = 4 };

/* ---- experts ---- */

int cuda_experts_create(struct backend *be, struct matrix *const *gate_up,
                        struct matrix *const *down, int count, struct experts **out,
                        struct imp_error *err) {
    struct cuda_experts *e = (struct cuda_experts *)mem_zero(1, sizeof *e);
    struct dev_weight *parts =
        (struct dev_weight *)mem_zero((size_t)count * EXPERT_PARTS, sizeof *parts);
    e->gate_up = (struct cuda_matrix **)mem_zero((size_t)count, sizeof *e->gate_up);
    e->down = (struct cuda_matrix **)mem_zero((size_t)count, sizeof *e->down);
    e->base.count = count;
    e->base.width = down[0]->cols;
    e->base.hidden = down[0]->rows;
    for (int i = 0; i < count; i++) {
        e->gate_up[i] = (struct cuda_matrix *)gate_up[i];
        e->down[i] = (struct cuda_matrix *)down[i];
        e->gate_up_parts = e->gate_up[i]->count;
        check(e->gate_up_parts == e->gate_up[0]->count && e->gate_up_parts <= 2);
        e->base.bytes += gate_up[i]->bytes + down[i]->bytes;
        for (int k = 0; k < e->gate_up_parts; k++)
            parts[i * EXPERT_PARTS + k] = e->gate_up[i]->part[k];
        parts[i * EXPERT_PARTS + 2] = e->down[i]->part[0];
    }
    const size_t bytes = (size_t)count * EXPERT_PARTS * sizeof *parts;
    int rc = cuda_alloc(be, bytes, (void **)&e->parts, err);
    if (rc == 0) be->ops->write(be, e->parts, parts, bytes);
    free(parts);
    if (rc < 0) {
        cuda_experts_free(be, &e->base);
        return rc;
    }
    *out = &e->base;
    return 0;
}

void cuda_experts_free(struct backend *be, struct experts *experts) {
    if (experts == NULL) return;
    struct cuda_experts *e = (struct cuda_experts *)experts;
    for (int i = 0; i < e->base.count; i++) {
        cuda_matrix_free(be, &e->gate_up[i]->base);
        cuda_matrix_free(be, &e->down[i]->base);
    }
    cuda_free(be, e->parts);
    free(e->gate_up);
    free(e->down);
    free(e);
}

/* ---- route ---- */

/* A block a row: the normed row and the logits in shared memory, a warp a logit, thread 0 picks. */
__global__ void route_kernel(struct op_route op) {
    extern __shared__ float shared[];
    float *n = shared, *logit = shared + op.cols;
    const float *h = op.h + blockIdx.x * op.cols;
    const int lane = threadIdx.x % WARP;
    depend_wait();
    depend_release();
    const float scale = row_scale(h, op.cols, op.eps);
    for (int64_t k = threadIdx.x; k < op.cols; k += ROW_THREADS)
        n[k] = h[k] * scale * (op.norm ? op.norm[k] : 1.0f);
    __syncthreads();
    for (int e = threadIdx.x / WARP; e < op.experts; e += ROW_THREADS / WARP) {
        const float *w = op.router + e * op.cols;
        float x = 0;
        for (int64_t k = lane; k < op.cols; k += WARP) x = __fmaf_rn(n[k], w[k], x);
        x = warp_sum(x);
        if (lane == 0) logit[e] = op.bias ? x + op.bias[e] : x;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    int32_t *expert = op.expert + (int64_t)blockIdx.x * op.top_k;
    float *weight = op.weight + (int64_t)blockIdx.x * op.top_k, total = 0;
    for (int i = 0; i < op.top_k; i++) {
        int best = -1;
        for (int e = 0; e < op.experts; e++) {
            bool taken = false;
            for (int j = 0; j < i; j++) taken |= expert[j] == e;
            if (!taken && (best < 0 || logit[e] > logit[best])) best = e;
        }
        expert[i] = best;
    }
    const float most = logit[expert[0]];
    for (int e = 0; !op.renormalize && e < op.experts; e++) total += expf(logit[e] - most);
    for (int i = 0; i < op.top_k; i++) {
        weight[i] = expf(logit[expert[i]] - most);
        if (op.renormalize) total += weight[i];
    }
    for (int i = 0; i < op.top_k; i++) {
        weight[i] /= total;
        if (op.expert_scale) weight[i] *= op.expert_scale[expert[i]];
    }
}

void cuda_route(struct backend *be, const struct op_route *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const size_t shared = (size_t)(op->cols + op->experts) * sizeof(float);
    check(op->experts <= CAP_EXPERTS && op->top_k <= op->experts);
    gpu_launch(cuda, "route", route_kernel, (unsigned)cuda->batch.rows, ROW_THREADS, shared, *op);
}

/* ---- scratch ---- */

static size_t slots_of(const struct step_limits *max) {
    return (size_t)max->rows * (size_t)max->moe_top_k;
}

/* The router keeps a row and its logits in shared memory: as much as the device gives. */
static void allow_route_memory(struct cuda_backend *cuda) {
    enum { OWN_BYTES = 1024 }; /* what the kernel has besides */
    int device = 0, most = 0;
    gpu_call(cuda, cudaGetDevice(&device));
    gpu_call(cuda, cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    gpu_allow_shared(cuda, route_kernel, (size_t)(most - OWN_BYTES));
}

size_t cuda_moe_bytes(const struct step_limits *max) {
    return slots_of(max) * ((size_t)(2 * max->moe_width + max->moe_hidden) * sizeof(float) +
                            (size_t)act_stride(max->moe_width) * sizeof(uint16_t));
}

int cuda_moe_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                     struct imp_error *err) {
    const size_t slots = slots_of(max);
    struct backend *be = &cuda->base;
    int rc;
    if (slots == 0) return 0;
    allow_route_memory(cuda);
    if ((rc = cuda_error(cuda, err)) < 0) return rc;
    if ((rc = cuda_alloc(be, slots * (size_t)(2 * max->moe_width) * sizeof(float),
                         (void **)&cuda->moe_gate_up, err)) < 0 ||
        (rc = cuda_alloc(be, slots * (size_t)max->moe_hidden * sizeof(float),
                         (void **)&cuda->moe_slots, err)) < 0)
        return rc;
    return cuda_alloc(be, slots * (size_t)act_stride(max->moe_width) * sizeof(uint16_t),
                      (void **)&cuda->moe_inner, err);
}

void cuda_moe_release(struct cuda_backend *cuda) {
    cudaFree(cuda->moe_gate_up);
    cudaFree(cuda->moe_slots);
    cudaFree(cuda->moe_inner);
}

/* ---- experts ---- */

/* One output of one slot a warp. x of slot s at x + s / x_share * x_stride. */
struct expert_args {
    const struct dev_weight *parts; /* [count, EXPERT_PARTS] */
    int part;
    const int32_t *expert; /* [slots] */
    const uint16_t *x;
    int64_t x_stride;
    int x_share;
    float *y;
    int64_t y_stride;
};

__global__ void expert_kernel(struct expert_args a) {
    const int slot = blockIdx.y, lane = threadIdx.x % WARP;
    depend_wait();
    depend_release();
    const struct dev_weight *w = &a.parts[a.expert[slot] * EXPERT_PARTS + a.part];
    const int64_t n = (int64_t)blockIdx.x * MOE_WARPS + threadIdx.x / WARP;
    if (n >= w->rows) return;
    const uint16_t *x = a.x + slot / a.x_share * a.x_stride;
    float sum[1] = {};
    lane_sums<1>(*w, n, x, 0, 1, sum);
    float total = __fmul_rn(warp_sum(sum[0]), w->multiplier);
    if (lane != 0) return;
    if (w->bias) total = __fadd_rn(total, w->bias[n]);
    a.y[slot * a.y_stride + w->first_row + n] = total;
}

static void launch_experts(struct cuda_backend *cuda, const struct expert_args *a, int64_t rows,
                           int slots) {
    const dim3 grid((unsigned)((rows + MOE_WARPS - 1) / MOE_WARPS), (unsigned)slots);
    gpu_launch(cuda, "experts", expert_kernel, grid, MOE_WARPS * WARP, 0, *a);
}

__global__ void combine_kernel(const float *slots, const float *weight, int top_k, int64_t hidden,
                               int64_t n, bool add, float *y) {
    const int64_t i = (int64_t)blockIdx.x * ROW_THREADS + threadIdx.x;
    depend_wait();
    depend_release();
    if (i >= n) return;
    const int64_t r = i / hidden, k = i % hidden;
    float sum = 0;
    for (int s = 0; s < top_k; s++)
        sum = __fmaf_rn(weight[r * top_k + s], slots[(r * top_k + s) * hidden + k], sum);
    y[i] = add ? __fadd_rn(y[i], sum) : sum;
}

void cuda_moe(struct backend *be, const struct op_moe *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const struct cuda_experts *e = (const struct cuda_experts *)op->experts;
    const int64_t width = e->base.width, hidden = e->base.hidden;
    const int slots = cuda->batch.rows * op->top_k;
    check(op->inner == NULL); /* calibration runs on a CPU */
    struct expert_args a = {e->parts,
                            0,
                            op->expert,
                            (const uint16_t *)op->x,
                            act_stride(hidden),
                            op->top_k,
                            cuda->moe_gate_up,
                            2 * width};
    for (a.part = 0; a.part < e->gate_up_parts; a.part++)
        launch_experts(cuda, &a, 2 * width / e->gate_up_parts, slots);
    struct op_glu glu = {};
    glu.kind = op->kind;
    glu.limit = op->limit;
    glu.gate = cuda->moe_gate_up;
    glu.up = cuda->moe_gate_up + (op->interleaved ? 1 : width);
    glu.gate_row = glu.up_row = 2 * width;
    glu.step = op->interleaved ? 2 : 1;
    glu.cols = width;
    glu.out = cuda->moe_inner;
    cuda_glu_rows(cuda, &glu, slots);
    a.part = 2;
    a.x = cuda->moe_inner;
    a.x_stride = act_stride(width);
    a.x_share = 1;
    a.y = cuda->moe_slots;
    a.y_stride = hidden;
    launch_experts(cuda, &a, hidden, slots);
    const int64_t n = cuda->batch.rows * hidden;
    gpu_launch(cuda, "combine", combine_kernel, cuda_blocks(n), ROW_THREADS, 0, cuda->moe_slots,
               op->weight, op->top_k, hidden, n, op->mode == LINEAR_ADD, op->y);
}
