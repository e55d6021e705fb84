/* Template source to tokens. The rules for blanks around tags are Jinja's with trim_blocks and
 * lstrip_blocks on: a block tag swallows the newline after it and the blanks before it on its line.
 */
#include <string.h>
#include <utf8proc.h>

#include "base/caps.h"
#include "text/jinja_internal.h"

struct lexer {
    struct parser *p;
    const char *s;
    size_t n, at;
    struct place place; /* of counted_to, up to which lines and columns are counted */
    size_t counted_to;
    bool line_starting;
    char balance[CAP_TEMPLATE_DEPTH];
    int open;
};

bool char_is_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Places are asked for in ascending order. */
static struct place place_of(struct lexer *l, size_t at) {
    for (; l->counted_to < at; l->counted_to++) {
        unsigned char c = (unsigned char)l->s[l->counted_to];
        if (c == '\n') {
            l->place = (struct place){l->place.line + 1, 1};
        } else {
            l->place.column += (c & 0xc0) != 0x80;
        }
    }
    return l->place;
}

static void emit(struct lexer *l, enum token_kind kind, size_t from, const char *p, size_t n) {
    struct tokens *ts = &l->p->tokens;
    if (ts->n == ts->cap) {
        size_t cap = ts->cap ? ts->cap * 2 : 256;
        parse_room(l->p, place_of(l, from));
        struct token *v = arena_array(l->p->arena, cap, sizeof *v);
        if (ts->n) memcpy(v, ts->v, ts->n * sizeof *v);
        ts->v = v;
        ts->cap = cap;
    }
    ts->v[ts->n++] = (struct token){kind, place_of(l, from), {p, n}};
}

static bool at_text(const struct lexer *l, size_t at, const char *text) {
    size_t n = strlen(text);
    return l->n - at >= n && at <= l->n && memcmp(l->s + at, text, n) == 0;
}

static size_t skip_space(const struct lexer *l, size_t at) {
    while (at < l->n) {
        uint32_t c;
        size_t n = utf8_decode(l->s + at, l->n - at, &c);
        if (!char_is_space(c)) break;
        at += n;
    }
    return at;
}

/* Where the blanks at the end of s[from..to) begin. */
static size_t trim_end(const struct lexer *l, size_t from, size_t to) {
    size_t end = from;
    for (size_t i = from; i < to;) {
        uint32_t c;
        i += utf8_decode(l->s + i, to - i, &c);
        if (!char_is_space(c)) end = i;
    }
    return end;
}

/* Text before a tag whose sign is `sign`; the lstrip_blocks rule spares variable tags. */
static void emit_data(struct lexer *l, size_t from, size_t to, char sign, bool variable) {
    size_t end = to;
    if (sign == '-') {
        end = trim_end(l, from, to);
    } else if (sign != '+' && !variable) {
        size_t line = to;
        while (line > from && l->s[line - 1] != '\n') line--;
        if ((line > from || l->line_starting) && trim_end(l, line, to) == line) end = line;
    }
    if (end > from) emit(l, T_DATA, from, l->s + from, end - from);
}

/* The end of a tag at `at` with its sign; 0 if there is none. `close` is "%}" or "#}". */
static size_t tag_end(const struct lexer *l, size_t at, const char *close) {
    if (at_text(l, at, close)) {
        at += 2;
        return at < l->n && l->s[at] == '\n' ? at + 1 : at;
    }
    if (at >= l->n || (l->s[at] != '-' && l->s[at] != '+') || !at_text(l, at + 1, close)) return 0;
    return l->s[at] == '-' ? skip_space(l, at + 3) : at + 3;
}

static size_t variable_end(const struct lexer *l, size_t at) {
    if (at_text(l, at, "}}")) return at + 2;
    return at_text(l, at, "-}}") ? skip_space(l, at + 3) : 0;
}

static size_t skip_sign(const struct lexer *l, size_t at, char *sign) {
    *sign = 0;
    if (at < l->n && (l->s[at] == '-' || l->s[at] == '+')) *sign = l->s[at++];
    return at;
}

/* "{% raw %}" at `at`: the position after it, or 0. */
static size_t raw_begin(const struct lexer *l, size_t at) {
    char sign;
    at = skip_space(l, skip_sign(l, at + 2, &sign));
    if (!at_text(l, at, "raw")) return 0;
    at = skip_space(l, at + 3);
    if (at_text(l, at, "%}")) return at + 2;
    return at_text(l, at, "-%}") ? skip_space(l, at + 3) : 0;
}

static size_t raw_end(const struct lexer *l, size_t at, char *sign) {
    at = skip_space(l, skip_sign(l, at + 2, sign));
    if (!at_text(l, at, "endraw")) return 0;
    return tag_end(l, skip_space(l, at + 6), "%}");
}

static void lex_raw(struct lexer *l, size_t start) {
    l->line_starting = start > 0 && l->s[start - 1] == '\n';
    for (size_t at = start; at < l->n; at++) {
        char sign;
        size_t end = at_text(l, at, "{%") ? raw_end(l, at, &sign) : 0;
        if (end == 0) continue;
        emit_data(l, start, at, sign, false);
        l->at = end;
        return;
    }
    parse_fail(l->p, place_of(l, start), "missing end of raw directive");
}

static void lex_comment(struct lexer *l, size_t start) {
    for (size_t at = start; at < l->n; at++) {
        size_t end = tag_end(l, at, "#}");
        if (end == 0) continue;
        l->at = end;
        return;
    }
    parse_fail(l->p, place_of(l, start), "missing end of comment tag");
}

static bool digit_in(char c, int base) {
    int d = c >= '0' && c <= '9'                 ? c - '0'
            : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 87
                                                 : 99;
    return d < base;
}

/* Digits with single underscores between them; `at` if there are none. */
static size_t skip_digits(const struct lexer *l, size_t at, int base) {
    size_t end = at;
    while (at < l->n) {
        if (digit_in(l->s[at], base)) {
            end = ++at;
        } else if (l->s[at] == '_' && end == at && at + 1 < l->n && digit_in(l->s[at + 1], base)) {
            at++;
        } else {
            break;
        }
    }
    return end;
}

static void emit_number(struct lexer *l, enum token_kind kind, size_t end) {
    char *text = arena_alloc(l->p->arena, end - l->at + 1);
    size_t n = 0;
    for (size_t i = l->at; i < end; i++) {
        if (l->s[i] != '_') text[n++] = l->s[i];
    }
    emit(l, kind, l->at, text, n);
    l->at = end;
}

static void lex_number(struct lexer *l) {
    size_t at = l->at, end = skip_digits(l, at, 10), fraction = end;
    bool is_float = false;
    if (at == 0 || l->s[at - 1] != '.') {
        if (end < l->n && l->s[end] == '.') {
            size_t more = skip_digits(l, end + 1, 10);
            if (more > end + 1) {
                fraction = more;
                is_float = true;
            }
        }
        if (fraction < l->n && (l->s[fraction] | 32) == 'e') {
            size_t digits = fraction + 1;
            if (digits < l->n && (l->s[digits] == '+' || l->s[digits] == '-')) digits++;
            size_t more = skip_digits(l, digits, 10);
            if (more > digits) {
                fraction = more;
                is_float = true;
            }
        }
    }
    if (is_float) {
        emit_number(l, T_FLOAT, fraction);
        return;
    }
    if (l->s[at] == '0') {
        char kind = at + 1 < l->n ? (char)(l->s[at + 1] | 32) : 0;
        int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 1;
        size_t digits = base > 1 ? at + 2 : at;
        if (base > 1 && digits < l->n && l->s[digits] == '_') digits++;
        end = skip_digits(l, digits, base);
        if (end == digits) end = at + 1;
    }
    emit_number(l, T_NUMBER, end);
}

static int hex_value(char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 87 : -1;
}

static size_t hex_escape(struct lexer *l, struct str *out, size_t at, size_t end, int digits) {
    uint32_t c = 0;
    for (int i = 0; i < digits; i++, at++) {
        int d = at < end ? hex_value(l->s[at]) : -1;
        if (d < 0) {
            str_free(out);
            parse_fail(l->p, place_of(l, l->at), "truncated \\%c escape",
                       digits == 2   ? 'x'
                       : digits == 4 ? 'u'
                                     : 'U');
        }
        c = c << 4 | (uint32_t)d;
    }
    if (c > 0x10ffff) {
        str_free(out);
        parse_fail(l->p, place_of(l, l->at), "illegal Unicode character");
    }
    str_add_codepoint(out, c);
    return at;
}

/* The escape after a backslash at s[at - 1]; Python's, and what is unknown keeps its backslash. */
static size_t unescape(struct lexer *l, struct str *out, size_t at, size_t end) {
    static const char names[] = "abfnrtv\\'\"", values[] = "\a\b\f\n\r\t\v\\'\"";
    char c = l->s[at];
    const char *known = c ? strchr(names, c) : NULL;
    if (known) {
        str_add_char(out, values[known - names]);
        return at + 1;
    }
    if (c == '\n') return at + 1;
    if (c >= '0' && c <= '7') {
        uint32_t v = 0;
        size_t stop = at + 3 < end ? at + 3 : end;
        while (at < stop && l->s[at] >= '0' && l->s[at] <= '7')
            v = v * 8 + (uint32_t)(l->s[at++] - '0');
        str_add_codepoint(out, v);
        return at;
    }
    if (c == 'x') return hex_escape(l, out, at + 1, end, 2);
    if (c == 'u') return hex_escape(l, out, at + 1, end, 4);
    if (c == 'U') return hex_escape(l, out, at + 1, end, 8);
    if (c == 'N') {
        str_free(out);
        parse_fail(l->p, place_of(l, l->at), "\\N escapes are not supported");
    }
    str_add_char(out, '\\');
    if ((unsigned char)c < 0x80) return at; /* the character itself follows as text */
    /* jinja2 escapes non-ASCII text before it unescapes: the two backslashes become one. */
    uint32_t code;
    size_t n = utf8_decode(l->s + at, end - at, &code);
    str_printf(out, code < 0x100 ? "x%02x" : code < 0x10000 ? "u%04x" : "U%08x", code);
    return at + n;
}

static void lex_string(struct lexer *l) {
    char quote = l->s[l->at];
    size_t end = l->at + 1;
    bool plain = true;
    while (end < l->n && l->s[end] != quote) {
        if (l->s[end] == '\\') {
            plain = false;
            end++;
        }
        end++;
    }
    if (end >= l->n) parse_fail(l->p, place_of(l, l->at), "unexpected char '%c'", quote);
    size_t from = l->at + 1;
    if (plain) {
        emit(l, T_STRING, l->at, l->s + from, end - from);
        l->at = end + 1;
        return;
    }
    struct str text = {0};
    str_reserve(&text, end - from);
    for (size_t i = from; i < end;) {
        if (l->s[i] == '\\') {
            i = unescape(l, &text, i + 1, end);
        } else {
            str_add_char(&text, l->s[i++]);
        }
    }
    emit(l, T_STRING, l->at, arena_strndup(l->p->arena, text.data, text.size), text.size);
    str_free(&text);
    l->at = end + 1;
}

static size_t name_length(const struct lexer *l) {
    size_t at = l->at;
    while (at < l->n) {
        uint32_t c;
        size_t n = utf8_decode(l->s + at, l->n - at, &c);
        bool word = c == '_' || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
        if (c >= 0x80) {
            utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
            word = (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
                   (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
        }
        if (!word) break;
        at += n;
    }
    return at - l->at;
}

static void lex_operator(struct lexer *l) {
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    char c = l->s[l->at];
    size_t n = 0;
    for (size_t i = 0; i < sizeof two / sizeof *two && n == 0; i++) {
        if (at_text(l, l->at, two[i])) n = 2;
    }
    if (n == 0 && c && strchr("+-/*%~[](){}><=.:|,;", c)) n = 1;
    if (n == 0) parse_fail(l->p, place_of(l, l->at), "unexpected character in a tag");
    if (n == 1 && (c == '(' || c == '[' || c == '{')) {
        if (l->open == CAP_TEMPLATE_DEPTH) {
            parse_fail(l->p, place_of(l, l->at), "brackets nested deeper than %d", l->open);
        }
        l->balance[l->open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (n == 1 && (c == ')' || c == ']' || c == '}')) {
        if (l->open == 0 || l->balance[--l->open] != c) {
            parse_fail(l->p, place_of(l, l->at), "unexpected '%c'", c);
        }
    }
    emit(l, T_OP, l->at, l->s + l->at, n);
    l->at += n;
}

static void lex_tag(struct lexer *l, bool variable) {
    l->open = 0;
    while (l->at < l->n) {
        size_t end = 0;
        if (l->open == 0) end = variable ? variable_end(l, l->at) : tag_end(l, l->at, "%}");
        if (end) {
            emit(l, variable ? T_VAR_END : T_BLOCK_END, l->at, l->s + l->at, end - l->at);
            l->at = end;
            return;
        }
        size_t blank = skip_space(l, l->at);
        if (blank > l->at) {
            l->at = blank;
            continue;
        }
        char c = l->s[l->at];
        if (c >= '0' && c <= '9') {
            lex_number(l);
        } else if (c == '\'' || c == '"') {
            lex_string(l);
        } else {
            size_t n = name_length(l);
            if (n == 0) {
                lex_operator(l);
            } else {
                emit(l, T_NAME, l->at, l->s + l->at, n);
                l->at += n;
            }
        }
    }
    /* The parser meets the end of the tokens and says what it expected. */
}

static struct slice normalise_newlines(struct parser *p, struct slice source) {
    char *out = arena_alloc(p->arena, source.size + 1);
    size_t n = 0;
    for (size_t i = 0; i < source.size; i++) {
        char c = source.data[i];
        if (c == '\r') {
            if (i + 1 < source.size && source.data[i + 1] == '\n') i++;
            c = '\n';
        }
        out[n++] = c;
    }
    if (n > 0 && out[n - 1] == '\n') n--; /* keep_trailing_newline is off */
    return (struct slice){out, n};
}

void jinja_lex(struct parser *p, struct slice source) {
    struct slice s = normalise_newlines(p, source);
    struct lexer l = {.p = p, .s = s.data, .n = s.size, .place = {1, 1}, .line_starting = true};
    while (l.at < l.n) {
        size_t tag = l.at;
        while (tag < l.n &&
               !(l.s[tag] == '{' && tag + 1 < l.n && strchr("%{#", l.s[tag + 1]) && l.s[tag + 1])) {
            tag++;
        }
        if (tag == l.n) {
            emit(&l, T_DATA, l.at, l.s + l.at, l.n - l.at);
            break;
        }
        char kind = l.s[tag + 1], sign;
        size_t inside = skip_sign(&l, tag + 2, &sign);
        emit_data(&l, l.at, tag, sign, kind == '{');
        size_t raw = kind == '%' ? raw_begin(&l, tag) : 0;
        if (raw) {
            lex_raw(&l, raw);
        } else if (kind == '#') {
            lex_comment(&l, inside);
        } else {
            emit(&l, kind == '{' ? T_VAR_BEGIN : T_BLOCK_BEGIN, tag, l.s + tag, 2);
            l.at = inside;
            lex_tag(&l, kind == '{');
        }
        l.line_starting = l.at > 0 && l.s[l.at - 1] == '\n';
    }
    emit(&l, T_EOF, l.n, "", 0);
}
