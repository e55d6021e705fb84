/* Methods of strings, dicts, lists, loops and numbers, with Python's names and arguments. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_methods.h"

struct jstr *method_str(struct jx *x, struct jv v) {
    if (v.type == J_UNDEF) jx_fail(x, "%s", v.u.hint);
    if (v.type != J_STR) jx_fail(x, "must be str, not %s", type_name(v));
    return v.u.s;
}

static int64_t int_or(struct jx *x, struct jv v, int64_t otherwise) {
    return v.type == J_MISSING || v.type == J_NONE ? otherwise : int_of(x, v);
}

/* Optional start and end as Python clamps them, in bytes. */
static void bounds(struct jx *x, struct jstr *s, struct jv start, struct jv end, size_t *from,
                   size_t *to, bool *empty) {
    int64_t n = (int64_t)str_chars(s), a = int_or(x, start, 0), b = int_or(x, end, n);
    if (a < 0) a = a + n < 0 ? 0 : a + n;
    if (b < 0) b = b + n < 0 ? 0 : b + n;
    if (b > n) b = n;
    *empty = a > b || a > n;
    *from = str_offset(x, s, (size_t)(a > n ? n : a));
    *to = str_offset(x, s, (size_t)b);
}

static size_t chars_before(struct jstr *s, size_t at) {
    if (str_chars(s) == s->n) return at;
    size_t n = 0;
    for (size_t i = 0; i < at; i++) n += ((unsigned char)s->p[i] & 0xc0) != 0x80;
    return n;
}

/* The byte offset of the first or last occurrence between the bounds. */
static bool search(struct jx *x, struct jcall *c, bool last, size_t *at) {
    struct jstr *s = c->self.u.s, *needle = method_str(x, c->a[0]);
    size_t from, to;
    bool empty;
    bounds(x, s, c->a[1], c->a[2], &from, &to, &empty);
    if (empty) return false;
    jx_steps(x, (to - from) / 64);
    struct slice hay = {s->p, to}, what = {needle->p, needle->n};
    size_t found = str_find(hay, what, from);
    if (last && what.size == 0) found = to;
    for (size_t next = found; last && what.size && next != SIZE_MAX;) {
        found = next;
        jx_steps(x, 1 + what.size / 16);
        next = str_find(hay, what, next + 1);
    }
    *at = found;
    return found != SIZE_MAX;
}

static struct jv find_in(struct jx *x, struct jcall *c, bool last, bool required) {
    size_t at;
    if (search(x, c, last, &at)) return jv_int((int64_t)chars_before(c->self.u.s, at));
    if (required) jx_fail(x, "substring not found");
    return jv_int(-1);
}

static struct jv m_find(struct jx *x, struct jcall *c) {
    return find_in(x, c, false, false);
}

static struct jv m_rfind(struct jx *x, struct jcall *c) {
    return find_in(x, c, true, false);
}

static struct jv m_index(struct jx *x, struct jcall *c) {
    if (c->self.type == J_STR) return find_in(x, c, false, true);
    struct jlist *l = items_of(x, c->self);
    int64_t n = (int64_t)l->n, from = int_or(x, c->a[1], 0), to = int_or(x, c->a[2], n);
    if (from < 0) from = from + n < 0 ? 0 : from + n;
    if (to < 0) to += n;
    for (int64_t i = from; i < to && i < n; i++) {
        if (equal(x, l->v[i], c->a[0])) return jv_int(i);
    }
    jx_fail(x, "the value is not in the list");
}

static struct jv m_rindex(struct jx *x, struct jcall *c) {
    return find_in(x, c, true, true);
}

static struct jv m_count(struct jx *x, struct jcall *c) {
    int64_t n = 0;
    if (c->self.type != J_STR) {
        struct jlist *l = items_of(x, c->self);
        for (size_t i = 0; i < l->n; i++) n += equal(x, l->v[i], c->a[0]);
        return jv_int(n);
    }
    struct jstr *s = c->self.u.s, *needle = method_str(x, c->a[0]);
    size_t from, to;
    bool empty;
    bounds(x, s, c->a[1], c->a[2], &from, &to, &empty);
    if (empty) return jv_int(0);
    jx_steps(x, (to - from) / 64);
    if (needle->n == 0) {
        return jv_int((int64_t)(chars_before(s, to) - chars_before(s, from)) + 1);
    }
    while ((from = str_find((struct slice){s->p, to}, (struct slice){needle->p, needle->n},
                            from)) != SIZE_MAX) {
        n++;
        from += needle->n;
    }
    return jv_int(n);
}

static bool has_affix(struct jx *x, struct jcall *c, bool end) {
    struct jstr *s = c->self.u.s;
    struct jlist one = {&c->a[0], 1, 1, false}, *l = c->a[0].type == J_TUPLE ? c->a[0].u.l : &one;
    size_t from, to;
    bool empty;
    bounds(x, s, c->a[1], c->a[2], &from, &to, &empty);
    for (size_t i = 0; i < l->n; i++) {
        struct jstr *affix = method_str(x, l->v[i]);
        if (empty || affix->n > to - from) continue;
        jx_steps(x, affix->n / 256);
        const char *at = end ? s->p + to - affix->n : s->p + from;
        if (affix->n == 0 || memcmp(at, affix->p, affix->n) == 0) return true;
    }
    return false;
}

static struct jv m_startswith(struct jx *x, struct jcall *c) {
    return jv_bool(has_affix(x, c, false));
}

static struct jv m_endswith(struct jx *x, struct jcall *c) {
    return jv_bool(has_affix(x, c, true));
}

static struct jv m_strip(struct jx *x, struct jcall *c) {
    return str_strip(x, c->self.u.s, c->a[0], true, true);
}

static struct jv m_lstrip(struct jx *x, struct jcall *c) {
    return str_strip(x, c->self.u.s, c->a[0], true, false);
}

static struct jv m_rstrip(struct jx *x, struct jcall *c) {
    return str_strip(x, c->self.u.s, c->a[0], false, true);
}

static struct jv m_upper(struct jx *x, struct jcall *c) {
    return str_case(x, c->self.u.s, 'u');
}

static struct jv m_lower(struct jx *x, struct jcall *c) {
    return str_case(x, c->self.u.s, 'l');
}

static struct jv m_casefold(struct jx *x, struct jcall *c) {
    return str_case(x, c->self.u.s, 'f');
}

static struct jv m_title(struct jx *x, struct jcall *c) {
    return str_case(x, c->self.u.s, 't');
}

static struct jv m_capitalize(struct jx *x, struct jcall *c) {
    return str_case(x, c->self.u.s, 'c');
}

static struct jv m_swapcase(struct jx *x, struct jcall *c) {
    return str_case(x, c->self.u.s, 's');
}

static struct jv m_replace(struct jx *x, struct jcall *c) {
    return str_replace(x, c->self.u.s, method_str(x, c->a[0]), method_str(x, c->a[1]),
                       c->a[2].type == J_MISSING ? -1 : int_of(x, c->a[2]));
}

static struct jv m_join(struct jx *x, struct jcall *c) {
    if (c->a[0].type == J_UNDEF) return str_text(x, "");
    return str_join(x, c->self.u.s, items_of(x, c->a[0]), false);
}

static struct jv m_format(struct jx *x, struct jcall *c) {
    return format_braces(x, c->self.u.s, &c->rest);
}

static struct jv m_format_map(struct jx *x, struct jcall *c) {
    struct jargs args = {0};
    if (c->a[0].type != J_DICT) jx_fail(x, "format_map() takes a mapping");
    struct jdict *d = c->a[0].u.d;
    args.kw = jx_alloc(x, (d->n + 1) * sizeof *args.kw);
    for (size_t i = 0; i < d->n; i++) {
        if (d->v[i].key.type == J_STR)
            args.kw[args.nkw++] = (struct jkw){d->v[i].key, d->v[i].value};
    }
    return format_braces(x, c->self.u.s, &args);
}

/* ---- dicts, lists, loops, others ---- */

static struct jv view(struct jx *x, struct jcall *c, int kind) {
    struct jview *v = jx_alloc(x, sizeof *v);
    *v = (struct jview){c->self.u.d, kind};
    return (struct jv){J_VIEW, {.view = v}};
}

static struct jv m_keys(struct jx *x, struct jcall *c) {
    return view(x, c, 0);
}

static struct jv m_values(struct jx *x, struct jcall *c) {
    return view(x, c, 1);
}

static struct jv m_items(struct jx *x, struct jcall *c) {
    return view(x, c, 2);
}

static struct jv m_get(struct jx *x, struct jcall *c) {
    struct jv *v = dict_get(x, c->self.u.d, c->a[0]);
    if (v) return *v;
    return c->a[1].type == J_MISSING ? jv_none() : c->a[1];
}

static struct jv m_copy(struct jx *x, struct jcall *c) {
    if (c->self.type == J_DICT) {
        struct jv d = dict_make(x);
        for (size_t i = 0; i < c->self.u.d->n; i++) {
            dict_set(x, d.u.d, c->self.u.d->v[i].key, c->self.u.d->v[i].value);
        }
        return d;
    }
    struct jv l = list_make(x, J_LIST, c->self.u.l->n);
    for (size_t i = 0; i < c->self.u.l->n; i++) list_add(x, l.u.l, c->self.u.l->v[i]);
    return l;
}

static struct jv m_fromkeys(struct jx *x, struct jcall *c) {
    struct jv d = dict_make(x);
    struct jlist *l = items_of(x, c->a[0]);
    for (size_t i = 0; i < l->n; i++) {
        dict_set(x, d.u.d, l->v[i], c->a[1].type == J_MISSING ? jv_none() : c->a[1]);
    }
    return d;
}

static struct jv m_cycle(struct jx *x, struct jcall *c) {
    if (c->rest.n == 0) jx_fail(x, "no items for cycling given");
    return c->rest.v[c->self.u.loop->index0 % c->rest.n];
}

static struct jv m_changed(struct jx *x, struct jcall *c) {
    struct jloop *loop = c->self.u.loop;
    struct jv now = list_make(x, J_TUPLE, c->rest.n);
    for (size_t i = 0; i < c->rest.n; i++) list_add(x, now.u.l, c->rest.v[i]);
    if (loop->last_changed.type == J_TUPLE && equal(x, loop->last_changed, now)) {
        return jv_bool(false);
    }
    loop->last_changed = now;
    return jv_bool(true);
}

static struct jv m_next(struct jx *x, struct jcall *c) {
    struct jcycler *y = c->self.u.cycler;
    (void)x;
    struct jv v = y->l->v[y->at];
    y->at = (y->at + 1) % y->l->n;
    return v;
}

static struct jv m_reset(struct jx *x, struct jcall *c) {
    (void)x;
    c->self.u.cycler->at = 0;
    return jv_none();
}

static struct jv m_is_integer(struct jx *x, struct jcall *c) {
    (void)x;
    return jv_bool(c->self.u.f == floor(c->self.u.f) && !isinf(c->self.u.f));
}

static struct jv m_bit_length(struct jx *x, struct jcall *c) {
    struct str text = {0};
    int_digits(x, c->self, 2, false, &text);
    int64_t n = (int64_t)text.size - (text.data[0] == '-');
    if (text.data[0] == '0') n = 0;
    str_free(&text);
    return jv_int(n);
}

static struct jv m_unsafe(struct jx *x, struct jcall *c) {
    (void)c;
    jx_fail(x, "a method that changes its object is unsafe");
}

static struct jv m_encode(struct jx *x, struct jcall *c) {
    (void)c;
    jx_fail(x, "encode() would give bytes, which no prompt can hold");
}

enum {
    STR = 1 << J_STR,
    DICT = 1 << J_DICT,
    LIST = 1 << J_LIST,
    TUPLE = 1 << J_TUPLE,
    INT = 1 << J_INT | 1 << J_BIG | 1 << J_BOOL,
};

/* Sorted by nothing; looked up once when a template is parsed, or by a computed name. */
static const struct jbuiltin methods[] = {
    {"find", "_ _? _?", m_find, STR},
    {"rfind", "_ _? _?", m_rfind, STR},
    {"index", "_ _? _?", m_index, STR | LIST | TUPLE | 1 << J_RANGE},
    {"rindex", "_ _? _?", m_rindex, STR},
    {"count", "_ _? _?", m_count, STR},
    {"count", "_", m_count, LIST | TUPLE | 1 << J_RANGE},
    {"startswith", "_ _? _?", m_startswith, STR},
    {"endswith", "_ _? _?", m_endswith, STR},
    {"strip", "_?", m_strip, STR},
    {"lstrip", "_?", m_lstrip, STR},
    {"rstrip", "_?", m_rstrip, STR},
    {"upper", "", m_upper, STR},
    {"lower", "", m_lower, STR},
    {"casefold", "", m_casefold, STR},
    {"title", "", m_title, STR},
    {"capitalize", "", m_capitalize, STR},
    {"swapcase", "", m_swapcase, STR},
    {"replace", "_ _ _?", m_replace, STR},
    {"join", "_", m_join, STR},
    {"format", "* **", m_format, STR},
    {"format_map", "_", m_format_map, STR},
    {"split", "sep? maxsplit?", m_split, STR},
    {"rsplit", "sep? maxsplit?", m_rsplit, STR},
    {"encode", "encoding? errors?", m_encode, STR},
    {"partition", "_", m_partition, STR},
    {"rpartition", "_", m_rpartition, STR},
    {"splitlines", "keepends?", m_splitlines, STR},
    {"removeprefix", "_", m_removeprefix, STR},
    {"removesuffix", "_", m_removesuffix, STR},
    {"ljust", "_ _?", m_ljust, STR},
    {"rjust", "_ _?", m_rjust, STR},
    {"center", "_ _?", m_center, STR},
    {"zfill", "_", m_zfill, STR},
    {"expandtabs", "tabsize?", m_expandtabs, STR},
    {"isalpha", "", m_isalpha, STR},
    {"isdigit", "", m_isdigit, STR},
    {"isalnum", "", m_isalnum, STR},
    {"isspace", "", m_isspace, STR},
    {"isnumeric", "", m_isnumeric, STR},
    {"isdecimal", "", m_isdecimal, STR},
    {"isprintable", "", m_isprintable, STR},
    {"isascii", "", m_isascii, STR},
    {"isupper", "", m_isupper, STR},
    {"islower", "", m_islower, STR},
    {"istitle", "", m_istitle, STR},
    {"isidentifier", "", m_isidentifier, STR},
    {"keys", "", m_keys, DICT},
    {"values", "", m_values, DICT},
    {"items", "", m_items, DICT},
    {"get", "_ _?", m_get, DICT},
    {"copy", "", m_copy, DICT | LIST},
    {"fromkeys", "_ _?", m_fromkeys, DICT},
    {"cycle", "*", m_cycle, 1 << J_LOOP},
    {"changed", "*", m_changed, 1 << J_LOOP},
    {"next", "", m_next, 1 << J_CYCLER},
    {"reset", "", m_reset, 1 << J_CYCLER},
    {"is_integer", "", m_is_integer, 1 << J_FLOAT},
    {"bit_length", "", m_bit_length, INT},
    {"append", "_", m_unsafe, LIST},
    {"clear", "", m_unsafe, LIST | DICT},
    {"pop", "_? _?", m_unsafe, LIST | DICT},
    {"reverse", "", m_unsafe, LIST},
    {"insert", "_ _", m_unsafe, LIST},
    {"sort", "key? reverse?", m_unsafe, LIST},
    {"extend", "_", m_unsafe, LIST},
    {"remove", "_", m_unsafe, LIST},
    {"popitem", "", m_unsafe, DICT},
    {"setdefault", "_ _?", m_unsafe, DICT},
    {"update", "* **", m_unsafe, DICT},
    {NULL, NULL, NULL, 0},
};

const struct jbuiltin *method_find(struct slice name) {
    for (const struct jbuiltin *m = methods; m->name; m++) {
        if (slice_equal(slice_of(m->name), name)) return m;
    }
    return NULL;
}

/* The method of the same name for that type; entries of one name stand together. */
const struct jbuiltin *method_for(const struct jbuiltin *first, enum jtype type) {
    for (const struct jbuiltin *m = first; m->name && strcmp(m->name, first->name) == 0; m++) {
        if (m->types >> type & 1) return m;
    }
    return NULL;
}

bool method_is_mutating(struct slice name, enum jtype type) {
    const struct jbuiltin *m = method_find(name);
    return m && (m = method_for(m, type)) != NULL && m->fn == m_unsafe;
}
