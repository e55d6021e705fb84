#include "text/regex.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/caps.h"
#include "base/error.h"

/* The first window of text that a match may look at, and how it grows. */
enum { WINDOW = 64, WINDOW_GROWTH = 4 };
enum { FREE_READS = 1 << 14 }; /* of short texts, times CAP_PATTERN_READS */

struct regex {
    pcre2_code *code; /* NULL: the literal */
    char *literal;
    size_t literal_size;
    bool jit;
};

static int compile(const char *pattern, size_t size, const char *where, struct regex **out,
                   struct imp_error *err) {
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    check(context != NULL);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int number;
    PCRE2_SIZE offset;
    /* Ruby's ^ and $ are those of every line. */
    uint32_t options =
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_ANCHORED;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, size, options, &number, &offset, context);
    pcre2_compile_context_free(context);
    if (code == NULL) {
        char why[120] = "?";
        pcre2_get_error_message(number, (PCRE2_UCHAR *)why, sizeof why);
        return error_set(err, IMP_ERR_UNSUPPORTED, where, "the expression is not supported: %s",
                         why);
    }
    struct regex *regex = mem_zero(1, sizeof *regex);
    regex->code = code;
    regex->jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD) == 0;
    *out = regex;
    return 0;
}

int regex_compile(struct slice pattern, const char *where, struct regex **out,
                  struct imp_error *err) {
    struct str text = {0};
    int rc = regex_translate(pattern, where, &text, err);
    if (rc == 0) rc = compile(text.data, text.size, where, out, err);
    str_free(&text);
    return rc;
}

int regex_compile_literal(struct slice literal, const char *where, struct regex **out,
                          struct imp_error *err) {
    if (literal.size == 0 || literal.size > CAP_PATTERN_BYTES) {
        return error_set(err, IMP_ERR_UNSUPPORTED, where, "a pattern of %zu bytes", literal.size);
    }
    struct regex *regex = mem_zero(1, sizeof *regex);
    regex->literal = mem_strndup(literal.data, literal.size);
    regex->literal_size = literal.size;
    *out = regex;
    return 0;
}

struct regex *regex_word_new(bool words) {
    struct str word = {0}, pattern = {0};
    struct regex *regex = NULL;
    str_add_text(&word, "\\p{Alphabetic}\\p{Join_Control}");
    regex_add_category(&word, "L");
    regex_add_category(&word, "M");
    regex_add_category(&word, "Nd");
    regex_add_category(&word, "Pc");
    str_printf(&pattern, "[%s]", word.data);
    if (words) str_printf(&pattern, "+|[^%s\\p{White_Space}]+", word.data);
    check(compile(pattern.data, pattern.size, NULL, &regex, NULL) == 0);
    str_free(&word);
    str_free(&pattern);
    return regex;
}

bool regex_matches_empty(const struct regex *regex) {
    uint32_t empty = 0;
    if (regex->code == NULL) return false;
    pcre2_pattern_info(regex->code, PCRE2_INFO_MATCHEMPTY, &empty);
    return empty != 0;
}

void regex_free(struct regex *regex) {
    if (regex == NULL) return;
    pcre2_code_free(regex->code);
    free(regex->literal);
    free(regex);
}

void regex_scratch_init(struct regex_scratch *scratch) {
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    /* The matcher's stack on the heap: callers may have little. */
    pcre2_jit_stack *stack = pcre2_jit_stack_create(32 << 10, CAP_PATTERN_STACK, NULL);
    scratch->match_data = pcre2_match_data_create(1, NULL);
    check(context != NULL && scratch->match_data != NULL);
    if (stack != NULL) pcre2_jit_stack_assign(context, NULL, stack);
    scratch->match_context = context;
    scratch->jit_stack = stack;
}

void regex_scratch_free(struct regex_scratch *scratch) {
    pcre2_match_data_free(scratch->match_data);
    pcre2_match_context_free(scratch->match_context);
    if (scratch->jit_stack != NULL) pcre2_jit_stack_free(scratch->jit_stack);
    *scratch = (struct regex_scratch){0};
}

/* A match that begins at iter->from, in a window of text that grows when the matcher has looked at
 * its end: so what it looks at is known, and many matches that each read on for ever are given up
 * by a sum that depends on the text alone. Returns what pcre2_match does. */
static int match_here(const struct regex *regex, struct regex_scratch *scratch, const char *text,
                      size_t size, struct regex_iter *iter) {
    for (size_t window = WINDOW;; window *= WINDOW_GROWTH) {
        bool whole = size - iter->from <= window;
        size_t end = whole ? size : iter->from + window;
        while (!whole && ((unsigned char)text[end] & 0xc0) == 0x80) end--;
        if (window > WINDOW) iter->spent += end - iter->from;
        if (iter->spent / CAP_PATTERN_READS > size + FREE_READS) return PCRE2_ERROR_MATCHLIMIT;
        size_t steps = CAP_PATTERN_STEPS * (end - iter->from + WINDOW);
        pcre2_set_match_limit(scratch->match_context,
                              steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
        PCRE2_SPTR subject = (PCRE2_SPTR)text;
        uint32_t options = whole ? 0 : PCRE2_PARTIAL_HARD;
        int rc = regex->jit ? pcre2_jit_match(regex->code, subject, end, iter->from, options,
                                              scratch->match_data, scratch->match_context)
                            : pcre2_match(regex->code, subject, end, iter->from,
                                          PCRE2_NO_UTF_CHECK | options, scratch->match_data,
                                          scratch->match_context);
        if (rc != PCRE2_ERROR_PARTIAL) return rc;
    }
}

static bool next_literal(const struct regex *regex, const char *text, size_t size,
                         struct regex_iter *iter, size_t *start, size_t *end) {
    if (iter->from >= size) return false;
    const char *found =
        memmem(text + iter->from, size - iter->from, regex->literal, regex->literal_size);
    if (found == NULL) return false;
    *start = (size_t)(found - text);
    *end = iter->from = *start + regex->literal_size;
    return true;
}

bool regex_next(const struct regex *regex, struct regex_scratch *scratch, const char *text,
                size_t size, struct regex_iter *iter, size_t *start, size_t *end) {
    if (regex->code == NULL) return next_literal(regex, text, size, iter, start, end);
    while (iter->from <= size) {
        int rc = match_here(regex, scratch, text, size, iter);
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) return false;
        size_t to = rc < 0 ? 0 : pcre2_get_ovector_pointer(scratch->match_data)[1];
        bool again = rc >= 0 && to == iter->from && iter->matched && iter->last_end == to;
        if (rc < 0 || again) {
            size_t step = utf8_sequence_length(text + iter->from, size - iter->from);
            iter->from += step ? step : 1;
            continue;
        }
        *start = iter->from;
        *end = iter->from = iter->last_end = to;
        iter->matched = true;
        return true;
    }
    return false;
}
