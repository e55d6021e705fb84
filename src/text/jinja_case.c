/* Letter case by Unicode's full mappings, as Python's str has them. */
#include <string.h>
#include <utf8proc.h>

#include "text/jinja_methods.h"

bool char_in_ranges(const uint32_t (*ranges)[2], size_t count, uint32_t c) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (c > ranges[mid][1]) {
            low = mid + 1;
        } else if (c < ranges[mid][0]) {
            high = mid;
        } else {
            return true;
        }
    }
    return false;
}

bool char_is_lower(uint32_t c) {
    if (c < 0x80) return c >= 'a' && c <= 'z';
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LL ||
           char_in_ranges(other_lower_ranges, other_lower_count, c);
}

bool char_is_upper(uint32_t c) {
    if (c < 0x80) return c >= 'A' && c <= 'Z';
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LU ||
           char_in_ranges(other_upper_ranges, other_upper_count, c);
}

bool char_is_title(uint32_t c) {
    return c >= 0x80 && utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LT;
}

static bool is_cased(uint32_t c) {
    return char_is_lower(c) || char_is_upper(c) || char_is_title(c);
}

/* What does not end a word for the rule of the final sigma: Unicode's Case_Ignorable. */
static bool is_ignorable(uint32_t c) {
    if (c < 0x80) return c && strchr("'.:^`", (int)c);
    static const uint16_t middle[] = {0xb7,   0x387,  0x55f,  0x5f4,  0x2018, 0x2019, 0x2024,
                                      0x2027, 0xfe13, 0xfe52, 0xfe55, 0xff07, 0xff0e, 0xff1a};
    for (size_t i = 0; i < sizeof middle / sizeof *middle; i++) {
        if (c == middle[i]) return true;
    }
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return false;
    }
}

static void add_upper(struct jbuf *b, uint32_t c, bool title, bool mark) {
    for (size_t i = 0; c >= 0x80 && i < special_case_count; i++) {
        if (special_cases[i].c != c) continue;
        buf_text(b, title ? special_cases[i].title : special_cases[i].upper, mark);
        return;
    }
    int32_t code = (int32_t)c;
    buf_codepoint(b, (uint32_t)(title ? utf8proc_totitle(code) : utf8proc_toupper(code)), mark);
}

/* What comes before the character at hand, ignorable ones left out. */
struct before {
    bool cased;      /* the last character that is not ignorable is a letter with case */
    bool just_cased; /* the last character is, ignorable or not */
};

static bool sigma_is_final(const struct jstr *s, size_t at) {
    uint32_t c = 0;
    for (size_t n; at < s->n; at += n) {
        n = utf8_decode(s->p + at, s->n - at, &c);
        if (!is_ignorable(c)) return !is_cased(c);
    }
    return true;
}

static void add_lower(struct jbuf *b, const struct jstr *s, size_t next, uint32_t c,
                      const struct before *before, bool mark) {
    if (c == 0x130) {
        buf_text(b, "i\xCC\x87", mark);
    } else if (c == 0x3a3 && before->cased && sigma_is_final(s, next)) {
        buf_codepoint(b, 0x3c2, mark);
    } else {
        buf_codepoint(b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c), mark);
    }
}

static void add_folded(struct jbuf *b, uint32_t c, bool mark) {
    utf8proc_int32_t out[8];
    int last = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, out, 8, UTF8PROC_CASEFOLD, &last);
    for (utf8proc_ssize_t i = 0; i < n && n <= 8; i++) buf_codepoint(b, (uint32_t)out[i], mark);
}

/* kind: 'u'pper, 'l'ower, 't'itle, 'c'apitalize, 's'wapcase, case'f'old. */
struct jv str_case(struct jx *x, struct jstr *s, int kind) {
    struct jbuf b;
    struct before before = {0};
    buf_init(&b, x);
    jx_steps(x, s->n / 8);
    for (size_t at = 0; at < s->n;) {
        uint32_t c;
        size_t n = utf8_decode(s->p + at, s->n - at, &c);
        bool mark = str_marked(s, at), upper = kind == 'u';
        if (kind == 't') upper = !before.just_cased;
        if (kind == 'c') upper = at == 0;
        if (kind == 's') upper = char_is_lower(c);
        if (kind == 'f') {
            add_folded(&b, c, mark);
        } else if (upper) {
            add_upper(&b, c, kind == 't' || kind == 'c', mark);
        } else if (kind == 's' && !char_is_upper(c)) {
            buf_add_part(&b, s, at, n);
        } else {
            add_lower(&b, s, at + n, c, &before, mark);
        }
        before.just_cased = is_cased(c);
        if (!is_ignorable(c)) before.cased = before.just_cased;
        at += n;
    }
    struct jv v = buf_take(&b);
    v.u.s->markup = s->markup;
    return v;
}
