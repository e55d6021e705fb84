/* Pre-tokenizers of a tokenizer.json: cut normalized text into the pieces that the model sees.
 * Immutable after loading, any thread; a pretok_scratch belongs to one thread at a time. */
#ifndef IMP_TEXT_PRETOK_H
#define IMP_TEXT_PRETOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/caps.h"
#include "base/str.h"
#include "text/regex.h"

enum pretok_kind {
    PRETOK_PATTERN,     /* Split, Whitespace, the GPT-2 expression of ByteLevel */
    PRETOK_NUMERIC,     /* Digits */
    PRETOK_PUNCTUATION, /* Punctuation, second half of BertPreTokenizer */
    PRETOK_SPACE,       /* WhitespaceSplit, first half of BertPreTokenizer */
    PRETOK_CHARACTER,   /* CharDelimiterSplit, the split of Metaspace */
    PRETOK_PREFIX,      /* a text put before every piece that does not begin with it */
    PRETOK_SPACES_TO,   /* Metaspace: every space becomes `content` */
    PRETOK_BYTES,       /* bytes become the characters that stand for them (unicode.h) */
    PRETOK_FIXED,       /* FixedLength */
};

enum pretok_behaviour {
    PRETOK_ISOLATED,
    PRETOK_REMOVED,
    PRETOK_MERGED_WITH_PREVIOUS,
    PRETOK_MERGED_WITH_NEXT,
    PRETOK_CONTIGUOUS,
};

struct pretok_step {
    enum pretok_kind kind;
    enum pretok_behaviour behaviour;
    bool invert;           /* PATTERN: what lies between the matches counts as the match */
    bool first_only;       /* PREFIX: only at the very start of the whole text */
    struct regex *pattern; /* PATTERN; owned */
    uint32_t character;    /* CHARACTER */
    char content[8];       /* PREFIX, SPACES_TO: one character, zero-terminated */
    size_t length;         /* FIXED, in characters */
};

/* One pre-tokenizer of the file may be several steps. A last PRETOK_BYTES is not a step: `raw` is
 * set, and the model reads bytes itself. */
struct pretok {
    struct pretok_step steps[CAP_TOKENIZER_STEPS];
    int count;
    bool raw;
};

struct piece {
    size_t start, size;
};

struct run {
    size_t start, end;
    bool match;
};

struct pieces {
    struct piece *data;
    size_t count, capacity;
};

struct pretok_scratch {
    struct pieces pieces, spare;
    bool untouched; /* the first piece begins where the text began */
    struct run *runs;
    size_t run_count, run_capacity;
    struct str text, spare_text;
};

/* Cuts *text; *text then is what scratch->pieces refer to. at_start: the text begins where the
 * whole input begins. Empty pieces never come out. */
void pretok_run(const struct pretok *p, struct pretok_scratch *scratch, struct regex_scratch *regex,
                struct slice *text, bool at_start);
void pretok_free(struct pretok *p);
void pretok_scratch_free(struct pretok_scratch *scratch);

#endif
