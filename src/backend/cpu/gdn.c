/* The gated delta net, row by row: the recurrence as its definition reads, in fp32. A sequence's
 * rows come in order whatever the chunks they come in, so chunking cannot change a bit. (The form
 * by chunks is for machines that multiply matrices much faster than they walk through rows; here
 * the walk is a few hundredths of a layer's linears.) */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/error.h"

enum { TILE = 64, HISTORY = GDN_CONV - 1, MAX_HEAD = 512 };
static const float L2_EPS = 1e-6f;

static size_t state_floats(const struct gdn_shape *s) {
    return (size_t)HISTORY * (size_t)gdn_channels(s) +
           (size_t)s->value_heads * (size_t)s->key_dim * (size_t)s->value_dim;
}

size_t cpu_gdn_state_bytes(struct backend *be, const struct gdn_shape *shape) {
    (void)be;
    return state_floats(shape) * sizeof(float);
}

struct gdn_job {
    struct cpu_backend *cpu;
    const struct op_gdn *op;
    int tiles; /* of channels */
};

static float *slot_state(const struct gdn_job *job, int seq) {
    return (float *)job->op->state +
           (size_t)job->cpu->batch.slot[seq] * state_floats(&job->op->shape);
}

/* The rows of a sequence in this batch, and whether it begins here. */
struct rows {
    int first, end;
    bool fresh;
};
static struct rows rows_of(const struct gdn_job *job, int seq) {
    const struct batch *batch = &job->cpu->batch;
    int first = batch->seq_row[seq];
    return (struct rows){first, batch->seq_row[seq + 1], batch->position[first] == 0};
}

static float silu(float x) {
    return x / (1.0f + expf(-x));
}

/* A tile of channels of one sequence. From the last row back, so that a row's inputs are still
 * there when their sum takes their place. */
static void convolve(void *ctx, int task, int thread) {
    (void)thread;
    const struct gdn_job *job = ctx;
    const struct op_gdn *op = job->op;
    const int64_t channels = gdn_channels(&op->shape), stride = gdn_row(&op->shape);
    const int64_t first = task % job->tiles * TILE;
    const int seq = task / job->tiles;
    const int count = channels - first < TILE ? (int)(channels - first) : TILE;
    const struct rows rows = rows_of(job, seq);
    float *saved = slot_state(job, seq), before[HISTORY][TILE] = {{0}};
    for (int i = 0; i < HISTORY && !rows.fresh; i++)
        memcpy(before[i], saved + i * channels + first, (size_t)count * sizeof(float));
    const int64_t n = rows.end - rows.first;
    float *u = op->in + rows.first * stride + first;
    for (int i = 0; i < HISTORY; i++) { /* the inputs at rows n - HISTORY + i */
        int64_t r = n - HISTORY + i;
        memcpy(saved + i * channels + first, r >= 0 ? u + r * stride : before[HISTORY + r],
               (size_t)count * sizeof(float));
    }
    for (int64_t r = n - 1; r >= 0; r--) {
        for (int c = 0; c < count; c++) {
            const float *w = op->conv + (first + c) * GDN_CONV;
            float sum = 0;
            for (int j = 0; j < GDN_CONV; j++) {
                int64_t at = r - HISTORY + j;
                sum += w[j] * (at >= 0 ? u[at * stride + c] : before[HISTORY + at][c]);
            }
            u[r * stride + c] = silu(sum);
        }
    }
}

/* out = x * factor / |x| */
static void normalize(const float *x, int n, float factor, float *out) {
    float scale = factor / sqrtf(cpu_dot(x, x, n) + L2_EPS);
    for (int i = 0; i < n; i++) out[i] = x[i] * scale;
}

struct delta {
    const float *q, *k;
    float alpha, beta;
    int key_dim, value_dim;
};

/* v goes in, o comes out. */
VECTOR_CLONES static void delta_rule(const struct delta *d, float *restrict state,
                                     float *restrict v) {
    float change[MAX_HEAD], out[MAX_HEAD];
    for (int j = 0; j < d->value_dim; j++) change[j] = 0;
    for (int i = 0; i < d->key_dim; i++) {
        float *row = state + (int64_t)i * d->value_dim;
        for (int j = 0; j < d->value_dim; j++) {
            row[j] *= d->alpha;
            change[j] += row[j] * d->k[i];
        }
    }
    for (int j = 0; j < d->value_dim; j++) {
        change[j] = d->beta * (v[j] - change[j]);
        out[j] = 0;
    }
    for (int i = 0; i < d->key_dim; i++) {
        float *row = state + (int64_t)i * d->value_dim;
        for (int j = 0; j < d->value_dim; j++) {
            row[j] += d->k[i] * change[j];
            out[j] += row[j] * d->q[i];
        }
    }
    memcpy(v, out, (size_t)d->value_dim * sizeof *v);
}

static void gated_norm(const struct op_gdn *op, float *o, const float *z) {
    const int n = op->shape.value_dim;
    float scale = 1.0f / sqrtf(cpu_dot(o, o, n) / (float)n + op->eps);
    for (int i = 0; i < n; i++) o[i] = o[i] * scale * op->norm[i] * silu(z[i]);
}

static float softplus(float x) {
    return x > 20.0f ? x : log1pf(expf(x));
}

/* One value head of one sequence, through its rows. */
static void run_head(void *ctx, int task, int thread) {
    (void)thread;
    const struct gdn_job *job = ctx;
    const struct op_gdn *op = job->op;
    const struct gdn_shape *s = &op->shape;
    const int seq = task / s->value_heads, head = task % s->value_heads;
    const int key_head = head / (s->value_heads / s->key_heads);
    const int64_t channels = gdn_channels(s), stride = gdn_row(s);
    const int64_t values = (int64_t)s->value_heads * s->value_dim;
    const struct rows rows = rows_of(job, seq);
    float q[MAX_HEAD], k[MAX_HEAD];
    float *state =
        slot_state(job, seq) + HISTORY * channels + (int64_t)head * s->key_dim * s->value_dim;
    if (rows.fresh) memset(state, 0, (size_t)s->key_dim * (size_t)s->value_dim * sizeof *state);
    for (int r = rows.first; r < rows.end; r++) {
        float *in = op->in + r * stride, *z = in + channels + (int64_t)head * s->value_dim;
        const float *key = in + (int64_t)(s->key_heads + key_head) * s->key_dim;
        float *v = in + (int64_t)2 * s->key_heads * s->key_dim + (int64_t)head * s->value_dim;
        float b = in[channels + values + head], a = in[channels + values + s->value_heads + head];
        normalize(in + (int64_t)key_head * s->key_dim, s->key_dim, 1.0f / sqrtf((float)s->key_dim),
                  q);
        normalize(key, s->key_dim, 1.0f, k);
        struct delta d = {q,
                          k,
                          expf(-op->decay[head] * softplus(a + op->dt_bias[head])),
                          1.0f / (1.0f + expf(-b)),
                          s->key_dim,
                          s->value_dim};
        delta_rule(&d, state, v);
        gated_norm(op, v, z);
    }
}

void cpu_gdn(struct backend *be, const struct op_gdn *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    const struct gdn_shape *s = &op->shape;
    const int64_t channels = gdn_channels(s), values = (int64_t)s->value_heads * s->value_dim;
    struct gdn_job job = {cpu, op, (int)((channels + TILE - 1) / TILE)};
    check(s->key_dim <= MAX_HEAD && s->value_dim <= MAX_HEAD);
    pool_run(cpu->pool, convolve, &job, cpu->batch.seqs * job.tiles);
    pool_run(cpu->pool, run_head, &job, cpu->batch.seqs * s->value_heads);
    for (int64_t r = 0; r < cpu->batch.rows; r++)
        cpu->hooks->store_row(cpu, op->in + r * gdn_row(s) + channels - values, values, op->out, r);
}
