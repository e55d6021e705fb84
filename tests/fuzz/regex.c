/* Any bytes as an expression and, behind a zero byte, a text: refused, or matches that go forward
 * and stand on whole characters. And as a literal text, which matches itself. */
#include <string.h>

#include "text/regex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) __builtin_trap();
}

static bool at_character(const char *text, size_t size, size_t at) {
    return at == size || ((unsigned char)text[at] & 0xc0) != 0x80;
}

static void match_all(const struct regex *regex, struct regex_scratch *scratch, const char *text,
                      size_t size) {
    struct regex_iter iter = {0};
    size_t start, end, last = 0, found = 0;
    while (regex_next(regex, scratch, text, size, &iter, &start, &end)) {
        require(start >= last && end >= start && end <= size);
        require(at_character(text, size, start) && at_character(text, size, end));
        require(end > start || regex_matches_empty(regex));
        require(found++ <= 2 * size + 1);
        last = end;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t n = zero ? (size_t)(zero - data) : size;
    struct regex *regex = NULL;
    struct imp_error err;
    struct slice pattern = {(const char *)data, n};
    if (utf8_valid(pattern.data, n) && regex_compile(pattern, "fuzz", &regex, &err) == 0) {
        struct regex_scratch scratch;
        struct str text = {0};
        for (size_t i = n + 1; i < size && text.size < 4096;) {
            uint32_t c;
            i += utf8_decode((const char *)data + i, size - i, &c);
            str_add_codepoint(&text, c);
        }
        regex_scratch_init(&scratch);
        match_all(regex, &scratch, text.data ? text.data : "", text.size);
        regex_scratch_free(&scratch);
        str_free(&text);
    }
    regex_free(regex);
    regex = NULL;
    if (utf8_valid(pattern.data, n) && regex_compile_literal(pattern, "fuzz", &regex, &err) == 0) {
        struct regex_scratch scratch;
        struct regex_iter iter = {0};
        size_t start, end;
        regex_scratch_init(&scratch);
        require(regex_next(regex, &scratch, pattern.data, n, &iter, &start, &end));
        require(start == 0 && end == n);
        regex_scratch_free(&scratch);
        regex_free(regex);
    }
    return 0;
}
