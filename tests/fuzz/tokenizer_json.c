/* Any bytes as a tokenizer.json: refused, or a tokenizer that encodes and decodes. */
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] =
        "<s>Hello 123,\n\n don't \xc3\xa9t\xcc\x81\xe4\xb8\xad \xff \xf0\x9f\x98\x80 aab</s>";
    struct tokenizer *t = NULL;
    struct imp_error err;
    if (tokenizer_parse((const char *)data, size, "fuzz", NULL, &t, &err) < 0) return 0;
    struct ids ids = {0};
    struct str out = {0};
    tokenizer_encode(t, text, sizeof text - 1, NULL, 0, TOKENIZE_ADD_SPECIAL, &ids);
    for (size_t i = 0; i < ids.count; i++) {
        if (tokenizer_content(t, ids.data[i]).data == NULL) __builtin_trap();
    }
    tokenizer_decode(t, ids.data, ids.count, false, &out);
    if (!utf8_valid(out.data ? out.data : "", out.size)) __builtin_trap();
    str_free(&out);
    ids_free(&ids);
    tokenizer_free(t);
    return 0;
}
