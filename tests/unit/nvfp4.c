/* num/nvfp4: blocks decoded by hand, the edge cases of real files, and quantising there and back.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "num/fp.h"
#include "num/nvfp4.h"

static const float VALUES[16] = {0,     .5f,  1,  1.5f,  2,  3,  4,  6,
                                 -0.0f, -.5f, -1, -1.5f, -2, -3, -4, -6};

/* Low nibble first; two blocks with different scales under one multiplier. */
static void nibbles_and_scales_in_their_order(void **state) {
    (void)state;
    uint8_t codes[16];
    for (int i = 0; i < 8; i++) codes[i] = codes[8 + i] = (uint8_t)(2 * i | (2 * i + 1) << 4);
    const uint8_t scales[2] = {0x3C, 0x7E}; /* 1.5 and 448 */
    float out[32];
    nvfp4_dequantize_row(codes, scales, 1.0f / 2688.0f, 32, out);
    for (int k = 0; k < 16; k++) {
        assert_true(out[k] == VALUES[k] * 1.5f * (1.0f / 2688.0f));
        assert_true(out[16 + k] == VALUES[k] * 448.0f * (1.0f / 2688.0f));
    }
    assert_true(signbit(out[8]) && out[8] == 0); /* code 8 is -0 */
}

/* A scale byte 0 makes zeros whatever the codes; a byte of a repaired NaN (0x7E) is 448; the sign
 * bit is not part of a scale. */
static void odd_scale_bytes(void **state) {
    (void)state;
    uint8_t codes[8], scale = 0;
    memset(codes, 0xF7, sizeof codes); /* 6, -6 */
    float out[16];
    nvfp4_dequantize_row(codes, &scale, 3.0f, 16, out);
    for (int k = 0; k < 16; k++) assert_true(out[k] == 0);
    scale = 0x38 | 0x80;
    nvfp4_dequantize_row(codes, &scale, 1.0f, 16, out);
    assert_true(out[0] == 6 && out[1] == -6);
    /* The NaN bytes differ in the sign bit alone, so both must read as the same NaN: loading
     * refuses or repairs them before a row is ever expanded. */
    for (int sign = 0; sign < 2; sign++) {
        scale = (uint8_t)(0x7F | sign << 7);
        nvfp4_dequantize_row(codes, &scale, 1.0f, 16, out);
        assert_true(isnan(out[0]) && isnan(out[1]));
    }
}

/* Every code under every scale: exact in BF16 and FP16 after a power of two, as the contract says.
 */
static void a_product_has_six_bits(void **state) {
    (void)state;
    for (int scale = 0; scale < 0x7F; scale++) {
        for (int code = 0; code < 16; code++) {
            float w = e2m1_decode((uint8_t)code) * e4m3_decode((uint8_t)scale);
            assert_true(bf16_round(w) == w);
            assert_true(fp16_decode(fp16_encode(w)) == w);
        }
    }
}

static void zero_blocks(void **state) {
    (void)state;
    float x[16] = {0}, out[16];
    x[3] = -0.0f;
    uint8_t codes[8], scale;
    nvfp4_quantize_row(x, 0.01f, 16, codes, &scale);
    assert_int_equal(scale, 0x38);
    nvfp4_dequantize_row(codes, &scale, 0.01f, 16, out);
    for (int k = 0; k < 16; k++) assert_true(out[k] == 0);
    assert_int_equal(nvfp4_scale_byte(0, 1), 0x38);
    assert_int_equal(nvfp4_scale_byte(NAN, 1), 0x38);
    /* A block under scale 0 codes as zero without dividing. */
    for (int k = 0; k < 16; k++) x[k] = 5;
    nvfp4_encode_block(x, 0, 1.0f, codes);
    for (int i = 0; i < 8; i++) assert_int_equal(codes[i], 0);
    assert_true(nvfp4_block_error(x, NULL, 0, 1.0f) == 16 * 25);
}

static void scale_bytes(void **state) {
    (void)state;
    assert_int_equal(nvfp4_scale_byte(6.0f, 1.0f), 0x38);
    assert_int_equal(nvfp4_scale_byte(6.0f * 448, 1.0f), 0x7E);
    assert_int_equal(nvfp4_scale_byte(1e30f, 1.0f), 0x7E);
    assert_int_equal(nvfp4_scale_byte(INFINITY, 1.0f), 0x7E);
    assert_int_equal(nvfp4_scale_byte(6.0f * 248, 1.0f), 0x78); /* a tie: to even */
    assert_int_equal(nvfp4_scale_byte(1e-12f, 1.0f), 1); /* never 0 for a block with values */
    for (int byte = 1; byte < 0x7F; byte++)
        assert_int_equal(nvfp4_scale_byte(6 * e4m3_decode((uint8_t)byte), 1.0f), byte);
}

/* Values that NVFP4 holds come back to the bit, codes and scales too: every scale byte, 6 present.
 */
static void exact_blocks_round_trip(void **state) {
    (void)state;
    for (int byte = 1; byte < 0x7F; byte++) {
        for (int e = -20; e <= 4; e += 4) {
            float multiplier = ldexpf(1.0f, e), x[16], out[16];
            uint8_t codes[8], back[8], scale = (uint8_t)byte, scale_back;
            for (int i = 0; i < 8; i++) codes[i] = (uint8_t)(2 * i | (2 * i + 1) << 4);
            nvfp4_dequantize_row(codes, &scale, multiplier, 16, x);
            nvfp4_quantize_row(x, multiplier, 16, back, &scale_back);
            assert_int_equal(scale_back, scale);
            assert_memory_equal(back, codes, 8);
            nvfp4_dequantize_row(back, &scale_back, multiplier, 16, out);
            assert_memory_equal(out, x, sizeof x);
            assert_true(nvfp4_block_error(x, NULL, scale, multiplier) == 0);
        }
    }
}

/* Each code is the nearest of the 16 values under its scale, and the block's error says the same as
 * expanding it. */
static void random_blocks_take_the_nearest_value(void **state) {
    (void)state;
    enum { N = 16 * 500 };
    static float x[N], out[N];
    static uint8_t codes[N / 2], scales[N / 16];
    float amax = 0;
    for (int k = 0; k < N; k++) {
        x[k] = (float)rng_normal(1, 2, (uint64_t)k) * 0.02f;
        amax = fmaxf(amax, fabsf(x[k]));
    }
    float multiplier = amax * NVFP4_AMAX_TO_MULTIPLIER;
    nvfp4_quantize_row(x, multiplier, N, codes, scales);
    nvfp4_dequantize_row(codes, scales, multiplier, N, out);
    for (int b = 0; b < N / 16; b++) {
        double sum = 0, step = (double)e4m3_decode(scales[b]) * multiplier;
        for (int k = 16 * b; k < 16 * b + 16; k++) {
            double error = fabs((double)x[k] - out[k]);
            for (int v = 0; v < 16; v++)
                assert_true(error <= fabs(x[k] - VALUES[v] * step) * (1 + 1e-5) + 1e-8);
            sum += error * error;
        }
        double said = nvfp4_block_error(x + 16 * b, NULL, scales[b], multiplier);
        assert_true(fabs(said - sum) <= 1e-4 * sum + 1e-16);
    }
}

static void weights_of_the_error(void **state) {
    (void)state;
    float x[16] = {0}, h[16] = {0};
    x[0] = 1.25f, x[1] = 6, h[0] = 4;
    /* 1.25 codes as 1 under scale 1: error 1/16, four times. */
    assert_true(nvfp4_block_error(x, h, 0x38, 1.0f) == 0.25f);
    assert_true(nvfp4_block_error(x, NULL, 0x38, 1.0f) == 0.0625f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nibbles_and_scales_in_their_order),
        cmocka_unit_test(odd_scale_bytes),
        cmocka_unit_test(a_product_has_six_bits),
        cmocka_unit_test(zero_blocks),
        cmocka_unit_test(scale_bytes),
        cmocka_unit_test(exact_blocks_round_trip),
        cmocka_unit_test(random_blocks_take_the_nearest_value),
        cmocka_unit_test(weights_of_the_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
