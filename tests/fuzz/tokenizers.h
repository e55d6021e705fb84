/* Tokenizers of tests/data/tokenizer for the fuzz targets, each loaded when first asked for. */
#ifndef IMP_TESTS_FUZZ_TOKENIZERS_H
#define IMP_TESTS_FUZZ_TOKENIZERS_H

#include <stdio.h>

#include "text/tokenizer.h"

static inline struct tokenizer *tokenizer_loaded(struct tokenizer **at, const char *family) {
    char folder[100];
    snprintf(folder, sizeof folder, "tests/data/tokenizer/%s", family);
    if (*at == NULL && tokenizer_load(folder, NULL, at, NULL) < 0) __builtin_trap();
    return *at;
}

#endif
