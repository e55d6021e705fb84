/* Strings that know the origin of every byte, and the buffer that builds them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "text/jinja_internal.h"

struct jv str_make(struct jx *x, const char *p, size_t n, bool message) {
    struct jstr *s = jx_alloc(x, sizeof *s);
    *s = (struct jstr){p, NULL, n, SIZE_MAX, message, false};
    return (struct jv){J_STR, {.s = s}};
}

struct jv str_text(struct jx *x, const char *literal) {
    return str_make(x, literal, strlen(literal), false);
}

struct jv str_printv(struct jx *x, bool message, const char *fmt, ...) {
    char text[512];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0) n = 0;
    if ((size_t)n >= sizeof text) n = (int)sizeof text - 1;
    return str_make(x, arena_strndup(&x->arena, text, (size_t)n), (size_t)n, message);
}

struct jv str_part(struct jx *x, const struct jstr *s, size_t from, size_t n) {
    struct jv v = str_make(x, s->p + from, n, s->message);
    jx_steps(x, n / 256); /* its marks and characters may have to be looked through */
    if (s->marks) {
        v.u.s->marks = s->marks + from;
        if (n == 0 || memchr(v.u.s->marks, !v.u.s->marks[0], n) == NULL) {
            v.u.s->message = n > 0 && v.u.s->marks[0];
            v.u.s->marks = NULL;
        }
    }
    v.u.s->markup = s->markup;
    return v;
}

size_t str_chars(struct jstr *s) {
    if (s->chars != SIZE_MAX) return s->chars;
    size_t n = 0;
    for (size_t i = 0; i < s->n; n++) {
        size_t len = (unsigned char)s->p[i] < 0x80 ? 1 : utf8_sequence_length(s->p + i, s->n - i);
        i += len ? len : 1;
    }
    /* Constants are shared by threads, and a plain store of the same value would be a race. */
    __atomic_store_n(&s->chars, n, __ATOMIC_RELAXED);
    return n;
}

size_t str_offset(struct jx *x, struct jstr *s, size_t chars) {
    if (str_chars(s) == s->n) return chars < s->n ? chars : s->n;
    jx_steps(x, chars / 16);
    size_t at = 0;
    for (; chars > 0 && at < s->n; chars--) {
        size_t len = utf8_sequence_length(s->p + at, s->n - at);
        at += len ? len : 1;
    }
    return at;
}

bool str_marked(const struct jstr *s, size_t at) {
    return s->marks ? s->marks[at] : s->message;
}

bool str_is(struct jv v, const char *text) {
    return v.type == J_STR && slice_equal(str_slice(v), slice_of(text));
}

struct slice str_slice(struct jv v) {
    return (struct slice){v.u.s->p, v.u.s->n};
}

size_t str_find(struct slice hay, struct slice needle, size_t from) {
    if (from > hay.size || hay.size - from < needle.size) return SIZE_MAX;
    if (needle.size == 0) return from;
    const char *at = memmem(hay.data + from, hay.size - from, needle.data, needle.size);
    return at ? (size_t)(at - hay.data) : SIZE_MAX;
}

void buf_init(struct jbuf *b, struct jx *x) {
    *b = (struct jbuf){.x = x};
}

static void buf_room(struct jbuf *b, size_t more) {
    if (more > CAP_TEMPLATE_OUTPUT || b->n + more > CAP_TEMPLATE_OUTPUT) {
        jx_fail(b->x, "text longer than %u bytes", CAP_TEMPLATE_OUTPUT);
    }
    if (b->n + more <= b->cap) return;
    size_t cap = b->cap ? b->cap * 2 : 64;
    while (cap < b->n + more) cap *= 2;
    char *p = jx_alloc(b->x, cap);
    if (b->n) memcpy(p, b->p, b->n);
    b->p = p;
    if (b->marks) {
        uint8_t *marks = jx_alloc(b->x, cap);
        memcpy(marks, b->marks, b->n);
        b->marks = marks;
    }
    b->cap = cap;
}

/* Room for n bytes, of which the marks are set up to hold either origin. */
static void buf_origin(struct jbuf *b, bool message) {
    if (b->marks) return;
    if (b->n == 0) b->message = message;
    if (b->message == message) return;
    b->marks = jx_alloc(b->x, b->cap);
    memset(b->marks, b->message, b->n);
}

void buf_add(struct jbuf *b, const char *p, size_t n, bool message) {
    if (n == 0) return;
    buf_room(b, n);
    buf_origin(b, message);
    memcpy(b->p + b->n, p, n);
    if (b->marks) memset(b->marks + b->n, message, n);
    b->n += n;
    jx_steps(b->x, n / 64);
}

void buf_add_part(struct jbuf *b, const struct jstr *s, size_t from, size_t n) {
    if (s->marks == NULL) {
        buf_add(b, s->p + from, n, s->message);
        return;
    }
    while (n > 0) {
        uint8_t mark = s->marks[from];
        const uint8_t *change = memchr(s->marks + from, !mark, n);
        size_t run = change ? (size_t)(change - (s->marks + from)) : n;
        buf_add(b, s->p + from, run, mark);
        from += run;
        n -= run;
    }
}

void buf_add_str(struct jbuf *b, const struct jstr *s) {
    buf_add_part(b, s, 0, s->n);
}

void buf_text(struct jbuf *b, const char *text, bool message) {
    buf_add(b, text, strlen(text), message);
}

void buf_codepoint(struct jbuf *b, uint32_t c, bool message) {
    char bytes[4];
    buf_add(b, bytes, utf8_encode(c, bytes), message);
}

struct jv buf_take(struct jbuf *b) {
    struct jv v = str_make(b->x, b->p ? b->p : "", b->n, b->n > 0 && b->message);
    v.u.s->marks = b->marks;
    return v;
}
