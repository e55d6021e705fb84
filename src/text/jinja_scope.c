/* Which names are undefined when a scope begins.
 *
 * jinja2 compiles names to local variables. A name that a scope sets, outside any if, before it
 * reads it there is such a variable from the scope's first line, undefined until it is set: scopes
 * inside that read it earlier do not see the variable of the rendering of that name. A name that an
 * outer scope mentions, or that is read first, keeps its outer value until then. */
#include <string.h>

#include "base/caps.h"
#include "text/jinja_internal.h"

struct scope {
    struct scope *parent;
    bool *mentioned; /* one per symbol */
    int *list;       /* the symbols mentioned */
    int count;
    struct hidden hidden;
    int hidden_cap;
};

struct analysis {
    struct parser *p;
    bool *rows[CAP_TEMPLATE_DEPTH + 2]; /* `mentioned` by depth of scope, all false between uses */
    int *lists[CAP_TEMPLATE_DEPTH + 2];
    int scopes, depth;
};

static void mention(struct scope *s, int symbol) {
    if (s->mentioned[symbol]) return;
    s->mentioned[symbol] = true;
    s->list[s->count++] = symbol;
}

static bool known(const struct scope *s, int symbol) {
    for (; s; s = s->parent) {
        if (s->mentioned[symbol]) return true;
    }
    return false;
}

static void load(struct scope *s, int symbol) {
    if (!known(s, symbol)) mention(s, symbol);
}

static void store(struct analysis *a, struct scope *s, int symbol, bool in_if) {
    bool first = !known(s, symbol);
    mention(s, symbol);
    if (!first || in_if) return;
    if (s->hidden.n == s->hidden_cap) {
        int cap = s->hidden_cap ? s->hidden_cap * 2 : 4;
        int *v = arena_array(a->p->arena, (size_t)cap, sizeof *v);
        if (s->hidden.n) memcpy(v, s->hidden.v, (size_t)s->hidden.n * sizeof *v);
        s->hidden.v = v;
        s->hidden_cap = cap;
    }
    s->hidden.v[s->hidden.n++] = symbol;
}

/* Filters that see the rendering; jinja2 never runs them early. */
static bool needs_context(const struct node *n) {
    static const char *const names[] = {"map", "select", "reject", "selectattr", "rejectattr"};
    for (size_t i = 0; n->kind == N_FILTER && i < sizeof names / sizeof *names; i++) {
        if (str_is(n->value, names[i])) return true;
    }
    return n->kind == N_CALL || n->kind == N_NAME || n->kind == N_NSREF;
}

/* What stands behind an operator of a comparison. */
static bool is_operand(const struct node *n) {
    return n->kind == N_COMPARE && n->list == NULL;
}

/* jinja2 computes constants when it compiles, and there a slice of what has none is undefined where
 * it would be an error in a rendering. */
static void be_lenient(struct node *n) {
    if (n == NULL) return;
    if (n->kind == N_ITEM && n->b->kind == N_SLICE) n->flag = true;
    if (is_operand(n)) be_lenient(n->a);
    if (n->kind != N_LIST && n->kind != N_TUPLE && n->kind != N_DICT) return;
    for (struct node *c = n->list; c; c = c->next) be_lenient(c);
}

/* True: a constant. */
static bool visit_expr(struct analysis *a, struct scope *s, struct node *n) {
    if (n == NULL) return true;
    if (++a->depth > CAP_TEMPLATE_STACK)
        parse_fail(a->p, n->place, "an expression nested too deeply");
    if (n->kind == N_NAME || n->kind == N_NSREF) load(s, n->symbol);
    bool constant = !needs_context(n), early = false;
    if (n->kind != N_NAME) constant &= visit_expr(a, s, n->a);
    constant &= visit_expr(a, s, n->b);
    constant &= visit_expr(a, s, n->c);
    for (struct node *c = n->list; c; c = c->next) {
        bool one = visit_expr(a, s, c);
        if (one && n->kind == N_OUTPUT) be_lenient(c);
        constant &= one;
    }
    for (struct node *c = n->kwargs; c; c = c->next) constant &= visit_expr(a, s, c->a);
    if (n->dyn_args || n->dyn_kwargs) constant = false;
    visit_expr(a, s, n->dyn_args);
    visit_expr(a, s, n->dyn_kwargs);
    early =
        constant && !is_operand(n) && n->kind != N_LIST && n->kind != N_TUPLE && n->kind != N_DICT;
    if (early) {
        be_lenient(n->a);
        be_lenient(n->b);
        be_lenient(n->c);
        for (struct node *c = n->list; c; c = c->next) be_lenient(c);
    }
    a->depth--;
    return constant;
}

static void visit_target(struct analysis *a, struct scope *s, const struct node *n, bool in_if,
                         bool parameter) {
    if (n->kind == N_NSREF) {
        load(s, n->symbol);
    } else if (n->kind == N_NAME && parameter) {
        mention(s, n->symbol);
    } else if (n->kind == N_NAME) {
        store(a, s, n->symbol, in_if);
    }
    for (const struct node *c = n->list; c; c = c->next) visit_target(a, s, c, in_if, parameter);
}

static void visit_statements(struct analysis *a, struct scope *s, struct node *n, bool in_if);
static void analyse_inside(struct analysis *a, struct scope *s, struct node *n);

/* A scope of its own inside `parent`: its statements, then the scopes inside them. */
static void open_scope(struct analysis *a, struct scope *s, struct scope *parent) {
    size_t symbols = a->p->t->symbol_count;
    if (a->scopes == CAP_TEMPLATE_DEPTH + 1)
        parse_fail(a->p, (struct place){1, 1}, "scopes nested too deeply");
    int at = a->scopes++;
    if (a->rows[at] == NULL) {
        a->rows[at] = arena_array(a->p->arena, symbols, sizeof(bool));
        a->lists[at] = arena_array(a->p->arena, symbols, sizeof(int));
    }
    *s = (struct scope){.parent = parent, .mentioned = a->rows[at], .list = a->lists[at]};
}

static void close_scope(struct analysis *a, struct scope *s) {
    for (int i = 0; i < s->count; i++) s->mentioned[s->list[i]] = false;
    a->scopes--;
}

static struct hidden scope_of(struct analysis *a, struct scope *parent, struct node *owner,
                              struct node *body) {
    struct scope s;
    open_scope(a, &s, parent);
    if (owner && owner->kind == N_FOR) {
        mention(&s, a->p->t->sym_loop);
        visit_target(a, &s, owner->a, false, true);
    }
    if (owner && (owner->kind == N_MACRO || owner->kind == N_CALL_BLOCK)) {
        for (struct node *c = owner->list; c; c = c->next) mention(&s, c->symbol);
        for (struct node *c = owner->list; c; c = c->next) visit_expr(a, &s, c->a);
        if (owner->uses_varargs) mention(&s, a->p->t->sym_varargs);
        if (owner->uses_kwargs) mention(&s, a->p->t->sym_kwargs);
        if (owner->uses_caller) mention(&s, a->p->t->sym_caller);
    }
    if (owner && owner->kind == N_FILTER_BLOCK) visit_expr(a, &s, owner->b);
    if (owner && owner->kind == N_WITH) {
        for (struct node *c = owner->list; c; c = c->next->next)
            visit_target(a, &s, c, false, true);
    }
    visit_statements(a, &s, body, false);
    analyse_inside(a, &s, body);
    close_scope(a, &s);
    return s.hidden;
}

static void visit_if(struct analysis *a, struct scope *s, struct node *n) {
    for (; n; n = n->c) {
        visit_expr(a, s, n->a);
        visit_statements(a, s, n->body, true);
        visit_statements(a, s, n->else_, true);
    }
}

/* What statements mention in their own scope. */
static void visit_statements(struct analysis *a, struct scope *s, struct node *n, bool in_if) {
    for (; n; n = n->next) {
        if (n->kind == N_OUTPUT) visit_expr(a, s, n);
        if (n->kind == N_IF) visit_if(a, s, n);
        if (n->kind == N_FOR) visit_expr(a, s, n->b);
        if (n->kind == N_SET) visit_expr(a, s, n->b);
        if (n->kind == N_SET || n->kind == N_SET_BLOCK) visit_target(a, s, n->a, in_if, false);
        if (n->kind == N_MACRO) store(a, s, n->symbol, in_if);
        if (n->kind == N_CALL_BLOCK) visit_expr(a, s, n->a);
        if (n->kind == N_FILTER_BLOCK) visit_expr(a, s, n->b);
        if (n->kind != N_WITH) continue;
        for (struct node *c = n->list; c; c = c->next->next) visit_expr(a, s, c->next);
    }
}

/* The scopes that statements open. */
static void analyse_inside(struct analysis *a, struct scope *s, struct node *n) {
    for (; n; n = n->next) {
        switch (n->kind) {
        case N_IF:
            for (struct node *branch = n; branch; branch = branch->c) {
                analyse_inside(a, s, branch->body);
                analyse_inside(a, s, branch->else_);
            }
            break;
        case N_FOR:
            n->hidden = scope_of(a, s, n, n->body);
            n->else_hidden = scope_of(a, s, NULL, n->else_);
            break;
        case N_BLOCK: /* sees the root only */
        case N_MACRO:
        case N_CALL_BLOCK:
        case N_SET_BLOCK:
        case N_FILTER_BLOCK:
        case N_WITH:
        case N_SCOPE:
            n->hidden = scope_of(a, s, n, n->body);
            break;
        default:
            break;
        }
    }
}

void analyse_scopes(struct parser *p) {
    struct analysis *a = arena_alloc(p->arena, sizeof *a);
    a->p = p;
    p->t->hidden = scope_of(a, NULL, NULL, p->t->body);
}
