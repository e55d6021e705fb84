#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "quantize/calibrate.h"

const float *moments_add(struct moments *m, const char *module, const float *h, int64_t cols) {
    check(cols > 0);
    const struct moments_entry *last = m->count ? &m->entries[m->count - 1] : NULL;
    if (last == NULL || last->h != h) {
        float *copy = arena_array(&m->arena, (size_t)cols, sizeof *copy);
        for (int64_t k = 0; k < cols; k++) {
            check(h[k] >= 0 && isfinite(h[k]));
            copy[k] = h[k];
        }
        h = copy;
    } else {
        check(last->cols == cols);
    }
    if (m->count == m->capacity) {
        m->capacity = m->capacity ? m->capacity * 2 : 64;
        m->entries = mem_grow(m->entries, m->capacity * sizeof *m->entries);
    }
    if (m->count == 0) map_create(&m->by_module, 256);
    size_t length = strlen(module);
    const char *name = arena_strndup(&m->arena, module, length);
    m->entries[m->count] = (struct moments_entry){name, h, cols};
    check(map_add(&m->by_module, (struct slice){name, length}, (int64_t)m->count));
    m->count++;
    return h;
}

const struct moments_entry *moments_find(const struct moments *m, const char *module) {
    if (m->count == 0) return NULL;
    const int64_t *at = map_find(&m->by_module, slice_of(module));
    return at ? &m->entries[*at] : NULL;
}

void moments_free(struct moments *m) {
    if (m->count) map_free(&m->by_module);
    free(m->entries);
    arena_free(&m->arena);
    *m = (struct moments){0};
}
