/* tool_tokenizer_probe FOLDER TEXTS.json: for each text of the array (a string, or an array of
 * bytes) a line of JSON with all that the tests in Python compare:
 *
 * "ids"      special tokens recognised, none added     "plain"  special tokens as plain text
 * "text"     ids decoded                               "skipped"  and without special tokens
 * "stream"   whether both come out of a stream too, in pieces of whole characters
 * "bytes"    the text as one token a byte, decoded by a stream; absent where bytes have no tokens
 * "added"    [id, start, end] of the tokens cut out of the text as it stands, in its bytes */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/tokenizer_internal.h"

static void print_ids(const char *key, const struct ids *ids) {
    printf("\"%s\": [", key);
    for (size_t i = 0; i < ids->count; i++) printf("%s%d", i ? "," : "", ids->data[i]);
    printf("], ");
}

static void print_text(const char *key, const struct str *text) {
    struct str quoted = {0};
    str_add_json(&quoted, text->data ? text->data : "", text->size);
    printf("\"%s\": %s, ", key, quoted.data);
    str_free(&quoted);
}

/* False if a piece is no whole characters. */
static bool stream(const struct tokenizer *t, const struct ids *ids, bool skip, struct str *out) {
    struct detok d;
    bool whole = true;
    detok_init(&d, t, skip);
    for (size_t i = 0; i < ids->count; i++) {
        size_t before = out->size;
        detok_add(&d, ids->data[i], out);
        whole &= utf8_valid(out->data ? out->data + before : "", out->size - before);
    }
    detok_end(&d, out);
    detok_free(&d);
    return whole;
}

static bool print_decoded(const struct tokenizer *t, const struct ids *ids, bool skip) {
    struct str whole = {0}, parts = {0};
    tokenizer_decode(t, ids->data, ids->count, skip, &whole);
    bool same = stream(t, ids, skip, &parts) && slice_equal((struct slice){whole.data, whole.size},
                                                            (struct slice){parts.data, parts.size});
    print_text(skip ? "skipped" : "text", &whole);
    str_free(&whole);
    str_free(&parts);
    return same;
}

static void print_bytes(const struct tokenizer *t, const char *text, size_t size) {
    const int32_t *table = t->pretok.raw ? t->bpe.byte_ids : t->bpe.fallback_ids;
    struct ids ids = {0};
    struct str out = {0};
    bool all = t->pretok.raw || t->bpe.byte_fallback;
    for (size_t i = 0; i < size; i++) {
        ids_add(&ids, table[(unsigned char)text[i]]);
        all &= table[(unsigned char)text[i]] >= 0;
    }
    if (all && stream(t, &ids, false, &out)) print_text("bytes", &out);
    str_free(&out);
    ids_free(&ids);
}

static void print_added(const struct tokenizer *t, const char *text, size_t size) {
    struct segments found = {0};
    struct regex_scratch regex;
    regex_scratch_init(&regex);
    struct added_rules rules = {.word = t->word, .regex = &regex};
    if (utf8_valid(text, size)) added_find(&t->raw_set, &rules, text, size, &found);
    const char *comma = "";
    printf("\"added\": [");
    for (size_t i = 0; i < found.count; i++) {
        struct segment s = found.data[i];
        if (s.token == NULL) continue;
        printf("%s[%d,%zu,%zu]", comma, s.token->id, s.start, s.end);
        comma = ",";
    }
    printf("], ");
    regex_scratch_free(&regex);
    free(found.data);
}

static void probe(const struct tokenizer *t, const char *text, size_t size) {
    struct ids ids = {0}, plain = {0};
    tokenizer_encode(t, text, size, NULL, 0, 0, &ids);
    tokenizer_encode(t, text, size, NULL, 0, TOKENIZE_PLAIN, &plain);
    putchar('{');
    print_ids("ids", &ids);
    print_ids("plain", &plain);
    print_added(t, text, size);
    print_bytes(t, text, size);
    bool same = print_decoded(t, &ids, false);
    same &= print_decoded(t, &ids, true);
    printf("\"stream\": %s}\n", same ? "true" : "false");
    ids_free(&ids);
    ids_free(&plain);
}

int main(int argc, char **argv) {
    struct tokenizer *t = NULL;
    struct imp_error err = {0};
    yyjson_doc *doc = NULL;
    yyjson_val *item, *byte;
    size_t i, n, k, bytes;
    if (argc != 3) return 1;
    if (tokenizer_load(argv[1], NULL, &t, &err) < 0 ||
        json_read_file(argv[2], 256 << 20, &doc, &err) < 0) {
        fprintf(stderr, "%s: %s\n", err.where, err.message);
        tokenizer_free(t);
        return 3;
    }
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, item) {
        struct str text = {0};
        if (yyjson_is_str(item)) str_add(&text, yyjson_get_str(item), yyjson_get_len(item));
        yyjson_arr_foreach(item, k, bytes, byte) str_add_char(&text, (char)yyjson_get_int(byte));
        probe(t, text.data ? text.data : "", text.size);
        str_free(&text);
    }
    yyjson_doc_free(doc);
    tokenizer_free(t);
    return 0;
}
