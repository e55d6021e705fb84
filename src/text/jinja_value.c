/* Containers, comparison, iteration and lookup of values, by Python's rules. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/caps.h"
#include "text/jinja_internal.h"

struct jv jv_none(void) {
    return (struct jv){J_NONE, {0}};
}

struct jv jv_bool(bool b) {
    return (struct jv){J_BOOL, {.b = b}};
}

struct jv jv_int(int64_t i) {
    return (struct jv){J_INT, {.i = i}};
}

struct jv jv_float(double f) {
    return (struct jv){J_FLOAT, {.f = f}};
}

struct jv jv_undef(const char *hint) {
    return (struct jv){J_UNDEF, {.hint = hint}};
}

struct jv list_make(struct jx *x, enum jtype type, size_t cap) {
    struct jlist *l = jx_alloc(x, sizeof *l);
    if (cap > CAP_TEMPLATE_MEMORY / sizeof *l->v) jx_fail(x, "a list too long");
    l->cap = cap;
    l->v = cap ? jx_alloc(x, cap * sizeof *l->v) : NULL;
    return (struct jv){type, {.l = l}};
}

void list_add(struct jx *x, struct jlist *l, struct jv v) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        struct jv *more = jx_alloc(x, cap * sizeof *more);
        if (l->n) memcpy(more, l->v, l->n * sizeof *more);
        l->v = more;
        l->cap = cap;
    }
    l->v[l->n++] = v;
}

struct jv tuple2(struct jx *x, struct jv a, struct jv b) {
    struct jv t = list_make(x, J_TUPLE, 2);
    list_add(x, t.u.l, a);
    list_add(x, t.u.l, b);
    return t;
}

struct jv dict_make(struct jx *x) {
    return (struct jv){J_DICT, {.d = jx_alloc(x, sizeof(struct jdict))}};
}

static uint64_t hash_of(struct jx *x, struct jv v) {
    switch (v.type) {
    case J_STR:
        jx_steps(x, v.u.s->n / 256);
        return XXH3_64bits_withSeed(v.u.s->p, v.u.s->n, (uint64_t)(uintptr_t)x);
    case J_NONE:
        return 0x9e3779b97f4a7c15u;
    case J_BOOL:
    case J_INT:
    case J_BIG:
    case J_FLOAT:
        return num_hash(v);
    case J_TUPLE: {
        uint64_t h = 0x345678;
        if (++x->depth > CAP_TEMPLATE_STACK) jx_fail(x, "nested too deeply");
        for (size_t i = 0; i < v.u.l->n; i++) h = h * 1000003 ^ hash_of(x, v.u.l->v[i]);
        x->depth--;
        return h;
    }
    case J_LIST:
    case J_DICT:
    case J_VIEW:
        jx_fail(x, "unhashable type: '%s'", type_name(v));
    case J_UNDEF:
        return 7;
    default:
        return (uint64_t)(uintptr_t)v.u.l;
    }
}

enum { SMALL_DICT = 8 };

static struct jpair *find_pair(struct jx *x, const struct jdict *d, struct jv key, uint64_t hash) {
    if (d->slots == NULL) {
        for (size_t i = 0; i < d->n; i++) {
            if (d->v[i].hash == hash && equal(x, d->v[i].key, key)) return &d->v[i];
        }
        return NULL;
    }
    size_t mask = d->slot_count - 1;
    for (size_t i = hash & mask; d->slots[i]; i = (i + 1) & mask) {
        struct jpair *p = &d->v[d->slots[i] - 1];
        if (p->hash == hash && equal(x, p->key, key)) return p;
    }
    return NULL;
}

static void add_slot(struct jdict *d, size_t index) {
    size_t mask = d->slot_count - 1, i = d->v[index].hash & mask;
    while (d->slots[i]) i = (i + 1) & mask;
    d->slots[i] = (uint32_t)index + 1;
}

void dict_set(struct jx *x, struct jdict *d, struct jv key, struct jv value) {
    uint64_t hash = hash_of(x, key);
    struct jpair *p = find_pair(x, d, key, hash);
    if (p) {
        p->value = value;
        return;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        struct jpair *more = jx_alloc(x, cap * sizeof *more);
        if (d->n) memcpy(more, d->v, d->n * sizeof *more);
        d->v = more;
        d->cap = cap;
    }
    d->v[d->n++] = (struct jpair){key, value, hash};
    if (d->n <= SMALL_DICT) return;
    if (d->n * 2 <= d->slot_count) {
        add_slot(d, d->n - 1);
        return;
    }
    d->slot_count = d->slot_count ? d->slot_count * 2 : 32;
    d->slots = jx_alloc(x, d->slot_count * sizeof *d->slots);
    for (size_t i = 0; i < d->n; i++) add_slot(d, i);
}

struct jv *dict_get(struct jx *x, const struct jdict *d, struct jv key) {
    struct jpair *p = find_pair(x, d, key, hash_of(x, key));
    return p ? &p->value : NULL;
}

/* A number as JSON spells it, too large for yyjson: an int, or a float that is infinite. */
static struct jv value_from_number(struct jx *x, const char *text) {
    bool ok, negative = text[0] == '-';
    if (strpbrk(text, ".eE")) return jv_float(negative ? -INFINITY : INFINITY);
    struct jv v = int_parse(x, slice_of(text), 10, &ok);
    if (!ok) jx_fail(x, "an int of more than 4300 digits"); /* CPython's limit */
    return v;
}

struct jv value_from_json(struct jx *x, yyjson_val *v, bool message, int depth) {
    if (depth > CAP_JSON_DEPTH) jx_fail(x, "a variable nested deeper than %d", CAP_JSON_DEPTH);
    size_t i, n;
    yyjson_val *key, *item;
    if (yyjson_is_str(v)) return str_make(x, yyjson_get_str(v), yyjson_get_len(v), message);
    if (yyjson_is_bool(v)) return jv_bool(yyjson_get_bool(v));
    if (yyjson_is_uint(v)) return int_from_u64(x, yyjson_get_uint(v));
    if (yyjson_is_sint(v)) return jv_int(yyjson_get_sint(v));
    if (yyjson_is_real(v)) return jv_float(yyjson_get_real(v));
    if (yyjson_is_raw(v)) return value_from_number(x, yyjson_get_raw(v));
    if (yyjson_is_arr(v)) {
        struct jv l = list_make(x, J_LIST, yyjson_arr_size(v));
        yyjson_arr_foreach(v, i, n, item) {
            list_add(x, l.u.l, value_from_json(x, item, message, depth + 1));
        }
        return l;
    }
    if (yyjson_is_obj(v)) {
        struct jv d = dict_make(x);
        yyjson_obj_foreach(v, i, n, key, item) {
            struct jv k = str_make(x, yyjson_get_str(key), yyjson_get_len(key), message);
            dict_set(x, d.u.d, k, value_from_json(x, item, message, depth + 1));
        }
        return d;
    }
    return jv_none();
}

const char *type_name(struct jv v) {
    static const char *const names[] = {"missing",
                                        "Undefined",
                                        "NoneType",
                                        "bool",
                                        "int",
                                        "int",
                                        "float",
                                        "str",
                                        "list",
                                        "tuple",
                                        "dict",
                                        "range",
                                        "dict_view",
                                        "generator",
                                        "Namespace",
                                        "LoopContext",
                                        "Macro",
                                        "function",
                                        "builtin_function_or_method",
                                        "Cycler",
                                        "Joiner"};
    return v.type == J_STR && v.u.s->markup ? "Markup" : names[v.type];
}

bool is_int(struct jv v) {
    return v.type == J_BOOL || v.type == J_INT || v.type == J_BIG;
}

bool is_number(struct jv v) {
    return is_int(v) || v.type == J_FLOAT;
}

bool is_true(struct jx *x, struct jv v) {
    switch (v.type) {
    case J_MISSING:
    case J_UNDEF:
    case J_NONE:
        return false;
    case J_BOOL:
        return v.u.b;
    case J_INT:
        return v.u.i != 0;
    case J_FLOAT:
        return v.u.f != 0;
    case J_STR:
        return v.u.s->n > 0;
    default: {
        size_t n;
        return try_length(x, v, &n) ? n > 0 : true;
    }
    }
}

static bool equal_lists(struct jx *x, const struct jlist *a, const struct jlist *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        if (!equal(x, a->v[i], b->v[i])) return false;
    }
    return true;
}

static bool equal_dicts(struct jx *x, const struct jdict *a, const struct jdict *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        struct jpair *other = find_pair(x, b, a->v[i].key, a->v[i].hash);
        if (other == NULL || !equal(x, a->v[i].value, other->value)) return false;
    }
    return true;
}

static bool equal_ranges(const struct jrange *a, const struct jrange *b) {
    return a->n == b->n &&
           (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

static bool equal_views(struct jx *x, struct jv a, struct jv b) {
    const struct jview *v = a.u.view, *w = b.u.view;
    if (v->kind == 1 || w->kind == 1) return v == w;
    if (v->kind == w->kind && v->kind == 2) return equal_dicts(x, v->d, w->d);
    if (v->kind != w->kind || v->d->n != w->d->n) return false;
    for (size_t i = 0; i < v->d->n; i++) {
        if (find_pair(x, w->d, v->d->v[i].key, v->d->v[i].hash) == NULL) return false;
    }
    return true;
}

bool equal(struct jx *x, struct jv a, struct jv b) {
    jx_steps(x, 1);
    if (is_number(a) && is_number(b)) return num_compare(a, b) == 0;
    if (a.type != b.type) return false;
    if (a.type == J_NONE || a.type == J_UNDEF || a.type == J_MISSING) return true;
    if (a.type == J_STR) {
        if (a.u.s->n == b.u.s->n) jx_steps(x, a.u.s->n / 256);
        return slice_equal(str_slice(a), str_slice(b));
    }
    if (a.type == J_RANGE) return equal_ranges(a.u.range, b.u.range);
    if (a.type == J_METHOD)
        return a.u.method->fn == b.u.method->fn && equal(x, a.u.method->self, b.u.method->self);
    if (a.type != J_LIST && a.type != J_TUPLE && a.type != J_DICT && a.type != J_VIEW) {
        return a.u.l == b.u.l;
    }
    if (a.u.l == b.u.l) return true;
    if (++x->depth > CAP_TEMPLATE_STACK) jx_fail(x, "nested too deeply");
    bool same = a.type == J_DICT   ? equal_dicts(x, a.u.d, b.u.d)
                : a.type == J_VIEW ? equal_views(x, a, b)
                                   : equal_lists(x, a.u.l, b.u.l);
    x->depth--;
    return same;
}

static void not_comparable(struct jx *x, struct jv a, struct jv b, const char *op) {
    if (a.type == J_UNDEF) jx_fail(x, "%s", a.u.hint);
    if (b.type == J_UNDEF) jx_fail(x, "%s", b.u.hint);
    jx_fail(x, "'%s' not supported between instances of '%s' and '%s'", op, type_name(a),
            type_name(b));
}

/* -1, 0, 1, or 2 where neither holds (NaN). */
int compare(struct jx *x, struct jv a, struct jv b, const char *op) {
    jx_steps(x, 1);
    if (is_number(a) && is_number(b)) return num_compare(a, b);
    if (a.type != b.type) not_comparable(x, a, b, op);
    if (a.type == J_STR) {
        size_t n = a.u.s->n < b.u.s->n ? a.u.s->n : b.u.s->n;
        jx_steps(x, n / 256);
        int c = n ? memcmp(a.u.s->p, b.u.s->p, n) : 0; /* UTF-8 sorts as its code points */
        if (c == 0) c = (a.u.s->n > b.u.s->n) - (a.u.s->n < b.u.s->n);
        return (c > 0) - (c < 0);
    }
    if (a.type != J_LIST && a.type != J_TUPLE) not_comparable(x, a, b, op);
    const struct jlist *l = a.u.l, *m = b.u.l;
    for (size_t i = 0; i < l->n && i < m->n; i++) {
        if (equal(x, l->v[i], m->v[i])) continue;
        if (++x->depth > CAP_TEMPLATE_STACK) jx_fail(x, "nested too deeply");
        int c = compare(x, l->v[i], m->v[i], op);
        x->depth--;
        return c;
    }
    return (l->n > m->n) - (l->n < m->n);
}

static bool range_has(const struct jrange *r, struct jv item) {
    if (item.type == J_BOOL) item = jv_int(item.u.b);
    if (item.type == J_FLOAT && item.u.f == floor(item.u.f) && fabs(item.u.f) < 9e15) {
        item = jv_int((int64_t)item.u.f);
    }
    if (item.type != J_INT || r->n == 0) return false;
    int64_t last = r->start + (int64_t)(r->n - 1) * r->step, i = item.u.i;
    bool inside = r->step > 0 ? i >= r->start && i <= last : i <= r->start && i >= last;
    return inside && (i - r->start) % r->step == 0;
}

bool contains(struct jx *x, struct jv c, struct jv item) {
    if (c.type == J_STR) {
        if (item.type != J_STR) {
            jx_fail(x, "'in <string>' requires string as left operand, not %s", type_name(item));
        }
        jx_steps(x, c.u.s->n / 64);
        return str_find(str_slice(c), str_slice(item), 0) != SIZE_MAX;
    }
    if (c.type == J_DICT) return dict_get(x, c.u.d, item) != NULL;
    if (c.type == J_VIEW && c.u.view->kind == 0) return dict_get(x, c.u.view->d, item) != NULL;
    if (c.type == J_RANGE) return range_has(c.u.range, item);
    if (c.type == J_ITER) {
        struct jv each;
        while (iter_next(x, c.u.iter, &each)) {
            if (equal(x, each, item)) return true;
        }
        return false;
    }
    struct jlist *l = try_items(x, c);
    if (l == NULL) jx_fail(x, "argument of type '%s' is not iterable", type_name(c));
    for (size_t i = 0; i < l->n; i++) {
        if (equal(x, l->v[i], item)) return true;
    }
    return false;
}

static struct jlist *string_items(struct jx *x, struct jstr *s) {
    struct jlist *l = list_make(x, J_LIST, str_chars(s)).u.l;
    for (size_t at = 0; at < s->n;) {
        size_t len = utf8_sequence_length(s->p + at, s->n - at);
        if (len == 0) len = 1;
        struct jv c = str_part(x, s, at, len);
        c.u.s->markup = false; /* iterating Markup gives plain text */
        list_add(x, l, c);
        at += len;
    }
    jx_steps(x, l->n);
    return l;
}

static struct jlist *dict_items(struct jx *x, const struct jdict *d, int kind) {
    struct jlist *l = list_make(x, J_LIST, d->n).u.l;
    for (size_t i = 0; i < d->n; i++) {
        const struct jpair *p = &d->v[i];
        list_add(x, l, kind == 0 ? p->key : kind == 1 ? p->value : tuple2(x, p->key, p->value));
    }
    jx_steps(x, d->n);
    return l;
}

static struct jlist *loop_items(struct jx *x, struct jloop *loop) {
    struct jlist *l = list_make(x, J_LIST, 0).u.l;
    while (loop_has(x, loop, 1)) {
        loop->index0++;
        list_add(x, l,
                 tuple2(x, loop->items->v[loop->index0], (struct jv){J_LOOP, {.loop = loop}}));
    }
    return l;
}

struct jlist *try_items(struct jx *x, struct jv v) {
    switch (v.type) {
    case J_UNDEF:
        return list_make(x, J_LIST, 0).u.l;
    case J_STR:
        return string_items(x, v.u.s);
    case J_LIST:
    case J_TUPLE:
        return v.u.l;
    case J_DICT:
        return dict_items(x, v.u.d, 0);
    case J_VIEW:
        return dict_items(x, v.u.view->d, v.u.view->kind);
    case J_RANGE: {
        struct jlist *l = list_make(x, J_LIST, v.u.range->n).u.l;
        for (size_t i = 0; i < v.u.range->n; i++) {
            list_add(x, l, jv_int(v.u.range->start + (int64_t)i * v.u.range->step));
        }
        jx_steps(x, l->n);
        return l;
    }
    case J_ITER: {
        struct jlist *l = list_make(x, J_LIST, 0).u.l;
        struct jv item;
        while (iter_next(x, v.u.iter, &item)) list_add(x, l, item);
        return l;
    }
    case J_LOOP:
        return loop_items(x, v.u.loop);
    default:
        return NULL;
    }
}

struct jlist *items_of(struct jx *x, struct jv v) {
    struct jlist *l = try_items(x, v);
    if (l == NULL) jx_fail(x, "'%s' object is not iterable", type_name(v));
    return l;
}

bool try_length(struct jx *x, struct jv v, size_t *n) {
    switch (v.type) {
    case J_UNDEF:
        *n = 0;
        return true;
    case J_STR:
        *n = str_chars(v.u.s);
        return true;
    case J_LIST:
    case J_TUPLE:
        *n = v.u.l->n;
        return true;
    case J_DICT:
        *n = v.u.d->n;
        return true;
    case J_VIEW:
        *n = v.u.view->d->n;
        return true;
    case J_RANGE:
        *n = v.u.range->n;
        return true;
    case J_LOOP:
        *n = loop_length(x, v.u.loop);
        return true;
    default:
        return false;
    }
}

int64_t int_of(struct jx *x, struct jv v) {
    if (v.type == J_BOOL) return v.u.b;
    if (v.type == J_UNDEF) jx_fail(x, "%s", v.u.hint);
    if (v.type == J_BIG) jx_fail(x, "Python int too large to convert to C ssize_t");
    if (v.type != J_INT)
        jx_fail(x, "'%s' object cannot be interpreted as an integer", type_name(v));
    return v.u.i;
}

/* Stable, like Python's: a merge of runs, from small to large. */
void list_sort(struct jx *x, struct jlist *values, struct jlist *keys, bool reverse) {
    size_t n = values->n;
    if (n < 2) return;
    struct jv *v = values->v, *k = keys->v;
    struct jv *v2 = jx_alloc(x, n * sizeof *v2), *k2 = jx_alloc(x, n * sizeof *k2);
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t at = 0; at < n; at += 2 * width) {
            size_t i = at, mid = at + width < n ? at + width : n, j = mid;
            size_t end = at + 2 * width < n ? at + 2 * width : n, out = at;
            while (i < mid || j < end) {
                bool right = i == mid;
                if (i < mid && j < end) {
                    right = reverse ? compare(x, k[i], k[j], "<") == -1
                                    : compare(x, k[j], k[i], "<") == -1;
                }
                v2[out] = right ? v[j] : v[i];
                k2[out++] = right ? k[j++] : k[i++];
            }
        }
        struct jv *swap = v;
        v = v2;
        v2 = swap;
        swap = k;
        k = k2;
        k2 = swap;
    }
    values->v = v;
    values->cap = n;
    keys->v = k;
    keys->cap = n;
}
