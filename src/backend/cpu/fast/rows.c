/* The ops on single rows: norm, GLU, and what lies between the qkv product and attention. A few
 * rows are done where they are asked for; more are shared out, a fixed number of rows to a task. */
#include <math.h>
#include <string.h>

#include "backend/cpu/fast/fast.h"
#include "base/error.h"
#include "num/fp.h"

enum { TASK_ROWS = 8, MAX_HEAD_DIM = 1024, SUM_LANES = 8, GLU_PIECE = 256 };

static const struct fast_kernels *kernels_of(const struct cpu_row_job *job) {
    return ((const struct fast_backend *)job->cpu)->kernels;
}

static void share_rows(struct cpu_backend *cpu, const void *op, int rows,
                       void (*row)(const struct cpu_row_job *, int64_t)) {
    cpu_share_rows(&(struct cpu_row_job){cpu, op, rows, TASK_ROWS, row});
}

/* Row `row` of an act matrix, its padding set to zero. */
static uint16_t *act_row(void *act, int64_t cols, int64_t row) {
    int64_t stride = act_stride(cols);
    uint16_t *out = (uint16_t *)act + row * stride;
    memset(out + cols, 0, (size_t)(stride - cols) * sizeof *out);
    return out;
}

void fast_load_row(const void *act, int64_t cols, int64_t row, float *out) {
    const uint16_t *from = (const uint16_t *)act + row * act_stride(cols);
    for (int64_t k = 0; k < cols; k++) out[k] = bf16_decode(from[k]);
}

void fast_store_row(const struct cpu_backend *cpu, const float *x, int64_t cols, void *act,
                    int64_t row) {
    ((const struct fast_backend *)cpu)->kernels->store_row(x, cols, act_row(act, cols, row));
}

static void norm_row(const struct cpu_row_job *job, int64_t row) {
    const struct op_norm *op = job->op;
    int from = op->rows == ROWS_OUT ? job->cpu->batch.out_row[row] : row;
    kernels_of(job)->norm_row(op->h + from * op->cols, op->weight, op->eps, op->cols,
                              act_row(op->out, op->cols, row));
}

void fast_norm(struct backend *be, const struct op_norm *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    share_rows(cpu, op, cpu_rows(cpu, op->rows), norm_row);
}

/* Gate and up that alternate are taken apart piece by piece. */
static void glu_alternating(const struct cpu_row_job *job, const float *gate, const float *up,
                            float factor, uint16_t *out) {
    const struct op_glu *op = job->op;
    float g[GLU_PIECE], u[GLU_PIECE];
    for (int64_t first = 0; first < op->cols; first += GLU_PIECE) {
        int64_t count = op->cols - first < GLU_PIECE ? op->cols - first : GLU_PIECE;
        for (int64_t k = 0; k < count; k++) {
            g[k] = gate[(first + k) * op->step];
            u[k] = up[(first + k) * op->step];
        }
        kernels_of(job)->glu_row(op, g, u, factor, count, out + first);
    }
}

static void glu_row(const struct cpu_row_job *job, int64_t row) {
    const struct op_glu *op = job->op;
    const float *gate = op->gate + row * op->gate_row, *up = op->up + row * op->up_row;
    uint16_t *out = act_row(op->out, op->cols, row);
    float factor = 1.0f;
    if (op->row_gate) factor = 1.0f / (1.0f + expf(-op->row_gate[row * op->gate_row]));
    if (op->step != 1) {
        glu_alternating(job, gate, up, factor, out);
    } else {
        kernels_of(job)->glu_row(op, gate, up, factor, op->cols, out);
    }
}

void fast_glu_rows(struct cpu_backend *cpu, const struct op_glu *op, int rows) {
    share_rows(cpu, op, rows, glu_row);
}

void fast_glu(struct backend *be, const struct op_glu *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    fast_glu_rows(cpu, op, cpu->batch.rows);
}

/* ---- qkv: the same plain C for every instruction set ---- */

static void norm_head(float *x, int n, const float *weight, float eps) {
    float lane[SUM_LANES] = {0};
    for (int i = 0; i < n; i++) lane[i % SUM_LANES] += x[i] * x[i];
    float sum =
        ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
    float scale = 1.0f / sqrtf(sum / (float)n + eps);
    if (weight == NULL) {
        for (int i = 0; i < n; i++) x[i] = x[i] * scale;
    } else {
        for (int i = 0; i < n; i++) x[i] = x[i] * scale * weight[i];
    }
}

static void rotate(float *restrict x, const float *restrict angles, int pairs, int offset) {
    for (int i = 0; i < pairs; i++) {
        float c = angles[2 * i], s = angles[2 * i + 1], a = x[i], b = x[i + offset];
        x[i] = a * c - b * s;
        x[i + offset] = b * c + a * s;
    }
}

static void make_head(const struct op_qkv *op, const float *from, const float *angles,
                      const float *norm, float *x) {
    memcpy(x, from, (size_t)op->head_dim * sizeof *x);
    if (norm) norm_head(x, op->head_dim, norm, op->eps);
    rotate(x, angles, op->pairs, op->pair_offset);
}

static void write_key(uint16_t *head, int position, int dims, const float *x) {
    uint32_t *k = (uint32_t *)(void *)head + position;
    for (int i = 0; i < dims; i += 2) {
        k[i / 2 * KV_BLOCK_TOKENS] = bf16_encode(x[i]) | (uint32_t)bf16_encode(x[i + 1]) << 16;
    }
}

static void write_value(uint16_t *head, int position, int dims, const float *x) {
    uint16_t *v = head + dims * KV_BLOCK_TOKENS + position * value_stride(dims);
    for (int i = 0; i < dims; i++) v[i] = bf16_encode(x[i]);
}

static void make_queries(const struct op_qkv *op, const float *from, const float *angles,
                         int position, uint16_t *q) {
    float x[MAX_HEAD_DIM], scale = op->q_scale;
    if (op->q_growth != 0)
        scale *= 1.0f + op->q_growth * logf(1.0f + floorf((float)position / op->q_growth_tokens));
    for (int head = 0; head < op->heads; head++) {
        make_head(op, from + (int64_t)head * op->q_step, angles, op->q_norm, x);
        for (int i = 0; i < op->head_dim; i++) *q++ = bf16_encode(x[i] * scale);
    }
}

static void qkv_row(const struct cpu_row_job *job, int64_t row) {
    const struct op_qkv *op = job->op;
    const struct batch *batch = &job->cpu->batch;
    const int d = op->head_dim, position = batch->position[row] % KV_BLOCK_TOKENS;
    const float *angles = op->angles + (int64_t)row * op->pairs * 2;
    const float *from = op->qkv + row * op->row_cols;
    make_queries(op, from, angles, batch->position[row],
                 act_row(op->q, (int64_t)op->heads * d, row));
    if (op->kv == NULL) return;
    const int32_t block = batch->blocks[op->group][(int64_t)batch->seq[row] * batch->max_blocks +
                                                   batch->position[row] / KV_BLOCK_TOKENS];
    float x[MAX_HEAD_DIM];
    from += (int64_t)op->heads * op->q_step;
    for (int head = 0; head < op->kv_heads; head++) {
        make_head(op, from + head * d, angles, op->k_norm, x);
        write_key(kv_head_at(op->kv, block, op->kv_heads, head, d), position, d, x);
    }
    if (!op->v_from_k) from += (int64_t)op->kv_heads * d;
    for (int head = 0; head < op->kv_heads; head++) {
        memcpy(x, from + head * d, (size_t)d * sizeof *x);
        if (op->v_norm) norm_head(x, d, NULL, op->eps);
        write_value(kv_head_at(op->kv, block, op->kv_heads, head, d), position, d, x);
    }
}

void fast_qkv(struct backend *be, const struct op_qkv *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    check(op->head_dim <= MAX_HEAD_DIM && op->head_dim % 2 == 0);
    share_rows(cpu, op, cpu->batch.rows, qkv_row);
}
