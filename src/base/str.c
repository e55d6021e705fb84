#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Counted per thread so that a test can see that a step of the engine allocates nothing. */
static _Thread_local uint64_t calls;

uint64_t mem_calls(void) {
    return calls;
}

void *mem_alloc(size_t bytes) {
    calls++;
    void *p = malloc(bytes ? bytes : 1);
    check(p != NULL);
    return p;
}

void *mem_zero(size_t count, size_t bytes) {
    calls++;
    void *p = calloc(count ? count : 1, bytes ? bytes : 1);
    check(p != NULL);
    return p;
}

void *mem_grow(void *p, size_t bytes) {
    calls++;
    p = realloc(p, bytes ? bytes : 1);
    check(p != NULL);
    return p;
}

char *mem_strndup(const char *p, size_t n) {
    char *copy = mem_alloc(n + 1);
    if (n > 0) memcpy(copy, p, n);
    copy[n] = 0;
    return copy;
}

struct slice slice_of(const char *zero_terminated) {
    return (struct slice){zero_terminated, strlen(zero_terminated)};
}

bool slice_equal(struct slice a, struct slice b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

bool slice_starts(struct slice s, const char *prefix) {
    size_t n = strlen(prefix);
    return s.size >= n && memcmp(s.data, prefix, n) == 0;
}

bool slice_ends(struct slice s, const char *suffix) {
    size_t n = strlen(suffix);
    return s.size >= n && memcmp(s.data + s.size - n, suffix, n) == 0;
}

void str_reserve(struct str *s, size_t more) {
    check(more < SIZE_MAX - s->size - 1);
    size_t need = s->size + more + 1;
    if (need <= s->capacity) return;
    size_t capacity = s->capacity ? s->capacity : 64;
    while (capacity < need) capacity = capacity > SIZE_MAX / 2 ? need : capacity * 2;
    s->data = mem_grow(s->data, capacity);
    s->capacity = capacity;
}

void str_add(struct str *s, const void *data, size_t size) {
    str_reserve(s, size);
    if (size > 0) memcpy(s->data + s->size, data, size);
    s->size += size;
    s->data[s->size] = 0;
}

void str_add_text(struct str *s, const char *zero_terminated) {
    str_add(s, zero_terminated, strlen(zero_terminated));
}

void str_add_char(struct str *s, char c) {
    str_add(s, &c, 1);
}

void str_add_codepoint(struct str *s, uint32_t codepoint) {
    char bytes[4] = {0};
    size_t n = utf8_encode(codepoint, bytes);
    str_add(s, bytes, n);
}

void str_printf(struct str *s, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    check(n >= 0);
    str_reserve(s, (size_t)n);
    vsnprintf(s->data + s->size, (size_t)n + 1, fmt, again);
    va_end(again);
    s->size += (size_t)n;
}

void str_clear(struct str *s) {
    s->size = 0;
    if (s->data) s->data[0] = 0;
}

char *str_take(struct str *s) {
    str_reserve(s, 0);
    s->data[s->size] = 0;
    char *data = s->data;
    *s = (struct str){0};
    return data;
}

void str_free(struct str *s) {
    free(s->data);
    *s = (struct str){0};
}

void str_add_json(struct str *s, const char *data, size_t size) {
    str_add_char(s, '"');
    for (size_t i = 0; i < size;) {
        unsigned char c = (unsigned char)data[i];
        if (c == '"' || c == '\\') {
            char pair[2] = {'\\', (char)c};
            str_add(s, pair, 2);
            i++;
        } else if (c < 0x20 || c == 0x7f) {
            const char *known = "\b\t\n\f\r", *names = "btnfr", *at = c ? strchr(known, c) : NULL;
            if (at) {
                str_printf(s, "\\%c", names[at - known]);
            } else {
                str_printf(s, "\\u%04x", c);
            }
            i++;
        } else {
            size_t n = utf8_sequence_length(data + i, size - i);
            if (n == 0) {
                str_add_text(s, "\xEF\xBF\xBD");
                i++;
            } else {
                str_add(s, data + i, n);
                i += n;
            }
        }
    }
    str_add_char(s, '"');
}

enum { LONGEST_WORD = 64 };

/* Levenshtein's distance over one row; words longer than any of ours are simply far away. */
size_t text_distance(const char *a, const char *b) {
    size_t row[LONGEST_WORD + 1], n = strlen(a), m = strlen(b);
    if (n > LONGEST_WORD || m > LONGEST_WORD) return LONGEST_WORD;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

/* RFC 3629: the lead byte fixes the length and the range of the second byte. */
static size_t lead_length(unsigned char lead, unsigned char *low, unsigned char *high) {
    *low = 0x80;
    *high = 0xbf;
    if (lead < 0x80) return 1;
    if (lead < 0xc2) return 0;
    if (lead < 0xe0) return 2;
    if (lead < 0xf0) {
        if (lead == 0xe0) *low = 0xa0;
        if (lead == 0xed) *high = 0x9f;
        return 3;
    }
    if (lead > 0xf4) return 0;
    if (lead == 0xf0) *low = 0x90;
    if (lead == 0xf4) *high = 0x8f;
    return 4;
}

size_t utf8_sequence_length(const char *p, size_t n) {
    if (n == 0) return 0;
    unsigned char low, high;
    size_t len = lead_length((unsigned char)p[0], &low, &high);
    if (len <= 1) return len;
    if (n < len || (unsigned char)p[1] < low || (unsigned char)p[1] > high) return 0;
    for (size_t i = 2; i < len; i++) {
        if (((unsigned char)p[i] & 0xc0) != 0x80) return 0;
    }
    return len;
}

size_t utf8_decode(const char *p, size_t n, uint32_t *codepoint) {
    static const unsigned char lead_mask[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    size_t len = utf8_sequence_length(p, n);
    if (len == 0) {
        *codepoint = 0xfffd;
        return 1;
    }
    uint32_t c = (unsigned char)p[0] & lead_mask[len];
    for (size_t i = 1; i < len; i++) c = c << 6 | ((unsigned char)p[i] & 0x3f);
    *codepoint = c;
    return len;
}

size_t utf8_encode(uint32_t c, char out[4]) {
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) c = 0xfffd;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

bool utf8_valid(const char *p, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t len = utf8_sequence_length(p + i, n - i);
        if (len == 0) return false;
        i += len;
    }
    return true;
}

size_t utf8_incomplete_tail(const char *p, size_t n) {
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)p[n - back];
        if ((c & 0xc0) == 0x80) continue;
        unsigned char low, high;
        size_t len = lead_length(c, &low, &high);
        if (len <= back) return 0;
        bool second_fits = back < 2 || ((unsigned char)p[n - back + 1] >= low &&
                                        (unsigned char)p[n - back + 1] <= high);
        return second_fits ? back : 0;
    }
    return 0;
}
