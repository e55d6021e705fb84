/* The ops on single rows, each against its definition in double: embed, norm, convert, post_norm,
 * rope_angles, GLU and softcap. Rows 0 .. ROWS - 1 together, then one row alone, which must give
 * the same bits. */
#include "op/harness.h"

enum { ROWS = 19, LAST = ROWS - 1 };

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double norm_scale(const float *x, int64_t n, double eps) {
    double sum = 0;
    for (int64_t k = 0; k < n; k++) sum += (double)x[k] * x[k];
    return 1 / sqrt(sum / (double)n + eps);
}

/* ---- embed, rope_angles: fp32 of what a row's token and position say ---- */

static void embed_on(const struct target *target, struct backend *be, const void *data) {
    const struct embed_case *c = data;
    struct weight w = case_weight(&c->part, c->cols, 12);
    struct table *table;
    case_scales_positive(&w);
    float *all = floats(ROWS * c->cols), *alone = floats(c->cols);
    int32_t token[ROWS];
    for (int r = 0; r < ROWS; r++)
        token[r] = (int32_t)(case_bits(13, (uint64_t)r / 2) % (uint32_t)w.rows);
    assert_int_equal(be->ops->table_create(be, &w, &table, NULL), 0);
    be->ops->step_begin(be, &(struct batch){.rows = ROWS, .seqs = 1, .token = token});
    be->ops->embed(be, &(struct op_embed){table, c->scale, all});
    end_step(be);
    for (int64_t i = 0; i < ROWS * c->cols; i++) {
        double exact = c->scale * case_element(&w, token[i / c->cols], i % c->cols);
        check_near(all[i], exact, target->bounds->row * fabs(exact), "embed", i / c->cols,
                   i % c->cols);
    }
    be->ops->step_begin(be, &(struct batch){.rows = 1, .seqs = 1, .token = token + LAST});
    be->ops->embed(be, &(struct op_embed){table, c->scale, alone});
    end_step(be);
    assert_memory_equal(alone, all + LAST * c->cols, (size_t)c->cols * sizeof *all);
    be->ops->table_free(be, table);
    case_weight_free(&w);
    op_free(all);
    op_free(alone);
}

/* The product of position and frequency is rounded, the cosine is of that. */
static void rope_on(const struct target *target, struct backend *be, const void *data) {
    const int pairs = *(const int *)data, n = ROWS * pairs;
    const float amplitude = 1.2f;
    float *frequency = floats(pairs), *all = floats(2 * n), *alone = floats(2 * pairs);
    int32_t position[ROWS];
    for (int i = 0; i < pairs; i++) frequency[i] = powf(10000, -(float)i / (float)pairs);
    for (int r = 0; r < ROWS; r++) position[r] = r < 3 ? r : r * r * 400;
    be->ops->step_begin(be, &(struct batch){.rows = ROWS, .seqs = 1, .position = position});
    be->ops->rope_angles(be, &(struct op_rope_angles){frequency, pairs, amplitude, all});
    end_step(be);
    for (int i = 0; i < n; i++) {
        const float angle = (float)position[i / pairs] * frequency[i % pairs];
        const double slack = target->bounds->row * amplitude;
        check_near(all[2 * i], amplitude * cos(angle), slack, "cos", i / pairs, i % pairs);
        check_near(all[2 * i + 1], amplitude * sin(angle), slack, "sin", i / pairs, i % pairs);
    }
    be->ops->step_begin(be, &(struct batch){.rows = 1, .seqs = 1, .position = position + LAST});
    be->ops->rope_angles(be, &(struct op_rope_angles){frequency, pairs, amplitude, alone});
    end_step(be);
    assert_memory_equal(alone, all + 2 * LAST * pairs, (size_t)(2 * pairs) * sizeof *all);
    op_free(frequency);
    op_free(all);
    op_free(alone);
}

/* ---- norm, convert ---- */

static void norm_on(const struct target *target, struct backend *be, const void *data) {
    const struct norm_case *c = data;
    const int32_t out_row[] = {3, 0, LAST};
    float *h = normals(ROWS * c->cols, 1, 2.0f), *w = normals(c->cols, 2, 1.0f);
    float *all = floats(ROWS * c->cols), *some = floats(3 * c->cols);
    void *act = act_alloc(be, ROWS, c->cols), *some_act = act_alloc(be, 3, c->cols);
    struct op_norm op = {ROWS_ALL, h, c->weight ? w : NULL, 1e-5f, c->cols, act};
    begin_rows(be, ROWS);
    be->ops->norm(be, &op);
    take_act(be, act, ROWS, c->cols, all);
    for (int64_t r = 0; r < ROWS; r++) {
        double scale = norm_scale(h + r * c->cols, c->cols, (double)1e-5f);
        for (int64_t k = 0; k < c->cols; k++) {
            double exact = h[r * c->cols + k] * scale * (c->weight ? w[k] : 1);
            check_act(target, all[r * c->cols + k], exact, target->bounds->row * fabs(exact),
                      "norm", r, k);
        }
    }
    be->ops->step_begin(be, &(struct batch){.rows = ROWS, .out_rows = 3, .out_row = out_row});
    op.rows = ROWS_OUT;
    op.out = some_act;
    be->ops->norm(be, &op);
    take_act(be, some_act, 3, c->cols, some);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(some + i * c->cols, all + out_row[i] * c->cols,
                            (size_t)c->cols * sizeof *all);
    op_free(h);
    op_free(w);
    op_free(all);
    op_free(some);
}

static void convert_on(const struct target *target, struct backend *be, const void *data) {
    const int64_t cols = ((const struct norm_case *)data)->cols;
    float *x = normals(ROWS * cols, 4, 2.0f), *out = floats(ROWS * cols);
    void *act = act_alloc(be, ROWS, cols);
    begin_rows(be, ROWS);
    be->ops->convert(be, &(struct op_convert){x, cols, act});
    take_act(be, act, ROWS, cols, out);
    for (int64_t i = 0; i < ROWS * cols; i++) {
        float exact = target->rounds ? bf16_round(x[i]) : x[i];
        assert_memory_equal(&out[i], &exact, sizeof exact);
    }
    op_free(x);
    op_free(out);
}

/* ---- post_norm, softcap: fp32 in and out ---- */

static void post_norm_on(const struct target *target, struct backend *be, const void *data) {
    const struct post_norm_case *c = data;
    const int64_t row = c->groups * c->cols, n = ROWS * row;
    float *x = normals(n, 5, 2.0f), *before = normals(n, 6, 1.0f), *w = normals(c->cols, 7, 1.0f);
    float *y = floats(n), *alone = floats(row);
    if (c->mode == LINEAR_ADD) {
        memcpy(y, before, (size_t)n * sizeof *y);
        memcpy(alone, before + LAST * row, (size_t)row * sizeof *y);
    }
    struct op_post_norm op = {c->mode, x, c->weight ? w : NULL, 1e-5f, c->scale, c->groups,
                              c->cols, y};
    begin_rows(be, ROWS);
    be->ops->post_norm(be, &op);
    end_step(be);
    for (int64_t i = 0; i < n; i++) {
        double scale = norm_scale(x + i / c->cols * c->cols, c->cols, (double)1e-5f);
        double norm = x[i] * scale * (c->weight ? w[i % c->cols] : 1);
        double exact = c->scale * (norm + (c->mode == LINEAR_ADD ? before[i] : 0));
        double slack = fabs((double)c->scale) * (fabs(norm) + fabs((double)before[i]));
        slack *= target->bounds->row;
        check_near(y[i], exact, slack, "post_norm", i / row, i % row);
    }
    op.x = x + LAST * row;
    op.y = alone;
    begin_rows(be, 1);
    be->ops->post_norm(be, &op);
    end_step(be);
    assert_memory_equal(alone, y + LAST * row, (size_t)row * sizeof *y);
    op_free(x);
    op_free(before);
    op_free(w);
    op_free(y);
    op_free(alone);
}

/* Of out_rows, not of rows; far outside the cap, and 0, too. */
static void softcap_on(const struct target *target, struct backend *be, const void *data) {
    const int64_t cols = *(const int64_t *)data;
    const float cap = 30;
    const int64_t n = ROWS * cols;
    float *x = normals(n, 8, 2 * cap), *y = floats(n + 1);
    x[0] = 100 * cap;
    x[n - 1] = -100 * cap;
    if (n > 2) x[1] = 0;
    memcpy(y, x, (size_t)n * sizeof *y);
    y[n] = 12345;
    be->ops->step_begin(be, &(struct batch){.rows = ROWS + 5, .seqs = 1, .out_rows = ROWS});
    be->ops->softcap(be, &(struct op_softcap){y, cols, cap});
    end_step(be);
    for (int64_t i = 0; i < n; i++) {
        double exact = cap * tanh((double)x[i] / (double)cap);
        check_near(y[i], exact, target->bounds->softcap * fabs(exact), "softcap", i / cols,
                   i % cols);
    }
    assert_true(y[n] == 12345);
    be->ops->step_begin(be, &(struct batch){.rows = 1, .seqs = 1, .out_rows = 1});
    be->ops->softcap(be, &(struct op_softcap){x + LAST * cols, cols, cap});
    end_step(be);
    assert_memory_equal(x + LAST * cols, y + LAST * cols, (size_t)cols * sizeof *y);
    op_free(x);
    op_free(y);
}

/* ---- GLU ---- */

struct glu_test {
    const struct glu_case *c;
    int64_t row; /* floats of one row: gate, up, what else the case asks for */
    float *in;
    struct op_glu op; /* of all rows, but for out */
};

static void glu_setup(struct glu_test *t, const struct glu_case *c) {
    *t = (struct glu_test){.c = c, .row = 2 * c->cols + c->tail + c->row_gate};
    t->in = normals(ROWS * t->row, 3, 3.0f);
    t->in[0] = -100; /* the gate must give 0, not NaN */
    if (t->row > 2) t->in[2] = 100;
    if (t->row > 4) t->in[4] = 0;
    t->op = (struct op_glu){.kind = c->kind,
                            .limit = c->limit,
                            .gate = t->in,
                            .up = t->in + (c->step == 2 ? 1 : c->cols),
                            .gate_row = t->row,
                            .up_row = t->row,
                            .step = c->step,
                            .row_gate = c->row_gate ? t->in + 2 * c->cols : NULL,
                            .cols = c->cols};
}

static void glu_element(const struct target *target, const struct glu_test *t, int64_t r, int64_t k,
                        float got) {
    const struct glu_case *c = t->c;
    double x = t->op.gate[r * t->row + k * c->step], up = t->op.up[r * t->row + k * c->step], exact;
    /* e^-z moves by z times a rounding of z */
    double slack = target->bounds->glu * (1 + x * x);
    switch (c->kind) {
    case GLU_SILU:
        exact = x * sigmoid(x) * up;
        break;
    case GLU_GELU_TANH:
        /* x (1 + tanh u) / 2; even a double's 1 + tanh u has no digits left where u is far below 0.
         * In fp32 the plain reference has none either. */
        exact = x * sigmoid(2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)) * up;
        slack *= 1 + fabs(x);
        break;
    default:
        x = fmin(x, (double)c->limit);
        up = fmax(-(double)c->limit, fmin(up, (double)c->limit));
        exact = x * sigmoid(1.702 * x) * (up + 1);
    }
    if (t->op.row_gate) exact *= sigmoid(t->op.row_gate[r * t->row]);
    slack = slack * fabs(exact) + 1e-37;
    if (c->kind == GLU_GELU_TANH && target->kind == BACKEND_CPU_REFERENCE)
        slack += 0x1p-23 * fabs(x * up);
    check_act(target, got, exact, slack, "glu", r, k);
}

static void glu_on(const struct target *target, struct backend *be, const void *data) {
    const struct glu_case *c = data;
    struct glu_test t;
    glu_setup(&t, c);
    float *all = floats(ROWS * c->cols), *alone = floats(c->cols);
    void *act = t.op.out = act_alloc(be, ROWS, c->cols);
    begin_rows(be, ROWS);
    be->ops->glu(be, &t.op);
    take_act(be, act, ROWS, c->cols, all);
    for (int64_t i = 0; i < ROWS * c->cols; i++)
        glu_element(target, &t, i / c->cols, i % c->cols, all[i]);
    t.op.gate += LAST * t.row;
    t.op.up += LAST * t.row;
    if (t.op.row_gate) t.op.row_gate += LAST * t.row;
    act = t.op.out = act_alloc(be, 1, c->cols);
    begin_rows(be, 1);
    be->ops->glu(be, &t.op);
    take_act(be, act, 1, c->cols, alone);
    assert_memory_equal(alone, all + LAST * c->cols, (size_t)c->cols * sizeof *all);
    op_free(t.in);
    op_free(all);
    op_free(alone);
}

/* A NaN goes through every kind, from either side: no min or max may lose it. */
static void glu_nan(const struct target *target, struct backend *be, const void *data) {
    enum { COLS = 21 };
    const enum glu_kind kind = *(const enum glu_kind *)data;
    float *in = floats(2 * COLS), out[COLS];
    (void)target;
    for (int i = 0; i < 4; i++) {
        const int at = i % 2 ? COLS - 1 : 0;
        for (int k = 0; k < 2 * COLS; k++) in[k] = 0.5f;
        in[i / 2 * COLS + at] = NAN;
        void *act = act_alloc(be, 1, COLS);
        begin_rows(be, 1);
        be->ops->glu(be, &(struct op_glu){.kind = kind,
                                          .limit = 7,
                                          .gate = in,
                                          .up = in + COLS,
                                          .gate_row = 2 * COLS,
                                          .up_row = 2 * COLS,
                                          .step = 1,
                                          .cols = COLS,
                                          .out = act});
        take_act(be, act, 1, COLS, out);
        for (int k = 0; k < COLS; k++) assert_int_equal(isnan(out[k]) != 0, k == at);
    }
    op_free(in);
}

/* ---- tests ---- */

typedef void (*op_test)(const struct target *target, struct backend *be, const void *data);

static void on_each(op_test run, const void *data) {
    for (size_t i = 0; i < COUNT(TARGETS) * MAX_THREADS; i++) {
        const struct target *target = &TARGETS[i / MAX_THREADS];
        const int threads = 1 + (int)i % MAX_THREADS;
        struct backend *be = threads > target_threads(target) ? NULL : target_open(target, threads);
        if (be == NULL) continue;
        run(target, be, data);
        backend_close(be);
    }
}

static void test_embed(void **state) {
    on_each(embed_on, *state);
}
static void test_rope(void **state) {
    on_each(rope_on, *state);
}
static void test_norm(void **state) {
    on_each(norm_on, *state);
    on_each(convert_on, *state);
}
static void test_post_norm(void **state) {
    on_each(post_norm_on, *state);
}
static void test_softcap(void **state) {
    on_each(softcap_on, *state);
}
static void test_glu(void **state) {
    on_each(glu_on, *state);
}
static void test_glu_nan(void **state) {
    on_each(glu_nan, *state);
}

int main(void) {
    static const int64_t softcap_cols[] = {1, 3001};
    static const int rope_pairs[] = {1, 24, 64};
    static const enum glu_kind kinds[] = {GLU_SILU, GLU_GELU_TANH, GLU_CLAMPED};
    struct CMUnitTest tests[100] = {{0}};
    ADD_TESTS(tests, test_embed, EMBED_CASES);
    ADD_TESTS(tests, test_norm, NORM_CASES);
    ADD_TESTS(tests, test_post_norm, POST_NORM_CASES);
    ADD_TESTS(tests, test_rope, rope_pairs);
    ADD_TESTS(tests, test_softcap, softcap_cols);
    ADD_TESTS(tests, test_glu, GLU_CASES);
    ADD_TESTS(tests, test_glu_nan, kinds);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
