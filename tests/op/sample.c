/* The sampler against its definition written plainly: sort everything, filter, compare. */
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

enum { VOCAB = 500 };

static struct backend *be;

static int open_it(void **state) {
    (void)state;
    struct backend_options options = {.kind = BACKEND_CPU_REFERENCE, .threads = 1};
    struct step_limits max = {.rows = 1,
                              .seqs = 1,
                              .out_rows = 1,
                              .max_blocks = 1,
                              .max_cols = 16,
                              .max_heads = 1,
                              .max_head_dim = 16,
                              .vocab = VOCAB};
    if (backend_open(&options, &be, NULL) < 0) return -1;
    return be->ops->reserve(be, &max, NULL);
}

static int close_it(void **state) {
    (void)state;
    backend_close(be);
    return 0;
}

static struct sample_result sample(const float *logits, const struct sample_row *row) {
    struct sample_result result;
    const int32_t zero = 0;
    be->ops->sample(be, &(struct op_sample){logits, VOCAB, VOCAB, &zero, row, &result, 1});
    return result;
}

static struct sample_row plain_row(void) {
    return (struct sample_row){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
}

static void random_logits(float *logits, uint64_t salt) {
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = (float)rng_normal(4, salt, (uint64_t)i) * 3;
        if (i % 7 == 3) logits[i] = logits[i - 1]; /* ties */
    }
}

static const float *sorting;
static int by_logit(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sorting[x] != sorting[y]) return sorting[x] > sorting[y] ? -1 : 1;
    return x < y ? -1 : 1;
}

/* Which ids may be drawn, by definition; in order. Returns how many. */
static int allowed(const float *logits, const struct sample_row *row, int32_t *ids, double *p) {
    static float scaled[VOCAB];
    for (int i = 0; i < VOCAB; i++) {
        scaled[i] = logits[i] / row->temperature;
        ids[i] = i;
    }
    sorting = scaled;
    qsort(ids, VOCAB, sizeof *ids, by_logit);
    int n = row->top_k > 0 && row->top_k < VOCAB ? row->top_k : VOCAB;
    double total = 0, mass = 0;
    for (int i = 0; i < n; i++) total += exp((double)scaled[ids[i]]);
    int kept = 0;
    while (kept < n && (kept == 0 || mass < (double)row->top_p * total))
        mass += exp((double)scaled[ids[kept++]]);
    while (row->min_p > 0 && kept > 1 &&
           exp((double)(scaled[ids[kept - 1]] - scaled[ids[0]])) < (double)row->min_p)
        kept--;
    mass = 0;
    for (int i = 0; i < kept; i++) mass += exp((double)scaled[ids[i]]);
    for (int i = 0; i < kept; i++) p[i] = exp((double)scaled[ids[i]]) / mass;
    return kept;
}

static void draws_follow_the_distribution(void **state) {
    (void)state;
    static const struct sample_row rows[] = {
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 0.7f, .top_p = 1, .top_k = 5, .repetition_penalty = 1},
        {.temperature = 1.5f, .top_p = 0.5f, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 0.8f, .top_k = 20, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 1, .min_p = 0.2f, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 0.9f, .top_k = 50, .min_p = 0.05f, .repetition_penalty = 1},
    };
    enum { DRAWS = 4000 };
    static float logits[VOCAB];
    static int32_t ids[VOCAB];
    static double p[VOCAB];
    for (size_t c = 0; c < sizeof rows / sizeof rows[0]; c++) {
        int hits[VOCAB] = {0};
        random_logits(logits, c);
        int n = allowed(logits, &rows[c], ids, p);
        for (int i = 0; i < DRAWS; i++) {
            struct sample_row row = rows[c];
            row.seed = 11;
            row.position = (uint64_t)i;
            hits[sample(logits, &row).token]++;
        }
        int inside = 0;
        for (int i = 0; i < n; i++) {
            double expect = p[i] * DRAWS, slack = 5 * sqrt(expect + 1);
            inside += hits[ids[i]];
            assert_true(fabs(hits[ids[i]] - expect) <= slack);
        }
        assert_int_equal(inside, DRAWS); /* nothing outside of what is allowed */
    }
}

static void a_draw_is_a_function_of_seed_and_position(void **state) {
    (void)state;
    static float logits[VOCAB];
    int differ = 0;
    random_logits(logits, 1);
    for (uint64_t i = 0; i < 200; i++) {
        struct sample_row row = plain_row();
        row.seed = 5;
        row.position = i;
        int32_t a = sample(logits, &row).token, b = sample(logits, &row).token;
        assert_int_equal(a, b);
        row.seed = 6;
        differ += sample(logits, &row).token != a;
    }
    assert_true(differ > 100);
}

static void greedy_takes_the_first_of_equals(void **state) {
    (void)state;
    float logits[VOCAB] = {0};
    struct sample_row row = plain_row();
    row.temperature = 0;
    logits[40] = logits[90] = logits[499] = 2;
    assert_int_equal(sample(logits, &row).token, 40);
}

static void penalties_change_what_was_seen(void **state) {
    (void)state;
    float logits[VOCAB] = {0};
    const int32_t seen[] = {3, 4, 5}, generated[] = {0, 1, 3};
    struct sample_row row = plain_row();
    row.temperature = 0;
    row.seen = seen;
    row.generated = generated;
    row.seen_count = 3;
    logits[3] = 2;
    logits[4] = 1.9f;
    logits[9] = 1.5f;
    assert_int_equal(sample(logits, &row).token, 3);
    row.repetition_penalty = 2; /* divides a positive logit: 1 and 0.95, below 1.5 */
    assert_int_equal(sample(logits, &row).token, 9);
    row.repetition_penalty = 1;
    row.presence_penalty = 1; /* of the prompt's token 3 nothing is taken */
    assert_int_equal(sample(logits, &row).token, 3);
    logits[3] = 0;
    assert_int_equal(sample(logits, &row).token, 9);
    row.presence_penalty = 0;
    row.frequency_penalty = 0.5f;
    logits[5] = 2.9f; /* three times: 1.4 left */
    assert_int_equal(sample(logits, &row).token, 9);
    for (int i = 0; i < VOCAB; i++) logits[i] = -1;
    logits[3] = -0.6f;
    row.frequency_penalty = 0;
    row.repetition_penalty = 2; /* multiplies a negative one: -1.2 */
    assert_int_equal(sample(logits, &row).token, 0);
}

static void unsound_rows_are_said(void **state) {
    (void)state;
    float logits[VOCAB] = {0};
    struct sample_row row = plain_row();
    logits[7] = NAN;
    assert_false(sample(logits, &row).finite);
    logits[7] = INFINITY;
    assert_false(sample(logits, &row).finite);
    logits[7] = -INFINITY;
    assert_true(sample(logits, &row).finite);
    for (int i = 0; i < VOCAB; i++) logits[i] = -INFINITY;
    assert_false(sample(logits, &row).finite);
}

static void logprobs_are_of_the_raw_row(void **state) {
    (void)state;
    static float logits[VOCAB];
    static int32_t ids[VOCAB];
    static double p[VOCAB];
    random_logits(logits, 8);
    struct sample_row row = plain_row(), all = plain_row();
    row.temperature = 0.1f;
    row.top_k = 3;
    row.top_count = 20;
    row.want_logprob = true;
    struct sample_result r = sample(logits, &row);
    assert_int_equal(allowed(logits, &all, ids, p), VOCAB);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(r.top_ids[i], ids[i]);
        assert_true(fabs((double)r.top_logprobs[i] - log(p[i])) < 1e-5);
        if (ids[i] == r.token) assert_true(r.top_logprobs[i] == r.logprob);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(a_draw_is_a_function_of_seed_and_position),
        cmocka_unit_test(greedy_takes_the_first_of_equals),
        cmocka_unit_test(penalties_change_what_was_seen),
        cmocka_unit_test(unsound_rows_are_said),
        cmocka_unit_test(logprobs_are_of_the_raw_row),
    };
    return cmocka_run_group_tests(tests, open_it, close_it);
}
