/* Markdown to ANSI: what every construct becomes, that cutting the text differently changes
 * nothing, that little is held back, and that no control character of the model reaches the
 * terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/markdown.h"

#define OFF  "\033[0m"
#define BOLD "\033[0;1m"
#define DIM  "\033[0;2m"
#define ITAL "\033[0;3m"
#define BOTH "\033[0;1;3m"
#define HEAD "\033[0;1;4m"
#define CODE "\033[0;36m"
#define RULE                                                                                       \
    "\u2500\u2500\u2500\u2500\u2500\u2500\u2500\u2500\u2500\u2500\u2500\u2500\u2500\u2500\u2500"   \
    "\u2500"

static const struct {
    const char *text, *shown;
} cases[] = {
    {"plain text\n", "plain text\n"},
    {"# One\nx", HEAD "One" OFF "\nx"},
    {"## Two *a*\n", BOLD "Two " BOTH "a" OFF "\n"},
    {"####### seven\n", "####### seven\n"},
    {"#include <x>\n", "#include <x>\n"},
    {"a **b** c", "a " BOLD "b" OFF " c"},
    {"a __b__ c", "a " BOLD "b" OFF " c"},
    {"a *b* _c_", "a " ITAL "b" OFF " " ITAL "c" OFF},
    {"***b***!", BOTH "b" OFF "!"},
    {"**a *b* c**", BOLD "a " BOTH "b" BOLD " c" OFF},
    {"snake_case_name", "snake_case_name"},
    {"2 * 3 * 4 and 2*3*4 and 2**8", "2 * 3 * 4 and 2*3*4 and 2**8"},
    {"open *never closed\nnext", "open " ITAL "never closed" OFF "\nnext"},
    {"use `x*y*z` now", "use " CODE "x*y*z" OFF " now"},
    {"``a`b``", CODE "a`b" OFF},
    {"**`c`**", "\033[0;1;36mc" OFF},
    {"\\*not\\* \\(x\\)", "*not* \\(x\\)"},
    {"- one\n  * two\n+ three",
     DIM "\u2022 " OFF "one\n  " DIM "\u2022 " OFF "two\n" DIM "\u2022 " OFF "three"},
    {"1. **x**", "1. " BOLD "x" OFF},
    {"-5 degrees", "-5 degrees"},
    {"> quoted\n>> twice", DIM "\u2502 " OFF "quoted\n" DIM "\u2502 \u2502 " OFF "twice"},
    {"---\nx\n***\n", DIM RULE OFF "\nx\n" DIM RULE OFF "\n"},
    {"---x", "---x"},
    {"```c\nint *a = *b;\n\n  x\n```\nend",
     DIM "```c" CODE "\nint *a = *b;\n\n  x\n" DIM "```" OFF "\nend"},
    {"~~~\n```\n~~~~\nx", DIM "~~~" CODE "\n```\n" DIM "~~~~" OFF "\nx"},
    {"````\n```\n````", DIM "````" CODE "\n```\n" DIM "````" OFF},
    {"- ```sh\n  ls\n  ```\n", DIM "\u2022 ```sh" CODE "\n  ls\n  " DIM "```" OFF "\n"},
    {"```\ncut off", DIM "```" CODE "\ncut off" OFF},
    {"```x``` y", DIM "```x" OFF " y"},
    {"\u65e5\u672c **\u8a9e** \U0001f600", "\u65e5\u672c " BOLD "\u8a9e" OFF " \U0001f600"},
    {"\033[31m\007\r\b\x7f\t|", "\u241b[31m\u2407\u240d\u2408\u2421\t|"},
    {"\xc2\x9b"
     "31m",
     "\ufffd31m"},
    {"a\xff"
     "b\xe6\x97",
     "a\ufffd"
     "b\ufffd\ufffd"},
    {"`\033]0;x\007`", CODE "\u241b]0;x\u2407" OFF},
    {"```\033[2J\n\033c\n```", DIM "```\u241b[2J" CODE "\n\u241b"
                                   "c\n" DIM "```" OFF},
};

static void render(struct markdown *m, const char *text, size_t bytes, size_t piece,
                   struct str *out) {
    str_clear(out);
    for (size_t i = 0; i < bytes; i += piece) {
        markdown_feed(m, text + i, bytes - i < piece ? bytes - i : piece, out);
    }
    markdown_end(m, out);
}

static void test_cases(void **state) {
    (void)state;
    struct str out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct markdown m = {.mode = MARKDOWN_COLOUR};
        for (size_t piece = 1; piece <= 5; piece++) {
            render(&m, cases[i].text, strlen(cases[i].text), piece, &out);
            assert_string_equal(out.size ? out.data : "", cases[i].shown);
        }
    }
    str_free(&out);
}

static void test_modes(void **state) {
    (void)state;
    static const char text[] = "# *a* \033[1m\n\xff";
    struct str out = {0};
    struct markdown m = {.mode = MARKDOWN_BYTES};
    render(&m, text, sizeof text - 1, 1, &out);
    assert_string_equal(out.data, text);
    m = (struct markdown){.mode = MARKDOWN_PLAIN};
    render(&m, text, sizeof text - 1, 1, &out);
    assert_string_equal(out.data, "# *a* \u241b[1m\n\ufffd");
    str_free(&out);
}

/* A word comes out before the next one is there, and a run of marks cannot hold up for ever. */
static void test_prompt(void **state) {
    (void)state;
    struct str out = {0};
    struct markdown m = {.mode = MARKDOWN_COLOUR};
    markdown_feed(&m, "Hello *wor", 10, &out);
    assert_string_equal(out.data, "Hello " ITAL "wor");
    for (int i = 0; i < 1000; i++) {
        markdown_feed(&m, "*", 1, &out);
        assert_true(m.held_bytes < MARKDOWN_HELD);
    }
    markdown_end(&m, &out);
    str_free(&out);
}

static bool is_ours(const char *p, size_t n, size_t *bytes) {
    size_t at = 2;
    if (n < 4 || p[1] != '[' || p[2] != '0') return false;
    while (at < n && (p[at] == ';' || (p[at] >= '0' && p[at] <= '9'))) at++;
    *bytes = at + 1;
    return at < n && p[at] == 'm';
}

/* Random texts of marks, controls and broken UTF-8: however they are cut, the same bytes; nothing
 * but our own styles, tabs and newlines is a control; the last style is off. */
static void test_random(void **state) {
    (void)state;
    static const char alphabet[] = "**__``~~#>- \n\nab1\\\033[m\x9b\xc2\xe6\x97\xa5\x00\r";
    struct str whole = {0}, cut = {0};
    srand(1);
    for (int round = 0; round < 3000; round++) {
        char text[200];
        size_t bytes = (size_t)rand() % sizeof text;
        for (size_t i = 0; i < bytes; i++) {
            text[i] = alphabet[(size_t)rand() % (sizeof alphabet - 1)];
        }
        struct markdown m = {.mode = MARKDOWN_COLOUR};
        render(&m, text, bytes, sizeof text, &whole);
        render(&m, text, bytes, 1 + (size_t)rand() % 7, &cut);
        assert_int_equal(whole.size, cut.size);
        if (whole.size == 0) continue;
        assert_memory_equal(whole.data, cut.data, whole.size);
        assert_true(utf8_valid(whole.data, whole.size));
        bool styled = false;
        for (size_t i = 0, used = 1; i < whole.size; i += used, used = 1) {
            unsigned char c = (unsigned char)whole.data[i];
            if (c == 033) {
                assert_true(is_ours(whole.data + i, whole.size - i, &used));
                styled = used != sizeof OFF - 1;
                continue;
            }
            assert_true((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t');
            if (c == 0xc2) assert_true((unsigned char)whole.data[i + 1] >= 0xa0);
        }
        assert_false(styled);
    }
    str_free(&whole);
    str_free(&cut);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
