/* Operations on strings that filters and methods share. */
#include <stdio.h>
#include <string.h>

#include "base/caps.h"
#include "text/jinja_internal.h"

static bool char_in(const struct jstr *set, const char *p, size_t n) {
    for (size_t at = 0; at < set->n;) {
        size_t len = utf8_sequence_length(set->p + at, set->n - at);
        if (len == 0) len = 1;
        if (len == n && memcmp(set->p + at, p, n) == 0) return true;
        at += len;
    }
    return false;
}

static bool strippable(const struct jstr *set, const char *p, size_t n) {
    uint32_t c;
    if (set) return char_in(set, p, n);
    utf8_decode(p, n, &c);
    return char_is_space(c);
}

struct jv str_strip(struct jx *x, struct jstr *s, struct jv chars, bool left, bool right) {
    const struct jstr *set = NULL;
    if (chars.type != J_MISSING && chars.type != J_NONE) {
        if (chars.type != J_STR) jx_fail(x, "strip arg must be None or str");
        set = chars.u.s;
    }
    size_t from = 0, to = s->n;
    while (left && from < to) {
        size_t n = utf8_sequence_length(s->p + from, to - from);
        if (n == 0) n = 1;
        if (!strippable(set, s->p + from, n)) break;
        from += n;
    }
    while (right && to > from) {
        size_t n = 1;
        while (n < to - from && n < 4 && ((unsigned char)s->p[to - n] & 0xc0) == 0x80) n++;
        if (!strippable(set, s->p + to - n, n)) break;
        to -= n;
    }
    jx_steps(x, (s->n - (to - from)) / 16);
    return str_part(x, s, from, to - from);
}

enum { REPEAT_BYTES = 4096 };

/* By a unit that holds several: many small additions would cost more than their steps say. */
struct jv str_repeat(struct jx *x, struct jstr *s, int64_t times) {
    struct jbuf b, twice;
    struct jstr *unit = s;
    int64_t in_unit = 1;
    if (times <= 0 || s->n == 0) return str_part(x, s, 0, 0);
    if ((uint64_t)times > CAP_TEMPLATE_OUTPUT / s->n) {
        jx_fail(x, "text longer than %u bytes", CAP_TEMPLATE_OUTPUT);
    }
    for (; unit->n < REPEAT_BYTES && in_unit <= times / 2; in_unit *= 2) {
        buf_init(&twice, x);
        buf_add_str(&twice, unit);
        buf_add_str(&twice, unit);
        unit = buf_take(&twice).u.s;
    }
    buf_init(&b, x);
    for (; times >= in_unit; times -= in_unit) buf_add_str(&b, unit);
    for (; times > 0; times--) buf_add_str(&b, s);
    struct jv out = buf_take(&b);
    out.u.s->markup = s->markup;
    return out;
}

struct jv str_replace(struct jx *x, struct jstr *s, struct jstr *old, struct jstr *new_,
                      int64_t count) {
    struct jbuf b;
    size_t at = 0;
    buf_init(&b, x);
    jx_steps(x, s->n / 64);
    while (count != 0 && (old->n > 0 || at <= s->n)) {
        size_t found = str_find((struct slice){s->p, s->n}, (struct slice){old->p, old->n}, at);
        if (found == SIZE_MAX) break;
        jx_steps(x, 1);
        buf_add_part(&b, s, at, found - at);
        buf_add_str(&b, new_);
        at = found + old->n;
        count--;
        if (old->n > 0) continue;
        if (at == s->n) break; /* between every two characters, before the first, after the last */
        size_t n = utf8_sequence_length(s->p + at, s->n - at);
        buf_add_part(&b, s, at, n ? n : 1);
        at += n ? n : 1;
    }
    buf_add_part(&b, s, at, s->n - at);
    struct jv v = buf_take(&b);
    v.u.s->markup = s->markup;
    return v;
}

/* Bytes of the line end at p, 0 if there is none. */
static size_t line_end(const char *p, size_t n) {
    uint32_t c;
    size_t len = utf8_decode(p, n, &c);
    if (c == '\r' && n > 1 && p[1] == '\n') return 2;
    bool ends =
        (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
    return ends ? len : 0;
}

struct jv str_lines(struct jx *x, struct jstr *s, bool keep_ends) {
    struct jv l = list_make(x, J_LIST, 0);
    size_t from = 0;
    jx_steps(x, s->n / 16);
    for (size_t at = 0; at < s->n;) {
        size_t end = line_end(s->p + at, s->n - at);
        if (end) {
            list_add(x, l.u.l, str_part(x, s, from, at - from + (keep_ends ? end : 0)));
            from = at + end;
        }
        at += end ? end : 1;
    }
    if (from < s->n) list_add(x, l.u.l, str_part(x, s, from, s->n - from));
    jx_steps(x, l.u.l->n);
    return l;
}

struct jv str_join(struct jx *x, struct jstr *separator, struct jlist *items, bool convert) {
    struct jbuf b;
    buf_init(&b, x);
    for (size_t i = 0; i < items->n; i++) {
        jx_steps(x, 1);
        if (i) buf_add_str(&b, separator);
        if (!convert && items->v[i].type != J_STR) {
            jx_fail(x, "sequence item %zu: expected str instance, %s found", i,
                    type_name(items->v[i]));
        }
        add_str(&b, items->v[i]);
    }
    return buf_take(&b);
}
