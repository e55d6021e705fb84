/* op_linear and op_linear_glu: the choice of a kernel, and inputs that are scaled first. */
#include "backend/cuda/input.cuh"

/* A block a row. */
__global__ void __launch_bounds__(ROW_THREADS)
    input_kernel(const uint16_t *x, struct input_change change, int64_t cols, uint16_t *out,
                 float *multiplier) {
    const int64_t row = blockIdx.x * act_stride(cols);
    depend_release();
    depend_wait();
    const float by = change_row(change, x + row, cols, out + row);
    if (threadIdx.x == 0) multiplier[blockIdx.x] = by;
}

static size_t changed_rows(const struct step_limits *max) {
    return (size_t)(max->rows > max->out_rows ? max->rows : max->out_rows);
}
static size_t changed_bytes(const struct step_limits *max) { /* of the acts alone */
    return changed_rows(max) * (size_t)act_stride(max->max_cols) * sizeof(uint16_t);
}

size_t cuda_linear_bytes(const struct cuda_backend *cuda, const struct step_limits *max) {
    return changed_bytes(max) + changed_rows(max) * sizeof(float) +
           (cuda->wgmma ? linear_many_bytes() : 0);
}

int cuda_linear_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                        struct imp_error *err) {
    linear_few_reserve(cuda);
    int rc = linear_many_reserve(cuda, err);
    if (rc < 0) return rc;
    rc = cuda_alloc(&cuda->base, changed_bytes(max), (void **)&cuda->changed, err);
    if (rc < 0) return rc;
    return cuda_alloc(&cuda->base, changed_rows(max) * sizeof(float),
                      (void **)&cuda->changed_multiplier, err);
}

void cuda_linear_release(struct cuda_backend *cuda) {
    cuda_free(&cuda->base, cuda->changed);
    cuda_free(&cuda->base, cuda->changed_multiplier);
    cuda_free(&cuda->base, cuda->sums);
}

/* Gives the job its stack, and the stack's input: x, or what becomes of it. */
static void set_input(struct cuda_backend *cuda, struct linear_job *job, const struct stack *s,
                      const void *x, int64_t cols, int rows) {
    job->stack = s;
    job->x = (const uint16_t *)x;
    job->x_stride = act_stride(cols);
    job->rows = rows;
    if (s->input.pre_scale == NULL && !s->input.nvfp4) return;
    gpu_launch(cuda, "input", input_kernel, (unsigned)rows, ROW_THREADS, 0, job->x, s->input, cols,
               cuda->changed, cuda->changed_multiplier);
    job->x = cuda->changed;
    if (s->input.nvfp4) job->row_multiplier = cuda->changed_multiplier;
}

static void multiply(struct cuda_backend *cuda, const struct linear_job *job) {
    const bool native = job->stack->format == PACK_NVFP4;
    if (native || (!linear_few(cuda, job) && !linear_many(cuda, job))) linear_plain(cuda, job);
}

void cuda_linear(struct backend *be, const struct op_linear *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const struct cuda_matrix *m = (const struct cuda_matrix *)op->matrix;
    const int rows = cuda_rows(cuda, op->rows);
    for (int i = 0; i < m->count && rows > 0; i++) {
        struct linear_job job = {};
        set_input(cuda, &job, &m->stack[i], op->x, m->base.cols, rows);
        job.y = op->y;
        job.y_stride = m->base.rows;
        job.add = op->mode == LINEAR_ADD;
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
    set_input(cuda, &job, s, op->x, m->base.cols, rows);
    job.glu = {(uint16_t *)op->glu.out, act_stride(op->glu.cols), op->glu.kind, op->glu.limit};
    multiply(cuda, &job);
}
