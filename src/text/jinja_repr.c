/* str(), repr() and JSON of values, as Python prints them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/caps.h"
#include "base/error.h"
#include "text/jinja_internal.h"

/* The shortest digits that read back as the same double, in Python's layout. */
void float_repr(double f, char out[40]) {
    if (isnan(f) || isinf(f)) {
        strcpy(out, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    char e[40];
    int precision = 0;
    for (; precision < 17; precision++) {
        snprintf(e, sizeof e, "%.*e", precision, f);
        if (strtod(e, NULL) == f) break;
    }
    char *mark = strchr(e, 'e');
    check(mark != NULL);
    int exponent = atoi(mark + 1);
    if (exponent >= -4 && exponent < 16) {
        int decimals = precision - exponent;
        snprintf(out, 40, "%.*f", decimals > 1 ? decimals : 1, f);
        return;
    }
    *mark = 0;
    snprintf(out, 40, "%.24se%c%02d", e, exponent < 0 ? '-' : '+', abs(exponent));
}

static bool is_printable(uint32_t c) {
    if (c < 0x7f) return c >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    default:
        return true;
    }
}

static void escape_char(char out[16], uint32_t c) {
    snprintf(out, 16, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
}

static void add_str_repr(struct jbuf *b, const struct jstr *s) {
    bool single = memchr(s->p, '\'', s->n) != NULL, twice = memchr(s->p, '"', s->n) != NULL;
    char quote = single && !twice ? '"' : '\'', text[16];
    if (s->markup) buf_text(b, "Markup(", false);
    buf_add(b, &quote, 1, false);
    for (size_t at = 0; at < s->n;) {
        uint32_t c;
        size_t n = utf8_decode(s->p + at, s->n - at, &c);
        const char *names = "\n\r\t", *known = c && c < 0x80 ? strchr(names, (int)c) : NULL;
        text[0] = 0;
        if (known) {
            snprintf(text, sizeof text, "\\%c", "nrt"[known - names]);
        } else if (c == '\\' || c == (uint32_t)quote) {
            snprintf(text, sizeof text, "\\%c", (char)c);
        } else if (!is_printable(c)) {
            escape_char(text, c);
        }
        if (text[0]) {
            buf_text(b, text, str_marked(s, at));
        } else {
            buf_add_part(b, s, at, n);
        }
        at += n;
    }
    buf_add(b, &quote, 1, false);
    if (s->markup) buf_text(b, ")", false);
}

void add_ascii(struct jbuf *b, const struct jstr *s) {
    char text[16];
    for (size_t at = 0; at < s->n;) {
        uint32_t c;
        size_t n = utf8_decode(s->p + at, s->n - at, &c);
        if (c < 0x80) {
            buf_add_part(b, s, at, n);
        } else {
            escape_char(text, c);
            buf_text(b, text, str_marked(s, at));
        }
        at += n;
    }
}

static void add_int(struct jbuf *b, struct jv v) {
    struct str text = {0};
    int_digits(b->x, v, 10, false, &text);
    char *own = arena_strndup(&b->x->arena, text.data, text.size);
    size_t n = text.size;
    str_free(&text);
    buf_add(b, own, n, false);
}

static void add_list_repr(struct jbuf *b, const struct jlist *l, const char *ends, int depth) {
    buf_add(b, ends, 1, false);
    for (size_t i = 0; i < l->n; i++) {
        if (i) buf_text(b, ", ", false);
        add_repr(b, l->v[i], depth + 1);
    }
    if (ends[0] == '(' && l->n == 1) buf_text(b, ",", false);
    buf_add(b, ends + 1, 1, false);
}

static void add_dict_repr(struct jbuf *b, const struct jdict *d, int depth) {
    buf_text(b, "{", false);
    for (size_t i = 0; i < d->n; i++) {
        if (i) buf_text(b, ", ", false);
        add_repr(b, d->v[i].key, depth + 1);
        buf_text(b, ": ", false);
        add_repr(b, d->v[i].value, depth + 1);
    }
    buf_text(b, "}", false);
}

static void add_view_repr(struct jbuf *b, struct jv v, int depth) {
    static const char *const names[] = {"dict_keys(", "dict_values(", "dict_items("};
    buf_text(b, names[v.u.view->kind], false);
    add_list_repr(b, try_items(b->x, v), "[]", depth);
    buf_text(b, ")", false);
}

static void add_range_repr(struct jbuf *b, const struct jrange *r) {
    char text[96];
    if (r->step == 1) {
        snprintf(text, sizeof text, "range(%lld, %lld)", (long long)r->start, (long long)r->stop);
    } else {
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)r->start,
                 (long long)r->stop, (long long)r->step);
    }
    buf_text(b, text, false);
}

/* A namespace can hold itself, so depth is bounded here too. */
void add_repr(struct jbuf *b, struct jv v, int depth) {
    char text[128];
    if (depth > CAP_TEMPLATE_DEPTH * 2) jx_fail(b->x, "a value nested too deeply to print");
    jx_steps(b->x, 1);
    switch (v.type) {
    case J_UNDEF:
        buf_text(b, "Undefined", false);
        return;
    case J_NONE:
        buf_text(b, "None", false);
        return;
    case J_BOOL:
        buf_text(b, v.u.b ? "True" : "False", false);
        return;
    case J_INT:
        snprintf(text, sizeof text, "%lld", (long long)v.u.i);
        buf_text(b, text, false);
        return;
    case J_BIG:
        add_int(b, v);
        return;
    case J_FLOAT:
        float_repr(v.u.f, text);
        buf_text(b, text, false);
        return;
    case J_STR:
        add_str_repr(b, v.u.s);
        return;
    case J_LIST:
        add_list_repr(b, v.u.l, "[]", depth);
        return;
    case J_TUPLE:
        add_list_repr(b, v.u.l, "()", depth);
        return;
    case J_DICT:
        add_dict_repr(b, v.u.d, depth);
        return;
    case J_VIEW:
        add_view_repr(b, v, depth);
        return;
    case J_RANGE:
        add_range_repr(b, v.u.range);
        return;
    case J_NAMESPACE:
        buf_text(b, "<Namespace ", false);
        add_dict_repr(b, v.u.d, depth);
        buf_text(b, ">", false);
        return;
    case J_LOOP:
        snprintf(text, sizeof text, "<LoopContext %zu/%zu>", v.u.loop->index0 + 1,
                 loop_length(b->x, v.u.loop));
        buf_text(b, text, false);
        return;
    case J_MACRO:
        buf_text(b, "<Macro ", false);
        struct slice s = b->x->t->symbols[v.u.macro->node->symbol];
        if (v.u.macro->is_caller) {
            buf_text(b, "anonymous", false);
        } else {
            add_str_repr(b, str_make(b->x, s.data, s.size, false).u.s);
        }
        buf_text(b, ">", false);
        return;
    default: /* Python shows an address here, which no output can depend on */
        snprintf(text, sizeof text, "<%s object>", type_name(v));
        buf_text(b, text, false);
        return;
    }
}

void add_str(struct jbuf *b, struct jv v) {
    if (v.type == J_STR) {
        buf_add_str(b, v.u.s);
    } else if (v.type != J_UNDEF) {
        add_repr(b, v, 0);
    }
}

struct jv to_str(struct jx *x, struct jv v) {
    struct jbuf b;
    if (v.type == J_STR) return v;
    buf_init(&b, x);
    add_str(&b, v);
    return buf_take(&b);
}

void add_escaped(struct jbuf *b, const struct jstr *s) {
    static const char special[] = "&<>\"'";
    static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
    size_t from = 0;
    for (size_t at = 0; at < s->n; at++) {
        const char *known = s->p[at] ? strchr(special, s->p[at]) : NULL;
        if (known == NULL) continue;
        buf_add_part(b, s, from, at - from);
        buf_text(b, names[known - special], str_marked(s, at));
        from = at + 1;
    }
    buf_add_part(b, s, from, s->n - from);
}

/* ---- json.dumps ---- */

struct json_style {
    bool ascii, sort, pretty;
    struct jstr *indent; /* one level, if pretty */
    struct jstr *item, *colon;
};

static void json_string(struct jbuf *b, const struct jstr *s, bool ascii) {
    size_t from = 0;
    char text[16];
    buf_text(b, "\"", false);
    for (size_t at = 0; at < s->n;) {
        uint32_t c = (unsigned char)s->p[at];
        size_t n = 1;
        if (c >= 0x80) n = utf8_decode(s->p + at, s->n - at, &c);
        bool plain = c >= 0x20 && c != '"' && c != '\\' && (!ascii || c < 0x7f);
        if (!plain) {
            const char *names = "\"\\\n\r\t\b\f",
                       *known = c && c < 0x80 ? strchr(names, (int)c) : 0;
            buf_add_part(b, s, from, at - from);
            if (known) {
                snprintf(text, sizeof text, "\\%c", "\"\\nrtbf"[known - names]);
            } else if (c >= 0x10000) {
                snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                         0xdc00 + ((c - 0x10000) & 0x3ff));
            } else {
                snprintf(text, sizeof text, "\\u%04x", c);
            }
            buf_text(b, text, str_marked(s, at));
            from = at + n;
        }
        at += n;
    }
    buf_add_part(b, s, from, s->n - from);
    buf_text(b, "\"", false);
}

static void json_newline(struct jbuf *b, const struct json_style *style, int depth) {
    if (!style->pretty) return;
    buf_text(b, "\n", false);
    for (int i = 0; i < depth; i++) buf_add_str(b, style->indent);
}

static bool json_scalar(struct jbuf *b, struct jv v) {
    switch (v.type) {
    case J_NONE:
        buf_text(b, "null", false);
        return true;
    case J_BOOL:
        buf_text(b, v.u.b ? "true" : "false", false);
        return true;
    case J_FLOAT:
        if (isnan(v.u.f) || isinf(v.u.f)) {
            buf_text(b, isnan(v.u.f) ? "NaN" : v.u.f < 0 ? "-Infinity" : "Infinity", false);
            return true;
        }
        add_repr(b, v, 0);
        return true;
    case J_INT:
    case J_BIG:
        add_repr(b, v, 0);
        return true;
    default:
        return false;
    }
}

static void json_value(struct jbuf *b, struct jv v, const struct json_style *style, int depth);

static void json_key(struct jbuf *b, struct jv key, const struct json_style *style) {
    if (key.type == J_STR) {
        json_string(b, key.u.s, style->ascii);
        return;
    }
    buf_text(b, "\"", false);
    if (!json_scalar(b, key)) {
        jx_fail(b->x, "keys must be str, int, float, bool or None, not %s", type_name(key));
    }
    buf_text(b, "\"", false);
}

static void json_dict(struct jbuf *b, const struct jdict *d, const struct json_style *style,
                      int depth) {
    struct jlist *keys = list_make(b->x, J_LIST, d->n).u.l,
                 *values = list_make(b->x, J_LIST, d->n).u.l;
    for (size_t i = 0; i < d->n; i++) {
        list_add(b->x, keys, d->v[i].key);
        list_add(b->x, values, d->v[i].value);
    }
    if (style->sort) list_sort(b->x, values, keys, false);
    buf_text(b, "{", false);
    for (size_t i = 0; i < keys->n; i++) {
        if (i) buf_add_str(b, style->item);
        json_newline(b, style, depth + 1);
        json_key(b, keys->v[i], style);
        buf_add_str(b, style->colon);
        json_value(b, values->v[i], style, depth + 1);
    }
    if (keys->n) json_newline(b, style, depth);
    buf_text(b, "}", false);
}

static void json_value(struct jbuf *b, struct jv v, const struct json_style *style, int depth) {
    if (depth > CAP_JSON_DEPTH * 2) jx_fail(b->x, "a value nested too deeply for JSON");
    jx_steps(b->x, 1);
    if (v.type == J_STR) {
        json_string(b, v.u.s, style->ascii);
    } else if (v.type == J_DICT) {
        json_dict(b, v.u.d, style, depth);
    } else if (v.type == J_LIST || v.type == J_TUPLE) {
        buf_text(b, "[", false);
        for (size_t i = 0; i < v.u.l->n; i++) {
            if (i) buf_add_str(b, style->item);
            json_newline(b, style, depth + 1);
            json_value(b, v.u.l->v[i], style, depth + 1);
        }
        if (v.u.l->n) json_newline(b, style, depth);
        buf_text(b, "]", false);
    } else if (!json_scalar(b, v)) {
        jx_fail(b->x, "Object of type %s is not JSON serializable", type_name(v));
    }
}

/* Slots: ensure_ascii, indent, separators, sort_keys. */
struct jv to_json(struct jx *x, struct jv v, struct jcall *c) {
    struct json_style style = {.ascii = is_true(x, c->a[0]), .sort = is_true(x, c->a[3])};
    struct jbuf b;
    struct jv indent = c->a[1];
    style.pretty = indent.type != J_MISSING && indent.type != J_NONE;
    style.item = str_text(x, style.pretty ? "," : ", ").u.s;
    style.colon = str_text(x, ": ").u.s;
    if (style.pretty && indent.type == J_STR) {
        style.indent = indent.u.s;
    } else if (style.pretty) {
        int64_t n = int_of(x, indent);
        buf_init(&b, x);
        if (n > CAP_TEMPLATE_INDENT) jx_fail(x, "an indent too large");
        for (int64_t i = 0; i < n; i++) buf_text(&b, " ", false);
        style.indent = buf_take(&b).u.s;
    }
    if (c->a[2].type != J_MISSING && c->a[2].type != J_NONE) {
        struct jlist *l = items_of(x, c->a[2]);
        if (l->n != 2 || l->v[0].type != J_STR || l->v[1].type != J_STR) {
            jx_fail(x, "separators must be two strings");
        }
        style.item = l->v[0].u.s;
        style.colon = l->v[1].u.s;
    }
    buf_init(&b, x);
    json_value(&b, v, &style, 0);
    return buf_take(&b);
}
