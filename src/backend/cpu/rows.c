/* Ops on single rows that both CPU backends share: fp32 in, fp32 or one rounding out. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/caps.h"
#include "base/error.h"

enum { LANES = 16, TASK_ROWS = 8, SOFTCAP_PIECE = 4096 };

/* 16 interleaved lanes, then added pairwise: as plain as one lane, but the compiler may use vectors
 * without changing a bit. */
VECTOR_CLONES float cpu_dot(const float *a, const float *b, int64_t n) {
    float lane[LANES] = {0};
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES) {
        for (int i = 0; i < LANES; i++) lane[i] += a[k + i] * b[k + i];
    }
    for (int i = 0; k + i < n; i++) lane[i] += a[k + i] * b[k + i];
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; i++) lane[i] += lane[i + width];
    }
    return lane[0];
}

void cpu_convert(struct backend *be, const struct op_convert *op) {
    const struct cpu_backend *cpu = (const struct cpu_backend *)be;
    for (int64_t r = 0; r < cpu->batch.rows; r++)
        cpu->hooks->store_row(cpu, op->x + r * op->cols, op->cols, op->out, r);
}

static void run_rows(void *ctx, int task, int thread) {
    (void)thread;
    const struct cpu_row_job *job = ctx;
    const int end = (task + 1) * job->task_rows;
    for (int row = task * job->task_rows; row < end && row < job->rows; row++) job->row(job, row);
}

void cpu_share_rows(const struct cpu_row_job *job) {
    pool_run(job->cpu->pool, run_rows, (void *)(uintptr_t)job,
             (job->rows + job->task_rows - 1) / job->task_rows);
}

static void share_rows(struct backend *be, const void *op,
                       void (*row)(const struct cpu_row_job *, int64_t), int task_rows) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    cpu_share_rows(&(struct cpu_row_job){cpu, op, cpu->batch.rows, task_rows, row});
}

static void post_norm_row(const struct cpu_row_job *job, int64_t row) {
    const struct op_post_norm *op = job->op;
    for (int64_t g = row * op->groups; g < (row + 1) * op->groups; g++) {
        const float *x = op->x + g * op->cols;
        float *y = op->y + g * op->cols;
        float scale = 1.0f / sqrtf(cpu_dot(x, x, op->cols) / (float)op->cols + op->eps);
        for (int64_t k = 0; k < op->cols; k++) {
            float n = x[k] * scale * (op->weight ? op->weight[k] : 1.0f);
            y[k] = op->scale * (op->mode == LINEAR_ADD ? y[k] + n : n);
        }
    }
}

void cpu_post_norm(struct backend *be, const struct op_post_norm *op) {
    share_rows(be, op, post_norm_row, TASK_ROWS);
}

struct softcap_job {
    const struct cpu_backend *cpu;
    const struct op_softcap *op;
    int64_t count;
};

static void softcap_piece(void *ctx, int task, int thread) {
    (void)thread;
    const struct softcap_job *job = ctx;
    const int64_t first = (int64_t)task * SOFTCAP_PIECE, left = job->count - first;
    job->cpu->hooks->softcap(job->op->y + first, left < SOFTCAP_PIECE ? left : SOFTCAP_PIECE,
                             job->op->cap);
}

void cpu_softcap(struct backend *be, const struct op_softcap *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    struct softcap_job job = {cpu, op, cpu->batch.out_rows * op->cols};
    pool_run(cpu->pool, softcap_piece, &job,
             (int)((job.count + SOFTCAP_PIECE - 1) / SOFTCAP_PIECE));
}

/* The top_k largest in descending order, lower index first where equal. A NaN is never larger than
 * anything; the logits after the mixture show it. */
static void largest(float *logit, int experts, int top_k, int32_t *out) {
    for (int i = 0; i < top_k; i++) {
        int best = -1;
        for (int e = 0; e < experts; e++) {
            bool taken = false;
            for (int j = 0; j < i; j++) taken |= out[j] == e;
            if (!taken && (best < 0 || logit[e] > logit[best])) best = e;
        }
        out[i] = best;
    }
}

/* Logits of one row stay on the stack: experts <= CAP_EXPERTS is checked where a model is read. */
static void route_row(const struct cpu_row_job *job, int64_t row) {
    const struct op_route *op = job->op;
    const float *h = op->h + row * op->cols;
    float logit[CAP_EXPERTS], n[1024], scale;
    int32_t *expert = op->expert + row * op->top_k;
    float *weight = op->weight + row * op->top_k;
    scale = 1.0f / sqrtf(cpu_dot(h, h, op->cols) / (float)op->cols + op->eps);
    memset(logit, 0, (size_t)op->experts * sizeof *logit);
    for (int64_t first = 0; first < op->cols; first += 1024) {
        int64_t count = op->cols - first < 1024 ? op->cols - first : 1024;
        for (int64_t k = 0; k < count; k++)
            n[k] = h[first + k] * scale * (op->norm ? op->norm[first + k] : 1.0f);
        for (int64_t e = 0; e < op->experts; e++)
            logit[e] += cpu_dot(n, op->router + e * op->cols + first, count);
    }
    for (int e = 0; op->bias && e < op->experts; e++) logit[e] += op->bias[e];
    largest(logit, op->experts, op->top_k, expert);
    float most = logit[expert[0]], total = 0;
    for (int e = 0; !op->renormalize && e < op->experts; e++) total += expf(logit[e] - most);
    for (int i = 0; i < op->top_k; i++) {
        weight[i] = expf(logit[expert[i]] - most);
        if (op->renormalize) total += weight[i];
    }
    for (int i = 0; i < op->top_k; i++) {
        weight[i] /= total;
        if (op->expert_scale) weight[i] *= op->expert_scale[expert[i]];
    }
}

void cpu_route(struct backend *be, const struct op_route *op) {
    check(op->experts <= CAP_EXPERTS && op->top_k <= op->experts && op->top_k <= MOE_MAX_TOP_K);
    share_rows(be, op, route_row, 1);
}
