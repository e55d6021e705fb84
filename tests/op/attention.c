/* What lies between the qkv product and attention, and attention: against loops in double, and
 * against themselves in every cut. The test of qkv knows where each backend keeps K and V. */
#include "backend/cpu/fast/fast.h"
#include "op/harness.h"

static float stored(const struct target *target, float x) {
    return target->rounds ? bf16_round(x) : x;
}

/* ---- qkv ---- */

enum { QKV_ROWS = 12, QKV_BLOCKS = 6, QKV_TAIL = 3 };
static const float QKV_EPS = 1e-6f;

struct qkv_test {
    const struct qkv_case *c;
    const struct target *target;
    int q_step, k_at, v_at; /* from one q head to the next; first element of k and v in a row */
    int64_t row_cols;
    float *in, *angles, *q_norm, *k_norm;
    struct batch batch;
};

/* What a head holds after norm and rotation; *slack for the fp32 work on element i. */
static double exact_head(const struct qkv_test *t, const float *x, const float *norm,
                         const float *angles, int i, double *slack) {
    const struct qkv_case *c = t->c;
    double scale = 1, sum = 0;
    for (int k = 0; k < c->head_dim; k++) sum += (double)x[k] * x[k];
    if (c->norm) scale = 1 / sqrt(sum / c->head_dim + (double)QKV_EPS);
    int base = i < c->pairs ? i : i - c->pair_offset;
    bool rotated = base >= 0 && base < c->pairs;
    double self = x[i] * scale * (c->norm ? norm[i] : 1);
    *slack = t->target->bounds->head * fabs(self);
    if (!rotated) return self;
    int other = i < c->pairs ? i + c->pair_offset : base;
    double b = x[other] * scale * (c->norm ? norm[other] : 1);
    *slack += t->target->bounds->head * fabs(b);
    double s = angles[2 * base + 1];
    return self * angles[2 * base] + (i < c->pairs ? -b * s : b * s);
}

static double exact_value(const struct qkv_test *t, const float *x, int i) {
    double sum = 0;
    if (!t->c->v_norm) return x[i];
    for (int k = 0; k < t->c->head_dim; k++) sum += (double)x[k] * x[k];
    return x[i] / sqrt(sum / t->c->head_dim + (double)QKV_EPS);
}

/* One element of K or V, where the backend keeps it. */
static float kv_element(const struct qkv_test *t, const void *kv, int block, int position, int head,
                        int dim, bool is_v) {
    const int d = t->c->head_dim;
    if (t->target->kind == BACKEND_CPU_REFERENCE) {
        int64_t plane = (int64_t)t->c->kv_heads * KV_BLOCK_TOKENS * d;
        return ((const float *)kv)[(2 * block + is_v) * plane +
                                   ((int64_t)head * KV_BLOCK_TOKENS + position) * d + dim];
    }
    if (t->target->kind == BACKEND_GPU) {
        int64_t plane = (int64_t)t->c->kv_heads * KV_BLOCK_TOKENS * d;
        return bf16_decode(
            ((const uint16_t *)kv)[(2 * block + is_v) * plane +
                                   ((int64_t)head * KV_BLOCK_TOKENS + position) * d + dim]);
    }
    const uint16_t *at = kv_head_at(kv, block, t->c->kv_heads, head, d);
    if (is_v) return bf16_decode(at[d * KV_BLOCK_TOKENS + position * value_stride(d) + dim]);
    return bf16_decode(at[(dim / 2 * KV_BLOCK_TOKENS + position) * 2 + dim % 2]);
}

static void check_queries(const struct qkv_test *t, const float *q) {
    const struct qkv_case *c = t->c;
    for (int r = 0; r < QKV_ROWS; r++) {
        double growth = 1;
        if (c->growth != 0)
            growth += c->growth * log(1 + floor(t->batch.position[r] / (double)c->growth_tokens));
        for (int i = 0; i < c->heads * c->head_dim; i++) {
            const float *x = t->in + r * t->row_cols + i / c->head_dim * t->q_step;
            double slack, exact = exact_head(t, x, t->q_norm, t->angles + r * c->pairs * 2,
                                             i % c->head_dim, &slack);
            double scale = c->q_scale * growth;
            slack = slack * scale + t->target->bounds->head * fabs(exact * scale);
            check_act(t->target, q[r * c->heads * c->head_dim + i], exact * scale, slack, "q", r,
                      i);
        }
    }
}

static void check_keys_values(const struct qkv_test *t, const void *kv) {
    const struct qkv_case *c = t->c;
    for (int r = 0; r < QKV_ROWS; r++) {
        int position = t->batch.position[r] % KV_BLOCK_TOKENS;
        int block = t->batch.blocks[c->group][t->batch.seq[r] * t->batch.max_blocks +
                                              t->batch.position[r] / KV_BLOCK_TOKENS];
        for (int i = 0; i < c->kv_heads * c->head_dim; i++) {
            int head = i / c->head_dim, dim = i % c->head_dim;
            const float *row = t->in + r * t->row_cols;
            double slack, exact = exact_head(t, row + t->k_at + head * c->head_dim, t->k_norm,
                                             t->angles + r * c->pairs * 2, dim, &slack);
            check_act(t->target, kv_element(t, kv, block, position, head, dim, false), exact, slack,
                      "k", r, i);
            exact = exact_value(t, row + t->v_at + head * c->head_dim, dim);
            check_act(t->target, kv_element(t, kv, block, position, head, dim, true), exact,
                      c->v_norm ? t->target->bounds->head * fabs(exact) : 0, "v", r, i);
        }
    }
}

/* No more was written than K and V of the rows. */
static void check_untouched(const struct qkv_test *t, const void *kv, size_t bytes) {
    const size_t size = t->target->kind == BACKEND_CPU_REFERENCE ? 4 : 2;
    int written = 0;
    for (size_t i = 0; i < bytes; i += size)
        written += memcmp((const uint8_t *)kv + i, "\xFF\xFF\xFF\xFF", size) != 0;
    assert_int_equal(written, 2 * QKV_ROWS * t->c->kv_heads * t->c->head_dim);
}

static void qkv_setup(struct qkv_test *t, const struct qkv_case *c) {
    const int d = c->head_dim;
    *t = (struct qkv_test){.c = c, .q_step = c->gate ? 2 * d : d};
    t->k_at = t->v_at = c->heads * t->q_step;
    if (!c->v_from_k) t->v_at += c->kv_heads * d;
    t->row_cols = c->only_q ? t->k_at : t->v_at + c->kv_heads * d + QKV_TAIL;
    t->in = normals(QKV_ROWS * t->row_cols, 21, 1.5f);
    t->q_norm = normals(d, 22, 1.0f);
    t->k_norm = normals(d, 23, 1.0f);
    t->angles = floats(QKV_ROWS * c->pairs * 2);
    for (int i = 0; i < QKV_ROWS * c->pairs; i++) {
        t->angles[2 * i] = (float)cos(i);
        t->angles[2 * i + 1] = (float)sin(i);
    }
}

static void qkv_teardown(struct qkv_test *t) {
    op_free(t->in);
    op_free(t->q_norm);
    op_free(t->k_norm);
    op_free(t->angles);
}

static void qkv_on(struct qkv_test *t, struct backend *be) {
    static const int32_t position[QKV_ROWS] = {60, 61, 62, 63, 64, 65, 66, 0, 1, 2, 3, 4};
    static const int32_t seq[QKV_ROWS] = {0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1};
    static const int32_t right[] = {4, 1, 3, -1000000}, wrong[4] = {-1, -1, -1, -1};
    const struct qkv_case *c = t->c;
    t->batch = (struct batch){
        .rows = QKV_ROWS, .seqs = 2, .position = position, .seq = seq, .max_blocks = 2};
    for (int g = 0; g < KV_GROUPS; g++) t->batch.blocks[g] = g == (int)c->group ? right : wrong;
    const size_t kv_bytes = QKV_BLOCKS * be->ops->kv_block_bytes(be, c->kv_heads, c->head_dim);
    float *q = floats(QKV_ROWS * c->heads * c->head_dim);
    void *act = act_alloc(be, QKV_ROWS, (int64_t)c->heads * c->head_dim);
    void *kv = op_alloc(kv_bytes);
    be->ops->step_begin(be, &t->batch);
    be->ops->qkv(be, &(struct op_qkv){.qkv = t->in,
                                      .row_cols = t->row_cols,
                                      .heads = c->heads,
                                      .kv_heads = c->kv_heads,
                                      .head_dim = c->head_dim,
                                      .q_step = t->q_step,
                                      .v_from_k = c->v_from_k,
                                      .v_norm = c->v_norm,
                                      .q_norm = c->norm ? t->q_norm : NULL,
                                      .k_norm = c->norm ? t->k_norm : NULL,
                                      .eps = QKV_EPS,
                                      .angles = t->angles,
                                      .pairs = c->pairs,
                                      .pair_offset = c->pair_offset,
                                      .q_scale = c->q_scale,
                                      .q_growth = c->growth,
                                      .q_growth_tokens = c->growth_tokens,
                                      .group = c->group,
                                      .q = act,
                                      .kv = c->only_q ? NULL : kv});
    take_act(be, act, QKV_ROWS, (int64_t)c->heads * c->head_dim, q);
    check_queries(t, q);
    if (!c->only_q) {
        check_keys_values(t, kv);
        check_untouched(t, kv, kv_bytes);
    }
    op_free(q);
    op_free(kv);
}

static void test_qkv(void **state) {
    struct qkv_test t;
    qkv_setup(&t, *state);
    for (size_t i = 0; i < COUNT(TARGETS); i++) {
        struct backend *be = target_open(&TARGETS[i], 1 + (int)i % target_threads(&TARGETS[i]));
        if (be == NULL) continue;
        t.target = &TARGETS[i];
        qkv_on(&t, be);
        backend_close(be);
    }
    qkv_teardown(&t);
}

/* ---- attention ---- */

struct attention_test {
    const struct attention_case *c;
    struct stream stream; /* [q heads, a gate behind each | k heads | v heads] */
    int q_step;
    float *sinks; /* [heads] */
    void *kv;
};

static void attention_setup(struct attention_test *t, const struct attention_case *c) {
    *t = (struct attention_test){.c = c, .q_step = c->gate ? 2 * c->head_dim : c->head_dim};
    stream_setup(&t->stream, c->tokens,
                 (int64_t)c->heads * t->q_step + 2 * c->kv_heads * c->head_dim, 1.0f);
    t->sinks = normals(c->heads, 31, 1.0f);
}

/* With pairs = 0 and a power of two as q_scale, q, k and v are the inputs rounded once. */
static void attention_row(const struct target *target, const struct attention_test *t, int r,
                          int head, double *p, const float *out) {
    const struct attention_case *c = t->c;
    const int d = c->head_dim, first = c->window && r >= c->window ? r - c->window + 1 : 0;
    const int64_t width = t->stream.width, q_at = (int64_t)head * t->q_step;
    const int64_t k_at = (int64_t)c->heads * t->q_step + head / (c->heads / c->kv_heads) * d;
    const int64_t v_at = k_at + (int64_t)c->kv_heads * d;
    const float *x = t->stream.in[TESTED];
    double most = c->sinks ? t->sinks[head] : -INFINITY, total, error = 0;
    for (int i = first; i <= r; i++) {
        double s = 0, size = 0;
        for (int k = 0; k < d; k++) {
            double product = (double)stored(target, x[r * width + q_at + k] * 0.125f) *
                             stored(target, x[i * width + k_at + k]);
            s += product;
            size += fabs(product);
        }
        error = fmax(error, size * target->bounds->score);
        p[i] = c->softcap > 0 ? c->softcap * tanh(s / c->softcap) : s;
        most = fmax(most, p[i]);
    }
    total = c->sinks ? exp(t->sinks[head] - most) : 0;
    for (int i = first; i <= r; i++) total += p[i] = exp(p[i] - most);
    for (int k = 0; k < d; k++) {
        double sum = 0, size = 0, gate = 1;
        for (int i = first; i <= r; i++) {
            double v = stored(target, x[i * width + v_at + k]);
            sum += p[i] * v;
            size += p[i] * fabs(v);
        }
        if (c->gate) gate = 1 / (1 + exp(-(double)x[r * width + q_at + d + k]));
        check_act(target, out[k], gate * sum / total,
                  (2 * error + target->bounds->value) * size / total, "attention", r, head * d + k);
    }
}

static void attention_exact(const struct target *target, void *ctx, const float *out) {
    const struct attention_test *t = ctx;
    double p[MAX_TOKENS];
    for (int r = 0; r < t->c->tokens; r += 1 + r / 16) {
        for (int head = 0; head < t->c->heads; head++)
            attention_row(target, t, r, head, p,
                          out + ((int64_t)r * t->c->heads + head) * t->c->head_dim);
    }
}

static void attention_make(struct backend *be, void *ctx) {
    struct attention_test *t = ctx;
    t->kv = op_alloc((size_t)t->stream.pool_blocks *
                     be->ops->kv_block_bytes(be, t->c->kv_heads, t->c->head_dim));
}

static void attention_end(struct backend *be, void *ctx, const struct cut *cut) {
    (void)be;
    (void)cut;
    op_free(((struct attention_test *)ctx)->kv);
}

/* The table of the other group has nothing valid in it. */
static void attention_step(struct backend *be, void *ctx, struct step *step, float *out) {
    struct attention_test *t = ctx;
    const struct attention_case *c = t->c;
    const int64_t cols = (int64_t)c->heads * c->head_dim;
    void *q = act_alloc(be, step->batch.rows, cols), *y = act_alloc(be, step->batch.rows, cols);
    for (int i = 0; i < SEQS * MAX_BLOCKS; i++)
        step->blocks[KV_GROUPS - 1 - c->group][i] = -1000000;
    be->ops->qkv(be, &(struct op_qkv){.qkv = step->in,
                                      .row_cols = t->stream.width,
                                      .heads = c->heads,
                                      .kv_heads = c->kv_heads,
                                      .head_dim = c->head_dim,
                                      .q_step = t->q_step,
                                      .q_scale = 0.125f,
                                      .group = c->group,
                                      .q = q,
                                      .kv = t->kv});
    be->ops->attention(be, &(struct op_attention){.q = q,
                                                  .kv = t->kv,
                                                  .heads = c->heads,
                                                  .kv_heads = c->kv_heads,
                                                  .head_dim = c->head_dim,
                                                  .group = c->group,
                                                  .window = c->window,
                                                  .softcap = c->softcap,
                                                  .sinks = c->sinks ? t->sinks : NULL,
                                                  .gate = c->gate ? step->in + c->head_dim : NULL,
                                                  .gate_row = t->stream.width,
                                                  .gate_step = t->q_step,
                                                  .out = y});
    take_act(be, y, step->batch.rows, cols, out);
    op_free(q);
}

static void attention_case(const struct attention_case *c, bool large) {
    struct attention_test t;
    char what[80];
    attention_setup(&t, c);
    snprintf(what, sizeof what, "attention, %d heads of %d", t.c->heads, t.c->head_dim);
    stream_test_all(&(struct stream_test){.what = what,
                                          .weighted = true,
                                          .stream = &t.stream,
                                          .window = t.c->group == KV_WINDOW ? t.c->window : 0,
                                          .out_width = (int64_t)t.c->heads * t.c->head_dim,
                                          .large = large,
                                          .ctx = &t,
                                          .make = attention_make,
                                          .step = attention_step,
                                          .end = attention_end,
                                          .exact = attention_exact},
                    1e-5);
    op_free(t.sinks);
    stream_teardown(&t.stream);
}

static void test_attention(void **state) {
    attention_case(*state, false);
}
static void test_large_attention(void **state) {
    attention_case(*state, true);
}

int main(void) {
    struct CMUnitTest
        tests[COUNT(QKV_CASES) + COUNT(ATTENTION_CASES) + COUNT(LARGE_ATTENTION_CASES)] = {{0}};
    ADD_TESTS(tests, test_qkv, QKV_CASES);
    ADD_TESTS(tests, test_attention, ATTENTION_CASES);
    if (test_gpu()) ADD_TESTS(tests, test_large_attention, LARGE_ATTENTION_CASES);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
