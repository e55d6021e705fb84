/* A backend's sampler against the reference's on the same logits, of a real vocabulary's size. What
 * is an integer's business has to be equal: finite, hash, arg max, the most likely ids. A draw may
 * take the neighbour where it falls within a rounding of a boundary, which hardly ever happens.
 *
 * IMP_TEST_GPU=1: the GPU; else the fast CPU backend. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "base/rng.h"
#include "base/str.h"

enum { VOCAB = 151936, USABLE = 151643, ROWS = 5, SEEN = 1500, ROUNDS = 2 };

static struct backend *tested, *reference;
static float *host, *device; /* [ROWS, VOCAB] */

static struct backend *open_one(enum backend_kind kind) {
    struct backend_options options = {.kind = kind, .threads = 1, .pdl = true};
    struct step_limits max = {.rows = ROWS,
                              .seqs = ROWS,
                              .out_rows = ROWS,
                              .max_blocks = 64,
                              .max_cols = 16,
                              .max_heads = 1,
                              .max_head_dim = 16,
                              .vocab = VOCAB};
    struct backend *be = NULL;
    struct imp_error err;
    if (backend_open(&options, &be, &err) < 0 || be->ops->reserve(be, &max, &err) < 0)
        fail_msg("%s", err.message);
    return be;
}

static int open_both(void **state) {
    (void)state;
    const char *gpu = getenv("IMP_TEST_GPU");
    reference = open_one(BACKEND_CPU_REFERENCE);
    tested = open_one(gpu && strcmp(gpu, "1") == 0 ? BACKEND_GPU : BACKEND_CPU);
    host = mem_alloc(sizeof(float) * ROWS * VOCAB);
    return tested->ops->alloc(tested, sizeof(float) * ROWS * VOCAB, (void **)&device, NULL);
}

static int close_both(void **state) {
    (void)state;
    tested->ops->free(tested, device);
    backend_close(tested);
    backend_close(reference);
    free(host);
    return 0;
}

/* What rows of logits look like: a trained model's, a flat one's, equal ones, few that may be. */
enum look { NORMAL, FLAT, EQUAL, STEPS, SPARSE, BROKEN };

static void fill_row(float *row, enum look look, uint64_t salt) {
    for (int i = 0; i < VOCAB; i++) {
        float x = (float)rng_normal(21, salt, (uint64_t)i);
        if (look == NORMAL) x *= 2.5f;
        if (look == FLAT) x *= 0.01f;
        if (look == EQUAL) x = 1;
        if (look == STEPS) x = roundf(x);
        if (look == SPARSE && i % 1000 != 7) x = -INFINITY;
        if (look == BROKEN && i == USABLE / 2) x = salt % 2 ? -NAN : INFINITY;
        row[i] = i % 50 == 3 ? -0.0f : x;
    }
}

struct filters {
    float temperature, top_p, min_p;
    int top_k;
    bool penalties;
    int top_count; /* -1: no logprobs */
};
static const struct filters FILTERS[] = {
    {0, 1, 0, 0, false, -1},        {0, 1, 0, 0, true, 20},
    {1, 1, 0, 0, false, 5},         {0.7f, 1, 0.1f, 0, true, -1},
    {0.7f, 0.95f, 0, 40, false, 0}, {1, 1, 0, 1, false, 20},
    {1, 0.9f, 0, 0, false, -1},     {1.5f, 0.99f, 0.001f, 0, true, 3},
    {1, 1, 0, 1000, true, -1},      {2, 1, 0, 50000, false, -1},
    {2, 0.8f, 0, 100000, true, -1}, {0.1f, 0.5f, 0, 5000, false, -1},
    {1, 1, 0.3f, 20, false, -1},    {0.01f, 0.95f, 0.05f, 0, false, 1},
};
enum { FILTER_COUNT = sizeof FILTERS / sizeof FILTERS[0] };

static int32_t seen[SEEN], generated[SEEN];

static struct sample_row row_of(const struct filters *f, uint64_t seed, uint64_t position) {
    struct sample_row row = {.temperature = f->temperature,
                             .top_p = f->top_p,
                             .min_p = f->min_p,
                             .top_k = f->top_k,
                             .repetition_penalty = 1,
                             .seed = seed,
                             .position = position,
                             .want_logprob = f->top_count >= 0,
                             .top_count = f->top_count >= 0 ? f->top_count : 0};
    if (!f->penalties) return row;
    row.repetition_penalty = 1.3f;
    row.presence_penalty = 0.4f;
    row.frequency_penalty = 0.1f;
    row.seen = seen;
    row.generated = generated;
    row.seen_count = SEEN;
    return row;
}

/* Returns whether the tokens are equal. */
static bool compare(const struct sample_result *got, const struct sample_result *want,
                    const struct sample_row *row) {
    assert_int_equal(got->finite, want->finite);
    assert_true(got->logits_hash == want->logits_hash);
    if (!want->finite || row->temperature == 0) assert_int_equal(got->token, want->token);
    assert_in_range(got->token, 0, USABLE - 1);
    if (!want->finite) return true;
    for (int i = 0; i < row->top_count; i++) {
        assert_int_equal(got->top_ids[i], want->top_ids[i]);
        assert_true(fabsf(got->top_logprobs[i] - want->top_logprobs[i]) <= 1e-5f);
    }
    if (got->token != want->token) return false;
    if (row->want_logprob) assert_true(fabsf(got->logprob - want->logprob) <= 1e-5f);
    return true;
}

static void check_same(const struct sample_result *a, const struct sample_result *b) {
    assert_int_equal(a->finite, b->finite);
    assert_int_equal(a->token, b->token);
    assert_true(a->logits_hash == b->logits_hash && a->logprob == b->logprob);
    assert_memory_equal(a->top_ids, b->top_ids, sizeof a->top_ids);
    assert_memory_equal(a->top_logprobs, b->top_logprobs, sizeof a->top_logprobs);
}

/* All filters on one set of rows, ROWS to a call and each row alone. Returns how many differ. */
static int compare_all(uint64_t seed) {
    int differ = 0;
    for (int first = 0; first < FILTER_COUNT * ROWS; first += ROWS) {
        struct sample_row rows[ROWS];
        struct sample_result got[ROWS], want[ROWS], alone;
        int32_t from[ROWS];
        for (int i = 0; i < ROWS; i++) {
            const int k = first + i;
            rows[i] = row_of(&FILTERS[k % FILTER_COUNT], seed, (uint64_t)k);
            from[i] = (k * 3 + k / ROWS) % ROWS;
        }
        tested->ops->sample(tested,
                            &(struct op_sample){device, VOCAB, USABLE, from, rows, got, ROWS});
        reference->ops->sample(reference,
                               &(struct op_sample){host, VOCAB, USABLE, from, rows, want, ROWS});
        for (int i = 0; i < ROWS; i++) differ += !compare(&got[i], &want[i], &rows[i]);
        const int one = first / ROWS % ROWS;
        tested->ops->sample(
            tested, &(struct op_sample){device, VOCAB, USABLE, &from[one], &rows[one], &alone, 1});
        check_same(&alone, &got[one]);
    }
    return differ;
}

static void the_sampler_matches_the_reference(void **state) {
    (void)state;
    int differ = 0;
    for (int i = 0; i < SEEN; i++) {
        seen[i] = (int32_t)((int64_t)i * 7919 % VOCAB); /* distinct; some past what is usable */
        generated[i] = i % 3;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int r = 0; r < ROWS; r++) {
            const enum look look = (enum look)((round + r) % (BROKEN + 1));
            fill_row(host + (int64_t)r * VOCAB, look, (uint64_t)(round * ROWS + r));
        }
        tested->ops->write(tested, device, host, sizeof(float) * ROWS * VOCAB);
        differ += compare_all((uint64_t)round);
    }
    if (differ > 2) fail_msg("%d of %d draws differ", differ, ROUNDS * ROWS * FILTER_COUNT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_sampler_matches_the_reference)};
    return cmocka_run_group_tests(tests, open_both, close_both);
}
