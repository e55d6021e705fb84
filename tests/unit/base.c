/* base: strings and UTF-8, the arena, the map, strict JSON, error texts, the generator, files. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/caps.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/map.h"
#include "base/rng.h"
#include "base/str.h"

static void str_grows_and_stays_terminated(void **state) {
    (void)state;
    struct str s = {0};
    str_add(&s, "", 0);
    assert_string_equal(s.data, "");
    for (int i = 0; i < 1000; i++) str_printf(&s, "%d,", i);
    assert_int_equal(s.size, 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(strlen(s.data), s.size);
    assert_true(slice_starts((struct slice){s.data, s.size}, "0,1,2,"));
    assert_true(slice_ends((struct slice){s.data, s.size}, "998,999,"));
    assert_false(slice_ends(slice_of("9,"), "999,"));
    str_clear(&s);
    assert_int_equal(s.size, 0);
    str_add_codepoint(&s, 0x20AC);
    char *taken = str_take(&s);
    assert_string_equal(taken, "\xE2\x82\xAC");
    assert_null(s.data);
    free(taken);
    char *empty = str_take(&s);
    assert_string_equal(empty, "");
    free(empty);
    str_free(&s);
}

static void str_writes_json(void **state) {
    (void)state;
    static const char in[] = "a\"b\\c\n\t\x01\x00z\x7f\xC3\xA9\xFF\xF0\x9F\x98\x80";
    struct str s = {0};
    str_add_json(&s, in, sizeof in - 1);
    assert_string_equal(s.data, "\"a\\\"b\\\\c\\n\\t\\u0001\\u0000z\\u007f\xC3\xA9\xEF\xBF\xBD"
                                "\xF0\x9F\x98\x80\"");
    str_free(&s);
}

/* Every code point there and back; every other four-byte pattern with a lead byte is refused. */
static void utf8_every_codepoint(void **state) {
    (void)state;
    char bytes[4];
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        size_t n = utf8_encode(c, bytes);
        uint32_t back = 0;
        assert_int_equal(utf8_decode(bytes, n, &back), n);
        bool surrogate = c >= 0xD800 && c <= 0xDFFF;
        assert_int_equal(back, surrogate ? 0xFFFD : c);
        for (size_t cut = 1; cut < n; cut++) {
            assert_int_equal(utf8_sequence_length(bytes, cut), 0);
            assert_int_equal(utf8_incomplete_tail(bytes, cut), cut);
        }
        assert_int_equal(utf8_incomplete_tail(bytes, n), 0);
    }
    assert_int_equal(utf8_encode(0x110000, bytes), 3); /* U+FFFD */
}

static void utf8_refuses(void **state) {
    (void)state;
    static const char *const bad[] = {
        "\x80",             /* lone continuation */
        "\xC0\x80",         /* overlong NUL */
        "\xC1\xBF",         /* overlong */
        "\xE0\x9F\xBF",     /* overlong */
        "\xED\xA0\x80",     /* surrogate */
        "\xF0\x8F\xBF\xBF", /* overlong */
        "\xF4\x90\x80\x80", /* past U+10FFFF */
        "\xF5\x80\x80\x80",
        "\xFE",
        "\xFF",
        "\xC3(",
        "\xE2\x82(",
        "\xF0\x9F\x98(",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint32_t c;
        assert_false(utf8_valid(bad[i], strlen(bad[i])));
        assert_int_equal(utf8_decode(bad[i], strlen(bad[i]), &c), 1);
        assert_int_equal(c, 0xFFFD);
    }
    /* What can no longer become a character is not held back. */
    assert_int_equal(utf8_incomplete_tail("\xED\xA0", 2), 0);
    assert_int_equal(utf8_incomplete_tail("\xF4\x90", 2), 0);
    assert_int_equal(utf8_incomplete_tail("\xC0", 1), 0);
    assert_int_equal(utf8_incomplete_tail("\x80\x80\x80\x80", 4), 0);
    assert_int_equal(utf8_incomplete_tail("ab\xF0\x9F\x98", 5), 3);
    assert_int_equal(utf8_incomplete_tail("", 0), 0);
}

static void arena_gives_zeroed_aligned_memory(void **state) {
    (void)state;
    struct arena arena = {0};
    unsigned char *all[300];
    for (size_t i = 0; i < 300; i++) {
        size_t size = i * 977 % 70000;
        all[i] = arena_alloc(&arena, size);
        assert_int_equal((uintptr_t)all[i] % 16, 0);
        for (size_t j = 0; j < size; j++) assert_int_equal(all[i][j], 0);
        if (size > 0) memset(all[i], (int)(i % 255) + 1, size);
    }
    for (size_t i = 0; i < 300; i++) {
        size_t size = i * 977 % 70000;
        for (size_t j = 0; j < size; j++) assert_int_equal(all[i][j], i % 255 + 1);
    }
    assert_string_equal(arena_printf(&arena, "%s-%d", "x", 7), "x-7");
    assert_string_equal(arena_strndup(&arena, "abcdef", 3), "abc");
    assert_string_equal(arena_strndup(&arena, NULL, 0), "");
    arena_free(&arena);
    assert_int_equal(arena.used_bytes, 0);
    assert_non_null(arena_alloc(&arena, 1));
    arena_free(&arena);
}

static void map_holds_many_keys(void **state) {
    (void)state;
    enum { KEYS = 20000 };
    struct arena arena = {0};
    struct map map = {0};
    assert_null(map_find(&map, slice_of("nothing yet")));
    for (int i = 0; i < KEYS; i++) {
        struct slice key = slice_of(arena_printf(&arena, "key %d", i));
        assert_true(map_add(&map, key, i));
        assert_false(map_add(&map, key, -1));
    }
    assert_true(map_add(&map, (struct slice){NULL, 0}, 77)); /* the empty key is a key */
    assert_false(map_add(&map, slice_of(""), 78));
    assert_int_equal(*map_find(&map, slice_of("")), 77);
    assert_int_equal(map.count, KEYS + 1);
    for (int i = 0; i < KEYS; i++) {
        const int64_t *value = map_find(&map, slice_of(arena_printf(&arena, "key %d", i)));
        assert_non_null(value);
        assert_int_equal(*value, i);
    }
    assert_null(map_find(&map, slice_of("key 20000")));
    assert_null(map_find(&map, (struct slice){"key 1\0", 6})); /* bytes, not C strings */
    map_free(&map);
    map_free(&map);
    arena_free(&arena);
}

static void assert_json(const char *text, int status, const char *message) {
    yyjson_doc *doc = NULL;
    struct imp_error err = {0};
    int rc = json_read(text, strlen(text), "f.json", &doc, &err);
    assert_int_equal(rc, status);
    if (status == 0) {
        assert_non_null(doc);
        yyjson_doc_free(doc);
        return;
    }
    assert_null(doc);
    assert_int_equal(err.code, status);
    assert_non_null(strstr(err.message, message));
    assert_int_equal(strncmp(err.where, "f.json", 6), 0);
}

static void json_is_strict(void **state) {
    (void)state;
    assert_json("{\"a\": [1, 2.5, null, true, {\"a\": \"\"}]}", 0, NULL);
    assert_json("{\"a\": 1, \"b\": 2, \"a\": 3}", IMP_ERR_FILE, "\"a\" occurs twice");
    assert_json("[{\"x\": {\"\": 1, \"\": 2}}]", IMP_ERR_FILE, "occurs twice");
    assert_json("{\"\\u0061\": 1, \"a\": 2}", IMP_ERR_FILE, "occurs twice"); /* after unescaping */
    static const char *const broken[] = {
        "", "{", "[1,]", "{'a':1}", "nul", "NaN", "[1] x", "// c\n1", "[01]", "\"\xFF\"", "[1e999]",
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        assert_json(broken[i], IMP_ERR_FILE, "not valid JSON");
}

/* Above the size where keys are compared by pairs, a map finds the twin. */
static void json_duplicate_in_a_large_object(void **state) {
    (void)state;
    for (int size = 15; size <= 40; size++) {
        struct str s = {0};
        str_add_char(&s, '{');
        for (int i = 0; i < size; i++) str_printf(&s, "%s\"k%d\": %d", i ? "," : "", i, i);
        str_add_text(&s, "}");
        assert_json(s.data, 0, NULL);
        s.size--;
        str_add_text(&s, ", \"k3\": 0}");
        assert_json(s.data, IMP_ERR_FILE, "\"k3\" occurs twice");
        str_free(&s);
    }
}

static void json_depth(void **state) {
    (void)state;
    for (int object = 0; object < 2; object++) {
        for (int depth = CAP_JSON_DEPTH - 1; depth <= CAP_JSON_DEPTH + 2; depth++) {
            struct str s = {0};
            for (int i = 0; i < depth; i++) str_add_text(&s, object ? "{\"a\":" : "[");
            if (object) str_add_char(&s, '1');
            for (int i = 0; i < depth; i++) str_add_char(&s, object ? '}' : ']');
            assert_json(s.data, depth <= CAP_JSON_DEPTH ? 0 : IMP_ERR_FILE, "nested deeper");
            str_free(&s);
        }
    }
    struct str s = {0};
    for (int i = 0; i < 1000000; i++) str_add_char(&s, '[');
    for (int i = 0; i < 1000000; i++) str_add_char(&s, ']');
    assert_json(s.data, IMP_ERR_FILE, "nested deeper");
    str_free(&s);
}

static void errors_are_one_clean_line(void **state) {
    (void)state;
    struct imp_error err;
    assert_int_equal(
        error_set(&err, IMP_ERR_FILE, "a\nb", "x%sy", "\x1b[31m\x7f\xff\xC2\x85\xC3\xA9"),
        IMP_ERR_FILE);
    assert_string_equal(err.message, "x\\x1B[31m\\x7F\\xFF\\xC2\\x85\xC3\xA9y");
    assert_string_equal(err.where, "a\\x0Ab");
    assert_int_equal(error_set(NULL, IMP_ERR_IO, NULL, "nobody listens"), IMP_ERR_IO);

    char name[3000];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    error_set(&err, IMP_ERR_FILE, name, "%s", name);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_int_equal(strlen(err.where), sizeof err.where - 1);
    /* Cut between characters, never inside one. */
    for (size_t i = 0; i + 2 < sizeof name; i += 2) memcpy(name + i, "\xC3\xA9", 2);
    error_set(&err, IMP_ERR_FILE, name, "x%s", name);
    assert_true(utf8_valid(err.message, strlen(err.message)));
    assert_true(utf8_valid(err.where, strlen(err.where)));
    assert_true(strlen(err.message) >= sizeof err.message - 3);
}

static void errors_take_a_prefix_once(void **state) {
    (void)state;
    struct imp_error err;
    error_set(&err, IMP_ERR_FILE, "tensor\nx", "bad");
    assert_int_equal(error_prefix(&err, IMP_ERR_FILE, "m.safetensors"), IMP_ERR_FILE);
    assert_string_equal(err.where, "m.safetensors: tensor\\x0Ax");
    error_set(&err, IMP_ERR_FILE, NULL, "bad");
    error_prefix(&err, IMP_ERR_FILE, "file");
    assert_string_equal(err.where, "file");
}

static void keep_line(void *ctx, int level, const char *line) {
    struct str *s = ctx;
    str_printf(s, "%d %s;", level, line);
}

static void log_escapes_and_may_be_absent(void **state) {
    (void)state;
    struct str s = {0};
    struct log log = {keep_line, &s};
    log_line(&log, LOG_WARNING, "a\tb %d", 3);
    assert_string_equal(s.data, "1 a\\x09b 3;");
    log_line(NULL, LOG_ERROR, "unheard");
    log_line(&(struct log){0}, LOG_ERROR, "unheard");
    str_free(&s);
}

/* Known answers of philox4x32-10: kat_vectors of Random123 (Salmon et al.). */
static void rng_known_answers(void **state) {
    (void)state;
    static const struct {
        uint64_t seed, stream, counter;
        uint32_t out[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t out[4];
        rng_block(cases[i].seed, cases[i].stream, cases[i].counter, out);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

static void rng_has_the_right_moments(void **state) {
    (void)state;
    enum { N = 200000 };
    double uniform = 0, mean = 0, square = 0, fourth = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = rng_uniform(1, 2, i), z = rng_normal(3, 4, i);
        assert_true(u >= 0 && u < 1);
        uniform += u / N;
        mean += z / N;
        square += z * z / N;
        fourth += z * z * z * z / N;
    }
    /* Five standard errors each. */
    assert_true(fabs(uniform - 0.5) < 5 * 0.2887 / sqrt(N));
    assert_true(fabs(mean) < 5 / sqrt(N));
    assert_true(fabs(square - 1) < 5 * 1.4142 / sqrt(N));
    assert_true(fabs(fourth - 3) < 5 * 9.798 / sqrt(N));
}

static void files_read_and_mapped(void **state) {
    (void)state;
    char path[] = "/tmp/imp-test-base-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    struct imp_error err;
    struct str s = {0};
    struct file_map map;
    assert_int_equal(file_read(path, 0, &s, &err), 0);
    assert_int_equal(s.size, 0);
    assert_int_equal(file_map_open(path, &map, &err), 0);
    assert_null(map.data);
    file_map_close(&map);
    assert_int_equal(write(fd, "hello", 5), 5);
    close(fd);
    assert_int_equal(file_read(path, 4, &s, &err), IMP_ERR_FILE);
    assert_string_equal(err.where, path);
    assert_int_equal(file_read(path, 5, &s, &err), 0);
    assert_string_equal(s.data, "hello");
    assert_int_equal(file_map_open(path, &map, &err), 0);
    assert_int_equal(map.size, 5);
    assert_memory_equal(map.data, "hello", 5);
    file_map_close(&map);
    file_map_close(&map);
    assert_true(file_exists(path));
    assert_false(file_is_folder(path));
    unlink(path);
    assert_false(file_exists(path));
    assert_int_equal(file_read(path, 5, &s, &err), IMP_ERR_IO);
    assert_int_equal(file_map_open(path, &map, &err), IMP_ERR_IO);
    assert_int_equal(file_map_open("/tmp", &map, &err), IMP_ERR_FILE);
    assert_int_equal(file_map_open("/dev/zero", &map, &err), IMP_ERR_FILE);
    assert_true(file_is_folder("/tmp"));
    str_free(&s);
}

static void clock_moves_forward(void **state) {
    (void)state;
    double before = clock_ms();
    usleep(2000);
    double took = clock_ms() - before;
    assert_true(took >= 1.9 && took < 10000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(str_grows_and_stays_terminated),
        cmocka_unit_test(str_writes_json),
        cmocka_unit_test(utf8_every_codepoint),
        cmocka_unit_test(utf8_refuses),
        cmocka_unit_test(arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(map_holds_many_keys),
        cmocka_unit_test(json_is_strict),
        cmocka_unit_test(json_duplicate_in_a_large_object),
        cmocka_unit_test(json_depth),
        cmocka_unit_test(errors_are_one_clean_line),
        cmocka_unit_test(errors_take_a_prefix_once),
        cmocka_unit_test(log_escapes_and_may_be_absent),
        cmocka_unit_test(rng_known_answers),
        cmocka_unit_test(rng_has_the_right_moments),
        cmocka_unit_test(files_read_and_mapped),
        cmocka_unit_test(clock_moves_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
