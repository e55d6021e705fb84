#include "base/map.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static uint64_t fresh_seed(const void *salt) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t mix[3] = {(uint64_t)now.tv_sec, (uint64_t)now.tv_nsec, (uint64_t)(uintptr_t)salt};
    return XXH3_64bits(mix, sizeof mix);
}

static struct map_slot *slot_for(const struct map *map, struct slice key, uint64_t hash) {
    size_t mask = map->capacity - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct map_slot *slot = &map->slots[i];
        if (slot->key.data == NULL) return slot;
        if (slot->hash == hash && slice_equal(slot->key, key)) return slot;
    }
}

static void resize(struct map *map, size_t capacity) {
    struct map old = *map;
    map->slots = mem_zero(capacity, sizeof *map->slots);
    map->capacity = capacity;
    for (size_t i = 0; i < old.capacity; i++) {
        struct map_slot *slot = &old.slots[i];
        if (slot->key.data) *slot_for(map, slot->key, slot->hash) = *slot;
    }
    free(old.slots);
}

void map_create(struct map *map, size_t expected) {
    *map = (struct map){0};
    map->seed = fresh_seed(map);
    size_t capacity = 16;
    while (capacity < expected * 2) capacity *= 2;
    resize(map, capacity);
}

bool map_add(struct map *map, struct slice key, int64_t value) {
    if (map->capacity == 0) map_create(map, 0);
    if (map->count * 2 >= map->capacity) resize(map, map->capacity * 2);
    if (key.data == NULL) key.data = "";
    uint64_t hash = XXH3_64bits_withSeed(key.data, key.size, map->seed);
    struct map_slot *slot = slot_for(map, key, hash);
    if (slot->key.data) return false;
    *slot = (struct map_slot){key, hash, value};
    map->count++;
    return true;
}

int64_t *map_find(const struct map *map, struct slice key) {
    if (map->capacity == 0) return NULL;
    if (key.data == NULL) key.data = "";
    uint64_t hash = XXH3_64bits_withSeed(key.data, key.size, map->seed);
    struct map_slot *slot = slot_for(map, key, hash);
    return slot->key.data ? &slot->value : NULL;
}

void map_free(struct map *map) {
    free(map->slots);
    *map = (struct map){0};
}
