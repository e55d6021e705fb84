/* Byte-pair encoding of one piece of text.
 *
 * Owns nothing but the table of merges; the vocabulary's strings belong to the tokenizer. Immutable
 * after loading; a bpe_scratch belongs to one thread at a time. O(n log n) in the size of a piece.
 */
#ifndef IMP_TEXT_BPE_H
#define IMP_TEXT_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/map.h"
#include "text/tokenizer.h"

#define BPE_SPACE "\xE2\x96\x81" /* "▁", SentencePiece's space */

struct merge {
    uint64_t pair; /* left id << 32 | right id; NO_PAIR: free */
    uint32_t rank; /* lower merges first */
    int32_t id;    /* of the two joined */
};

struct bpe {
    struct map vocab;          /* content -> id */
    struct merge *merges;      /* open addressing */
    size_t merge_capacity;     /* a power of two */
    int32_t byte_ids[256];     /* of the character that stands for a byte (unicode.h), or -1 */
    int32_t fallback_ids[256]; /* of "<0xNN>", or -1 */
    int32_t ascii_ids[128];    /* of the character itself, or -1 */
    bool all_bytes;            /* every byte_ids is there */
    bool byte_fallback, fuse_unk, ignore_merges;
    bool words;     /* no merge joins what stands before a "▁" to it: texts may be cut there */
    int32_t unk_id; /* -1: unknown characters vanish */
};

struct bpe_scratch {
    int32_t *ids;
    uint32_t *ranks, *next, *previous;
    size_t capacity;
    uint64_t *heap;
    size_t heap_count, heap_capacity;
    struct str mapped;
};

void bpe_merges_init(struct bpe *bpe, size_t expected);
/* A pair that is there already takes the new rank. */
void bpe_merges_add(struct bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id);
void bpe_free(struct bpe *bpe);

/* raw: the piece is bytes, to be read as the characters that stand for them. Else it is the text
 * itself, valid UTF-8. Appends. */
void bpe_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece, size_t size,
                bool raw, struct ids *out);
void bpe_scratch_free(struct bpe_scratch *scratch);

#endif
