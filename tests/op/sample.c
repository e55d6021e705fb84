/* The sampler against its definition written plainly: sort everything, filter, compare. */
#include "op/harness.h"

enum { VOCAB = 500, LOGIT_ROWS = 7 };

/* The GPU, or what stands in for it, if it is asked for; else the reference, whose sampler the fast
 * backend shares. */
static struct backend *be;
static float *given; /* [LOGIT_ROWS, VOCAB] of ops */

static int open_it(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(TARGETS) && be == NULL; i++) {
        if (test_gpu() == NULL || TARGETS[i].asked) be = target_open(&TARGETS[i], 1);
    }
    given = floats(LOGIT_ROWS * VOCAB);
    return be ? 0 : -1;
}

static int close_it(void **state) {
    (void)state;
    op_free(given);
    backend_close(be);
    return 0;
}

/* Rows of what is in `given`. */
static void sample_rows(const int32_t *row, const struct sample_row *params, int count,
                        struct sample_result *results) {
    be->ops->step_begin(be, &(struct batch){.rows = LOGIT_ROWS, .out_rows = LOGIT_ROWS});
    be->ops->sample(be, &(struct op_sample){given, VOCAB, VOCAB, row, params, results, count});
    end_step(be);
}

static struct sample_result sample(const float *logits, const struct sample_row *row) {
    struct sample_result result;
    const int32_t zero = 0;
    memcpy(given, logits, VOCAB * sizeof *given);
    sample_rows(&zero, row, 1, &result);
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

/* Many rows at once, in any order, some twice: each as if it were alone. */
static void rows_do_not_meet(void **state) {
    (void)state;
    static const int32_t rows[] = {3, 0, 6, 3, 5, 1};
    enum { COUNT_ROWS = sizeof rows / sizeof rows[0] };
    static float logits[LOGIT_ROWS][VOCAB];
    static const int32_t seen[] = {7, 1, 400}, generated[] = {0, 2, 1};
    struct sample_row params[COUNT_ROWS];
    struct sample_result together[COUNT_ROWS];
    memset(together, 0, sizeof together);
    for (uint64_t r = 0; r < LOGIT_ROWS; r++) random_logits(logits[r], 60 + r);
    logits[5][77] = NAN;
    for (int i = 0; i < COUNT_ROWS; i++) {
        params[i] = plain_row();
        params[i].temperature = (float)(i % 3) * 0.5f;
        params[i].top_k = i % 2 ? 40 : 0;
        params[i].top_p = i % 4 == 2 ? 0.9f : 1;
        params[i].seed = 3;
        params[i].position = (uint64_t)i;
        params[i].top_count = 4 * i;
        params[i].want_logprob = i % 3 != 1;
        if (i < 2) continue;
        params[i].seen = seen;
        params[i].generated = generated;
        params[i].seen_count = 3;
        params[i].repetition_penalty = 1.3f;
    }
    memcpy(given, logits, sizeof logits);
    sample_rows(rows, params, COUNT_ROWS, together);
    for (int i = 0; i < COUNT_ROWS; i++) {
        struct sample_result alone = sample(logits[rows[i]], &params[i]);
        assert_int_equal(together[i].finite, alone.finite);
        assert_int_equal(alone.finite, rows[i] != 5);
        assert_true(together[i].logits_hash == alone.logits_hash);
        assert_int_equal(together[i].token, alone.token);
        if (!alone.finite || !params[i].want_logprob) continue;
        assert_true(together[i].logprob == alone.logprob);
        for (int k = 0; k < params[i].top_count; k++) {
            assert_int_equal(together[i].top_ids[k], alone.top_ids[k]);
            assert_true(together[i].top_logprobs[k] == alone.top_logprobs[k]);
        }
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
        cmocka_unit_test(rows_do_not_meet),
    };
    return cmocka_run_group_tests(tests, open_it, close_it);
}
