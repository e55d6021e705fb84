/* Any bytes as text, cut into spans by the first two: valid ids, spans that agree with the flags,
 * the text back where the tokenizer keeps it, and a stream that equals the whole.
 *
 * Run in the source's root: reads tests/data/tokenizer. */
#include <stdio.h>
#include <string.h>

#include "tokenizers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const families[] = {"llama3",   "qwen2",     "gemma",
                                       "oddments", "metaspace", "tekken-v13"};
enum { FAMILIES = sizeof families / sizeof *families };

static struct tokenizer *tokenizer_of(int family) {
    static struct tokenizer *loaded[FAMILIES];
    return tokenizer_loaded(&loaded[family], families[family]);
}

static void require(bool holds) {
    if (!holds) __builtin_trap();
}

static bool same(const struct ids *a, const struct ids *b) {
    return a->count == b->count &&
           (a->count == 0 || memcmp(a->data, b->data, a->count * sizeof *a->data) == 0);
}

static void check_stream(const struct tokenizer *t, const struct ids *ids,
                         const struct str *whole) {
    struct str stream = {0};
    struct detok d;
    detok_init(&d, t, false);
    for (size_t i = 0; i < ids->count; i++) {
        size_t before = stream.size;
        detok_add(&d, ids->data[i], &stream);
        require(utf8_valid(stream.data ? stream.data + before : "", stream.size - before));
    }
    detok_end(&d, &stream);
    detok_free(&d);
    require(stream.size == whole->size &&
            (stream.size == 0 || memcmp(stream.data, whole->data, stream.size) == 0));
    str_free(&stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    int family = data[0] % FAMILIES;
    const struct tokenizer *t = tokenizer_of(family);
    const char *text = (const char *)data + 2;
    size -= 2;
    size_t cut = size * data[1] / 256;
    struct ids ids = {0}, plain = {0}, spanned = {0};
    tokenizer_encode(t, text, size, NULL, 0, 0, &ids);
    tokenizer_encode(t, text, size, NULL, 0, TOKENIZE_PLAIN, &plain);
    struct text_span spans[2] = {{cut, false}, {size - cut, false}};
    tokenizer_encode(t, text, size, spans, 2, 0, &spanned);
    require(same(&plain, &spanned));
    spans[0].special = spans[1].special = true;
    spanned.count = 0;
    tokenizer_encode(t, text, size, spans, 2, 0, &spanned);
    require(same(&ids, &spanned));
    spans[1].special = false;
    spanned.count = 0;
    tokenizer_encode(t, text, size, spans, 2, 0, &spanned);
    struct str whole = {0};
    tokenizer_decode(t, plain.data, plain.count, false, &whole);
    /* "▁" is how spaces are written inside. */
    bool kept = family == 0 || family == 5 ||
                (family == 2 && memmem(text, size, "\xe2\x96\x81", 3) == NULL);
    if (kept && utf8_valid(text, size)) {
        require(whole.size == size && (size == 0 || memcmp(whole.data, text, size) == 0));
    }
    check_stream(t, &plain, &whole);
    str_free(&whole);
    ids_free(&ids);
    ids_free(&plain);
    ids_free(&spanned);
    return 0;
}
