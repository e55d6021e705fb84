/* Methods that cut strings and that pad them. */
#include <string.h>

#include "text/jinja_methods.h"

/* What is made from Markup is Markup. */
static struct jv like(const struct jstr *s, struct jv made) {
    made.u.s->markup = s->markup;
    return made;
}

static bool space_at(const struct jstr *s, size_t at, size_t *n) {
    uint32_t c;
    *n = utf8_decode(s->p + at, s->n - at, &c);
    return char_is_space(c);
}

static struct jv split_blanks(struct jx *x, struct jstr *s, int64_t max) {
    struct jv l = list_make(x, J_LIST, 0);
    size_t at = 0, n;
    for (;;) {
        while (at < s->n && space_at(s, at, &n)) at += n;
        if (at == s->n) return l;
        if (max == 0) {
            struct jv rest = str_part(x, s, at, s->n - at);
            list_add(x, l.u.l, str_strip(x, rest.u.s, jv_none(), false, true));
            return l;
        }
        size_t from = at;
        while (at < s->n && !space_at(s, at, &n)) at += n;
        list_add(x, l.u.l, str_part(x, s, from, at - from));
        jx_steps(x, 1);
        max--;
    }
}

static void reverse_list(struct jlist *l) {
    for (size_t i = 0, k = l->n; i + 1 < k; i++) {
        struct jv swap = l->v[--k];
        l->v[k] = l->v[i];
        l->v[i] = swap;
    }
}

static size_t char_before(const struct jstr *s, size_t at) {
    size_t n = 1;
    while (n < at && n < 4 && ((unsigned char)s->p[at - n] & 0xc0) == 0x80) n++;
    return at - n;
}

static struct jv rsplit_blanks(struct jx *x, struct jstr *s, int64_t max) {
    struct jv l = list_make(x, J_LIST, 0);
    size_t at = s->n, n;
    for (;;) {
        while (at > 0 && space_at(s, char_before(s, at), &n)) at = char_before(s, at);
        if (at == 0) break;
        if (max == 0) {
            struct jv rest = str_part(x, s, 0, at);
            list_add(x, l.u.l, str_strip(x, rest.u.s, jv_none(), true, false));
            break;
        }
        size_t to = at;
        while (at > 0 && !space_at(s, char_before(s, at), &n)) at = char_before(s, at);
        list_add(x, l.u.l, str_part(x, s, at, to - at));
        jx_steps(x, 1);
        max--;
    }
    reverse_list(l.u.l);
    return l;
}

struct jv m_split(struct jx *x, struct jcall *c) {
    struct jstr *s = c->self.u.s;
    int64_t max = c->a[1].type == J_MISSING ? -1 : int_of(x, c->a[1]);
    if (max < 0) max = INT64_MAX;
    jx_steps(x, s->n / 32);
    if (c->a[0].type == J_MISSING || c->a[0].type == J_NONE) return split_blanks(x, s, max);
    struct jstr *separator = method_str(x, c->a[0]);
    if (separator->n == 0) jx_fail(x, "empty separator");
    struct jv l = list_make(x, J_LIST, 0);
    size_t from = 0;
    for (; max > 0; max--) {
        size_t at =
            str_find((struct slice){s->p, s->n}, (struct slice){separator->p, separator->n}, from);
        if (at == SIZE_MAX) break;
        list_add(x, l.u.l, str_part(x, s, from, at - from));
        from = at + separator->n;
        jx_steps(x, 1);
    }
    list_add(x, l.u.l, str_part(x, s, from, s->n - from));
    return l;
}

static size_t find_last(struct jx *x, const struct jstr *s, size_t end, const struct jstr *what) {
    for (size_t at = end; at >= what->n; at--) {
        jx_steps(x, what->n / 64);
        if (memcmp(s->p + at - what->n, what->p, what->n) == 0) return at - what->n;
    }
    return SIZE_MAX;
}

struct jv m_rsplit(struct jx *x, struct jcall *c) {
    struct jstr *s = c->self.u.s;
    int64_t max = c->a[1].type == J_MISSING ? -1 : int_of(x, c->a[1]);
    if (max < 0) max = INT64_MAX;
    jx_steps(x, s->n / 8);
    if (c->a[0].type == J_MISSING || c->a[0].type == J_NONE) return rsplit_blanks(x, s, max);
    struct jstr *separator = method_str(x, c->a[0]);
    if (separator->n == 0) jx_fail(x, "empty separator");
    struct jv l = list_make(x, J_LIST, 0);
    size_t to = s->n;
    for (; max > 0; max--) {
        size_t at = find_last(x, s, to, separator);
        if (at == SIZE_MAX) break;
        list_add(x, l.u.l, str_part(x, s, at + separator->n, to - at - separator->n));
        to = at;
        jx_steps(x, 1);
    }
    list_add(x, l.u.l, str_part(x, s, 0, to));
    reverse_list(l.u.l);
    return l;
}

static struct jv partition(struct jx *x, struct jcall *c, bool last) {
    struct jstr *s = c->self.u.s, *what = method_str(x, c->a[0]);
    if (what->n == 0) jx_fail(x, "empty separator");
    size_t at = last ? find_last(x, s, s->n, what)
                     : str_find((struct slice){s->p, s->n}, (struct slice){what->p, what->n}, 0);
    struct jv t = list_make(x, J_TUPLE, 3);
    jx_steps(x, s->n / 16);
    if (at == SIZE_MAX) {
        struct jv empty = str_part(x, s, 0, 0);
        if (!last) list_add(x, t.u.l, c->self);
        list_add(x, t.u.l, empty);
        list_add(x, t.u.l, empty);
        if (last) list_add(x, t.u.l, c->self);
        return t;
    }
    list_add(x, t.u.l, str_part(x, s, 0, at));
    list_add(x, t.u.l, like(s, str_part(x, what, 0, what->n)));
    list_add(x, t.u.l, str_part(x, s, at + what->n, s->n - at - what->n));
    return t;
}

struct jv m_partition(struct jx *x, struct jcall *c) {
    return partition(x, c, false);
}

struct jv m_rpartition(struct jx *x, struct jcall *c) {
    return partition(x, c, true);
}

struct jv m_splitlines(struct jx *x, struct jcall *c) {
    return str_lines(x, c->self.u.s, is_true(x, c->a[0]));
}

struct jv m_removeprefix(struct jx *x, struct jcall *c) {
    struct jstr *s = c->self.u.s, *p = method_str(x, c->a[0]);
    bool has = p->n <= s->n && (p->n == 0 || memcmp(s->p, p->p, p->n) == 0);
    return has ? str_part(x, s, p->n, s->n - p->n) : c->self;
}

struct jv m_removesuffix(struct jx *x, struct jcall *c) {
    struct jstr *s = c->self.u.s, *p = method_str(x, c->a[0]);
    bool has = p->n <= s->n && (p->n == 0 || memcmp(s->p + s->n - p->n, p->p, p->n) == 0);
    return has ? str_part(x, s, 0, s->n - p->n) : c->self;
}

/* ---- padding ---- */

static struct jv pad(struct jx *x, struct jcall *c, char align) {
    struct jstr *s = c->self.u.s, *fill = str_text(x, " ").u.s;
    if (c->a[1].type != J_MISSING) fill = method_str(x, c->a[1]);
    if (str_chars(fill) != 1) jx_fail(x, "The fill character must be exactly one character long");
    int64_t width = int_of(x, c->a[0]), n = (int64_t)str_chars(s), room = width > n ? width - n : 0;
    int64_t left = align == '>' ? room : align == '^' ? room / 2 + (room & width & 1) : 0;
    struct jbuf b;
    buf_init(&b, x);
    buf_add_str(&b, str_repeat(x, fill, left).u.s);
    buf_add_str(&b, s);
    buf_add_str(&b, str_repeat(x, fill, room - left).u.s);
    return like(s, buf_take(&b));
}

struct jv m_ljust(struct jx *x, struct jcall *c) {
    return pad(x, c, '<');
}

struct jv m_rjust(struct jx *x, struct jcall *c) {
    return pad(x, c, '>');
}

struct jv m_center(struct jx *x, struct jcall *c) {
    return pad(x, c, '^');
}

struct jv m_zfill(struct jx *x, struct jcall *c) {
    struct jstr *s = c->self.u.s;
    int64_t n = int_of(x, c->a[0]) - (int64_t)str_chars(s);
    size_t sign = s->n > 0 && (s->p[0] == '-' || s->p[0] == '+');
    struct jbuf b;
    buf_init(&b, x);
    buf_add_part(&b, s, 0, sign);
    buf_add_str(&b, str_repeat(x, str_text(x, "0").u.s, n).u.s);
    buf_add_part(&b, s, sign, s->n - sign);
    return like(s, buf_take(&b));
}

struct jv m_expandtabs(struct jx *x, struct jcall *c) {
    struct jstr *s = c->self.u.s;
    int64_t size = c->a[0].type == J_MISSING ? 8 : int_of(x, c->a[0]), column = 0;
    struct jbuf b;
    buf_init(&b, x);
    for (size_t at = 0; at < s->n; at++) {
        if (s->p[at] == '\t') {
            int64_t n = size > 0 ? size - column % size : 0;
            column += n;
            struct jv blank = str_make(x, " ", 1, str_marked(s, at));
            buf_add_str(&b, str_repeat(x, blank.u.s, n).u.s);
            continue;
        }
        buf_add_part(&b, s, at, 1);
        column += ((unsigned char)s->p[at] & 0xc0) != 0x80;
        if (s->p[at] == '\n' || s->p[at] == '\r') column = 0;
    }
    return like(s, buf_take(&b));
}
