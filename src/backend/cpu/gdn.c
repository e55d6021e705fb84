/* The gated delta net, row by row: the recurrence as its definition reads, in fp32. A sequence's
 * rows come in order whatever the chunks they come in, so chunking cannot change a bit. (The form
 * by chunks is for machines that multiply matrices much faster than they walk through rows.)
 *
 * A column of the state sees no other column. So a task takes a few columns through all rows of its
 * sequence while they lie in the first-level cache, and a slot holds them together:
 *     last inputs of the convolution [HISTORY, channels], then
 *     state [value_heads, tiles, key_dim, GDN_COLUMNS], the last tile filled up. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/error.h"

enum { HISTORY = GDN_CONV - 1, MAX_HEAD = 512, TASK_ROWS = 4 };
static const float L2_EPS = 1e-6f;

static int tiles_of(const struct gdn_shape *s) {
    return (s->value_dim + GDN_COLUMNS - 1) / GDN_COLUMNS;
}

/* Floats of the state from one tile to the next. */
static int64_t tile_floats(const struct gdn_shape *s) {
    return (int64_t)s->key_dim * GDN_COLUMNS;
}

static int64_t state_floats(const struct gdn_shape *s) {
    return HISTORY * gdn_channels(s) + (int64_t)s->value_heads * tiles_of(s) * tile_floats(s);
}

size_t cpu_gdn_state_bytes(struct backend *be, const struct gdn_shape *shape) {
    (void)be;
    return (size_t)state_floats(shape) * sizeof(float);
}

struct gdn_job {
    struct cpu_backend *cpu;
    const struct op_gdn *op;
    int64_t stride, channels, values; /* of a row of in; its convolved part; of v, and of z */
};

static float *slot_state(const struct gdn_job *job, int seq) {
    return (float *)job->op->state + job->cpu->batch.slot[seq] * state_floats(&job->op->shape);
}

/* The rows of a sequence in this batch, and whether it begins here. */
struct rows {
    int first, count;
    bool fresh;
};
static struct rows rows_of(const struct gdn_job *job, int seq) {
    const struct batch *batch = &job->cpu->batch;
    int first = batch->seq_row[seq];
    return (struct rows){first, batch->seq_row[seq + 1] - first, batch->position[first] == 0};
}

/* ---- convolution, norms of q and k, decay and beta: everything that S waits for ---- */

/* Some channels of one sequence. From the last row back, so that a row's inputs are still there
 * when their sum takes their place. */
static void convolve(const struct gdn_job *job, int seq, int64_t first, int count) {
    const struct rows rows = rows_of(job, seq);
    float *saved = slot_state(job, seq) + first, before[HISTORY][MAX_HEAD] = {{0}};
    float weight[GDN_CONV][MAX_HEAD];
    for (int c = 0; c < count; c++) {
        for (int j = 0; j < GDN_CONV; j++) weight[j][c] = job->op->conv[(first + c) * GDN_CONV + j];
    }
    for (int i = 0; i < HISTORY && !rows.fresh; i++)
        memcpy(before[i], saved + i * job->channels, (size_t)count * sizeof(float));
    float *u = job->op->in + rows.first * job->stride + first;
    for (int i = 0; i < HISTORY; i++) { /* the inputs at rows count - HISTORY + i */
        int64_t r = rows.count - HISTORY + i;
        memcpy(saved + i * job->channels, r >= 0 ? u + r * job->stride : before[HISTORY + r],
               (size_t)count * sizeof(float));
    }
    for (int64_t r = rows.count - 1; r >= 0; r--) {
        struct gdn_conv conv = {.count = count, .out = u + r * job->stride};
        for (int j = 0; j < GDN_CONV; j++) {
            int64_t at = r - HISTORY + j;
            conv.in[j] = at >= 0 ? u + at * job->stride : before[HISTORY + at];
            conv.weight[j] = weight[j];
        }
        job->cpu->hooks->gdn_conv(&conv);
    }
}

/* x = x * factor / |x| */
static void normalize(float *x, int n, float factor) {
    float scale = factor / sqrtf(cpu_dot(x, x, n) + L2_EPS);
    for (int i = 0; i < n; i++) x[i] *= scale;
}

static float softplus(float x) {
    return x > 20.0f ? x : log1pf(expf(x));
}

/* beta and e^-decay take the places of b and a. */
static void make_gates(const struct gdn_job *job, const struct rows *rows, int head) {
    const struct op_gdn *op = job->op;
    float *b = op->in + rows->first * job->stride + job->channels + job->values + head;
    for (int r = 0; r < rows->count; r++, b += job->stride) {
        float *a = b + op->shape.value_heads;
        *b = 1.0f / (1.0f + expf(-*b));
        *a = expf(-op->decay[head] * softplus(*a + op->dt_bias[head]));
    }
}

/* One head of q, k or v of one sequence. */
static void prepare(void *ctx, int task, int thread) {
    (void)thread;
    const struct gdn_job *job = ctx;
    const struct gdn_shape *s = &job->op->shape;
    const int heads = 2 * s->key_heads + s->value_heads, seq = task / heads, head = task % heads;
    const struct rows rows = rows_of(job, seq);
    if (head >= 2 * s->key_heads) {
        const int value_head = head - 2 * s->key_heads;
        convolve(job, seq,
                 2 * (int64_t)s->key_heads * s->key_dim + (int64_t)value_head * s->value_dim,
                 s->value_dim);
        make_gates(job, &rows, value_head);
        return;
    }
    convolve(job, seq, (int64_t)head * s->key_dim, s->key_dim);
    const float factor = head < s->key_heads ? 1.0f / sqrtf((float)s->key_dim) : 1.0f;
    float *x = job->op->in + rows.first * job->stride + (int64_t)head * s->key_dim;
    for (int r = 0; r < rows.count; r++) normalize(x + r * job->stride, s->key_dim, factor);
}

/* ---- the recurrence ---- */

static void run_tile(void *ctx, int task, int thread) {
    (void)thread;
    const struct gdn_job *job = ctx;
    const struct gdn_shape *s = &job->op->shape;
    const int tiles = tiles_of(s), tile = task % tiles, head = task / tiles % s->value_heads;
    const int seq = task / tiles / s->value_heads;
    const int64_t key = (int64_t)(head / (s->value_heads / s->key_heads)) * s->key_dim,
                  keys = (int64_t)s->key_heads * s->key_dim;
    const struct rows rows = rows_of(job, seq);
    float *in = job->op->in + rows.first * job->stride, *gates = in + job->channels + job->values;
    struct gdn_tile t = {
        .state = slot_state(job, seq) + HISTORY * job->channels +
                 ((int64_t)head * tiles + tile) * tile_floats(s),
        .q = in + key,
        .k = in + keys + key,
        .v = in + 2 * keys + (int64_t)head * s->value_dim + (int64_t)tile * GDN_COLUMNS,
        .alpha = gates + s->value_heads + head,
        .beta = gates + head,
        .stride = job->stride,
        .rows = rows.count,
        .key_dim = s->key_dim,
        .columns = s->value_dim - tile * GDN_COLUMNS,
    };
    if (t.columns > GDN_COLUMNS) t.columns = GDN_COLUMNS;
    if (rows.fresh) memset(t.state, 0, (size_t)tile_floats(s) * sizeof(float));
    job->cpu->hooks->gdn_delta(&t);
}

static void finish_rows(void *ctx, int task, int thread) {
    (void)thread;
    const struct gdn_job *job = ctx;
    const struct op_gdn *op = job->op;
    const int n = op->shape.value_dim, rows = job->cpu->batch.rows;
    for (int r = task * TASK_ROWS; r < rows && r < (task + 1) * TASK_ROWS; r++) {
        float *z = op->in + r * job->stride + job->channels, *o = z - job->values;
        for (int64_t at = 0; at < job->values; at += n) {
            float scale = 1.0f / sqrtf(cpu_dot(o + at, o + at, n) / (float)n + op->eps);
            job->cpu->hooks->gdn_gate(o + at, z + at, op->norm, scale, n);
        }
        job->cpu->hooks->store_row(job->cpu, o, job->values, op->out, r);
    }
}

void cpu_gdn(struct backend *be, const struct op_gdn *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    const struct gdn_shape *s = &op->shape;
    const int seqs = cpu->batch.seqs;
    struct gdn_job job = {cpu, op, gdn_row(s), gdn_channels(s),
                          (int64_t)s->value_heads * s->value_dim};
    check(s->key_dim <= MAX_HEAD && s->value_dim <= MAX_HEAD);
    check(s->key_heads > 0 && s->value_heads % s->key_heads == 0);
    pool_run(cpu->pool, prepare, &job, seqs * (2 * s->key_heads + s->value_heads));
    pool_run(cpu->pool, run_tile, &job, seqs * s->value_heads * tiles_of(s));
    pool_run(cpu->pool, finish_rows, &job, (cpu->batch.rows + TASK_ROWS - 1) / TASK_ROWS);
}
