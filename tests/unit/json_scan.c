/* The byte-by-byte JSON scanner against yyjson: every short text over the letters that matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "text/json_scan.h"

static bool theirs(const char *text, size_t n) {
    yyjson_doc *doc = yyjson_read(text, n, YYJSON_READ_NUMBER_AS_RAW);
    bool whole = doc != NULL;
    yyjson_doc_free(doc);
    return whole;
}

static void compare_all(const char *letters, int longest, const char *before, const char *after) {
    const size_t count = strlen(letters);
    size_t digits[8] = {0};
    char text[64];
    unsigned long compared = 0;
    for (int n = 0; n <= longest; n++) {
        memset(digits, 0, sizeof digits);
        for (int carry = 0; carry == 0;) {
            size_t size = strlen(before);
            memcpy(text, before, size);
            for (int i = 0; i < n; i++) text[size++] = letters[digits[i]];
            memcpy(text + size, after, strlen(after) + 1);
            size += strlen(after);
            if (json_scan_whole((struct slice){text, size}) != theirs(text, size))
                fail_msg("\"%s\": the scanner says %d", text, !theirs(text, size));
            compared++;
            int i = 0;
            while (i < n && ++digits[i] == count) digits[i++] = 0;
            carry = i == n;
        }
    }
    print_message("%lu texts\n", compared);
}

static void brackets(void **state) {
    (void)state;
    compare_all("{}[],:\"1 S", 6, "", "");
    compare_all("{}[],:\"1S", 5, "[{\"a\":", "}]");
}

static void numbers(void **state) {
    (void)state;
    compare_all("-+.eE015 ", 6, "", "");
    compare_all("-.e01,]", 6, "[", "]");
}

static void strings_and_words(void **state) {
    (void)state;
    compare_all("\\\"/bux0aF", 5, "\"", "\"");
    compare_all("trufalsen", 5, "", "");
    compare_all("e,]l", 4, "[true,fals", "");
    compare_all(" \t\n\r", 4, "{\"a\"", ":null }");
}

static void depth_is_capped(void **state) {
    (void)state;
    char text[2 * CAP_JSON_DEPTH + 4];
    for (size_t depth = CAP_JSON_DEPTH - 1; depth <= CAP_JSON_DEPTH + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_int_equal(json_scan_whole((struct slice){text, 2 * depth}), depth <= CAP_JSON_DEPTH);
    }
}

static void control_characters_are_escaped(void **state) {
    (void)state;
    static const char text[] = "{\"a\n\": \"\t\x01\x1f\",\n\"b\": [1,\t2]}";
    struct json_scan s = {0};
    struct str out = {0};
    for (size_t i = 0; i < sizeof text - 1; i++) {
        json_scan_escape(&s, text[i], &out);
        assert_int_not_equal(json_scan_byte(&s, text[i]), JSON_SCAN_BROKEN);
    }
    assert_string_equal(out.data, "{\"a\\n\": \"\\t\\u0001\\u001f\",\n\"b\": [1,\t2]}");
    assert_true(theirs(out.data, out.size));
    str_free(&out);
}

static void strings_are_unescaped(void **state) {
    (void)state;
    static const struct {
        const char *inside, *text; /* NULL: is none */
    } cases[] = {{"", ""},
                 {"a\\\"\\\\\\/\\b\\f\\n\\r\\t", "a\"\\/\b\f\n\r\t"},
                 {"\\u00e9\\u20AC\\ud83d\\ude00", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"},
                 {"\\ud83d!\\ude00", "\xEF\xBF\xBD!\xEF\xBF\xBD"},
                 {"\\ud83d\\u0041", "\xEF\xBF\xBD"
                                    "A"},
                 {"\\ud83d\\u00", NULL},
                 {"\\u12", NULL},
                 {"\\x", NULL},
                 {"\\", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str out = {0};
        bool ok = json_unescape(slice_of(cases[i].inside), &out);
        assert_int_equal(ok, cases[i].text != NULL);
        if (ok) assert_string_equal(out.data ? out.data : "", cases[i].text);
        str_free(&out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brackets),
        cmocka_unit_test(numbers),
        cmocka_unit_test(strings_and_words),
        cmocka_unit_test(depth_is_capped),
        cmocka_unit_test(control_characters_are_escaped),
        cmocka_unit_test(strings_are_unescaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
