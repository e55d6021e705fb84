/* Stop strings: found wherever the text is cut, nothing of them let out, nothing else held for
 * ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/stop.h"

/* Feeds text in pieces of `step` bytes; returns what came out, and whether a stop was found. */
static bool run(const char *text, size_t step, const char *const *stops, size_t count,
                struct str *out) {
    struct stop_filter f;
    size_t n = strlen(text);
    bool found = false;
    stop_filter_init(&f, stops, count);
    str_clear(out);
    for (size_t i = 0; i < n && !found; i += step)
        found = stop_filter_add(&f, text + i, n - i < step ? n - i : step, out);
    if (!found) stop_filter_end(&f, out);
    stop_filter_free(&f);
    return found;
}

static void every_cut_gives_the_same(void **state) {
    (void)state;
    static const struct {
        const char *text, *stops[2], *out;
        size_t count;
        bool found;
    } cases[] = {
        {"hello world", {"wor"}, "hello ", 1, true},
        {"hello world", {"word"}, "hello world", 1, false},
        {"aaab", {"aab"}, "a", 1, true},
        {"abcabd", {"abd"}, "abc", 1, true},
        {"one two three", {"three", "two"}, "one ", 2, true},
        {"ends with th", {"the"}, "ends with th", 1, false},
        {"xUser:", {"\nUser:", "User:"}, "x", 2, true},
        {"", {"a"}, "", 1, false},
        {"no stops", {NULL}, "no stops", 0, false},
    };
    struct str out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t step = 1; step <= 13; step++) {
            bool found = run(cases[i].text, step, cases[i].stops, cases[i].count, &out);
            assert_int_equal(found, cases[i].found);
            assert_string_equal(out.data ? out.data : "", cases[i].out);
        }
    }
    str_free(&out);
}

static void holds_back_no_more_than_it_must(void **state) {
    (void)state;
    const char *stops[] = {"STOP"};
    struct stop_filter f;
    struct str out = {0};
    stop_filter_init(&f, stops, 1);
    stop_filter_add(&f, "abcST", 5, &out);
    assert_string_equal(out.data, "abc");
    stop_filter_add(&f, "x", 1, &out);
    assert_string_equal(out.data, "abcSTx");
    stop_filter_free(&f);
    str_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_gives_the_same),
        cmocka_unit_test(holds_back_no_more_than_it_must),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
