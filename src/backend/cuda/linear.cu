/* Weights on the device as they are stored, and the products with them.
 *
 * y = x W^T: a warp makes one output for up to LINEAR_ROWS rows of x. A lane takes eight k at a
 * time, 256 apart, in ascending order, as fused multiply-adds into one fp32 sum a row; lanes are
 * added by a butterfly; the multiplier and the bias come last. That order is one for every number
 * of rows. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.cuh"

enum { LINEAR_ROWS = 8, LINEAR_WARPS = 4 };

/* ---- upload ---- */

static size_t aligned(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

struct part_sizes {
    size_t data, block_scale, scale, bias, pre_scale;
};
static struct part_sizes part_sizes(const struct weight *w, bool bias) {
    struct part_sizes s = {};
    const size_t n = (size_t)(w->rows * w->cols);
    switch (w->format) {
    case WEIGHT_F32:
        s.data = n * 4;
        break;
    case WEIGHT_F16:
    case WEIGHT_BF16:
        s.data = n * 2;
        break;
    case WEIGHT_FP8:
        s.data = n;
        if (w->scale)
            s.scale = (size_t)((w->rows + w->scale_rows - 1) / w->scale_rows *
                               ((w->cols + w->scale_cols - 1) / w->scale_cols)) *
                      sizeof(float);
        break;
    case WEIGHT_NVFP4:
        s.data = n / 2;
        s.block_scale = n / 16;
        break;
    case WEIGHT_MXFP4:
        s.data = n / 2;
        s.block_scale = n / 32;
        break;
    }
    if (bias) s.bias = (size_t)w->rows * sizeof(float);
    if (w->pre_scale) s.pre_scale = (size_t)w->cols * sizeof(float);
    return s;
}
static size_t part_bytes(const struct weight *w, bool bias) {
    struct part_sizes s = part_sizes(w, bias);
    return aligned(s.data) + aligned(s.block_scale) + aligned(s.scale) + aligned(s.bias) +
           aligned(s.pre_scale);
}

/* One array to *at, which moves on; NULL for none. */
static void *upload(struct backend *be, uint8_t **at, const void *host, size_t bytes) {
    if (bytes == 0) return NULL;
    void *device = *at;
    be->ops->write(be, device, host, bytes);
    *at += aligned(bytes);
    return device;
}

static struct dev_weight upload_part(struct backend *be, const struct weight *w, const float *bias,
                                     uint8_t **at) {
    const struct part_sizes s = part_sizes(w, bias != NULL);
    struct dev_weight d = {};
    d.format = w->format;
    d.rows = w->rows;
    d.cols = w->cols;
    d.scale_rows = w->scale_rows;
    d.scale_cols = w->scale_cols;
    d.multiplier = w->multiplier;
    d.data = upload(be, at, w->data, s.data);
    d.block_scale = (const uint8_t *)upload(be, at, w->block_scale, s.block_scale);
    d.scale = (const float *)upload(be, at, w->scale, s.scale);
    d.bias = (const float *)upload(be, at, bias, s.bias);
    d.pre_scale = (const float *)upload(be, at, w->pre_scale, s.pre_scale);
    return d;
}

size_t cuda_matrix_bytes(struct backend *be, const struct weight *parts, int count) {
    (void)be;
    size_t total = 0;
    for (int i = 0; i < count; i++) total += part_bytes(&parts[i], true);
    return total;
}

int cuda_matrix_create(struct backend *be, const struct weight *parts, int count,
                       const float *const *bias, struct matrix **out, struct imp_error *err) {
    check(count <= MAX_PARTS);
    struct cuda_matrix *m = (struct cuda_matrix *)mem_zero(1, sizeof *m);
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += part_bytes(&parts[i], bias && bias[i]);
    int rc = cuda_alloc(be, bytes, &m->memory, err);
    if (rc < 0) {
        free(m);
        return rc;
    }
    uint8_t *at = (uint8_t *)m->memory;
    m->count = count;
    m->base.cols = parts[0].cols;
    m->base.bytes = bytes;
    for (int i = 0; i < count; i++) {
        check(parts[i].cols == m->base.cols);
        m->part[i] = upload_part(be, &parts[i], bias ? bias[i] : NULL, &at);
        m->part[i].first_row = m->base.rows;
        m->base.rows += parts[i].rows;
    }
    *out = &m->base;
    rc = cuda_error(cuda_of(be), err);
    if (rc < 0) {
        cuda_matrix_free(be, &m->base);
        *out = NULL;
    }
    return rc;
}

void cuda_matrix_free(struct backend *be, struct matrix *matrix) {
    if (matrix == NULL) return;
    cuda_free(be, ((struct cuda_matrix *)matrix)->memory);
    free(matrix);
}

int cuda_table_create(struct backend *be, const struct weight *weight, struct table **out,
                      struct imp_error *err) {
    struct cuda_table *t = (struct cuda_table *)mem_zero(1, sizeof *t);
    const size_t bytes = part_bytes(weight, false);
    int rc = cuda_alloc(be, bytes, &t->memory, err);
    if (rc < 0) {
        free(t);
        return rc;
    }
    uint8_t *at = (uint8_t *)t->memory;
    t->weight = upload_part(be, weight, NULL, &at);
    t->base.rows = weight->rows;
    t->base.cols = weight->cols;
    t->base.bytes = bytes;
    *out = &t->base;
    return 0;
}

void cuda_table_free(struct backend *be, struct table *table) {
    if (table == NULL) return;
    cuda_free(be, ((struct cuda_table *)table)->memory);
    free(table);
}

/* ---- the product ---- */

struct linear_args {
    struct dev_weight w;
    const uint16_t *x;
    float *y;
    int64_t x_stride, y_stride;
    int rows;
    bool add;
};

template <int ROWS> __global__ void linear_kernel(struct linear_args a) {
    const int lane = threadIdx.x % WARP;
    const int64_t n = (int64_t)blockIdx.x * LINEAR_WARPS + threadIdx.x / WARP;
    const int first = blockIdx.y * ROWS;
    depend_wait();
    depend_release();
    if (n >= a.w.rows) return;
    float sum[ROWS] = {};
    lane_sums<ROWS>(a.w, n, a.x + first * a.x_stride, a.x_stride, a.rows - first, sum);
    for (int r = 0; r < ROWS && first + r < a.rows; r++) {
        float total = __fmul_rn(warp_sum(sum[r]), a.w.multiplier);
        if (lane != 0) continue;
        if (a.w.bias) total = __fadd_rn(total, a.w.bias[n]);
        float *y = a.y + (first + r) * a.y_stride + a.w.first_row + n;
        *y = a.add ? __fadd_rn(*y, total) : total;
    }
}

void cuda_linear(struct backend *be, const struct op_linear *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const struct cuda_matrix *m = (const struct cuda_matrix *)op->matrix;
    const int rows = cuda_rows(cuda, op->rows);
    if (rows == 0) return;
    for (int i = 0; i < m->count; i++) {
        const struct linear_args a = {
            m->part[i], (const uint16_t *)op->x, op->y, act_stride(m->base.cols), m->base.rows,
            rows,       op->mode == LINEAR_ADD};
        const unsigned blocks = (unsigned)((m->part[i].rows + LINEAR_WARPS - 1) / LINEAR_WARPS);
        if (rows == 1) {
            gpu_launch(cuda, "linear", linear_kernel<1>, dim3(blocks), LINEAR_WARPS * WARP, 0, a);
        } else {
            const unsigned tiles = (unsigned)((rows + LINEAR_ROWS - 1) / LINEAR_ROWS);
            gpu_launch(cuda, "linear", linear_kernel<LINEAR_ROWS>, dim3(blocks, tiles),
                       LINEAR_WARPS * WARP, 0, a);
        }
    }
}
