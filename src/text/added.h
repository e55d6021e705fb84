/* Added tokens: contents that are cut out of the text before anything else looks at it.
 *
 * Immutable after loading, any thread. */
#ifndef IMP_TEXT_ADDED_H
#define IMP_TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "text/regex.h"

struct added_token {
    int32_t id;
    struct slice content; /* as in the file; the tokenizer's */
    struct slice match;   /* what is looked for: normalized where `normalized` */
    bool special, normalized, left_strip, right_strip, single_word;
};

/* Sorted by `match`, so that those with a common start stand together. */
struct added_set {
    const struct added_token **tokens;
    uint32_t count;
    uint32_t first[257]; /* tokens whose match starts with byte b: first[b] to first[b + 1] */
};

void added_set_build(struct added_set *set, const struct added_token *tokens, size_t count,
                     bool normalized);
void added_set_free(struct added_set *set);

struct segment {
    const struct added_token *token; /* NULL: text between */
    size_t start, end;
};

struct segments {
    struct segment *data;
    size_t count, capacity;
};

struct added_rules {
    const char *mask; /* a byte per byte of text: 0 where no special token may be; NULL: all may */
    bool plain;       /* none may */
    const struct regex *word;
    struct regex_scratch *regex;
};

/* Appends segments that tile the text, leftmost and longest tokens first. */
void added_find(const struct added_set *set, const struct added_rules *rules, const char *text,
                size_t size, struct segments *out);

#endif
