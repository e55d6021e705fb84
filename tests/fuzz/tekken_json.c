/* Any bytes as a tekken.json, or spliced into a sound one: refused, or a tokenizer that encodes
 * plain text without loss.
 *
 * Input that does not begin with "{" is parts of a sound file, for generic bytes would hardly get
 * past its 256 bytes: a byte each for the counts of special tokens, of tokens listed and of tokens
 * used, and the version; then lines: the pattern, tokens behind the 256, members of the whole. */
#include <stdio.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct slice next_line(struct slice *rest) {
    const char *end = rest->size ? memchr(rest->data, '\n', rest->size) : NULL;
    size_t n = end ? (size_t)(end - rest->data) : rest->size;
    struct slice line = {rest->data, n};
    *rest = (struct slice){rest->data + n + (end != NULL), rest->size - n - (end != NULL)};
    return line;
}

static void splice(struct slice input, struct str *out) {
    static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char *const versions[] = {"v3", "v7", "v11", "v13", "v15", "v99"};
    unsigned head[4] = {0};
    for (int i = 0; i < 4 && input.size > 0; i++) {
        head[i] = (unsigned char)*input.data;
        input = (struct slice){input.data + 1, input.size - 1};
    }
    struct slice pattern = next_line(&input), tokens = next_line(&input);
    str_add_text(out, "{\"config\":{\"pattern\":\"");
    str_add(out, pattern.data, pattern.size);
    str_printf(out,
               "\",\"default_num_special_tokens\":%u,\"num_vocab_tokens\":%u,"
               "\"default_vocab_size\":%u,\"version\":\"%s\"},\"vocab\":[",
               head[0], 256 + head[1], 256 + head[2], versions[head[3] % 6]);
    for (unsigned b = 0; b < 256; b++) {
        str_printf(out, "%s{\"rank\":%u,\"token_bytes\":\"%c%c==\",\"token_str\":null}",
                   b ? "," : "", b, base64[b >> 2], base64[(b & 3) << 4]);
    }
    str_add(out, tokens.data, tokens.size);
    str_add_text(out, "]");
    str_add(out, input.data, input.size);
    str_add_text(out, "}");
}

static void check_text(const struct tokenizer *t, const char *text, size_t size) {
    struct ids ids = {0};
    struct str out = {0};
    tokenizer_encode(t, text, size, NULL, 0, TOKENIZE_PLAIN, &ids);
    for (size_t i = 0; i < ids.count; i++) {
        if (tokenizer_content(t, ids.data[i]).data == NULL) __builtin_trap();
        if (tokenizer_is_special(t, ids.data[i])) __builtin_trap();
    }
    tokenizer_decode(t, ids.data, ids.count, false, &out);
    if (out.size != size || memcmp(out.data, text, size) != 0) __builtin_trap();
    ids.count = 0;
    tokenizer_encode(t, text, size, NULL, 0, TOKENIZE_ADD_SPECIAL, &ids);
    str_clear(&out);
    tokenizer_decode(t, ids.data, ids.count, true, &out);
    if (!utf8_valid(out.data ? out.data : "", out.size)) __builtin_trap();
    str_free(&out);
    ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "<s>Hello 123,\n\n don't \xc3\xa9t\xcc\x81\xe4\xb8\xad "
                               "\xf0\x9f\x98\x80 aab</s>[INST]abab <SPECIAL_3>";
    struct tokenizer *t = NULL;
    struct imp_error err;
    struct str spliced = {0};
    struct slice json = {(const char *)data, size};
    if (size > 0 && data[0] != '{') {
        splice(json, &spliced);
        json = (struct slice){spliced.data, spliced.size};
    }
    if (tokenizer_parse_tekken(json.data, json.size, "fuzz", NULL, &t, &err) == 0) {
        check_text(t, text, sizeof text - 1);
    }
    tokenizer_free(t);
    str_free(&spliced);
    return 0;
}
