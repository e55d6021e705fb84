/* num/fp.h: every code decoded, every encoder against exact rounding. The expected values are made
 * here from each format's definition, in double, where every value of every format is exact. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "num/fp.h"

struct format {
    const char *name;
    int exponent_bits, mantissa_bits, bias;
    uint32_t max_code; /* largest finite magnitude */
    double (*decode)(uint32_t code);
    uint32_t (*encode)(float x);
    int overflows_to_inf; /* else saturates */
};

static double decode_bf16(uint32_t c) {
    return bf16_decode((uint16_t)c);
}
static double decode_fp16(uint32_t c) {
    return fp16_decode((uint16_t)c);
}
static double decode_e4m3(uint32_t c) {
    return e4m3_decode((uint8_t)c);
}
static double decode_e2m1(uint32_t c) {
    return e2m1_decode((uint8_t)c);
}
static uint32_t encode_bf16(float x) {
    return bf16_encode(x);
}
static uint32_t encode_fp16(float x) {
    return fp16_encode(x);
}
static uint32_t encode_e4m3(float x) {
    return e4m3_encode(x);
}
static uint32_t encode_e2m1(float x) {
    return e2m1_encode(x);
}

static const struct format FORMATS[] = {
    {"BF16", 8, 7, 127, 0x7F7F, decode_bf16, encode_bf16, 1},
    {"FP16", 5, 10, 15, 0x7BFF, decode_fp16, encode_fp16, 1},
    {"E4M3", 4, 3, 7, 0x7E, decode_e4m3, encode_e4m3, 0},
    {"E2M1", 2, 1, 1, 7, decode_e2m1, encode_e2m1, 0},
};
enum { FORMAT_COUNT = sizeof FORMATS / sizeof *FORMATS };

static uint32_t sign_bit(const struct format *f) {
    return 1u << (f->exponent_bits + f->mantissa_bits);
}

/* The value of a finite magnitude code, also one past max_code: where the next value would lie. */
static double magnitude(const struct format *f, uint32_t code) {
    int e = (int)(code >> f->mantissa_bits);
    double m = code & ((1u << f->mantissa_bits) - 1);
    double one = ldexp(1.0, f->mantissa_bits);
    return e == 0 ? ldexp(m / one, 1 - f->bias) : ldexp(1 + m / one, e - f->bias);
}

/* Round to nearest, ties to the even code, by searching the ordered codes. */
static uint32_t round_exactly(const struct format *f, float x) {
    double a = fabs((double)x);
    uint32_t sign = signbit(x) ? sign_bit(f) : 0, low = 0, high = f->max_code + 1;
    if (a >= magnitude(f, high)) {
        low = high;
    } else {
        while (high - low > 1) {
            uint32_t middle = (low + high) / 2;
            if (magnitude(f, middle) <= a) {
                low = middle;
            } else {
                high = middle;
            }
        }
        double below = a - magnitude(f, low), above = magnitude(f, low + 1) - a;
        if (below > above || (below == above && low & 1)) low++;
    }
    if (low > f->max_code && !f->overflows_to_inf) low = f->max_code;
    return sign | low;
}

static void expect_rounding(const struct format *f, float x) {
    uint32_t want = round_exactly(f, x), got = f->encode(x);
    if (want != got) fail_msg("%s of %a: %#x, should be %#x", f->name, (double)x, got, want);
}

static void expect_both_signs(const struct format *f, uint32_t bits) {
    expect_rounding(f, fp32_from_bits(bits));
    expect_rounding(f, fp32_from_bits(bits | 0x80000000u));
}

static void every_code_decodes(void **state) {
    (void)state;
    for (int i = 0; i < FORMAT_COUNT; i++) {
        const struct format *f = &FORMATS[i];
        for (uint32_t code = 0; code <= f->max_code; code++) {
            double plus = f->decode(code), minus = f->decode(code | sign_bit(f));
            assert_true(plus == magnitude(f, code) && !signbit(plus));
            assert_true(minus == -plus && signbit(minus));
        }
    }
    for (uint32_t code = 0; code < 255; code++)
        assert_true((double)e8m0_decode((uint8_t)code) == ldexp(1.0, (int)code - 127));
    assert_true(isnan(e8m0_decode(255)));
    assert_true(isnan(e4m3_decode(0x7F)) && isnan(e4m3_decode(0xFF)));
    assert_true(isinf(fp16_decode(0x7C00)) && fp16_decode(0xFC00) < 0);
    assert_true(isinf(bf16_decode(0x7F80)) && bf16_decode(0xFF80) < 0);
    for (uint32_t m = 1; m < 0x400; m++) assert_true(isnan(fp16_decode((uint16_t)(0x7C00 | m))));
    for (uint32_t m = 1; m < 0x80; m++) assert_true(isnan(bf16_decode((uint16_t)(0x7F80 | m))));
}

static void every_finite_code_round_trips(void **state) {
    (void)state;
    for (int i = 0; i < FORMAT_COUNT; i++) {
        const struct format *f = &FORMATS[i];
        for (uint32_t code = 0; code <= f->max_code; code++) {
            assert_int_equal(f->encode((float)f->decode(code)), code);
            assert_int_equal(f->encode((float)f->decode(code | sign_bit(f))), code | sign_bit(f));
        }
    }
    for (uint32_t code = 0; code < 255; code++)
        assert_int_equal(e8m0_encode(e8m0_decode((uint8_t)code)), code);
}

/* Every FP32 exponent with mantissas at the edges, around every power of two, and spread ones. */
static void every_exponent_rounds_exactly(void **state) {
    (void)state;
    for (int i = 0; i < FORMAT_COUNT; i++) {
        for (uint32_t e = 0; e < 255; e++) {
            for (int b = 0; b < 23; b++) {
                uint32_t bit = 1u << b;
                uint32_t mantissas[] = {
                    0, bit - 1, bit, bit + 1, 0x7FFFFFu - bit, 0x7FFFFFu ^ (bit - 1), 0x7FFFFFu};
                for (size_t m = 0; m < sizeof mantissas / sizeof *mantissas; m++)
                    expect_both_signs(&FORMATS[i], e << 23 | (mantissas[m] & 0x7FFFFFu));
            }
            for (uint32_t m = 0; m < 0x800000u; m += 32749)
                expect_both_signs(&FORMATS[i], e << 23 | m);
        }
    }
}

/* The midpoint of two neighbours, which FP32 holds exactly for all four, and the floats beside it;
 * the last midpoint is where overflow begins. */
static void every_tie_and_its_neighbours(void **state) {
    (void)state;
    for (int i = 0; i < FORMAT_COUNT; i++) {
        const struct format *f = &FORMATS[i];
        for (uint32_t code = 0; code <= f->max_code; code++) {
            double middle = (magnitude(f, code) + magnitude(f, code + 1)) / 2;
            uint32_t bits = fp32_bits((float)middle);
            assert_true((double)fp32_from_bits(bits) == middle);
            for (int32_t d = -2; d <= 2; d++) expect_both_signs(f, (uint32_t)((int32_t)bits + d));
            uint32_t exact = fp32_bits((float)magnitude(f, code));
            expect_both_signs(f, exact + 1);
            if (exact > 0) expect_both_signs(f, exact - 1);
        }
    }
}

static void specials(void **state) {
    (void)state;
    static const uint32_t nans[] = {0x7FC00000u, 0x7F800001u, 0x7FFFFFFFu, 0x7FBFFFFFu};
    assert_int_equal(bf16_encode(INFINITY), 0x7F80);
    assert_int_equal(bf16_encode(-INFINITY), 0xFF80);
    assert_int_equal(fp16_encode(INFINITY), 0x7C00);
    assert_int_equal(fp16_encode(-INFINITY), 0xFC00);
    assert_int_equal(e4m3_encode(INFINITY), 0x7E);
    assert_int_equal(e4m3_encode(-INFINITY), 0xFE);
    assert_int_equal(e2m1_encode(INFINITY), 7);
    assert_int_equal(e2m1_encode(-INFINITY), 15);
    assert_int_equal(e8m0_encode(INFINITY), 0xFE);
    for (int i = 0; i < FORMAT_COUNT; i++) {
        assert_int_equal(FORMATS[i].encode(0.0f), 0);
        assert_int_equal(FORMATS[i].encode(-0.0f), sign_bit(&FORMATS[i]));
    }
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) {
        for (uint32_t sign = 0; sign < 2; sign++) {
            float nan = fp32_from_bits(nans[i] | sign << 31);
            assert_true(isnan(bf16_decode(bf16_encode(nan))));
            assert_true(isnan(fp16_decode(fp16_encode(nan))));
            assert_int_equal(e4m3_encode(nan), 0x7F | sign << 7);
            assert_int_equal(e2m1_encode(nan), 7);
            assert_int_equal(e8m0_encode(nan), 0xFF);
        }
    }
}

/* Values where known encoders went wrong: exponent field 15 of E4M3 holds ordinary numbers. */
static void e4m3_known_values(void **state) {
    (void)state;
    static const struct {
        float x;
        uint8_t code;
    } cases[] = {
        {0x1p-10f, 0x00}, {0.001f, 0x01}, {0.0146f, 0x07}, {0.01562f, 0x08}, {1.0f, 0x38},
        {6.0f, 0x4C},     {240.0f, 0x77}, {247.9f, 0x77},  {248.0f, 0x78},   {256.0f, 0x78},
        {300.0f, 0x79},   {416.0f, 0x7D}, {448.0f, 0x7E},  {464.0f, 0x7E},   {500.0f, 0x7E},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(e4m3_encode(cases[i].x), cases[i].code);
        assert_int_equal(e4m3_encode(-cases[i].x), cases[i].code | 0x80);
    }
}

static void e2m1_known_values(void **state) {
    (void)state;
    static const struct {
        float x;
        uint8_t code;
    } cases[] = {
        {0.25f, 0}, {0.2500001f, 1}, {0.75f, 2},   {1.25f, 2},  {1.75f, 4}, {2.5f, 4},
        {3.5f, 6},  {5.0f, 6},       {5.0001f, 7}, {100.0f, 7}, {-0.1f, 8}, {-3.0f, 13},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(e2m1_encode(cases[i].x), cases[i].code);
}

/* Nearest in value; the midpoint of 2^(c-127) and 2^(c-126) is 1.5 times the smaller. */
static void e8m0_rounds_to_the_nearest_power(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 254; code++) {
        uint32_t tie = fp32_bits((float)ldexp(1.5, (int)code - 127));
        assert_int_equal(e8m0_encode(fp32_from_bits(tie - 1)), code);
        assert_int_equal(e8m0_encode(fp32_from_bits(tie)), code + (code & 1));
        assert_int_equal(e8m0_encode(fp32_from_bits(tie + 1)), code + 1);
    }
    assert_int_equal(e8m0_encode(0x1.FFFFFEp127f), 0xFE);
    assert_int_equal(e8m0_encode(0.0f), 0);
    assert_int_equal(e8m0_encode(-0.0f), 0);
    assert_int_equal(e8m0_encode(-1.0f), 0);
    assert_int_equal(e8m0_encode(fp32_from_bits(1)), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_decodes),
        cmocka_unit_test(every_finite_code_round_trips),
        cmocka_unit_test(every_exponent_rounds_exactly),
        cmocka_unit_test(every_tie_and_its_neighbours),
        cmocka_unit_test(specials),
        cmocka_unit_test(e4m3_known_values),
        cmocka_unit_test(e2m1_known_values),
        cmocka_unit_test(e8m0_rounds_to_the_nearest_power),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
