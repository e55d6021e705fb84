/* The table of settings: every row parses its own default; ranges and spellings; nearest key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/options.h"

static void every_default_is_accepted(void **state) {
    (void)state;
    struct imp_options *options = imp_options_new();
    struct imp_option_info row;
    struct imp_error err;
    size_t n = 0;
    for (; imp_options_describe(n, &row) == 0; n++) {
        assert_non_null(strchr(row.key, '.'));
        assert_true(strlen(row.help) > 5);
        assert_int_equal(imp_options_set(options, row.key, row.default_value, &err), 0);
    }
    assert_int_equal(n, SETTING_COUNT);
    struct imp_options fresh;
    options_default(&fresh);
    assert_memory_equal(fresh.value, options->value, sizeof fresh.value);
    imp_options_free(options);
}

static void values_are_checked(void **state) {
    (void)state;
    static const struct {
        const char *key, *value;
        int rc;
        enum setting setting;
        int64_t want;
    } cases[] = {
        {"runtime.threads", "3", 0, SETTING_THREADS, 3},
        {"runtime.threads", "-1", IMP_ERR_USAGE, 0, 0},
        {"runtime.threads", "3x", IMP_ERR_USAGE, 0, 0},
        {"runtime.threads", "", IMP_ERR_USAGE, 0, 0},
        {"runtime.threads", " 3", IMP_ERR_USAGE, 0, 0},
        {"runtime.threads", "99999999999999999999", IMP_ERR_USAGE, 0, 0},
        {"runtime.reference", "true", 0, SETTING_REFERENCE, REFERENCE_TRUE},
        {"runtime.reference", "rounded", 0, SETTING_REFERENCE, REFERENCE_ROUNDED},
        {"runtime.reference", "tru", IMP_ERR_USAGE, 0, 0},
        {"runtime.warmup", "off", 0, SETTING_WARMUP, 0},
        {"runtime.warmup", "maybe", IMP_ERR_USAGE, 0, 0},
        {"kv.memory", "512M", 0, SETTING_KV_MEMORY, 512LL << 20},
        {"kv.memory", "2GiB", 0, SETTING_KV_MEMORY, 2LL << 30},
        {"kv.memory", "1000", 0, SETTING_KV_MEMORY, 1000},
        {"kv.memory", "9999999T", IMP_ERR_USAGE, 0, 0},
        {"kv.memory", "2Q", IMP_ERR_USAGE, 0, 0},
        {"kv.dtype", "fp8", 0, SETTING_KV_DTYPE, KV_FP8},
        {"kv.dtype", "bf16|fp8", IMP_ERR_USAGE, 0, 0},
        {"text.now", "2024-07-26T10:30:00", 0, SETTING_NOW, 1721989800},
        {"text.now", "1970-01-01", 0, SETTING_NOW, 0},
        {"text.now", "2000-02-29T23:59:59Z", 0, SETTING_NOW, 951868799},
        {"text.now", "86400", 0, SETTING_NOW, 86400},
        {"text.now", "2024-13-01", IMP_ERR_USAGE, 0, 0},
        {"text.now", "yesterday", IMP_ERR_USAGE, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct imp_options *options = imp_options_new();
        struct imp_error err = {0};
        assert_int_equal(imp_options_set(options, cases[i].key, cases[i].value, &err), cases[i].rc);
        if (cases[i].rc == 0) {
            assert_int_equal(options->value[cases[i].setting], cases[i].want);
        } else {
            assert_non_null(strstr(err.message, cases[i].key));
        }
        imp_options_free(options);
    }
}

static void texts_are_copied(void **state) {
    (void)state;
    struct imp_options *options = imp_options_new(), copy;
    struct imp_error err = {0};
    char path[] = "/tmp/a=b c";
    char longest[SETTING_TEXT_BYTES + 1];
    assert_null(options_setting_text(options, SETTING_TRACE));
    assert_int_equal(imp_options_set(options, "debug.trace", path, &err), 0);
    path[0] = 'x';
    copy = *options;
    imp_options_free(options);
    assert_string_equal(options_setting_text(&copy, SETTING_TRACE), "/tmp/a=b c");
    memset(longest, 'p', sizeof longest);
    longest[SETTING_TEXT_BYTES] = 0;
    assert_int_equal(imp_options_set(&copy, "debug.trace", longest, &err), IMP_ERR_USAGE);
    assert_non_null(strstr(err.message, "4095 bytes"));
    assert_string_equal(options_setting_text(&copy, SETTING_TRACE), "/tmp/a=b c");
    longest[SETTING_TEXT_BYTES - 1] = 0;
    assert_int_equal(imp_options_set(&copy, "debug.trace", longest, &err), 0);
    assert_string_equal(options_setting_text(&copy, SETTING_TRACE), longest);
    assert_int_equal(imp_options_set(&copy, "debug.trace", "", &err), 0);
    assert_null(options_setting_text(&copy, SETTING_TRACE));
}

static void unknown_keys_name_the_nearest(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"runtime.thread", "runtime.threads"},
                                           {"kv.dtyp", "kv.dtype"},
                                           {"runtime.prefil_chunk", "runtime.prefill_chunk"},
                                           {"numeric.activation", "numerics.activations"}};
    struct imp_options *options = imp_options_new();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct imp_error err = {0};
        assert_int_equal(imp_options_set(options, cases[i][0], "1", &err), IMP_ERR_USAGE);
        assert_non_null(strstr(err.message, cases[i][1]));
    }
    imp_options_free(options);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_default_is_accepted),
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(texts_are_copied),
        cmocka_unit_test(unknown_keys_name_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
