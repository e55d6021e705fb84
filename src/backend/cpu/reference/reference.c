/* The plain backend: every op as its definition reads, fp32 throughout.
 *
 * What other backends are held to, and what is held to transformers. With round_bf16 it rounds
 * where the contract rounds (inputs of matrix products, stored KV), so that a faster path can be
 * compared without the roundings between them. `act` and KV are fp32 in memory either way.
 *
 * Sums run over 16 interleaved lanes that are then added pairwise: as plain as one lane, but the
 * compiler may use vectors without changing a bit. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/error.h"
#include "base/str.h"
#include "num/fp.h"

enum { LANES = 16 };

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* -ffp-contract=off and fixed lanes: every clone gives the same bits. */
#define VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTOR_CLONES
#endif

struct ref_matrix {
    struct matrix base;
    int count;
    struct weight *parts;
    float *bias; /* [rows] or NULL */
};

static inline float stored(const struct cpu_backend *cpu, float x) {
    return cpu->round_bf16 ? bf16_round(x) : x;
}

/* ---- weights ---- */

static int ref_matrix_create(struct backend *be, const struct weight *parts, int count,
                             const float *const *bias, struct matrix **out, struct imp_error *err) {
    (void)be;
    (void)err;
    struct ref_matrix *m = mem_zero(1, sizeof *m);
    m->parts = mem_zero((size_t)count, sizeof *parts);
    memcpy(m->parts, parts, (size_t)count * sizeof *parts);
    m->count = count;
    m->base.cols = parts[0].cols;
    for (int i = 0; i < count; i++) {
        check(parts[i].cols == m->base.cols);
        m->base.rows += parts[i].rows;
        m->base.bytes += (size_t)weight_bytes(&parts[i]);
    }
    int64_t row = 0;
    for (int i = 0; i < count; i++) {
        if (bias && bias[i]) {
            if (m->bias == NULL) m->bias = mem_zero((size_t)m->base.rows, sizeof *m->bias);
            memcpy(m->bias + row, bias[i], (size_t)parts[i].rows * sizeof(float));
        }
        row += parts[i].rows;
    }
    *out = &m->base;
    return 0;
}

static void ref_matrix_free(struct backend *be, struct matrix *matrix) {
    (void)be;
    if (matrix == NULL) return;
    struct ref_matrix *m = (struct ref_matrix *)matrix;
    free(m->parts);
    free(m->bias);
    free(m);
}

static size_t ref_matrix_bytes(struct backend *be, const struct weight *parts, int count) {
    (void)be;
    (void)parts;
    (void)count;
    return 0; /* borrowed from the mapped checkpoint */
}

/* ---- ops ---- */

VECTOR_CLONES static float dot(const float *a, const float *b, int64_t n) {
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

static void ref_norm(struct backend *be, const struct op_norm *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    for (int i = 0; i < cpu_rows(cpu, op->rows); i++) {
        int row = op->rows == ROWS_OUT ? cpu->batch.out_row[i] : i;
        const float *h = op->h + row * op->cols;
        float *out = (float *)op->out + i * op->cols;
        float scale = 1.0f / sqrtf(dot(h, h, op->cols) / (float)op->cols + op->eps);
        for (int64_t k = 0; k < op->cols; k++)
            out[k] = stored(cpu, h[k] * scale * (op->weight ? op->weight[k] : 1.0f));
    }
}

struct linear_job {
    const struct op_linear *op;
    int rows;
    float *row_scratch; /* [threads, cols] one dequantised row of W */
};

enum { LINEAR_TASK_ROWS = 64 }; /* rows of W in one task */

static void linear_task(void *ctx, int task, int thread) {
    const struct linear_job *job = ctx;
    const struct op_linear *op = job->op;
    const struct ref_matrix *m = (const struct ref_matrix *)op->matrix;
    float *w = job->row_scratch + thread * m->base.cols;
    int64_t first = (int64_t)task * LINEAR_TASK_ROWS, last = first + LINEAR_TASK_ROWS;
    if (last > m->base.rows) last = m->base.rows;
    int part = 0;
    int64_t part_row = 0; /* first row of `part` in the whole matrix */
    for (int64_t n = first; n < last; n++) {
        while (n >= part_row + m->parts[part].rows) part_row += m->parts[part++].rows;
        weight_dequantize_row(&m->parts[part], n - part_row, w);
        for (int r = 0; r < job->rows; r++) {
            float sum = dot((const float *)op->x + r * m->base.cols, w, m->base.cols);
            if (m->bias) sum += m->bias[n];
            float *y = op->y + r * m->base.rows + n;
            *y = op->mode == LINEAR_ADD ? *y + sum : sum;
        }
    }
}

struct ref_backend {
    struct cpu_backend cpu;
    float *row_scratch; /* [threads, max_cols] */
    float *scores;      /* [threads, max positions] */
    int64_t max_positions;
};

static void ref_linear(struct backend *be, const struct op_linear *op) {
    struct ref_backend *ref = (struct ref_backend *)be;
    struct linear_job job = {op, cpu_rows(&ref->cpu, op->rows), ref->row_scratch};
    int tasks = (int)((op->matrix->rows + LINEAR_TASK_ROWS - 1) / LINEAR_TASK_ROWS);
    pool_run(ref->cpu.pool, linear_task, &job, tasks);
}

/* K of a block: [kv_heads, 64, head_dim]; V follows in the same shape. */
static float *kv_at(const struct batch *batch, void *kv, int seq, int position, int kv_heads,
                    int head_dim, int head, int is_v) {
    int64_t block = batch->blocks[(int64_t)seq * batch->max_blocks + position / KV_BLOCK_TOKENS];
    int64_t plane = (int64_t)kv_heads * KV_BLOCK_TOKENS * head_dim;
    return (float *)kv + (2 * block + is_v) * plane +
           ((int64_t)head * KV_BLOCK_TOKENS + position % KV_BLOCK_TOKENS) * head_dim;
}

static void norm_head(float *x, int n, const float *weight, float eps) {
    if (weight == NULL) return;
    float scale = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
    for (int i = 0; i < n; i++) x[i] = x[i] * scale * weight[i];
}

static void rotate(float *x, const float *angles, int pairs, int offset) {
    for (int i = 0; i < pairs; i++) {
        float c = angles[2 * i], s = angles[2 * i + 1], a = x[i], b = x[i + offset];
        x[i] = a * c - b * s;
        x[i + offset] = b * c + a * s;
    }
}

static void ref_qkv(struct backend *be, const struct op_qkv *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    const struct batch *batch = &cpu->batch;
    const int d = op->head_dim, all = op->heads + 2 * op->kv_heads;
    for (int r = 0; r < batch->rows; r++) {
        const float *angles = op->angles + (int64_t)r * op->pairs * 2;
        for (int j = 0; j < all; j++) {
            int kv_head = (j - op->heads) % op->kv_heads;
            bool is_q = j < op->heads, is_v = j >= op->heads + op->kv_heads;
            float *out = is_q ? (float *)op->q + ((int64_t)r * op->heads + j) * d
                              : kv_at(batch, op->kv, batch->seq[r], batch->position[r],
                                      op->kv_heads, d, kv_head, is_v);
            memcpy(out, op->qkv + ((int64_t)r * all + j) * d, (size_t)d * sizeof *out);
            if (!is_v) {
                norm_head(out, d, is_q ? op->q_norm : op->k_norm, op->eps);
                rotate(out, angles, op->pairs, op->pair_offset);
            }
            for (int i = 0; i < d; i++) out[i] = stored(cpu, is_q ? out[i] * op->q_scale : out[i]);
        }
    }
}

struct attention_job {
    struct ref_backend *ref;
    const struct op_attention *op;
};

/* One row, one query head: scores, softmax over all of them, weighted sum of V. */
static void attention_task(void *ctx, int task, int thread) {
    const struct attention_job *job = ctx;
    const struct op_attention *op = job->op;
    const struct batch *batch = &job->ref->cpu.batch;
    const int d = op->head_dim, r = task / op->heads, head = task % op->heads;
    const int kv_head = head / (op->heads / op->kv_heads), seq = batch->seq[r];
    const int last = batch->position[r];
    const int first = op->window > 0 && last >= op->window ? last - op->window + 1 : 0;
    const float *q = (const float *)op->q + ((int64_t)r * op->heads + head) * d;
    float *out = (float *)op->out + ((int64_t)r * op->heads + head) * d;
    float *score = job->ref->scores + thread * job->ref->max_positions;
    float max = op->sinks ? op->sinks[head] : -INFINITY;
    for (int p = first; p <= last; p++) {
        float s =
            dot(q, kv_at(batch, (void *)(uintptr_t)op->kv, seq, p, op->kv_heads, d, kv_head, 0), d);
        if (op->softcap > 0) s = op->softcap * tanhf(s / op->softcap);
        score[p - first] = s;
        max = fmaxf(max, s);
    }
    float total = op->sinks ? expf(op->sinks[head] - max) : 0;
    for (int i = 0; i < d; i++) out[i] = 0;
    for (int p = first; p <= last; p++) {
        const float *v =
            kv_at(batch, (void *)(uintptr_t)op->kv, seq, p, op->kv_heads, d, kv_head, 1);
        float weight = expf(score[p - first] - max);
        total += weight;
        for (int i = 0; i < d; i++) out[i] += weight * v[i];
    }
    for (int i = 0; i < d; i++) out[i] = stored(&job->ref->cpu, out[i] / total);
}

static void ref_attention(struct backend *be, const struct op_attention *op) {
    struct attention_job job = {(struct ref_backend *)be, op};
    pool_run(job.ref->cpu.pool, attention_task, &job, job.ref->cpu.batch.rows * op->heads);
}

static float activate(enum glu_kind kind, float x) {
    if (kind == GLU_SILU) return x / (1.0f + expf(-x));
    return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

static void ref_glu(struct backend *be, const struct op_glu *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    for (int64_t r = 0; r < cpu->batch.rows; r++) {
        const float *gate = op->gate_up + r * 2 * op->cols, *up = gate + op->cols;
        float *out = (float *)op->out + r * op->cols;
        for (int64_t k = 0; k < op->cols; k++)
            out[k] = stored(cpu, activate(op->kind, gate[k]) * up[k]);
    }
}

/* ---- the object ---- */

static size_t ref_act_bytes(struct backend *be, int64_t cols) {
    (void)be;
    return (size_t)cols * sizeof(float);
}

static void ref_act_read(struct backend *be, const void *act, int rows, int64_t cols, float *host) {
    (void)be;
    memcpy(host, act, (size_t)rows * (size_t)cols * sizeof *host);
}

static size_t ref_kv_block_bytes(struct backend *be, int kv_heads, int head_dim) {
    (void)be;
    return (size_t)2 * KV_BLOCK_TOKENS * (size_t)kv_heads * (size_t)head_dim * sizeof(float);
}

static size_t ref_scratch_bytes(struct backend *be, const struct step_limits *max) {
    size_t threads = (size_t)pool_threads(((struct cpu_backend *)be)->pool);
    size_t positions = (size_t)max->max_blocks * KV_BLOCK_TOKENS;
    return cpu_scratch_bytes(max) + threads * ((size_t)max->max_cols + positions) * sizeof(float);
}

static int ref_reserve(struct backend *be, const struct step_limits *max, struct imp_error *err) {
    struct ref_backend *ref = (struct ref_backend *)be;
    size_t threads = (size_t)pool_threads(ref->cpu.pool);
    ref->max_positions = (int64_t)max->max_blocks * KV_BLOCK_TOKENS;
    free(ref->row_scratch);
    free(ref->scores);
    ref->row_scratch = malloc(threads * (size_t)max->max_cols * sizeof(float));
    ref->scores = malloc(threads * (size_t)ref->max_positions * sizeof(float));
    if (ref->row_scratch == NULL || ref->scores == NULL)
        return error_memory(err, ref_scratch_bytes(be, max));
    return cpu_reserve(&ref->cpu, max, err);
}

static void ref_destroy(struct backend *be) {
    struct ref_backend *ref = (struct ref_backend *)be;
    free(ref->row_scratch);
    free(ref->scores);
    cpu_close(&ref->cpu);
    free(ref);
}

static const struct backend_ops REFERENCE_OPS = {
    .destroy = ref_destroy,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .write = cpu_write,
    .read = cpu_read,
    .matrix_create = ref_matrix_create,
    .matrix_free = ref_matrix_free,
    .matrix_bytes = ref_matrix_bytes,
    .table_create = cpu_table_create,
    .table_free = cpu_table_free,
    .act_bytes = ref_act_bytes,
    .act_read = ref_act_read,
    .kv_block_bytes = ref_kv_block_bytes,
    .scratch_bytes = ref_scratch_bytes,
    .reserve = ref_reserve,
    .step_begin = cpu_step_begin,
    .step_end = cpu_step_end,
    .embed = cpu_embed,
    .norm = ref_norm,
    .linear = ref_linear,
    .rope_angles = cpu_rope_angles,
    .qkv = ref_qkv,
    .attention = ref_attention,
    .glu = ref_glu,
    .sample = cpu_sample,
};

int cpu_reference_open(const struct backend_options *options, struct backend **out,
                       struct imp_error *err) {
    struct ref_backend *ref = mem_zero(1, sizeof *ref);
    ref->cpu.base.ops = &REFERENCE_OPS;
    ref->cpu.round_bf16 = options->round_bf16;
    int rc = pool_create(options->threads, &ref->cpu.pool, err);
    if (rc < 0) {
        free(ref);
        return rc;
    }
    snprintf(ref->cpu.base.name, sizeof ref->cpu.base.name, "cpu, plain reference, %d thread%s",
             options->threads, options->threads == 1 ? "" : "s");
    *out = &ref->cpu.base;
    return 0;
}
