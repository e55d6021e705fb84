/* Expressions to values. */
#include <stdio.h>
#include <string.h>

#include "base/caps.h"
#include "text/jinja_internal.h"

struct frame *frame_new(struct jx *x, struct frame *parent) {
    struct frame *f = jx_alloc(x, sizeof *f);
    f->parent = parent;
    return f;
}

void frame_set(struct jx *x, struct frame *f, int symbol, struct jv value) {
    jx_steps(x, f->n / 64);
    for (size_t i = 0; i < f->n; i++) {
        if (f->v[i].symbol == symbol) {
            f->v[i].value = value;
            return;
        }
    }
    if (f->n == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : 4;
        struct var *more = jx_alloc(x, cap * sizeof *more);
        if (f->n) memcpy(more, f->v, f->n * sizeof *more);
        f->v = more;
        f->cap = cap;
    }
    f->v[f->n++] = (struct var){symbol, value};
}

void frame_hide(struct jx *x, struct frame *f, const struct hidden *hidden) {
    for (int i = 0; i < hidden->n; i++) {
        frame_set(x, f, hidden->v[i], jv_undef("a name is read before it is set"));
    }
}

struct frame *scope_new(struct jx *x, struct frame *parent, const struct hidden *hidden) {
    struct frame *f = frame_new(x, parent);
    frame_hide(x, f, hidden);
    return f;
}

static struct jv eval_name(struct jx *x, struct frame *f, const struct node *n) {
    for (; f; f = f->parent) {
        jx_steps(x, f->n / 64);
        for (size_t i = 0; i < f->n; i++) {
            if (f->v[i].symbol == n->symbol && f->v[i].value.type != J_MISSING) {
                return f->v[i].value;
            }
        }
    }
    struct slice s = x->t->symbols[n->symbol];
    const struct jbuiltin *g = global_find(s);
    if (g) return (struct jv){J_FUNC, {.func = g}};
    return jv_undef(
        arena_printf(&x->arena, "'%.*s' is undefined", (int)(s.size > 100 ? 100 : s.size), s.data));
}

static struct jv eval_list(struct jx *x, struct frame *f, const struct node *n, enum jtype type) {
    struct jv l = list_make(x, type, 0);
    for (const struct node *c = n->list; c; c = c->next) list_add(x, l.u.l, eval(x, f, c));
    return l;
}

static struct jv eval_dict(struct jx *x, struct frame *f, const struct node *n) {
    struct jv d = dict_make(x);
    for (const struct node *c = n->list; c; c = c->next->next) {
        struct jv key = eval(x, f, c);
        dict_set(x, d.u.d, key, eval(x, f, c->next));
    }
    return d;
}

static struct jv eval_item(struct jx *x, struct frame *f, const struct node *n) {
    struct jv o = eval(x, f, n->a);
    const struct node *s = n->b;
    if (s->kind != N_SLICE) {
        struct jv key = eval(x, f, s);
        x->at = n;
        return get_item(x, o, key);
    }
    struct jv part[3] = {{J_MISSING, {0}}, {J_MISSING, {0}}, {J_MISSING, {0}}};
    if (s->a) part[0] = eval(x, f, s->a);
    if (s->b) part[1] = eval(x, f, s->b);
    if (s->c) part[2] = eval(x, f, s->c);
    x->at = n;
    bool sliceable = o.type == J_STR || o.type == J_LIST || o.type == J_TUPLE;
    for (int i = 0; i < 3; i++) {
        sliceable = sliceable && (is_int(part[i]) || part[i].type <= J_NONE);
    }
    if (!sliceable && n->flag && o.type != J_UNDEF)
        return jv_undef("the constant cannot be sliced");
    return get_slice(x, o, part);
}

static void add_keyword(struct jx *x, struct jargs *args, size_t *cap, struct jkw kw) {
    for (size_t i = 0; i < args->nkw; i++) {
        if (equal(x, args->kw[i].key, kw.key)) jx_fail(x, "an argument was given twice");
    }
    if (args->nkw == *cap) {
        *cap = *cap ? *cap * 2 : 4;
        struct jkw *more = jx_alloc(x, *cap * sizeof *more);
        if (args->nkw) memcpy(more, args->kw, args->nkw * sizeof *more);
        args->kw = more;
    }
    args->kw[args->nkw++] = kw;
}

static void eval_args(struct jx *x, struct frame *f, const struct node *n, struct jargs *args) {
    size_t cap = 0;
    *args = (struct jargs){0};
    if (n->list || n->dyn_args) {
        struct jlist *l = eval_list(x, f, n, J_LIST).u.l;
        if (n->dyn_args) {
            struct jlist *more = items_of(x, eval(x, f, n->dyn_args));
            for (size_t i = 0; i < more->n; i++) list_add(x, l, more->v[i]);
        }
        args->v = l->v;
        args->n = l->n;
    }
    for (const struct node *k = n->kwargs; k; k = k->next) {
        add_keyword(x, args, &cap, (struct jkw){k->value, eval(x, f, k->a)});
    }
    if (n->dyn_kwargs == NULL) return;
    struct jv d = eval(x, f, n->dyn_kwargs);
    if (d.type != J_DICT) jx_fail(x, "argument after ** must be a mapping");
    for (size_t i = 0; i < d.u.d->n; i++) {
        if (d.u.d->v[i].key.type != J_STR) jx_fail(x, "keywords must be strings");
        add_keyword(x, args, &cap, (struct jkw){d.u.d->v[i].key, d.u.d->v[i].value});
    }
}

/* The next name of a signature; false at its end. */
static bool next_name(const char **at, struct slice *name, bool *optional) {
    while (**at == ' ') ++*at;
    name->data = *at;
    name->size = strcspn(*at, " ?");
    *at += name->size;
    *optional = **at == '?';
    if (*optional) ++*at;
    return name->size > 0;
}

static bool take_keyword(const struct jargs *args, bool *used, struct slice name, struct jv *out) {
    for (size_t i = 0; i < args->nkw; i++) {
        if (used[i] || !slice_equal(str_slice(args->kw[i].key), name)) continue;
        *out = args->kw[i].value;
        return used[i] = true;
    }
    return false;
}

struct jv call_builtin(struct jx *x, const struct jbuiltin *fn, struct jv self,
                       const struct jargs *args) {
    struct jcall c = {.self = self};
    struct slice name;
    const char *at = fn->signature;
    size_t slot = 0, next = 0;
    bool optional, more_args = false, more_kwargs = false;
    bool *used = args->nkw ? jx_alloc(x, args->nkw) : NULL;
    while (next_name(&at, &name, &optional)) {
        if (slice_equal(name, slice_of("*"))) {
            more_args = true;
        } else if (slice_equal(name, slice_of("**"))) {
            more_kwargs = true;
        } else {
            if (slot == BUILTIN_SLOTS) jx_fail(x, "too many arguments");
            struct jv *out = &c.a[slot++];
            bool keyword = take_keyword(args, used, name, out);
            if (keyword && next < args->n) jx_fail(x, "%s() got an argument twice", fn->name);
            if (!keyword && next < args->n) {
                *out = args->v[next++];
            } else if (!keyword && !optional) {
                jx_fail(x, "%s() is missing a required argument", fn->name);
            }
        }
    }
    if (next < args->n && !more_args) jx_fail(x, "%s() takes fewer arguments", fn->name);
    if (next < args->n) {
        c.rest.v = args->v + next;
        c.rest.n = args->n - next;
    }
    for (size_t i = 0, cap = 0; i < args->nkw; i++) {
        if (used[i]) continue;
        if (!more_kwargs) jx_fail(x, "%s() got an unexpected keyword argument", fn->name);
        add_keyword(x, &c.rest, &cap, args->kw[i]);
    }
    return fn->fn(x, &c);
}

struct jv call_value(struct jx *x, struct jv fn, const struct jargs *args) {
    switch (fn.type) {
    case J_UNDEF:
        jx_fail(x, "%s", fn.u.hint);
    case J_MACRO:
        return call_macro(x, fn.u.macro, args);
    case J_FUNC:
        return call_builtin(x, fn.u.func, jv_none(), args);
    case J_METHOD:
        return call_builtin(x, fn.u.method->fn, fn.u.method->self, args);
    case J_LOOP:
        if (args->n != 1 || args->nkw) jx_fail(x, "loop() takes one argument");
        return loop_again(x, fn.u.loop, args->v[0]);
    case J_JOINER:
        if (args->n || args->nkw) jx_fail(x, "a joiner takes no arguments");
        if (fn.u.joiner->used) return fn.u.joiner->separator;
        fn.u.joiner->used = true;
        return str_text(x, "");
    default:
        jx_fail(x, "'%s' object is not callable", type_name(fn));
    }
}

static struct jv eval_call(struct jx *x, struct frame *f, const struct node *n) {
    struct jargs args;
    struct jv fn = eval(x, f, n->a);
    eval_args(x, f, n, &args);
    x->at = n;
    return call_value(x, fn, &args);
}

static struct jv eval_builtin(struct jx *x, struct frame *f, const struct node *n) {
    struct jargs args;
    struct jv value = n->a ? eval(x, f, n->a) : str_text(x, "");
    if (n->builtin == NULL) {
        struct slice s = str_slice(n->value);
        jx_fail(x, "no filter or test named '%.*s'", (int)(s.size > 40 ? 40 : s.size), s.data);
    }
    eval_args(x, f, n, &args);
    x->at = n;
    return call_builtin(x, n->builtin, value, &args);
}

static struct jv escape_plain(struct jx *x, struct jv v) {
    struct jbuf b;
    if (v.u.s->markup) return v;
    buf_init(&b, x);
    add_escaped(&b, v.u.s);
    return buf_take(&b);
}

static struct jv add_sequences(struct jx *x, struct jv a, struct jv b) {
    if (a.type == J_STR) {
        struct jbuf out;
        bool markup = a.u.s->markup || b.u.s->markup;
        if (markup) {
            a = escape_plain(x, a);
            b = escape_plain(x, b);
        }
        buf_init(&out, x);
        buf_add_str(&out, a.u.s);
        buf_add_str(&out, b.u.s);
        struct jv v = buf_take(&out);
        v.u.s->markup = markup;
        return v;
    }
    struct jv out = list_make(x, a.type, a.u.l->n + b.u.l->n);
    for (size_t i = 0; i < a.u.l->n; i++) list_add(x, out.u.l, a.u.l->v[i]);
    for (size_t i = 0; i < b.u.l->n; i++) list_add(x, out.u.l, b.u.l->v[i]);
    jx_steps(x, out.u.l->n);
    return out;
}

static bool is_sequence(struct jv v) {
    return v.type == J_STR || v.type == J_LIST || v.type == J_TUPLE;
}

static struct jv repeat(struct jx *x, struct jv v, struct jv times) {
    int64_t n = int_of(x, times);
    if (n < 0) n = 0;
    if (v.type == J_STR) return str_repeat(x, v.u.s, n);
    struct jv out = list_make(x, v.type, 0);
    if (v.u.l->n == 0) n = 0;
    for (int64_t i = 0; i < n; i++) {
        jx_steps(x, v.u.l->n);
        for (size_t k = 0; k < v.u.l->n; k++) list_add(x, out.u.l, v.u.l->v[k]);
    }
    return out;
}

static struct jv binary(struct jx *x, enum op op, struct jv a, struct jv b) {
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    if (is_number(a) && is_number(b)) return num_binary(x, op, a, b);
    if (op == OP_MOD && a.type == J_STR) return format_percent(x, a.u.s, b);
    if (a.type == J_UNDEF) jx_fail(x, "%s", a.u.hint);
    if (b.type == J_UNDEF) jx_fail(x, "%s", b.u.hint);
    if (op == OP_ADD && is_sequence(a) && a.type == b.type) return add_sequences(x, a, b);
    if (op == OP_MUL && is_sequence(a) && is_int(b)) return repeat(x, a, b);
    if (op == OP_MUL && is_int(a) && is_sequence(b)) return repeat(x, b, a);
    jx_fail(x, "unsupported operand type(s) for %s: '%s' and '%s'", names[op], type_name(a),
            type_name(b));
}

static struct jv eval_binary(struct jx *x, struct frame *f, const struct node *n) {
    struct jv a = eval(x, f, n->a), b = eval(x, f, n->b);
    x->at = n;
    return binary(x, n->op, a, b);
}

static bool holds(struct jx *x, enum op op, struct jv a, struct jv b) {
    switch (op) {
    case OP_EQ:
        return equal(x, a, b);
    case OP_NE:
        return !equal(x, a, b);
    case OP_LT:
        return compare(x, a, b, "<") == -1;
    case OP_LE:
        return (unsigned)(compare(x, a, b, "<=") + 1) < 2;
    case OP_GT:
        return compare(x, a, b, ">") == 1;
    case OP_GE:
        return (unsigned)compare(x, a, b, ">=") < 2;
    case OP_IN:
        return contains(x, b, a);
    default:
        return !contains(x, b, a);
    }
}

static struct jv eval_compare(struct jx *x, struct frame *f, const struct node *n) {
    struct jv left = eval(x, f, n->a);
    for (const struct node *o = n->list; o; o = o->next) {
        struct jv right = eval(x, f, o->a);
        x->at = o;
        if (!holds(x, o->op, left, right)) return jv_bool(false);
        left = right;
    }
    return jv_bool(true);
}

static struct jv eval_concat(struct jx *x, struct frame *f, const struct node *n) {
    struct jbuf b;
    buf_init(&b, x);
    for (const struct node *c = n->list; c; c = c->next) add_str(&b, eval(x, f, c));
    return buf_take(&b);
}

static struct jv eval_sign(struct jx *x, const struct node *n, struct jv v) {
    x->at = n;
    if (v.type == J_UNDEF) jx_fail(x, "%s", v.u.hint);
    if (!is_number(v)) jx_fail(x, "bad operand type for unary sign: '%s'", type_name(v));
    if (n->kind == N_NEG) return num_negate(x, v);
    return v.type == J_BOOL ? jv_int(v.u.b) : v;
}

static struct jv eval_condition(struct jx *x, struct frame *f, const struct node *n) {
    if (is_true(x, eval(x, f, n->b))) return eval(x, f, n->a);
    if (n->c) return eval(x, f, n->c);
    return jv_undef("the inline if-expression evaluated to false and no else section was defined");
}

static struct jv eval_inner(struct jx *x, struct frame *f, const struct node *n) {
    struct jv v;
    switch (n->kind) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return eval_name(x, f, n);
    case N_TUPLE:
        return eval_list(x, f, n, J_TUPLE);
    case N_LIST:
        return eval_list(x, f, n, J_LIST);
    case N_DICT:
        return eval_dict(x, f, n);
    case N_ATTR:
        v = eval(x, f, n->a);
        x->at = n;
        return get_attr(x, v, n->value, n->builtin);
    case N_ITEM:
        return eval_item(x, f, n);
    case N_CALL:
        return eval_call(x, f, n);
    case N_FILTER:
    case N_TEST:
        return eval_builtin(x, f, n);
    case N_NEG:
    case N_POS:
        return eval_sign(x, n, eval(x, f, n->a));
    case N_NOT:
        return jv_bool(!is_true(x, eval(x, f, n->a)));
    case N_AND:
        v = eval(x, f, n->a);
        return is_true(x, v) ? eval(x, f, n->b) : v;
    case N_OR:
        v = eval(x, f, n->a);
        return is_true(x, v) ? v : eval(x, f, n->b);
    case N_BINARY:
        return eval_binary(x, f, n);
    case N_COMPARE:
        return eval_compare(x, f, n);
    case N_CONCAT:
        return eval_concat(x, f, n);
    case N_COND:
        return eval_condition(x, f, n);
    default:
        jx_fail(x, "a slice stands where no slice may be");
    }
}

struct jv eval(struct jx *x, struct frame *f, const struct node *n) {
    jx_steps(x, 1);
    x->at = n;
    if (++x->depth > CAP_TEMPLATE_STACK) jx_fail(x, "nested too deeply while rendering");
    struct jv v = eval_inner(x, f, n);
    x->depth--;
    return v;
}
