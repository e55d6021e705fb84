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

struct jv iter_make(struct jx *x, struct jlist *l) {
    struct jiter *it = jx_alloc(x, sizeof *it);
    it->l = l;
    return (struct jv){J_ITER, {.iter = it}};
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
    if (a.type == J_STR) return slice_equal(str_slice(a), str_slice(b));
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
        struct jiter *it = c.u.iter;
        while (it->at < it->l->n) {
            if (equal(x, it->l->v[it->at++], item)) return true;
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
    while (loop->index0 + 1 < loop->items->n) {
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
        struct jiter *it = v.u.iter;
        struct jlist *l = list_make(x, J_LIST, it->l->n - it->at).u.l;
        while (it->at < it->l->n) list_add(x, l, it->l->v[it->at++]);
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
    (void)x;
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
        *n = v.u.loop->items->n;
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

static struct jv no_attribute(struct jx *x, struct jv o, struct jv name) {
    struct slice s = {"", 0};
    if (name.type == J_STR) s = str_slice(name);
    if (name.type != J_STR) {
        struct jv text = to_str(x, name);
        return jv_undef(arena_printf(&x->arena, "%s object has no element %.*s", type_name(o),
                                     (int)(text.u.s->n > 100 ? 100 : text.u.s->n), text.u.s->p));
    }
    return jv_undef(arena_printf(&x->arena, "'%s object' has no attribute '%.*s'", type_name(o),
                                 (int)(s.size > 100 ? 100 : s.size), s.data));
}

static bool loop_attr(struct jloop *l, struct slice name, struct jv *out) {
    size_t n = l->items->n, i = l->index0;
    static const char *const names[] = {"index",  "index0",   "revindex", "revindex0",
                                        "first",  "last",     "length",   "depth",
                                        "depth0", "previtem", "nextitem"};
    int which = -1;
    for (int k = 0; k < 11; k++) {
        if (slice_equal(name, slice_of(names[k]))) which = k;
    }
    const struct jv values[] = {
        jv_int((int64_t)i + 1),
        jv_int((int64_t)i),
        jv_int((int64_t)(n - i)),
        jv_int((int64_t)(n - i) - 1),
        jv_bool(i == 0),
        jv_bool(i + 1 >= n),
        jv_int((int64_t)n),
        jv_int(l->depth0 + 1),
        jv_int(l->depth0),
        i > 0 ? l->items->v[i - 1] : jv_undef("there is no previous item"),
        i + 1 < n ? l->items->v[i + 1] : jv_undef("there is no next item"),
    };
    if (which >= 0) *out = values[which];
    return which >= 0;
}

/* Attributes that are not methods; false if there is none of that name. */
static bool plain_attr(struct jx *x, struct jv o, struct slice name, struct jv *out) {
    if (o.type == J_TUPLE && o.u.l->group) {
        if (slice_equal(name, slice_of("grouper"))) return *out = o.u.l->v[0], true;
        if (slice_equal(name, slice_of("list"))) return *out = o.u.l->v[1], true;
    }
    if (o.type == J_LOOP) return loop_attr(o.u.loop, name, out);
    if (o.type == J_CYCLER && slice_equal(name, slice_of("current"))) {
        *out = o.u.cycler->l->v[o.u.cycler->at];
        return true;
    }
    if (o.type == J_MACRO && slice_equal(name, slice_of("name"))) {
        struct slice s = x->t->symbols[o.u.macro->node->symbol];
        *out = str_make(x, s.data, s.size, false);
        return true;
    }
    if (o.type == J_MACRO && slice_equal(name, slice_of("arguments"))) {
        *out = list_make(x, J_TUPLE, 0);
        for (const struct node *a = o.u.macro->node->list; a; a = a->next) {
            struct slice s = x->t->symbols[a->symbol];
            list_add(x, out->u.l, str_make(x, s.data, s.size, false));
        }
        return true;
    }
    if (o.type == J_MACRO && slice_equal(name, slice_of("caller"))) {
        *out = jv_bool(o.u.macro->node->uses_caller);
        return true;
    }
    if (o.type == J_RANGE) {
        const struct jrange *r = o.u.range;
        if (slice_equal(name, slice_of("start"))) return *out = jv_int(r->start), true;
        if (slice_equal(name, slice_of("stop"))) return *out = jv_int(r->stop), true;
        if (slice_equal(name, slice_of("step"))) return *out = jv_int(r->step), true;
    }
    if (is_int(o)) {
        if (slice_equal(name, slice_of("real")) || slice_equal(name, slice_of("numerator"))) {
            *out = o.type == J_BOOL ? jv_int(o.u.b) : o;
            return true;
        }
        if (slice_equal(name, slice_of("imag"))) return *out = jv_int(0), true;
        if (slice_equal(name, slice_of("denominator"))) return *out = jv_int(1), true;
    }
    if (o.type == J_FLOAT && slice_equal(name, slice_of("real"))) return *out = o, true;
    if (o.type == J_FLOAT && slice_equal(name, slice_of("imag"))) return *out = jv_float(0), true;
    return false;
}

/* What Python's getattr finds, as the sandbox lets it through. */
static bool attribute(struct jx *x, struct jv o, struct slice name, const struct jbuiltin *method,
                      struct jv *out) {
    if (plain_attr(x, o, name, out)) return true;
    if (method && (method = method_for(method, o.type)) != NULL) {
        if (method_is_mutating(name, o.type)) {
            *out = jv_undef("access to a method that changes its object is unsafe");
            return true;
        }
        struct jmethod *m = jx_alloc(x, sizeof *m);
        *m = (struct jmethod){o, method};
        *out = (struct jv){J_METHOD, {.method = m}};
        return true;
    }
    return false;
}

static void fail_undefined(struct jx *x, struct jv o) {
    jx_fail(x, "%s", o.u.hint);
}

struct jv get_attr(struct jx *x, struct jv o, struct jv name, const struct jbuiltin *method) {
    struct jv out;
    struct slice s = str_slice(name);
    if (o.type == J_UNDEF && slice_equal(s, slice_of("__class__"))) return no_attribute(x, o, name);
    if (o.type == J_UNDEF) fail_undefined(x, o);
    if (o.type == J_NAMESPACE) {
        struct jv *v = dict_get(x, o.u.d, name);
        return v ? *v : no_attribute(x, o, name);
    }
    if (attribute(x, o, s, method, &out)) return out;
    if (o.type == J_DICT) {
        struct jv *v = dict_get(x, o.u.d, name);
        if (v) return *v;
    }
    return no_attribute(x, o, name);
}

static bool index_in(struct jx *x, struct jv key, size_t n, size_t *at) {
    (void)x;
    if (key.type != J_INT && key.type != J_BOOL) return false;
    int64_t i = key.type == J_BOOL ? key.u.b : key.u.i;
    if (i < 0) i += (int64_t)n;
    *at = (size_t)i;
    return i >= 0 && (size_t)i < n;
}

static bool is_hashable(struct jv v) {
    if (v.type == J_TUPLE) {
        for (size_t i = 0; i < v.u.l->n; i++) {
            if (!is_hashable(v.u.l->v[i])) return false;
        }
    }
    return v.type != J_LIST && v.type != J_DICT && v.type != J_VIEW;
}

struct jv get_item(struct jx *x, struct jv o, struct jv key) {
    size_t at;
    if (o.type == J_UNDEF) fail_undefined(x, o);
    if ((o.type == J_LIST || o.type == J_TUPLE) && index_in(x, key, o.u.l->n, &at)) {
        return o.u.l->v[at];
    }
    if (o.type == J_DICT && is_hashable(key)) {
        struct jv *v = dict_get(x, o.u.d, key);
        if (v) return *v;
    }
    if (o.type == J_STR && index_in(x, key, str_chars(o.u.s), &at)) {
        size_t from = str_offset(o.u.s, at);
        size_t n = utf8_sequence_length(o.u.s->p + from, o.u.s->n - from);
        return str_part(x, o.u.s, from, n ? n : 1);
    }
    if (o.type == J_RANGE && index_in(x, key, o.u.range->n, &at)) {
        return jv_int(o.u.range->start + (int64_t)at * o.u.range->step);
    }
    if (key.type == J_STR) {
        struct jv out;
        if (o.type == J_NAMESPACE) return get_attr(x, o, key, NULL);
        if (attribute(x, o, str_slice(key), method_find(str_slice(key)), &out)) return out;
    }
    return no_attribute(x, o, key);
}

static bool slice_index(struct jx *x, struct jv v, int64_t *out) {
    if (v.type == J_NONE || v.type == J_MISSING) return false;
    if (v.type == J_BIG) {
        *out = v.u.big->negative ? INT64_MIN / 2 : INT64_MAX / 2;
        return true;
    }
    if (!is_int(v)) jx_fail(x, "slice indices must be integers or None");
    *out = int_of(x, v);
    if (*out > INT64_MAX / 2) *out = INT64_MAX / 2;
    if (*out < INT64_MIN / 2) *out = INT64_MIN / 2;
    return true;
}

static int64_t clamp_index(int64_t i, int64_t n, int64_t low, int64_t high) {
    if (i < 0) i += n;
    return i < low ? low : i > high ? high : i;
}

struct jv get_slice(struct jx *x, struct jv o, const struct jv part[3]) {
    size_t length;
    if (o.type == J_UNDEF) fail_undefined(x, o);
    bool sliceable = o.type == J_STR || o.type == J_LIST || o.type == J_TUPLE || o.type == J_RANGE;
    if (!sliceable) jx_fail(x, "'%s' object cannot be sliced", type_name(o));
    try_length(x, o, &length);
    int64_t n = (int64_t)length, start, stop, step = 1;
    if (slice_index(x, part[2], &step) && step == 0) jx_fail(x, "slice step cannot be zero");
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    start = step < 0 ? high : low;
    stop = step < 0 ? low : high;
    if (slice_index(x, part[0], &start)) start = clamp_index(start, n, low, high);
    if (slice_index(x, part[1], &stop)) stop = clamp_index(stop, n, low, high);
    int64_t count = step > 0 ? (stop > start ? (stop - start - 1) / step + 1 : 0)
                             : (start > stop ? (start - stop - 1) / -step + 1 : 0);
    jx_steps(x, (size_t)count);
    if (o.type == J_RANGE) {
        struct jrange *r = jx_alloc(x, sizeof *r);
        const struct jrange *q = o.u.range;
        *r = (struct jrange){q->start + start * q->step, q->start + stop * q->step, q->step * step,
                             (size_t)count};
        return (struct jv){J_RANGE, {.range = r}};
    }
    if (o.type == J_STR && step == 1) {
        size_t from = str_offset(o.u.s, (size_t)start);
        size_t to = count ? str_offset(o.u.s, (size_t)(start + count)) : from;
        return str_part(x, o.u.s, from, to - from);
    }
    struct jlist *l = o.type == J_STR ? string_items(x, o.u.s) : o.u.l;
    struct jv out = list_make(x, o.type == J_TUPLE ? J_TUPLE : J_LIST, (size_t)count);
    for (int64_t i = 0; i < count; i++) list_add(x, out.u.l, l->v[start + i * step]);
    if (o.type != J_STR) return out;
    struct jbuf b;
    buf_init(&b, x);
    for (size_t i = 0; i < out.u.l->n; i++) buf_add_str(&b, out.u.l->v[i].u.s);
    return buf_take(&b);
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
