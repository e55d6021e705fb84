/* The pass of src/health on blocks whose numbers are known by hand; and the whole of it, called as
 * a command would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/json.h"
#include "health/health.h"
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

#define MODEL(name) IMP_SOURCE_DIR "/tests/data/models/" name

static void test_examine(void **state) {
    struct health_report report;
    struct imp_error err = {0};
    struct str json = {0};
    yyjson_doc *doc;
    (void)state;
    assert_int_equal(health_examine(MODEL("tiny-gqa-nvfp4"), MODEL("tiny-gqa"), 2, &report, &err),
                     0);
    assert_int_equal(report.count, 16);
    assert_int_equal(report.compared, 16);
    assert_int_equal(report.finding_count, 0);
    assert_int_equal(health_worst(&report), HEALTH_NOTE);
    health_report_json(&report, &json);
    assert_int_equal(json_read(json.data, json.size, "report", &doc, &err), 0);
    assert_int_equal(yyjson_arr_size(yyjson_obj_get(yyjson_doc_get_root(doc), "matrices")), 16);
    yyjson_doc_free(doc);
    str_free(&json);
    health_report_free(&report);
}

static void test_nothing_to_examine(void **state) {
    struct health_report report;
    struct imp_error err = {0};
    (void)state;
    assert_int_equal(health_examine("/nonexistent", NULL, 1, &report, &err), IMP_ERR_IO);
    assert_int_equal(health_examine(MODEL("tiny-gqa"), "/nonexistent", 1, &report, &err),
                     IMP_ERR_IO);
    assert_null(report.findings);
    health_report_free(&report);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outliers_dominate),
        cmocka_unit_test(test_scale_bytes),
        cmocka_unit_test(test_examine),
        cmocka_unit_test(test_nothing_to_examine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
