/* Text to token ids and back, from a tokenizer.json or a tekken.json.
 *
 * Owns vocabulary, merges, compiled expressions. Immutable after loading, so any number of threads
 * may encode at once; every call brings its own scratch. Anything in the file that is not
 * implemented refuses to load and names the field. Semantics: the Python package `tokenizers`. */
#ifndef IMP_TEXT_TOKENIZER_H
#define IMP_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/str.h"
#include "imp/imp.h"

struct tokenizer;

struct ids {
    int32_t *data;
    size_t count, capacity;
};
void ids_add(struct ids *ids, int32_t id);
void ids_free(struct ids *ids);

/* `name` stands for the file in messages. log may be NULL. */
int tokenizer_parse(const char *json, size_t size, const char *name, const struct log *log,
                    struct tokenizer **out, struct imp_error *err);
/* The same from Mistral's tekken.json. */
int tokenizer_parse_tekken(const char *json, size_t size, const char *name, const struct log *log,
                           struct tokenizer **out, struct imp_error *err);
/* folder/tokenizer.json, with the added tokens of folder/tokenizer_config.json where the former has
 * none; where there is no tokenizer.json, folder/tekken.json. */
int tokenizer_load(const char *folder, const struct log *log, struct tokenizer **out,
                   struct imp_error *err);
void tokenizer_free(struct tokenizer *t); /* NULL is fine */

#define TOKENIZE_PLAIN       1u /* special tokens in the text are plain text */
#define TOKENIZE_ADD_SPECIAL 2u /* what the post-processor adds around one sequence */

/* Where text comes from, as runs that tile it: special tokens are recognised only where every byte
 * of them lies in runs with `special` true; one that lies partly there does not exist. Bytes behind
 * the last run are not special. spans NULL: the flags decide for the whole text. */
struct text_span {
    size_t bytes;
    bool special;
};

/* Appends to *out. Broken UTF-8: each broken byte counts as U+FFFD. Linear in size, but for a
 * factor of log n where the file does not split the text. Where one of the file's expressions takes
 * more steps or reading than the caps on patterns allow, the rest of that stretch is left in one
 * piece. */
void tokenizer_encode(const struct tokenizer *t, const char *text, size_t size,
                      const struct text_span *spans, size_t span_count, unsigned flags,
                      struct ids *out);

/* Appends the text of all ids together, as the file's decoder makes it. Ids out of range give
 * nothing. Broken UTF-8 made by byte tokens becomes U+FFFD. */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t count,
                      bool skip_special, struct str *out);

/* Rows of ids that exist: 1 + the largest id. Models may have more rows in their embedding. */
int32_t tokenizer_size(const struct tokenizer *t);
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
/* The id of a token by its exact content ("<|im_end|>"), or -1. */
int32_t tokenizer_find(const struct tokenizer *t, const char *content, size_t size);
/* The token's content as written in the file; {NULL, 0} if the id does not exist. */
struct slice tokenizer_content(const struct tokenizer *t, int32_t id);

/* ---- streaming decode ----
 * Feed ids one at a time; what comes out, joined, equals tokenizer_decode of all of them, and each
 * piece holds whole UTF-8 characters: bytes of an unfinished one are held back. */
struct decode_state;
struct detok {
    const struct tokenizer *tokenizer;
    bool skip_special;
    const int32_t *shown; /* special tokens that come out all the same; the caller's, or NULL */
    size_t shown_count;
    struct decode_state *state; /* what is held back; freed by detok_free */
};
void detok_init(struct detok *d, const struct tokenizer *t, bool skip_special);
void detok_add(struct detok *d, int32_t id, struct str *out); /* appends what is complete */
void detok_end(struct detok *d, struct str *out);             /* the rest, U+FFFD where broken */
void detok_free(struct detok *d);

#endif
