/* The router and the experts against definitions in double, and against themselves: a row's result
 * is the same whatever rows stand beside it. */
#include "op/harness.h"

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* ---- route ---- */

struct route_test {
    const struct route_case *c;
    struct stream stream;
    float *router, *bias, *norm, *scale;
};
static const float EPS = 1e-5f;

static void route_setup(struct route_test *t, const struct route_case *c) {
    *t = (struct route_test){.c = c};
    stream_setup(&t->stream, 40, c->cols, 1.0f);
    t->router = normals(c->experts * c->cols, 1, 3.0f / sqrtf((float)c->cols));
    t->bias = normals(c->experts, 2, 1.0f);
    t->norm = normals(c->cols, 3, 1.0f);
    t->scale = normals(c->experts, 4, 1.0f);
    /* Experts 1, 4 and 7 of every nine score the same, bit by bit. */
    for (int e = 3; e < c->experts; e++) {
        if (e % 9 != 4 && e % 9 != 7) continue;
        memcpy(t->router + e * c->cols, t->router + (e - 3) * c->cols,
               (size_t)c->cols * sizeof(float));
        t->bias[e] = t->bias[e - 3];
    }
    /* A row of zeros is a tie of all, but for the bias. */
    memset(t->stream.in[TESTED] + 5 * c->cols, 0, (size_t)c->cols * sizeof(float));
}

static void route_teardown(struct route_test *t) {
    stream_teardown(&t->stream);
    op_free(t->router);
    op_free(t->bias);
    op_free(t->norm);
    op_free(t->scale);
}

static double route_logit(const struct route_test *t, const float *h, int expert, double *size) {
    double squares = 0, sum = 0;
    for (int64_t k = 0; k < t->c->cols; k++) squares += (double)h[k] * h[k];
    double scale = 1 / sqrt(squares / (double)t->c->cols + (double)EPS);
    *size = 0;
    for (int64_t k = 0; k < t->c->cols; k++) {
        double x =
            h[k] * scale * (t->c->norm ? t->norm[k] : 1) * t->router[expert * t->c->cols + k];
        sum += x;
        *size += fabs(x);
    }
    return sum + (t->c->bias ? t->bias[expert] : 0);
}

/* out: top_k experts, then their weights. */
static void route_row_exact(const struct route_test *t, double bound, int row, const float *out) {
    const struct route_case *c = t->c;
    double *logit = mem_alloc((size_t)c->experts * sizeof *logit), slack = 0, size;
    bool *taken = mem_zero((size_t)c->experts, sizeof *taken);
    int chosen[MOE_MAX_TOP_K];
    for (int e = 0; e < c->experts; e++) {
        logit[e] = route_logit(t, t->stream.in[TESTED] + row * c->cols, e, &size);
        slack = fmax(slack, bound * size);
    }
    double total = 0, most = 0;
    for (int i = 0; i < c->top_k; i++) {
        int best = -1;
        for (int e = 0; e < c->experts; e++)
            if (!taken[e] && (best < 0 || logit[e] > logit[best])) best = e;
        taken[best] = true;
        chosen[i] = best;
        if (i == 0) most = logit[best];
        if (c->renormalize) total += exp(logit[best] - most);
        assert_int_equal((int)out[i], best);
    }
    for (int e = 0; e < c->experts && !c->renormalize; e++) total += exp(logit[e] - most);
    for (int i = 0; i < c->top_k; i++) {
        double w = exp(logit[chosen[i]] - most) / total * (c->scale ? t->scale[chosen[i]] : 1);
        check_near(out[c->top_k + i], w, (3 * slack + bound) * fabs(w), c->name, row, i);
    }
    free(logit);
    free(taken);
}

static void route_exact(const struct target *target, void *ctx, const float *out) {
    const struct route_test *t = ctx;
    for (int r = 0; r < t->stream.tokens[TESTED]; r++)
        route_row_exact(t, target->bounds->route, r, out + r * 2 * t->c->top_k);
}

static void route_step(struct backend *be, void *ctx, struct step *step, float *out) {
    const struct route_test *t = ctx;
    const struct route_case *c = t->c;
    const int n = step->batch.rows * c->top_k;
    int32_t *expert = op_alloc((size_t)n * sizeof *expert);
    float *weight = floats(n);
    be->ops->route(be, &(struct op_route){.h = step->in,
                                          .norm = c->norm ? t->norm : NULL,
                                          .eps = EPS,
                                          .cols = c->cols,
                                          .router = t->router,
                                          .bias = c->bias ? t->bias : NULL,
                                          .expert_scale = c->scale ? t->scale : NULL,
                                          .experts = c->experts,
                                          .top_k = c->top_k,
                                          .renormalize = c->renormalize,
                                          .expert = expert,
                                          .weight = weight});
    end_step(be);
    for (int i = 0; i < n; i++) {
        float *row = out + i / c->top_k * 2 * c->top_k + i % c->top_k;
        row[0] = (float)expert[i];
        row[c->top_k] = weight[i];
    }
    op_free(expert);
    op_free(weight);
}

static void test_route(void **state) {
    struct route_test t;
    route_setup(&t, *state);
    stream_test_all(&(struct stream_test){.what = t.c->name,
                                          .stream = &t.stream,
                                          .out_width = 2 * t.c->top_k,
                                          .plain = true,
                                          .ctx = &t,
                                          .step = route_step,
                                          .exact = route_exact},
                    1e-6);
    route_teardown(&t);
}

/* ---- moe ---- */

enum { MAX_EXPERTS = 12, MAX_WIDTH = 2880 };

struct moe_test {
    const struct moe_case *c;
    struct stream stream; /* x, the row's experts, their weights, y before */
    struct weight gate_up[MAX_EXPERTS][2], down[MAX_EXPERTS];
    float *gate_up_bias[MAX_EXPERTS][2], *down_bias[MAX_EXPERTS];
    struct experts *experts;
};

/* Every third row has the same first experts; the last expert is chosen by nobody. */
static void moe_choose(const struct moe_case *c, int row, float *expert) {
    for (int i = 0; i < c->top_k; i++) {
        uint32_t start = case_bits(77, (uint64_t)row) % (uint32_t)(c->experts - 1);
        if (row % 3 == 0 || c->alike) start = 2 % (uint32_t)(c->experts - 1);
        expert[i] = (float)((start + (uint32_t)i) % (uint32_t)(c->experts - 1));
    }
}

/* The weights of one matrix's part, tamed so that a gate is neither open nor shut always. */
static struct weight moe_weight(const struct moe_case *c, int64_t rows, int64_t cols,
                                uint64_t stream) {
    struct weight w = case_weight(&(struct case_part){c->format, rows, 0, 0}, cols, stream);
    if (c->format == WEIGHT_MXFP4) w.multiplier = 0.002f;
    case_scales_positive(&w);
    return w;
}

static void moe_setup(struct moe_test *t, const struct moe_case *c) {
    *t = (struct moe_test){.c = c};
    stream_setup(&t->stream, 40, 2 * c->hidden + 2 * c->top_k, 1.0f);
    for (int s = 0; s < SEQS; s++)
        for (int r = 0; r < t->stream.tokens[s]; r++)
            moe_choose(c, 100 * s + r, t->stream.in[s] + r * t->stream.width + c->hidden);
    const int parts = c->interleaved ? 1 : 2;
    for (int e = 0; e < c->experts; e++) {
        for (int i = 0; i < parts; i++) {
            uint64_t stream = 300 + 20 * (uint64_t)e + 5 * (uint64_t)i;
            t->gate_up[e][i] = moe_weight(c, 2 * c->width / parts, c->hidden, stream);
            if (c->bias) t->gate_up_bias[e][i] = normals(2 * c->width / parts, stream + 4, 1.0f);
        }
        t->down[e] = moe_weight(c, c->hidden, c->width, 310 + 20 * (uint64_t)e);
        if (c->bias) t->down_bias[e] = normals(c->hidden, 314 + 20 * (uint64_t)e, 1.0f);
    }
}

static void moe_teardown(struct moe_test *t) {
    stream_teardown(&t->stream);
    for (int e = 0; e < t->c->experts; e++) {
        for (int i = 0; i < 2; i++) {
            case_weight_free(&t->gate_up[e][i]);
            op_free(t->gate_up_bias[e][i]);
        }
        case_weight_free(&t->down[e]);
        op_free(t->down_bias[e]);
    }
}

/* A value and how far a path that rounds as it should may be from it. */
struct about {
    double value, slack;
};

/* Row n of gate_up or down times x, x given with its slack. */
static struct about product(const struct target *target, const struct weight *w, const float *bias,
                            int64_t n, const struct about *x) {
    double sum = bias ? bias[n] : 0, size = fabs(sum), slack = 0;
    for (int64_t k = 0; k < w->cols; k++) {
        double weight = case_element(w, n, k);
        sum += weight * x[k].value;
        size += fabs(weight * x[k].value);
        slack += fabs(weight) * x[k].slack;
    }
    return (struct about){sum, slack + linear_bound(target->bounds, w->cols) * size + 1e-30};
}

static double exact_glu(const struct moe_case *c, double g, double u) {
    switch (c->kind) {
    case GLU_SILU:
        return g * sigmoid(g) * u;
    case GLU_GELU_TANH:
        return g * sigmoid(2 * sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)) * u;
    case GLU_CLAMPED:
        break;
    }
    g = fmin(g, (double)c->limit);
    u = fmax(-(double)c->limit, fmin(u, (double)c->limit));
    return g * sigmoid(1.702 * g) * (u + 1);
}

/* An act between the two linears: rounded as the target does it; where that may go either way, both
 * neighbours are allowed for. */
static struct about activation(const struct target *target, const struct moe_case *c,
                               struct about g, struct about u) {
    double a = exact_glu(c, g.value, u.value);
    double slope = fabs(u.value) + (c->kind == GLU_CLAMPED ? 1 : 0);
    double slack = 1.3 * g.slack * slope + 1.1 * fabs(g.value) * u.slack +
                   0x1p-20 * (1 + g.value * g.value) * fabs(a) + 1e-30;
    if (!target->rounds) return (struct about){a, slack};
    double low = bf16_round((float)(a - slack)), high = bf16_round((float)(a + slack));
    return (struct about){(low + high) / 2, (high - low) / 2};
}

/* weight * expert(x), element by element added to sum. */
static void expert_exact(const struct target *target, const struct moe_test *t, int e,
                         const struct about *x, double weight, struct about *sum) {
    const struct moe_case *c = t->c;
    struct about a[MAX_WIDTH];
    for (int64_t k = 0; k < c->width; k++) {
        struct about g, u;
        if (c->interleaved) {
            g = product(target, &t->gate_up[e][0], t->gate_up_bias[e][0], 2 * k, x);
            u = product(target, &t->gate_up[e][0], t->gate_up_bias[e][0], 2 * k + 1, x);
        } else {
            g = product(target, &t->gate_up[e][0], t->gate_up_bias[e][0], k, x);
            u = product(target, &t->gate_up[e][1], t->gate_up_bias[e][1], k, x);
        }
        a[k] = activation(target, c, g, u);
    }
    for (int64_t k = 0; k < c->hidden; k++) {
        struct about y = product(target, &t->down[e], t->down_bias[e], k, a);
        sum[k].value += weight * y.value;
        sum[k].slack += fabs(weight) * (y.slack + 0x1p-22 * fabs(y.value));
    }
}

static void moe_exact(const struct target *target, void *ctx, const float *out) {
    const struct moe_test *t = ctx;
    const struct moe_case *c = t->c;
    struct about x[MAX_WIDTH], sum[MAX_WIDTH];
    const int apart = c->hidden > 1000 ? 18 : 3; /* the exact sums take long */
    for (int r = 0; r < t->stream.tokens[TESTED]; r += apart + r % 2) {
        const float *row = t->stream.in[TESTED] + r * t->stream.width;
        const float *expert = row + c->hidden, *y = expert + 2 * c->top_k;
        for (int64_t k = 0; k < c->hidden; k++) {
            x[k] = (struct about){target->rounds ? bf16_round(row[k]) : row[k], 0};
            sum[k] = (struct about){c->mode == LINEAR_ADD ? y[k] : 0, 1e-30};
        }
        for (int i = 0; i < c->top_k; i++)
            expert_exact(target, t, (int)expert[i], x, expert[c->top_k + i], sum);
        for (int64_t k = 0; k < c->hidden; k++) {
            double slack = sum[k].slack + 0x1p-22 * fabs(sum[k].value);
            check_near(out[r * c->hidden + k], sum[k].value, slack, c->name, r, k);
        }
    }
}

static void moe_make(struct backend *be, void *ctx) {
    struct moe_test *t = ctx;
    struct matrix *gate_up[MAX_EXPERTS], *down[MAX_EXPERTS];
    size_t bytes = 0;
    for (int e = 0; e < t->c->experts; e++) {
        const float *const bias[] = {t->gate_up_bias[e][0], t->gate_up_bias[e][1]};
        const float *const down_bias[] = {t->down_bias[e]};
        assert_int_equal(be->ops->matrix_create(be, t->gate_up[e], t->c->interleaved ? 1 : 2, bias,
                                                &gate_up[e], NULL),
                         0);
        assert_int_equal(be->ops->matrix_create(be, &t->down[e], 1, down_bias, &down[e], NULL), 0);
        bytes += gate_up[e]->bytes + down[e]->bytes;
    }
    assert_int_equal(be->ops->experts_create(be, gate_up, down, t->c->experts, &t->experts, NULL),
                     0);
    assert_int_equal(t->experts->count, t->c->experts);
    assert_int_equal(t->experts->width, t->c->width);
    assert_int_equal(t->experts->hidden, t->c->hidden);
    assert_true(t->experts->bytes == bytes);
}

static void moe_end(struct backend *be, void *ctx, const struct cut *cut) {
    (void)cut;
    be->ops->experts_free(be, ((struct moe_test *)ctx)->experts);
}

static void moe_step(struct backend *be, void *ctx, struct step *step, float *out) {
    const struct moe_test *t = ctx;
    const struct moe_case *c = t->c;
    const int rows = step->batch.rows;
    int32_t *expert = op_alloc((size_t)(rows * c->top_k) * sizeof *expert);
    float *x = floats(rows * c->hidden), *weight = floats(rows * c->top_k);
    void *act = act_alloc(be, rows, c->hidden);
    for (int64_t r = 0; r < rows; r++) {
        const float *from = step->in + r * t->stream.width;
        memcpy(x + r * c->hidden, from, (size_t)c->hidden * sizeof *x);
        from += c->hidden;
        for (int i = 0; i < c->top_k; i++) {
            expert[r * c->top_k + i] = (int32_t)from[i];
            weight[r * c->top_k + i] = from[c->top_k + i];
        }
        if (c->mode == LINEAR_ADD)
            memcpy(out + r * c->hidden, from + 2 * c->top_k, (size_t)c->hidden * sizeof *out);
    }
    be->ops->convert(be, &(struct op_convert){x, c->hidden, act});
    be->ops->moe(be, &(struct op_moe){.mode = c->mode,
                                      .experts = t->experts,
                                      .x = act,
                                      .expert = expert,
                                      .weight = weight,
                                      .top_k = c->top_k,
                                      .kind = c->kind,
                                      .limit = c->limit,
                                      .interleaved = c->interleaved,
                                      .y = out});
    end_step(be);
    op_free(expert);
    op_free(x);
    op_free(weight);
    op_free(act);
}

static void moe_case(const struct moe_case *c, bool large) {
    struct moe_test t;
    moe_setup(&t, c);
    const struct stream_test test = {.what = t.c->name,
                                     .stream = &t.stream,
                                     .out_width = t.c->hidden,
                                     .ctx = &t,
                                     .make = moe_make,
                                     .step = moe_step,
                                     .end = moe_end,
                                     .exact = moe_exact};
    for (size_t k = 0; k < COUNT(TARGETS); k++)
        if (!large || TARGETS[k].asked) free(stream_test_on(&test, &TARGETS[k]));
    moe_teardown(&t);
}

static void test_moe(void **state) {
    moe_case(*state, false);
}
static void test_large_moe(void **state) {
    moe_case(*state, true);
}

int main(void) {
    struct CMUnitTest tests[COUNT(ROUTE_CASES) + COUNT(MOE_CASES) + COUNT(LARGE_MOE_CASES)] = {{0}};
    ADD_TESTS(tests, test_route, ROUTE_CASES);
    ADD_TESTS(tests, test_moe, MOE_CASES);
    if (test_gpu()) ADD_TESTS(tests, test_large_moe, LARGE_MOE_CASES);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
