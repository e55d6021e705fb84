#include "engine/stop.h"

#include <stdlib.h>
#include <string.h>

void stop_filter_init(struct stop_filter *f, const char *const *strings, size_t count) {
    *f = (struct stop_filter){.count = count};
    if (count == 0) return;
    f->strings = mem_zero(count, sizeof *f->strings);
    f->sizes = mem_zero(count, sizeof *f->sizes);
    for (size_t i = 0; i < count; i++) {
        f->sizes[i] = strlen(strings[i]);
        f->strings[i] = mem_strndup(strings[i], f->sizes[i]);
        if (f->sizes[i] > f->longest) f->longest = f->sizes[i];
    }
}

void stop_filter_free(struct stop_filter *f) {
    for (size_t i = 0; i < f->count; i++) free(f->strings[i]);
    free(f->strings);
    free(f->sizes);
    str_free(&f->held);
    *f = (struct stop_filter){0};
}

/* Does a stop string match at p, wholly (1) or as far as the text goes (2)? */
static int match_at(const struct stop_filter *f, const char *p, size_t left) {
    int best = 0;
    for (size_t i = 0; i < f->count; i++) {
        size_t n = f->sizes[i] < left ? f->sizes[i] : left;
        if (memcmp(p, f->strings[i], n) != 0) continue;
        if (n == f->sizes[i]) return 1;
        best = 2;
    }
    return best;
}

bool stop_filter_add(struct stop_filter *f, const char *text, size_t size, struct str *out) {
    if (f->count == 0) {
        str_add(out, text, size);
        return false;
    }
    str_add(&f->held, text, size);
    size_t at = 0;
    for (; at < f->held.size; at++) {
        int match = match_at(f, f->held.data + at, f->held.size - at);
        if (match == 1) {
            str_add(out, f->held.data, at);
            str_clear(&f->held);
            return true;
        }
        if (match == 2) break;
    }
    str_add(out, f->held.data, at);
    memmove(f->held.data, f->held.data + at, f->held.size - at);
    f->held.size -= at;
    return false;
}

void stop_filter_end(struct stop_filter *f, struct str *out) {
    str_add(out, f->held.data, f->held.size);
    str_clear(&f->held);
}
