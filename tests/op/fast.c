/* The linears of the fast CPU backend against loops in double, and against themselves: for every
 * instruction set that this machine has, an output is within a few roundings of the exact value,
 * and is the same bits whatever stands beside it. Looks into the private layout of act. */
#include "backend/cpu/fast/fast.h"
#include "op/harness.h"

enum { MAX_ROWS = 130 };
static const struct target *const FAST = &TARGETS[2];
enum { FAST_COUNT = COUNT(TARGETS) - 2 };
static const int ROW_COUNTS[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 64, MAX_ROWS};

/* ---- linear ---- */

struct linear_test {
    const struct linear_case *c;
    struct weight part[3];
    float *bias[3];
    int64_t rows, x_stride;
    uint16_t *x; /* [MAX_ROWS, x_stride] */
};

static void linear_setup(struct linear_test *t, const struct linear_case *c, uint64_t stream) {
    *t = (struct linear_test){.c = c, .x_stride = act_stride(c->cols)};
    for (int i = 0; i < c->count; i++) {
        t->part[i] = case_weight(&c->part[i], c->cols, stream + (uint64_t)i * 3);
        t->rows += c->part[i].rows;
        if (!c->bias) continue;
        t->bias[i] = mem_alloc((size_t)c->part[i].rows * sizeof(float));
        case_fill(t->bias[i], c->part[i].rows, stream + 50, 1.0f);
    }
    t->x = mem_zero((size_t)(MAX_ROWS * t->x_stride), sizeof *t->x);
    for (int64_t r = 0; r < MAX_ROWS; r++) {
        for (int64_t k = 0; k < c->cols; k++)
            t->x[r * t->x_stride + k] =
                bf16_encode(case_normal(stream + 60, (uint64_t)(r * c->cols + k)));
    }
}

static void linear_teardown(struct linear_test *t) {
    for (int i = 0; i < t->c->count; i++) {
        case_weight_free(&t->part[i]);
        free(t->bias[i]);
    }
    free(t->x);
}

static void linear_exact(const struct linear_test *t, const float *y, const struct target *target) {
    double *w = mem_alloc((size_t)t->c->cols * sizeof *w);
    int64_t n = 0;
    char what[100];
    snprintf(what, sizeof what, "linear %s, %s", t->c->name, target->name);
    for (int i = 0; i < t->c->count; i++) {
        for (int64_t row = 0; row < t->part[i].rows; row++, n++) {
            for (int64_t k = 0; k < t->c->cols; k++) w[k] = case_element(&t->part[i], row, k);
            for (int r = 0; r < MAX_ROWS; r += r < 12 ? 1 : 17) {
                double sum = 0, size = 0, bias = t->bias[i] ? t->bias[i][row] : 0;
                for (int64_t k = 0; k < t->c->cols; k++) {
                    double product = w[k] * bf16_decode(t->x[r * t->x_stride + k]);
                    sum += product;
                    size += fabs(product);
                }
                /* Sixteen units of the last place of the sum of magnitudes: a rounding of the
                 * weights or a lost scale is hundreds, the order of sums a few. */
                double slack = 0x1p-20 * (size + fabs(bias)) + 1e-30;
                check_near(y[r * t->rows + n], sum + bias, slack, what, r, n);
            }
        }
    }
    free(w);
}

static void linear_run_rows(struct backend *be, const struct linear_test *t, const struct matrix *m,
                            int first, int rows, enum linear_mode mode, float *y) {
    begin_rows(be, rows);
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, mode, m, t->x + first * t->x_stride, y});
    assert_int_equal(be->ops->step_end(be, NULL), 0);
}

/* Every number of rows, at the end of the input, must repeat the bits of the run over all rows. */
static void linear_repeats(struct backend *be, const struct linear_test *t, const struct matrix *m,
                           const float *all) {
    for (size_t i = 0; i < COUNT(ROW_COUNTS); i++) {
        int rows = ROW_COUNTS[i], first = MAX_ROWS - rows;
        float *y = poisoned((size_t)(rows * t->rows) * sizeof *y);
        linear_run_rows(be, t, m, first, rows, LINEAR_STORE, y);
        if (memcmp(y, all + first * t->rows, (size_t)(rows * t->rows) * sizeof *y) != 0)
            fail_msg("linear %s on %s: %d rows give other bits", t->c->name, be->name, rows);
        free(y);
    }
}

static void linear_adds(struct backend *be, const struct linear_test *t, const struct matrix *m,
                        const float *all, int rows) {
    float *y = mem_alloc((size_t)(rows * t->rows) * sizeof *y);
    case_fill(y, rows * t->rows, 99, 3.0f);
    linear_run_rows(be, t, m, 0, rows, LINEAR_ADD, y);
    for (int64_t i = 0; i < rows * t->rows; i++) {
        float sum = case_normal(99, (uint64_t)i) * 3.0f + all[i];
        assert_memory_equal(&y[i], &sum, sizeof sum);
    }
    free(y);
}

static void linear_case_on(const struct linear_test *t, const struct target *target) {
    float *all = NULL;
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
        struct backend *be = target_open(target, threads);
        if (be == NULL) return;
        struct matrix *m;
        const float *const bias[3] = {t->bias[0], t->bias[1], t->bias[2]};
        assert_int_equal(
            be->ops->matrix_create(be, t->part, t->c->count, t->c->bias ? bias : NULL, &m, NULL),
            0);
        assert_int_equal(m->rows, t->rows);
        assert_int_equal(m->cols, t->c->cols);
        assert_int_equal(m->bytes, be->ops->matrix_bytes(be, t->part, t->c->count));
        if (all == NULL) {
            all = poisoned((size_t)(MAX_ROWS * t->rows) * sizeof *all);
            linear_run_rows(be, t, m, 0, MAX_ROWS, LINEAR_STORE, all);
            linear_exact(t, all, target);
            linear_adds(be, t, m, all, 1);
            linear_adds(be, t, m, all, 9);
        }
        linear_repeats(be, t, m, all);
        be->ops->matrix_free(be, m);
        backend_close(be);
    }
    free(all);
}

static void test_linear(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(LINEAR_CASES); i++) {
        struct linear_test t;
        linear_setup(&t, &LINEAR_CASES[i], 100 * i);
        for (size_t k = 0; k < FAST_COUNT; k++) linear_case_on(&t, &FAST[k]);
        linear_teardown(&t);
    }
}

/* A NaN among scales or FP8 codes is a NaN of its row's output, and of no other. */
static void test_linear_nan(void **state) {
    (void)state;
    const struct case_part parts[] = {
        {WEIGHT_NVFP4, 20, 0, 0}, {WEIGHT_MXFP4, 20, 0, 0}, {WEIGHT_FP8, 20, 0, 0}};
    const uint8_t nan[] = {0x7F, 0xFF, 0xFF};
    for (size_t i = 0; i < COUNT(parts) * FAST_COUNT; i++) {
        const struct case_part *part = &parts[i % COUNT(parts)];
        const struct linear_case c = {"nan", 64, 1, {*part}, false};
        struct linear_test t;
        linear_setup(&t, &c, 5000 + 10 * i);
        int64_t per_row = part->format == WEIGHT_NVFP4 ? 4 : part->format == WEIGHT_MXFP4 ? 2 : 64;
        const uint8_t *bytes = part->format == WEIGHT_FP8 ? t.part[0].data : t.part[0].block_scale;
        ((uint8_t *)(uintptr_t)bytes)[17 * per_row + 1] = nan[i % COUNT(parts)];
        struct backend *be = target_open(&FAST[i / COUNT(parts)], 1);
        if (be) {
            struct matrix *m;
            float y[3 * 20];
            assert_int_equal(be->ops->matrix_create(be, t.part, 1, NULL, &m, NULL), 0);
            linear_run_rows(be, &t, m, 0, 3, LINEAR_STORE, y);
            for (int k = 0; k < 60; k++) assert_int_equal(isnan(y[k]) != 0, k % 20 == 17);
            linear_run_rows(be, &t, m, 0, 1, LINEAR_STORE, y);
            for (int k = 0; k < 20; k++) assert_int_equal(isnan(y[k]) != 0, k % 20 == 17);
            be->ops->matrix_free(be, m);
            backend_close(be);
        }
        linear_teardown(&t);
    }
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linear_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
