/* op_linear and op_linear_glu: the choice of a kernel, and inputs that are scaled first. */
#include "backend/cuda/pack.cuh"

/* out = act(x * scale), column by column */
__global__ void scale_kernel(const uint16_t *x, const float *scale, int64_t cols, uint16_t *out) {
    const int64_t stride = act_stride(cols), row = blockIdx.x * stride;
    depend_wait();
    depend_release();
    for (int64_t k = threadIdx.x; k < stride; k += ROW_THREADS) {
        const int64_t at = row + act_place(k);
        out[at] = k < cols ? bf16_encode(bf16_decode(x[at]) * scale[k]) : 0;
    }
}

static size_t scaled_bytes(const struct step_limits *max) {
    const int rows = max->rows > max->out_rows ? max->rows : max->out_rows;
    return (size_t)rows * (size_t)act_stride(max->max_cols) * sizeof(uint16_t);
}

size_t cuda_linear_bytes(const struct cuda_backend *cuda, const struct step_limits *max) {
    return scaled_bytes(max) + (cuda->wgmma ? linear_many_bytes() : 0);
}

int cuda_linear_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                        struct imp_error *err) {
    linear_few_reserve(cuda);
    int rc = linear_many_reserve(cuda, err);
    if (rc < 0) return rc;
    return cuda_alloc(&cuda->base, scaled_bytes(max), (void **)&cuda->scaled, err);
}

void cuda_linear_release(struct cuda_backend *cuda) {
    cuda_free(&cuda->base, cuda->scaled);
    cuda_free(&cuda->base, cuda->sums);
}

/* x times a pre_scale, where there is one. */
const uint16_t *linear_input(struct cuda_backend *cuda, const float *pre_scale, const void *x,
                             int64_t cols, int rows) {
    if (pre_scale == NULL) return (const uint16_t *)x;
    gpu_launch(cuda, "scale", scale_kernel, (unsigned)rows, ROW_THREADS, 0, (const uint16_t *)x,
               pre_scale, cols, cuda->scaled);
    return cuda->scaled;
}

static void multiply(struct cuda_backend *cuda, const struct linear_job *job) {
    if (!linear_few(cuda, job) && !linear_many(cuda, job)) linear_plain(cuda, job);
}

void cuda_linear(struct backend *be, const struct op_linear *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const struct cuda_matrix *m = (const struct cuda_matrix *)op->matrix;
    const int rows = cuda_rows(cuda, op->rows);
    for (int i = 0; i < m->count && rows > 0; i++) {
        const struct stack *s = &m->stack[i];
        const struct linear_job job = {s,
                                       linear_input(cuda, s->pre_scale, op->x, m->base.cols, rows),
                                       act_stride(m->base.cols),
                                       m->base.rows,
                                       op->y,
                                       rows,
                                       op->mode == LINEAR_ADD,
                                       {}};
        multiply(cuda, &job);
    }
}

/* True if glu reads the two halves of the product, and nothing else. */
static bool is_halves(const struct op_linear_glu *op) {
    const struct op_glu *g = &op->glu;
    return g->gate == op->y && g->up == op->y + g->cols && g->step == 1 && g->row_gate == NULL &&
           op->matrix->rows == 2 * g->cols;
}

void cuda_linear_glu(struct backend *be, const struct op_linear_glu *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const struct cuda_matrix *m = (const struct cuda_matrix *)op->matrix;
    const struct stack *s = &m->stack[0];
    const int rows = cuda->batch.rows;
    if (m->count != 1 || !s->paired || !linear_many_gates(s) || !is_halves(op)) {
        const struct op_linear linear = {ROWS_ALL, LINEAR_STORE, op->matrix, op->x, op->y};
        cuda_linear(be, &linear);
        cuda_glu(be, &op->glu);
        return;
    }
    struct linear_job job = {};
    job.stack = s;
    job.x = linear_input(cuda, s->pre_scale, op->x, m->base.cols, rows);
    job.x_stride = act_stride(m->base.cols);
    job.rows = rows;
    job.glu = {(uint16_t *)op->glu.out, act_stride(op->glu.cols), op->glu.kind, op->glu.limit};
    multiply(cuda, &job);
}
