/* The integers that the GPU's sampler orders and weighs candidates by, on the host; and the hash.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/cuda/sample_order.h"
#include "base/rng.h"
#include "num/hash.h"

enum { TRIES = 200000 };

static float any_float(uint64_t i) {
    uint32_t r[4];
    rng_block(3, 0, i, r);
    return fp32_from_bits(r[0]);
}

static void keys_rise_with_logits(void **state) {
    (void)state;
    for (uint64_t i = 0; i < TRIES; i++) {
        const float a = any_float(2 * i), b = any_float(2 * i + 1);
        if (a != a || b != b) continue;
        assert_true((logit_key(a) < logit_key(b)) == (a < b));
        assert_true(logit_of_key(logit_key(a)) == a);
    }
    assert_true(logit_key(-0.0f) == logit_key(0.0f));
    assert_true(logit_key(NAN) > logit_key(INFINITY) && logit_key(-NAN) > logit_key(INFINITY));
    assert_false(logits_are_sound(logit_key(NAN)));
    assert_false(logits_are_sound(logit_key(INFINITY)));
    assert_false(logits_are_sound(logit_key(-INFINITY)));
    assert_true(logits_are_sound(logit_key(3.4e38f)) && logits_are_sound(logit_key(-3.4e38f)));
}

static void bins_cut_the_order(void **state) {
    (void)state;
    for (uint64_t i = 0; i < TRIES; i++) {
        const float x = i % 2 ? -fabsf(any_float(i)) : -(float)rng_uniform(1, 2, i) * 70;
        if (x != x) continue;
        const uint64_t order = order_of(distance_bits(x), ORDER_ID_MASK * (uint32_t)(i % 3 == 0));
        const int bin = bin_of(distance_bits(x));
        assert_true(order >= bin_start(bin) && order < bin_start(bin + 1));
    }
    assert_int_equal(bin_of(distance_bits(-0.0f)), 0);
    assert_int_equal(bin_of(DISTANCE_NEVER), BIN_TAIL);
    assert_int_equal(bin_of(0x7FFFFFFF), BIN_TAIL); /* NaN */
    for (int b = 0; b < BINS; b++) assert_true(bin_start(b) < bin_start(b + 1));
}

static void masses_fit_and_fall(void **state) {
    (void)state;
    static const int64_t counts[] = {1, 2, 3, 500, 151936, 1 << 24};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        const float scale = mass_scale(counts[c]);
        const uint64_t most = mass_of(0, scale);
        assert_true((double)most * (double)counts[c] < 0x1p63);
        assert_true((double)most * (double)counts[c] > 0x1p61 || counts[c] == 3);
        assert_int_equal(mass_of(DISTANCE_NEVER, scale), 0);
        for (uint64_t i = 0; i < 20000; i++) {
            const float d = (float)rng_uniform(1, 5, i) * 64;
            const double exact = exp(-(double)d) * (double)scale;
            const uint64_t mass = mass_of(fp32_bits(d), scale);
            assert_true(fabs((double)mass - exact) <= exact * 0x1p-22 + 1);
        }
    }
    assert_true(mass_share(0, 100, false) == 1 && mass_share(0.999999, 100, false) == 100);
    assert_true(mass_share(0.5, 100, true) == 50 && mass_share(0.501, 100, true) == 51);
    assert_true(mass_share(0, 100, true) == 1 && mass_share(1, 100, true) == 100);
}

static void the_first_that_reaches(void **state) {
    (void)state;
    const uint64_t sums[] = {0, 0, 3, 3, 9};
    assert_int_equal(first_at_least(sums, 5, 0), 0);
    assert_int_equal(first_at_least(sums, 5, 1), 2);
    assert_int_equal(first_at_least(sums, 5, 3), 2);
    assert_int_equal(first_at_least(sums, 5, 9), 4);
    assert_int_equal(first_at_least(sums, 5, 10), 5);
    assert_int_equal(first_at_least(sums, 0, 1), 0);
}

/* One bit of one element, two elements that change places, one that moves: other words. */
static void the_hash_sees_what_changes(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 1000; i++) {
        const float x = any_float(i), y = any_float(i + 5000);
        const uint64_t here = hash_element(x, i) + hash_element(y, i + 1);
        for (int bit = 0; bit < 32; bit++)
            assert_true(hash_element(x, i) !=
                        hash_element(fp32_from_bits(fp32_bits(x) ^ 1u << bit), i));
        assert_true(here != hash_element(y, i) + hash_element(x, i + 1));
        assert_true(hash_element(x, i) != hash_element(x, i + 1));
        assert_true(hash_element(0.0f, i) != hash_element(-0.0f, i));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_rise_with_logits),      cmocka_unit_test(bins_cut_the_order),
        cmocka_unit_test(masses_fit_and_fall),        cmocka_unit_test(the_first_that_reaches),
        cmocka_unit_test(the_hash_sees_what_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
