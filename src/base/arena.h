/* An arena: many small objects with one lifetime, freed together.
 *
 * Memory comes zeroed and aligned to 16 bytes. One thread at a time. Like struct str it aborts when
 * the machine has no memory, so counts from input are capped before. */
#ifndef IMP_BASE_ARENA_H
#define IMP_BASE_ARENA_H

#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *blocks; /* newest first; zero-initialise the struct to start */
    size_t used_bytes;          /* handed out so far */
};

void *arena_alloc(struct arena *arena, size_t bytes);
void *arena_array(struct arena *arena, size_t count, size_t bytes);
char *arena_strndup(struct arena *arena, const char *p, size_t n); /* zero-terminated copy */
char *arena_printf(struct arena *arena, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void arena_free(struct arena *arena); /* everything; the arena can be used again */

#endif
