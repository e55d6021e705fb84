/* Tests ("is defined") and the global functions. */
#include <string.h>
#include <time.h>

#include "base/caps.h"
#include "text/jinja_internal.h"

static struct jv arithmetic(struct jx *x, struct jv a, int64_t by) {
    if (a.type == J_UNDEF) jx_fail(x, "%s", a.u.hint);
    if (a.type == J_STR) return format_percent(x, a.u.s, jv_int(by));
    if (!is_number(a)) jx_fail(x, "unsupported operand type(s) for %%: '%s'", type_name(a));
    return num_binary(x, OP_MOD, a, jv_int(by));
}

static struct jv t_odd(struct jx *x, struct jcall *c) {
    return jv_bool(equal(x, arithmetic(x, c->self, 2), jv_int(1)));
}

static struct jv t_even(struct jx *x, struct jcall *c) {
    return jv_bool(equal(x, arithmetic(x, c->self, 2), jv_int(0)));
}

static struct jv t_divisibleby(struct jx *x, struct jcall *c) {
    if (!is_number(c->self) || !is_number(c->a[0])) jx_fail(x, "divisibleby needs numbers");
    return jv_bool(equal(x, num_binary(x, OP_MOD, c->self, c->a[0]), jv_int(0)));
}

/* Names are looked up in a dict: a list is an error there, anything else just is not found. */
static bool want_hashable(struct jx *x, struct jv v) {
    if (v.type == J_LIST || v.type == J_DICT) jx_fail(x, "unhashable type: '%s'", type_name(v));
    return v.type == J_STR;
}

#define TEST(name, condition)                                                                      \
    static struct jv name(struct jx *x, struct jcall *c) {                                         \
        (void)x;                                                                                   \
        struct jv v = c->self;                                                                     \
        return jv_bool(condition);                                                                 \
    }
TEST(t_defined, v.type != J_UNDEF)
TEST(t_undefined, v.type == J_UNDEF)
TEST(t_none, v.type == J_NONE)
TEST(t_boolean, v.type == J_BOOL)
TEST(t_false, v.type == J_BOOL && !v.u.b)
TEST(t_true, v.type == J_BOOL && v.u.b)
TEST(t_integer, v.type == J_INT || v.type == J_BIG)
TEST(t_float, v.type == J_FLOAT)
TEST(t_string, v.type == J_STR)
TEST(t_mapping, v.type == J_DICT)
TEST(t_number, is_number(v))
TEST(t_filter, want_hashable(x, v) && filter_find(str_slice(v)) != NULL)
TEST(t_test, want_hashable(x, v) && test_find(str_slice(v)) != NULL)
TEST(t_sequence, v.type == J_STR || v.type == J_LIST || v.type == J_TUPLE || v.type == J_DICT ||
                     v.type == J_RANGE || v.type == J_UNDEF)
TEST(t_iterable, v.type == J_UNDEF || v.type == J_STR || v.type == J_LIST || v.type == J_TUPLE ||
                     v.type == J_DICT || v.type == J_RANGE || v.type == J_VIEW ||
                     v.type == J_ITER || v.type == J_LOOP)
TEST(t_callable, v.type == J_MACRO || v.type == J_FUNC || v.type == J_METHOD || v.type == J_LOOP ||
                     v.type == J_JOINER || v.type == J_UNDEF)
TEST(t_escaped, v.type == J_STR && v.u.s->markup)
TEST(t_eq, equal(x, v, c->a[0]))
TEST(t_ne, !equal(x, v, c->a[0]))
TEST(t_gt, compare(x, v, c->a[0], ">") == 1)
TEST(t_ge, (unsigned)compare(x, v, c->a[0], ">=") < 2)
TEST(t_lt, compare(x, v, c->a[0], "<") == -1)
TEST(t_le, (unsigned)(compare(x, v, c->a[0], "<=") + 1) < 2)
TEST(t_in, contains(x, c->a[0], v))

static struct jv text_test(struct jx *x, struct jcall *c, const char *method) {
    struct jcall inner = {.self = to_str(x, c->self)};
    return method_find(slice_of(method))->fn(x, &inner);
}

static struct jv t_lower(struct jx *x, struct jcall *c) {
    return text_test(x, c, "islower");
}

static struct jv t_upper(struct jx *x, struct jcall *c) {
    return text_test(x, c, "isupper");
}

/* The same object; small ints and equal short strings are one object in CPython. */
static struct jv t_sameas(struct jx *x, struct jcall *c) {
    struct jv a = c->self, b = c->a[0];
    if (a.type != b.type) return jv_bool(false);
    if (a.type <= J_INT || a.type == J_STR || a.type == J_FLOAT) return jv_bool(equal(x, a, b));
    return jv_bool(a.u.l == b.u.l);
}

static const struct jbuiltin tests[] = {
    {"odd", "", t_odd, 0},
    {"even", "", t_even, 0},
    {"divisibleby", "num", t_divisibleby, 0},
    {"defined", "", t_defined, 0},
    {"undefined", "", t_undefined, 0},
    {"filter", "", t_filter, 0},
    {"test", "", t_test, 0},
    {"none", "", t_none, 0},
    {"boolean", "", t_boolean, 0},
    {"false", "", t_false, 0},
    {"true", "", t_true, 0},
    {"integer", "", t_integer, 0},
    {"float", "", t_float, 0},
    {"lower", "", t_lower, 0},
    {"upper", "", t_upper, 0},
    {"string", "", t_string, 0},
    {"mapping", "", t_mapping, 0},
    {"number", "", t_number, 0},
    {"sequence", "", t_sequence, 0},
    {"iterable", "", t_iterable, 0},
    {"callable", "", t_callable, 0},
    {"sameas", "other", t_sameas, 0},
    {"escaped", "", t_escaped, 0},
    {"in", "seq", t_in, 0},
    {"==", "_", t_eq, 0},
    {"eq", "_", t_eq, 0},
    {"equalto", "_", t_eq, 0},
    {"!=", "_", t_ne, 0},
    {"ne", "_", t_ne, 0},
    {">", "_", t_gt, 0},
    {"gt", "_", t_gt, 0},
    {"greaterthan", "_", t_gt, 0},
    {">=", "_", t_ge, 0},
    {"ge", "_", t_ge, 0},
    {"<", "_", t_lt, 0},
    {"lt", "_", t_lt, 0},
    {"lessthan", "_", t_lt, 0},
    {"<=", "_", t_le, 0},
    {"le", "_", t_le, 0},
    {NULL, NULL, NULL, 0},
};

const struct jbuiltin *test_find(struct slice name) {
    for (const struct jbuiltin *t = tests; t->name; t++) {
        if (slice_equal(slice_of(t->name), name)) return t;
    }
    return NULL;
}

/* ---- globals ---- */

static struct jv g_range(struct jx *x, struct jcall *c) {
    struct jrange *r = jx_alloc(x, sizeof *r);
    *r = (struct jrange){0, int_of(x, c->a[0]), 1, 0};
    if (c->a[1].type != J_MISSING) {
        r->start = r->stop;
        r->stop = int_of(x, c->a[1]);
    }
    if (c->a[2].type != J_MISSING) r->step = int_of(x, c->a[2]);
    if (r->step == 0) jx_fail(x, "range() arg 3 must not be zero");
    uint64_t span = 0, step = r->step < 0 ? 0 - (uint64_t)r->step : (uint64_t)r->step;
    if (r->step > 0 && r->stop > r->start) span = (uint64_t)r->stop - (uint64_t)r->start;
    if (r->step < 0 && r->stop < r->start) span = (uint64_t)r->start - (uint64_t)r->stop;
    uint64_t n = span ? (span - 1) / step + 1 : 0;
    if (n > CAP_TEMPLATE_RANGE)
        jx_fail(x, "Range too big: the sandbox blocks ranges over %d", CAP_TEMPLATE_RANGE);
    r->n = (size_t)n;
    return (struct jv){J_RANGE, {.range = r}};
}

static struct jv g_dict(struct jx *x, struct jcall *c) {
    struct jv d = dict_make(x);
    struct jv from = c->a[0];
    if (from.type == J_DICT || from.type == J_NAMESPACE) {
        for (size_t i = 0; i < from.u.d->n; i++) {
            dict_set(x, d.u.d, from.u.d->v[i].key, from.u.d->v[i].value);
        }
    } else if (from.type != J_MISSING) {
        struct jlist *l = items_of(x, from);
        for (size_t i = 0; i < l->n; i++) {
            struct jlist *pair = items_of(x, l->v[i]);
            if (pair->n != 2) jx_fail(x, "dict() needs pairs");
            dict_set(x, d.u.d, pair->v[0], pair->v[1]);
        }
    }
    for (size_t i = 0; i < c->rest.nkw; i++) {
        dict_set(x, d.u.d, c->rest.kw[i].key, c->rest.kw[i].value);
    }
    return d;
}

static struct jv g_namespace(struct jx *x, struct jcall *c) {
    struct jv d = g_dict(x, c);
    d.type = J_NAMESPACE;
    return d;
}

static struct jv g_cycler(struct jx *x, struct jcall *c) {
    if (c->rest.n == 0) jx_fail(x, "at least one item has to be provided");
    struct jcycler *y = jx_alloc(x, sizeof *y);
    y->l = list_make(x, J_LIST, c->rest.n).u.l;
    for (size_t i = 0; i < c->rest.n; i++) list_add(x, y->l, c->rest.v[i]);
    return (struct jv){J_CYCLER, {.cycler = y}};
}

static struct jv g_joiner(struct jx *x, struct jcall *c) {
    struct jjoiner *j = jx_alloc(x, sizeof *j);
    j->separator = c->a[0].type == J_MISSING ? str_text(x, ", ") : c->a[0];
    return (struct jv){J_JOINER, {.joiner = j}};
}

static struct jv g_raise(struct jx *x, struct jcall *c) {
    struct jstr *s = to_str(x, c->a[0]).u.s;
    jx_fail(x, "%.*s", (int)(s->n > 390 ? 390 : s->n), s->p);
}

static struct jv g_lipsum(struct jx *x, struct jcall *c) {
    (void)c;
    jx_fail(x, "lipsum would make one request give different bytes");
}

/* One directive at a time, because the C library knows some that Python does not. */
static struct jv g_strftime(struct jx *x, struct jcall *c) {
    if (c->a[0].type != J_STR) jx_fail(x, "strftime_now needs a format");
    struct jstr *s = c->a[0].u.s;
    time_t now = x->clock ? (time_t)(x->clock->now + x->clock->utc_offset) : 0;
    struct tm tm;
    if (gmtime_r(&now, &tm) == NULL) jx_fail(x, "the clock is out of range");
    struct jbuf b;
    buf_init(&b, x);
    for (size_t at = 0; at < s->n; at++) {
        char directive[4] = {'%', 0, 0, 0}, text[128];
        if (s->p[at] != '%' || at + 1 == s->n) {
            buf_add_part(&b, s, at, 1);
            continue;
        }
        directive[1] = s->p[++at];
        if (directive[1] == '-' && at + 1 < s->n) directive[2] = s->p[++at];
        char kind = directive[2] ? directive[2] : directive[1];
        if (kind == 'z' || kind == 'Z') continue; /* a time without a zone */
        if (kind == 'f') {
            buf_text(&b, "000000", false);
            continue;
        }
        if (kind == 0 || strftime(text, sizeof text, directive, &tm) == 0) continue;
        buf_text(&b, text, false);
    }
    return buf_take(&b);
}

static const struct jbuiltin globals[] = {
    {"range", "_ _? _?", g_range, 0},
    {"dict", "_? **", g_dict, 0},
    {"namespace", "_? **", g_namespace, 0},
    {"cycler", "*", g_cycler, 0},
    {"joiner", "sep?", g_joiner, 0},
    {"raise_exception", "message", g_raise, 0},
    {"strftime_now", "format", g_strftime, 0},
    {"lipsum", "* **", g_lipsum, 0},
    {NULL, NULL, NULL, 0},
};

const struct jbuiltin *global_find(struct slice name) {
    for (const struct jbuiltin *g = globals; g->name; g++) {
        if (slice_equal(slice_of(g->name), name)) return g;
    }
    return NULL;
}
