/* Any bytes as ids, two bytes each: valid UTF-8, and a stream that equals the whole, piece by piece
 * of whole characters. The first byte names a tokenizer.
 *
 * Run in the source's root: reads tests/data/tokenizer. */
#include <stdio.h>
#include <string.h>

#include "tokenizers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const families[] = {"llama3",    "gemma",    "llama2",
                                       "metaspace", "oddments", "tekken-v13"};
enum { FAMILIES = sizeof families / sizeof *families };

static struct tokenizer *tokenizer_of(int family) {
    static struct tokenizer *loaded[FAMILIES];
    return tokenizer_loaded(&loaded[family], families[family]);
}

static void check(const struct tokenizer *t, const struct ids *ids, bool skip_special) {
    struct str whole = {0}, stream = {0};
    struct detok d;
    tokenizer_decode(t, ids->data, ids->count, skip_special, &whole);
    detok_init(&d, t, skip_special);
    for (size_t i = 0; i < ids->count; i++) {
        size_t before = stream.size;
        detok_add(&d, ids->data[i], &stream);
        const char *piece = stream.data ? stream.data + before : "";
        if (!utf8_valid(piece, stream.size - before)) __builtin_trap();
    }
    detok_end(&d, &stream);
    detok_free(&d);
    if (!utf8_valid(whole.data ? whole.data : "", whole.size)) __builtin_trap();
    if (!slice_equal((struct slice){whole.data, whole.size},
                     (struct slice){stream.data, stream.size})) {
        __builtin_trap();
    }
    str_free(&whole);
    str_free(&stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    const struct tokenizer *t = tokenizer_of(data[0] % FAMILIES);
    struct ids ids = {0};
    /* A little past both ends: such ids give nothing. */
    for (size_t i = 1; i + 1 < size; i += 2) {
        int32_t number = data[i] | data[i + 1] << 8;
        ids_add(&ids, number % (tokenizer_size(t) + 4) - 2);
    }
    check(t, &ids, false);
    check(t, &ids, true);
    ids_free(&ids);
    return 0;
}
