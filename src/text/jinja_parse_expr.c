/* Expressions: tokens to tree, with Jinja's levels of binding. */
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "text/jinja_internal.h"

static struct node *parse_unary(struct parser *p, bool with_filters);
static struct node *parse_primary(struct parser *p, bool with_namespace);

static struct jv const_str(struct parser *p, struct slice text) {
    struct jstr *s = arena_alloc(p->arena, sizeof *s);
    *s = (struct jstr){text.data, NULL, text.size, SIZE_MAX, false, false};
    return (struct jv){J_STR, {.s = s}};
}

static struct node *two(struct parser *p, enum node_kind kind, struct node *a, struct node *b) {
    struct node *n = node_new(p, kind, a->place);
    n->a = a;
    n->b = b;
    return n;
}

struct level_op {
    const char *text;
    enum op op;
};

struct operator{
    enum op op;
    struct place place;
};

static bool match_op(struct parser *p, const struct level_op *ops, struct operator* out) {
    out->place = parse_peek(p, 0)->place;
    for (; ops->text; ops++) {
        if (parse_peek(p, 0)->kind == T_OP && parse_skip(p, ops->text)) {
            out->op = ops->op;
            return true;
        }
    }
    return false;
}

static struct node *binary_node(struct parser *p, const struct operator* op, struct node *a,
                                struct node *b) {
    struct node *n = node_new(p, N_BINARY, op->place);
    n->op = op->op;
    n->a = a;
    n->b = b;
    return n;
}

/* A chain of equal binding is a tree that leans left: its length is depth too when it is walked. */
static void chain_longer(struct parser *p, int *length) {
    if (++*length > CAP_TEMPLATE_STACK / 4) {
        parse_fail(p, parse_peek(p, 0)->place, "an expression of too many parts");
    }
}

static struct node *parse_pow(struct parser *p) {
    static const struct level_op ops[] = {{"**", OP_POW}, {NULL, 0}};
    struct node *left = parse_unary(p, true);
    struct operator op;
    for (int length = 0; match_op(p, ops, &op);) {
        left = binary_node(p, &op, left, parse_unary(p, true));
        chain_longer(p, &length);
    }
    return left;
}

static struct node *parse_product(struct parser *p) {
    static const struct level_op ops[] = {
        {"*", OP_MUL}, {"/", OP_DIV}, {"//", OP_FLOORDIV}, {"%", OP_MOD}, {NULL, 0}};
    struct node *left = parse_pow(p);
    struct operator op;
    for (int length = 0; match_op(p, ops, &op);) {
        left = binary_node(p, &op, left, parse_pow(p));
        chain_longer(p, &length);
    }
    return left;
}

static struct node *parse_concat(struct parser *p) {
    struct node *first = parse_product(p);
    if (!parse_at(p, "~")) return first;
    struct node *n = node_new(p, N_CONCAT, first->place), *last = first;
    n->list = first;
    while (parse_skip(p, "~")) {
        last->next = parse_product(p);
        last = last->next;
    }
    return n;
}

static struct node *parse_sum(struct parser *p) {
    static const struct level_op ops[] = {{"+", OP_ADD}, {"-", OP_SUB}, {NULL, 0}};
    struct node *left = parse_concat(p);
    struct operator op;
    for (int length = 0; match_op(p, ops, &op);) {
        left = binary_node(p, &op, left, parse_concat(p));
        chain_longer(p, &length);
    }
    return left;
}

static bool match_compare(struct parser *p, struct operator* op) {
    static const struct level_op ops[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<", OP_LT}, {"<=", OP_LE},
                                          {">", OP_GT},  {">=", OP_GE}, {NULL, 0}};
    if (match_op(p, ops, op)) return true;
    if (parse_skip(p, "in")) {
        op->op = OP_IN;
        return true;
    }
    const struct token *next = parse_peek(p, 1);
    if (parse_at(p, "not") && next->kind == T_NAME && slice_equal(next->text, slice_of("in"))) {
        p->at += 2;
        op->op = OP_NOT_IN;
        return true;
    }
    return false;
}

static struct node *parse_compare(struct parser *p) {
    struct node *first = parse_sum(p), *n = NULL, **tail = NULL;
    struct operator op;
    while (match_compare(p, &op)) {
        if (n == NULL) {
            n = node_new(p, N_COMPARE, first->place);
            n->a = first;
            tail = &n->list;
        }
        struct node *operand = node_new(p, N_COMPARE, op.place);
        operand->op = op.op;
        operand->a = parse_sum(p);
        *tail = operand;
        tail = &operand->next;
    }
    return n ? n : first;
}

static struct node *parse_not(struct parser *p) {
    if (!parse_at(p, "not")) return parse_compare(p);
    struct node *n = node_new(p, N_NOT, parse_peek(p, 0)->place);
    p->at++;
    parse_enter(p);
    n->a = parse_not(p);
    p->depth--;
    return n;
}

static struct node *parse_and(struct parser *p) {
    struct node *left = parse_not(p);
    for (int length = 0; parse_skip(p, "and"); chain_longer(p, &length)) {
        left = two(p, N_AND, left, parse_not(p));
    }
    return left;
}

static struct node *parse_or(struct parser *p) {
    struct node *left = parse_and(p);
    for (int length = 0; parse_skip(p, "or"); chain_longer(p, &length)) {
        left = two(p, N_OR, left, parse_and(p));
    }
    return left;
}

struct node *parse_expression(struct parser *p, bool with_condition) {
    parse_enter(p);
    const struct node *unknown = p->unknown;
    struct node *n = parse_or(p);
    for (int length = 0; with_condition && parse_skip(p, "if"); chain_longer(p, &length)) {
        struct node *cond = two(p, N_COND, n, parse_or(p));
        if (parse_skip(p, "else")) cond->c = parse_expression(p, true);
        n = cond;
        p->unknown = unknown; /* inside a condition unknown filters fail when they are used */
    }
    p->depth--;
    return n;
}

static bool at_tuple_end(struct parser *p, const char *end) {
    enum token_kind k = parse_peek(p, 0)->kind;
    return k == T_VAR_END || k == T_BLOCK_END || parse_at(p, ")") || (end && parse_at(p, end));
}

static struct node *finish_tuple(struct parser *p, struct node *first, bool is_tuple, bool parens,
                                 struct place place) {
    if (!is_tuple) {
        if (first) return first;
        if (!parens) parse_fail(p, place, "expected an expression");
    }
    struct node *n = node_new(p, N_TUPLE, place);
    n->list = first;
    return n;
}

struct node *parse_tuple(struct parser *p, bool with_condition, const char *end, bool parens) {
    struct node *first = NULL, **tail = &first;
    bool is_tuple = false;
    struct place place = parse_peek(p, 0)->place;
    for (;;) {
        if (first) parse_expect(p, ",");
        if (at_tuple_end(p, end)) break;
        *tail = parse_expression(p, with_condition);
        tail = &(*tail)->next;
        if (!parse_at(p, ",")) break;
        is_tuple = true;
    }
    return finish_tuple(p, first, is_tuple, parens, place);
}

static void check_target(struct parser *p, const struct node *n) {
    if (n->kind == N_TUPLE) {
        for (const struct node *c = n->list; c; c = c->next) check_target(p, c);
        return;
    }
    bool reserved = false;
    if (n->kind == N_NAME) {
        struct slice s = p->t->symbols[n->symbol];
        reserved = slice_equal(s, slice_of("true")) || slice_equal(s, slice_of("none"));
    }
    if ((n->kind != N_NAME && n->kind != N_NSREF) || reserved) {
        parse_fail(p, n->place, "cannot assign to this expression");
    }
}

struct node *parse_target(struct parser *p, const char *end, bool with_namespace) {
    struct node *first = NULL, **tail = &first;
    bool is_tuple = false;
    struct place place = parse_peek(p, 0)->place;
    for (;;) {
        if (first) parse_expect(p, ",");
        if (at_tuple_end(p, end)) break;
        parse_enter(p);
        *tail = parse_primary(p, with_namespace);
        p->depth--;
        tail = &(*tail)->next;
        if (!parse_at(p, ",")) break;
        is_tuple = true;
    }
    struct node *n = finish_tuple(p, first, is_tuple, false, place);
    check_target(p, n);
    return n;
}

struct node *parse_name_target(struct parser *p) {
    const struct token *t = parse_expect_name(p);
    struct node *n = node_new(p, N_NAME, t->place);
    n->symbol = parse_symbol(p, t->text);
    return n;
}

static void note_special(struct parser *p, int symbol) {
    struct jinja *t = p->t;
    if (symbol > t->sym_kwargs) return;
    for (struct node *m = p->macro; m; m = m->c) { /* all around it take them, as in jinja2 */
        if (symbol == t->sym_varargs) m->uses_varargs = true;
        if (symbol == t->sym_kwargs) m->uses_kwargs = true;
        if (symbol == t->sym_caller) m->uses_caller = true;
    }
}

static struct node *parse_name(struct parser *p, bool with_namespace) {
    const struct token *t = parse_expect_name(p);
    struct node *n = node_new(p, N_CONST, t->place);
    struct slice s = t->text;
    if (slice_equal(s, slice_of("true")) || slice_equal(s, slice_of("True"))) {
        n->value = jv_bool(true);
    } else if (slice_equal(s, slice_of("false")) || slice_equal(s, slice_of("False"))) {
        n->value = jv_bool(false);
    } else if (slice_equal(s, slice_of("none")) || slice_equal(s, slice_of("None"))) {
        n->value = jv_none();
    } else {
        n->kind = N_NAME;
        n->symbol = parse_symbol(p, s);
        n->value = const_str(p, s);
        note_special(p, n->symbol);
        if (with_namespace && parse_skip(p, ".")) {
            n->kind = N_NSREF;
            n->value = const_str(p, parse_expect_name(p)->text);
        }
    }
    return n;
}

static struct jv number_value(struct parser *p, const struct token *t) {
    double f;
    if (t->kind == T_FLOAT) {
        if (!float_parse(t->text, &f)) parse_fail(p, t->place, "not a number");
        return jv_float(f);
    }
    struct slice s = t->text;
    int base = 10;
    if (s.size > 2 && s.data[0] == '0' && s.data[1] > '9') {
        char k = (char)(s.data[1] | 32);
        base = k == 'x' ? 16 : k == 'o' ? 8 : 2;
        s = (struct slice){s.data + 2, s.size - 2};
    }
    if (s.size > CAP_TEMPLATE_LITERAL) parse_fail(p, t->place, "a number of too many digits");
    return big_parse_decimal(p->arena, s, base);
}

static struct node *parse_strings(struct parser *p) {
    struct node *n = node_new(p, N_CONST, parse_peek(p, 0)->place);
    struct slice text = parse_peek(p, 0)->text;
    p->at++;
    while (parse_peek(p, 0)->kind == T_STRING) {
        struct slice more = parse_peek(p, 0)->text;
        char *both = arena_alloc(p->arena, text.size + more.size + 1);
        if (text.size) memcpy(both, text.data, text.size);
        if (more.size) memcpy(both + text.size, more.data, more.size);
        text = (struct slice){both, text.size + more.size};
        parse_room(p, n->place);
        p->at++;
    }
    n->value = const_str(p, text);
    return n;
}

static struct node *parse_display(struct parser *p, bool dict) {
    struct node *n = node_new(p, dict ? N_DICT : N_LIST, parse_peek(p, 0)->place);
    struct node **tail = &n->list;
    const char *close = dict ? "}" : "]";
    p->at++;
    while (!parse_at(p, close)) {
        if (n->list) parse_expect(p, ",");
        if (parse_at(p, close)) break;
        *tail = parse_expression(p, true);
        tail = &(*tail)->next;
        if (!dict) continue;
        parse_expect(p, ":");
        *tail = parse_expression(p, true);
        tail = &(*tail)->next;
    }
    p->at++;
    return n;
}

static struct node *parse_primary(struct parser *p, bool with_namespace) {
    const struct token *t = parse_peek(p, 0);
    if (t->kind == T_NAME) return parse_name(p, with_namespace);
    if (t->kind == T_STRING) return parse_strings(p);
    if (t->kind == T_NUMBER || t->kind == T_FLOAT) {
        struct node *n = node_new(p, N_CONST, t->place);
        n->value = number_value(p, t);
        p->at++;
        return n;
    }
    if (parse_at(p, "[")) return parse_display(p, false);
    if (parse_at(p, "{")) return parse_display(p, true);
    if (parse_skip(p, "(")) {
        struct node *n = parse_tuple(p, true, NULL, true);
        parse_expect(p, ")");
        return n;
    }
    parse_fail(p, t->place, "unexpected '%.*s'", (int)(t->text.size > 40 ? 40 : t->text.size),
               t->text.data);
}

static struct node *parse_subscribed(struct parser *p) {
    struct node *first = NULL;
    if (!parse_at(p, ":")) {
        first = parse_expression(p, true);
        if (!parse_at(p, ":")) return first;
    }
    struct node *n = node_new(p, N_SLICE, parse_peek(p, 0)->place);
    n->a = first;
    p->at++;
    if (!parse_at(p, ":") && !parse_at(p, "]") && !parse_at(p, ","))
        n->b = parse_expression(p, true);
    if (parse_skip(p, ":") && !parse_at(p, "]") && !parse_at(p, ",")) {
        n->c = parse_expression(p, true);
    }
    return n;
}

static struct node *parse_subscript(struct parser *p, struct node *o) {
    struct node *n = node_new(p, N_ITEM, parse_peek(p, 0)->place);
    n->a = o;
    if (parse_skip(p, ".")) {
        const struct token *t = parse_peek(p, 0);
        n->place = t->place;
        if (t->kind == T_NAME) {
            n->kind = N_ATTR;
            n->value = const_str(p, t->text);
            n->builtin = method_find(t->text);
        } else if (t->kind == T_NUMBER) {
            n->b = node_new(p, N_CONST, t->place);
            n->b->value = number_value(p, t);
        } else {
            parse_fail(p, t->place, "expected name or number");
        }
        p->at++;
        return n;
    }
    p->at++;
    struct node *first = NULL, **tail = &first;
    while (!parse_at(p, "]")) {
        if (first) parse_expect(p, ",");
        *tail = parse_subscribed(p);
        tail = &(*tail)->next;
    }
    p->at++;
    n->b = first;
    if (first == NULL || first->next) {
        n->b = node_new(p, N_TUPLE, n->place);
        n->b->list = first;
    }
    return n;
}

static void call_ensure(struct parser *p, bool ok) {
    if (!ok) parse_fail(p, parse_peek(p, 0)->place, "invalid syntax for function call expression");
}

static void parse_keyword(struct parser *p, struct node *n, struct node ***tail) {
    const struct token *t = parse_expect_name(p);
    struct node *k = node_new(p, N_NAME, t->place);
    call_ensure(p, n->dyn_kwargs == NULL);
    k->value = const_str(p, t->text);
    k->symbol = parse_symbol(p, t->text);
    for (struct node *o = n->kwargs; o; o = o->next) call_ensure(p, o->symbol != k->symbol);
    p->at++;
    k->a = parse_expression(p, true);
    **tail = k;
    *tail = &k->next;
}

/* The parenthesised arguments, into n. */
static void parse_arguments(struct parser *p, struct node *n) {
    struct node **tail = &n->list, **kwargs = &n->kwargs;
    bool comma = false;
    parse_expect(p, "(");
    while (!parse_at(p, ")")) {
        if (comma) {
            parse_expect(p, ",");
            if (parse_at(p, ")")) break;
        }
        comma = true;
        const struct token *next = parse_peek(p, 1);
        if (parse_skip(p, "*")) {
            call_ensure(p, n->dyn_args == NULL && n->dyn_kwargs == NULL);
            n->dyn_args = parse_expression(p, true);
        } else if (parse_skip(p, "**")) {
            call_ensure(p, n->dyn_kwargs == NULL);
            n->dyn_kwargs = parse_expression(p, true);
        } else if (parse_peek(p, 0)->kind == T_NAME && next->kind == T_OP &&
                   slice_equal(next->text, slice_of("="))) {
            parse_keyword(p, n, &kwargs);
        } else {
            call_ensure(p, n->dyn_args == NULL && n->dyn_kwargs == NULL && n->kwargs == NULL);
            *tail = parse_expression(p, true);
            tail = &(*tail)->next;
        }
    }
    p->at++;
}

static struct node *parse_call(struct parser *p, struct node *callee) {
    struct node *n = node_new(p, N_CALL, callee->place);
    n->a = callee;
    parse_arguments(p, n);
    return n;
}

static struct node *parse_postfix(struct parser *p, struct node *n) {
    for (int length = 0;; chain_longer(p, &length)) {
        if (parse_peek(p, 0)->kind != T_OP) return n;
        if (parse_at(p, ".") || parse_at(p, "[")) {
            n = parse_subscript(p, n);
        } else if (parse_at(p, "(")) {
            n = parse_call(p, n);
        } else {
            return n;
        }
    }
}

static struct slice dotted_name(struct parser *p) {
    struct slice name = parse_expect_name(p)->text;
    while (parse_skip(p, ".")) {
        struct slice more = parse_expect_name(p)->text;
        char *both = arena_printf(p->arena, "%.*s.%.*s", (int)name.size, name.data, (int)more.size,
                                  more.data);
        name = slice_of(both);
    }
    return name;
}

static void find_builtin(struct parser *p, struct node *n, struct slice name) {
    n->value = const_str(p, name);
    n->builtin = n->kind == N_FILTER ? filter_find(name) : test_find(name);
    if (n->builtin == NULL && p->unknown == NULL) p->unknown = n;
}

struct node *parse_filter_chain(struct parser *p, struct node *inner, bool start_inline) {
    for (int length = 0; start_inline || parse_at(p, "|"); chain_longer(p, &length)) {
        if (!start_inline) p->at++;
        start_inline = false;
        struct node *n = node_new(p, N_FILTER, parse_peek(p, 0)->place);
        n->a = inner;
        find_builtin(p, n, dotted_name(p));
        if (parse_at(p, "(")) parse_arguments(p, n);
        inner = n;
    }
    return inner;
}

static bool at_test_argument(struct parser *p) {
    enum token_kind k = parse_peek(p, 0)->kind;
    if (k == T_STRING || k == T_NUMBER || k == T_FLOAT) return true;
    if (k == T_NAME) return !parse_at(p, "else") && !parse_at(p, "or") && !parse_at(p, "and");
    return k == T_OP && (parse_at(p, "[") || parse_at(p, "{"));
}

static struct node *parse_test(struct parser *p, struct node *value) {
    struct node *n = node_new(p, N_TEST, parse_peek(p, 0)->place);
    p->at++;
    bool negated = parse_skip(p, "not");
    n->a = value;
    find_builtin(p, n, dotted_name(p));
    if (parse_at(p, "(")) {
        parse_arguments(p, n);
    } else if (at_test_argument(p)) {
        if (parse_at(p, "is")) parse_fail(p, n->place, "tests cannot be chained with is");
        parse_enter(p);
        n->list = parse_postfix(p, parse_primary(p, false));
        p->depth--;
    }
    return negated ? two(p, N_NOT, n, NULL) : n;
}

static struct node *parse_filter_expr(struct parser *p, struct node *n) {
    for (int length = 0;; chain_longer(p, &length)) {
        if (parse_at(p, "|")) {
            n = parse_filter_chain(p, n, false);
        } else if (parse_peek(p, 0)->kind == T_NAME && parse_at(p, "is")) {
            n = parse_test(p, n);
        } else if (parse_at(p, "(")) {
            n = parse_call(p, n);
        } else {
            return n;
        }
    }
}

static struct node *parse_unary(struct parser *p, bool with_filters) {
    struct node *n;
    if (parse_at(p, "-") || parse_at(p, "+")) {
        n = node_new(p, parse_at(p, "-") ? N_NEG : N_POS, parse_peek(p, 0)->place);
        p->at++;
        parse_enter(p);
        n->a = parse_unary(p, false);
        p->depth--;
    } else {
        n = parse_primary(p, false);
    }
    n = parse_postfix(p, n);
    return with_filters ? parse_filter_expr(p, n) : n;
}
