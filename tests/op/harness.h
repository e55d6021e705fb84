/* What the tests of ops share: the backends under test, poisoned memory, what "within one rounding"
 * means, and sequences that are run side by side, cut into steps in many ways.
 *
 * A test goes through the table of ops alone (convert makes an act, act_read reads one), so it says
 * the same of every backend. What ops are given comes from op_alloc and is looked at between steps:
 * see op/memory.h, also for how the GPU is asked for. */
#ifndef IMP_TESTS_OP_HARNESS_H
#define IMP_TESTS_OP_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "base/error.h"
#include "op/memory.h"
#include "op/support.h"

enum { MAX_THREADS = 3, SEQS = 8, TESTED = 3, SLOTS = 11 };
enum { MAX_CHUNK = 200, STEP_ROWS = SEQS * MAX_CHUNK };
enum { MAX_BLOCKS = 18, MAX_TOKENS = MAX_BLOCKS * 64 };
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* `rounds`: acts and KV are BF16. `asked`: by which value of IMP_TEST_GPU, or NULL. `w4a4`: inputs
 * of NVFP4 weights are rounded to NVFP4. */
struct target {
    const char *name;
    enum backend_kind kind;
    bool rounds;
    const char *isa, *asked;
    const struct bounds *bounds;
    bool w4a4;
};
static const struct target TARGETS[] = {
    {"reference", BACKEND_CPU_REFERENCE, false, NULL, NULL, &CPU_BOUNDS, false},
    {"rounded reference", BACKEND_CPU_REFERENCE, true, NULL, NULL, &CPU_BOUNDS, false},
    {"avx512", BACKEND_CPU, true, "avx512", NULL, &CPU_BOUNDS, false},
    {"avx2", BACKEND_CPU, true, "avx2", NULL, &CPU_BOUNDS, false},
    {"portable", BACKEND_CPU, true, "portable", NULL, &CPU_BOUNDS, false},
    {"cuda", BACKEND_GPU, true, NULL, "1", &GPU_BOUNDS, false},
    {"stand-in", BACKEND_CPU, true, NULL, "cpu", &GPU_BOUNDS, false},
};

/* With a GPU only what its results are held against runs besides. */
static inline bool target_wanted(const struct target *target) {
    const char *gpu = test_gpu();
    if (target->asked) return gpu && strcmp(gpu, target->asked) == 0;
    return gpu == NULL || (target->kind == BACKEND_CPU_REFERENCE && target->rounds);
}
static inline int target_threads(const struct target *target) {
    return target->asked ? 1 : MAX_THREADS;
}

/* NULL where the target is not wanted or the machine lacks the instructions. Matrices that change
 * their input are made next, then memory is reserved. */
static inline struct backend *target_start(const struct target *target, int threads) {
    struct backend_options options = {.kind = target->kind,
                                      .threads = threads,
                                      .round_bf16 = target->rounds,
                                      .nvfp4_activations = target->w4a4,
                                      .pdl = true,
                                      .isa = target->isa};
    struct backend *be = NULL;
    struct imp_error err;
    memory.running = false; /* a test that failed leaves its step as it was */
    if (!target_wanted(target)) return NULL;
    int rc = backend_open(&options, &be, &err);
    if (rc == IMP_ERR_UNSUPPORTED) return NULL;
    if (rc < 0) fail_msg("%s: %s", target->name, err.message);
    if (target->asked) watch(be);
    return be;
}

static inline void target_reserve(struct backend *be) {
    const bool gpu = test_gpu() != NULL; /* has the large cases too */
    struct step_limits max = {.rows = STEP_ROWS,
                              .seqs = SEQS,
                              .out_rows = STEP_ROWS,
                              .max_blocks = MAX_BLOCKS,
                              .max_cols = gpu ? 11008 : 4096,
                              .max_heads = gpu ? 64 : 16,
                              .max_head_dim = 512,
                              .vocab = 500,
                              .moe_top_k = 8,
                              .moe_width = gpu ? 2880 : 80,
                              .moe_hidden = gpu ? 2880 : 96,
                              .gdn = {16, gpu ? 32 : 6, 128, 128}};
    struct imp_error err;
    if (be->ops->reserve(be, &max, &err) < 0) fail_msg("%s: %s", be->name, err.message);
    assert_true(be->ops->scratch_bytes(be, &max) > 0);
}

static inline struct backend *target_open(const struct target *target, int threads) {
    struct backend *be = target_start(target, threads);
    if (be) target_reserve(be);
    return be;
}

static inline void begin_rows(struct backend *be, int rows) {
    be->ops->step_begin(be, &(struct batch){.rows = rows, .seqs = 1});
}

static inline void end_step(struct backend *be) {
    struct imp_error err;
    if (be->ops->step_end(be, &err) < 0) fail_msg("%s: %s", be->name, err.message);
}

/* Memory for ops, poisoned; freed with op_free. */
static inline void *act_alloc(struct backend *be, int rows, int64_t cols) {
    return op_alloc((size_t)rows * be->ops->act_bytes(be, cols));
}
static inline float *floats(int64_t n) {
    return op_alloc((size_t)n * sizeof(float));
}
static inline float *normals(int64_t n, uint64_t stream, float scale) {
    float *x = floats(n);
    case_fill(x, n, stream, scale);
    return x;
}

/* ---- nearness ---- */

static inline void check_near(double got, double exact, double slack, const char *what, int64_t a,
                              int64_t b) {
    if (fabs(got - exact) <= slack) return;
    fail_msg("%s [%lld, %lld]: %.9g, exact %.9g, off by %.3g, allowed %.3g", what, (long long)a,
             (long long)b, got, exact, fabs(got - exact), slack);
}

/* Half a unit of the last place of a BF16. */
static inline double bf16_half_unit(double exact) {
    int e;
    frexp(exact, &e); /* |exact| in [2^(e-1), 2^e), 8 significant bits */
    return ldexp(1.0, e - 9);
}

/* One rounding to the act's type, and the slack of the fp32 work before it. */
static inline void check_act(const struct target *target, double got, double exact, double slack,
                             const char *what, int64_t a, int64_t b) {
    double rounding = target->rounds ? bf16_half_unit(exact) : 0x1p-24 * fabs(exact);
    check_near(got, exact, rounding + slack, what, a, b);
}

/* Where column k stands in a row of the CUDA backend's act: it permutes among 64. */
static inline size_t gpu_act_place(size_t k) {
    return (k & ~(size_t)63) | (k & 12) << 2 | (k & 2) << 2 | (k >> 3 & 6) | (k & 1);
}

/* What is past cols is zero in the acts of all but the reference. */
static inline void check_padding(struct backend *be, const void *act, int rows, int64_t cols) {
    const size_t stride = be->ops->act_bytes(be, cols) / 2;
    const bool gpu = strstr(be->name, "cuda") != NULL;
    if (strstr(be->name, "reference")) return;
    for (int r = 0; r < rows; r++) {
        for (size_t k = (size_t)cols; k < stride; k++) {
            size_t at = (size_t)r * stride + (gpu ? gpu_act_place(k) : k);
            assert_int_equal(((const uint16_t *)act)[at], 0);
        }
    }
}

/* Ends the step; rows of an act as fp32; frees the act. */
static inline void take_act(struct backend *be, void *act, int rows, int64_t cols, float *out) {
    end_step(be);
    check_padding(be, act, rows, cols);
    be->ops->act_read(be, act, rows, cols, out);
    op_free(act);
}

/* Two paths that round at the same places: seldom different, and then by a unit. */
static inline void check_agree(const float *a, const float *b, int64_t n, double slack,
                               int64_t most_different, const char *what) {
    int64_t different = 0;
    for (int64_t i = 0; i < n; i++) {
        different += a[i] != b[i];
        check_near(a[i], b[i],
                   2 * bf16_half_unit(fmax(fabs((double)a[i]), fabs((double)b[i]))) + slack, what,
                   i, 0);
    }
    if (different > most_different)
        fail_msg("%s: %lld of %lld differ", what, (long long)different, (long long)n);
}

static inline void check_same_bits(const float *got, const float *want, int64_t n, int64_t width,
                                   const char *what, size_t way) {
    for (int64_t i = 0; i < n; i++) {
        if (fp32_bits(got[i]) == fp32_bits(want[i])) continue;
        fail_msg("%s: way %zu gives other bits at [%lld, %lld]: %.9g, first %.9g", what, way,
                 (long long)(i / width), (long long)(i % width), (double)got[i], (double)want[i]);
    }
}

/* ---- sequences in steps ---- */

/* Rows of SEQS sequences; TESTED is the one that is looked at. */
struct stream {
    int tokens[SEQS];
    int max_blocks, pool_blocks; /* of a sequence's table; that a layer has, a prime */
    int64_t width;
    float *in[SEQS]; /* [tokens, width] */
};

static inline void stream_setup(struct stream *s, int tokens, int64_t width, float scale) {
    s->width = width;
    s->max_blocks = tokens > 4 * KV_BLOCK_TOKENS ? MAX_BLOCKS : 4;
    s->pool_blocks = tokens > 4 * KV_BLOCK_TOKENS ? 149 : 37;
    for (int i = 0; i < SEQS; i++) {
        s->tokens[i] = i == TESTED ? tokens : 5 + 13 * i;
        s->in[i] = normals(s->tokens[i] * width, 40 + (uint64_t)i, scale);
    }
}

static inline void stream_teardown(struct stream *s) {
    for (int i = 0; i < SEQS; i++) op_free(s->in[i]);
}

/* The sequences of `mask` side by side, `chunk` rows of each a step; sequence s takes the place
 * (s + turn) % SEQS; blocks and slots lie where `shuffle` says. */
struct cut {
    unsigned mask;
    int chunk, turn, shuffle;
};
static const struct cut CUTS[] = {
    {1u << TESTED, 200, 0, 1}, {1u << TESTED, 64, 0, 5}, {1u << TESTED, 7, 3, 36},
    {1u << TESTED, 1, 0, 1},   {0xFF, 200, 0, 11},       {0xFF, 64, 5, 2},
    {0xFF, 7, 4, 4},           {0xFF, 1, 2, 7},          {0xFF, 19, 1, 1},
};

struct step {
    struct batch batch;
    float *in; /* [rows, width] */
    int tested_row, tested_rows, tested_position;
    int done[SEQS];
    int32_t position[STEP_ROWS], seq[STEP_ROWS], seq_row[SEQS + 1], slot[SEQS];
    int32_t blocks[KV_GROUPS][SEQS * MAX_BLOCKS];
};

/* The next rows of sequence s. Tables hold a block only where a row of this step may look: all
 * earlier ones, or those of a window, which are others. */
static inline void step_add(struct step *step, const struct stream *stream, const struct cut *cut,
                            int s, int window) {
    struct batch *batch = &step->batch;
    const int first = step->done[s], left = stream->tokens[s] - first;
    const int rows = left < cut->chunk ? left : cut->chunk, last = first + rows - 1;
    if (!(cut->mask >> s & 1) || rows == 0) return;
    if (s == TESTED) {
        step->tested_row = batch->rows;
        step->tested_rows = rows;
        step->tested_position = first;
    }
    const int most = stream->max_blocks, pool = stream->pool_blocks;
    for (int b = 0; b < most; b++) {
        int at = batch->seqs * most + b, place = (s * most + b) * cut->shuffle;
        bool begun = b * KV_BLOCK_TOKENS <= last;
        bool seen = window == 0 || (b + 1) * KV_BLOCK_TOKENS > first - window + 1;
        step->blocks[KV_FULL][at] = begun ? place % pool : -1000000;
        step->blocks[KV_WINDOW][at] = begun && seen ? (place + 5) % pool : -1000000;
    }
    step->slot[batch->seqs] = (s * 3 + cut->shuffle) % SLOTS;
    step->seq_row[batch->seqs] = batch->rows;
    memcpy(step->in + batch->rows * stream->width, stream->in[s] + first * stream->width,
           (size_t)(rows * stream->width) * sizeof *step->in);
    for (int i = 0; i < rows; i++, batch->rows++) {
        step->position[batch->rows] = step->done[s]++;
        step->seq[batch->rows] = batch->seqs;
    }
    step->seq_row[++batch->seqs] = batch->rows;
}

/* One step's ops and its end: from step->in, which it may change, to out [rows, out_width]. */
typedef void (*step_fn)(struct backend *be, void *ctx, struct step *step, float *out);

/* TESTED's rows of what fn gives. */
static inline float *stream_run(struct backend *be, const struct stream *stream,
                                const struct cut *cut, int window, step_fn fn, void *ctx,
                                int64_t out_width) {
    struct step *step = mem_zero(1, sizeof *step);
    float *all = floats(STEP_ROWS * out_width);
    float *tested = mem_alloc((size_t)(stream->tokens[TESTED] * out_width) * sizeof *tested);
    step->in = floats(STEP_ROWS * stream->width);
    for (;;) {
        step->batch = (struct batch){.position = step->position,
                                     .seq = step->seq,
                                     .seq_row = step->seq_row,
                                     .slot = step->slot,
                                     .blocks = {step->blocks[KV_FULL], step->blocks[KV_WINDOW]},
                                     .max_blocks = stream->max_blocks};
        step->tested_rows = 0;
        for (int i = 0; i < SEQS; i++)
            step_add(step, stream, cut, (i + SEQS - cut->turn) % SEQS, window);
        if (step->batch.rows == 0) break;
        memset(all, 0xFF, (size_t)(step->batch.rows * out_width) * sizeof *all);
        be->ops->step_begin(be, &step->batch);
        fn(be, ctx, step, all);
        memcpy(tested + step->tested_position * out_width, all + step->tested_row * out_width,
               (size_t)(step->tested_rows * out_width) * sizeof *all);
    }
    op_free(step->in);
    op_free(all);
    free(step);
    return tested;
}

/* Every cut on one thread, and every third on more, gives the bits of the first, which `exact`
 * judges. Returns them, or NULL where the machine lacks the instructions. `make` and `end`, about
 * each run, may be NULL. */
struct stream_test {
    const char *what;
    const struct stream *stream;
    int window;
    int64_t out_width;
    bool large;    /* for the GPU, or what stands in for it, alone */
    bool weighted; /* by weights that a GPU rounds to BF16: there only `exact` judges */
    bool plain;    /* out is fp32, never rounded: two backends differ in the last bits at will */
    void *ctx;
    void (*make)(struct backend *be, void *ctx);
    step_fn step;
    void (*end)(struct backend *be, void *ctx, const struct cut *cut);
    void (*exact)(const struct target *target, void *ctx, const float *out);
};

static inline float *stream_test_on(const struct stream_test *t, const struct target *target) {
    const int64_t n = t->stream->tokens[TESTED] * t->out_width;
    float *first = NULL;
    for (int threads = 1; threads <= target_threads(target); threads++) {
        struct backend *be = target_open(target, threads);
        if (be == NULL) return NULL;
        for (size_t i = 0; i < COUNT(CUTS); i++) {
            if (threads > 1 && (int)i % 3 != threads % 3) continue;
            if (t->make) t->make(be, t->ctx);
            float *out =
                stream_run(be, t->stream, &CUTS[i], t->window, t->step, t->ctx, t->out_width);
            if (t->end) t->end(be, t->ctx, &CUTS[i]);
            if (first == NULL) {
                first = out;
                t->exact(target, t->ctx, first);
                continue;
            }
            check_same_bits(out, first, n, t->out_width, t->what, i);
            free(out);
        }
        backend_close(be);
    }
    return first;
}

/* On every target; the fast ones agree with the rounded reference. */
static inline void stream_test_all(const struct stream_test *t, double slack) {
    const int64_t n = t->stream->tokens[TESTED] * t->out_width;
    float *rounded = NULL;
    for (size_t i = 0; i < COUNT(TARGETS); i++) {
        if (t->large && !TARGETS[i].asked) continue;
        float *out = stream_test_on(t, &TARGETS[i]);
        if (TARGETS[i].kind == BACKEND_CPU_REFERENCE && TARGETS[i].rounds) {
            rounded = out;
            continue;
        }
        if (t->weighted && TARGETS[i].kind == BACKEND_GPU) {
            free(out);
            continue;
        }
        if (out && rounded) check_agree(out, rounded, n, slack, t->plain ? n : 2 + n / 50, t->what);
        free(out);
    }
    free(rounded);
}

/* ---- tests ---- */

/* Adds a test for each case, so that one that fails leaves the others their turn. What is left of
 * the array stays zero, which runs nothing. */
static inline void add_tests(struct CMUnitTest *tests, const char *name, CMUnitTestFunction run,
                             const void *cases, size_t size, size_t count) {
    static char names[128][40];
    static size_t named;
    while (tests->name) tests++;
    for (size_t i = 0; i < count; i++, tests++, named++) {
        check(named < COUNT(names));
        snprintf(names[named], sizeof names[named], "%s %zu", name, i);
        tests->name = names[named];
        tests->test_func = run;
        tests->initial_state = (char *)(uintptr_t)cases + i * size;
    }
}
#define ADD_TESTS(tests, run, cases)                                                               \
    add_tests(tests, #run + sizeof "test", run, cases, sizeof cases[0], COUNT(cases))

#endif
