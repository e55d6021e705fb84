/* Replies that mean harm, or that a broken model repeats without end; and how soon text comes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/caps.h"
#include "support/reply_print.h"

static const struct reply_style every_style[] = {
    {REPLY_NONE, true},   {REPLY_HERMES, true},  {REPLY_QWEN_XML, true}, {REPLY_MISTRAL, true},
    {REPLY_LLAMA3, true}, {REPLY_GEMMA4, false}, {REPLY_HARMONY, false},
};
enum { STYLES = sizeof every_style / sizeof *every_style };

static void repeat(struct str *out, const char *text, size_t times) {
    for (size_t i = 0; i < times; i++) str_add_text(out, text);
}

static struct slice slice_str(const struct str *s) {
    return (struct slice){s->size ? s->data : "", s->size};
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- time ---- */

/* Anything that begins a marker costs what as much prose costs, about: 5 ms. What looked at all
 * that came before, at each byte, would take minutes. */
static void beginnings_of_markers_are_linear(void **state) {
    (void)state;
    static const char *const units[] = {
        "a",
        "\n",
        " ",
        "<",
        "[",
        "{",
        "<tool_call>",
        "<tool_call>\n",
        "<tool_call>{\"name\": \"",
        "[TOOL_CALLS]",
        "[TOOL_CALLS]f[CALL_ID]",
        "[TOOL_CALLS][",
        "<|tool_call>call:f{a:",
        "<|\"|>",
        "<|channel>",
        "<|channel>thought",
        "<|channel|>",
        "<|start|>assistant",
        "<|channel|>x<|message|>",
        "<function=f>",
        "<function=f><parameter=a>\n",
        "</parameter",
        "<think>",
        "</think>",
        "<|python_tag|>{",
        "{\"",
        ";",
        "\xF0\x9F\x98\x80",
    };
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        struct str text = {0};
        repeat(&text, units[u], (1u << 17) / strlen(units[u]));
        for (int s = 0; s < STYLES; s++) {
            struct reply_parts parts = {0};
            double before = seconds();
            reply_collect_parts(every_style[s], (struct slice){"", 0}, (struct slice){NULL, 0},
                                slice_str(&text), SIZE_MAX, &parts);
            double took = seconds() - before;
            if (took > 3) fail_msg("128 KiB of \"%s\" took %.1f s in format %d", units[u], took, s);
            reply_parts_free(&parts);
        }
        str_free(&text);
    }
}

/* ---- depth, sizes, counts ---- */

static void expect(struct reply_style style, const struct str *text, const char *begins,
                   const char *ends) {
    struct str got = {0};
    reply_print(style, (struct slice){"", 0}, (struct slice){NULL, 0}, slice_str(text), SIZE_MAX,
                &got);
    assert_non_null(got.data);
    if (!slice_starts(slice_str(&got), begins) || !slice_ends(slice_str(&got), ends))
        fail_msg("%.60s ... %s", got.data, got.data + (got.size > 60 ? got.size - 60 : 0));
    str_free(&got);
}

static void nesting_is_capped(void **state) {
    (void)state;
    struct str text = {0};
    str_add_text(&text, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": ");
    repeat(&text, "[", 100000);
    expect(every_style[REPLY_HERMES], &text, "F<f>A<{\"a\": [[", "[[[>");
    str_clear(&text);
    str_add_text(&text, "<|tool_call>call:f{a:");
    repeat(&text, "[", 100000);
    expect(every_style[REPLY_GEMMA4], &text, "F<f>A<{\"a\": [[", "[[[>");
    str_clear(&text);
    str_add_text(&text, "<|tool_call>call:f");
    repeat(&text, "{a:", CAP_JSON_DEPTH);
    str_add_text(&text, "1");
    repeat(&text, "}", CAP_JSON_DEPTH);
    expect(every_style[REPLY_GEMMA4], &text, "F<f>A<{\"a\": {", "}}}>E<>");
    str_free(&text);
}

static void what_waits_is_capped(void **state) {
    (void)state;
    struct str text = {0};
    str_add_text(&text, "<tool_call>{\"arguments\": {\"a\": \""); /* the name never comes */
    repeat(&text, "x", 2 * CAP_REPLY_HELD);
    expect(every_style[REPLY_HERMES], &text, "C<<tool_call>{\"arguments\": {\"a\": \"x", "xxx>");
    str_clear(&text);
    str_add_text(&text, "[TOOL_CALLS]");
    repeat(&text, "f", 2 * CAP_REPLY_NAME);
    str_add_text(&text, "[ARGS]{}");
    expect(every_style[REPLY_MISTRAL], &text, "C<[TOOL_CALLS]ff", "f[ARGS]{}>");
    str_clear(&text);
    str_add_text(&text, "<|channel|>");
    repeat(&text, "x", 8 * CAP_REPLY_NAME);
    expect(every_style[REPLY_HARMONY], &text, "C<<|channel|>xx", "xx>");
    str_clear(&text);
    repeat(&text, "\n", 2 * CAP_REPLY_BLANKS);
    str_add_text(&text, "<tool_call>{\"name\": \"f\"}");
    expect(every_style[REPLY_HERMES], &text, "C<\n\n", "\n>F<f>A<{}>E<>");
    str_free(&text);
}

static void calls_are_counted(void **state) {
    (void)state;
    struct str text = {0};
    repeat(&text, "[TOOL_CALLS]f[ARGS]{}", CAP_REPLY_CALLS + 1);
    expect(every_style[REPLY_MISTRAL], &text, "F<f>A<{}>E<>F<f>", "E<>C<[TOOL_CALLS]f[ARGS]{}>");
    str_clear(&text);
    str_add_text(&text, "[TOOL_CALLS][{\"name\": \"f\"}");
    repeat(&text, ", {\"name\": \"f\"}", CAP_REPLY_CALLS);
    expect(every_style[REPLY_MISTRAL], &text, "F<f>A<{}>E<>F<f>", "E<>C<, {\"name\": \"f\"}>");
    str_free(&text);
}

static const char tools[] =
    "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"l\": {\"type\": \"array\"}}}}]";

/* A value too long to wait for its end leaves as what it looks like until then. */
static void long_values_are_let_out(void **state) {
    (void)state;
    static const struct {
        const char *begins, *unit, *ends, *parts_begin, *parts_end;
    } cases[] = {
        {"[\"a\"", ", \"b\n\"", "]", "[\"a\", \"b\\n\"", "]}>E<>"},
        {"[\"a\"", ", \"b\"", " oops", "[\"a\", \"b\"", ">X<>C<oops\n</parameter>\n</function>>"},
        {"[\"a\"", ", \"b\"", ",", "[\"a\", \"b\"", ">X<>C<</parameter>\n</function>>"},
        {"['a'", ", \"b\n\"", "]", "\"['a', \\\"b\\n\\\"", "]\"}>E<>"},
        {"[1]", " ", "x", "[1] ", ">X<>C<x\n</parameter>\n</function>>"},
        {"text", " and", "", "\"text and", " and\"}>E<>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str text = {0}, got = {0}, want = {0};
        str_printf(&text, "<function=f><parameter=l>\n%s", cases[i].begins);
        repeat(&text, cases[i].unit, CAP_REPLY_HELD);
        str_printf(&text, "%s\n</parameter>\n</function>", cases[i].ends);
        str_printf(&want, "F<f>A<{\"l\": %s", cases[i].parts_begin);
        reply_print(every_style[REPLY_QWEN_XML], (struct slice){"", 0}, slice_of(tools),
                    slice_str(&text), SIZE_MAX, &got);
        if (!slice_starts(slice_str(&got), want.data) ||
            !slice_ends(slice_str(&got), cases[i].parts_end))
            fail_msg("case %zu: %.60s ... %s", i, got.data, got.data + got.size - 60);
        str_free(&text);
        str_free(&got);
        str_free(&want);
    }
}

/* ---- bytes ---- */

static void any_bytes_pass(void **state) {
    (void)state;
    char text[256 * 3];
    for (int i = 0; i < 256; i++) {
        text[3 * i] = text[3 * i + 1] = (char)i;
        text[3 * i + 2] = (char)(255 - i);
    }
    for (int s = 0; s < STYLES; s++) {
        if (s == REPLY_HARMONY) continue; /* its text has a header before it */
        for (size_t cut = 0; cut < 2; cut++) {
            struct reply_parts parts = {0};
            reply_collect_parts(every_style[s], (struct slice){"", 0}, (struct slice){NULL, 0},
                                (struct slice){text, sizeof text}, cut ? SIZE_MAX : 0, &parts);
            assert_int_equal(parts.count, 1);
            assert_int_equal(parts.text.size, sizeof text);
            assert_memory_equal(parts.text.data, text, sizeof text);
            reply_parts_free(&parts);
        }
    }
}

/* ---- RQ16: tools of a request that are no schema ---- */

static void tools_need_not_be_schemas(void **state) {
    (void)state;
    static const char *const odd[] = {
        "[]",
        "[1, null, \"f\", [], {}, {\"name\": 5}, {\"function\": 5, \"name\": \"f\"}]",
        "[{\"name\": \"f\", \"parameters\": 5}]",
        "[{\"name\": \"f\", \"parameters\": {\"properties\": []}}]",
        "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"n\": 5}}}]",
        "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"n\": {\"type\": 5}}}}]",
        "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"n\": {\"type\": [5, {}]}}}}]",
        "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"n\": {\"anyOf\": [1, {}]}}}}]",
        "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"n\": {\"pattern\": \"((\"}}}}]",
    };
    static const char text[] = "<function=f><parameter=n>\nx\n</parameter>\n</function>";
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        struct str got = {0};
        reply_print(every_style[REPLY_QWEN_XML], (struct slice){"", 0}, slice_of(odd[i]),
                    slice_of(text), SIZE_MAX, &got);
        assert_string_equal(got.data, "F<f>A<{\"n\": \"x\"}>E<>");
        str_free(&got);
    }
    static const char *const bad[] = {"{}", "5", "[", "[{\"a\": 1, \"a\": 2}]", "[] x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct reply *r = NULL;
        struct imp_error err;
        assert_int_equal(
            reply_open(every_style[1], (struct slice){"", 0}, slice_of(bad[i]), &r, &err),
            IMP_ERR_REQUEST);
        assert_null(r);
    }
    struct str many = {0};
    str_add_text(&many, "[");
    for (int i = 0; i < 10000; i++) str_printf(&many, "{\"name\": \"t%d\"}, ", i);
    str_add_text(&many, "{\"name\": \"f\"}]");
    struct str got = {0};
    reply_print(every_style[REPLY_QWEN_XML], (struct slice){"", 0}, slice_str(&many),
                slice_of(text), SIZE_MAX, &got);
    assert_string_equal(got.data, "F<f>A<{\"n\": \"x\"}>E<>");
    str_free(&many);
    str_free(&got);
}

/* ---- promptness and memory ---- */

/* What is certain is out; what may yet be a marker, or white space before one, waits. */
static void text_comes_as_soon_as_it_is_certain(void **state) {
    (void)state;
    static const struct {
        enum reply_format format;
        const char *text;
        size_t waits; /* bytes at the end */
    } cases[] = {
        {REPLY_HERMES, "Hello", 0},
        {REPLY_HERMES, "Hello ", 1},
        {REPLY_HERMES, "Hello \n<tool", 7},
        {REPLY_HERMES, "Hello <tooth", 0},
        {REPLY_HERMES, "a<", 1},
        {REPLY_HERMES, "a<<", 1},
        {REPLY_HERMES, "a <b> [x] {y}", 0},
        {REPLY_MISTRAL, "a[TOOL_", 6},
        {REPLY_MISTRAL, "a[TOOX", 0},
        {REPLY_GEMMA4, "a<|", 2},
        {REPLY_NONE, "<thin", 5},
        {REPLY_NONE, "a <think>", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct reply *r = NULL;
        struct reply_parts out = {0};
        struct reply_style style = {cases[i].format, true};
        assert_int_equal(
            reply_open(style, (struct slice){"", 0}, (struct slice){NULL, 0}, &r, NULL), 0);
        reply_feed(r, cases[i].text, strlen(cases[i].text), &out);
        if (out.text.size != strlen(cases[i].text) - cases[i].waits)
            fail_msg("\"%s\": %zu bytes are out", cases[i].text, out.text.size);
        reply_parts_free(&out);
        reply_close(r);
    }
}

/* Feeding allocates nothing, but where the caller's parts grow. */
static void feeding_allocates_nothing(void **state) {
    (void)state;
    static const char call[] =
        "<think>\nHm.\n</think>\n\nLook:\n\n<tool_call>\n<function=f>\n<parameter=l>\n[1, 'x']\n"
        "</parameter>\n<parameter=s>\na\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n"
        "{\"arguments\": {\"a\": \"b\"}, \"name\": \"g\", \"id\": \"i\"}\n</tool_call>\n";
    struct reply *r = NULL;
    struct reply_parts out = {0};
    reply_parts_reserve(&out, 64, 1 << 20);
    assert_int_equal(
        reply_open(every_style[REPLY_QWEN_XML], (struct slice){"", 0}, slice_of(tools), &r, NULL),
        0);
    uint64_t before = mem_calls();
    for (int i = 0; i < 100; i++) {
        reply_feed(r, call, sizeof call - 1, &out);
        reply_parts_clear(&out);
    }
    assert_int_equal(mem_calls(), before);
    reply_parts_free(&out);
    reply_close(r);
}

static void the_template_tells_the_style(void **state) {
    (void)state;
    static const struct {
        const char *name;
        struct reply_style style;
    } cases[] = {
        {"Qwen3-0.6B", {REPLY_HERMES, true}},
        {"Qwen2.5-7B-Instruct", {REPLY_HERMES, true}},
        {"granite-4.0", {REPLY_HERMES, true}},
        {"Qwen3-Coder", {REPLY_QWEN_XML, true}},
        {"Qwen3.5-4B", {REPLY_QWEN_XML, true}},
        {"Qwen3.6-35B-A3B", {REPLY_QWEN_XML, true}},
        {"Mistral-Small-3.2-24B-Instruct-2506", {REPLY_MISTRAL, false}},
        {"mistral-common-v13_think", {REPLY_MISTRAL, false}},
        {"gpt-oss-120b", {REPLY_HARMONY, false}},
        {"SmolLM2-Instruct", {REPLY_NONE, false}},
        {"Phi-3.5-mini-instruct", {REPLY_NONE, false}},
        {"DeepSeek-R1-Distill-Qwen-32B", {REPLY_NONE, true}},
        {"GLM-4.6", {REPLY_NONE, true}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[1024], text[65536];
        snprintf(path, sizeof path, "%s/tests/data/chat-templates/%s.jinja", IMP_SOURCE_DIR,
                 cases[i].name);
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        size_t n = fread(text, 1, sizeof text, f);
        fclose(f);
        struct reply_style style = reply_style_of((struct slice){text, n});
        if (style.format != cases[i].style.format || style.think != cases[i].style.think)
            fail_msg("%s: format %d, think %d", cases[i].name, (int)style.format, style.think);
    }
    assert_int_equal(reply_style_of(slice_of("<|turn>model <|tool_call>call:")).format,
                     REPLY_GEMMA4);
    assert_int_equal(
        reply_style_of(slice_of("<|start_header_id|> {\"name\": x, \"parameters\": y}")).format,
        REPLY_LLAMA3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beginnings_of_markers_are_linear),
        cmocka_unit_test(nesting_is_capped),
        cmocka_unit_test(what_waits_is_capped),
        cmocka_unit_test(calls_are_counted),
        cmocka_unit_test(long_values_are_let_out),
        cmocka_unit_test(any_bytes_pass),
        cmocka_unit_test(tools_need_not_be_schemas),
        cmocka_unit_test(text_comes_as_soon_as_it_is_certain),
        cmocka_unit_test(feeding_allocates_nothing),
        cmocka_unit_test(the_template_tells_the_style),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
