/* Generators: what jinja2 leaves to be computed when it is asked for, item by item.
 *
 * An error in an item that nobody takes does not happen, and what one reader took the next does not
 * see: templates that stop at the first match depend on both. */
#include "base/caps.h"
#include "text/jinja_filters.h"

struct jv iter_make(struct jx *x, struct jlist *l) {
    struct jiter *it = jx_alloc(x, sizeof *it);
    it->l = l;
    return (struct jv){J_ITER, {.iter = it}};
}

static struct jv iter_lazy(struct jx *x, const struct jcall *c, iter_fn next) {
    struct jv v = iter_make(x, list_make(x, J_LIST, 0).u.l);
    struct jcall *call = jx_alloc(x, sizeof *call);
    *call = *c;
    v.u.iter->call = call;
    v.u.iter->next = next;
    return v;
}

bool iter_next(struct jx *x, struct jiter *it, struct jv *out) {
    if (it->next == NULL) {
        if (it->at == it->l->n) return false;
        *out = it->l->v[it->at++];
        return true;
    }
    if (it->running) jx_fail(x, "generator already executing");
    if (++x->depth > CAP_TEMPLATE_STACK) jx_fail(x, "generators nested too deeply");
    it->running = true;
    bool more = it->next(x, it, out);
    it->running = false;
    x->depth--;
    if (!more) it->next = NULL; /* `l` is empty, or used up */
    return more;
}

struct jiter *iter_over(struct jx *x, struct jv v) {
    if (v.type == J_ITER) return v.u.iter;
    return iter_make(x, items_of(x, v)).u.iter;
}

static bool next_of_all(struct jx *x, struct jiter *it, struct jv *out) {
    it->l = it->make(x, it->call).u.l;
    it->next = NULL;
    if (it->l->n == 0) return false;
    *out = it->l->v[it->at++];
    return true;
}

struct jv iter_later(struct jx *x, const struct jcall *c, builtin_fn make) {
    struct jv v = iter_lazy(x, c, next_of_all);
    v.u.iter->make = make;
    return v;
}

/* ---- map ---- */

static struct jv *keyword(struct jargs *args, const char *name) {
    for (size_t i = 0; i < args->nkw; i++) {
        if (str_is(args->kw[i].key, name)) return &args->kw[i].value;
    }
    return NULL;
}

/* Looked up only when there is an item, as jinja2 does. */
static const struct jbuiltin *named(struct jx *x, struct jiter *it, struct jv name, bool filter) {
    if (it->fn) return it->fn;
    if (name.type == J_STR) {
        it->fn = filter ? filter_find(str_slice(name)) : test_find(str_slice(name));
    }
    if (it->fn == NULL) jx_fail(x, "no %s of that name", filter ? "filter" : "test");
    return it->fn;
}

/* The items that a generator works on; false where the value is empty or false. */
static bool begin(struct jx *x, struct jiter *it) {
    if (it->source) return true;
    if (!is_true(x, it->call->self)) return false;
    it->source = iter_over(x, it->call->self);
    return true;
}

static bool next_mapped(struct jx *x, struct jiter *it, struct jv *out) {
    struct jargs args = it->call->rest;
    struct jv *attribute = keyword(&args, "attribute"), *otherwise = keyword(&args, "default");
    bool by_attribute = args.n == 0 && attribute != NULL;
    struct jv item;
    if (!begin(x, it)) return false;
    if (by_attribute && args.nkw > 1u + (otherwise != NULL)) {
        jx_fail(x, "Unexpected keyword argument");
    }
    if (!by_attribute && args.n == 0) jx_fail(x, "map requires a filter argument");
    if (!iter_next(x, it->source, &item)) return false;
    jx_steps(x, 1);
    if (!by_attribute) {
        const struct jbuiltin *fn = named(x, it, *args.v++, true);
        args.n--;
        *out = call_builtin(x, fn, item, &args);
        return true;
    }
    *out = item_path(x, item, *attribute, otherwise ? *otherwise : jv_none());
    return true;
}

struct jv f_map(struct jx *x, struct jcall *c) {
    return iter_lazy(x, c, next_mapped);
}

/* ---- select, reject, selectattr, rejectattr ---- */

static bool next_chosen(struct jx *x, struct jiter *it, struct jv *out, bool keep,
                        bool by_attribute) {
    struct jargs args = it->call->rest;
    struct jv attribute = {J_MISSING, {0}};
    if (!begin(x, it)) return false;
    if (by_attribute) {
        if (args.n == 0) jx_fail(x, "Missing parameter for attribute name");
        attribute = *args.v++;
        args.n--;
    }
    struct jargs rest = args;
    if (rest.n > 0) {
        rest.v++;
        rest.n--;
    }
    while (iter_next(x, it->source, out)) {
        jx_steps(x, 1);
        struct jv v = item_path(x, *out, attribute, jv_none());
        if (args.n > 0) v = call_builtin(x, named(x, it, args.v[0], false), v, &rest);
        if (is_true(x, v) == keep) return true;
    }
    return false;
}

static bool next_selected(struct jx *x, struct jiter *it, struct jv *out) {
    return next_chosen(x, it, out, true, false);
}

static bool next_not_rejected(struct jx *x, struct jiter *it, struct jv *out) {
    return next_chosen(x, it, out, false, false);
}

static bool next_selected_by(struct jx *x, struct jiter *it, struct jv *out) {
    return next_chosen(x, it, out, true, true);
}

static bool next_not_rejected_by(struct jx *x, struct jiter *it, struct jv *out) {
    return next_chosen(x, it, out, false, true);
}

struct jv f_select(struct jx *x, struct jcall *c) {
    return iter_lazy(x, c, next_selected);
}

struct jv f_reject(struct jx *x, struct jcall *c) {
    return iter_lazy(x, c, next_not_rejected);
}

struct jv f_selectattr(struct jx *x, struct jcall *c) {
    return iter_lazy(x, c, next_selected_by);
}

struct jv f_rejectattr(struct jx *x, struct jcall *c) {
    return iter_lazy(x, c, next_not_rejected_by);
}
