/* Python's two ways to format: "%s" % value and "{}".format(value). */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "text/jinja_internal.h"

struct spec {
    struct jv fill;         /* string, or J_MISSING for a blank */
    char align, sign, type; /* 0: not given */
    bool alternate, zero, no_negative_zero;
    char grouping;
    int64_t width, precision; /* precision -1: none */
};

static void add_fill(struct jbuf *b, const struct spec *s, size_t n) {
    struct jv fill = s->fill.type == J_STR ? s->fill : str_text(b->x, " ");
    buf_add_str(b, str_repeat(b->x, fill.u.s, (int64_t)n).u.s);
}

static void add_padded(struct jbuf *b, struct jstr *text, const struct spec *s, char align) {
    size_t n = str_chars(text), width = s->width > 0 ? (size_t)s->width : 0;
    size_t pad = width > n ? width - n : 0;
    if (s->align) align = s->align;
    size_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0;
    add_fill(b, s, left);
    buf_add_str(b, text);
    add_fill(b, s, pad - left);
}

/* digits with separators every `every`, and zeros in front up to `width` characters. */
static void group_digits(struct str *out, struct slice digits, char separator, size_t every,
                         size_t width) {
    struct str text = {0};
    size_t n = digits.size;
    while (separator ? n + (n - 1) / every < width : n < width) n++;
    for (size_t i = 0; i < n; i++) {
        if (separator && i > 0 && (n - i) % every == 0) str_add_char(&text, separator);
        str_add_char(&text, n - i > digits.size ? '0' : digits.data[digits.size - (n - i)]);
    }
    str_add(out, text.data, text.size);
    str_free(&text);
}

/* sign, prefix, digits, rest (fraction or exponent) to a padded number. */
static void add_number(struct jbuf *b, bool negative, const char *prefix, struct slice digits,
                       const char *rest, const struct spec *s) {
    struct str text = {0};
    struct spec outer = *s;
    const char *sign = negative ? "-" : s->sign == '+' ? "+" : s->sign == ' ' ? " " : "";
    size_t before = strlen(sign) + strlen(prefix), width = 0;
    if (s->zero && outer.align == 0) outer.align = '=';
    if (s->zero && outer.fill.type == J_MISSING) outer.fill = str_text(b->x, "0");
    bool inside = outer.align == '='; /* the filling stands between sign and digits */
    if (inside && str_is(outer.fill, "0") && s->width > 0) { /* and is grouped like them */
        width = before + strlen(rest);
        width = (size_t)s->width > width ? (size_t)s->width - width : 0;
    }
    if (inside) {
        outer.align = '>';
        outer.width -= (int64_t)before;
        buf_text(b, sign, false);
        buf_text(b, prefix, false);
    } else {
        str_add_text(&text, sign);
        str_add_text(&text, prefix);
    }
    group_digits(&text, digits, s->grouping, s->type && strchr("xXob", s->type) ? 4 : 3, width);
    str_add_text(&text, rest);
    size_t size = text.size;
    char *own = arena_strndup(&b->x->arena, text.data, size);
    str_free(&text); /* before anything that may fail */
    struct jv v = str_make(b->x, own, size, false);
    add_padded(b, v.u.s, &outer, '>');
}

static void add_int_number(struct jbuf *b, struct jv v, const struct spec *s) {
    int base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    struct str text = {0};
    int_digits(b->x, v, base, s->type == 'X', &text);
    char *own = arena_strndup(&b->x->arena, text.data, text.size);
    struct slice digits = {own, text.size};
    str_free(&text);
    bool negative = digits.size > 0 && digits.data[0] == '-';
    if (negative) digits.data++, digits.size--;
    char prefix[3] = {0};
    if (s->alternate && base != 10) snprintf(prefix, sizeof prefix, "0%c", s->type);
    while (s->precision > 0 && digits.size < (size_t)s->precision &&
           s->precision < CAP_TEMPLATE_PRECISION) {
        digits.data = arena_printf(&b->x->arena, "0%.*s", (int)digits.size, digits.data);
        digits.size++;
    }
    add_number(b, negative, prefix, digits, "", s);
}

static void add_float_number(struct jbuf *b, double f, const struct spec *s) {
    char text[800], how[16], type = s->type;
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    if (precision > CAP_TEMPLATE_PRECISION) jx_fail(b->x, "precision too large");
    if (isnan(f) || isinf(f)) {
        bool upper = type == 'F' || type == 'E' || type == 'G';
        strcpy(text, isnan(f) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
        struct spec plain = *s;
        plain.grouping = 0;
        add_number(b, !isnan(f) && f < 0, "", slice_of(text), "", &plain);
        return;
    }
    if (type == '%') f *= 100;
    if (type == 0 && s->precision < 0) {
        float_repr(fabs(f), text);
    } else {
        char c = type == '%' ? 'f' : type == 0 || type == 'n' ? 'g' : type;
        snprintf(how, sizeof how, "%%%s.*%c", s->alternate ? "#" : "", c);
        snprintf(text, sizeof text, how, precision, fabs(f));
        if (type == 0 && strpbrk(text, ".e") == NULL && (int)strlen(text) < precision) {
            strcat(text, ".0");
        } else if (type == 0 && strchr(text, 'e') == NULL && (int)strlen(text) == precision &&
                   strchr(text, '.') == NULL) { /* repr's rule: no room for ".0" */
            snprintf(text, sizeof text, "%.*e", precision - 1, fabs(f));
            char *e = strchr(text, 'e'), *z = e;
            while (z > text && z[-1] == '0') z--;
            if (z > text && z[-1] == '.') z--;
            memmove(z, e, strlen(e) + 1);
        }
    }
    if (type == '%') strcat(text, "%");
    size_t n = strspn(text, "0123456789");
    bool zero = strspn(text, "0.") == strcspn(text, "eE%");
    bool negative = signbit(f) != 0 && !(zero && s->no_negative_zero);
    add_number(b, negative, "", (struct slice){text, n}, text + n, s);
}

/* str(), repr() or ascii(). */
static void add_converted(struct jbuf *b, struct jv v, char how) {
    struct jbuf t;
    if (how == 's') {
        add_str(b, v);
    } else if (how == 'r') {
        add_repr(b, v, 0);
    } else if (how == 'a') {
        buf_init(&t, b->x);
        add_repr(&t, v, 0);
        add_ascii(b, buf_take(&t).u.s);
    } else {
        jx_fail(b->x, "Unknown conversion specifier");
    }
}

/* ---- "%s" % value ---- */

struct percent {
    struct jx *x;
    struct jstr *fmt;
    size_t at;
    struct jv args;
    struct jlist *tuple; /* the arguments, if they are one */
    size_t next;
    bool used_single;
};

static struct jv next_arg(struct percent *p) {
    if (p->tuple) {
        if (p->next == p->tuple->n) jx_fail(p->x, "not enough arguments for format string");
        return p->tuple->v[p->next++];
    }
    if (p->used_single) jx_fail(p->x, "not enough arguments for format string");
    p->used_single = true;
    return p->args;
}

static int64_t percent_number(struct percent *p) {
    if (p->at < p->fmt->n && p->fmt->p[p->at] == '*') {
        p->at++;
        return int_of(p->x, next_arg(p));
    }
    int64_t n = 0;
    while (p->at < p->fmt->n && isdigit((unsigned char)p->fmt->p[p->at])) {
        n = n * 10 + (p->fmt->p[p->at++] - '0');
        if (n > CAP_TEMPLATE_WIDTH) jx_fail(p->x, "width too big");
    }
    return n;
}

static void percent_convert(struct percent *p, struct jbuf *b, struct jv v, struct spec *s) {
    struct jx *x = p->x;
    struct jbuf t;
    buf_init(&t, x);
    switch (s->type) {
    case 's':
    case 'r':
    case 'a':
        add_converted(&t, v, s->type);
        break;
    case 'c':
        if (v.type == J_STR && str_chars(v.u.s) == 1) {
            buf_add_str(&t, v.u.s);
        } else if (is_int(v) && int_of(x, v) >= 0 && int_of(x, v) < 0x110000) {
            buf_codepoint(&t, (uint32_t)int_of(x, v), false);
        } else {
            jx_fail(x, "%%c requires int or char");
        }
        break;
    case 'd':
    case 'i':
    case 'u':
        if (v.type == J_FLOAT) v = int_from_double(x, v.u.f);
        s->type = 'd'; /* fall through */
    case 'x':
    case 'X':
    case 'o':
        if (!is_int(v)) jx_fail(x, "%%d format: a real number is required, not %s", type_name(v));
        add_int_number(b, v, s);
        return;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (!is_number(v)) jx_fail(x, "must be real number, not %s", type_name(v));
        add_float_number(b, num_double(x, v), s);
        return;
    default:
        jx_fail(x, "unsupported format character");
    }
    struct jv text = buf_take(&t);
    if (s->precision >= 0) {
        text = str_part(x, text.u.s, 0, str_offset(x, text.u.s, (size_t)s->precision));
    }
    s->zero = false;
    add_padded(b, text.u.s, s, '>');
}

static void percent_item(struct percent *p, struct jbuf *b) {
    struct jx *x = p->x;
    struct jstr *f = p->fmt;
    struct spec s = {.precision = -1};
    struct jv value = {J_MISSING, {0}};
    if (p->at < f->n && f->p[p->at] == '(') {
        size_t from = ++p->at;
        for (int depth = 1; p->at < f->n; p->at++) {
            depth += (f->p[p->at] == '(') - (f->p[p->at] == ')');
            if (depth == 0) break;
        }
        if (p->at == f->n) jx_fail(x, "incomplete format key");
        if (p->args.type != J_DICT) jx_fail(x, "format requires a mapping");
        struct jv *found = dict_get(x, p->args.u.d, str_part(x, f, from, p->at - from));
        if (found == NULL) jx_fail(x, "a key of the format is missing");
        value = *found;
        p->at++;
        p->used_single = true;
    }
    bool left = false;
    for (; p->at < f->n && f->p[p->at] && strchr("-+ #0", f->p[p->at]); p->at++) {
        char c = f->p[p->at];
        if (c == '-') left = true;
        if (c == '+' || (c == ' ' && !s.sign)) s.sign = c;
        if (c == '#') s.alternate = true;
        if (c == '0') s.zero = true;
    }
    s.width = percent_number(p);
    if (s.width < 0) {
        left = true;
        s.width = s.width == INT64_MIN ? CAP_TEMPLATE_WIDTH + 1 : -s.width;
    }
    if (s.width > CAP_TEMPLATE_WIDTH) jx_fail(x, "width too big");
    if (left) {
        s.align = '<';
        s.zero = false;
    }
    if (p->at < f->n && f->p[p->at] == '.') {
        p->at++;
        s.precision = percent_number(p);
        if (s.precision < 0) s.precision = 0;
    }
    if (p->at < f->n && f->p[p->at] && strchr("hlL", f->p[p->at])) p->at++;
    if (p->at == f->n) jx_fail(x, "incomplete format");
    s.type = f->p[p->at++];
    if (s.type == '%') {
        buf_text(b, "%", str_marked(f, p->at - 1));
        return;
    }
    if (value.type == J_MISSING) value = next_arg(p);
    percent_convert(p, b, value, &s);
}

struct jv format_percent(struct jx *x, struct jstr *fmt, struct jv args) {
    struct percent p = {.x = x, .fmt = fmt, .args = args};
    struct jbuf b;
    buf_init(&b, x);
    if (args.type == J_TUPLE) p.tuple = args.u.l;
    while (p.at < fmt->n) {
        const char *percent = memchr(fmt->p + p.at, '%', fmt->n - p.at);
        size_t to = percent ? (size_t)(percent - fmt->p) : fmt->n;
        buf_add_part(&b, fmt, p.at, to - p.at);
        p.at = to + 1;
        if (percent) percent_item(&p, &b);
    }
    bool mapping = args.type == J_DICT || args.type == J_LIST || args.type == J_RANGE ||
                   args.type == J_UNDEF; /* what has items need not be used */
    if (p.tuple ? p.next < p.tuple->n : !p.used_single && !mapping) {
        jx_fail(x, "not all arguments converted during string formatting");
    }
    struct jv v = buf_take(&b);
    v.u.s->markup = fmt->markup;
    return v;
}

/* ---- "{}".format(value) ---- */

static bool is_align(char c) {
    return c == '<' || c == '>' || c == '=' || c == '^';
}

static void parse_spec(struct jx *x, struct slice t, struct spec *s) {
    size_t at = 0, first = t.size ? utf8_sequence_length(t.data, t.size) : 0;
    *s = (struct spec){.precision = -1};
    if (first && first < t.size && is_align(t.data[first])) {
        s->fill = str_make(x, t.data, first, false);
        s->align = t.data[first];
        at = first + 1;
    } else if (t.size && is_align(t.data[0])) {
        s->align = t.data[at++];
    }
    if (at < t.size && strchr("+- ", t.data[at])) s->sign = t.data[at++];
    if (at < t.size && t.data[at] == 'z') at++, s->no_negative_zero = true;
    if (at < t.size && t.data[at] == '#') at++, s->alternate = true;
    if (at < t.size && t.data[at] == '0') {
        at++;
        s->zero = true;
    }
    for (; at < t.size && isdigit((unsigned char)t.data[at]); at++) {
        s->width = s->width * 10 + (t.data[at] - '0');
        if (s->width > CAP_TEMPLATE_WIDTH) jx_fail(x, "width too big");
    }
    if (at < t.size && (t.data[at] == ',' || t.data[at] == '_')) s->grouping = t.data[at++];
    if (at < t.size && t.data[at] == '.') {
        s->precision = 0;
        if (++at == t.size || !isdigit((unsigned char)t.data[at])) {
            jx_fail(x, "Format specifier missing precision");
        }
        for (; at < t.size && isdigit((unsigned char)t.data[at]); at++) {
            s->precision = s->precision * 10 + (t.data[at] - '0');
            if (s->precision > CAP_TEMPLATE_WIDTH) jx_fail(x, "precision too big");
        }
    }
    if (at < t.size) s->type = t.data[at++];
    if (at < t.size) jx_fail(x, "Invalid format specifier");
}

void format_value(struct jbuf *b, struct jv v, struct slice text) {
    struct jx *x = b->x;
    struct spec s;
    if (text.size == 0) {
        add_str(b, v);
        return;
    }
    parse_spec(x, text, &s);
    bool int_type = s.type && strchr("bcdoxXn", s.type),
         any_float = s.type && strchr("eEfFgG%", s.type);
    if (v.type == J_BOOL && s.type) v = jv_int(v.u.b);
    if (v.type == J_STR || (v.type == J_BOOL && !s.type)) {
        if ((s.type && s.type != 's') || s.sign || s.grouping || s.align == '=' || s.alternate ||
            s.no_negative_zero) {
            jx_fail(x, "Invalid format specifier for '%s'", type_name(v));
        }
        struct jv str = to_str(x, v.type == J_BOOL ? jv_int(v.u.b) : v);
        if (v.type == J_BOOL && s.width == 0 && !s.align) str = to_str(x, v);
        if (s.precision >= 0)
            str = str_part(x, str.u.s, 0, str_offset(x, str.u.s, (size_t)s.precision));
        if (s.zero && s.fill.type == J_MISSING) s.fill = str_text(x, "0");
        add_padded(b, str.u.s, &s, v.type == J_BOOL ? '>' : '<');
        return;
    }
    if (is_int(v) && (s.type == 0 || int_type)) {
        if (s.precision >= 0) jx_fail(x, "Precision not allowed in integer format specifier");
        if (s.no_negative_zero) jx_fail(x, "'z' not allowed in integer format specifier");
        if (s.type == 'c') {
            struct jbuf t;
            buf_init(&t, x);
            buf_codepoint(&t, (uint32_t)int_of(x, v), false);
            add_padded(b, buf_take(&t).u.s, &s, '<');
            return;
        }
        add_int_number(b, v, &s);
        return;
    }
    if (is_number(v) && (any_float || (s.type == 0 && v.type == J_FLOAT) || s.type == 'n')) {
        add_float_number(b, num_double(x, v), &s);
        return;
    }
    jx_fail(x, "unsupported format for '%s'", type_name(v));
}

struct braces {
    struct jx *x;
    const struct jargs *args;
    size_t automatic;
    int mode; /* 0 undecided, 1 automatic, 2 numbered */
};

static struct jv braces_value(struct braces *p, struct jv name) {
    struct slice s = str_slice(name);
    bool number = s.size > 0;
    for (size_t i = 0; i < s.size; i++) number = number && isdigit((unsigned char)s.data[i]);
    if (s.size == 0 || number) {
        int mode = s.size == 0 ? 1 : 2;
        if (p->mode && p->mode != mode) jx_fail(p->x, "cannot mix automatic and manual numbering");
        p->mode = mode;
        size_t i = mode == 1 ? p->automatic++ : 0;
        for (size_t k = 0; mode == 2 && k < s.size && i < 1000000; k++) {
            i = i * 10 + (size_t)(s.data[k] - '0');
        }
        if (i >= p->args->n) jx_fail(p->x, "Replacement index %zu out of range", i);
        return p->args->v[i];
    }
    for (size_t i = 0; i < p->args->nkw; i++) {
        if (slice_equal(str_slice(p->args->kw[i].key), s)) return p->args->kw[i].value;
    }
    jx_fail(p->x, "a name of the format is missing");
}

/* name.attr[item]... */
static struct jv braces_field(struct braces *p, struct jstr *f, size_t from, size_t to) {
    size_t at = from;
    while (at < to && f->p[at] != '.' && f->p[at] != '[') at++;
    struct jv v = braces_value(p, str_part(p->x, f, from, at - from));
    while (at < to) {
        size_t start = ++at;
        if (f->p[at - 1] == '.') {
            while (at < to && f->p[at] != '.' && f->p[at] != '[') at++;
            if (at == start) jx_fail(p->x, "Empty attribute in format string");
            struct jv name = str_part(p->x, f, start, at - start);
            v = get_attr(p->x, v, name, method_find(str_slice(name)));
            continue;
        }
        if (f->p[at - 1] != '[') jx_fail(p->x, "only '.' or '[' may follow ']' in a format field");
        while (at < to && f->p[at] != ']') at++;
        if (at == to || at == start) jx_fail(p->x, "a bad item in a format string");
        struct slice s = {f->p + start, at - start};
        bool ok = isdigit((unsigned char)s.data[0]);
        struct jv key = str_part(p->x, f, start, at - start);
        if (ok) key = int_parse(p->x, s, 10, &ok);
        v = get_item(p->x, v, ok ? key : str_part(p->x, f, start, at - start));
        at++;
    }
    return v;
}

static void braces_into(struct braces *p, struct jbuf *b, struct jstr *f, size_t from, size_t end,
                        int depth) {
    struct jx *x = p->x;
    if (depth > 2) jx_fail(x, "Max string recursion exceeded");
    for (size_t at = from; at < end;) {
        char c = f->p[at];
        if (c != '{' && c != '}') {
            size_t to = at;
            while (to < end && f->p[to] != '{' && f->p[to] != '}') to++;
            buf_add_part(b, f, at, to - at);
            at = to;
            continue;
        }
        if (at + 1 < end && f->p[at + 1] == c) {
            buf_add_part(b, f, at, 1);
            at += 2;
            continue;
        }
        if (c == '}') jx_fail(x, "Single '}' encountered in format string");
        size_t name = ++at, level = 1, close = at;
        for (; close < end; close++) {
            level += (f->p[close] == '{') - (size_t)(f->p[close] == '}');
            if (level == 0) break;
        }
        if (close >= end) jx_fail(x, "expected '}' before end of string");
        while (at < close && f->p[at] != ':' && f->p[at] != '!') {
            if (f->p[at] == '[') {
                while (at < close && f->p[at] != ']') at++;
            } else {
                at++;
            }
        }
        struct jv v = braces_field(p, f, name, at);
        if (at < close && f->p[at] == '!') {
            if (at + 1 >= close) jx_fail(x, "a bad conversion in a format string");
            char how = f->p[at + 1];
            struct jbuf t;
            buf_init(&t, x);
            add_converted(&t, v, how);
            v = buf_take(&t);
            at += 2;
            if (at < close && f->p[at] != ':')
                jx_fail(x, "expected ':' after conversion specifier");
        }
        struct jbuf spec;
        buf_init(&spec, x);
        if (at < close) braces_into(p, &spec, f, at + 1, close, depth + 1);
        struct jv text = buf_take(&spec);
        format_value(b, v, str_slice(text));
        at = close + 1;
    }
}

struct jv format_braces(struct jx *x, struct jstr *fmt, const struct jargs *args) {
    struct braces p = {.x = x, .args = args};
    struct jbuf b;
    buf_init(&b, x);
    braces_into(&p, &b, fmt, 0, fmt->n, 1);
    struct jv v = buf_take(&b);
    v.u.s->markup = fmt->markup;
    return v;
}
