/* The linears of every fast backend against loops in double, and against themselves: on every
 * instruction set that this machine has, an output is within a few roundings of the exact value,
 * and is the same bits whatever stands beside it. */
#include "op/harness.h"

static const struct target *const FAST = &TARGETS[2];
enum { FAST_COUNT = COUNT(TARGETS) - 2, CPU_ROWS = 130, GPU_ROWS = 513, GUARD = 64 };
/* Around every width of a tile, and over it. The last are the GPU's. */
static const int ROW_COUNTS[] = {1,  2,  3,  4,  5,  6,  7,   8,        9,   16,  17,  31,
                                 33, 48, 63, 64, 65, 96, 129, CPU_ROWS, 200, 256, 300, GPU_ROWS};

/* ---- linear ---- */

struct linear_test {
    const struct linear_case *c;
    struct weight part[3];
    float *bias[3];
    int64_t rows; /* of all parts */
    int most;     /* rows of x */
    float *x;     /* [most, c->cols], of BF16's values */
};

static void linear_setup(struct linear_test *t, const struct linear_case *c, uint64_t stream) {
    *t = (struct linear_test){.c = c, .most = test_gpu() ? GPU_ROWS : CPU_ROWS};
    for (int i = 0; i < c->count; i++) {
        t->part[i] = case_weight(&c->part[i], c->cols, stream + (uint64_t)i * 3);
        t->rows += c->part[i].rows;
        if (c->has & INPUT_SCALE) {
            float *scale = mem_alloc((size_t)c->cols * sizeof(float));
            case_fill(scale, c->cols, stream + 70, 1.0f); /* of all parts alike */
            t->part[i].pre_scale = scale;
        }
        if (!(c->has & BIAS)) continue;
        t->bias[i] = mem_alloc((size_t)c->part[i].rows * sizeof(float));
        case_fill(t->bias[i], c->part[i].rows, stream + 50, 1.0f);
    }
    t->x = normals(t->most * c->cols, stream + 60, 1.0f);
    for (int64_t i = 0; i < t->most * c->cols; i++) t->x[i] = bf16_round(t->x[i]);
}

static void linear_teardown(struct linear_test *t) {
    for (int i = 0; i < t->c->count; i++) {
        case_weight_free(&t->part[i]);
        free(t->bias[i]);
    }
    op_free(t->x);
}

/* Column n of row r of y. */
static void linear_check(const struct linear_test *t, const struct target *target, const char *what,
                         const float *y, int64_t r, int64_t n) {
    int i = 0;
    int64_t row = n;
    while (row >= t->part[i].rows) row -= t->part[i++].rows;
    const struct weight *w = &t->part[i];
    double bias = t->bias[i] ? t->bias[i][row] : 0, sum = bias, size = fabs(bias);
    for (int64_t k = 0; k < t->c->cols; k++) {
        float x = t->x[r * t->c->cols + k];
        if (w->pre_scale) x = bf16_round(x * w->pre_scale[k]);
        double product = case_element(w, row, k) * x;
        sum += product;
        size += fabs(product);
    }
    check_near(y[r * t->rows + n], sum, linear_bound(target->bounds, t->c->cols) * size + 1e-30,
               what, r, n);
}

/* Every column of a choice of rows; of a large matrix, in one row each. */
static void linear_exact(const struct linear_test *t, const float *y, const struct target *target) {
    const bool large = t->rows * t->c->cols > 1000000;
    char what[100];
    snprintf(what, sizeof what, "linear %s, %s", t->c->name, target->name);
    for (int64_t n = 0; n < t->rows; n++) {
        if (large)
            linear_check(t, target, what, y, case_bits(90, (uint64_t)n) % (uint32_t)t->most, n);
        for (int r = 0; r < t->most && !large; r += r < 12 ? 1 : 17)
            linear_check(t, target, what, y, r, n);
    }
}

/* A test's matrix and input on one backend. */
struct linear_on {
    struct backend *be;
    const struct linear_test *t;
    struct matrix *m;
    uint8_t *x; /* act [most, cols] */
};

static struct linear_on linear_open(const struct linear_test *t, struct backend *be) {
    const float *const bias[3] = {t->bias[0], t->bias[1], t->bias[2]};
    struct linear_on on = {be, t, NULL, act_alloc(be, t->most, t->c->cols)};
    struct imp_error err;
    if (be->ops->matrix_create(be, t->part, t->c->count, t->c->has & BIAS ? bias : NULL, &on.m,
                               &err) < 0)
        fail_msg("%s: %s", t->c->name, err.message);
    target_reserve(be);
    assert_int_equal(on.m->rows, t->rows);
    assert_int_equal(on.m->cols, t->c->cols);
    assert_true(on.m->bytes <= be->ops->matrix_bytes(be, t->part, t->c->count));
    begin_rows(be, t->most);
    be->ops->convert(be, &(struct op_convert){t->x, t->c->cols, on.x});
    end_step(be);
    return on;
}

static void linear_close(struct linear_on *on) {
    on->be->ops->matrix_free(on->be, on->m);
    op_free(on->x);
    backend_close(on->be);
}

static void linear_run(const struct linear_on *on, int first, int rows, enum op_rows which,
                       enum linear_mode mode, float *y) {
    struct backend *be = on->be;
    const uint8_t *x = on->x + (size_t)first * be->ops->act_bytes(be, on->t->c->cols);
    /* where only some rows are wanted the step has more than the product */
    be->ops->step_begin(
        be, &(struct batch){.rows = rows + (which == ROWS_OUT), .seqs = 1, .out_rows = rows});
    be->ops->linear(be, &(struct op_linear){which, mode, on->m, x, y});
    end_step(be);
}

/* [most, rows]: each row of x alone. */
static float *linear_alone(const struct linear_on *on) {
    const struct linear_test *t = on->t;
    const size_t bytes = (size_t)t->rows * sizeof(float);
    float *all = mem_alloc((size_t)t->most * bytes), *y = floats(t->rows);
    for (int r = 0; r < t->most; r++) {
        memset(y, 0xFF, bytes);
        linear_run(on, r, 1, ROWS_ALL, LINEAR_STORE, y);
        memcpy(all + r * t->rows, y, bytes);
    }
    op_free(y);
    return all;
}

/* Every number of rows, at the end of the input, must repeat the bits of each row alone, and write
 * nothing more. */
static void linear_repeats(const struct linear_on *on, const float *all) {
    const struct linear_test *t = on->t;
    for (size_t i = 0; i < COUNT(ROW_COUNTS) && ROW_COUNTS[i] <= t->most; i++) {
        const int rows = ROW_COUNTS[i], first = t->most - rows;
        const int64_t n = rows * t->rows;
        float *y = floats(n + GUARD);
        linear_run(on, first, rows, i % 2 ? ROWS_OUT : ROWS_ALL, LINEAR_STORE, y);
        const float *want = all + first * t->rows;
        check_same_bits(y, want, n, t->rows, t->c->name, (size_t)rows);
        for (int64_t k = n; k < n + GUARD; k++) assert_int_equal(fp32_bits(y[k]), 0xFFFFFFFF);
        op_free(y);
    }
}

static void linear_adds(const struct linear_on *on, const float *all, int rows) {
    const int64_t n = rows * on->t->rows;
    float *y = normals(n, 99, 3.0f), *sum = mem_alloc((size_t)n * sizeof *sum);
    for (int64_t i = 0; i < n; i++) sum[i] = y[i] + all[i];
    linear_run(on, 0, rows, ROWS_ALL, LINEAR_ADD, y);
    check_same_bits(y, sum, n, on->t->rows, on->t->c->name, (size_t)rows);
    op_free(y);
    free(sum);
}

static void linear_case_on(const struct linear_test *t, const struct target *target) {
    float *all = NULL;
    for (int threads = 1; threads <= target_threads(target); threads++) {
        struct backend *be = target_start(target, threads);
        if (be == NULL) return;
        struct linear_on on = linear_open(t, be);
        if (all == NULL) {
            all = linear_alone(&on);
            linear_exact(t, all, target);
            linear_adds(&on, all, 1);
            linear_adds(&on, all, 9);
            linear_adds(&on, all, t->most);
        }
        linear_repeats(&on, all);
        linear_close(&on);
    }
    free(all);
}

static void test_linear(void **state) {
    const struct linear_case *c = *state;
    struct linear_test t;
    uint64_t stream = 0; /* by name, so that a case's numbers stay when others come */
    for (const char *at = c->name; *at; at++) stream = stream * 31 + (uint8_t)*at;
    linear_setup(&t, c, stream % 1000000 * 100);
    for (size_t k = 0; k < FAST_COUNT; k++) linear_case_on(&t, &FAST[k]);
    linear_teardown(&t);
}

/* A NaN among scales or FP8 codes is a NaN of its row's output, and of no other. */
static void linear_nan_on(const struct case_part *part, uint8_t nan, const struct target *target) {
    const struct linear_case c = {"nan", 64, 1, {*part}, NOTHING};
    struct linear_test t;
    struct backend *be = target_start(target, 1);
    if (be == NULL) return;
    linear_setup(&t, &c, 5000);
    int64_t per_row = part->format == WEIGHT_NVFP4 ? 4 : part->format == WEIGHT_MXFP4 ? 2 : 64;
    const uint8_t *bytes = part->format == WEIGHT_FP8 ? t.part[0].data : t.part[0].block_scale;
    ((uint8_t *)(uintptr_t)bytes)[17 * per_row + 1] = nan;
    struct linear_on on = linear_open(&t, be);
    for (size_t i = 0; i < COUNT(ROW_COUNTS) && ROW_COUNTS[i] <= t.most; i++) {
        const int n = ROW_COUNTS[i] * 20;
        float *y = floats(n);
        linear_run(&on, 0, ROW_COUNTS[i], ROWS_ALL, LINEAR_STORE, y);
        for (int k = 0; k < n; k++) assert_int_equal(isnan(y[k]) != 0, k % 20 == 17);
        op_free(y);
    }
    linear_close(&on);
    linear_teardown(&t);
}

static void test_linear_nan(void **state) {
    (void)state;
    const struct case_part parts[] = {
        {WEIGHT_NVFP4, 20, 0, 0}, {WEIGHT_MXFP4, 20, 0, 0}, {WEIGHT_FP8, 20, 0, 0}};
    const uint8_t nan[] = {0x7F, 0xFF, 0xFF};
    for (size_t i = 0; i < COUNT(parts) * FAST_COUNT; i++)
        linear_nan_on(&parts[i % COUNT(parts)], nan[i % COUNT(parts)], &FAST[i / COUNT(parts)]);
}

static void test_open(void **state) {
    (void)state;
    struct backend *be = NULL;
    struct imp_error err;
    struct backend_options options = {.kind = BACKEND_CPU, .threads = 1, .isa = "sse9"};
    assert_int_equal(backend_open(&options, &be, &err), IMP_ERR_USAGE);
    options.isa = NULL;
    assert_int_equal(backend_open(&options, &be, &err), 0);
    print_message("best: %s\n", be->name);
    backend_close(be);
}

int main(void) {
    struct CMUnitTest tests[2 + COUNT(LINEAR_CASES) + COUNT(LARGE_LINEAR_CASES)] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_linear_nan),
    };
    ADD_TESTS(tests, test_linear, LINEAR_CASES);
    if (test_gpu()) ADD_TESTS(tests, test_linear, LARGE_LINEAR_CASES);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
