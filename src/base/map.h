/* A map from byte strings to 64-bit values: open addressing, linear probing, no deletion.
 *
 * Keys are borrowed: whoever owns them keeps them alive and unchanged as long as the map. The hash
 * is seeded per map, so a file cannot choose colliding keys. Reading is safe from many threads once
 * nobody adds any more. */
#ifndef IMP_BASE_MAP_H
#define IMP_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct map_slot {
    struct slice key; /* data NULL: free */
    uint64_t hash;
    int64_t value;
};

struct map {
    struct map_slot *slots;
    size_t capacity, count; /* capacity: a power of two, or 0 */
    uint64_t seed;
};

/* With room for that many without growing. (Not map_init: libedit.a exports one of its own.) */
void map_create(struct map *map, size_t expected);
/* Adds, unless the key is there: then returns false and leaves the old value. */
bool map_add(struct map *map, struct slice key, int64_t value);
/* The value, or NULL. Valid until the next map_add. */
int64_t *map_find(const struct map *map, struct slice key);
void map_free(struct map *map);

#endif
