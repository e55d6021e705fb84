/* Time and stack: a megabyte of one thing in linear time on 64 KiB of stack, and a file of 33 MB in
 * a second. Times are the thread's own, so neighbours do not count; the bounds on texts are tens of
 * times what is needed, while anything quadratic would take hours. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "text/regex.h"
#include "text/tokenizer.h"

#define DATA IMP_SOURCE_DIR "/tests/data/tokenizer/"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { SLOWER = 10 };
#else
enum { SLOWER = 1 };
#endif

static double thread_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static struct tokenizer *load(const char *family) {
    char folder[400];
    struct imp_error err = {0};
    struct tokenizer *t = NULL;
    snprintf(folder, sizeof folder, DATA "%s", family);
    if (tokenizer_load(folder, NULL, &t, &err) < 0) fail_msg("%s: %s", err.where, err.message);
    return t;
}

struct job {
    const struct tokenizer *t;
    const struct str *text;
    double encode_s, decode_s;
    size_t decoded_bytes;
};

static void *there_and_back(void *arg) {
    struct job *job = arg;
    struct ids ids = {0};
    struct str out = {0};
    double from = thread_s();
    tokenizer_encode(job->t, job->text->data, job->text->size, NULL, 0, 0, &ids);
    job->encode_s = thread_s() - from;
    from = thread_s();
    tokenizer_decode(job->t, ids.data, ids.count, false, &out);
    job->decode_s = thread_s() - from;
    job->decoded_bytes = out.size;
    ids_free(&ids);
    str_free(&out);
    return NULL;
}

/* The unit, a megabyte long, as files of different kinds read it. */
static void a_megabyte_of(const char *unit) {
    static const char *const families[] = {"qwen2", "tekken", "gemma", "llama2", "oddments"};
    struct str text = {0};
    pthread_attr_t attr;
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstacksize(&attr, 64 << 10), 0);
    while (text.size < 1000000) str_add_text(&text, unit);
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        struct tokenizer *t = load(families[f]);
        struct job job = {.t = t, .text = &text};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, &attr, there_and_back, &job), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        if (job.encode_s > 4 * SLOWER || job.decode_s > 4 * SLOWER)
            fail_msg("%s: %.1f s to encode, %.1f s to decode", families[f], job.encode_s,
                     job.decode_s);
        tokenizer_free(t);
    }
    str_free(&text);
    pthread_attr_destroy(&attr);
}

static void tk05_a_letter(void **state) {
    (void)state;
    a_megabyte_of("a");
}

static void tk05_capitals(void **state) {
    (void)state;
    a_megabyte_of("Z");
}

static void tk05_newlines(void **state) {
    (void)state;
    a_megabyte_of("\n");
}

static void tk05_spaces(void **state) {
    (void)state;
    a_megabyte_of(" ");
}

static void tk05_spaces_and_newlines(void **state) {
    (void)state;
    a_megabyte_of("\t\n");
}

static void tk05_chinese(void **state) {
    (void)state;
    a_megabyte_of("\u4e2d");
}

static void tk05_an_emoji(void **state) {
    (void)state;
    a_megabyte_of("\U0001f600");
}

static void tk05_usus(void **state) {
    (void)state;
    a_megabyte_of("us");
}

static void tk05_half_a_special_token(void **state) {
    (void)state;
    a_megabyte_of("<|im_");
}

static void tk05_marks(void **state) {
    (void)state;
    a_megabyte_of("\u0300\u0316");
}

static void tk05_broken_bytes(void **state) {
    (void)state;
    a_megabyte_of("\xf0\x9f");
}

/* Expressions that read the rest of the text again at each place are given up, by a sum of what
 * they read: the rest is then one piece, the same every time. */
static void tk03_slow_expressions(void **state) {
    (void)state;
    static const char *const patterns[] = {"a*b|a",      "(?:a|b)*c|a",   "(?=a*b)a|a",
                                           "a*(?!a)b|a", "a*a*a*[bc]d|a", "a*?b|a",
                                           "a+(?<=b)|a", "(?>a*)b|[^b]",  "a*a*a*a*a*[bc]d"};
    struct str text = {0};
    while (text.size < 1000000) str_add_char(&text, 'a');
    str_add_char(&text, 'd');
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        struct regex *regex = NULL;
        struct regex_scratch scratch;
        struct regex_iter iter = {0};
        struct imp_error err;
        size_t start, end;
        assert_int_equal(regex_compile(slice_of(patterns[i]), "p", &regex, &err), 0);
        regex_scratch_init(&scratch);
        double from = thread_s();
        while (regex_next(regex, &scratch, text.data, text.size, &iter, &start, &end)) {
        }
        double s = thread_s() - from;
        if (s > 4 * SLOWER) fail_msg("%s took %.1f s", patterns[i], s);
        regex_scratch_free(&scratch);
        regex_free(regex);
    }
    str_free(&text);
}

/* As large as the largest files: 310,000 tokens, twice as many merges, in pairs, a member a line.
 * Token i > 25 is token (i - 26) / 26 with one more letter, and no other. */
static void write_large(struct str *out) {
    enum { TOKENS = 310000 };
    static char names[TOKENS][8];
    str_add_text(out, "{\n  \"model\": {\n    \"type\": \"BPE\",\n    \"vocab\": {");
    for (int i = 0; i < TOKENS; i++) {
        snprintf(names[i], sizeof names[i], "%.6s%c", i < 26 ? "" : names[(i - 26) / 26],
                 'a' + i % 26);
        str_printf(out, "%s\n      \"%s\": %d", i ? "," : "", names[i], i);
    }
    str_add_text(out, "\n    },\n    \"merges\": [");
    for (int i = 26; i < TOKENS; i++) {
        size_t n = strlen(names[i]);
        str_printf(out, "%s\n      [\n        \"%.*s\",\n        \"%s\"\n      ]",
                   i > 26 ? "," : "", (int)n - 1, names[i], names[i] + n - 1);
        str_printf(out, ",\n      [\n        \"%c\",\n        \"%s\"\n      ]", names[i][0],
                   names[i] + 1);
    }
    str_add_text(out, "\n    ]\n  }\n}\n");
}

static void large_files_load_in_a_second(void **state) {
    (void)state;
    struct str json = {0};
    struct tokenizer *t = NULL;
    struct imp_error err = {0};
    write_large(&json);
    if (json.size < 33000000) fail_msg("only %zu bytes", json.size);
    double from = thread_s();
    if (tokenizer_parse(json.data, json.size, "large", NULL, &t, &err) < 0)
        fail_msg("%s: %s", err.where, err.message);
    double s = thread_s() - from;
    print_message("%zu bytes in %.2f s\n", json.size, s);
    if (s > 1 * SLOWER) fail_msg("%zu bytes took %.2f s", json.size, s);
    tokenizer_free(t);
    str_free(&json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tk05_a_letter),
        cmocka_unit_test(tk05_capitals),
        cmocka_unit_test(tk05_newlines),
        cmocka_unit_test(tk05_spaces),
        cmocka_unit_test(tk05_spaces_and_newlines),
        cmocka_unit_test(tk05_chinese),
        cmocka_unit_test(tk05_an_emoji),
        cmocka_unit_test(tk05_usus),
        cmocka_unit_test(tk05_half_a_special_token),
        cmocka_unit_test(tk05_marks),
        cmocka_unit_test(tk05_broken_bytes),
        cmocka_unit_test(tk03_slow_expressions),
        cmocka_unit_test(large_files_load_in_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
