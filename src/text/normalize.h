/* Normalizers of a tokenizer.json: text before it is split. Immutable after loading, any thread. */
#ifndef IMP_TEXT_NORMALIZE_H
#define IMP_TEXT_NORMALIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/caps.h"
#include "base/str.h"
#include "text/regex.h"

enum normalize_kind {
    NORMALIZE_NFC,
    NORMALIZE_NFD,
    NORMALIZE_NFKC,
    NORMALIZE_NFKD,
    NORMALIZE_REPLACE,
    NORMALIZE_PREPEND,
    NORMALIZE_LOWERCASE,
    NORMALIZE_STRIP,
    NORMALIZE_STRIP_ACCENTS,
    NORMALIZE_NMT,
    NORMALIZE_BYTE_LEVEL,
};

struct normalize_step {
    enum normalize_kind kind;
    struct regex *pattern; /* REPLACE; owned */
    struct slice content;  /* REPLACE and PREPEND: what is put in; the tokenizer's */
    bool left, right;      /* STRIP */
};

struct normalizer {
    struct normalize_step steps[CAP_TOKENIZER_STEPS];
    int count;
};

/* Text, and for each of its bytes 1 if special tokens may be recognised there. mask stays empty
 * where nobody asks. */
struct masked {
    struct str text, mask;
};

struct normalize_scratch {
    struct masked a, b;
    int32_t *codepoints;
    size_t codepoint_capacity;
};

/* The result is *text itself (nothing to change) or lives in scratch until the next call. mask: as
 * many bytes as text, or NULL; afterwards that of the result. */
void normalize_run(const struct normalizer *n, struct normalize_scratch *scratch,
                   struct regex_scratch *regex, struct slice *text, const char **mask);
void normalizer_free(struct normalizer *n);
void normalize_scratch_free(struct normalize_scratch *scratch);

#endif
