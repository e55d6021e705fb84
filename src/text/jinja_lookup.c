/* Attributes, items and slices of values, as Python and its sandbox find them. */
#include "text/jinja_internal.h"

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

static bool loop_attr(struct jx *x, struct jloop *l, struct slice name, struct jv *out) {
    static const char *const names[] = {"index",  "index0",   "revindex", "revindex0",
                                        "first",  "last",     "length",   "depth",
                                        "depth0", "previtem", "nextitem"};
    int64_t i = (int64_t)l->index0;
    int which = -1;
    for (int k = 0; k < 11; k++) {
        if (slice_equal(name, slice_of(names[k]))) which = k;
    }
    switch (which) {
    case 0:
    case 1:
        return *out = jv_int(i + 1 - which), true;
    case 2:
    case 3:
        return *out = jv_int((int64_t)loop_length(x, l) - i - (which - 2)), true;
    case 4:
        return *out = jv_bool(i == 0), true;
    case 5:
        return *out = jv_bool(!loop_has(x, l, 1)), true;
    case 6:
        return *out = jv_int((int64_t)loop_length(x, l)), true;
    case 7:
    case 8:
        return *out = jv_int(l->depth0 + 8 - which), true;
    case 9:
        *out = i > 0 ? l->items->v[i - 1] : jv_undef("there is no previous item");
        return true;
    case 10:
        *out = loop_has(x, l, 1) ? l->items->v[i + 1] : jv_undef("there is no next item");
        return true;
    default:
        return false;
    }
}

/* Attributes that are not methods; false if there is none of that name. */
static bool plain_attr(struct jx *x, struct jv o, struct slice name, struct jv *out) {
    if (o.type == J_TUPLE && o.u.l->group) {
        if (slice_equal(name, slice_of("grouper"))) return *out = o.u.l->v[0], true;
        if (slice_equal(name, slice_of("list"))) return *out = o.u.l->v[1], true;
    }
    if (o.type == J_LOOP) return loop_attr(x, o.u.loop, name, out);
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
        size_t from = str_offset(x, o.u.s, at);
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
        size_t from = str_offset(x, o.u.s, (size_t)start);
        size_t to = count ? str_offset(x, o.u.s, (size_t)(start + count)) : from;
        return str_part(x, o.u.s, from, to - from);
    }
    struct jlist *l = o.type == J_STR ? try_items(x, o) : o.u.l;
    struct jv out = list_make(x, o.type == J_TUPLE ? J_TUPLE : J_LIST, (size_t)count);
    for (int64_t i = 0; i < count; i++) list_add(x, out.u.l, l->v[start + i * step]);
    if (o.type != J_STR) return out;
    struct jbuf b;
    buf_init(&b, x);
    for (size_t i = 0; i < out.u.l->n; i++) buf_add_str(&b, out.u.l->v[i].u.s);
    struct jv text = buf_take(&b);
    text.u.s->markup = o.u.s->markup;
    return text;
}
