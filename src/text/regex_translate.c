#include <string.h>
#include <strings.h>

#include "base/caps.h"
#include "base/error.h"
#include "text/regex.h"
#include "text/unicode.h"

/* White_Space, which is Oniguruma's \s. PCRE2's own has U+180E besides. */
#define SPACES                                                                                     \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"        \
    "\\x{205f}\\x{3000}"

/* What is known of the atom that a quantifier would apply to. */
struct atom {
    bool present, loops; /* loops: holds a repetition without bound */
    long copies;         /* product of the counts nested in it */
    size_t start;        /* in the output */
};

struct translator {
    const char *p, *end, *begin, *where;
    struct str *out;
    struct imp_error *err;
    struct atom atom;
    struct level {
        size_t start;
        bool loops, ignore_case;
        long copies;
    } levels[CAP_PATTERN_DEPTH];
    int depth;
};

static int refuse(struct translator *t, const char *why) {
    return error_set(t->err, IMP_ERR_UNSUPPORTED, t->where,
                     "the expression is not supported: %s at byte %zu", why,
                     (size_t)(t->p - t->begin));
}

static bool next_is(const struct translator *t, const char *text) {
    size_t n = strlen(text);
    return (size_t)(t->end - t->p) >= n && memcmp(t->p, text, n) == 0;
}

static void begin_atom(struct translator *t) {
    t->atom = (struct atom){.present = true, .copies = 1, .start = t->out->size};
}

static void add_codepoint(struct translator *t, uint32_t c) {
    bool plain = c < 0x80 && ((c | 32) - 'a' < 26u || c - '0' < 10u);
    if (plain) {
        str_add_char(t->out, (char)c);
    } else {
        str_printf(t->out, "\\x{%x}", c);
    }
}

static int hex(struct translator *t, size_t min, size_t max, uint32_t *out) {
    size_t n = 0;
    uint32_t value = 0;
    while (n < max && t->p < t->end) {
        const char *digits = "0123456789abcdef", *at = NULL;
        char c = *t->p;
        if (c >= 'A' && c <= 'F') c = (char)(c + 32);
        if (c != 0) at = strchr(digits, c);
        if (at == NULL) break;
        value = value << 4 | (uint32_t)(at - digits);
        t->p++;
        n++;
    }
    if (n < min || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
        return refuse(t, "a bad code point");
    }
    *out = value;
    return 0;
}

/* Not C and Cn: which characters are unassigned depends on whom you ask. */
static const char *const categories[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N", "Nd",
    "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm",
    "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Cc", "Cf", "Co",
};
static const char *const long_names[][2] = {
    {"Letter", "L"},
    {"Uppercase_Letter", "Lu"},
    {"Lowercase_Letter", "Ll"},
    {"Other_Letter", "Lo"},
    {"Titlecase_Letter", "Lt"},
    {"Modifier_Letter", "Lm"},
    {"Mark", "M"},
    {"Number", "N"},
    {"Decimal_Number", "Nd"},
    {"Punctuation", "P"},
    {"Symbol", "S"},
    {"Separator", "Z"},
};
/* sc: because PCRE2 means script extensions otherwise. Han grew in Unicode 15, 15.1. */
static const char *const scripts[][2] = {
    {"Han", "\\p{sc:Han}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"},
    {"Hiragana", "\\p{sc:Hiragana}\\x{1b132}"},
    {"Katakana", "\\p{sc:Katakana}\\x{1b155}"},
    {"Hangul", "\\p{sc:Hangul}"},
    {"Greek", "\\p{sc:Greek}"},
    {"Hebrew", "\\p{sc:Hebrew}"},
    {"Thai", "\\p{sc:Thai}"},
};

static bool name_equal(const char *name, size_t size, const char *known) {
    return strlen(known) == size && strncasecmp(name, known, size) == 0;
}

void regex_add_category(struct str *out, const char *category) {
    str_printf(out, "\\p{%s}", category);
    for (size_t i = 0; i < unicode_newer_count; i++) {
        const struct unicode_range *r = &unicode_newer_ranges[i];
        if (strncmp(r->category, category, strlen(category)) != 0) continue;
        str_printf(out, "\\x{%x}-\\x{%x}", r->low, r->high);
    }
}

static void add_word(struct str *out, bool in_class) {
    str_add_text(out, "\\p{Alphabetic}");
    regex_add_category(out, "L");
    regex_add_category(out, "M");
    regex_add_category(out, "Nd");
    regex_add_category(out, "Pc");
    /* Oniguruma takes these six for letters, but not in a class. */
    if (!in_class) str_add_text(out, "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}");
}

/* {...} of \p and \P: t->p stands behind the p. In a class a negative one cannot be written. */
static int property(struct translator *t, bool negative, bool in_class) {
    const char *close = t->p < t->end ? memchr(t->p, '}', (size_t)(t->end - t->p)) : NULL;
    if (close == NULL || *t->p != '{') return refuse(t, "a property without braces");
    const char *name = t->p + 1, *category = NULL, *script = NULL;
    if (*name == '^') {
        negative = !negative;
        name++;
    }
    size_t size = (size_t)(close - name);
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++) {
        if (name_equal(name, size, categories[i])) category = categories[i];
    }
    for (size_t i = 0; i < sizeof long_names / sizeof *long_names; i++) {
        if (name_equal(name, size, long_names[i][0])) category = long_names[i][1];
    }
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        if (name_equal(name, size, scripts[i][0])) script = scripts[i][1];
    }
    if (category == NULL && script == NULL) return refuse(t, "an unknown property");
    if (negative && in_class) return refuse(t, "a negative property in a class");
    /* The engines differ in what a letter case means where case is ignored. */
    if (t->levels[t->depth].ignore_case && category && category[0] == 'L' && category[1] &&
        strchr("ult", category[1])) {
        return refuse(t, "a letter case where case is ignored");
    }
    if (!in_class) str_add_text(t->out, negative ? "[^" : "[");
    if (category) regex_add_category(t->out, category);
    if (script) str_add_text(t->out, script);
    if (!in_class) str_add_char(t->out, ']');
    t->p = close + 1;
    return 0;
}

/* An escape that stands for one character. Returns 1 if it is not one. */
static int escaped_character(struct translator *t, uint32_t *out) {
    static const char from[] = "nrtfvae";
    static const uint32_t to[] = {10, 13, 9, 12, 11, 7, 27};
    char c = *t->p;
    const char *at = c ? strchr(from, c) : NULL;
    if (at != NULL) {
        *out = to[at - from];
        t->p++;
        return 0;
    }
    if (c == 'u') {
        t->p++;
        return hex(t, 4, 4, out);
    }
    if (c == 'x') {
        t->p++;
        if (t->p == t->end || *t->p != '{') return hex(t, 2, 2, out);
        t->p++;
        int rc = hex(t, 1, 6, out);
        if (rc < 0) return rc;
        if (t->p == t->end || *t->p != '}') return refuse(t, "an open code point");
        t->p++;
        return 0;
    }
    bool word = (uint32_t)(c | 32) - 'a' < 26u;
    if (word || (c >= '0' && c <= '9') || (unsigned char)c >= 0x80) return 1;
    *out = (unsigned char)c;
    t->p++;
    return 0;
}

static int escape(struct translator *t) {
    t->p++;
    if (t->p == t->end) return refuse(t, "a backslash at the end");
    begin_atom(t);
    uint32_t c;
    int rc = escaped_character(t, &c);
    if (rc == 0) add_codepoint(t, c);
    if (rc <= 0) return rc;
    char kind = *t->p++;
    switch (kind) {
    case 's':
        str_add_text(t->out, "[" SPACES "]");
        return 0;
    case 'S':
        str_add_text(t->out, "[^" SPACES "]");
        return 0;
    case 'w':
    case 'W':
        str_add_text(t->out, kind == 'W' ? "[^" : "[");
        add_word(t->out, false);
        str_add_char(t->out, ']');
        return 0;
    case 'd':
    case 'D':
        str_add_text(t->out, kind == 'D' ? "[^" : "[");
        regex_add_category(t->out, "Nd");
        str_add_char(t->out, ']');
        return 0;
    case 'p':
    case 'P':
        return property(t, kind == 'P', false);
    case 'A':
    case 'z':
        t->atom.present = false;
        str_printf(t->out, "\\%c", kind);
        return 0;
    default:
        t->p--;
        return refuse(t, "an unknown escape");
    }
}

/* One member of a class. *single: it is a character, so that it may begin or end a range. */
static int class_member(struct translator *t, bool *single) {
    *single = true;
    uint32_t c;
    if (*t->p != '\\') {
        if (*t->p == '[' || next_is(t, "&&")) return refuse(t, "a class inside a class");
        t->p += utf8_decode(t->p, (size_t)(t->end - t->p), &c);
        add_codepoint(t, c);
        return 0;
    }
    t->p++;
    if (t->p == t->end) return refuse(t, "a backslash at the end");
    int rc = escaped_character(t, &c);
    if (rc == 0) add_codepoint(t, c);
    if (rc <= 0) return rc;
    *single = false;
    char kind = *t->p++;
    switch (kind) {
    case 's':
        str_add_text(t->out, SPACES);
        return 0;
    case 'S':
        str_add_text(t->out, "\\P{White_Space}");
        return 0;
    case 'w':
        add_word(t->out, true);
        return 0;
    case 'd':
        regex_add_category(t->out, "Nd");
        return 0;
    case 'p':
    case 'P':
        return property(t, kind == 'P', true);
    default:
        t->p--;
        return refuse(t, "an unknown escape in a class");
    }
}

static int class(struct translator *t) {
    begin_atom(t);
    str_add_char(t->out, '[');
    t->p++;
    if (next_is(t, "^")) {
        str_add_char(t->out, '^');
        t->p++;
    }
    if (t->p == t->end || *t->p == ']') return refuse(t, "an empty class");
    bool may_range = false;
    while (t->p < t->end && *t->p != ']') {
        if (*t->p == '-' && may_range && t->p + 1 < t->end && t->p[1] != ']') {
            t->p++;
            str_add_char(t->out, '-');
            int rc = class_member(t, &may_range);
            if (rc < 0) return rc;
            if (!may_range) return refuse(t, "a range up to a class");
            may_range = false;
            continue;
        }
        int rc = class_member(t, &may_range);
        if (rc < 0) return rc;
    }
    if (t->p == t->end) return refuse(t, "an open class");
    t->p++;
    str_add_char(t->out, ']');
    return 0;
}

static void count_copies(struct translator *t, long copies) {
    if (copies > t->levels[t->depth].copies) t->levels[t->depth].copies = copies;
}

static int open_group(struct translator *t) {
    static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};
    if (t->depth + 1 >= CAP_PATTERN_DEPTH) return refuse(t, "groups nested too deep");
    const char *kind = NULL;
    if (next_is(t, "(?i)") && t->p == t->begin) { /* elsewhere it would cut alternatives */
        str_add_text(t->out, "(?i)");
        t->levels[t->depth].ignore_case = true;
        t->p += 4;
        return 0;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (next_is(t, kinds[i])) kind = kinds[i];
    }
    if (kind == NULL && next_is(t, "(?")) return refuse(t, "an unknown group");
    bool ignore_case = t->levels[t->depth].ignore_case || (kind && strcmp(kind, "(?i:") == 0);
    t->levels[++t->depth] =
        (struct level){.start = t->out->size, .ignore_case = ignore_case, .copies = 1};
    str_add_text(t->out, kind ? kind : "(?:"); /* captures are of no use here */
    t->p += kind ? strlen(kind) : 1;
    t->atom.present = false;
    return 0;
}

static int close_group(struct translator *t) {
    if (t->depth == 0) return refuse(t, "a bracket that closes nothing");
    struct level level = t->levels[t->depth--];
    str_add_char(t->out, ')');
    t->p++;
    t->atom = (struct atom){true, level.loops, level.copies, level.start};
    t->levels[t->depth].loops |= level.loops;
    count_copies(t, level.copies);
    return 0;
}

/* {n}, {n,}, {,m}, {n,m}. Returns 1 if the brace is a plain character. */
static int counted(struct translator *t, long *min, long *max) {
    const char *p = t->p + 1;
    long values[2] = {-1, -1};
    int comma = 0;
    for (; p < t->end && *p != '}'; p++) {
        if (*p == ',' && comma == 0) {
            comma = 1;
            continue;
        }
        if (*p < '0' || *p > '9') return 1;
        long *v = &values[comma];
        *v = (*v < 0 ? 0 : *v) * 10 + (*p - '0');
        if (*v > CAP_PATTERN_REPEAT) return refuse(t, "a count over the limit");
    }
    if (p == t->end || (values[0] < 0 && values[1] < 0)) return 1;
    *min = values[0] < 0 ? 0 : values[0];
    *max = comma ? values[1] : values[0];
    if (*max >= 0 && *max < *min) return refuse(t, "a count that runs backwards");
    t->p = p + 1;
    return 0;
}

static void wrap_atom(struct translator *t) {
    struct str tail = {0};
    str_add(&tail, t->out->data + t->atom.start, t->out->size - t->atom.start);
    t->out->size = t->atom.start;
    str_add_text(t->out, "(?:");
    str_add(t->out, tail.data, tail.size);
    str_add_char(t->out, ')');
    str_free(&tail);
}

static int quantifier(struct translator *t) {
    long min = *t->p == '+', max = *t->p == '?' ? 1 : -1;
    bool braces = *t->p == '{';
    if (braces) {
        int rc = counted(t, &min, &max);
        if (rc < 0) return rc;
        if (rc > 0) {
            begin_atom(t);
            str_add_text(t->out, "\\{");
            t->p++;
            return 0;
        }
    }
    if (!t->atom.present) return refuse(t, "a repetition of nothing");
    if (t->atom.loops && max != 1 && max != 0) return refuse(t, "a repeated repetition");
    long copies = t->atom.copies * (max > 1 ? max : min > 1 ? min : 1);
    if (copies > CAP_PATTERN_REPEAT) return refuse(t, "a count of counts over the limit");
    count_copies(t, copies);
    if (braces) {
        str_printf(t->out, max < 0 ? "{%ld,}" : "{%ld,%ld}", min, max);
    } else {
        str_add_char(t->out, *t->p++);
    }
    bool loops = max < 0;
    if (t->p < t->end && *t->p == '?') {
        if (braces && min == max) return refuse(t, "a lazy fixed count");
        str_add_char(t->out, *t->p++);
    } else if (t->p < t->end && *t->p == '+') {
        if (braces) { /* Ruby repeats the counted thing; PCRE2 would make it possessive */
            if (loops) return refuse(t, "a repeated repetition");
            wrap_atom(t);
            loops = true;
        }
        str_add_char(t->out, *t->p++);
    }
    t->levels[t->depth].loops |= loops;
    t->atom.present = false;
    return 0;
}

static int one(struct translator *t) {
    switch (*t->p) {
    case '\\':
        return escape(t);
    case '[':
        return class(t);
    case '(':
        return open_group(t);
    case ')':
        return close_group(t);
    case '*':
    case '+':
    case '?':
    case '{':
        return quantifier(t);
    case '|':
    case '^':
    case '$':
        t->atom.present = false;
        str_add_char(t->out, *t->p++);
        return 0;
    case '.':
        begin_atom(t);
        str_add_char(t->out, *t->p++);
        return 0;
    default:
        break;
    }
    begin_atom(t);
    uint32_t c;
    t->p += utf8_decode(t->p, (size_t)(t->end - t->p), &c);
    add_codepoint(t, c);
    return 0;
}

int regex_translate(struct slice pattern, const char *where, struct str *out,
                    struct imp_error *err) {
    struct translator t = {.begin = pattern.data,
                           .p = pattern.data,
                           .end = pattern.data + pattern.size,
                           .where = where,
                           .out = out,
                           .err = err};
    if (pattern.size == 0) return refuse(&t, "it is empty");
    if (pattern.size > CAP_PATTERN_BYTES) return refuse(&t, "it is too long");
    if (!utf8_valid(pattern.data, pattern.size)) return refuse(&t, "it is not UTF-8");
    while (t.p < t.end) {
        int rc = one(&t);
        if (rc < 0) return rc;
    }
    if (t.depth > 0) return refuse(&t, "an open group");
    return 0;
}
