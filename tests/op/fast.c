/* The fast CPU backend against loops in double, and against itself: for every instruction set that
 * this machine has, an output is within one rounding of the exact value, and is the same bits
 * whatever stands beside it. Looks into the private layouts of act and KV. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "backend/cpu/fast/fast.h"
#include "base/error.h"
#include "op/support.h"

enum { MAX_ROWS = 130, MAX_THREADS = 3 };
static const char *const ISAS[] = {"avx512", "avx2", "portable"};
static const int ROW_COUNTS[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 64, MAX_ROWS};
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* NULL where the machine lacks the instructions. */
static struct backend *open_backend(const char *isa, int threads) {
    struct backend_options options = {BACKEND_CPU, threads, false, isa};
    struct step_limits max = {.rows = MAX_ROWS * 8,
                              .seqs = 8,
                              .out_rows = MAX_ROWS,
                              .max_blocks = 8,
                              .max_cols = 4096,
                              .max_heads = 16,
                              .max_head_dim = 512,
                              .vocab = 100};
    struct backend *be = NULL;
    struct imp_error err;
    int rc = backend_open(&options, &be, &err);
    if (rc == IMP_ERR_UNSUPPORTED) return NULL;
    assert_int_equal(rc, 0);
    assert_int_equal(be->ops->reserve(be, &max, &err), 0);
    assert_true(be->ops->scratch_bytes(be, &max) > 0);
    return be;
}

static void begin_rows(struct backend *be, int rows) {
    be->ops->step_begin(be, &(struct batch){.rows = rows, .seqs = 1});
}

static void *poisoned(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    memset(p, 0xFF, bytes); /* NaN in fp32 and in BF16 */
    return p;
}

static void check_near(double got, double exact, double slack, const char *what, int64_t a,
                       int64_t b) {
    if (fabs(got - exact) <= slack) return;
    fail_msg("%s [%lld, %lld]: %.9g, exact %.9g, off by %.3g, allowed %.3g", what, (long long)a,
             (long long)b, got, exact, fabs(got - exact), slack);
}

/* One rounding to BF16, and the slack of the fp32 sums before it. */
static void check_bf16(uint16_t got, double exact, double slack, const char *what, int64_t a,
                       int64_t b) {
    int e;
    frexp(exact, &e); /* |exact| in [2^(e-1), 2^e), 8 significant bits */
    check_near(bf16_decode(got), exact, ldexp(1.0, e - 9) + slack, what, a, b);
}

static void check_padding(struct backend *be, const void *act, int rows, int64_t cols) {
    size_t stride = be->ops->act_bytes(be, cols) / 2;
    for (int r = 0; r < rows; r++) {
        for (size_t k = (size_t)cols; k < stride; k++)
            assert_int_equal(((const uint16_t *)act)[(size_t)r * stride + k], 0);
    }
}

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

static void linear_exact(const struct linear_test *t, const float *y, const char *isa) {
    double *w = mem_alloc((size_t)t->c->cols * sizeof *w);
    int64_t n = 0;
    char what[100];
    snprintf(what, sizeof what, "linear %s, %s", t->c->name, isa);
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

static void linear_case_on(const struct linear_test *t, const char *isa) {
    float *all = NULL;
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
        struct backend *be = open_backend(isa, threads);
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
            linear_exact(t, all, isa);
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
        for (size_t k = 0; k < COUNT(ISAS); k++) linear_case_on(&t, ISAS[k]);
        linear_teardown(&t);
    }
}

/* A NaN among scales or FP8 codes is a NaN of its row's output, and of no other. */
static void test_linear_nan(void **state) {
    (void)state;
    const struct case_part parts[] = {
        {WEIGHT_NVFP4, 20, 0, 0}, {WEIGHT_MXFP4, 20, 0, 0}, {WEIGHT_FP8, 20, 0, 0}};
    const uint8_t nan[] = {0x7F, 0xFF, 0xFF};
    for (size_t i = 0; i < COUNT(parts) * COUNT(ISAS); i++) {
        const struct case_part *part = &parts[i % COUNT(parts)];
        const struct linear_case c = {"nan", 64, 1, {*part}, false};
        struct linear_test t;
        linear_setup(&t, &c, 5000 + 10 * i);
        int64_t per_row = part->format == WEIGHT_NVFP4 ? 4 : part->format == WEIGHT_MXFP4 ? 2 : 64;
        const uint8_t *bytes = part->format == WEIGHT_FP8 ? t.part[0].data : t.part[0].block_scale;
        ((uint8_t *)(uintptr_t)bytes)[17 * per_row + 1] = nan[i % COUNT(parts)];
        struct backend *be = open_backend(ISAS[i / COUNT(parts)], 1);
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

/* ---- norm and GLU ---- */

static void norm_exact(const struct norm_case *c, const float *h, const float *w, float eps,
                       const uint16_t *out, int row) {
    double sum = 0;
    for (int64_t k = 0; k < c->cols; k++) sum += (double)h[k] * h[k];
    double scale = 1 / sqrt(sum / (double)c->cols + eps);
    for (int64_t k = 0; k < c->cols; k++) {
        double exact = h[k] * scale * (c->weight ? w[k] : 1);
        check_bf16(out[k], exact, 0x1p-20 * fabs(exact), "norm", row, k);
    }
}

static void norm_case_on(struct backend *be, const struct norm_case *c) {
    enum { ROWS = 20 };
    const int32_t out_row[] = {3, 0, 19};
    const int64_t stride = act_stride(c->cols);
    const size_t row_bytes = be->ops->act_bytes(be, c->cols);
    float *h = mem_alloc((size_t)(ROWS * c->cols) * sizeof *h);
    float *w = mem_alloc((size_t)c->cols * sizeof *w);
    case_fill(h, ROWS * c->cols, 1, 2.0f);
    case_fill(w, c->cols, 2, 1.0f);
    uint16_t *all = poisoned(ROWS * row_bytes), *some = poisoned(3 * row_bytes);
    struct op_norm op = {ROWS_ALL, h, c->weight ? w : NULL, 1e-5f, c->cols, all};
    begin_rows(be, ROWS);
    be->ops->norm(be, &op);
    for (int r = 0; r < ROWS; r++) norm_exact(c, h + r * c->cols, w, 1e-5f, all + r * stride, r);
    check_padding(be, all, ROWS, c->cols);
    be->ops->step_begin(be, &(struct batch){.rows = ROWS, .out_rows = 3, .out_row = out_row});
    op.rows = ROWS_OUT;
    op.out = some;
    be->ops->norm(be, &op);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(some + i * stride, all + out_row[i] * stride, row_bytes);
    free(h);
    free(w);
    free(all);
    free(some);
}

static double exact_gate(enum glu_kind kind, double x) {
    if (kind == GLU_SILU) return x / (1 + exp(-x));
    /* x (1 + tanh u) / 2; even a double's 1 + tanh u has no digits left where u is far below 0 */
    return x / (1 + exp(-2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static void glu_case_on(struct backend *be, const struct glu_case *c) {
    enum { ROWS = 19 };
    const size_t row_bytes = be->ops->act_bytes(be, c->cols);
    const int64_t stride = act_stride(c->cols);
    float *in = mem_alloc((size_t)(ROWS * 2 * c->cols) * sizeof *in);
    case_fill(in, ROWS * 2 * c->cols, 3, 3.0f);
    in[0] = -100; /* the gate must give 0, not NaN */
    in[1] = 100;
    in[2] = 0;
    uint16_t *all = poisoned(ROWS * row_bytes), *one = poisoned(row_bytes);
    begin_rows(be, ROWS);
    struct op_glu op = {.kind = c->kind,
                        .gate = in,
                        .up = in + c->cols,
                        .gate_row = 2 * c->cols,
                        .up_row = 2 * c->cols,
                        .step = 1,
                        .cols = c->cols,
                        .out = all};
    be->ops->glu(be, &op);
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t k = 0; k < c->cols; k++) {
            double x = in[r * 2 * c->cols + k], up = in[(r * 2 + 1) * c->cols + k];
            double exact = exact_gate(c->kind, x) * up;
            /* e^-z moves by z times a rounding of z */
            double slack = 0x1p-21 * (1 + fabs(x) * fabs(x)) * fabs(exact) + 1e-37;
            check_bf16(all[r * stride + k], exact, slack, "glu", r, k);
        }
    }
    check_padding(be, all, ROWS, c->cols);
    begin_rows(be, 1);
    op.gate = in + 36 * c->cols;
    op.up = op.gate + c->cols;
    op.out = one;
    be->ops->glu(be, &op);
    assert_memory_equal(one, all + 18 * stride, row_bytes);
    free(in);
    free(all);
    free(one);
}

static void test_rows(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(ISAS) * MAX_THREADS; i++) {
        struct backend *be = open_backend(ISAS[i / MAX_THREADS], 1 + (int)i % MAX_THREADS);
        if (be == NULL) continue;
        for (size_t k = 0; k < COUNT(NORM_CASES); k++) norm_case_on(be, &NORM_CASES[k]);
        for (size_t k = 0; k < COUNT(GLU_CASES); k++) glu_case_on(be, &GLU_CASES[k]);
        backend_close(be);
    }
}

/* ---- qkv ---- */

/* What a head holds after norm and rotation; *slack for the fp32 work on element i. */
static double exact_head(const struct qkv_case *c, const float *x, const float *norm,
                         const float *angles, int i, double *slack) {
    double scale = 1, sum = 0;
    for (int k = 0; k < c->head_dim; k++) sum += (double)x[k] * x[k];
    if (c->norm) scale = 1 / sqrt(sum / c->head_dim + 1e-6);
    int base = i < c->pairs ? i : i - c->pair_offset;
    bool rotated = base >= 0 && base < c->pairs;
    double self = x[i] * scale * (c->norm ? norm[i] : 1);
    *slack = 0x1p-20 * fabs(self);
    if (!rotated) return self;
    int other = i < c->pairs ? i + c->pair_offset : base;
    double b = x[other] * scale * (c->norm ? norm[other] : 1);
    *slack += 0x1p-20 * fabs(b);
    double s = angles[2 * base + 1];
    return self * angles[2 * base] + (i < c->pairs ? -b * s : b * s);
}

static void qkv_check(const struct qkv_case *c, const struct batch *batch, const float *in,
                      const float *angles, const float *norm, const uint16_t *q, void *kv) {
    const int d = c->head_dim, all = c->heads + 2 * c->kv_heads;
    const int64_t q_stride = act_stride((int64_t)c->heads * d);
    for (int r = 0; r < batch->rows; r++) {
        int position = batch->position[r] % KV_BLOCK_TOKENS;
        int block = batch->blocks[KV_FULL][batch->seq[r] * batch->max_blocks +
                                           batch->position[r] / KV_BLOCK_TOKENS];
        for (int i = 0; i < all * d; i++) {
            int head = i / d, dim = i % d, kv_head = (head - c->heads) % c->kv_heads;
            const float *x = in + ((int64_t)r * all + head) * d;
            double slack, exact = exact_head(c, x, norm, angles + r * c->pairs * 2, dim, &slack);
            if (head < c->heads) {
                check_bf16(q[r * q_stride + i], exact * c->q_scale, slack * c->q_scale, "q", r, i);
                continue;
            }
            const uint16_t *at = kv_head_at(kv, block, c->kv_heads, kv_head, d);
            if (head < c->heads + c->kv_heads) {
                uint16_t got = at[(dim / 2 * KV_BLOCK_TOKENS + position) * 2 + dim % 2];
                check_bf16(got, exact, slack, "k", r, i);
            } else {
                uint16_t got = at[d * KV_BLOCK_TOKENS + position * value_stride(d) + dim];
                assert_int_equal(got, bf16_encode(x[dim]));
            }
        }
    }
}

static void qkv_case_on(struct backend *be, const struct qkv_case *c) {
    enum { ROWS = 12, BLOCKS = 6 };
    const int all = c->heads + 2 * c->kv_heads;
    const int32_t position[ROWS] = {60, 61, 62, 63, 64, 65, 66, 0, 1, 2, 3, 4};
    const int32_t seq[ROWS] = {0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1}, blocks[] = {4, 1, 3, 0};
    const struct batch batch = {.rows = ROWS,
                                .seqs = 2,
                                .position = position,
                                .seq = seq,
                                .blocks = {blocks, blocks},
                                .max_blocks = 2};
    const int64_t n = (int64_t)ROWS * all * c->head_dim;
    float *in = mem_alloc((size_t)n * sizeof *in), norm[512], angles[ROWS * 512];
    case_fill(in, n, 21, 1.5f);
    case_fill(norm, 512, 22, 1.0f);
    for (int i = 0; i < ROWS * 256; i++) {
        angles[2 * i] = (float)cos(i);
        angles[2 * i + 1] = (float)sin(i);
    }
    size_t q_bytes = ROWS * be->ops->act_bytes(be, (int64_t)c->heads * c->head_dim);
    uint16_t *q = poisoned(q_bytes);
    void *kv = poisoned(BLOCKS * be->ops->kv_block_bytes(be, c->kv_heads, c->head_dim));
    be->ops->step_begin(be, &batch);
    be->ops->qkv(be, &(struct op_qkv){.qkv = in,
                                      .row_cols = (int64_t)all * c->head_dim,
                                      .q_step = c->head_dim,
                                      .heads = c->heads,
                                      .kv_heads = c->kv_heads,
                                      .head_dim = c->head_dim,
                                      .q_norm = c->norm ? norm : NULL,
                                      .k_norm = c->norm ? norm : NULL,
                                      .eps = 1e-6f,
                                      .angles = angles,
                                      .pairs = c->pairs,
                                      .pair_offset = c->pair_offset,
                                      .q_scale = c->q_scale,
                                      .q = q,
                                      .kv = kv});
    qkv_check(c, &batch, in, angles, norm, q, kv);
    check_padding(be, q, ROWS, (int64_t)c->heads * c->head_dim);
    free(in);
    free(q);
    free(kv);
}

static void test_qkv(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(ISAS); i++) {
        struct backend *be = open_backend(ISAS[i], 1 + (int)i);
        if (be == NULL) continue;
        for (size_t k = 0; k < COUNT(QKV_CASES); k++) qkv_case_on(be, &QKV_CASES[k]);
        backend_close(be);
    }
}

/* ---- attention ---- */

enum { SEQS = 8, MAX_BLOCKS = 4, TESTED = 3 };

struct attention_test {
    const struct attention_case *c;
    int tokens[SEQS];
    float *in[SEQS]; /* [tokens, (heads + 2 kv_heads) * head_dim] */
    float sinks[16];
    int64_t width, stride; /* of in; of act */
};

static void attention_setup(struct attention_test *t, const struct attention_case *c) {
    *t = (struct attention_test){.c = c};
    t->width = (int64_t)(c->heads + 2 * c->kv_heads) * c->head_dim;
    t->stride = act_stride((int64_t)c->heads * c->head_dim);
    case_fill(t->sinks, 16, 31, 1.0f);
    for (int i = 0; i < SEQS; i++) {
        t->tokens[i] = i == TESTED ? c->tokens : 5 + 13 * i;
        t->in[i] = mem_alloc((size_t)(t->tokens[i] * t->width) * sizeof(float));
        case_fill(t->in[i], t->tokens[i] * t->width, 40 + (uint64_t)i, 1.0f);
    }
}

static void attention_teardown(struct attention_test *t) {
    for (int i = 0; i < SEQS; i++) free(t->in[i]);
}

/* With pairs = 0 and a power of two as q_scale, q, k and v are the inputs rounded once. */
static void attention_exact(const struct attention_test *t, const uint16_t *out, const char *isa) {
    const struct attention_case *c = t->c;
    const int d = c->head_dim, group = c->heads / c->kv_heads;
    double *p = mem_alloc((size_t)c->tokens * sizeof *p);
    for (int r = 0; r < c->tokens; r += 1 + r / 16) {
        for (int head = 0; head < c->heads; head++) {
            const float *x = t->in[TESTED];
            int first = c->window && r >= c->window ? r - c->window + 1 : 0;
            int64_t k_at = (c->heads + head / group) * d, v_at = k_at + c->kv_heads * d;
            double most = c->sinks ? t->sinks[head] : -INFINITY, total, error = 0;
            for (int i = first; i <= r; i++) {
                double s = 0, size = 0;
                for (int k = 0; k < d; k++) {
                    double product = (double)bf16_round(x[r * t->width + head * d + k] * 0.125f) *
                                     bf16_round(x[i * t->width + k_at + k]);
                    s += product;
                    size += fabs(product);
                }
                error = fmax(error, size * 0x1p-21);
                p[i] = c->softcap > 0 ? c->softcap * tanh(s / c->softcap) : s;
                most = fmax(most, p[i]);
            }
            total = c->sinks ? exp(t->sinks[head] - most) : 0;
            for (int i = first; i <= r; i++) total += p[i] = exp(p[i] - most);
            for (int k = 0; k < d; k++) {
                double sum = 0, size = 0;
                for (int i = first; i <= r; i++) {
                    double v = bf16_round(x[i * t->width + v_at + k]);
                    sum += p[i] * v;
                    size += p[i] * fabs(v);
                }
                check_bf16(out[r * t->stride + head * d + k], sum / total,
                           (2 * error + 0x1p-19) * size / total, isa, r, head * d + k);
            }
        }
    }
    free(p);
}

/* Runs the sequences of `mask` side by side, `chunk` rows of each a step, and gives TESTED's rows.
 * Block b of sequence s lies at a place that `shuffle` moves about. */
static void attention_run(struct backend *be, const struct attention_test *t, unsigned mask,
                          int chunk, int shuffle, uint16_t *out) {
    enum { ROWS = SEQS * 200 };
    const struct attention_case *c = t->c;
    int32_t position[ROWS], seq[ROWS], blocks[SEQS * MAX_BLOCKS];
    int done[SEQS] = {0};
    float *in = mem_alloc((size_t)(ROWS * t->width) * sizeof *in);
    const size_t row_bytes = be->ops->act_bytes(be, (int64_t)c->heads * c->head_dim);
    uint16_t *q = poisoned(ROWS * row_bytes), *y = poisoned(ROWS * row_bytes);
    void *kv = poisoned(37 * be->ops->kv_block_bytes(be, c->kv_heads, c->head_dim));
    for (bool more = true; more;) {
        struct batch batch = {
            .position = position, .seq = seq, .blocks = {blocks, blocks}, .max_blocks = MAX_BLOCKS};
        int tested_row = -1, tested_rows = 0;
        for (int s = 0; s < SEQS; s++) {
            int left = t->tokens[s] - done[s], rows = left < chunk ? left : chunk;
            if (!(mask >> s & 1) || rows == 0) continue;
            if (s == TESTED) {
                tested_row = batch.rows;
                tested_rows = rows;
            }
            for (int b = 0; b < MAX_BLOCKS; b++)
                blocks[batch.seqs * MAX_BLOCKS + b] = (s * MAX_BLOCKS + b) * shuffle % 37;
            memcpy(in + batch.rows * t->width, t->in[s] + done[s] * t->width,
                   (size_t)(rows * t->width) * sizeof *in);
            for (int i = 0; i < rows; i++, batch.rows++) {
                position[batch.rows] = done[s]++;
                seq[batch.rows] = batch.seqs;
            }
            batch.seqs++;
        }
        more = batch.rows > 0;
        if (!more) break;
        be->ops->step_begin(be, &batch);
        be->ops->qkv(be, &(struct op_qkv){.qkv = in,
                                          .row_cols = t->width,
                                          .q_step = c->head_dim,
                                          .heads = c->heads,
                                          .kv_heads = c->kv_heads,
                                          .head_dim = c->head_dim,
                                          .q_scale = 0.125f,
                                          .q = q,
                                          .kv = kv});
        be->ops->attention(be, &(struct op_attention){.q = q,
                                                      .kv = kv,
                                                      .heads = c->heads,
                                                      .kv_heads = c->kv_heads,
                                                      .head_dim = c->head_dim,
                                                      .window = c->window,
                                                      .softcap = c->softcap,
                                                      .sinks = c->sinks ? t->sinks : NULL,
                                                      .out = y});
        check_padding(be, y, batch.rows, (int64_t)c->heads * c->head_dim);
        if (tested_row >= 0)
            memcpy(out + (done[TESTED] - tested_rows) * t->stride, y + tested_row * t->stride,
                   (size_t)tested_rows * row_bytes);
    }
    free(in);
    free(q);
    free(y);
    free(kv);
}

static void attention_case_on(const struct attention_test *t, const char *isa) {
    static const struct {
        unsigned mask;
        int chunk, shuffle;
    } runs[] = {{1u << TESTED, 200, 1}, {1u << TESTED, 64, 5}, {1u << TESTED, 7, 36},
                {1u << TESTED, 1, 1},   {0xFF, 200, 11},       {0xFF, 1, 7},
                {0xFF, 19, 1}};
    const size_t bytes = (size_t)(t->c->tokens * t->stride) * sizeof(uint16_t);
    uint16_t *first = poisoned(bytes);
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
        struct backend *be = open_backend(isa, threads);
        if (be == NULL) break;
        for (size_t i = 0; i < COUNT(runs); i++) {
            uint16_t *out = poisoned(bytes);
            bool reference = threads == 1 && i == 0;
            attention_run(be, t, runs[i].mask, runs[i].chunk, runs[i].shuffle,
                          reference ? first : out);
            if (reference) attention_exact(t, first, isa);
            if (!reference && memcmp(out, first, bytes) != 0)
                fail_msg("attention, %d heads of %d on %s: run %zu gives other bits", t->c->heads,
                         t->c->head_dim, be->name, i);
            free(out);
        }
        backend_close(be);
    }
    free(first);
}

static void test_attention(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(ATTENTION_CASES); i++) {
        struct attention_test t;
        attention_setup(&t, &ATTENTION_CASES[i]);
        for (size_t k = 0; k < COUNT(ISAS); k++) attention_case_on(&t, ISAS[k]);
        attention_teardown(&t);
    }
}

static void test_open(void **state) {
    (void)state;
    struct backend *be = NULL;
    struct imp_error err;
    struct backend_options options = {BACKEND_CPU, 1, false, "sse9"};
    assert_int_equal(backend_open(&options, &be, &err), IMP_ERR_USAGE);
    options.isa = NULL;
    assert_int_equal(backend_open(&options, &be, &err), 0);
    print_message("best: %s\n", be->name);
    backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),       cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linear_nan), cmocka_unit_test(test_rows),
        cmocka_unit_test(test_qkv),        cmocka_unit_test(test_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
