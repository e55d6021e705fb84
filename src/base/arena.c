#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"

/* Under AddressSanitizer what was not handed out is out of bounds, and so is a gap behind each
 * piece: otherwise a whole block would look like one allocation to it. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(ARENA_ASAN)
#include <sanitizer/asan_interface.h>
enum { ARENA_GAP_BYTES = 16 };
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
enum { ARENA_GAP_BYTES = 0 };
#endif

enum { ARENA_BLOCK_BYTES = 64 << 10, ARENA_ALIGN = 16 };

struct arena_block {
    struct arena_block *next;
    size_t used, size; /* bytes of data */
    _Alignas(ARENA_ALIGN) char data[];
};

void *arena_alloc(struct arena *arena, size_t bytes) {
    check(bytes < SIZE_MAX / 2);
    size_t need = ((bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1)) + ARENA_GAP_BYTES;
    struct arena_block *block = arena->blocks;
    if (block == NULL || block->size - block->used < need) {
        size_t size = need > ARENA_BLOCK_BYTES / 4 ? need : ARENA_BLOCK_BYTES;
        struct arena_block *fresh = mem_zero(1, sizeof *fresh + size);
        fresh->size = size;
        ASAN_POISON_MEMORY_REGION(fresh->data, size);
        if (block != NULL && need > ARENA_BLOCK_BYTES / 4) { /* keep filling the current one */
            fresh->next = block->next;
            block->next = fresh;
        } else {
            fresh->next = block;
            arena->blocks = fresh;
        }
        block = fresh;
    }
    void *p = block->data + block->used;
    block->used += need;
    arena->used_bytes += need - ARENA_GAP_BYTES;
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
    return p;
}

void *arena_array(struct arena *arena, size_t count, size_t bytes) {
    check(bytes == 0 || count < SIZE_MAX / 2 / bytes);
    return arena_alloc(arena, count * bytes);
}

char *arena_strndup(struct arena *arena, const char *p, size_t n) {
    char *copy = arena_alloc(arena, n + 1);
    if (n > 0) memcpy(copy, p, n);
    return copy;
}

char *arena_printf(struct arena *arena, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    check(n >= 0);
    char *text = arena_alloc(arena, (size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return text;
}

void arena_free(struct arena *arena) {
    for (struct arena_block *block = arena->blocks; block != NULL;) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
    *arena = (struct arena){0};
}
