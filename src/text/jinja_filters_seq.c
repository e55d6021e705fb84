/* Filters over lists, dicts and everything that can be iterated. */
#include <string.h>

#include "base/caps.h"
#include "text/jinja_filters.h"

static bool given(struct jv v) {
    return v.type != J_MISSING && v.type != J_NONE;
}

struct jv fold_case(struct jx *x, struct jv v) {
    return v.type == J_STR ? str_case(x, v.u.s, 'l') : v;
}

struct jv item_path(struct jx *x, struct jv item, struct jv attribute, struct jv otherwise) {
    if (!given(attribute)) return item;
    if (attribute.type != J_STR) {
        item = get_item(x, item, attribute);
        return item.type == J_UNDEF && given(otherwise) ? otherwise : item;
    }
    struct jstr *s = attribute.u.s;
    for (size_t from = 0; from <= s->n;) {
        const char *dot = from < s->n ? memchr(s->p + from, '.', s->n - from) : NULL;
        size_t to = dot ? (size_t)(dot - s->p) : s->n;
        struct jv key = str_part(x, s, from, to - from);
        bool digits = to > from;
        for (size_t i = from; i < to; i++) digits = digits && s->p[i] >= '0' && s->p[i] <= '9';
        if (digits) key = int_parse(x, str_slice(key), 10, &digits);
        item = get_item(x, item, key);
        if (item.type == J_UNDEF && given(otherwise)) item = otherwise;
        from = to + 1;
    }
    return item;
}

static struct jv sort_key(struct jx *x, struct jv item, struct jv attribute, bool fold) {
    struct jv v = item_path(x, item, attribute, jv_none());
    return fold ? fold_case(x, v) : v;
}

static struct jlist *copy_list(struct jx *x, const struct jlist *l) {
    struct jlist *out = list_make(x, J_LIST, l->n).u.l;
    for (size_t i = 0; i < l->n; i++) list_add(x, out, l->v[i]);
    jx_steps(x, l->n);
    return out;
}

static struct jv as_list(struct jlist *l) {
    return (struct jv){J_LIST, {.l = l}};
}

struct jv f_attr(struct jx *x, struct jcall *c) {
    if (c->a[0].type != J_STR) jx_fail(x, "attribute name must be string");
    struct jv o = c->self, name = c->a[0];
    if (o.type == J_DICT) { /* only attributes, never keys */
        const struct jbuiltin *m = method_find(str_slice(name));
        if (m == NULL || method_for(m, J_DICT) == NULL)
            return jv_undef("dict has no such attribute");
    }
    return get_attr(x, o, name, method_find(str_slice(name)));
}

static struct jv batch_rows(struct jx *x, struct jcall *c) {
    struct jlist *l = items_of(x, c->self), *out = list_make(x, J_LIST, 0).u.l;
    int64_t n = int_of(x, c->a[0]);
    struct jv row = {J_MISSING, {0}};
    for (size_t i = 0; i < l->n; i++) {
        if (row.type == J_MISSING || (int64_t)row.u.l->n == n) {
            if (row.type == J_MISSING && n == 0) list_add(x, out, list_make(x, J_LIST, 0));
            row = list_make(x, J_LIST, 0);
            list_add(x, out, row);
        }
        list_add(x, row.u.l, l->v[i]);
    }
    while (given(c->a[1]) && row.type == J_LIST && (int64_t)row.u.l->n < n) {
        jx_steps(x, 1);
        list_add(x, row.u.l, c->a[1]);
    }
    return as_list(out);
}

struct jv f_batch(struct jx *x, struct jcall *c) {
    return iter_later(x, c, batch_rows);
}

static struct jv slice_rows(struct jx *x, struct jcall *c) {
    struct jlist *l = items_of(x, c->self), *out = list_make(x, J_LIST, 0).u.l;
    int64_t slices = int_of(x, c->a[0]), at = 0;
    if (slices == 0) jx_fail(x, "integer division or modulo by zero");
    for (int64_t i = 0; i < slices; i++) {
        jx_steps(x, 1);
        int64_t n = (int64_t)l->n / slices + (i < (int64_t)l->n % slices);
        struct jv row = list_make(x, J_LIST, 0);
        for (int64_t k = 0; k < n; k++) list_add(x, row.u.l, l->v[at++]);
        if (given(c->a[1]) && i >= (int64_t)l->n % slices) list_add(x, row.u.l, c->a[1]);
        list_add(x, out, row);
    }
    return as_list(out);
}

struct jv f_slice(struct jx *x, struct jcall *c) {
    return iter_later(x, c, slice_rows);
}

struct jv f_default(struct jx *x, struct jcall *c) {
    bool absent = c->self.type == J_UNDEF || (is_true(x, c->a[1]) && !is_true(x, c->self));
    if (!absent) return c->self;
    return c->a[0].type == J_MISSING ? str_text(x, "") : c->a[0];
}

struct jv f_dictsort(struct jx *x, struct jcall *c) {
    bool by_value = str_is(c->a[1], "value"), fold = !is_true(x, c->a[0]);
    if (c->a[1].type != J_MISSING && !by_value && !str_is(c->a[1], "key")) {
        jx_fail(x, "You can only sort by either \"key\" or \"value\"");
    }
    if (c->self.type == J_UNDEF) jx_fail(x, "%s", c->self.u.hint);
    if (c->self.type != J_DICT) jx_fail(x, "dictsort needs a mapping, not %s", type_name(c->self));
    struct jlist *items = list_make(x, J_LIST, 0).u.l, *keys = list_make(x, J_LIST, 0).u.l;
    for (size_t i = 0; i < c->self.u.d->n; i++) {
        struct jpair *p = &c->self.u.d->v[i];
        struct jv key = by_value ? p->value : p->key;
        list_add(x, items, tuple2(x, p->key, p->value));
        list_add(x, keys, fold ? fold_case(x, key) : key);
    }
    list_sort(x, items, keys, is_true(x, c->a[2]));
    return as_list(items);
}

struct jv sorted_dicts(struct jx *x, struct jv v, int depth) {
    if (depth > CAP_TEMPLATE_DEPTH) jx_fail(x, "a value nested too deeply to print");
    if (v.type == J_LIST || v.type == J_TUPLE) {
        struct jv out = list_make(x, v.type, v.u.l->n);
        for (size_t i = 0; i < v.u.l->n; i++) {
            list_add(x, out.u.l, sorted_dicts(x, v.u.l->v[i], depth + 1));
        }
        return out;
    }
    if (v.type != J_DICT) return v;
    struct jlist *keys = list_make(x, J_LIST, 0).u.l, *values = list_make(x, J_LIST, 0).u.l;
    for (size_t i = 0; i < v.u.d->n; i++) {
        list_add(x, keys, v.u.d->v[i].key);
        list_add(x, values, v.u.d->v[i].value);
    }
    list_sort(x, values, keys, false);
    struct jv out = dict_make(x);
    for (size_t i = 0; i < keys->n; i++) {
        dict_set(x, out.u.d, keys->v[i], sorted_dicts(x, values->v[i], depth + 1));
    }
    return out;
}

struct jv f_first(struct jx *x, struct jcall *c) {
    struct jv first;
    if (c->self.type == J_ITER) {
        if (iter_next(x, c->self.u.iter, &first)) return first;
        return jv_undef("No first item, sequence was empty.");
    }
    if (c->self.type == J_STR && c->self.u.s->n > 0) {
        first = get_item(x, c->self, jv_int(0));
        first.u.s->markup = false;
        return first;
    }
    struct jlist *l = items_of(x, c->self);
    return l->n ? l->v[0] : jv_undef("No first item, sequence was empty.");
}

struct jv f_last(struct jx *x, struct jcall *c) {
    if (c->self.type == J_ITER || c->self.type == J_LOOP) jx_fail(x, "object is not reversible");
    if (c->self.type == J_STR && c->self.u.s->n > 0) return get_item(x, c->self, jv_int(-1));
    struct jlist *l = items_of(x, c->self);
    return l->n ? l->v[l->n - 1] : jv_undef("No last item, sequence was empty.");
}

/* groupby, with the key of the first of each group as it is spelled there. */
struct jv f_groupby(struct jx *x, struct jcall *c) {
    struct jlist *l = copy_list(x, items_of(x, c->self)), *keys = list_make(x, J_LIST, 0).u.l;
    struct jlist *out = list_make(x, J_LIST, 0).u.l;
    bool fold = !is_true(x, c->a[2]);
    for (size_t i = 0; i < l->n; i++) {
        struct jv v = item_path(x, l->v[i], c->a[0], c->a[1]);
        list_add(x, keys, fold ? fold_case(x, v) : v);
    }
    list_sort(x, l, keys, false);
    for (size_t i = 0; i < l->n;) {
        struct jv members = list_make(x, J_LIST, 0);
        struct jv name = item_path(x, l->v[i], c->a[0], c->a[1]);
        size_t first = i;
        for (; i < l->n && equal(x, keys->v[i], keys->v[first]); i++)
            list_add(x, members.u.l, l->v[i]);
        if (i == first) list_add(x, members.u.l, l->v[i++]); /* NaN equals nothing */
        struct jv pair = tuple2(x, name, members);
        pair.u.l->group = true;
        list_add(x, out, pair);
    }
    return as_list(out);
}

static struct jv item_pairs(struct jx *x, struct jcall *c) {
    if (c->self.type == J_UNDEF) return list_make(x, J_LIST, 0);
    if (c->self.type != J_DICT) jx_fail(x, "Can only get item pairs from a mapping.");
    struct jview view = {c->self.u.d, 2};
    return as_list(try_items(x, (struct jv){J_VIEW, {.view = &view}}));
}

struct jv f_items(struct jx *x, struct jcall *c) {
    return iter_later(x, c, item_pairs);
}

struct jv f_join(struct jx *x, struct jcall *c) {
    struct jlist *l = items_of(x, c->self);
    struct jv d = c->a[0].type == J_MISSING ? str_text(x, "") : to_str(x, c->a[0]);
    if (given(c->a[1])) {
        l = copy_list(x, l);
        for (size_t i = 0; i < l->n; i++) l->v[i] = item_path(x, l->v[i], c->a[1], jv_none());
    }
    return str_join(x, d.u.s, l, true);
}

struct jv f_length(struct jx *x, struct jcall *c) {
    size_t n;
    if (!try_length(x, c->self, &n)) {
        jx_fail(x, "object of type '%s' has no len()", type_name(c->self));
    }
    return jv_int((int64_t)n);
}

struct jv f_list(struct jx *x, struct jcall *c) {
    return as_list(copy_list(x, items_of(x, c->self)));
}

struct jv f_reverse(struct jx *x, struct jcall *c) {
    if (c->self.type == J_STR) {
        const struct jv part[3] = {{J_NONE, {0}}, {J_NONE, {0}}, {J_INT, {.i = -1}}};
        return get_slice(x, c->self, part);
    }
    struct jlist *l = items_of(x, c->self), *out = list_make(x, J_LIST, l->n).u.l;
    for (size_t i = l->n; i-- > 0;) list_add(x, out, l->v[i]);
    bool plain = c->self.type == J_ITER || c->self.type == J_LOOP; /* list(value) was reversed */
    return plain ? as_list(out) : iter_make(x, out);
}

struct jv f_sort(struct jx *x, struct jcall *c) {
    struct jlist *l = copy_list(x, items_of(x, c->self)), *keys = list_make(x, J_LIST, 0).u.l;
    bool fold = !is_true(x, c->a[1]);
    struct jlist *paths = NULL;
    if (c->a[2].type == J_STR) {
        struct jcall split = {.self = c->a[2]};
        split.a[0] = str_text(x, ",");
        paths = method_find(slice_of("split"))->fn(x, &split).u.l;
    }
    for (size_t i = 0; i < l->n; i++) {
        /* The key is a list even of one: lists compare equal items without ordering them. */
        struct jv key = list_make(x, J_LIST, 1);
        for (size_t k = 0; paths && k < paths->n; k++) {
            list_add(x, key.u.l, sort_key(x, l->v[i], paths->v[k], fold));
        }
        if (paths == NULL) list_add(x, key.u.l, sort_key(x, l->v[i], c->a[2], fold));
        list_add(x, keys, key);
    }
    list_sort(x, l, keys, is_true(x, c->a[0]));
    return as_list(l);
}

static struct jv extreme(struct jx *x, struct jcall *c, bool max) {
    struct jlist *l = items_of(x, c->self);
    bool fold = !is_true(x, c->a[0]);
    struct jv best, key;
    if (l->n == 0) return jv_undef("No aggregated item, sequence was empty.");
    best = l->v[0];
    key = sort_key(x, best, c->a[1], fold);
    for (size_t i = 1; i < l->n; i++) {
        struct jv k = sort_key(x, l->v[i], c->a[1], fold);
        if (max ? compare(x, k, key, ">") != 1 : compare(x, k, key, "<") != -1) continue;
        best = l->v[i];
        key = k;
    }
    return best;
}

struct jv f_min(struct jx *x, struct jcall *c) {
    return extreme(x, c, false);
}

struct jv f_max(struct jx *x, struct jcall *c) {
    return extreme(x, c, true);
}

struct jv f_sum(struct jx *x, struct jcall *c) {
    struct jlist *l = items_of(x, c->self);
    struct jv sum = c->a[1].type == J_MISSING ? jv_int(0) : c->a[1];
    if (sum.type == J_STR) jx_fail(x, "sum() can't sum strings");
    struct node a = {.kind = N_CONST}, b = {.kind = N_CONST};
    struct node plus = {.kind = N_BINARY, .op = OP_ADD, .a = &a, .b = &b, .place = x->at->place};
    const struct node *at = x->at;
    for (size_t i = 0; i < l->n; i++) {
        a.value = sum;
        b.value = item_path(x, l->v[i], c->a[0], jv_none());
        a.place = b.place = at->place;
        sum = eval(x, NULL, &plus);
        x->at = at; /* not into this function's own nodes */
    }
    return sum;
}

static struct jv unique_items(struct jx *x, struct jcall *c) {
    struct jlist *l = items_of(x, c->self), *out = list_make(x, J_LIST, 0).u.l;
    struct jv seen = dict_make(x);
    bool fold = !is_true(x, c->a[0]);
    for (size_t i = 0; i < l->n; i++) {
        struct jv key = sort_key(x, l->v[i], c->a[1], fold);
        if (dict_get(x, seen.u.d, key)) continue;
        dict_set(x, seen.u.d, key, jv_none());
        list_add(x, out, l->v[i]);
    }
    return as_list(out);
}

struct jv f_unique(struct jx *x, struct jcall *c) {
    return iter_later(x, c, unique_items);
}

static bool blank(char c) {
    return c == ' ' || (c >= 9 && c <= 13);
}

void wrap_line(struct jbuf *b, struct jstr *line, size_t width, bool split_long, bool hyphens,
               const struct jstr *newline) {
    size_t column = 0, at = 0, pending = 0;
    bool any = false, first = true;
    while (at < line->n) {
        size_t from = at, to;
        while (at < line->n && blank(line->p[at])) at++;
        pending = at - from;
        if (at == line->n) break;
        for (to = at; to < line->n && !blank(line->p[to]);) to++;
        struct jv word = str_part(b->x, line, at, to - at);
        size_t n = str_chars(word.u.s);
        at = to;
        if (hyphens && column + pending + n > width && memchr(word.u.s->p, '-', word.u.s->n)) {
            jx_fail(b->x, "wordwrap at a hyphen is not supported");
        }
        if (any && column + pending + n > width) {
            buf_add_str(b, newline);
            column = pending = 0;
        }
        if (!any && !first) pending = 0;
        buf_add_part(b, line, from, pending);
        column += pending;
        while (split_long && n > width) {
            size_t room = column < width ? width - column : 1,
                   cut = str_offset(b->x, word.u.s, room);
            buf_add_part(b, word.u.s, 0, cut);
            buf_add_str(b, newline);
            word = str_part(b->x, word.u.s, cut, word.u.s->n - cut);
            n = str_chars(word.u.s);
            column = 0;
        }
        buf_add_str(b, word.u.s);
        column += n;
        any = true;
        first = false;
    }
}
