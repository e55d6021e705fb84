#include "text/normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "text/unicode.h"

void normalizer_free(struct normalizer *n) {
    for (int i = 0; i < n->count; i++) regex_free(n->steps[i].pattern);
    n->count = 0;
}

void normalize_scratch_free(struct normalize_scratch *s) {
    str_free(&s->a.text);
    str_free(&s->a.mask);
    str_free(&s->b.text);
    str_free(&s->b.mask);
    free(s->codepoints);
    *s = (struct normalize_scratch){0};
}

/* What a step reads and writes. */
struct flow {
    const char *text, *mask; /* mask NULL: nobody asks */
    size_t size;
    struct masked *out;
    struct normalize_scratch *scratch;
    struct regex_scratch *regex;
};

static void add(struct flow *f, const void *data, size_t size, char mark) {
    str_add(&f->out->text, data, size);
    if (f->mask == NULL || size == 0) return;
    str_reserve(&f->out->mask, size);
    memset(f->out->mask.data + f->out->mask.size, mark, size);
    f->out->mask.size += size;
}

static void copy(struct flow *f, size_t from, size_t to) {
    str_add(&f->out->text, f->text + from, to - from);
    if (f->mask) str_add(&f->out->mask, f->mask + from, to - from);
}

/* Whether all of [from, to) is marked. */
static char mark_of(const struct flow *f, size_t from, size_t to) {
    return f->mask == NULL || memchr(f->mask + from, 0, to - from) == NULL;
}

/* ---- canonical and compatibility forms ---- */

static int combining_class(int32_t c) {
    return utf8proc_get_property(c)->combining_class;
}

struct mark {
    int32_t codepoint;
    int class;
    size_t at;
};

static int compare_marks(const void *a, const void *b) {
    const struct mark *x = a, *y = b;
    if (x->class != y->class) return x->class < y->class ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Sorts each run of marks by class, keeping equals in order. utf8proc's own sort is quadratic in
 * the length of a run, and a text may be one run. */
static void order_marks(int32_t *c, size_t n) {
    struct mark *marks = NULL;
    size_t capacity = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i;
        bool sorted = true;
        for (int last = 0; end < n; end++) {
            int class = combining_class(c[end]);
            if (class == 0) break;
            if (class < last) sorted = false;
            last = class;
        }
        if (!sorted) {
            if (end - i > capacity) marks = mem_grow(marks, (capacity = end - i) * sizeof *marks);
            for (size_t k = i; k < end; k++) {
                marks[k - i] = (struct mark){c[k], combining_class(c[k]), k};
            }
            qsort(marks, end - i, sizeof *marks, compare_marks);
            for (size_t k = i; k < end; k++) c[k] = marks[k - i].codepoint;
        }
        i = end == i ? i + 1 : end;
    }
    free(marks);
}

/* Decomposes [from, to) into scratch->codepoints and returns how many. */
static size_t decompose(struct flow *f, size_t from, size_t to, int options) {
    enum { LONGEST = 18 }; /* of one character: U+FDFA */
    struct normalize_scratch *s = f->scratch;
    size_t n = 0;
    for (size_t i = from; i < to;) {
        if (s->codepoint_capacity - n < LONGEST) {
            s->codepoint_capacity = s->codepoint_capacity * 2 + 256;
            s->codepoints = mem_grow(s->codepoints, s->codepoint_capacity * sizeof(int32_t));
        }
        uint32_t c;
        i += utf8_decode(f->text + i, to - i, &c);
        int boundary = 0;
        utf8proc_ssize_t got = utf8proc_decompose_char(
            (utf8proc_int32_t)c, s->codepoints + n, (utf8proc_ssize_t)(s->codepoint_capacity - n),
            options, &boundary);
        check(got >= 0 && (size_t)got <= s->codepoint_capacity - n);
        n += (size_t)got;
    }
    order_marks(s->codepoints, n);
    return n;
}

/* One stretch that starts with an ASCII character (or at the text's start) and goes on with others.
 * No form joins an ASCII or an inert character to what is before it: stretches are independent. */
static void form_stretch(struct flow *f, size_t from, size_t to, int options) {
    size_t n = decompose(f, from, to, options);
    int32_t *c = f->scratch->codepoints;
    if (options & UTF8PROC_COMPOSE) {
        n = (size_t)utf8proc_normalize_utf32(c, (utf8proc_ssize_t)n,
                                             (utf8proc_option_t)(options | UTF8PROC_STABLE));
    }
    size_t begin = f->out->text.size;
    bool first_kept = n > 0 && c[0] < 0x80 && c[0] == f->text[from];
    char rest = mark_of(f, first_kept ? from + 1 : from, to);
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        size_t size = utf8_encode((uint32_t)c[i], bytes);
        add(f, bytes, size, i == 0 && first_kept ? mark_of(f, from, from + 1) : rest);
    }
    bool same = f->out->text.size - begin == to - from &&
                memcmp(f->out->text.data + begin, f->text + from, to - from) == 0;
    if (same && f->mask) memcpy(f->out->mask.data + begin, f->mask + from, to - from);
}

/* Bytes from `at` on that are not ASCII, up to an inert character; *inert: the bytes of that one.
 */
static size_t stretch_length(const struct flow *f, size_t at, size_t *inert) {
    size_t i = at;
    *inert = 0;
    while (i < f->size && (unsigned char)f->text[i] >= 0x80) {
        uint32_t c;
        size_t n = utf8_decode(f->text + i, f->size - i, &c);
        if (unicode_is_inert(c)) {
            *inert = n;
            break;
        }
        i += n;
    }
    return i - at;
}

static void form(struct flow *f, int options) {
    for (size_t i = 0; i < f->size;) {
        size_t plain = i, inert;
        while (plain < f->size && (unsigned char)f->text[plain] < 0x80) plain++;
        size_t stretch = stretch_length(f, plain, &inert), end = plain + stretch;
        if (stretch > 0 && plain > i) plain--; /* the last plain one may be composed with */
        copy(f, i, plain);
        if (stretch > 0) form_stretch(f, plain, end, options);
        copy(f, end, end + inert);
        i = end + inert;
    }
}

static bool all_ascii(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)p[i] >= 0x80) return false;
    }
    return true;
}

/* ---- the rest ---- */

static void replace(struct flow *f, const struct normalize_step *step) {
    struct regex_iter iter = {0};
    size_t start, end, last = 0;
    while (regex_next(step->pattern, f->regex, f->text, f->size, &iter, &start, &end)) {
        copy(f, last, start);
        add(f, step->content.data, step->content.size, mark_of(f, start, end));
        last = end;
    }
    copy(f, last, f->size);
}

static void strip(struct flow *f, bool left, bool right) {
    size_t from = 0, to = f->size, bytes;
    uint32_t c;
    while (left && from < to) {
        bytes = utf8_decode(f->text + from, to - from, &c);
        if (!unicode_is_space(c)) break;
        from += bytes;
    }
    while (right && to > from) {
        c = utf8_last(f->text + from, to - from, &bytes);
        if (!unicode_is_space(c)) break;
        to -= bytes;
    }
    copy(f, from, to);
}

/* Capitals of Unicode 16 and 17, which utf8proc may not know. */
static uint32_t lowercase_newer(uint32_t c) {
    static const struct {
        uint32_t low, high;
        int32_t to; /* added to the code point */
    } ranges[] = {{0x1c89, 0x1c89, 1},   {0xa7cb, 0xa7cb, -42343}, {0xa7cc, 0xa7cc, 1},
                  {0xa7ce, 0xa7ce, 1},   {0xa7d2, 0xa7d2, 1},      {0xa7d4, 0xa7d4, 1},
                  {0xa7da, 0xa7da, 1},   {0xa7dc, 0xa7dc, -42561}, {0x10d50, 0x10d65, 32},
                  {0x16ea0, 0x16eb8, 27}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (c >= ranges[i].low && c <= ranges[i].high) return (uint32_t)((int32_t)c + ranges[i].to);
    }
    return c;
}

/* What one character becomes; 0 characters: it goes. */
static size_t lowercase(uint32_t c, uint32_t out[2]) {
    out[0] = c;
    out[1] = 0x307;
    if (c == 0x130) { /* the one letter whose lower case is two characters */
        out[0] = 'i';
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    if (out[0] == c) out[0] = lowercase_newer(c);
    return 1;
}

static size_t nmt(uint32_t c, uint32_t out[2]) {
    bool control = (c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f ||
                   c == 0x8f || c == 0x9f;
    bool blank = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 ||
                 (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                 c == 0xfeff || c == 0xfffd;
    out[0] = blank ? ' ' : c;
    return control ? 0 : 1;
}

static size_t without_accent(uint32_t c, uint32_t out[2]) {
    out[0] = c;
    return unicode_is_mark(c) && !unicode_is_inert(c) ? 0 : 1;
}

static void each(struct flow *f, size_t (*change)(uint32_t c, uint32_t out[2])) {
    for (size_t i = 0, len; i < f->size; i += len) {
        uint32_t c, out[2];
        len = utf8_decode(f->text + i, f->size - i, &c);
        size_t n = change(c, out);
        for (size_t k = 0; k < n; k++) {
            char bytes[4];
            add(f, bytes, utf8_encode(out[k], bytes), mark_of(f, i, i + len));
        }
    }
}

static void byte_level(struct flow *f) {
    for (size_t i = 0; i < f->size; i++) {
        char bytes[4];
        size_t n = utf8_encode(byte_level_encode((unsigned char)f->text[i]), bytes);
        add(f, bytes, n, mark_of(f, i, i + 1));
    }
}

static bool changes(const struct normalize_step *step, const struct flow *f) {
    switch (step->kind) {
    case NORMALIZE_NFC:
    case NORMALIZE_NFD:
    case NORMALIZE_NFKC:
    case NORMALIZE_NFKD:
    case NORMALIZE_STRIP_ACCENTS:
        return !all_ascii(f->text, f->size);
    default:
        return f->size > 0;
    }
}

static void apply(const struct normalize_step *step, struct flow *f) {
    const int nfd = UTF8PROC_DECOMPOSE, compat = UTF8PROC_COMPAT;
    const int nfc = UTF8PROC_COMPOSE;
    switch (step->kind) {
    case NORMALIZE_NFC:
        form(f, nfc);
        break;
    case NORMALIZE_NFD:
        form(f, nfd);
        break;
    case NORMALIZE_NFKC:
        form(f, nfc | compat);
        break;
    case NORMALIZE_NFKD:
        form(f, nfd | compat);
        break;
    case NORMALIZE_REPLACE:
        replace(f, step);
        break;
    case NORMALIZE_PREPEND:
        add(f, step->content.data, step->content.size, mark_of(f, 0, 1));
        copy(f, 0, f->size);
        break;
    case NORMALIZE_LOWERCASE:
        each(f, lowercase);
        break;
    case NORMALIZE_STRIP:
        strip(f, step->left, step->right);
        break;
    case NORMALIZE_STRIP_ACCENTS:
        each(f, without_accent);
        break;
    case NORMALIZE_NMT:
        each(f, nmt);
        break;
    case NORMALIZE_BYTE_LEVEL:
        byte_level(f);
        break;
    }
}

void normalize_run(const struct normalizer *n, struct normalize_scratch *scratch,
                   struct regex_scratch *regex, struct slice *text, const char **mask) {
    for (int i = 0; i < n->count; i++) {
        struct masked *out =
            text->data != NULL && text->data == scratch->a.text.data ? &scratch->b : &scratch->a;
        struct flow f = {.text = text->data,
                         .mask = mask ? *mask : NULL,
                         .size = text->size,
                         .out = out,
                         .scratch = scratch,
                         .regex = regex};
        if (!changes(&n->steps[i], &f)) continue;
        str_clear(&out->text);
        str_clear(&out->mask);
        apply(&n->steps[i], &f);
        *text = (struct slice){out->text.data ? out->text.data : "", out->text.size};
        if (f.mask) *mask = out->mask.data ? out->mask.data : "";
    }
}
