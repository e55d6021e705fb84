/* Who owns which KV block.
 *
 * One pool of physical blocks with reference counts. A sequence holds block ids; a full block whose
 * tokens are known may also be found again by a later prompt that begins with the same tokens
 * (prefix cache): blocks chain by the hash of all tokens up to them, and the tokens themselves are
 * compared on a hit. A block that nobody holds stays findable until it is needed for something
 * else, least recently used first. Invariant: free + held == total, at all times. Used by the
 * engine's thread alone. All memory is allocated at creation. */
#ifndef IMP_ENGINE_KV_H
#define IMP_ENGINE_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"

struct kv_block {
    int refs;       /* sequences that hold it */
    bool findable;  /* in the table: contents are complete and known */
    uint64_t chain; /* hash of every token from position 0 to the block's end */
    int32_t parent; /* block before it in its chain, -1 for the first */
    uint32_t generation,
        parent_generation; /* how often it was handed out anew; the parent's then */
    int32_t hash_next;     /* next in the bucket, -1 */
    int32_t older, newer;  /* list of blocks nobody holds, -1 at its ends */
    int32_t token[KV_BLOCK_TOKENS];
    int32_t
        twin; /* block of the window pool with the same positions, -1: none, and its generation */
    uint32_t twin_generation;
};

struct kv {
    int total, unheld; /* blocks in all; blocks with refs == 0 */
    struct kv_block *block;
    int32_t *bucket; /* [bucket_count] first block of the bucket, -1 */
    int bucket_count;
    int32_t oldest, newest; /* of the unheld list */
    uint64_t seed;
};

/* shuffle != 0: blocks are handed out in an order drawn from it at first. */
void kv_create(struct kv *kv, int blocks, uint64_t shuffle);
void kv_destroy(struct kv *kv);

/* Takes `count` blocks nobody holds, refs 1 each; false and nothing taken if there are too few. */
bool kv_take(struct kv *kv, int32_t *out, int count);
void kv_release(struct kv *kv, int32_t id);

/* The longest chain of findable blocks that holds tokens[0 .. 64 n), n at most max_blocks; takes a
 * reference on each and returns n. */
int kv_find_prefix(struct kv *kv, const int32_t *tokens, int max_blocks, int32_t *out);
/* Declares that block `id` now holds these 64 tokens after `parent` (-1: first). Does nothing if an
 * equal chain is findable already. The caller holds both. */
void kv_publish(struct kv *kv, int32_t id, int32_t parent, const int32_t *tokens);

/* A pool without publishing holds the blocks of layers with a window: what nobody holds keeps its
 * contents until it is handed out anew, and can be held again until then. */
uint32_t kv_generation(const struct kv *kv, int32_t id);
bool kv_hold(struct kv *kv, int32_t id, uint32_t generation); /* false: it was handed out anew */

#endif
