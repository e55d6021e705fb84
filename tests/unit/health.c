/* The pass of src/health on blocks whose numbers are known by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "health/summary.h"

enum { COLS = 32 };

static struct weights_matrix examine(const uint8_t *codes, const uint8_t *scales, int64_t rows) {
    static struct pass_tables tables;
    float inputs[COLS] = {0}, outputs[8] = {0};
    struct pass pass = {.tables = &tables, .input_largest = inputs};
    struct list_view view = {.weight = {.format = WEIGHT_NVFP4,
                                        .rows = rows,
                                        .cols = COLS,
                                        .data = codes,
                                        .block_scale = scales,
                                        .multiplier = 0.5f},
                             .step = 1,
                             .rows = rows};
    struct weights_matrix m = {0};
    pass_tables_make(&tables);
    pass_rows(&pass, &view.weight, 0, 1, rows, outputs);
    summary_finish(&view, &pass, outputs, &m);
    return m;
}

static void test_outliers_dominate(void **state) {
    /* One 6 among zeros, under 1.0; one 6 among ones, under 448: single, but not dominated. */
    const uint8_t codes[16] = {0x70, 0,    0,    0,    0,    0,    0,    0,
                               0x2F, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22};
    const uint8_t scales[2] = {0x38, 0x7E};
    struct weights_matrix m = examine(codes, scales, 1);
    (void)state;
    assert_int_equal(m.blocks, 2);
    assert_int_equal(m.dominated, 1);
    assert_int_equal(m.single, 2);
    assert_int_equal(m.codes[0], 15);
    assert_int_equal(m.codes[7], 1);
    assert_int_equal(m.codes[15], 1);
    assert_int_equal(m.codes[2], 15);
    assert_int_equal(m.scales.saturated, 1);
    assert_true(m.largest == 6 * 448 * 0.5);
    assert_true(m.outputs.range == 1);
    assert_true(m.inputs.median == (3 + 224) / 2.0); /* 15 of 0, 3, 15 of 224, 1344 */
}

static void test_scale_bytes(void **state) {
    uint8_t codes[32];
    const uint8_t scales[4] = {0x7F, 0xFF, 0xB8, 0x00};
    memset(codes, 0x22, sizeof codes);
    struct weights_matrix m = examine(codes, scales, 2);
    (void)state;
    assert_int_equal(m.scales.nan, 2);
    assert_int_equal(m.scales.negative, 1);
    assert_int_equal(m.scales.zero, 1);
    assert_int_equal(m.scales.largest, 0x38);
    assert_true(m.largest == 0.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outliers_dominate),
        cmocka_unit_test(test_scale_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
