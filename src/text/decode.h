/* Decoders of a tokenizer.json: from the contents of tokens back to text, as a stream.
 *
 * One path serves both ways of decoding, so a stream joined equals the whole. Each step may hold
 * something back until it knows how it ends. */
#ifndef IMP_TEXT_DECODE_H
#define IMP_TEXT_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/caps.h"
#include "base/str.h"
#include "text/regex.h"

enum decode_kind {
    DECODE_BYTE_LEVEL,
    DECODE_BYTE_FALLBACK,
    DECODE_METASPACE,
    DECODE_FUSE,
    DECODE_STRIP,
    DECODE_REPLACE,
    DECODE_JOIN, /* no decoder: tokens with a space between */
};

struct decode_step {
    enum decode_kind kind;
    uint32_t character;    /* METASPACE, STRIP */
    bool drop_first;       /* METASPACE: the first token loses the character, others get a space */
    size_t left, right;    /* STRIP: at most so many */
    struct regex *pattern; /* REPLACE; owned */
    struct slice content;  /* REPLACE; the tokenizer's */
};

struct decoder {
    struct decode_step steps[CAP_TOKENIZER_STEPS];
    int count;
};

struct decode_state {
    const struct decoder *decoder;
    struct regex_scratch regex;
    bool regex_ready;
    struct str *out;
    struct decode_step_state {
        struct str held, made;
        size_t tokens;   /* METASPACE, JOIN: finished so far */
        size_t stripped; /* STRIP: characters gone from the start of this token */
        size_t pending;  /* STRIP: copies of the character at the end so far */
        bool inside;     /* STRIP: past the start; JOIN: the space before this token is out */
    } steps[CAP_TOKENIZER_STEPS];
};

struct decode_state *decode_start(const struct decoder *d);
void decode_add(struct decode_state *s, struct slice token, struct str *out);
void decode_end(struct decode_state *s, struct str *out);
void decode_free(struct decode_state *s); /* NULL is fine */
void decoder_free(struct decoder *d);

/* Appends p[n) with each broken sequence (the longest start of a valid one) as one U+FFFD. */
void decode_add_lossy(struct str *out, const char *p, size_t n);

#endif
