/* numerics.activations=nvfp4, op by op: a product is that of the rows as nvfp4_round_activation
 * rounds them, its bits do not depend on companions, and experts are the linears one by one. */
#include "num/nvfp4.h"
#include "op/harness.h"

enum { ROWS = 300, MAX_COLS = 2064 };
static const int COUNTS[] = {1, 2, 7, 8, 9, 17, 64, 65, 129, ROWS};

/* ---- linear ---- */

/* input[i]: the file's multiplier of part i's input; NAN: none. Parts that have one share the
 * largest. */
static const struct w4a4_case {
    struct linear_case linear;
    float input[3];
} CASES[] = {
    {{"own multipliers", 576, 1, {{WEIGHT_NVFP4, 96, 0, 0}}, BIAS}, {NAN}},
    {{"stored", 576, 1, {{WEIGHT_NVFP4, 96, 0, 0}}, NOTHING}, {0x1p-9f}},
    {{"clipped", 320, 1, {{WEIGHT_NVFP4, 37, 0, 0}}, NOTHING}, {1e-5f}},
    {{"lost", 320, 1, {{WEIGHT_NVFP4, 37, 0, 0}}, BIAS}, {3.0f}},
    {{"unusable", 2064, 1, {{WEIGHT_NVFP4, 37, 0, 0}}, NOTHING}, {INFINITY}},
    {{"one block", 16, 1, {{WEIGHT_NVFP4, 1, 0, 0}}, NOTHING}, {NAN}},
    {{"gate and up", 576, 2, {{WEIGHT_NVFP4, 200, 0, 0}, {WEIGHT_NVFP4, 200, 0, 0}}, NOTHING},
     {0.0012f, 0.0011f}},
    {{"q, k and v",
      192,
      3,
      {{WEIGHT_NVFP4, 96, 0, 0}, {WEIGHT_NVFP4, 32, 0, 0}, {WEIGHT_NVFP4, 32, 0, 0}},
      BIAS},
     {0.0012f, NAN, 0.0013f}},
    {{"other formats see x itself",
      192,
      3,
      {{WEIGHT_NVFP4, 24, 0, 0}, {WEIGHT_MXFP4, 7, 0, 0}, {WEIGHT_BF16, 40, 0, 0}},
      BIAS},
     {NAN, NAN, NAN}},
    {{"scaled first", 576, 1, {{WEIGHT_NVFP4, 96, 0, 0}}, INPUT_SCALE}, {NAN}},
    {{"scaled first, stored", 576, 1, {{WEIGHT_NVFP4, 96, 0, 0}}, INPUT_SCALE}, {0.002f}},
};

struct w4a4_test {
    const struct w4a4_case *c;
    struct weight part[3];
    float *bias[3], *pre_scale;
    int64_t rows;
    float *x; /* [ROWS, cols], of BF16's values */
};

static void setup(struct w4a4_test *t, const struct w4a4_case *c) {
    const struct linear_case *l = &c->linear;
    const uint64_t stream = 31000 + (uint64_t)(c - CASES) * 100;
    *t = (struct w4a4_test){.c = c, .x = normals(ROWS * l->cols, stream, 1.0f)};
    for (int64_t i = 0; i < ROWS * l->cols; i++) {
        const float spike = case_bits(stream + 1, (uint64_t)i) % 97 == 0 ? 40.0f : 1.0f;
        t->x[i] = bf16_round(t->x[i] * spike);
    }
    memset(t->x + 3 * l->cols, 0, (size_t)l->cols * sizeof *t->x); /* a row of zeros */
    if (l->has & INPUT_SCALE) {
        t->pre_scale = mem_alloc((size_t)l->cols * sizeof(float));
        case_fill(t->pre_scale, l->cols, stream + 2, 1.0f);
    }
    for (int i = 0; i < l->count; i++) {
        t->part[i] = case_weight(&l->part[i], l->cols, stream + 10 + (uint64_t)i * 3);
        case_scales_positive(&t->part[i]);
        t->part[i].input_multiplier = c->input[i];
        t->part[i].pre_scale = t->pre_scale;
        t->rows += t->part[i].rows;
        if (!(l->has & BIAS)) continue;
        t->bias[i] = mem_alloc((size_t)t->part[i].rows * sizeof(float));
        case_fill(t->bias[i], t->part[i].rows, stream + 50 + (uint64_t)i, 1.0f);
    }
}

static void teardown(struct w4a4_test *t) {
    for (int i = 0; i < t->c->linear.count; i++) {
        t->part[i].pre_scale = NULL;
        case_weight_free(&t->part[i]);
        free(t->bias[i]);
    }
    free(t->pre_scale);
    op_free(t->x);
}

static float shared_multiplier(const struct w4a4_case *c) {
    float most = NAN;
    for (int i = 0; i < c->linear.count; i++) {
        const bool nvfp4 = c->linear.part[i].format == WEIGHT_NVFP4;
        if (nvfp4 && (isnan(most) || c->input[i] > most)) most = c->input[i];
    }
    return most;
}

static void check_row(const struct w4a4_test *t, const struct target *target, int r,
                      const float *y) {
    const int64_t cols = t->c->linear.cols;
    float plain[MAX_COLS], rounded[MAX_COLS];
    for (int64_t k = 0; k < cols; k++) {
        plain[k] = t->x[r * cols + k];
        if (t->pre_scale) {
            plain[k] *= t->pre_scale[k];
            if (target->rounds) plain[k] = bf16_round(plain[k]);
        }
    }
    const float a = nvfp4_round_activation(plain, shared_multiplier(t->c), cols, rounded);
    for (int64_t n = 0, row = 0, i = 0; n < t->rows; n++, row++) {
        if (row == t->part[i].rows) row = 0, i++;
        const bool nvfp4 = t->part[i].format == WEIGHT_NVFP4;
        double sum = 0, size = 0, bias = t->bias[i] ? t->bias[i][row] : 0;
        for (int64_t k = 0; k < cols; k++) {
            const double product = case_element(&t->part[i], row, k) *
                                   (nvfp4 ? (double)rounded[k] * (double)a : (double)plain[k]);
            sum += product;
            size += fabs(product);
        }
        size += fabs(bias);
        check_near(y[n], sum + bias, linear_bound(target->bounds, cols) * size + 1e-30,
                   t->c->linear.name, r, n);
    }
}

static void run(const struct w4a4_test *t, struct backend *be, struct matrix *m, int first,
                int rows, float *y) {
    const int64_t cols = t->c->linear.cols;
    void *x = act_alloc(be, rows, cols);
    begin_rows(be, rows);
    be->ops->convert(be, &(struct op_convert){t->x + first * cols, cols, x});
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, LINEAR_STORE, m, x, y});
    end_step(be);
    op_free(x);
}

static void linear_on(const struct w4a4_test *t, const struct target *target) {
    const float *const bias[3] = {t->bias[0], t->bias[1], t->bias[2]};
    struct backend *be = target_start(target, 1);
    struct matrix *m;
    struct imp_error err;
    if (be == NULL) return;
    if (be->ops->matrix_create(be, t->part, t->c->linear.count, bias, &m, &err) < 0)
        fail_msg("%s: %s", t->c->linear.name, err.message);
    target_reserve(be);
    float *all = floats(ROWS * t->rows), *y = floats(ROWS * t->rows);
    for (int r = 0; r < ROWS; r++) run(t, be, m, r, 1, all + r * t->rows);
    for (int r = 0; r < ROWS; r += r < 12 ? 1 : 17) check_row(t, target, r, all + r * t->rows);
    for (size_t i = 0; i < COUNT(COUNTS); i++) {
        const int first = ROWS - COUNTS[i];
        run(t, be, m, first, COUNTS[i], y);
        check_same_bits(y, all + first * t->rows, COUNTS[i] * t->rows, t->rows, t->c->linear.name,
                        (size_t)COUNTS[i]);
    }
    op_free(all);
    op_free(y);
    be->ops->matrix_free(be, m);
    backend_close(be);
}

static void test_linear(void **state) {
    struct w4a4_test t;
    setup(&t, *state);
    for (size_t i = 0; i < COUNT(TARGETS); i++) {
        struct target target = TARGETS[i];
        target.w4a4 = true;
        linear_on(&t, &target);
    }
    teardown(&t);
}

/* ---- experts ---- */

enum { EXPERTS = 3, HIDDEN = 96, WIDTH = 64, MOE_ROWS = 40 };

/* Of one expert: gate, up, down. Multipliers of every kind, and one expert of another format. */
struct expert {
    struct weight part[3];
};

static struct expert make_expert(int e) {
    const enum weight_format format = e == 2 ? WEIGHT_BF16 : WEIGHT_NVFP4;
    const float input[EXPERTS][3] = {{0.002f, 0.0021f, NAN}, {NAN, NAN, 0.01f}, {NAN, NAN, NAN}};
    const int64_t rows[3] = {WIDTH, WIDTH, HIDDEN}, cols[3] = {HIDDEN, HIDDEN, WIDTH};
    struct expert out;
    for (int i = 0; i < 3; i++) {
        out.part[i] = case_weight(&(struct case_part){format, rows[i], 0, 0}, cols[i],
                                  40000 + (uint64_t)(e * 20 + i * 5));
        case_scales_positive(&out.part[i]);
        out.part[i].input_multiplier = input[e][i];
    }
    return out;
}

static void make_matrices(struct backend *be, const struct expert *e, struct matrix **gate_up,
                          struct matrix **down) {
    assert_int_equal(be->ops->matrix_create(be, e->part, 2, NULL, gate_up, NULL), 0);
    assert_int_equal(be->ops->matrix_create(be, e->part + 2, 1, NULL, down, NULL), 0);
}

/* Expert e of every row, one linear after the other. */
static void one_by_one(struct backend *be, const struct expert *e, const float *x, float *y) {
    struct matrix *gate_up, *down;
    void *act = act_alloc(be, MOE_ROWS, HIDDEN), *inner = act_alloc(be, MOE_ROWS, WIDTH);
    float *both = floats(MOE_ROWS * 2 * WIDTH);
    make_matrices(be, e, &gate_up, &down);
    target_reserve(be);
    begin_rows(be, MOE_ROWS);
    be->ops->convert(be, &(struct op_convert){x, HIDDEN, act});
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, LINEAR_STORE, gate_up, act, both});
    be->ops->glu(be, &(struct op_glu){.kind = GLU_SILU,
                                      .gate = both,
                                      .up = both + WIDTH,
                                      .gate_row = 2 * WIDTH,
                                      .up_row = 2 * WIDTH,
                                      .step = 1,
                                      .cols = WIDTH,
                                      .out = inner});
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, LINEAR_STORE, down, inner, y});
    end_step(be);
    be->ops->matrix_free(be, gate_up);
    be->ops->matrix_free(be, down);
    op_free(act);
    op_free(inner);
    op_free(both);
}

/* Row r goes to expert r % EXPERTS; `rows` rows from `first` on. */
static void through_moe(struct backend *be, const struct expert *e, const float *x, int first,
                        int rows, float *y) {
    struct matrix *gate_up[EXPERTS], *down[EXPERTS];
    struct experts *experts;
    void *act = act_alloc(be, rows, HIDDEN);
    int32_t *expert = op_alloc((size_t)rows * sizeof *expert);
    float *weight = floats(rows);
    for (int i = 0; i < EXPERTS; i++) make_matrices(be, &e[i], &gate_up[i], &down[i]);
    assert_int_equal(be->ops->experts_create(be, gate_up, down, EXPERTS, &experts, NULL), 0);
    target_reserve(be);
    for (int r = 0; r < rows; r++) expert[r] = (first + r) % EXPERTS, weight[r] = 1;
    begin_rows(be, rows);
    be->ops->convert(be, &(struct op_convert){x + first * HIDDEN, HIDDEN, act});
    be->ops->moe(be, &(struct op_moe){.mode = LINEAR_STORE,
                                      .experts = experts,
                                      .x = act,
                                      .expert = expert,
                                      .weight = weight,
                                      .top_k = 1,
                                      .kind = GLU_SILU,
                                      .y = y});
    end_step(be);
    be->ops->experts_free(be, experts);
    op_free(act);
    op_free(expert);
    op_free(weight);
}

static void moe_on(const struct target *target, const struct expert *e, const float *x) {
    float *each = floats(MOE_ROWS * HIDDEN), *want = floats(MOE_ROWS * HIDDEN);
    float *y = floats(MOE_ROWS * HIDDEN);
    for (int i = 0; i < EXPERTS; i++) {
        struct backend *be = target_start(target, 1);
        if (be == NULL) break;
        one_by_one(be, &e[i], x, each);
        for (int r = i; r < MOE_ROWS; r += EXPERTS)
            memcpy(want + r * HIDDEN, each + r * HIDDEN, HIDDEN * sizeof *want);
        backend_close(be);
    }
    for (int rows = 1; rows <= MOE_ROWS; rows += rows < 4 ? 1 : 12) {
        struct backend *be = target_start(target, 1);
        if (be == NULL) break;
        const int first = MOE_ROWS - rows;
        through_moe(be, e, x, first, rows, y);
        check_same_bits(y, want + first * HIDDEN, rows * HIDDEN, HIDDEN, target->name,
                        (size_t)rows);
        backend_close(be);
    }
    op_free(each);
    op_free(want);
    op_free(y);
}

static void test_moe(void **state) {
    (void)state;
    struct expert e[EXPERTS];
    float *x = normals(MOE_ROWS * HIDDEN, 41000, 1.0f);
    for (int i = 0; i < EXPERTS; i++) e[i] = make_expert(i);
    for (size_t i = 0; i < COUNT(TARGETS); i++) {
        struct target target = TARGETS[i];
        target.w4a4 = true;
        moe_on(&target, e, x);
    }
    for (int i = 0; i < EXPERTS * 3; i++) case_weight_free(&e[i / 3].part[i % 3]);
    op_free(x);
}

int main(void) {
    struct CMUnitTest tests[1 + COUNT(CASES)] = {cmocka_unit_test(test_moe)};
    ADD_TESTS(tests, test_linear, CASES);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
