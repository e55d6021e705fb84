/* tokenizer.json and tokenizer_config.json from a GGUF file's tokenizer.ggml keys.
 *
 * Two kinds: "gpt2" is byte-level BPE whose splitting rule is named by tokenizer.ggml.pre; "llama"
 * is SentencePiece BPE, whose merges follow from the scores: every split of a token into two
 * others, best score first, splits of one token by the ids of their halves. The merges of the
 * models' own tokenizer.json files lie in that order. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "load/gguf_import_internal.h"

enum token_type { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

struct vocabulary {
    const struct gguf *g;
    struct imp_error *err;
    size_t count;
    struct slice *token; /* [count] */
    uint8_t *type;       /* [count] enum token_type */
    float *score;        /* [count], or NULL */
    struct map by_text;
};

static void vocabulary_free(struct vocabulary *v) {
    free(v->token);
    free(v->type);
    free(v->score);
    map_free(&v->by_text);
}

static int array_key(const struct vocabulary *v, const char *key, enum gguf_kind a,
                     enum gguf_kind b, const struct gguf_value **out) {
    *out = gguf_find(v->g, key);
    if (*out == NULL) return 0;
    bool right = (*out)->kind == GGUF_KIND_ARRAY && ((*out)->element == a || (*out)->element == b);
    if (!right)
        return gguf_key_error(v->g, key, IMP_ERR_FILE, v->err, "is not the array it must be");
    bool per_token = strcmp(key, "tokenizer.ggml.merges") != 0 && v->count > 0;
    if (per_token && (*out)->count != v->count)
        return gguf_key_error(v->g, key, IMP_ERR_FILE, v->err, "has %llu entries for %zu tokens",
                              (unsigned long long)(*out)->count, v->count);
    return 0;
}

static int read_tokens(struct vocabulary *v, const struct gguf_shape *shape) {
    const char *key = "tokenizer.ggml.tokens";
    const struct gguf_value *array;
    int rc = array_key(v, key, GGUF_KIND_STRING, GGUF_KIND_STRING, &array);
    if (rc < 0) return rc;
    if (array == NULL || array->count == 0)
        return gguf_key_error(v->g, key, IMP_ERR_FILE, v->err, "is missing or empty");
    if (array->count > (uint64_t)shape->vocab)
        return gguf_key_error(v->g, key, IMP_ERR_FILE, v->err,
                              "has %llu entries for %lld rows of the embedding",
                              (unsigned long long)array->count, (long long)shape->vocab);
    v->count = (size_t)array->count;
    v->token = mem_zero(v->count, sizeof *v->token);
    v->type = mem_alloc(v->count);
    memset(v->type, TYPE_NORMAL, v->count);
    map_create(&v->by_text, v->count);
    const uint8_t *cursor = NULL;
    for (size_t i = 0; i < v->count && gguf_string_next(array, &cursor, &v->token[i]); i++) {
        if (!utf8_valid(v->token[i].data, v->token[i].size))
            return gguf_key_error(v->g, key, IMP_ERR_FILE, v->err, "token %zu is not UTF-8", i);
        if (!map_add(&v->by_text, v->token[i], (int64_t)i))
            return gguf_key_error(v->g, key, IMP_ERR_FILE, v->err, "token %zu occurs twice", i);
    }
    return 0;
}

static bool is_byte_token(struct slice s) {
    return s.size == 6 && memcmp(s.data, "<0x", 3) == 0 && isxdigit((unsigned char)s.data[3]) &&
           isxdigit((unsigned char)s.data[4]) && s.data[5] == '>';
}

static int read_types_and_scores(struct vocabulary *v) {
    const struct gguf_value *array;
    int rc = array_key(v, "tokenizer.ggml.token_type", GGUF_KIND_INT, GGUF_KIND_UINT, &array);
    if (rc < 0) return rc;
    for (size_t i = 0; array && i < v->count; i++) {
        struct gguf_value x = gguf_element(array, i);
        if (x.u < TYPE_NORMAL || x.u > TYPE_BYTE)
            return gguf_key_error(v->g, "tokenizer.ggml.token_type", IMP_ERR_FILE, v->err,
                                  "token %zu has a type that is not known", i);
        v->type[i] = (uint8_t)x.u;
        if (x.u == TYPE_BYTE && !is_byte_token(v->token[i]))
            return gguf_key_error(v->g, "tokenizer.ggml.token_type", IMP_ERR_FILE, v->err,
                                  "token %zu stands for a byte but is not written <0x00>", i);
    }
    rc = array_key(v, "tokenizer.ggml.scores", GGUF_KIND_FLOAT, GGUF_KIND_FLOAT, &array);
    if (rc < 0 || array == NULL) return rc;
    v->score = mem_alloc(v->count * sizeof *v->score);
    for (size_t i = 0; i < v->count; i++) {
        v->score[i] = (float)gguf_element(array, i).f;
        if (isnan(v->score[i]))
            return gguf_key_error(v->g, "tokenizer.ggml.scores", IMP_ERR_FILE, v->err,
                                  "token %zu has no number", i);
    }
    return 0;
}

/* ---- pieces of tokenizer.json ---- */

static void add_added_tokens(const struct vocabulary *v, struct str *out) {
    bool first = true;
    str_add_text(out, "  \"added_tokens\": [");
    for (size_t i = 0; i < v->count; i++) {
        uint8_t type = v->type[i];
        if (type != TYPE_CONTROL && type != TYPE_USER && type != TYPE_UNKNOWN) continue;
        if (v->token[i].size == 0) continue;
        str_printf(out, "%s\n    {\"id\": %zu, \"content\": ", first ? "" : ",", i);
        str_add_json(out, v->token[i].data, v->token[i].size);
        str_printf(out,
                   ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                   "\"normalized\": false, \"special\": %s}",
                   type == TYPE_USER ? "false" : "true");
        first = false;
    }
    str_add_text(out, "\n  ],\n");
}

/* Rows of the embedding that no token has ("[PAD151936]") are of type TYPE_UNUSED. */
static void add_vocab(const struct vocabulary *v, bool with_unused, struct str *out) {
    bool first = true;
    str_add_text(out, "    \"vocab\": {");
    for (size_t i = 0; i < v->count; i++) {
        if (v->type[i] == TYPE_UNUSED && !with_unused) continue;
        str_add_text(out, first ? "\n      " : ",\n      ");
        first = false;
        str_add_json(out, v->token[i].data, v->token[i].size);
        str_printf(out, ": %zu", i);
    }
    str_add_text(out, "\n    },\n");
}

static void add_merge(struct str *out, bool first, struct slice left, struct slice right) {
    str_add_text(out, first ? "\n      [" : ",\n      [");
    str_add_json(out, left.data, left.size);
    str_add_text(out, ", ");
    str_add_json(out, right.data, right.size);
    str_add_char(out, ']');
}

/* What the post-processor puts before a text: the BOS token, if the file says so. */
static void add_post_processor(struct str *out, bool byte_level, int64_t bos,
                               const struct vocabulary *v) {
    const char *plain = "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                        "\"trim_offsets\": false, \"use_regex\": true}";
    str_add_text(out, "  \"post_processor\": ");
    if (bos < 0) {
        str_printf(out, "%s,\n", byte_level ? plain : "null");
        return;
    }
    struct str token = {0};
    str_add_json(&token, v->token[bos].data, v->token[bos].size);
    str_printf(out,
               "{\"type\": \"TemplateProcessing\",\n"
               "    \"single\": [{\"SpecialToken\": {\"id\": %s, \"type_id\": 0}}, "
               "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}],\n"
               "    \"pair\": [{\"SpecialToken\": {\"id\": %s, \"type_id\": 0}}, "
               "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "
               "{\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}],\n"
               "    \"special_tokens\": {%s: {\"id\": %s, \"ids\": [%lld], \"tokens\": [%s]}}},\n",
               token.data, token.data, token.data, token.data, (long long)bos, token.data);
    str_free(&token);
}

/* ---- byte-level BPE ---- */

/* Expressions of the models' own tokenizer.json files, as JSON text. */
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BLANKS       "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define TAIL         " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|" BLANKS
#define LLAMA3       CONTRACTIONS "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|" TAIL
#define QWEN2        CONTRACTIONS "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|" TAIL
#define QWEN35                                                                                     \
    CONTRACTIONS                                                                                   \
    "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{L}\\\\p{M}]+|\\\\p{N}|"                                 \
    " ?[^\\\\s\\\\p{L}\\\\p{M}\\\\p{N}]+[\\\\r\\\\n]*|" BLANKS
#define CAMEL_LOWER                                                                                \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*"                \
    "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+"
#define CAMEL_UPPER                                                                                \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+"                \
    "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*"
#define CAMEL_TAIL " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|" BLANKS
#define TEKKEN     CAMEL_LOWER "|" CAMEL_UPPER "|\\\\p{N}|" CAMEL_TAIL
#define O200K      CAMEL_LOWER CONTRACTIONS "?|" CAMEL_UPPER CONTRACTIONS "?|\\\\p{N}{1,3}|" CAMEL_TAIL

static const struct splitter {
    const char *pre;   /* tokenizer.ggml.pre */
    const char *regex; /* before ByteLevel; NULL: ByteLevel's own expression of GPT-2 */
    bool digits;       /* each digit apart, before that */
    bool nfc, ignore_merges;
    bool bos; /* add_bos_token where the file does not say */
} SPLITTERS[] = {
    {"smollm", NULL, true, false, false, false},     {"gpt-2", NULL, false, false, false, false},
    {"llama-bpe", LLAMA3, false, false, true, true}, {"llama3", LLAMA3, false, false, true, true},
    {"qwen2", QWEN2, false, true, false, false},     {"tekken", TEKKEN, false, false, true, true},
    {"qwen35", QWEN35, false, true, false, false},   {"gpt-4o", O200K, false, false, true, false},
};

static void add_splitter(const struct splitter *s, struct str *out) {
    if (s->nfc)
        str_add_text(out, "  \"normalizer\": {\"type\": \"NFC\"},\n");
    else
        str_add_text(out, "  \"normalizer\": null,\n");
    const char *byte_level = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                             "\"trim_offsets\": true, \"use_regex\": %s}";
    str_add_text(out, "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n    ");
    if (s->digits) str_add_text(out, "{\"type\": \"Digits\", \"individual_digits\": true},\n    ");
    if (s->regex)
        str_printf(out,
                   "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"%s\"}, "
                   "\"behavior\": \"Isolated\", \"invert\": false},\n    ",
                   s->regex);
    char text[160];
    snprintf(text, sizeof text, byte_level, s->regex ? "false" : "true");
    str_printf(out, "%s\n  ]},\n", text);
}

static int add_listed_merges(const struct vocabulary *v, struct str *out) {
    const char *key = "tokenizer.ggml.merges";
    const struct gguf_value *array;
    int rc = array_key(v, key, GGUF_KIND_STRING, GGUF_KIND_STRING, &array);
    if (rc < 0) return rc;
    if (array == NULL) return gguf_key_error(v->g, key, IMP_ERR_FILE, v->err, "is missing");
    const uint8_t *cursor = NULL;
    struct slice merge;
    str_add_text(out, "    \"merges\": [");
    for (uint64_t i = 0; i < array->count && gguf_string_next(array, &cursor, &merge); i++) {
        /* The first byte may be a space of its own kind, never the separator. */
        const char *space = merge.size > 2 ? memchr(merge.data + 1, ' ', merge.size - 2) : NULL;
        if (space == NULL || !utf8_valid(merge.data, merge.size))
            return gguf_key_error(v->g, key, IMP_ERR_FILE, v->err,
                                  "entry %llu is no pair of tokens", (unsigned long long)i);
        size_t left = (size_t)(space - merge.data);
        add_merge(out, i == 0, (struct slice){merge.data, left},
                  (struct slice){space + 1, merge.size - left - 1});
    }
    str_add_text(out, "\n    ]\n  }\n");
    return 0;
}

static int write_byte_level(const struct vocabulary *v, int64_t bos, bool bos_said, bool add_bos,
                            struct str *out) {
    struct slice pre;
    int rc = gguf_key_string(v->g, "tokenizer.ggml.pre", &pre, v->err);
    if (rc < 0) return rc;
    const struct splitter *s = NULL;
    for (size_t i = 0; i < sizeof SPLITTERS / sizeof *SPLITTERS && pre.data; i++) {
        if (slice_equal(pre, slice_of(SPLITTERS[i].pre))) s = &SPLITTERS[i];
    }
    if (s == NULL)
        return gguf_key_error(v->g, "tokenizer.ggml.pre", IMP_ERR_UNSUPPORTED, v->err,
                              "\"%.*s\" is a splitting rule that is not known",
                              (int)(pre.size > 60 ? 60 : pre.size), pre.data ? pre.data : "");
    add_splitter(s, out);
    add_post_processor(out, true, (bos_said ? add_bos : s->bos) ? bos : -1, v);
    str_add_text(out,
                 "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                 "\"trim_offsets\": true, \"use_regex\": true},\n"
                 "  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null,\n"
                 "    \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null,\n"
                 "    \"fuse_unk\": false, \"byte_fallback\": false,\n");
    str_printf(out, "    \"ignore_merges\": %s,\n", s->ignore_merges ? "true" : "false");
    add_vocab(v, false, out);
    return add_listed_merges(v, out);
}

/* ---- SentencePiece ---- */

struct merge {
    struct slice left, right;
    float score;
    int64_t token, left_id, right_id; /* break ties, in this order */
};

static int by_number(int64_t a, int64_t b) {
    return a < b ? -1 : a > b;
}

static int by_score(const void *a, const void *b) {
    const struct merge *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->token != y->token) return by_number(x->token, y->token);
    if (x->left_id != y->left_id) return by_number(x->left_id, y->left_id);
    return by_number(x->right_id, y->right_id);
}

enum { MERGED_TOKEN_BYTES = 256 }; /* longer tokens are not made by merging */

struct merges {
    struct merge *data;
    size_t count, capacity;
    size_t text_bytes; /* of all of them in tokenizer.json, at least */
};

static bool is_merged(const struct vocabulary *v, int64_t id) {
    return v->type[id] == TYPE_NORMAL || v->type[id] == TYPE_USER;
}

static void split_token(const struct vocabulary *v, size_t id, struct merges *m) {
    struct slice t = v->token[id];
    for (size_t cut = 1; cut < t.size; cut++) {
        if (((unsigned char)t.data[cut] & 0xC0) == 0x80) continue;
        struct slice left = {t.data, cut}, right = {t.data + cut, t.size - cut};
        const int64_t *l = map_find(&v->by_text, left);
        const int64_t *r = l && is_merged(v, *l) ? map_find(&v->by_text, right) : NULL;
        if (r == NULL || !is_merged(v, *r)) continue;
        if (m->count == m->capacity) {
            m->capacity = m->capacity ? 2 * m->capacity : 1024;
            m->data = mem_grow(m->data, m->capacity * sizeof *m->data);
        }
        m->data[m->count++] = (struct merge){left, right, v->score[id], (int64_t)id, *l, *r};
        m->text_bytes += t.size + 16;
    }
}

/* A small vocabulary of "a", "aa", "aaa", ... has a merge for every byte of it: the text that they
 * make is held against the cap before it is written. */
static int find_merges(const struct vocabulary *v, struct merges *m) {
    for (size_t i = 0; i < v->count; i++) {
        if (v->type[i] == TYPE_NORMAL && v->token[i].size <= MERGED_TOKEN_BYTES)
            split_token(v, i, m);
        if (m->text_bytes > CAP_TOKENIZER_BYTES)
            return gguf_key_error(v->g, "tokenizer.ggml.tokens", IMP_ERR_FILE, v->err,
                                  "has more ways to merge than %u bytes can hold",
                                  CAP_TOKENIZER_BYTES);
    }
    if (m->count) qsort(m->data, m->count, sizeof *m->data, by_score);
    return 0;
}

static int64_t first_of_type(const struct vocabulary *v, enum token_type type) {
    for (size_t i = 0; i < v->count; i++) {
        if (v->type[i] == type) return (int64_t)i;
    }
    return -1;
}

static int add_found_merges(const struct vocabulary *v, struct str *out) {
    struct merges m = {0};
    int rc = find_merges(v, &m);
    str_add_text(out, "    \"merges\": [");
    for (size_t i = 0; i < m.count && rc == 0; i++)
        add_merge(out, i == 0, m.data[i].left, m.data[i].right);
    str_add_text(out, "\n    ]\n  }\n");
    free(m.data);
    return rc;
}

static int write_sentencepiece(const struct vocabulary *v, int64_t bos, bool add_bos,
                               int64_t unknown, struct str *out) {
    bool prefix;
    int rc = gguf_key_bool(v->g, "tokenizer.ggml.add_space_prefix", true, &prefix, v->err);
    if (rc < 0) return rc;
    if (v->score == NULL)
        return gguf_key_error(v->g, "tokenizer.ggml.scores", IMP_ERR_FILE, v->err, "is missing");
    const char *replace = "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
                          "\"content\": \"\xE2\x96\x81\"}";
    str_add_text(out, "  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [");
    if (prefix) str_add_text(out, "{\"type\": \"Prepend\", \"prepend\": \"\xE2\x96\x81\"}, ");
    str_printf(out, "%s]},\n  \"pre_tokenizer\": null,\n", replace);
    add_post_processor(out, false, add_bos ? bos : -1, v);
    str_add_text(out, "  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [\n"
                      "    {\"type\": \"Replace\", \"pattern\": {\"String\": \"\xE2\x96\x81\"}, "
                      "\"content\": \" \"},\n"
                      "    {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}");
    if (prefix)
        str_add_text(out, ",\n    {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, "
                          "\"stop\": 0}");
    str_add_text(out, "\n  ]},\n  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, "
                      "\"unk_token\": ");
    if (unknown >= 0)
        str_add_json(out, v->token[unknown].data, v->token[unknown].size);
    else
        str_add_text(out, "null");
    str_add_text(out,
                 ",\n    \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null,\n"
                 "    \"fuse_unk\": true, \"byte_fallback\": true, \"ignore_merges\": false,\n");
    add_vocab(v, true, out);
    return add_found_merges(v, out);
}

/* ---- the two files ---- */

static void add_token_field(const struct vocabulary *v, struct str *out, const char *key,
                            int64_t id) {
    if (id < 0) return;
    str_printf(out, "  \"%s\": ", key);
    str_add_json(out, v->token[id].data, v->token[id].size);
    str_add_text(out, ",\n");
}

static int token_id(const struct vocabulary *v, const char *key, int64_t *out) {
    *out = -1;
    if (gguf_find(v->g, key) == NULL) return 0;
    return gguf_key_int(v->g, key, 0, (int64_t)v->count - 1, 0, out, v->err);
}

static int write_tokenizer_config(const struct vocabulary *v, const struct gguf_shape *shape,
                                  int64_t bos, int64_t unknown, struct str *out) {
    int64_t eos, pad;
    struct slice chat;
    int rc;
    if ((rc = token_id(v, "tokenizer.ggml.eos_token_id", &eos)) < 0 ||
        (rc = token_id(v, "tokenizer.ggml.padding_token_id", &pad)) < 0 ||
        (rc = gguf_key_string(v->g, "tokenizer.chat_template", &chat, v->err)) < 0)
        return rc;
    str_add_text(out, "{\n");
    add_token_field(v, out, "bos_token", bos);
    if (chat.data) {
        str_add_text(out, "  \"chat_template\": ");
        str_add_json(out, chat.data, chat.size);
        str_add_text(out, ",\n");
    }
    str_add_text(out, "  \"clean_up_tokenization_spaces\": false,\n");
    add_token_field(v, out, "eos_token", eos);
    str_printf(out, "  \"model_max_length\": %lld,\n", (long long)shape->context);
    add_token_field(v, out, "pad_token", pad);
    str_add_text(out, "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"");
    if (unknown >= 0) {
        str_add_text(out, ",\n  \"unk_token\": ");
        str_add_json(out, v->token[unknown].data, v->token[unknown].size);
    }
    str_add_text(out, "\n}\n");
    return 0;
}

static int write_files(const struct vocabulary *v, const struct gguf_shape *shape,
                       struct str *tokenizer, struct str *config) {
    struct slice model;
    int64_t bos, unknown;
    bool add_bos, add_eos, bos_said = gguf_find(v->g, "tokenizer.ggml.add_bos_token") != NULL;
    int rc;
    if ((rc = gguf_key_string(v->g, "tokenizer.ggml.model", &model, v->err)) < 0 ||
        (rc = token_id(v, "tokenizer.ggml.bos_token_id", &bos)) < 0 ||
        (rc = token_id(v, "tokenizer.ggml.unknown_token_id", &unknown)) < 0 ||
        (rc = gguf_key_bool(v->g, "tokenizer.ggml.add_bos_token", true, &add_bos, v->err)) < 0 ||
        (rc = gguf_key_bool(v->g, "tokenizer.ggml.add_eos_token", false, &add_eos, v->err)) < 0)
        return rc;
    if (add_eos)
        return gguf_key_error(v->g, "tokenizer.ggml.add_eos_token", IMP_ERR_UNSUPPORTED, v->err,
                              "texts that end with a token are not imported");
    str_add_text(tokenizer, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n"
                            "  \"padding\": null,\n");
    add_added_tokens(v, tokenizer);
    if (model.data && slice_equal(model, slice_of("gpt2"))) {
        rc = write_byte_level(v, bos, bos_said, add_bos, tokenizer);
    } else if (model.data && slice_equal(model, slice_of("llama"))) {
        if (unknown < 0) unknown = first_of_type(v, TYPE_UNKNOWN);
        rc = write_sentencepiece(v, bos, add_bos, unknown, tokenizer);
    } else {
        rc = gguf_key_error(v->g, "tokenizer.ggml.model", IMP_ERR_UNSUPPORTED, v->err,
                            "\"%.*s\" is a kind of tokenizer that is not known",
                            (int)(model.size > 60 ? 60 : model.size), model.data ? model.data : "");
    }
    if (rc < 0) return rc;
    str_add_text(tokenizer, "}\n");
    return write_tokenizer_config(v, shape, bos, unknown, config);
}

int gguf_write_tokenizer(struct gguf_import *in, const struct gguf_shape *shape,
                         struct imp_error *err) {
    struct vocabulary v = {.g = in->source, .err = err};
    struct str tokenizer = {0}, config = {0};
    int rc = read_tokens(&v, shape);
    if (rc == 0) rc = read_types_and_scores(&v);
    if (rc == 0) rc = write_files(&v, shape, &tokenizer, &config);
    if (rc == 0) {
        in->tokenizer = str_take(&tokenizer);
        in->tokenizer_config = str_take(&config);
    }
    str_free(&tokenizer);
    str_free(&config);
    vocabulary_free(&v);
    return rc;
}
