/* Filters over text and numbers, and the table of all filters. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/jinja_filters.h"

static bool given(struct jv v) {
    return v.type != J_MISSING && v.type != J_NONE;
}

static struct jv soft(struct jx *x, struct jcall *c) {
    return to_str(x, c->self);
}

static struct jv f_abs(struct jx *x, struct jcall *c) {
    struct jv v = c->self;
    if (!is_number(v)) jx_fail(x, "bad operand type for abs(): '%s'", type_name(v));
    if (v.type == J_FLOAT) return jv_float(fabs(v.u.f));
    if (v.type == J_BOOL) return jv_int(v.u.b);
    return num_compare(v, jv_int(0)) < 0 ? num_negate(x, v) : v;
}

static struct jv f_capitalize(struct jx *x, struct jcall *c) {
    return str_case(x, soft(x, c).u.s, 'c');
}

static struct jv f_upper(struct jx *x, struct jcall *c) {
    return str_case(x, soft(x, c).u.s, 'u');
}

static struct jv f_lower(struct jx *x, struct jcall *c) {
    return str_case(x, soft(x, c).u.s, 'l');
}

static struct jv f_trim(struct jx *x, struct jcall *c) {
    return str_strip(x, soft(x, c).u.s, c->a[0], true, true);
}

static struct jv f_string(struct jx *x, struct jcall *c) {
    return soft(x, c);
}

static struct jv f_title(struct jx *x, struct jcall *c) {
    struct jstr *s = soft(x, c).u.s;
    struct jbuf b;
    buf_init(&b, x);
    for (size_t at = 0; at < s->n;) {
        uint32_t code;
        size_t n = utf8_decode(s->p + at, s->n - at, &code), end = at;
        bool separator = char_is_space(code) || (code && code < 0x80 && strchr("-({[<", (int)code));
        if (separator) {
            buf_add_part(&b, s, at, n);
            at += n;
            continue;
        }
        while (end < s->n) {
            size_t m = utf8_decode(s->p + end, s->n - end, &code);
            if (char_is_space(code) || (code && code < 0x80 && strchr("-({[<", (int)code))) break;
            end += m;
        }
        buf_add_str(&b, str_case(x, str_part(x, s, at, n).u.s, 'u').u.s);
        buf_add_str(&b, str_case(x, str_part(x, s, at + n, end - at - n).u.s, 'l').u.s);
        at = end;
    }
    return buf_take(&b);
}

static struct jv f_center(struct jx *x, struct jcall *c) {
    struct jcall inner = {.self = soft(x, c)};
    inner.a[0] = c->a[0].type == J_MISSING ? jv_int(80) : c->a[0];
    return method_find(slice_of("center"))->fn(x, &inner);
}

static struct jv mark_safe(struct jx *x, struct jv v) {
    struct jv s = to_str(x, v), out = str_part(x, s.u.s, 0, s.u.s->n);
    out.u.s->markup = true;
    return out;
}

static struct jv f_safe(struct jx *x, struct jcall *c) {
    return mark_safe(x, c->self);
}

static struct jv f_forceescape(struct jx *x, struct jcall *c) {
    struct jbuf b;
    buf_init(&b, x);
    add_escaped(&b, soft(x, c).u.s);
    return mark_safe(x, buf_take(&b));
}

static struct jv f_escape(struct jx *x, struct jcall *c) {
    if (c->self.type == J_STR && c->self.u.s->markup) return c->self;
    return f_forceescape(x, c);
}

static struct jv f_replace(struct jx *x, struct jcall *c) {
    struct jv old = to_str(x, c->a[0]), fresh = to_str(x, c->a[1]);
    return str_replace(x, soft(x, c).u.s, old.u.s, fresh.u.s,
                       given(c->a[2]) ? int_of(x, c->a[2]) : -1);
}

static struct jv f_format(struct jx *x, struct jcall *c) {
    if (c->rest.n && c->rest.nkw) jx_fail(x, "can't handle positional and keyword arguments");
    struct jv args = list_make(x, J_TUPLE, c->rest.n);
    for (size_t i = 0; i < c->rest.n; i++) list_add(x, args.u.l, c->rest.v[i]);
    if (c->rest.nkw) {
        args = dict_make(x);
        for (size_t i = 0; i < c->rest.nkw; i++) {
            dict_set(x, args.u.d, c->rest.kw[i].key, c->rest.kw[i].value);
        }
    }
    return format_percent(x, soft(x, c).u.s, args);
}

static struct jv f_indent(struct jx *x, struct jcall *c) {
    struct jbuf b;
    struct jv s = c->self, width = c->a[0];
    if (s.type == J_UNDEF) jx_fail(x, "%s", s.u.hint);
    if (s.type != J_STR) jx_fail(x, "indent needs a string, not %s", type_name(s));
    if (width.type != J_STR) {
        int64_t n = width.type == J_MISSING ? 4 : int_of(x, width);
        width = str_repeat(x, str_text(x, " ").u.s, n);
    }
    bool first = is_true(x, c->a[1]), blank = is_true(x, c->a[2]);
    buf_init(&b, x);
    buf_add_str(&b, s.u.s);
    buf_text(&b, "\n", false);
    struct jlist *lines = str_lines(x, buf_take(&b).u.s, false).u.l;
    buf_init(&b, x);
    for (size_t i = 0; i < lines->n; i++) {
        if (i) buf_text(&b, "\n", false);
        if (i ? blank || lines->v[i].u.s->n > 0 : first) buf_add_str(&b, width.u.s);
        buf_add_str(&b, lines->v[i].u.s);
    }
    struct jv out = buf_take(&b);
    out.u.s->markup = s.u.s->markup;
    return out;
}

static struct jv f_truncate(struct jx *x, struct jcall *c) {
    struct jv s = c->self, end = c->a[2].type == J_MISSING ? str_text(x, "...") : c->a[2];
    int64_t length = c->a[0].type == J_MISSING ? 255 : int_of(x, c->a[0]);
    int64_t leeway = given(c->a[3]) ? int_of(x, c->a[3]) : 5;
    size_t n;
    if (end.type != J_STR || leeway < 0 || length < (int64_t)str_chars(end.u.s)) {
        jx_fail(x, "truncate: length or leeway too small");
    }
    if (!try_length(x, s, &n)) jx_fail(x, "object of type '%s' has no len()", type_name(s));
    if ((int64_t)n <= length + leeway) return s;
    if (s.type != J_STR) jx_fail(x, "truncate needs a string");
    struct jv cut =
        str_part(x, s.u.s, 0, str_offset(x, s.u.s, (size_t)(length - (int64_t)str_chars(end.u.s))));
    if (!is_true(x, c->a[1])) {
        for (size_t at = cut.u.s->n; at > 0; at--) {
            if (cut.u.s->p[at - 1] != ' ') continue;
            cut = str_part(x, cut.u.s, 0, at - 1);
            break;
        }
    }
    struct jbuf b;
    buf_init(&b, x);
    buf_add_str(&b, cut.u.s);
    buf_add_str(&b, end.u.s);
    return buf_take(&b);
}

static struct jv f_wordcount(struct jx *x, struct jcall *c) {
    struct jstr *s = soft(x, c).u.s;
    int64_t n = 0;
    bool inside = false;
    jx_steps(x, s->n / 8);
    for (size_t at = 0; at < s->n;) {
        uint32_t code;
        at += utf8_decode(s->p + at, s->n - at, &code);
        utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)code);
        bool word = code == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
                    (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
        n += word && !inside;
        inside = word;
    }
    return jv_int(n);
}

static struct jv f_int(struct jx *x, struct jcall *c) {
    struct jv v = c->self, otherwise = c->a[0].type == J_MISSING ? jv_int(0) : c->a[0];
    double f;
    bool ok;
    if (v.type == J_UNDEF) jx_fail(x, "%s", v.u.hint);
    if (v.type == J_STR) {
        int64_t base = c->a[1].type == J_MISSING ? 10 : int_of(x, c->a[1]);
        if (base >= 0 && base <= 36 && base != 1) {
            struct jv i = int_parse(x, str_slice(v), (int)base, &ok);
            if (ok) return i;
        }
        if (!float_parse(str_slice(v), &f) || isnan(f) || isinf(f)) return otherwise;
        return int_from_double(x, f);
    }
    if (v.type == J_BOOL) return jv_int(v.u.b);
    if (is_int(v)) return v;
    if (v.type != J_FLOAT || isnan(v.u.f)) return otherwise;
    if (isinf(v.u.f)) jx_fail(x, "cannot convert float infinity to integer");
    return int_from_double(x, v.u.f);
}

static struct jv f_float(struct jx *x, struct jcall *c) {
    struct jv otherwise = c->a[0].type == J_MISSING ? jv_float(0) : c->a[0];
    double f;
    if (c->self.type == J_UNDEF) jx_fail(x, "%s", c->self.u.hint);
    if (is_number(c->self)) return jv_float(num_double(x, c->self));
    if (c->self.type == J_STR && float_parse(str_slice(c->self), &f)) return jv_float(f);
    return otherwise;
}

static double round_half_even(double f, int64_t digits) {
    char text[800];
    if (isnan(f) || isinf(f) || digits > 323) return f;
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)digits, f);
        return strtod(text, NULL);
    }
    if (digits < -308) return copysign(0, f);
    double p = pow(10, (double)-digits);
    return rint(f / p) * p;
}

static struct jv round_int(struct jx *x, struct jv v, int64_t digits) {
    if (v.type == J_BOOL) v = jv_int(v.u.b);
    if (digits >= 0) return v;
    if (digits < -4000) return jv_int(0);
    struct jv p = num_binary(x, OP_POW, jv_int(10), jv_int(-digits));
    struct jv q = num_binary(x, OP_FLOORDIV, v, p), r = num_binary(x, OP_MOD, v, p);
    int c = num_compare(num_binary(x, OP_MUL, r, jv_int(2)), p);
    struct jv odd = num_binary(x, OP_MOD, q, jv_int(2));
    if (c > 0 || (c == 0 && odd.u.i)) q = num_binary(x, OP_ADD, q, jv_int(1));
    return num_binary(x, OP_MUL, q, p);
}

static struct jv f_round(struct jx *x, struct jcall *c) {
    struct jv v = c->self, method = c->a[1];
    bool common = method.type == J_MISSING || str_is(method, "common");
    if (!common && !str_is(method, "ceil") && !str_is(method, "floor")) {
        jx_fail(x, "method must be common, ceil or floor");
    }
    if (v.type == J_UNDEF) jx_fail(x, "%s", v.u.hint);
    if (!is_number(v)) jx_fail(x, "type %s doesn't define round", type_name(v));
    if (common && c->a[0].type == J_NONE) {
        return v.type == J_FLOAT ? int_from_double(x, rint(v.u.f)) : round_int(x, v, 0);
    }
    int64_t digits = c->a[0].type == J_MISSING ? 0 : int_of(x, c->a[0]);
    if (common && v.type != J_FLOAT) return round_int(x, v, digits);
    if (common) return jv_float(round_half_even(v.u.f, digits));
    struct jv power = num_binary(x, OP_POW, jv_int(10), jv_int(digits));
    struct jv scaled = num_binary(x, OP_MUL, v, power);
    if (scaled.type == J_FLOAT) {
        scaled = int_from_double(x, str_is(method, "ceil") ? ceil(scaled.u.f) : floor(scaled.u.f));
    }
    return num_binary(x, OP_DIV, scaled, power);
}

static struct jv f_filesizeformat(struct jx *x, struct jcall *c) {
    static const char *const names[] = {"k", "M", "G", "T", "P", "E", "Z", "Y"};
    struct jcall inner = {.self = c->self};
    if (c->self.type != J_STR && !is_number(c->self)) jx_fail(x, "not a number");
    inner.a[0] = jv_none();
    struct jv v = f_float(x, &inner);
    if (v.type != J_FLOAT) jx_fail(x, "could not convert string to float");
    bool binary = is_true(x, c->a[0]);
    double bytes = v.u.f, base = binary ? 1024 : 1000, unit = base;
    if (bytes == 1) return str_text(x, "1 Byte");
    if (bytes < base) {
        struct jv i = int_from_double(x, bytes);
        return str_printv(x, false, "%lld Bytes", (long long)i.u.i);
    }
    int k = 0;
    for (; k < 8; k++) {
        unit = pow(base, k + 2);
        if (bytes < unit) break;
    }
    char first = names[k < 8 ? k : 7][0];
    if (binary && first == 'k') first = 'K';
    return str_printv(x, false, "%.1f %c%s", base * bytes / unit, first, binary ? "iB" : "B");
}

static void add_quoted(struct jbuf *b, struct jstr *s, bool query) {
    char text[8];
    for (size_t at = 0; at < s->n; at++) {
        unsigned char c = (unsigned char)s->p[at];
        bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
                     (c && strchr("_.-~", c)) || (c == '/' && !query);
        if (plain) {
            buf_add_part(b, s, at, 1);
        } else if (c == ' ' && query) {
            buf_text(b, "+", str_marked(s, at));
        } else {
            snprintf(text, sizeof text, "%%%02X", c);
            buf_text(b, text, str_marked(s, at));
        }
    }
}

static struct jv f_urlencode(struct jx *x, struct jcall *c) {
    struct jbuf b;
    buf_init(&b, x);
    struct jlist *l = c->self.type == J_STR ? NULL : try_items(x, c->self);
    if (c->self.type == J_DICT) {
        struct jview view = {c->self.u.d, 2};
        l = try_items(x, (struct jv){J_VIEW, {.view = &view}});
    }
    if (l == NULL) add_quoted(&b, soft(x, c).u.s, false);
    for (size_t i = 0; l && i < l->n; i++) {
        struct jlist *pair = items_of(x, l->v[i]);
        if (pair->n != 2) jx_fail(x, "urlencode needs pairs");
        if (i) buf_text(&b, "&", false);
        add_quoted(&b, to_str(x, pair->v[0]).u.s, true);
        buf_text(&b, "=", false);
        add_quoted(&b, to_str(x, pair->v[1]).u.s, true);
    }
    return buf_take(&b);
}

static struct jv f_xmlattr(struct jx *x, struct jcall *c) {
    struct jbuf b;
    if (c->self.type != J_DICT) jx_fail(x, "xmlattr needs a mapping");
    buf_init(&b, x);
    bool space = c->a[0].type == J_MISSING || is_true(x, c->a[0]), any = false;
    for (size_t i = 0; i < c->self.u.d->n; i++) {
        struct jpair *p = &c->self.u.d->v[i];
        if (p->value.type == J_NONE || p->value.type == J_UNDEF) continue;
        if (p->key.type != J_STR) jx_fail(x, "xmlattr needs names");
        for (size_t k = 0; k < p->key.u.s->n; k++) {
            if (strchr(" \t\n\r\f\v/>=", p->key.u.s->p[k]))
                jx_fail(x, "Invalid character in attribute name");
        }
        if (any || space) buf_text(&b, " ", false);
        any = true;
        add_escaped(&b, p->key.u.s);
        buf_text(&b, "=\"", false);
        struct jcall inner = {.self = p->value};
        buf_add_str(&b, f_escape(x, &inner).u.s);
        buf_text(&b, "\"", false);
    }
    return buf_take(&b);
}

/* Removes every `open` ... `close`. */
static struct jv drop_between(struct jx *x, struct jv v, const char *open, const char *close) {
    struct jbuf b;
    struct slice s = str_slice(v);
    size_t at = 0;
    buf_init(&b, x);
    for (;;) {
        size_t from = str_find(s, slice_of(open), at);
        size_t to = from == SIZE_MAX ? from : str_find(s, slice_of(close), from);
        if (to == SIZE_MAX) break;
        buf_add_part(&b, v.u.s, at, from - at);
        at = to + strlen(close);
    }
    buf_add_part(&b, v.u.s, at, s.size - at);
    return buf_take(&b);
}

static struct jv f_striptags(struct jx *x, struct jcall *c) {
    static const char *const entities[][2] = {
        {"&lt;", "<"},  {"&gt;", ">"},          {"&quot;", "\""}, {"&#34;", "\""},
        {"&#39;", "'"}, {"&nbsp;", "\xC2\xA0"}, {"&amp;", "&"}};
    struct jv v = drop_between(x, soft(x, c), "<!--", "-->");
    struct jcall split = {.self = drop_between(x, v, "<", ">")};
    struct jlist *words = method_find(slice_of("split"))->fn(x, &split).u.l;
    v = str_join(x, str_text(x, " ").u.s, words, false);
    for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
        v = str_replace(x, v.u.s, str_text(x, entities[i][0]).u.s, str_text(x, entities[i][1]).u.s,
                        -1);
    }
    v.u.s->markup = false;
    return v;
}

static struct jv f_tojson(struct jx *x, struct jcall *c) {
    return to_json(x, c->self, c);
}

enum { PPRINT_WIDTH = 80 };

/* repr with the keys of dicts in order. Python breaks what is longer than a line by rules that no
 * prompt has been seen to need. */
static struct jv f_pprint(struct jx *x, struct jcall *c) {
    struct jbuf b;
    bool breaks = c->self.type == J_STR || c->self.type == J_LIST || c->self.type == J_TUPLE ||
                  c->self.type == J_DICT;
    buf_init(&b, x);
    add_repr(&b, sorted_dicts(x, c->self, 0), 0);
    struct jv text = buf_take(&b);
    if (breaks && str_chars(text.u.s) > PPRINT_WIDTH) {
        jx_fail(x, "pprint of more than a line is not supported");
    }
    return text;
}

static struct jv f_random(struct jx *x, struct jcall *c) {
    (void)c;
    jx_fail(x, "random would make one request give different bytes");
}

static struct jv f_urlize(struct jx *x, struct jcall *c) {
    (void)c;
    jx_fail(x, "urlize makes links for web pages, which a prompt is not");
}

static struct jv f_wordwrap(struct jx *x, struct jcall *c) {
    struct jstr *s = soft(x, c).u.s,
                *wrap = given(c->a[2]) ? to_str(x, c->a[2]).u.s : str_text(x, "\n").u.s;
    int64_t width = c->a[0].type == J_MISSING ? 79 : int_of(x, c->a[0]);
    bool split_long = c->a[1].type == J_MISSING || is_true(x, c->a[1]);
    bool hyphens = c->a[3].type == J_MISSING || is_true(x, c->a[3]);
    if (width <= 0) jx_fail(x, "invalid width");
    struct jlist *lines = str_lines(x, s, false).u.l;
    struct jbuf b;
    buf_init(&b, x);
    for (size_t i = 0; i < lines->n; i++) {
        if (i) buf_add_str(&b, wrap);
        wrap_line(&b, lines->v[i].u.s, (size_t)width, split_long, hyphens, wrap);
    }
    return buf_take(&b);
}

static const struct jbuiltin filters[] = {
    {"abs", "", f_abs, 0},
    {"attr", "name", f_attr, 0},
    {"batch", "linecount fill_with?", f_batch, 0},
    {"capitalize", "", f_capitalize, 0},
    {"center", "width?", f_center, 0},
    {"count", "", f_length, 0},
    {"d", "default_value? boolean?", f_default, 0},
    {"default", "default_value? boolean?", f_default, 0},
    {"dictsort", "case_sensitive? by? reverse?", f_dictsort, 0},
    {"e", "", f_escape, 0},
    {"escape", "", f_escape, 0},
    {"filesizeformat", "binary?", f_filesizeformat, 0},
    {"first", "", f_first, 0},
    {"float", "default?", f_float, 0},
    {"forceescape", "", f_forceescape, 0},
    {"format", "* **", f_format, 0},
    {"groupby", "attribute default? case_sensitive?", f_groupby, 0},
    {"indent", "width? first? blank?", f_indent, 0},
    {"int", "default? base?", f_int, 0},
    {"items", "", f_items, 0},
    {"join", "d? attribute?", f_join, 0},
    {"last", "", f_last, 0},
    {"length", "", f_length, 0},
    {"list", "", f_list, 0},
    {"lower", "", f_lower, 0},
    {"map", "* **", f_map, 0},
    {"max", "case_sensitive? attribute?", f_max, 0},
    {"min", "case_sensitive? attribute?", f_min, 0},
    {"pprint", "", f_pprint, 0},
    {"random", "", f_random, 0},
    {"reject", "* **", f_reject, 0},
    {"rejectattr", "* **", f_rejectattr, 0},
    {"replace", "old new count?", f_replace, 0},
    {"reverse", "", f_reverse, 0},
    {"round", "precision? method?", f_round, 0},
    {"safe", "", f_safe, 0},
    {"select", "* **", f_select, 0},
    {"selectattr", "* **", f_selectattr, 0},
    {"slice", "slices fill_with?", f_slice, 0},
    {"sort", "reverse? case_sensitive? attribute?", f_sort, 0},
    {"string", "", f_string, 0},
    {"striptags", "", f_striptags, 0},
    {"sum", "attribute? start?", f_sum, 0},
    {"title", "", f_title, 0},
    {"tojson", "ensure_ascii? indent? separators? sort_keys?", f_tojson, 0},
    {"trim", "chars?", f_trim, 0},
    {"truncate", "length? killwords? end? leeway?", f_truncate, 0},
    {"unique", "case_sensitive? attribute?", f_unique, 0},
    {"upper", "", f_upper, 0},
    {"urlize", "* **", f_urlize, 0},
    {"urlencode", "", f_urlencode, 0},
    {"wordcount", "", f_wordcount, 0},
    {"wordwrap", "width? break_long_words? wrapstring? break_on_hyphens?", f_wordwrap, 0},
    {"xmlattr", "autospace?", f_xmlattr, 0},
    {NULL, NULL, NULL, 0},
};

const struct jbuiltin *filter_find(struct slice name) {
    for (const struct jbuiltin *f = filters; f->name; f++) {
        if (slice_equal(slice_of(f->name), name)) return f;
    }
    return NULL;
}
