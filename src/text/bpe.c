#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/unicode.h"

enum { SMALL_PIECE = 40 }; /* symbols up to which scanning all ranks beats a heap */
#define NO_PAIR UINT64_MAX
#define NO_RANK UINT32_MAX
#define NONE    UINT32_MAX /* end of the list of symbols */

static size_t merge_hash(uint64_t pair) {
    pair *= 0x9e3779b97f4a7c15u;
    return (size_t)(pair ^ pair >> 32);
}

static struct merge *merge_slot(const struct bpe *bpe, uint64_t pair) {
    size_t mask = bpe->merge_capacity - 1, i = merge_hash(pair) & mask;
    while (bpe->merges[i].pair != pair && bpe->merges[i].pair != NO_PAIR) i = (i + 1) & mask;
    return &bpe->merges[i];
}

void bpe_merges_init(struct bpe *bpe, size_t expected) {
    size_t capacity = 16;
    while (capacity < expected * 2) capacity *= 2;
    bpe->merges = mem_alloc(capacity * sizeof *bpe->merges);
    bpe->merge_capacity = capacity;
    for (size_t i = 0; i < capacity; i++) bpe->merges[i].pair = NO_PAIR;
}

static uint64_t pair_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

void bpe_merges_add(struct bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id) {
    uint64_t pair = pair_of(left, right);
    *merge_slot(bpe, pair) = (struct merge){pair, rank, id};
}

void bpe_free(struct bpe *bpe) {
    map_free(&bpe->vocab);
    free(bpe->merges);
    *bpe = (struct bpe){0};
}

void bpe_scratch_free(struct bpe_scratch *s) {
    free(s->ids);
    free(s->ranks);
    free(s->next);
    free(s->previous);
    free(s->heap);
    str_free(&s->mapped);
    *s = (struct bpe_scratch){0};
}

static void reserve(struct bpe_scratch *s, size_t symbols) {
    if (symbols <= s->capacity) return;
    check(symbols < NONE);
    s->capacity = symbols > 256 ? symbols : 256;
    s->ids = mem_grow(s->ids, s->capacity * sizeof *s->ids);
    s->ranks = mem_grow(s->ranks, s->capacity * sizeof *s->ranks);
    s->next = mem_grow(s->next, s->capacity * sizeof *s->next);
    s->previous = mem_grow(s->previous, s->capacity * sizeof *s->previous);
}

static uint32_t rank_of(const struct bpe *bpe, int32_t left, int32_t right) {
    const struct merge *m = merge_slot(bpe, pair_of(left, right));
    return m->pair == NO_PAIR ? NO_RANK : m->rank;
}

/* ---- few symbols: look for the lowest rank each time ---- */

static void merge_small(const struct bpe *bpe, struct bpe_scratch *s, size_t n, struct ids *out) {
    int32_t *ids = s->ids;
    uint32_t *ranks = s->ranks; /* of the pair (i, i + 1) */
    for (size_t i = 0; i + 1 < n; i++) ranks[i] = rank_of(bpe, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            if (ranks[i] < ranks[best]) best = i;
        }
        if (ranks[best] == NO_RANK) break;
        ids[best] = merge_slot(bpe, pair_of(ids[best], ids[best + 1]))->id;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) {
            memmove(ranks + best + 1, ranks + best + 2, (n - best - 2) * sizeof *ranks);
            ranks[best] = rank_of(bpe, ids[best], ids[best + 1]);
        }
        if (best > 0) ranks[best - 1] = rank_of(bpe, ids[best - 1], ids[best]);
    }
    for (size_t i = 0; i < n; i++) ids_add(out, ids[i]);
}

/* ---- many: a heap of rank << 32 | position, the leftmost first among equals ---- */

static void heap_push(struct bpe_scratch *s, uint64_t key) {
    if (s->heap_count == s->heap_capacity) {
        s->heap_capacity = s->heap_capacity ? s->heap_capacity * 2 : 256;
        s->heap = mem_grow(s->heap, s->heap_capacity * sizeof *s->heap);
    }
    size_t i = s->heap_count++;
    while (i > 0 && key < s->heap[(i - 1) / 4]) {
        s->heap[i] = s->heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    s->heap[i] = key;
}

static uint64_t heap_pop(struct bpe_scratch *s) {
    uint64_t top = s->heap[0], last = s->heap[--s->heap_count];
    size_t n = s->heap_count, i = 0;
    for (;;) {
        size_t child = 4 * i + 1;
        if (child >= n) break;
        size_t end = child + 4 < n ? child + 4 : n, best = child;
        for (size_t c = child + 1; c < end; c++) {
            if (s->heap[c] < s->heap[best]) best = c;
        }
        if (s->heap[best] >= last) break;
        s->heap[i] = s->heap[best];
        i = best;
    }
    s->heap[i] = last;
    return top;
}

static void push_pair(const struct bpe *bpe, struct bpe_scratch *s, uint32_t left) {
    uint32_t rank = rank_of(bpe, s->ids[left], s->ids[s->next[left]]);
    if (rank != NO_RANK) heap_push(s, (uint64_t)rank << 32 | left);
}

static void merge_large(const struct bpe *bpe, struct bpe_scratch *s, size_t n, struct ids *out) {
    s->heap_count = 0;
    for (size_t i = 0; i < n; i++) {
        s->next[i] = i + 1 < n ? (uint32_t)i + 1 : NONE;
        s->previous[i] = i > 0 ? (uint32_t)i - 1 : NONE;
    }
    for (size_t i = 0; i + 1 < n; i++) push_pair(bpe, s, (uint32_t)i);
    while (s->heap_count > 0) {
        uint64_t key = heap_pop(s);
        uint32_t left = (uint32_t)key;
        /* The entry may be older than the symbols there: then its rank is not theirs. */
        if (s->ids[left] < 0 || s->next[left] == NONE) continue;
        uint32_t right = s->next[left];
        const struct merge *m = merge_slot(bpe, pair_of(s->ids[left], s->ids[right]));
        if (m->pair == NO_PAIR || m->rank != key >> 32) continue;
        s->ids[left] = m->id;
        s->ids[right] = -1;
        s->next[left] = s->next[right];
        if (s->next[left] != NONE) {
            s->previous[s->next[left]] = left;
            push_pair(bpe, s, left);
        }
        if (s->previous[left] != NONE) push_pair(bpe, s, s->previous[left]);
    }
    for (uint32_t i = 0; i != NONE; i = s->next[i]) ids_add(out, s->ids[i]);
}

/* ---- first symbols ---- */

static int32_t vocab_find(const struct bpe *bpe, const char *data, size_t size) {
    const int64_t *id = map_find(&bpe->vocab, (struct slice){data, size});
    return id ? (int32_t)*id : -1;
}

/* One character as its bytes' tokens; 0 if one of them is missing. */
static size_t fall_back(const struct bpe *bpe, const char *c, size_t size, int32_t *ids) {
    for (size_t i = 0; i < size; i++) {
        ids[i] = bpe->fallback_ids[(unsigned char)c[i]];
        if (ids[i] < 0) return 0;
    }
    return size;
}

static size_t symbols_of_text(const struct bpe *bpe, struct bpe_scratch *s, const char *p,
                              size_t size) {
    size_t n = 0;
    bool unk = false; /* one is due; it comes before the next known character, not before bytes */
    for (size_t i = 0, len; i < size; i += len) {
        unsigned char c = (unsigned char)p[i];
        len = c < 0x80 ? 1 : utf8_sequence_length(p + i, size - i);
        check(len > 0);
        int32_t id = c < 0x80 ? bpe->ascii_ids[c] : vocab_find(bpe, p + i, len);
        if (id >= 0) {
            if (unk) s->ids[n++] = bpe->unk_id;
            unk = false;
            s->ids[n++] = id;
            continue;
        }
        size_t bytes = bpe->byte_fallback ? fall_back(bpe, p + i, len, s->ids + n) : 0;
        n += bytes;
        if (bytes > 0 || bpe->unk_id < 0) continue;
        if (unk && !bpe->fuse_unk) s->ids[n++] = bpe->unk_id;
        unk = true;
    }
    if (unk) s->ids[n++] = bpe->unk_id;
    return n;
}

static void map_bytes(struct str *out, const char *piece, size_t size) {
    str_clear(out);
    for (size_t i = 0; i < size; i++) {
        str_add_codepoint(out, byte_level_encode((unsigned char)piece[i]));
    }
}

static void encode_piece(const struct bpe *bpe, struct bpe_scratch *s, const char *piece,
                         size_t size, bool raw, struct ids *out) {
    /* At most one symbol a byte, and an unknown that is due while bytes are written. */
    reserve(s, 2 * size + 2);
    size_t n = size;
    if (raw && bpe->all_bytes) {
        for (size_t i = 0; i < size; i++) s->ids[i] = bpe->byte_ids[(unsigned char)piece[i]];
    } else if (raw) {
        n = symbols_of_text(bpe, s, s->mapped.data, s->mapped.size);
    } else {
        n = symbols_of_text(bpe, s, piece, size);
    }
    if (n == 0) return;
    if (n <= SMALL_PIECE) {
        merge_small(bpe, s, n, out);
    } else {
        merge_large(bpe, s, n, out);
    }
}

/* Where the next word begins: at a mark with something else before it. */
static size_t next_word(const char *p, size_t from, size_t size) {
    const size_t n = sizeof BPE_SPACE - 1;
    while (from < size) {
        const char *mark = memmem(p + from, size - from, BPE_SPACE, n);
        if (mark == NULL) break;
        size_t at = (size_t)(mark - p);
        if (at >= n && memcmp(mark - n, BPE_SPACE, n) != 0) return at;
        if (at > 0 && at < n) return at;
        from = at + n;
    }
    return size;
}

void bpe_encode(const struct bpe *bpe, struct bpe_scratch *s, const char *piece, size_t size,
                bool raw, struct ids *out) {
    if (size == 0) return;
    if (raw && (bpe->ignore_merges || !bpe->all_bytes)) map_bytes(&s->mapped, piece, size);
    if (bpe->ignore_merges) {
        int32_t whole =
            raw ? vocab_find(bpe, s->mapped.data, s->mapped.size) : vocab_find(bpe, piece, size);
        if (whole >= 0) {
            ids_add(out, whole);
            return;
        }
    }
    if (raw || !bpe->words) {
        encode_piece(bpe, s, piece, size, raw, out);
        return;
    }
    for (size_t start = 0, end; start < size; start = end) {
        end = next_word(piece, start + 1, size);
        encode_piece(bpe, s, piece + start, end - start, false, out);
    }
}
