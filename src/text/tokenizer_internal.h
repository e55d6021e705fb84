/* What the files of the tokenizer share. Nobody else includes this. */
#ifndef IMP_TEXT_TOKENIZER_INTERNAL_H
#define IMP_TEXT_TOKENIZER_INTERNAL_H

#include <yyjson.h>

#include "base/arena.h"
#include "base/map.h"
#include "text/added.h"
#include "text/bpe.h"
#include "text/decode.h"
#include "text/normalize.h"
#include "text/pretok.h"
#include "text/tokenizer.h"

struct token {
    struct slice content; /* as in the file; data NULL: no such id */
    struct slice decoded; /* what the decoder gets: an added token's normalized form */
    bool special;         /* tokenizer_is_special */
    bool skipped;         /* by a decoder that skips special tokens */
};

struct tokenizer {
    struct arena arena;   /* contents */
    struct token *tokens; /* [size], by id */
    int32_t size;
    struct bpe bpe;
    struct added_token *added;
    size_t added_count;
    struct map added_ids;            /* content -> index in added */
    struct added_set raw_set;        /* looked for in the text as it came */
    struct added_set normalized_set; /* looked for in normalized text */
    bool normalized_special;         /* one of the latter is special */
    struct regex *word;              /* NULL: no token asks for single_word */
    struct normalizer normalizer;
    struct pretok pretok;
    struct decoder decoder;
    bool skipped_cuts;         /* a token that is skipped ends a character that is unfinished */
    struct ids prefix, suffix; /* what the post-processor puts around one sequence */
};

/* A place in the document, for messages: "$.model.merges[3]". */
struct json_at {
    const struct json_at *up;
    const char *key; /* NULL: an index */
    size_t index;
};

#define AT(parent, name)    (&(struct json_at){.up = (parent), .key = (name)})
#define AT_INDEX(parent, i) (&(struct json_at){.up = (parent), .index = (i)})
extern const struct json_at load_root_at;

struct loader {
    struct tokenizer *t;
    const char *name; /* of the file */
    const struct log *log;
    struct imp_error *err;
};

/* Sets the error at this place and returns its code. */
int load_fail(struct loader *l, const struct json_at *at, int code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void load_where(const struct loader *l, const struct json_at *at, char *out, size_t size);

/* Getters of a field. Absent or null leaves *out as it is; another type is an error. */
int load_bool(struct loader *l, yyjson_val *object, const struct json_at *at, const char *key,
              bool *out);
int load_text(struct loader *l, yyjson_val *object, const struct json_at *at, const char *key,
              struct slice *out);
int load_size(struct loader *l, yyjson_val *object, const struct json_at *at, const char *key,
              size_t *out);
/* An error if the object has a key that is not in the list, which ends with NULL. */
int load_known_keys(struct loader *l, yyjson_val *object, const struct json_at *at,
                    const char *const *known);
/* The "type" of a component. */
int load_type(struct loader *l, yyjson_val *object, const struct json_at *at, struct slice *out);
struct slice load_copy(struct loader *l, struct slice text); /* into the tokenizer's arena */

/* The field, or NULL where it is absent or null. */
yyjson_val *load_field(yyjson_val *object, const char *key);
bool load_id(yyjson_val *value, int64_t *id); /* a whole number under CAP_VOCAB */
int32_t load_vocab_id(const struct tokenizer *t, struct slice content); /* or -1 */

/* tokenizer_tekken.c: the whole of a tekken.json. */
int load_tekken(struct loader *l, yyjson_val *root, yyjson_val *config);

/* tokenizer_added.c: from tokenizer.json (an array with ids) or tokenizer_config.json (an object by
 * id). First listed, then given their places in tokens[]; finished when the normalizer is there. */
struct added_source {
    yyjson_val *value;
    struct json_at at;
    int64_t id;
};
int added_list(struct loader *l, yyjson_val *root, yyjson_val *config, struct added_source **list,
               size_t *count); /* *list: free() it, also after an error */
int added_place(struct loader *l, const struct added_source *list, size_t count);
int added_finish(struct loader *l);

/* tokenizer_steps.c; value may be NULL or null. */
int load_normalizer(struct loader *l, yyjson_val *value);
int load_pretok(struct loader *l, yyjson_val *value);
int load_decoder(struct loader *l, yyjson_val *value);

#endif
