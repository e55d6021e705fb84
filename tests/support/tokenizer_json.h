/* tokenizer.json put together from its parts, read and used. Assert on any failure. */
#ifndef IMP_TESTS_SUPPORT_TOKENIZER_JSON_H
#define IMP_TESTS_SUPPORT_TOKENIZER_JSON_H

#include <string.h>

#include "text/tokenizer.h"

#define MODEL(vocab, merges) "{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}"
#define FILE_WITH(added, model)                                                                    \
    "{\"version\":\"1.0\",\"added_tokens\":[" added "],\"model\":" model "}"
#define AB          MODEL("\"a\":0,\"b\":1,\"ab\":2", "\"a b\"")
#define PART(field) "{" field ",\"model\":" AB "}"

#define ADDED(id, content) "{\"id\":" id ",\"content\":\"" content "\",\"special\":true}"

static inline struct tokenizer *parse(const char *json, struct imp_error *err) {
    struct tokenizer *t = NULL;
    *err = (struct imp_error){0};
    int rc = tokenizer_parse(json, strlen(json), "t.json", NULL, &t, err);
    assert_int_equal(rc, err->code);
    assert_true((rc == 0) == (t != NULL));
    return t;
}

/* Refused with this code, and the place is named. */
static inline void refused(const char *json, int code, const char *where) {
    struct imp_error err;
    struct tokenizer *t = parse(json, &err);
    if (t != NULL) fail_msg("not refused: %.200s", json);
    if (err.code != code || strstr(err.where, where) == NULL) {
        fail_msg("%.100s: %d, \"%s\", %s", json, err.code, err.where, err.message);
    }
}

static inline struct ids encode(const struct tokenizer *t, const char *text, size_t size,
                                unsigned flags) {
    struct ids ids = {0};
    tokenizer_encode(t, text, size, NULL, 0, flags, &ids);
    return ids;
}

static inline struct ids encode_text(const struct tokenizer *t, const char *text, unsigned flags) {
    return encode(t, text, strlen(text), flags);
}

#endif
