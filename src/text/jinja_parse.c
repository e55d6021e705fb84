/* Statements: tokens to tree. Expressions are in jinja_parse_expr.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "text/jinja_internal.h"

/* The name is cut before the place is. */
void place_name(const struct jinja *t, struct place place, char *out, size_t size) {
    snprintf(out, size, "%.*s: line %d, column %d", (int)size - 48, t->name, place.line,
             place.column);
}

void parse_fail(struct parser *p, struct place place, const char *fmt, ...) {
    char message[256], where[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    place_name(p->t, place, where, sizeof where);
    error_set(p->err, IMP_ERR_TEMPLATE, where, "%s", message);
    longjmp(p->fail, 1);
}

void parse_room(struct parser *p, struct place place) {
    if (p->arena->used_bytes > CAP_TEMPLATE_MEMORY) {
        parse_fail(p, place, "the template needs more than %u bytes", CAP_TEMPLATE_MEMORY);
    }
}

struct node *node_new(struct parser *p, enum node_kind kind, struct place place) {
    parse_room(p, place);
    struct node *n = arena_alloc(p->arena, sizeof *n);
    n->kind = kind;
    n->place = place;
    return n;
}

int parse_symbol(struct parser *p, struct slice name) {
    struct jinja *t = p->t;
    const int64_t *known = map_find(&p->symbols, name);
    if (known) return (int)*known;
    if (t->symbol_count == CAP_TEMPLATE_NAMES) {
        parse_fail(p, parse_peek(p, 0)->place, "more than %d names", CAP_TEMPLATE_NAMES);
    }
    if (t->symbol_count == p->symbol_cap) {
        size_t cap = p->symbol_cap ? p->symbol_cap * 2 : 64;
        struct slice *v = arena_array(p->arena, cap, sizeof *v);
        if (t->symbol_count) memcpy(v, t->symbols, t->symbol_count * sizeof *v);
        t->symbols = v;
        p->symbol_cap = cap;
    }
    struct slice own = {arena_strndup(p->arena, name.data, name.size), name.size};
    t->symbols[t->symbol_count] = own;
    map_add(&p->symbols, own, (int64_t)t->symbol_count);
    return (int)t->symbol_count++;
}

const struct token *parse_peek(struct parser *p, size_t ahead) {
    size_t at = p->at + ahead;
    return &p->tokens.v[at < p->tokens.n ? at : p->tokens.n - 1];
}

static bool token_is(const struct token *t, const char *text) {
    return (t->kind == T_NAME || t->kind == T_OP) && slice_equal(t->text, slice_of(text));
}

bool parse_at(struct parser *p, const char *text) {
    return token_is(parse_peek(p, 0), text);
}

bool parse_skip(struct parser *p, const char *text) {
    if (!parse_at(p, text)) return false;
    p->at++;
    return true;
}

static void unexpected(struct parser *p, const char *wanted) {
    const struct token *t = parse_peek(p, 0);
    static const char *const names[] = {"end of template",  "text",
                                        "start of a tag",   "end of a tag",
                                        "start of a value", "end of a value"};
    struct slice got = t->kind <= T_VAR_END ? slice_of(names[t->kind]) : t->text;
    parse_fail(p, t->place, "expected %s, got '%.*s'", wanted, (int)(got.size > 40 ? 40 : got.size),
               got.data);
}

const struct token *parse_expect_name(struct parser *p) {
    const struct token *t = parse_peek(p, 0);
    if (t->kind != T_NAME) unexpected(p, "a name");
    p->at++;
    return t;
}

void parse_expect(struct parser *p, const char *text) {
    if (!parse_skip(p, text)) unexpected(p, text);
}

static void expect_kind(struct parser *p, enum token_kind kind, const char *wanted) {
    if (parse_peek(p, 0)->kind != kind) unexpected(p, wanted);
    p->at++;
}

void parse_enter(struct parser *p) {
    if (++p->depth > CAP_TEMPLATE_DEPTH) {
        parse_fail(p, parse_peek(p, 0)->place, "nested deeper than %d levels", CAP_TEMPLATE_DEPTH);
    }
}

static struct node **append(struct node **tail, struct node *n) {
    *tail = n;
    while (*tail) tail = &(*tail)->next;
    return tail;
}

static struct node *parse_statement(struct parser *p);

static bool at_one_of(struct parser *p, const char *const *ends) {
    for (; ends && *ends; ends++) {
        if (parse_at(p, *ends)) return true;
    }
    return false;
}

/* Unknown filters and tests are errors at once, but under an if, where they fail when reached. */
static void check_unknown(struct parser *p) {
    const struct node *n = p->unknown;
    p->unknown = NULL;
    if (n == NULL || p->soft) return;
    struct slice name = str_slice(n->value);
    parse_fail(p, n->place, "no %s named '%.*s'", n->kind == N_FILTER ? "filter" : "test",
               (int)(name.size > 40 ? 40 : name.size), name.data);
}

/* Statements up to a tag in `ends` (its name is the next token), or to the end of the template. */
static struct node *parse_body(struct parser *p, const char *const *ends) {
    struct node *first = NULL, **tail = &first;
    parse_enter(p);
    for (;;) {
        const struct token *t = parse_peek(p, 0);
        check_unknown(p);
        if (t->kind == T_EOF) {
            if (ends) parse_fail(p, t->place, "the template ends before '%s'", ends[0]);
            break;
        }
        p->at++;
        if (t->kind == T_DATA) {
            struct node *n = node_new(p, N_DATA, t->place);
            struct jstr *s = arena_alloc(p->arena, sizeof *s);
            *s = (struct jstr){t->text.data, NULL, t->text.size, SIZE_MAX, false, false};
            n->value = (struct jv){J_STR, {.s = s}};
            tail = append(tail, n);
        } else if (t->kind == T_VAR_BEGIN) {
            struct node *n = node_new(p, N_OUTPUT, t->place);
            n->list = parse_tuple(p, true, NULL, false);
            expect_kind(p, T_VAR_END, "}}");
            tail = append(tail, n);
        } else {
            if (at_one_of(p, ends)) break;
            tail = append(tail, parse_statement(p));
            expect_kind(p, T_BLOCK_END, "%}");
        }
    }
    p->depth--;
    return first;
}

struct node *parse_statements(struct parser *p, const char *const *ends) {
    parse_skip(p, ":");
    expect_kind(p, T_BLOCK_END, "%}");
    return parse_body(p, ends);
}

static struct node *body_until(struct parser *p, const char *end) {
    const char *const ends[] = {end, NULL};
    struct node *body = parse_statements(p, ends);
    p->at++;
    return body;
}

/* A body in a scope of its own, where unknown filters fail at once again. */
static struct node *inner_body(struct parser *p, const char *end) {
    bool soft = p->soft;
    p->soft = false;
    struct node *body = body_until(p, end);
    p->soft = soft;
    return body;
}

static struct node *parse_for(struct parser *p, struct node *n) {
    static const char *const ends[] = {"endfor", "else", NULL};
    n->kind = N_FOR;
    n->a = parse_target(p, "in", false);
    parse_expect(p, "in");
    n->b = parse_tuple(p, false, "recursive", false);
    if (parse_skip(p, "if")) n->c = parse_expression(p, true);
    n->flag = parse_skip(p, "recursive");
    bool soft = p->soft;
    p->soft = false;
    p->loops++;
    n->body = parse_statements(p, ends);
    p->loops--;
    if (parse_skip(p, "else")) {
        n->else_ = body_until(p, "endfor");
    } else {
        p->at++;
    }
    p->soft = soft;
    return n;
}

static struct node *parse_if(struct parser *p, struct node *n) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    bool soft = p->soft;
    p->soft = true;
    for (struct node *branch = n;;) {
        branch->kind = N_IF;
        branch->a = parse_tuple(p, false, NULL, false);
        p->unknown = NULL;
        branch->body = parse_statements(p, ends);
        if (parse_skip(p, "elif")) {
            branch->c = node_new(p, N_IF, parse_peek(p, 0)->place);
            branch = branch->c;
            continue;
        }
        if (parse_skip(p, "else")) {
            branch->else_ = body_until(p, "endif");
        } else {
            p->at++;
        }
        break;
    }
    p->soft = soft;
    return n;
}

static struct node *parse_set(struct parser *p, struct node *n) {
    n->a = parse_target(p, NULL, true);
    if (parse_skip(p, "=")) {
        n->kind = N_SET;
        n->b = parse_tuple(p, true, NULL, false);
        return n;
    }
    n->kind = N_SET_BLOCK;
    n->b = parse_filter_chain(p, NULL, false);
    n->body = inner_body(p, "endset");
    return n;
}

static struct node *parse_with(struct parser *p, struct node *n) {
    struct node **tail = &n->list;
    n->kind = N_WITH;
    while (parse_peek(p, 0)->kind != T_BLOCK_END) {
        if (n->list) parse_expect(p, ",");
        tail = append(tail, parse_target(p, NULL, false));
        parse_expect(p, "=");
        tail = append(tail, parse_expression(p, true));
    }
    n->body = inner_body(p, "endwith");
    return n;
}

/* Parameters as a list of names; a: the default. */
static void parse_signature(struct parser *p, struct node *n) {
    struct node **tail = &n->list;
    bool defaults = false;
    parse_expect(p, "(");
    while (!parse_at(p, ")")) {
        if (n->list) parse_expect(p, ",");
        struct node *name = parse_name_target(p);
        for (struct node *o = n->list; o; o = o->next) {
            if (o->symbol == name->symbol) parse_fail(p, name->place, "a parameter twice");
        }
        if (parse_skip(p, "=")) {
            name->a = parse_expression(p, true);
            defaults = true;
        } else if (defaults) {
            parse_fail(p, name->place, "non-default argument follows default argument");
        }
        tail = append(tail, name);
    }
    p->at++;
}

/* A body that is a function: what it reads of varargs, kwargs and caller decides what it takes. */
static void function_body(struct parser *p, struct node *n, const char *end) {
    struct node *outer = p->macro;
    int loops = p->loops;
    p->macro = n;
    n->c = outer;
    p->loops = 0;
    n->body = inner_body(p, end);
    p->loops = loops;
    p->macro = outer;
}

static struct node *parse_macro(struct parser *p, struct node *n) {
    n->kind = N_MACRO;
    n->symbol = parse_name_target(p)->symbol;
    parse_signature(p, n);
    function_body(p, n, "endmacro");
    for (struct node *o = n->list; o; o = o->next) {
        if (o->symbol == p->t->sym_caller && o->a == NULL) {
            parse_fail(p, n->place, "the caller argument needs a default");
        }
    }
    return n;
}

static struct node *parse_call_block(struct parser *p, struct node *n) {
    n->kind = N_CALL_BLOCK;
    if (parse_at(p, "(")) parse_signature(p, n);
    n->a = parse_expression(p, true);
    if (n->a->kind != N_CALL) parse_fail(p, n->place, "expected a call");
    n->symbol = p->t->sym_caller;
    function_body(p, n, "endcall");
    return n;
}

static struct node *parse_block(struct parser *p, struct node *n) {
    const struct token *name = parse_expect_name(p);
    n->kind = N_BLOCK;
    parse_skip(p, "scoped");
    parse_skip(p, "required");
    function_body(p, n, "endblock");
    const struct token *t = parse_peek(p, 0);
    if (t->kind == T_NAME && slice_equal(t->text, name->text)) p->at++;
    return n;
}

static struct node *parse_print(struct parser *p, struct node *n) {
    struct node **tail = &n->list;
    n->kind = N_OUTPUT;
    while (parse_peek(p, 0)->kind != T_BLOCK_END) {
        if (n->list) parse_expect(p, ",");
        tail = append(tail, parse_expression(p, true));
    }
    return n;
}

/* include, import, from, extends: accepted where they stand, refused when they are reached. */
static struct node *parse_refused(struct parser *p, struct node *n) {
    n->kind = N_REFUSED;
    while (parse_peek(p, 0)->kind != T_BLOCK_END && parse_peek(p, 0)->kind != T_EOF) p->at++;
    return n;
}

static struct node *parse_loop_control(struct parser *p, struct node *n, enum node_kind kind) {
    n->kind = kind;
    if (p->loops == 0) parse_fail(p, n->place, "break or continue outside a loop");
    return n;
}

static struct node *parse_statement(struct parser *p) {
    const struct token *t = parse_peek(p, 0);
    if (t->kind != T_NAME) unexpected(p, "a tag name");
    struct node *n = node_new(p, N_SCOPE, t->place);
    p->at++;
    if (token_is(t, "for")) return parse_for(p, n);
    if (token_is(t, "if")) return parse_if(p, n);
    if (token_is(t, "set")) return parse_set(p, n);
    if (token_is(t, "macro")) return parse_macro(p, n);
    if (token_is(t, "call")) return parse_call_block(p, n);
    if (token_is(t, "with")) return parse_with(p, n);
    if (token_is(t, "print")) return parse_print(p, n);
    if (token_is(t, "block")) return parse_block(p, n);
    if (token_is(t, "break")) return parse_loop_control(p, n, N_BREAK);
    if (token_is(t, "continue")) return parse_loop_control(p, n, N_CONTINUE);
    if (token_is(t, "generation")) { /* marks what training learns from; a scope of its own */
        function_body(p, n, "endgeneration");
        return n;
    }
    if (token_is(t, "filter")) {
        n->kind = N_FILTER_BLOCK;
        n->b = parse_filter_chain(p, NULL, true);
        n->body = inner_body(p, "endfilter");
        return n;
    }
    if (token_is(t, "autoescape")) {
        const struct node *on = parse_expression(p, true);
        if (on->kind != N_CONST || on->value.type != J_BOOL || on->value.u.b) {
            parse_fail(p, t->place, "autoescape is not supported");
        }
        n->body = inner_body(p, "endautoescape");
        return n;
    }
    if (token_is(t, "include") || token_is(t, "import") || token_is(t, "from") ||
        token_is(t, "extends")) {
        return parse_refused(p, n);
    }
    parse_fail(p, t->place, "unknown tag '%.*s'", (int)(t->text.size > 40 ? 40 : t->text.size),
               t->text.data);
}

int jinja_parse(const char *source, size_t size, const char *name, struct jinja **out,
                struct imp_error *err) {
    if (size > CAP_TEMPLATE_BYTES) {
        return error_set(err, IMP_ERR_TEMPLATE, name, "a template of more than %u bytes",
                         CAP_TEMPLATE_BYTES);
    }
    if (!utf8_valid(source, size)) {
        return error_set(err, IMP_ERR_TEMPLATE, name, "the template is not valid UTF-8");
    }
    struct jinja *t = mem_zero(1, sizeof *t);
    struct parser *p = mem_zero(1, sizeof *p);
    t->name = mem_strndup(name, strlen(name));
    p->t = t;
    p->arena = &t->arena;
    p->err = err;
    map_create(&p->symbols, 64);
    if (setjmp(p->fail)) {
        map_free(&p->symbols);
        free(p);
        jinja_free(t);
        return IMP_ERR_TEMPLATE;
    }
    jinja_lex(p, (struct slice){source, size});
    t->sym_loop = parse_symbol(p, slice_of("loop"));
    t->sym_caller = parse_symbol(p, slice_of("caller"));
    t->sym_varargs = parse_symbol(p, slice_of("varargs"));
    t->sym_kwargs = parse_symbol(p, slice_of("kwargs"));
    t->body = parse_body(p, NULL);
    analyse_scopes(p);
    map_free(&p->symbols);
    free(p);
    *out = t;
    return 0;
}

void jinja_free(struct jinja *t) {
    if (t == NULL) return;
    arena_free(&t->arena);
    free(t->name);
    free(t);
}
