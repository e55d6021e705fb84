/* Linears of real shapes on the GPU: every row's bits are those of the row alone and of the plain
 * kernel, for any number of rows; and how long they take, as graphs of many such with weights that
 * no cache holds. Prints a line a shape and number of rows.
 *
 *     device_linear [check|time|both [ROWS,ROWS... [nopdl]]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/backend.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/str.h"
#include "num/fp.h"

enum { MAX_ROWS = 4096, REPEATS = 60 };
static const struct shape {
    const char *name;
    enum weight_format format;
    int64_t rows, cols;
} SHAPES[] = {
    {"qkv", WEIGHT_NVFP4, 6144, 4096},       {"o", WEIGHT_NVFP4, 4096, 4096},
    {"gate_up", WEIGHT_NVFP4, 24576, 4096},  {"down", WEIGHT_NVFP4, 4096, 12288},
    {"head bf16", WEIGHT_BF16, 32000, 2048}, {"fp8", WEIGHT_FP8, 4096, 4096},
    {"odd mxfp4", WEIGHT_MXFP4, 2880, 2880}, {"narrow", WEIGHT_NVFP4, 2048, 768},
};

static bool no_pdl;

static struct backend *open_gpu(bool plain, bool graphs) {
    const struct backend_options options = {.kind = BACKEND_GPU,
                                            .threads = 1,
                                            .pdl = !no_pdl,
                                            .graphs = graphs,
                                            .plain_linears = plain};
    const struct step_limits max = {.rows = MAX_ROWS,
                                    .seqs = MAX_ROWS,
                                    .out_rows = 1,
                                    .max_blocks = 1,
                                    .max_cols = 12288,
                                    .vocab = 16,
                                    .max_heads = 1,
                                    .max_head_dim = 64};
    struct imp_error err = {0};
    struct backend *be = NULL;
    if (backend_open(&options, &be, &err) < 0 || be->ops->reserve(be, &max, &err) < 0) {
        fprintf(stderr, "%s: %s\n", err.where, err.message);
        exit(9);
    }
    return be;
}

static void begin(struct backend *be, int rows) {
    static int32_t row[MAX_ROWS + 1], zero[MAX_ROWS];
    for (int i = 0; i <= MAX_ROWS; i++) row[i] = i;
    be->ops->step_begin(
        be, &(struct batch){
                .rows = rows, .seqs = rows, .seq_row = row, .position = zero, .slot = zero});
}
static void end(struct backend *be) {
    struct imp_error err = {0};
    if (be->ops->step_end(be, &err) < 0) {
        fprintf(stderr, "%s: %s\n", err.where, err.message);
        exit(9);
    }
}

static struct weight make_weight(const struct shape *s, uint64_t stream) {
    const int64_t n = s->rows * s->cols;
    struct weight w = {.name = s->name,
                       .format = s->format,
                       .rows = s->rows,
                       .cols = s->cols,
                       .multiplier = 0.01f};
    const int64_t bytes = s->format == WEIGHT_BF16 ? 2 * n : s->format == WEIGHT_FP8 ? n : n / 2;
    uint32_t *data = mem_alloc((size_t)bytes);
    for (int64_t i = 0; i < bytes / 16; i++) rng_block(stream, 1, (uint64_t)i, data + 4 * i);
    for (int64_t i = 0; s->format == WEIGHT_BF16 && i < n; i++) {
        uint16_t *x = (uint16_t *)data;
        x[i] = (uint16_t)((x[i] & 0x807F) | (120 + (x[i] >> 7) % 8) << 7);
    }
    for (int64_t i = 0; s->format == WEIGHT_FP8 && i < n; i++) {
        uint8_t *x = (uint8_t *)data;
        if ((x[i] & 0x7F) == 0x7F) x[i] = 0;
    }
    w.data = data;
    if (s->format == WEIGHT_NVFP4 || s->format == WEIGHT_MXFP4) {
        const int64_t blocks = n / (s->format == WEIGHT_NVFP4 ? 16 : 32);
        uint8_t *scale = mem_alloc((size_t)blocks);
        for (int64_t i = 0; i < blocks; i++) {
            uint32_t r[4];
            rng_block(stream, 2, (uint64_t)i, r);
            scale[i] = s->format == WEIGHT_MXFP4 ? (uint8_t)(118 + r[0] % 12)
                       : r[1] % 50 == 0          ? (uint8_t)(r[0] % 9)
                                                 : (uint8_t)(0x28 + r[0] % 0x50);
        }
        w.block_scale = scale;
    }
    return w;
}
static void free_weight(struct weight *w) {
    free((void *)w->data);
    free((void *)w->block_scale);
}

struct rig {
    struct backend *be;
    float *x_float, *y;
    void *x;
};
static void *device(struct backend *be, size_t bytes) {
    void *p;
    struct imp_error err;
    if (be->ops->alloc(be, bytes, &p, &err) < 0) exit(6);
    return p;
}
static struct rig make_rig(struct backend *be, const struct shape *s, int rows) {
    struct rig r = {be, device(be, (size_t)rows * s->cols * 4),
                    device(be, (size_t)rows * s->rows * 4),
                    device(be, (size_t)rows * be->ops->act_bytes(be, s->cols))};
    float *x = mem_alloc((size_t)rows * s->cols * sizeof *x);
    for (int64_t i = 0; i < rows * s->cols; i++)
        x[i] = (float)rng_normal(7, 3, (uint64_t)i) * (i % 997 == 0 ? 30 : 1);
    be->ops->write(be, r.x_float, x, (size_t)rows * s->cols * sizeof *x);
    free(x);
    return r;
}
static void free_rig(struct rig *r) {
    r->be->ops->free(r->be, r->x_float);
    r->be->ops->free(r->be, r->y);
    r->be->ops->free(r->be, r->x);
}

/* Rows first .. first + rows - 1 of the rig's x, as a step of their own; y to the host. */
static void product(struct rig *r, const struct shape *s, struct matrix *m, int first, int rows,
                    float *out) {
    memset(out, 0xFF, (size_t)rows * s->rows * 4);
    r->be->ops->write(r->be, r->y, out, (size_t)rows * s->rows * 4);
    begin(r->be, rows);
    r->be->ops->convert(r->be, &(struct op_convert){r->x_float + first * s->cols, s->cols, r->x});
    r->be->ops->linear(r->be, &(struct op_linear){ROWS_ALL, LINEAR_STORE, m, r->x, r->y});
    end(r->be);
    r->be->ops->read(r->be, out, r->y, (size_t)rows * s->rows * 4);
}

/* The largest relative error of some outputs against double. */
static double error_of(const struct shape *s, const struct weight *w, const float *y, int rows) {
    double worst = 0;
    float *line = mem_alloc((size_t)s->cols * sizeof *line);
    for (int i = 0; i < 24; i++) {
        const int64_t n = (i * 7919 + 3) % s->rows, r = (i * 31) % rows;
        double sum = 0, size = 0;
        weight_dequantize_row(w, n, line);
        for (int64_t k = 0; k < s->cols; k++) {
            const int64_t at = r * s->cols + k;
            const float x = bf16_decode(
                bf16_encode((float)rng_normal(7, 3, (uint64_t)at) * (at % 997 == 0 ? 30 : 1)));
            sum += (double)line[k] * x;
            size += fabs((double)line[k] * x);
        }
        worst = fmax(worst, fabs(y[r * s->rows + n] - sum) / size);
    }
    free(line);
    return worst;
}

static int compare(const struct shape *s, const int *rows, int count) {
    struct backend *fast = open_gpu(false, false), *plain = open_gpu(true, false);
    struct weight w = make_weight(s, 1);
    struct matrix *m[2];
    struct imp_error err;
    int failed = 0;
    const int most = rows[count - 1];
    if (fast->ops->matrix_create(fast, &w, 1, NULL, &m[0], &err) < 0 ||
        plain->ops->matrix_create(plain, &w, 1, NULL, &m[1], &err) < 0)
        exit(6);
    struct rig a = make_rig(fast, s, most), b = make_rig(plain, s, most);
    float *want = mem_alloc((size_t)most * s->rows * 4),
          *got = mem_alloc((size_t)most * s->rows * 4);
    product(&b, s, m[1], 0, most, want);
    for (int i = 0; i < count; i++) {
        product(&a, s, m[0], most - rows[i], rows[i], got);
        int64_t differ = 0;
        const float *from = want + (most - rows[i]) * s->rows;
        for (int64_t j = 0; j < rows[i] * s->rows; j++) differ += memcmp(got + j, from + j, 4) != 0;
        if (differ)
            printf("FAIL %s, %d rows: %lld of %lld differ\n", s->name, rows[i], (long long)differ,
                   (long long)(rows[i] * s->rows));
        failed += differ != 0;
    }
    const double error = error_of(s, &w, want, most);
    failed += !(error < 2e-6);
    printf("%s %-10s bits equal for %d numbers of rows; error %.1e of the sum of products\n",
           failed ? "FAIL" : "ok  ", s->name, count, error);
    fflush(stdout);
    free(want);
    free(got);
    free_rig(&a);
    free_rig(&b);
    fast->ops->matrix_free(fast, m[0]);
    plain->ops->matrix_free(plain, m[1]);
    free_weight(&w);
    backend_close(fast);
    backend_close(plain);
    return failed;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void timing(const struct shape *s, const int *rows, int count) {
    enum { MOST = 40 };
    struct backend *be = open_gpu(false, true);
    struct weight w = make_weight(s, 1);
    struct matrix *m[MOST];
    struct imp_error err;
    int copies = 0;
    size_t bytes = 0;
    while (copies < MOST && (copies < 8 || bytes < (size_t)600 << 20)) {
        if (be->ops->matrix_create(be, &w, 1, NULL, &m[copies], &err) < 0) exit(6);
        bytes += m[copies++]->bytes;
    }
    struct rig r = make_rig(be, s, rows[count - 1]);
    for (int i = 0; i < count; i++) {
        double t[REPEATS + 4];
        const int n = rows[i] > 256 ? 8 : copies;
        for (int rep = 0; rep < REPEATS + 4; rep++) {
            begin(be, rows[i]);
            const double t0 = now();
            be->ops->convert(be, &(struct op_convert){r.x_float, s->cols, r.x});
            for (int c = 0; c < n; c++)
                be->ops->linear(be, &(struct op_linear){ROWS_ALL, LINEAR_STORE, m[c], r.x, r.y});
            end(be);
            t[rep] = (now() - t0) / n;
        }
        qsort(t + 4, REPEATS, sizeof *t, by_value);
        const double us = t[4 + REPEATS / 2] * 1e6;
        printf("%-10s %5d rows %9.2f us %7.3f TB/s of weights %7.1f TFLOP/s\n", s->name, rows[i],
               us, (double)m[0]->bytes / us / 1e6,
               2.0 * rows[i] * (double)s->rows * (double)s->cols / us / 1e6);
        fflush(stdout);
    }
    for (int c = 0; c < copies; c++) be->ops->matrix_free(be, m[c]);
    free_rig(&r);
    free_weight(&w);
    backend_close(be);
}

int main(int argc, char **argv) {
    int rows[32] = {1, 2, 3, 4, 8, 9, 16, 17, 32, 64, 100, 128, 200, 256, 513, 2048}, count = 16;
    const char *what = argc > 1 ? argv[1] : "both";
    no_pdl = argc > 3 && strcmp(argv[3], "nopdl") == 0;
    if (argc > 2) {
        count = 0;
        for (char *s = strtok(argv[2], ","); s && count < 32; s = strtok(NULL, ","))
            rows[count++] = atoi(s);
    }
    int failed = 0;
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++) {
        if (strcmp(what, "time") != 0) failed += compare(&SHAPES[i], rows, count);
        if (strcmp(what, "check") != 0) timing(&SHAPES[i], rows, count);
    }
    printf("linears: %s\n", failed ? "FAILED" : "ok");
    return failed != 0;
}
