#include "engine/kv.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/error.h"
#include "base/rng.h"
#include "base/str.h"

static void unheld_append(struct kv *kv, int32_t id) {
    struct kv_block *b = &kv->block[id];
    b->older = kv->newest;
    b->newer = -1;
    if (kv->newest >= 0) kv->block[kv->newest].newer = id;
    kv->newest = id;
    if (kv->oldest < 0) kv->oldest = id;
    kv->unheld++;
}

static void unheld_remove(struct kv *kv, int32_t id) {
    struct kv_block *b = &kv->block[id];
    if (b->older >= 0) kv->block[b->older].newer = b->newer;
    if (b->newer >= 0) kv->block[b->newer].older = b->older;
    if (kv->oldest == id) kv->oldest = b->newer;
    if (kv->newest == id) kv->newest = b->older;
    kv->unheld--;
}

void kv_create(struct kv *kv, int blocks, uint64_t shuffle) {
    *kv = (struct kv){.total = blocks, .oldest = -1, .newest = -1, .seed = (uintptr_t)kv};
    kv->block = mem_zero((size_t)blocks, sizeof *kv->block);
    for (kv->bucket_count = 64; kv->bucket_count < blocks;) kv->bucket_count *= 2;
    kv->bucket = mem_alloc((size_t)kv->bucket_count * sizeof *kv->bucket);
    memset(kv->bucket, 0xff, (size_t)kv->bucket_count * sizeof *kv->bucket);
    int32_t *order = mem_alloc((size_t)blocks * sizeof *order);
    for (int32_t i = 0; i < blocks; i++) order[i] = i;
    for (int32_t i = blocks - 1; i > 0 && shuffle; i--) {
        int32_t j = (int32_t)(rng_uniform(shuffle, 1, (uint64_t)i) * (i + 1)), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    for (int32_t i = 0; i < blocks; i++) unheld_append(kv, order[i]);
    free(order);
}

void kv_destroy(struct kv *kv) {
    free(kv->block);
    free(kv->bucket);
    *kv = (struct kv){0};
}

static int32_t *bucket_of(struct kv *kv, uint64_t chain) {
    return &kv->bucket[chain & (uint64_t)(kv->bucket_count - 1)];
}

static void forget(struct kv *kv, int32_t id) {
    struct kv_block *b = &kv->block[id];
    if (!b->findable) return;
    int32_t *link = bucket_of(kv, b->chain);
    while (*link != id) link = &kv->block[*link].hash_next;
    *link = b->hash_next;
    b->findable = false;
}

bool kv_take(struct kv *kv, int32_t *out, int count) {
    if (count > kv->unheld) return false;
    for (int i = 0; i < count; i++) {
        int32_t id = kv->oldest;
        unheld_remove(kv, id);
        forget(kv, id);
        kv->block[id].refs = 1;
        kv->block[id].twin = -1;
        kv->block[id].generation++;
        out[i] = id;
    }
    return true;
}

void kv_release(struct kv *kv, int32_t id) {
    check(kv->block[id].refs > 0);
    if (--kv->block[id].refs == 0) unheld_append(kv, id);
}

uint32_t kv_generation(const struct kv *kv, int32_t id) {
    return kv->block[id].generation;
}

bool kv_hold(struct kv *kv, int32_t id, uint32_t generation) {
    if (id < 0 || kv->block[id].generation != generation) return false;
    if (kv->block[id].refs++ == 0) unheld_remove(kv, id);
    return true;
}

static uint64_t chain_hash(const struct kv *kv, uint64_t parent_chain, const int32_t *tokens) {
    return XXH3_64bits_withSeed(tokens, KV_BLOCK_TOKENS * sizeof *tokens, parent_chain ^ kv->seed);
}

/* A parent that was handed out anew is another block, whatever its number. */
static uint32_t generation_of(const struct kv *kv, int32_t id) {
    return id >= 0 ? kv->block[id].generation : 0;
}

static int32_t lookup(struct kv *kv, uint64_t chain, int32_t parent, const int32_t *tokens) {
    for (int32_t id = *bucket_of(kv, chain); id >= 0; id = kv->block[id].hash_next) {
        const struct kv_block *b = &kv->block[id];
        if (b->chain == chain && b->parent == parent &&
            b->parent_generation == generation_of(kv, parent) &&
            memcmp(b->token, tokens, sizeof b->token) == 0)
            return id;
    }
    return -1;
}

int kv_find_prefix(struct kv *kv, const int32_t *tokens, int max_blocks, int32_t *out) {
    uint64_t chain = 0;
    int32_t parent = -1;
    int n = 0;
    for (; n < max_blocks; n++) {
        chain = chain_hash(kv, chain, tokens + (size_t)n * KV_BLOCK_TOKENS);
        int32_t id = lookup(kv, chain, parent, tokens + (size_t)n * KV_BLOCK_TOKENS);
        if (id < 0) break;
        if (kv->block[id].refs++ == 0) unheld_remove(kv, id);
        out[n] = parent = id;
    }
    return n;
}

void kv_publish(struct kv *kv, int32_t id, int32_t parent, const int32_t *tokens) {
    struct kv_block *b = &kv->block[id];
    if (b->findable) return;
    if (parent >= 0 && !kv->block[parent].findable) return; /* its own twin was there first */
    uint64_t chain = chain_hash(kv, parent >= 0 ? kv->block[parent].chain : 0, tokens);
    if (lookup(kv, chain, parent, tokens) >= 0) return;
    b->chain = chain;
    b->parent = parent;
    b->parent_generation = generation_of(kv, parent);
    memcpy(b->token, tokens, sizeof b->token);
    b->findable = true;
    b->hash_next = *bucket_of(kv, chain);
    *bucket_of(kv, chain) = id;
}
