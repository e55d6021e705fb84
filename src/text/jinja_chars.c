/* isalpha, isupper and their like, by Unicode categories. */
#include <utf8proc.h>

#include "text/jinja_methods.h"

enum { IS_ALPHA, IS_DIGIT, IS_ALNUM, IS_SPACE, IS_NUMERIC, IS_DECIMAL, IS_PRINTABLE, IS_ASCII };

static bool char_is(uint32_t c, int kind) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    bool alpha = k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL ||
                 k == UTF8PROC_CATEGORY_LT || k == UTF8PROC_CATEGORY_LM ||
                 k == UTF8PROC_CATEGORY_LO;
    bool decimal = k == UTF8PROC_CATEGORY_ND;
    bool digit = decimal || char_in_ranges(other_digit_ranges, other_digit_count, c);
    bool numeric = decimal || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO ||
                   char_in_ranges(other_numeric_ranges, other_numeric_count, c);
    switch (kind) {
    case IS_ALPHA:
        return alpha;
    case IS_DIGIT:
        return digit;
    case IS_ALNUM:
        return alpha || numeric;
    case IS_SPACE:
        return char_is_space(c);
    case IS_NUMERIC:
        return numeric;
    case IS_DECIMAL:
        return decimal;
    case IS_ASCII:
        return c < 0x80;
    default:
        return c == ' ' || (k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS);
    }
}

static struct jv all_chars(struct jx *x, struct jcall *c, int kind, bool empty) {
    struct jstr *s = c->self.u.s;
    jx_steps(x, s->n / 16);
    for (size_t at = 0; at < s->n;) {
        uint32_t code;
        at += utf8_decode(s->p + at, s->n - at, &code);
        if (!char_is(code, kind)) return jv_bool(false);
    }
    return jv_bool(s->n > 0 || empty);
}

#define ALL_CHARS(name, kind, empty)                                                               \
    struct jv name(struct jx *x, struct jcall *c) {                                                \
        return all_chars(x, c, kind, empty);                                                       \
    }
ALL_CHARS(m_isalpha, IS_ALPHA, false)
ALL_CHARS(m_isdigit, IS_DIGIT, false)
ALL_CHARS(m_isalnum, IS_ALNUM, false)
ALL_CHARS(m_isspace, IS_SPACE, false)
ALL_CHARS(m_isnumeric, IS_NUMERIC, false)
ALL_CHARS(m_isdecimal, IS_DECIMAL, false)
ALL_CHARS(m_isprintable, IS_PRINTABLE, true)
ALL_CHARS(m_isascii, IS_ASCII, true)

static struct jv cased(struct jx *x, struct jstr *s, bool (*wanted)(uint32_t),
                       bool (*other)(uint32_t)) {
    bool any = false;
    jx_steps(x, s->n / 16);
    for (size_t at = 0; at < s->n;) {
        uint32_t code;
        at += utf8_decode(s->p + at, s->n - at, &code);
        if (other(code) || char_is_title(code)) return jv_bool(false);
        any = any || wanted(code);
    }
    return jv_bool(any);
}

struct jv m_isupper(struct jx *x, struct jcall *c) {
    return cased(x, c->self.u.s, char_is_upper, char_is_lower);
}

struct jv m_islower(struct jx *x, struct jcall *c) {
    return cased(x, c->self.u.s, char_is_lower, char_is_upper);
}

struct jv m_istitle(struct jx *x, struct jcall *c) {
    struct jstr *s = c->self.u.s;
    bool inside = false, any = false;
    jx_steps(x, s->n / 16);
    for (size_t at = 0; at < s->n;) {
        uint32_t code;
        at += utf8_decode(s->p + at, s->n - at, &code);
        bool upper = char_is_upper(code) || char_is_title(code), lower = char_is_lower(code);
        if ((upper && inside) || (lower && !inside)) return jv_bool(false);
        inside = upper || lower;
        any = any || inside;
    }
    return jv_bool(any);
}

struct jv m_isidentifier(struct jx *x, struct jcall *c) {
    struct jstr *s = c->self.u.s;
    jx_steps(x, s->n / 16);
    for (size_t at = 0; at < s->n;) {
        uint32_t code;
        bool first = at == 0;
        at += utf8_decode(s->p + at, s->n - at, &code);
        if (code != '_' && !char_is(code, first ? IS_ALPHA : IS_ALNUM)) return jv_bool(false);
    }
    return jv_bool(s->n > 0);
}
