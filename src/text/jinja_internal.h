/* Inside the Jinja interpreter: values, syntax tree, the state of one rendering.
 *
 * Values live in the arena of a rendering (constants in that of the template) and are never changed
 * after they were made, but for namespaces, iterators, cyclers and lists while they are built. A
 * failure anywhere leaves by longjmp to jinja_parse or jinja_render, which free the arena: code in
 * between owns nothing else. One thread per rendering; the tree is shared and constant. */
#ifndef IMP_TEXT_JINJA_INTERNAL_H
#define IMP_TEXT_JINJA_INTERNAL_H

#include <setjmp.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/map.h"
#include "base/str.h"
#include "text/jinja.h"

/* ---- values ---- */

enum jtype {
    J_MISSING, /* no argument given */
    J_UNDEF,
    J_NONE,
    J_BOOL,
    J_INT,
    J_BIG, /* an int that does not fit 64 bits */
    J_FLOAT,
    J_STR,
    J_LIST,
    J_TUPLE,
    J_DICT,
    J_RANGE,
    J_VIEW, /* dict.keys(), .values(), .items() */
    J_ITER, /* a generator: its items are taken once */
    J_NAMESPACE,
    J_LOOP,
    J_MACRO,
    J_FUNC,   /* a global function */
    J_METHOD, /* a method bound to its object */
    J_CYCLER,
    J_JOINER,
};

/* Bytes and their origin: `marks` holds one byte per byte (1: from a message), or is NULL where all
 * have the origin `message`. */
struct jstr {
    const char *p;
    const uint8_t *marks;
    size_t n;
    size_t chars; /* code points; SIZE_MAX: not counted yet */
    bool message;
    bool markup; /* Markup: adding plain text to it escapes the text */
};

struct jv {
    enum jtype type;
    union {
        bool b;
        int64_t i;
        double f;
        struct jstr *s;
        struct jlist *l; /* list, tuple */
        struct jdict *d; /* dict, namespace */
        struct jbig *big;
        struct jrange *range;
        struct jview *view;
        struct jiter *iter;
        struct jloop *loop;
        struct jmacro *macro;
        struct jmethod *method;
        struct jcycler *cycler;
        struct jjoiner *joiner;
        const struct jbuiltin *func;
        const char *hint; /* undefined: what to say when it is used */
    } u;
};

struct jlist {
    struct jv *v;
    size_t n, cap;
    bool group; /* a pair of groupby: has .grouper and .list */
};

struct jpair {
    struct jv key, value;
    uint64_t hash;
};

struct jdict { /* in order of insertion */
    struct jpair *v;
    size_t n, cap;
    uint32_t *slots; /* open addressing, 1 + index into v; NULL while small */
    size_t slot_count;
};

struct jbig { /* magnitude: little-endian words, no leading zero word */
    bool negative;
    uint32_t n;
    uint32_t d[];
};

struct jrange {
    int64_t start, stop, step;
    size_t n;
};

struct jview {
    struct jdict *d;
    int kind; /* 0 keys, 1 values, 2 items */
};

struct jx;
struct jcall;
struct jiter;
typedef struct jv (*builtin_fn)(struct jx *x, struct jcall *c);
typedef bool (*iter_fn)(struct jx *x, struct jiter *it, struct jv *out);

struct jiter {
    struct jlist *l; /* `at` of them are taken */
    size_t at;
    iter_fn next;       /* makes an item; NULL: `l` holds all that will come */
    struct jcall *call; /* of the filter that made it, NULL for none */
    builtin_fn make;
    struct jiter *source;
    const struct jbuiltin *fn;
    bool running;
};

struct jcycler {
    struct jlist *l;
    size_t at;
};

struct jjoiner {
    struct jv separator;
    bool used;
};

struct jmethod {
    struct jv self;
    const struct jbuiltin *fn;
};

struct jloop {
    struct jlist *items;  /* so far: `source` has more, or is NULL */
    struct jiter *source; /* what passes n->c of the statement is added when it is needed */
    const struct node *node;
    size_t index0;
    int64_t depth0;
    struct jv last_changed; /* tuple, or J_MISSING */
    struct frame *outer;
};

struct jmacro {
    const struct node *node;
    struct frame *closure;
    struct jv *defaults;
    bool is_caller;
};

/* ---- arguments of a call ---- */

struct jkw {
    struct jv key; /* string */
    struct jv value;
};

struct jargs {
    struct jv *v;
    size_t n;
    struct jkw *kw;
    size_t nkw;
};

enum { BUILTIN_SLOTS = 8 };

/* What a built-in sees: slots in the order of its signature (J_MISSING where left out), the rest of
 * the positional arguments, and keywords if the signature takes them. */
struct jcall {
    struct jv self; /* methods: the object; filters and tests: the value */
    struct jv a[BUILTIN_SLOTS];
    struct jargs rest;
};

/* signature: names separated by blanks; "name?" may be left out, "_" has no keyword, "*" takes
 * further positional arguments, "**" further keywords. */
struct jbuiltin {
    const char *name, *signature;
    builtin_fn fn;
    unsigned types; /* methods: 1 << jtype of the objects that have it */
};

/* ---- syntax tree ---- */

enum node_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_TUPLE,
    N_LIST,
    N_DICT, /* list: key, value, key, value ... */
    N_ATTR,
    N_ITEM,
    N_SLICE, /* a b c, each may be NULL */
    N_CALL,
    N_FILTER,
    N_TEST,
    N_NEG,
    N_POS,
    N_NOT,
    N_AND,
    N_OR,
    N_BINARY,
    N_COMPARE, /* a, list of operands with op */
    N_CONCAT,
    N_COND, /* a if b else c */
    N_NSREF,
    /* statements */
    N_DATA,
    N_OUTPUT,
    N_IF,  /* a test, body, c: the next elif as N_IF, else_ */
    N_FOR, /* a target, b iterable, c test */
    N_SET,
    N_SET_BLOCK, /* a target, b filter chain or NULL */
    N_MACRO,
    N_CALL_BLOCK, /* a call; a macro of its own */
    N_FILTER_BLOCK,
    N_WITH, /* list: target, value, target, value ... */
    N_SCOPE,
    N_BLOCK,
    N_BREAK,
    N_CONTINUE,
    N_REFUSED, /* include, import, extends: there is nothing to load from */
};

enum op {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN,
};

/* Names that are undefined when a scope begins; jinja_scope.c says which. */
struct hidden {
    int *v; /* symbols */
    int n;
};

/* Where something stands in the source, from 1; columns count characters. */
struct place {
    int line, column;
};

struct node {
    enum node_kind kind;
    enum op op;
    struct place place;
    int symbol;                                  /* names: index into the template's symbols */
    bool flag;                                   /* for: recursive; items: a lenient slice */
    bool uses_varargs, uses_kwargs, uses_caller; /* macros */
    struct node *a, *b, *c;
    struct node *list;   /* children, linked by next */
    struct node *kwargs; /* calls: children with symbol; a: value */
    struct node *dyn_args, *dyn_kwargs;
    struct node *body, *else_;
    struct hidden hidden, else_hidden; /* of the scopes of body and else_ */
    struct node *next;
    struct jv value; /* constants, data; attribute names as string */
    const struct jbuiltin
        *builtin; /* filters and tests; attributes: a method of that name or NULL */
};

struct jinja {
    struct arena arena;
    char *name;
    struct node *body;
    struct hidden hidden;
    struct slice *symbols;
    size_t symbol_count;
    int sym_loop, sym_caller, sym_varargs, sym_kwargs;
};

/* ---- parsing ---- */

enum token_kind {
    T_EOF,
    T_DATA,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_VAR_BEGIN,
    T_VAR_END,
    T_NAME,
    T_STRING,
    T_NUMBER, /* text holds it without underscores */
    T_FLOAT,
    T_OP, /* text */
};

struct token {
    enum token_kind kind;
    struct place place;
    struct slice text;
};

struct tokens {
    struct token *v;
    size_t n, cap;
};

struct parser {
    struct jinja *t;
    struct arena *arena;
    struct imp_error *err;
    jmp_buf fail;
    struct tokens tokens;
    size_t at;
    int depth, loops;
    bool soft; /* inside an if: unknown filters fail when they are used, not before */
    const struct node *unknown; /* a filter or test that does not exist, not yet complained of */
    struct node *macro;         /* innermost macro or call block */
    size_t symbol_cap;
    struct map symbols; /* name to index */
};

void parse_fail(struct parser *p, struct place place, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
void jinja_lex(struct parser *p, struct slice source);

void analyse_scopes(struct parser *p);

void place_name(const struct jinja *t, struct place place, char *out, size_t size);
void parse_room(struct parser *p, struct place place); /* fails once memory is used up */
struct node *node_new(struct parser *p, enum node_kind kind, struct place place);
int parse_symbol(struct parser *p, struct slice name);
const struct token *parse_peek(struct parser *p, size_t ahead);
bool parse_at(struct parser *p, const char *text); /* operator or name */
bool parse_skip(struct parser *p, const char *text);
const struct token *parse_expect_name(struct parser *p);
void parse_expect(struct parser *p, const char *text);
void parse_enter(struct parser *p); /* one level deeper; p->depth-- leaves */
struct node *parse_expression(struct parser *p, bool with_condition);
struct node *parse_tuple(struct parser *p, bool with_condition, const char *end, bool parens);
struct node *parse_target(struct parser *p, const char *end, bool with_namespace);
struct node *parse_name_target(struct parser *p);
struct node *parse_filter_chain(struct parser *p, struct node *inner, bool start_inline);
struct node *parse_statements(struct parser *p, const char *const *ends);

/* ---- rendering ---- */

struct var {
    int symbol;
    struct jv value;
};

struct frame {
    struct frame *parent;
    struct var *v;
    size_t n, cap;
};

struct jbuf {
    struct jx *x;
    char *p;
    uint8_t *marks;
    size_t n, cap;
    bool message;
};

struct jx {
    const struct jinja *t;
    struct arena arena;
    jmp_buf fail;
    struct imp_error *err;
    const struct jinja_clock *clock;
    struct jbuf *out;
    struct frame *root;
    const struct node *at; /* for the place in messages */
    uint64_t steps;
    int depth, calls;
    enum { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE } flow;
};

void jx_fail(struct jx *x, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
void *jx_alloc(struct jx *x, size_t bytes);
void jx_steps(struct jx *x, size_t n); /* charges the budget */

/* strings */
struct jv str_make(struct jx *x, const char *p, size_t n, bool message); /* borrows p */
struct jv str_text(struct jx *x, const char *literal);
struct jv str_printv(struct jx *x, bool message, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
struct jv str_part(struct jx *x, const struct jstr *s, size_t from, size_t n); /* bytes */
size_t str_chars(struct jstr *s);
/* Byte offset of a code point. */
size_t str_offset(struct jx *x, struct jstr *s, size_t chars);
bool str_marked(const struct jstr *s, size_t at);
bool str_is(struct jv v, const char *text);
struct slice str_slice(struct jv v);
size_t str_find(struct slice hay, struct slice needle, size_t from); /* SIZE_MAX: none */
bool char_is_space(uint32_t c);

/* "a.b.0" or an index into an item; J_NONE and J_MISSING give the item itself. `otherwise` takes
 * the place of what is undefined on the way, unless it is J_NONE or J_MISSING. */
struct jv item_path(struct jx *x, struct jv item, struct jv attribute, struct jv otherwise);
struct jv fold_case(struct jx *x, struct jv v); /* lower case for strings, others unchanged */
void buf_init(struct jbuf *b, struct jx *x);
void buf_add(struct jbuf *b, const char *p, size_t n, bool message);
void buf_add_str(struct jbuf *b, const struct jstr *s);
void buf_add_part(struct jbuf *b, const struct jstr *s, size_t from, size_t n);
void buf_text(struct jbuf *b, const char *text, bool message);
void buf_codepoint(struct jbuf *b, uint32_t c, bool message);
struct jv buf_take(struct jbuf *b);

/* containers */
struct jv jv_none(void);
struct jv jv_bool(bool b);
struct jv jv_int(int64_t i);
struct jv jv_float(double f);
struct jv jv_undef(const char *hint);
struct jv list_make(struct jx *x, enum jtype type, size_t cap);
void list_add(struct jx *x, struct jlist *l, struct jv v);
struct jv tuple2(struct jx *x, struct jv a, struct jv b);
struct jv dict_make(struct jx *x);
void dict_set(struct jx *x, struct jdict *d, struct jv key, struct jv value);
struct jv *dict_get(struct jx *x, const struct jdict *d, struct jv key);
struct jv iter_make(struct jx *x, struct jlist *l);
struct jv iter_later(struct jx *x, const struct jcall *c, builtin_fn make); /* all at first use */
struct jiter *iter_over(struct jx *x, struct jv v);
bool iter_next(struct jx *x, struct jiter *it, struct jv *out);
/* Whether there are `n` items behind the loop's current one. */
bool loop_has(struct jx *x, struct jloop *loop, size_t n);
size_t loop_length(struct jx *x, struct jloop *loop);
struct jv value_from_json(struct jx *x, yyjson_val *v, bool message, int depth);

/* protocols */
const char *type_name(struct jv v);
bool is_true(struct jx *x, struct jv v);
bool is_number(struct jv v); /* bool, int, float */
bool is_int(struct jv v);    /* bool, int */
bool equal(struct jx *x, struct jv a, struct jv b);
int compare(struct jx *x, struct jv a, struct jv b, const char *op); /* fails on unlike types */
bool contains(struct jx *x, struct jv container, struct jv item);
/* Everything that can be iterated as a list; takes the rest of an iterator. NULL: cannot. */
struct jlist *try_items(struct jx *x, struct jv v);
struct jlist *items_of(struct jx *x, struct jv v);
bool try_length(struct jx *x, struct jv v, size_t *n);
int64_t int_of(struct jx *x, struct jv v); /* an index or count; fails unless an int of 64 bits */
struct jv get_attr(struct jx *x, struct jv o, struct jv name, const struct jbuiltin *method);
struct jv get_item(struct jx *x, struct jv o, struct jv key);
struct jv get_slice(struct jx *x, struct jv o, const struct jv part[3]);
void list_sort(struct jx *x, struct jlist *values, struct jlist *keys, bool reverse);

/* numbers */
struct jv num_binary(struct jx *x, enum op op, struct jv a, struct jv b);
struct jv num_negate(struct jx *x, struct jv a);
int num_compare(struct jv a, struct jv b); /* 2: unordered */
double num_double(struct jx *x, struct jv v);
uint64_t num_hash(struct jv v);
struct jv int_parse(struct jx *x, struct slice digits, int base, bool *ok); /* Python's int(str) */
struct jv int_from_double(struct jx *x, double f); /* truncates; fails on inf and nan */
struct jv int_from_u64(struct jx *x, uint64_t u);
bool float_parse(struct slice text, double *out); /* Python's float(str) */
void int_digits(struct jx *x, struct jv v, int base, bool upper, struct str *out);
struct jv big_from_words(struct jx *x, struct arena *arena, bool negative, const uint32_t *d,
                         size_t n);
struct jv big_parse_decimal(struct arena *arena, struct slice digits, int base);

/* text of values */
struct jv to_str(struct jx *x, struct jv v);
void add_str(struct jbuf *b, struct jv v);
void add_repr(struct jbuf *b, struct jv v, int depth);
void add_ascii(struct jbuf *b, const struct jstr *s); /* with \\x, \\u, \\U for the rest */
void float_repr(double f, char out[40]);
struct jv format_percent(struct jx *x, struct jstr *fmt, struct jv args);
struct jv format_braces(struct jx *x, struct jstr *fmt, const struct jargs *args);
void format_value(struct jbuf *b, struct jv v, struct slice text);
struct jv to_json(struct jx *x, struct jv v, struct jcall *c);
void add_escaped(struct jbuf *b, const struct jstr *s);

/* evaluation */
struct jv eval(struct jx *x, struct frame *f, const struct node *n);
void exec_list(struct jx *x, struct frame *f, const struct node *n);
struct jv call_value(struct jx *x, struct jv fn, const struct jargs *args);
struct jv call_macro(struct jx *x, struct jmacro *m, const struct jargs *args);
struct jv loop_again(struct jx *x, struct jloop *loop, struct jv items);
struct jv call_builtin(struct jx *x, const struct jbuiltin *fn, struct jv self,
                       const struct jargs *args);
struct frame *frame_new(struct jx *x, struct frame *parent);
struct frame *scope_new(struct jx *x, struct frame *parent, const struct hidden *hidden);
void frame_hide(struct jx *x, struct frame *f, const struct hidden *hidden);
void frame_set(struct jx *x, struct frame *f, int symbol, struct jv value);

const struct jbuiltin *filter_find(struct slice name);
const struct jbuiltin *filter_find_text(struct slice name);
const struct jbuiltin *test_find(struct slice name);
const struct jbuiltin *method_find(struct slice name); /* the first of that name */
const struct jbuiltin *method_for(const struct jbuiltin *first, enum jtype type);
const struct jbuiltin *global_find(struct slice name);
bool method_is_mutating(struct slice name, enum jtype type);
struct jv str_strip(struct jx *x, struct jstr *s, struct jv chars, bool left, bool right);
struct jv str_repeat(struct jx *x, struct jstr *s, int64_t times); /* 0 or less: empty */
struct jv str_replace(struct jx *x, struct jstr *s, struct jstr *old, struct jstr *new_,
                      int64_t count);
struct jv str_case(struct jx *x, struct jstr *s, int kind); /* 'u' 'l' 't' 'c' 's' 'f' */
struct jv str_lines(struct jx *x, struct jstr *s, bool keep_ends);
struct jv str_join(struct jx *x, struct jstr *separator, struct jlist *items, bool convert);

#endif
