#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/tokenizer_internal.h"

void ids_add(struct ids *ids, int32_t id) {
    if (ids->count == ids->capacity) {
        ids->capacity = ids->capacity ? ids->capacity * 2 : 64;
        ids->data = mem_grow(ids->data, ids->capacity * sizeof *ids->data);
    }
    ids->data[ids->count++] = id;
}

void ids_free(struct ids *ids) {
    free(ids->data);
    *ids = (struct ids){0};
}

void tokenizer_free(struct tokenizer *t) {
    if (t == NULL) return;
    bpe_free(&t->bpe);
    map_free(&t->added_ids);
    added_set_free(&t->raw_set);
    added_set_free(&t->normalized_set);
    regex_free(t->word);
    normalizer_free(&t->normalizer);
    pretok_free(&t->pretok);
    decoder_free(&t->decoder);
    ids_free(&t->prefix);
    ids_free(&t->suffix);
    free(t->tokens);
    free(t->added);
    arena_free(&t->arena);
    free(t);
}

int32_t tokenizer_size(const struct tokenizer *t) {
    return t->size;
}

static const struct token *token_at(const struct tokenizer *t, int32_t id) {
    if (id < 0 || id >= t->size || t->tokens[id].content.data == NULL) return NULL;
    return &t->tokens[id];
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id) {
    const struct token *token = token_at(t, id);
    return token != NULL && token->special;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *content, size_t size) {
    struct slice key = {content, size};
    const int64_t *found = map_find(&t->added_ids, key);
    if (found) return t->added[*found].id;
    found = map_find(&t->bpe.vocab, key);
    return found ? (int32_t)*found : -1;
}

struct slice tokenizer_content(const struct tokenizer *t, int32_t id) {
    const struct token *token = token_at(t, id);
    return token ? token->content : (struct slice){NULL, 0};
}

/* ---- encode ---- */

/* All that one call needs besides the tokenizer. */
struct encoding {
    const struct tokenizer *t;
    struct regex_scratch regex;
    struct normalize_scratch normalize;
    struct pretok_scratch pretok;
    struct bpe_scratch bpe;
    struct segments outer, inner;
    struct str text, mask; /* the input made valid; a mask byte for each of its bytes */
    struct ids *out;
};

/* A mask byte per byte of the input, from the runs; what the runs do not cover may not be special.
 */
static void mask_from_spans(struct encoding *e, size_t size, const struct text_span *spans,
                            size_t span_count) {
    str_reserve(&e->mask, size);
    memset(e->mask.data, 0, size);
    size_t at = 0;
    for (size_t i = 0; i < span_count && at < size; i++) {
        size_t n = spans[i].bytes < size - at ? spans[i].bytes : size - at;
        if (spans[i].special) memset(e->mask.data + at, 1, n);
        at += n;
    }
    e->mask.size = size;
}

/* Valid UTF-8 of the text: each broken byte becomes U+FFFD, and its mask byte three. */
static void make_valid(struct encoding *e, const char *text, size_t size, bool masked) {
    struct str mask = {0};
    str_reserve(&e->text, size + size / 8);
    for (size_t i = 0; i < size;) {
        size_t n = utf8_sequence_length(text + i, size - i);
        size_t from = n > 0 ? n : 1, to = n > 0 ? n : 3;
        str_add(&e->text, n > 0 ? text + i : "\xEF\xBF\xBD", to);
        for (size_t k = 0; masked && k < to; k++) {
            str_add_char(&mask, e->mask.data[i + (k < from ? k : from - 1)]);
        }
        i += from;
    }
    if (!masked) return;
    str_free(&e->mask);
    e->mask = mask;
}

static void encode_plain(struct encoding *e, struct slice text, bool at_start) {
    const struct tokenizer *t = e->t;
    pretok_run(&t->pretok, &e->pretok, &e->regex, &text, at_start);
    for (size_t i = 0; i < e->pretok.pieces.count; i++) {
        struct piece piece = e->pretok.pieces.data[i];
        bpe_encode(&t->bpe, &e->bpe, text.data + piece.start, piece.size, t->pretok.raw, e->out);
    }
}

/* Text between the tokens that were cut out as they stood: normalized, then cut once more. */
static void encode_segment(struct encoding *e, struct added_rules rules, struct slice text,
                           const char *mask, bool at_start) {
    const struct tokenizer *t = e->t;
    bool masked = mask != NULL && t->normalized_special;
    normalize_run(&t->normalizer, &e->normalize, &e->regex, &text, masked ? &mask : NULL);
    if (t->normalized_set.count == 0) {
        encode_plain(e, text, at_start);
        return;
    }
    rules.mask = masked ? mask : NULL;
    e->inner.count = 0;
    added_find(&t->normalized_set, &rules, text.data, text.size, &e->inner);
    for (size_t i = 0; i < e->inner.count; i++) {
        struct segment s = e->inner.data[i];
        if (s.token) {
            ids_add(e->out, s.token->id);
        } else {
            encode_plain(e, (struct slice){text.data + s.start, s.end - s.start},
                         at_start && s.start == 0);
        }
    }
}

static void encode_all(struct encoding *e, struct slice text, const char *mask, bool plain) {
    const struct tokenizer *t = e->t;
    struct added_rules rules = {.mask = mask, .plain = plain, .word = t->word, .regex = &e->regex};
    added_find(&t->raw_set, &rules, text.data, text.size, &e->outer);
    for (size_t i = 0; i < e->outer.count; i++) {
        struct segment s = e->outer.data[i];
        if (s.token) {
            ids_add(e->out, s.token->id);
            continue;
        }
        encode_segment(e, rules, (struct slice){text.data + s.start, s.end - s.start},
                       mask ? mask + s.start : NULL, s.start == 0);
    }
}

static void encoding_free(struct encoding *e) {
    regex_scratch_free(&e->regex);
    normalize_scratch_free(&e->normalize);
    pretok_scratch_free(&e->pretok);
    bpe_scratch_free(&e->bpe);
    free(e->outer.data);
    free(e->inner.data);
    str_free(&e->text);
    str_free(&e->mask);
}

void tokenizer_encode(const struct tokenizer *t, const char *text, size_t size,
                      const struct text_span *spans, size_t span_count, unsigned flags,
                      struct ids *out) {
    struct encoding e = {.t = t, .out = out};
    bool plain = (flags & TOKENIZE_PLAIN) != 0, masked = spans != NULL && !plain;
    regex_scratch_init(&e.regex);
    if (masked) mask_from_spans(&e, size, spans, span_count);
    struct slice valid = {size ? text : "", size};
    if (!utf8_valid(valid.data, size)) {
        make_valid(&e, text, size, masked);
        valid = (struct slice){e.text.data, e.text.size};
    }
    bool around = (flags & TOKENIZE_ADD_SPECIAL) != 0;
    for (size_t i = 0; around && i < t->prefix.count; i++) ids_add(out, t->prefix.data[i]);
    encode_all(&e, valid, masked ? e.mask.data : NULL, plain);
    for (size_t i = 0; around && i < t->suffix.count; i++) ids_add(out, t->suffix.data[i]);
    encoding_free(&e);
}

/* ---- decode ---- */

void detok_init(struct detok *d, const struct tokenizer *t, bool skip_special) {
    *d = (struct detok){.tokenizer = t, .skip_special = skip_special};
    d->state = decode_start(&t->decoder);
}

static bool is_shown(const struct detok *d, int32_t id) {
    for (size_t i = 0; i < d->shown_count; i++) {
        if (d->shown[i] == id) return true;
    }
    return false;
}

void detok_add(struct detok *d, int32_t id, struct str *out) {
    const struct token *token = token_at(d->tokenizer, id);
    if (token == NULL) return;
    if (d->skip_special && token->skipped && !is_shown(d, id)) {
        if (d->tokenizer->skipped_cuts) decode_end(d->state, out);
        return;
    }
    decode_add(d->state, token->decoded, out);
}

void detok_end(struct detok *d, struct str *out) {
    decode_end(d->state, out);
}

void detok_free(struct detok *d) {
    decode_free(d->state);
    *d = (struct detok){0};
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t count,
                      bool skip_special, struct str *out) {
    struct detok d;
    detok_init(&d, t, skip_special);
    for (size_t i = 0; i < count; i++) detok_add(&d, ids[i], out);
    detok_end(&d, out);
    detok_free(&d);
}
