#include "text/regex.h"

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/caps.h"
#include "base/error.h"

struct regex {
    pcre2_code *code;
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
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
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
    regex->jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
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
    struct str text = {0};
    for (size_t i = 0; i < literal.size;) {
        uint32_t c;
        i += utf8_decode(literal.data + i, literal.size - i, &c);
        str_printf(&text, "\\x{%x}", c);
    }
    int rc = compile(text.data, text.size, where, out, err);
    str_free(&text);
    return rc;
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
    pcre2_pattern_info(regex->code, PCRE2_INFO_MATCHEMPTY, &empty);
    return empty != 0;
}

void regex_free(struct regex *regex) {
    if (regex == NULL) return;
    pcre2_code_free(regex->code);
    free(regex);
}

void regex_scratch_init(struct regex_scratch *scratch) {
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    /* The matcher's stack on the heap: callers may have little. */
    pcre2_jit_stack *stack = pcre2_jit_stack_create(32 << 10, CAP_PATTERN_STACK, NULL);
    scratch->match_data = pcre2_match_data_create(1, NULL);
    check(context != NULL && scratch->match_data != NULL);
    if (stack != NULL) pcre2_jit_stack_assign(context, NULL, stack);
    pcre2_set_match_limit(context, CAP_PATTERN_STEPS);
    scratch->match_context = context;
    scratch->jit_stack = stack;
}

void regex_scratch_free(struct regex_scratch *scratch) {
    pcre2_match_data_free(scratch->match_data);
    pcre2_match_context_free(scratch->match_context);
    if (scratch->jit_stack != NULL) pcre2_jit_stack_free(scratch->jit_stack);
    *scratch = (struct regex_scratch){0};
}

static bool match_at(const struct regex *regex, struct regex_scratch *scratch, const char *text,
                     size_t size, size_t from) {
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int rc = regex->jit ? pcre2_jit_match(regex->code, subject, size, from, 0, scratch->match_data,
                                          scratch->match_context)
                        : pcre2_match(regex->code, subject, size, from, PCRE2_NO_UTF_CHECK,
                                      scratch->match_data, scratch->match_context);
    return rc >= 0;
}

bool regex_next(const struct regex *regex, struct regex_scratch *scratch, const char *text,
                size_t size, struct regex_iter *iter, size_t *start, size_t *end) {
    while (iter->from <= size && match_at(regex, scratch, text, size, iter->from)) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(scratch->match_data);
        if (at[0] == at[1] && iter->matched && iter->last_end == at[1]) {
            size_t step = utf8_sequence_length(text + iter->from, size - iter->from);
            iter->from += step ? step : 1;
            continue;
        }
        *start = at[0];
        *end = at[1];
        iter->from = iter->last_end = at[1];
        iter->matched = true;
        return true;
    }
    return false;
}
