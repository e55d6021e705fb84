/* The plain backend: every op as its definition reads, fp32 throughout.
 *
 * What other backends are held to, and what is held to transformers. With round_bf16 it rounds
 * where the contract rounds (inputs of matrix products, stored KV), so that a faster path can be
 * compared without the roundings between them. `act` and KV are fp32 in memory either way. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/error.h"
#include "base/str.h"
#include "num/fp.h"

struct ref_matrix {
    struct matrix base;
    int count;
    struct weight *parts;
    float *bias; /* [rows] or NULL */
    struct cpu_input input;
};

static inline float stored(const struct cpu_backend *cpu, float x) {
    return cpu->round_bf16 ? bf16_round(x) : x;
}

/* ---- weights ---- */

static int ref_matrix_create(struct backend *be, const struct weight *parts, int count,
                             const float *const *bias, struct matrix **out, struct imp_error *err) {
    struct ref_matrix *m = mem_zero(1, sizeof *m);
    int rc = cpu_input_make((struct cpu_backend *)be, parts, count, &m->input, err);
    if (rc < 0) {
        free(m);
        return rc;
    }
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

static void ref_norm(struct backend *be, const struct op_norm *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    for (int i = 0; i < cpu_rows(cpu, op->rows); i++) {
        int row = op->rows == ROWS_OUT ? cpu->batch.out_row[i] : i;
        const float *h = op->h + row * op->cols;
        float *out = (float *)op->out + i * op->cols;
        float scale = 1.0f / sqrtf(cpu_dot(h, h, op->cols) / (float)op->cols + op->eps);
        for (int64_t k = 0; k < op->cols; k++)
            out[k] = stored(cpu, h[k] * scale * (op->weight ? op->weight[k] : 1.0f));
    }
}

struct linear_job {
    const struct op_linear *op;
    struct cpu_inputs in;
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
        const bool rounded = job->in.rounded && m->parts[part].format == WEIGHT_NVFP4;
        const float *x = rounded ? job->in.rounded : job->in.x;
        for (int r = 0; r < job->rows; r++) {
            float sum = cpu_dot(x + r * m->base.cols, w, m->base.cols);
            if (rounded) sum *= job->in.multiplier[r];
            if (m->bias) sum += m->bias[n];
            float *y = op->y + r * m->base.rows + n;
            *y = op->mode == LINEAR_ADD ? *y + sum : sum;
        }
    }
}

struct ref_backend {
    struct cpu_backend cpu;
    float *row_scratch; /* [threads, max_cols] */
    int64_t max_cols;
    float *scores; /* [threads, max positions] */
    int64_t max_positions;
};

static void linear_rows(struct cpu_backend *cpu, const struct op_linear *op, int rows) {
    const struct ref_backend *ref = (const struct ref_backend *)cpu;
    const struct ref_matrix *m = (const struct ref_matrix *)op->matrix;
    check(op->matrix->cols <= ref->max_cols);
    struct linear_job job = {op, cpu_change_input(cpu, &m->input, op->x, m->base.cols, rows), rows,
                             ref->row_scratch};
    int tasks = (int)((op->matrix->rows + LINEAR_TASK_ROWS - 1) / LINEAR_TASK_ROWS);
    pool_run(cpu->pool, linear_task, &job, tasks);
}

static void linears(struct cpu_backend *cpu, const struct op_linear *op, const int *rows,
                    int count) {
    for (int i = 0; i < count; i++) linear_rows(cpu, &op[i], rows[i]);
}

static void ref_linear(struct backend *be, const struct op_linear *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    linear_rows(cpu, op, cpu_rows(cpu, op->rows));
}

/* K of a block: [kv_heads, 64, head_dim]; V follows in the same shape. */
struct kv_view {
    float *kv;
    const int32_t *blocks; /* of the sequence */
    int kv_heads, head_dim;
};

static struct kv_view kv_view(const struct batch *batch, const void *kv, enum kv_group group,
                              int seq, int kv_heads, int head_dim) {
    return (struct kv_view){(float *)(uintptr_t)kv,
                            batch->blocks[group] + (int64_t)seq * batch->max_blocks, kv_heads,
                            head_dim};
}

static float *kv_at(const struct kv_view *view, int position, int head, int is_v) {
    const int64_t plane = (int64_t)view->kv_heads * KV_BLOCK_TOKENS * view->head_dim;
    return view->kv + (2 * (int64_t)view->blocks[position / KV_BLOCK_TOKENS] + is_v) * plane +
           ((int64_t)head * KV_BLOCK_TOKENS + position % KV_BLOCK_TOKENS) * view->head_dim;
}

static void norm_head(float *x, int n, const float *weight, float eps) {
    float scale = 1.0f / sqrtf(cpu_dot(x, x, n) / (float)n + eps);
    for (int i = 0; i < n; i++) x[i] = x[i] * scale * (weight ? weight[i] : 1.0f);
}

static void rotate(float *x, const float *angles, int pairs, int offset) {
    for (int i = 0; i < pairs; i++) {
        float c = angles[2 * i], s = angles[2 * i + 1], a = x[i], b = x[i + offset];
        x[i] = a * c - b * s;
        x[i + offset] = b * c + a * s;
    }
}

static void make_queries(const struct cpu_backend *cpu, const struct op_qkv *op, int r) {
    const int d = op->head_dim;
    float scale = op->q_scale;
    if (op->q_growth != 0)
        scale *=
            1.0f +
            op->q_growth * logf(1.0f + floorf((float)cpu->batch.position[r] / op->q_growth_tokens));
    for (int j = 0; j < op->heads; j++) {
        float *q = (float *)op->q + ((int64_t)r * op->heads + j) * d;
        memcpy(q, op->qkv + r * op->row_cols + (int64_t)j * op->q_step, (size_t)d * sizeof *q);
        if (op->q_norm) norm_head(q, d, op->q_norm, op->eps);
        rotate(q, op->angles + (int64_t)r * op->pairs * 2, op->pairs, op->pair_offset);
        for (int i = 0; i < d; i++) q[i] = stored(cpu, q[i] * scale);
    }
}

static void write_keys_values(const struct cpu_backend *cpu, const struct op_qkv *op, int r) {
    const struct batch *batch = &cpu->batch;
    const int d = op->head_dim;
    const struct kv_view view = kv_view(batch, op->kv, op->group, batch->seq[r], op->kv_heads, d);
    const float *from = op->qkv + r * op->row_cols + (int64_t)op->heads * op->q_step;
    for (int j = 0; j < op->kv_heads; j++) {
        float *k = kv_at(&view, batch->position[r], j, 0),
              *v = kv_at(&view, batch->position[r], j, 1);
        memcpy(k, from + (int64_t)j * d, (size_t)d * sizeof *k);
        memcpy(v, from + (int64_t)(op->v_from_k ? j : op->kv_heads + j) * d, (size_t)d * sizeof *v);
        if (op->k_norm) norm_head(k, d, op->k_norm, op->eps);
        if (op->v_norm) norm_head(v, d, NULL, op->eps);
        rotate(k, op->angles + (int64_t)r * op->pairs * 2, op->pairs, op->pair_offset);
        for (int i = 0; i < d; i++) k[i] = stored(cpu, k[i]);
        for (int i = 0; i < d; i++) v[i] = stored(cpu, v[i]);
    }
}

static void ref_qkv(struct backend *be, const struct op_qkv *op) {
    const struct cpu_backend *cpu = (const struct cpu_backend *)be;
    for (int r = 0; r < cpu->batch.rows; r++) {
        make_queries(cpu, op, r);
        if (op->kv) write_keys_values(cpu, op, r);
    }
}

struct attention_job {
    struct ref_backend *ref;
    const struct op_attention *op;
};

static float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

/* One row, one query head: scores, softmax over all of them, weighted sum of V. */
static void attention_task(void *ctx, int task, int thread) {
    const struct attention_job *job = ctx;
    const struct op_attention *op = job->op;
    const struct batch *batch = &job->ref->cpu.batch;
    const int d = op->head_dim, r = task / op->heads, head = task % op->heads;
    const int kv_head = head / (op->heads / op->kv_heads);
    const struct kv_view view = kv_view(batch, op->kv, op->group, batch->seq[r], op->kv_heads, d);
    const int last = batch->position[r];
    const int first = op->window > 0 && last >= op->window ? last - op->window + 1 : 0;
    const float *q = (const float *)op->q + ((int64_t)r * op->heads + head) * d;
    float *out = (float *)op->out + ((int64_t)r * op->heads + head) * d;
    float *score = job->ref->scores + thread * job->ref->max_positions;
    float max = op->sinks ? op->sinks[head] : -INFINITY;
    for (int p = first; p <= last; p++) {
        float s = cpu_dot(q, kv_at(&view, p, kv_head, 0), d);
        if (op->softcap > 0) s = op->softcap * tanhf(s / op->softcap);
        score[p - first] = s;
        max = fmaxf(max, s);
    }
    float total = op->sinks ? expf(op->sinks[head] - max) : 0;
    for (int i = 0; i < d; i++) out[i] = 0;
    for (int p = first; p <= last; p++) {
        const float *v = kv_at(&view, p, kv_head, 1);
        float weight = expf(score[p - first] - max);
        total += weight;
        for (int i = 0; i < d; i++) out[i] += weight * v[i];
    }
    const float *gate =
        op->gate ? op->gate + r * op->gate_row + (int64_t)head * op->gate_step : NULL;
    for (int i = 0; i < d; i++) {
        float o = out[i] / total;
        out[i] = stored(&job->ref->cpu, gate ? o * sigmoid(gate[i]) : o);
    }
}

static void ref_attention(struct backend *be, const struct op_attention *op) {
    struct attention_job job = {(struct ref_backend *)be, op};
    const struct batch *batch = &job.ref->cpu.batch;
    check(op->heads % op->kv_heads == 0);
    for (int r = 0; r < batch->rows; r++) check(batch->position[r] < job.ref->max_positions);
    pool_run(job.ref->cpu.pool, attention_task, &job, job.ref->cpu.batch.rows * op->heads);
}

static float glu(const struct op_glu *op, float gate, float up) {
    switch (op->kind) {
    case GLU_SILU:
        return gate * sigmoid(gate) * up;
    case GLU_GELU_TANH:
        return 0.5f * gate *
               (1.0f + tanhf(0.7978845608028654f * (gate + 0.044715f * gate * gate * gate))) * up;
    case GLU_CLAMPED:
        break;
    }
    /* Not fminf: it would lose a NaN. */
    gate = gate > op->limit ? op->limit : gate;
    up = up > op->limit ? op->limit : up < -op->limit ? -op->limit : up;
    return gate * sigmoid(1.702f * gate) * (up + 1.0f);
}

static void glu_rows(struct cpu_backend *cpu, const struct op_glu *op, int rows) {
    for (int64_t r = 0; r < rows; r++) {
        const float *gate = op->gate + r * op->gate_row, *up = op->up + r * op->up_row;
        float factor = op->row_gate ? sigmoid(op->row_gate[r * op->gate_row]) : 1.0f;
        float *out = (float *)op->out + r * op->cols;
        for (int64_t k = 0; k < op->cols; k++)
            out[k] = stored(cpu, glu(op, gate[k * op->step], up[k * op->step]) * factor);
    }
}

static void ref_glu(struct backend *be, const struct op_glu *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    glu_rows(cpu, op, cpu->batch.rows);
}

static void store_row(const struct cpu_backend *cpu, const float *x, int64_t cols, void *act,
                      int64_t row) {
    float *out = (float *)act + row * cols;
    for (int64_t k = 0; k < cols; k++) out[k] = stored(cpu, x[k]);
}

/* ---- gated delta net ---- */

static void gdn_conv(const struct gdn_conv *conv) {
    for (int c = 0; c < conv->count; c++) {
        float sum = 0;
        for (int j = 0; j < GDN_CONV; j++) sum += conv->weight[j][c] * conv->in[j][c];
        conv->out[c] = sum * sigmoid(sum);
    }
}

static void delta_row(const struct gdn_tile *t, int64_t at) {
    const float *q = t->q + at, *k = t->k + at;
    float change[GDN_COLUMNS] = {0}, out[GDN_COLUMNS] = {0};
    for (int i = 0; i < t->key_dim; i++) {
        float *row = t->state + i * GDN_COLUMNS;
        for (int j = 0; j < GDN_COLUMNS; j++) {
            row[j] *= t->alpha[at];
            change[j] += row[j] * k[i];
        }
    }
    for (int j = 0; j < t->columns; j++) change[j] = t->beta[at] * (t->v[at + j] - change[j]);
    for (int i = 0; i < t->key_dim; i++) {
        float *row = t->state + i * GDN_COLUMNS;
        for (int j = 0; j < GDN_COLUMNS; j++) {
            row[j] += k[i] * change[j];
            out[j] += row[j] * q[i];
        }
    }
    memcpy(t->v + at, out, (size_t)t->columns * sizeof *out);
}

static void gdn_delta(const struct gdn_tile *tile) {
    for (int64_t r = 0; r < tile->rows; r++) delta_row(tile, r * tile->stride);
}

static void gdn_gate(float *o, const float *z, const float *norm, float scale, int64_t n) {
    for (int64_t i = 0; i < n; i++) o[i] = o[i] * scale * norm[i] * (z[i] * sigmoid(z[i]));
}

static void load_row(const void *act, int64_t cols, int64_t row, float *out) {
    memcpy(out, (const float *)act + row * cols, (size_t)cols * sizeof *out);
}

static void softcap(float *y, int64_t n, float cap) {
    for (int64_t i = 0; i < n; i++) y[i] = cap * tanhf(y[i] / cap);
}

static const struct cpu_hooks REFERENCE_HOOKS = {store_row, load_row,  linears,  glu_rows,
                                                 gdn_conv,  gdn_delta, gdn_gate, softcap};

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
    return cpu_scratch_bytes(be, max) +
           threads * ((size_t)max->max_cols + positions) * sizeof(float);
}

static int ref_reserve(struct backend *be, const struct step_limits *max, struct imp_error *err) {
    struct ref_backend *ref = (struct ref_backend *)be;
    size_t threads = (size_t)pool_threads(ref->cpu.pool);
    ref->max_cols = max->max_cols;
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
    .experts_create = cpu_experts_create,
    .experts_free = cpu_experts_free,
    .act_bytes = ref_act_bytes,
    .act_read = ref_act_read,
    .kv_block_bytes = ref_kv_block_bytes,
    .gdn_state_bytes = cpu_gdn_state_bytes,
    .scratch_bytes = ref_scratch_bytes,
    .reserve = ref_reserve,
    .step_begin = cpu_step_begin,
    .step_end = cpu_step_end,
    .embed = cpu_embed,
    .norm = ref_norm,
    .convert = cpu_convert,
    .post_norm = cpu_post_norm,
    .linear = ref_linear,
    .linear_glu = cpu_linear_glu,
    .rope_angles = cpu_rope_angles,
    .qkv = ref_qkv,
    .attention = ref_attention,
    .glu = ref_glu,
    .route = cpu_route,
    .moe = cpu_moe,
    .gdn = cpu_gdn,
    .softcap = cpu_softcap,
    .sample = cpu_sample,
};

int cpu_reference_open(const struct backend_options *options, struct backend **out,
                       struct imp_error *err) {
    struct ref_backend *ref = mem_zero(1, sizeof *ref);
    ref->cpu.base.ops = &REFERENCE_OPS;
    ref->cpu.base.borrows_weights = true;
    ref->cpu.hooks = &REFERENCE_HOOKS;
    ref->cpu.round_bf16 = options->round_bf16;
    ref->cpu.nvfp4_activations = options->nvfp4_activations;
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
