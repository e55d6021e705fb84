/* Statements, macros, loops, and the rendering as a whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "text/jinja_internal.h"

void jx_fail(struct jx *x, const char *fmt, ...) {
    char message[sizeof x->err->message], where[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    place_name(x->t, x->at ? x->at->place : (struct place){1, 1}, where, sizeof where);
    error_set(x->err, IMP_ERR_TEMPLATE, where, "%s", message);
    longjmp(x->fail, 1);
}

void *jx_alloc(struct jx *x, size_t bytes) {
    if (bytes > CAP_TEMPLATE_MEMORY || x->arena.used_bytes + bytes > CAP_TEMPLATE_MEMORY) {
        jx_fail(x, "the rendering needs more than %u bytes", CAP_TEMPLATE_MEMORY);
    }
    return arena_alloc(&x->arena, bytes);
}

void jx_steps(struct jx *x, size_t n) {
    x->steps += n;
    if (x->steps > CAP_TEMPLATE_STEPS) {
        jx_fail(x, "the rendering takes more than %u steps", CAP_TEMPLATE_STEPS);
    }
}

static void assign(struct jx *x, struct frame *f, const struct node *target, struct jv value) {
    if (target->kind == N_NAME) {
        frame_set(x, f, target->symbol, value);
        return;
    }
    if (target->kind == N_NSREF) {
        struct node name = {.kind = N_NAME, .symbol = target->symbol, .place = target->place};
        struct jv ns = eval(x, f, &name);
        x->at = target;
        if (ns.type != J_NAMESPACE) jx_fail(x, "cannot assign attribute on non-namespace object");
        dict_set(x, ns.u.d, target->value, value);
        return;
    }
    x->at = target;
    struct jlist *items = items_of(x, value);
    size_t at = 0;
    for (const struct node *c = target->list; c; c = c->next, at++) {
        if (at >= items->n) jx_fail(x, "not enough values to unpack (got %zu)", items->n);
        assign(x, f, c, items->v[at]);
    }
    if (at < items->n) jx_fail(x, "too many values to unpack (expected %zu)", at);
}

/* Runs a body into a buffer of its own. */
static struct jv capture(struct jx *x, struct frame *f, const struct node *body) {
    struct jbuf b, *outer = x->out;
    buf_init(&b, x);
    x->out = &b;
    exec_list(x, f, body);
    x->out = outer;
    return buf_take(&b);
}

/* Whether the loop's own test lets an item pass: judged when the item is needed, so that it sees
 * what the passes before it put into a namespace. */
static bool passes(struct jx *x, struct jloop *loop, struct jv item) {
    const struct node *n = loop->node;
    if (n->c == NULL) return true;
    struct frame *inner = frame_new(x, loop->outer);
    assign(x, inner, n->a, item);
    return is_true(x, eval(x, inner, n->c));
}

static bool loop_fetch(struct jx *x, struct jloop *loop) {
    struct jv item;
    while (loop->source && iter_next(x, loop->source, &item)) {
        if (!passes(x, loop, item)) continue;
        list_add(x, loop->items, item);
        return true;
    }
    loop->source = NULL;
    return false;
}

bool loop_has(struct jx *x, struct jloop *loop, size_t n) {
    while (loop->index0 + n >= loop->items->n) {
        if (!loop_fetch(x, loop)) return false;
    }
    return true;
}

size_t loop_length(struct jx *x, struct jloop *loop) {
    while (loop_fetch(x, loop)) continue;
    return loop->items->n;
}

static struct jloop *loop_begin(struct jx *x, struct frame *f, const struct node *n,
                                struct jv iterable) {
    struct jloop *loop = jx_alloc(x, sizeof *loop);
    loop->node = n;
    loop->outer = f;
    if (n->c || iterable.type == J_ITER) {
        loop->source = iter_over(x, iterable);
        loop->items = list_make(x, J_LIST, 0).u.l;
    } else {
        loop->items = items_of(x, iterable);
    }
    return loop;
}

static void run_loop(struct jx *x, struct frame *f, const struct node *n, struct jv iterable,
                     int64_t depth0) {
    struct jloop *loop = loop_begin(x, f, n, iterable);
    loop->depth0 = depth0;
    bool completed = false; /* jinja2 looks whether any pass reached its end */
    for (; loop_has(x, loop, 0); loop->index0++) {
        struct frame *inner = scope_new(x, f, &n->hidden);
        frame_set(x, inner, x->t->sym_loop, (struct jv){J_LOOP, {.loop = loop}});
        assign(x, inner, n->a, loop->items->v[loop->index0]);
        exec_list(x, inner, n->body);
        if (x->flow == FLOW_NEXT) completed = true;
        bool stop = x->flow == FLOW_BREAK;
        x->flow = FLOW_NEXT;
        if (stop) break;
    }
    if (!completed && n->else_) exec_list(x, scope_new(x, f, &n->else_hidden), n->else_);
}

struct jv loop_again(struct jx *x, struct jloop *loop, struct jv items) {
    if (!loop->node->flag) jx_fail(x, "the loop must have the 'recursive' marker");
    if (++x->calls > CAP_TEMPLATE_DEPTH) jx_fail(x, "recursion deeper than %d", CAP_TEMPLATE_DEPTH);
    struct jbuf b, *outer = x->out;
    buf_init(&b, x);
    x->out = &b;
    run_loop(x, loop->outer, loop->node, items, loop->depth0 + 1);
    x->out = outer;
    x->calls--;
    return buf_take(&b);
}

static bool take_kwarg(struct jx *x, const struct jargs *args, bool *used, struct slice name,
                       struct jv *out) {
    jx_steps(x, args->nkw / 16);
    for (size_t i = 0; i < args->nkw; i++) {
        if (used[i] || !slice_equal(str_slice(args->kw[i].key), name)) continue;
        *out = args->kw[i].value;
        return used[i] = true;
    }
    return false;
}

/* Parameters, then what the body asks for by the names varargs, kwargs, caller. */
static void bind_macro(struct jx *x, struct frame *f, const struct node *n,
                       const struct jargs *args) {
    const struct jinja *t = x->t;
    bool *used = args->nkw ? jx_alloc(x, args->nkw) : NULL, own_caller = false;
    size_t next = 0;
    struct jv caller = jv_undef("No caller defined");
    for (const struct node *p = n->list; p; p = p->next) {
        struct jv value = {J_MISSING, {0}};
        own_caller = own_caller || p->symbol == t->sym_caller;
        if (next < args->n) {
            value = args->v[next++];
        } else {
            take_kwarg(x, args, used, t->symbols[p->symbol], &value);
        }
        frame_set(x, f, p->symbol, value);
    }
    for (const struct node *p = n->list; p; p = p->next) {
        size_t i = 0;
        while (f->v[i].symbol != p->symbol) i++;
        if (f->v[i].value.type != J_MISSING) continue;
        struct jv value = jv_undef("a parameter of the macro was not provided");
        if (p->a) value = eval(x, f, p->a);
        frame_set(x, f, p->symbol, value);
    }
    if (n->uses_caller && !own_caller) {
        take_kwarg(x, args, used, slice_of("caller"), &caller);
        if (caller.type == J_NONE) caller = jv_undef("No caller defined");
        frame_set(x, f, t->sym_caller, caller);
    }
    struct jv rest = dict_make(x);
    for (size_t i = 0; i < args->nkw; i++) {
        if (used[i]) continue;
        if (!n->uses_kwargs) jx_fail(x, "the macro takes no such keyword argument");
        dict_set(x, rest.u.d, args->kw[i].key, args->kw[i].value);
    }
    if (n->uses_kwargs) frame_set(x, f, t->sym_kwargs, rest);
    if (next < args->n && !n->uses_varargs) jx_fail(x, "the macro takes fewer arguments");
    if (!n->uses_varargs) return;
    struct jv more = list_make(x, J_TUPLE, 0);
    for (; next < args->n; next++) list_add(x, more.u.l, args->v[next]);
    frame_set(x, f, t->sym_varargs, more);
}

struct jv call_macro(struct jx *x, struct jmacro *m, const struct jargs *args) {
    if (++x->calls > CAP_TEMPLATE_DEPTH) jx_fail(x, "recursion deeper than %d", CAP_TEMPLATE_DEPTH);
    struct frame *f = frame_new(x, m->closure);
    bind_macro(x, f, m->node, args);
    frame_hide(x, f, &m->node->hidden);
    struct jv text = capture(x, f, m->node->body);
    x->calls--;
    return text;
}

static struct jv macro_value(struct jx *x, struct frame *f, const struct node *n) {
    struct jmacro *m = jx_alloc(x, sizeof *m);
    *m = (struct jmacro){.node = n, .closure = f, .is_caller = n->kind == N_CALL_BLOCK};
    return (struct jv){J_MACRO, {.macro = m}};
}

/* The call with one keyword more: the block as `caller`. */
static void exec_call_block(struct jx *x, struct frame *f, const struct node *n) {
    struct node call = *n->a, caller = {.kind = N_NAME, .place = n->place};
    struct node constant = {.kind = N_CONST, .place = n->place, .value = macro_value(x, f, n)};
    caller.value = str_text(x, "caller");
    caller.a = &constant;
    caller.next = call.kwargs;
    call.kwargs = &caller;
    struct jv text = eval(x, f, &call);
    x->at = n; /* not into this function's own nodes */
    add_str(x->out, text);
}

/* A filter chain whose innermost value is the text of a block. */
static struct jv filter_text(struct jx *x, struct frame *f, const struct node *chain,
                             struct jv text) {
    struct node constant = {.kind = N_CONST, .place = chain->place, .value = text};
    struct node copy = *chain;
    if (chain->a) {
        constant.value = filter_text(x, f, chain->a, text);
    }
    copy.a = &constant;
    text = eval(x, f, &copy);
    x->at = chain;
    return text;
}

static void exec_set_block(struct jx *x, struct frame *f, const struct node *n) {
    struct jv text = capture(x, scope_new(x, f, &n->hidden), n->body);
    if (x->flow != FLOW_NEXT) return; /* a break leaves the text behind */
    assign(x, f, n->a, n->b ? filter_text(x, f, n->b, text) : text);
}

static void exec_filter_block(struct jx *x, struct frame *f, const struct node *n) {
    struct jv text = capture(x, scope_new(x, f, &n->hidden), n->body);
    if (x->flow != FLOW_NEXT) return;
    text = filter_text(x, f, n->b, text);
    if (text.type != J_STR) jx_fail(x, "a filter block gave %s, not text", type_name(text));
    add_str(x->out, text);
}

static void exec_with(struct jx *x, struct frame *f, const struct node *n) {
    struct frame *inner = scope_new(x, f, &n->hidden);
    for (const struct node *t = n->list; t; t = t->next->next) {
        assign(x, inner, t, eval(x, f, t->next));
    }
    exec_list(x, inner, n->body);
}

static void exec_if(struct jx *x, struct frame *f, const struct node *n) {
    for (; n; n = n->c) {
        if (is_true(x, eval(x, f, n->a))) {
            exec_list(x, f, n->body);
            return;
        }
        if (n->c == NULL) exec_list(x, f, n->else_);
    }
}

static void exec(struct jx *x, struct frame *f, const struct node *n) {
    switch (n->kind) {
    case N_DATA:
        buf_add(x->out, n->value.u.s->p, n->value.u.s->n, false);
        return;
    case N_OUTPUT:
        for (const struct node *c = n->list; c; c = c->next) add_str(x->out, eval(x, f, c));
        return;
    case N_IF:
        exec_if(x, f, n);
        return;
    case N_FOR:
        run_loop(x, f, n, eval(x, f, n->b), 0);
        return;
    case N_SET:
        assign(x, f, n->a, eval(x, f, n->b));
        return;
    case N_SET_BLOCK:
        exec_set_block(x, f, n);
        return;
    case N_MACRO:
        frame_set(x, f, n->symbol, macro_value(x, f, n));
        return;
    case N_CALL_BLOCK:
        exec_call_block(x, f, n);
        return;
    case N_FILTER_BLOCK:
        exec_filter_block(x, f, n);
        return;
    case N_WITH:
        exec_with(x, f, n);
        return;
    case N_SCOPE:
        exec_list(x, scope_new(x, f, &n->hidden), n->body);
        return;
    case N_BLOCK:
        exec_list(x, scope_new(x, x->root, &n->hidden), n->body);
        return;
    case N_BREAK:
        x->flow = FLOW_BREAK;
        return;
    case N_CONTINUE:
        x->flow = FLOW_CONTINUE;
        return;
    default:
        jx_fail(x, "templates cannot load other templates");
    }
}

void exec_list(struct jx *x, struct frame *f, const struct node *n) {
    if (++x->depth > CAP_TEMPLATE_STACK) jx_fail(x, "nested too deeply while rendering");
    for (; n && x->flow == FLOW_NEXT; n = n->next) {
        x->at = n;
        jx_steps(x, 1);
        exec(x, f, n);
    }
    x->depth--;
}

/* ---- the rendering ---- */

static void add_run(struct jinja_output *out, size_t bytes, bool message) {
    if (out->run_count == out->run_capacity) {
        out->run_capacity = out->run_capacity ? out->run_capacity * 2 : 64;
        out->runs = mem_grow(out->runs, out->run_capacity * sizeof *out->runs);
    }
    out->runs[out->run_count++] = (struct jinja_run){bytes, message};
}

static void write_output(struct jinja_output *out, const struct jbuf *b) {
    str_add(&out->text, b->p ? b->p : "", b->n);
    if (b->marks == NULL && b->n > 0) add_run(out, b->n, b->message);
    for (size_t at = 0; b->marks && at < b->n;) {
        uint8_t mark = b->marks[at];
        const uint8_t *change = memchr(b->marks + at, !mark, b->n - at);
        size_t run = change ? (size_t)(change - (b->marks + at)) : b->n - at;
        add_run(out, run, mark);
        at += run;
    }
}

static void trust_roles(struct jx *x, struct jv messages, const char *const *roles) {
    struct jv key = str_text(x, "role");
    for (size_t i = 0; messages.type == J_LIST && i < messages.u.l->n; i++) {
        struct jv m = messages.u.l->v[i], *role = m.type == J_DICT ? dict_get(x, m.u.d, key) : NULL;
        for (const char *const *r = roles; role && *r; r++) {
            if (str_is(*role, *r)) *role = str_text(x, *r);
        }
    }
}

static void define_variables(struct jx *x, struct frame *context, const struct jinja_var *vars,
                             size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (vars[i].value == NULL) continue;
        struct slice name = slice_of(vars[i].name);
        for (size_t k = 0; k < x->t->symbol_count; k++) { /* others cannot be read */
            if (!slice_equal(x->t->symbols[k], name)) continue;
            struct jv value = value_from_json(x, vars[i].value, vars[i].message, 0);
            if (vars[i].roles) trust_roles(x, value, vars[i].roles);
            frame_set(x, context, (int)k, value);
            break;
        }
    }
}

int jinja_render(const struct jinja *t, const struct jinja_var *vars, size_t var_count,
                 const struct jinja_clock *clock, struct jinja_output *out, struct imp_error *err) {
    struct imp_error unheard;
    struct jx *x = mem_zero(1, sizeof *x);
    struct jbuf *b = mem_zero(1, sizeof *b);
    *out = (struct jinja_output){0};
    x->t = t;
    x->err = err ? err : &unheard;
    x->clock = clock;
    x->out = b;
    buf_init(b, x);
    int rc = IMP_ERR_TEMPLATE;
    if (setjmp(x->fail) == 0) {
        struct frame *context = frame_new(x, NULL);
        define_variables(x, context, vars, var_count);
        x->root = scope_new(x, context, &t->hidden);
        exec_list(x, x->root, t->body);
        write_output(out, b);
        rc = 0;
    }
    arena_free(&x->arena);
    free(b);
    free(x);
    return rc;
}

void jinja_output_free(struct jinja_output *out) {
    str_free(&out->text);
    free(out->runs);
    *out = (struct jinja_output){0};
}
