#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer_internal.h"

#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3_PATTERN                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"                      \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TEKKEN_PATTERN                                                                             \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*"                                  \
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"                                                              \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"                                  \
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"                                                              \
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* What all three chains need while they are read. */
struct chain {
    struct loader *l;
    int depth;
    size_t growth; /* times that text may have grown so far */
    bool fused;    /* decoders: all tokens are one by now */
};

static bool is(struct slice type, const char *name) {
    return slice_equal(type, slice_of(name));
}

static int unsupported(struct loader *l, const struct json_at *at, struct slice type) {
    return load_fail(l, AT(at, "type"), IMP_ERR_UNSUPPORTED, "%.*s is not supported",
                     (int)(type.size < 60 ? type.size : 60), type.data);
}

static int grow(struct chain *c, const struct json_at *at, size_t times) {
    c->growth *= times ? times : 1;
    if (c->growth <= CAP_TOKENIZER_GROWTH) return 0;
    return load_fail(c->l, at, IMP_ERR_UNSUPPORTED, "text could grow more than %d times",
                     CAP_TOKENIZER_GROWTH);
}

/* Calls `item` for each member of a Sequence. */
typedef int (*item_fn)(struct chain *c, yyjson_val *value, const struct json_at *at);

static int each_of(struct chain *c, yyjson_val *value, const struct json_at *at, const char *key,
                   item_fn item) {
    const char *const known[] = {"type", key, NULL};
    yyjson_val *list = yyjson_obj_get(value, key), *member;
    const struct json_at list_at = {.up = at, .key = key};
    int rc = load_known_keys(c->l, value, at, known);
    if (rc < 0) return rc;
    if (!yyjson_is_arr(list)) return load_fail(c->l, &list_at, IMP_ERR_FILE, "must be an array");
    if (++c->depth > CAP_TOKENIZER_DEPTH) {
        return load_fail(c->l, at, IMP_ERR_FILE, "nested too deep");
    }
    size_t i, n;
    yyjson_arr_foreach(list, i, n, member) {
        const struct json_at here = {.up = &list_at, .index = i};
        rc = item(c, member, &here);
        if (rc < 0) return rc;
    }
    c->depth--;
    return 0;
}

/* {"String": "..."} or {"Regex": "..."}. literal: which of them. */
static int load_pattern(struct loader *l, yyjson_val *value, const struct json_at *at,
                        struct slice *text, bool *literal, struct regex **out) {
    static const char *const known[] = {"String", "Regex", NULL};
    const struct json_at here = {.up = at, .key = "pattern"};
    yyjson_val *pattern = yyjson_obj_get(value, "pattern");
    int rc = load_known_keys(l, pattern, &here, known);
    if (rc < 0) return rc;
    yyjson_val *string = yyjson_obj_get(pattern, "String");
    yyjson_val *regex = yyjson_obj_get(pattern, "Regex");
    if (yyjson_is_str(string) == yyjson_is_str(regex)) {
        return load_fail(l, &here, IMP_ERR_FILE, "must be a String or a Regex");
    }
    *literal = yyjson_is_str(string);
    *text = json_slice(*literal ? string : regex);
    char where[200];
    load_where(l, AT(&here, *literal ? "String" : "Regex"), where, sizeof where);
    return *literal ? regex_compile_literal(*text, where, out, l->err)
                    : regex_compile(*text, where, out, l->err);
}

static int load_content(struct chain *c, yyjson_val *value, const struct json_at *at,
                        const char *key, struct slice *out) {
    struct slice text = {"", 0};
    int rc = load_text(c->l, value, at, key, &text);
    if (rc == 0 && text.size > CAP_TOKENIZER_CONTENT) {
        rc = load_fail(c->l, AT(at, key), IMP_ERR_UNSUPPORTED, "is longer than %d bytes",
                       CAP_TOKENIZER_CONTENT);
    }
    if (rc == 0) *out = load_copy(c->l, text);
    return rc;
}

/* The package itself fails where a Replace matches nothing. */
static int refuse_empty(struct loader *l, const struct json_at *at, const struct regex *regex) {
    if (!regex_matches_empty(regex)) return 0;
    return load_fail(l, AT(at, "pattern"), IMP_ERR_UNSUPPORTED, "matches the empty text");
}

/* How much a Replace may stretch a text: each match by what is put in its place. */
static size_t replace_growth(struct slice pattern, bool literal, struct slice content) {
    return literal ? (content.size + pattern.size - 1) / pattern.size : content.size;
}

static int load_character(struct loader *l, yyjson_val *value, const struct json_at *at,
                          const char *key, uint32_t *out, struct slice *text) {
    struct slice s = {"", 0};
    int rc = load_text(l, value, at, key, &s);
    if (rc < 0) return rc;
    if (s.size == 0 || utf8_decode(s.data, s.size, out) != s.size) {
        return load_fail(l, AT(at, key), IMP_ERR_FILE, "must be one character");
    }
    if (text) *text = s;
    return 0;
}

/* ---- normalizers ---- */

static struct normalize_step *normalizer_add(struct chain *c, enum normalize_kind kind) {
    struct normalizer *n = &c->l->t->normalizer;
    if (n->count == CAP_TOKENIZER_STEPS) return NULL;
    struct normalize_step *step = &n->steps[n->count++];
    *step = (struct normalize_step){.kind = kind};
    return step;
}

static int too_many(struct chain *c, const struct json_at *at) {
    return load_fail(c->l, at, IMP_ERR_FILE, "more than %d steps", CAP_TOKENIZER_STEPS);
}

/* A Replace step, which normalizers and decoders spell alike. */
static int load_replace(struct chain *c, yyjson_val *value, const struct json_at *at,
                        struct slice *content, struct regex **compiled, struct slice *pattern,
                        bool *literal) {
    static const char *const known[] = {"type", "pattern", "content", NULL};
    int rc = load_known_keys(c->l, value, at, known);
    if (rc == 0) rc = load_content(c, value, at, "content", content);
    if (rc == 0) rc = load_pattern(c->l, value, at, pattern, literal, compiled);
    if (rc == 0) rc = refuse_empty(c->l, at, *compiled);
    if (rc == 0) rc = grow(c, at, replace_growth(*pattern, *literal, *content));
    return rc;
}

static int normalizer_replace(struct chain *c, yyjson_val *value, const struct json_at *at,
                              struct normalize_step *step) {
    struct slice pattern;
    bool literal;
    return load_replace(c, value, at, &step->content, &step->pattern, &pattern, &literal);
}

static int normalizer_strip(struct chain *c, yyjson_val *value, const struct json_at *at,
                            struct normalize_step *step) {
    static const char *const known[] = {"type", "strip_left", "strip_right", NULL};
    int rc = load_known_keys(c->l, value, at, known);
    if (rc == 0) rc = load_bool(c->l, value, at, "strip_left", &step->left);
    if (rc == 0) rc = load_bool(c->l, value, at, "strip_right", &step->right);
    return rc;
}

static int normalizer_item(struct chain *c, yyjson_val *value, const struct json_at *at) {
    static const struct {
        const char *name;
        enum normalize_kind kind;
        size_t growth;
    } kinds[] = {
        {"NFC", NORMALIZE_NFC, 3},
        {"NFD", NORMALIZE_NFD, 4},
        {"NFKC", NORMALIZE_NFKC, 11},
        {"NFKD", NORMALIZE_NFKD, 11},
        {"Replace", NORMALIZE_REPLACE, 1},
        {"Prepend", NORMALIZE_PREPEND, 1},
        {"Strip", NORMALIZE_STRIP, 1},
        {"Lowercase", NORMALIZE_LOWERCASE, 2},
        {"Nmt", NORMALIZE_NMT, 1},
        {"StripAccents", NORMALIZE_STRIP_ACCENTS, 1},
        {"ByteLevel", NORMALIZE_BYTE_LEVEL, 2},
    };
    static const char *const type_alone[] = {"type", NULL};
    static const char *const prepend[] = {"type", "prepend", NULL};
    struct slice type;
    int rc = load_type(c->l, value, at, &type);
    if (rc < 0) return rc;
    if (is(type, "Sequence")) return each_of(c, value, at, "normalizers", normalizer_item);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!is(type, kinds[i].name)) continue;
        struct normalize_step *step = normalizer_add(c, kinds[i].kind);
        if (step == NULL) return too_many(c, at);
        if (step->kind == NORMALIZE_REPLACE) return normalizer_replace(c, value, at, step);
        if (step->kind == NORMALIZE_STRIP) return normalizer_strip(c, value, at, step);
        bool prepends = step->kind == NORMALIZE_PREPEND;
        rc = load_known_keys(c->l, value, at, prepends ? prepend : type_alone);
        if (rc == 0 && prepends) rc = load_content(c, value, at, "prepend", &step->content);
        return rc < 0 ? rc : grow(c, at, kinds[i].growth);
    }
    return unsupported(c->l, at, type);
}

int load_normalizer(struct loader *l, yyjson_val *value) {
    struct chain c = {.l = l, .growth = 1};
    return value ? normalizer_item(&c, value, AT(&load_root_at, "normalizer")) : 0;
}

/* ---- pre-tokenizers ---- */

static int pretok_add(struct chain *c, const struct json_at *at, struct pretok_step step) {
    struct pretok *p = &c->l->t->pretok;
    if (p->count == CAP_TOKENIZER_STEPS) {
        regex_free(step.pattern);
        return too_many(c, at);
    }
    p->steps[p->count++] = step;
    return step.kind == PRETOK_BYTES ? grow(c, at, 2) : 0;
}

/* A pattern of ours: it always compiles. */
static struct regex *own_pattern(const char *text) {
    struct regex *regex = NULL;
    check(regex_compile(slice_of(text), NULL, &regex, NULL) == 0);
    return regex;
}

static int load_behaviour(struct loader *l, yyjson_val *value, const struct json_at *at,
                          enum pretok_behaviour *out) {
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    struct slice name = slice_of("Isolated");
    int rc = load_text(l, value, at, "behavior", &name);
    if (rc < 0) return rc;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!is(name, names[i])) continue;
        *out = (enum pretok_behaviour)i;
        return 0;
    }
    return load_fail(l, AT(at, "behavior"), IMP_ERR_UNSUPPORTED, "is not known");
}

/* Early exports of Mistral's Tekken vocabularies carry the expression of Llama 3, with which the
 * model never was trained. */
static bool is_mistaken_tekken(const struct tokenizer *t, struct slice pattern) {
    int32_t inst = tokenizer_find(t, "[INST]", 6), calls = tokenizer_find(t, "[TOOL_CALLS]", 12);
    return is(pattern, LLAMA3_PATTERN) && t->size == 131072 && inst >= 0 && inst < 1000 &&
           calls >= 0 && calls < 1000;
}

static int pretok_split(struct chain *c, yyjson_val *value, const struct json_at *at) {
    static const char *const known[] = {"type", "pattern", "behavior", "invert", NULL};
    struct pretok_step step = {.kind = PRETOK_PATTERN};
    struct slice pattern;
    bool literal = false;
    int rc = load_known_keys(c->l, value, at, known);
    if (rc == 0) rc = load_behaviour(c->l, value, at, &step.behaviour);
    if (rc == 0) rc = load_bool(c->l, value, at, "invert", &step.invert);
    if (rc == 0) rc = load_pattern(c->l, value, at, &pattern, &literal, &step.pattern);
    if (rc < 0) return rc;
    if (!literal && is_mistaken_tekken(c->l->t, pattern)) {
        log_line(c->l->log, LOG_WARNING,
                 "%s: this Mistral vocabulary came with Llama 3's splitting expression; "
                 "its own is used instead",
                 c->l->name);
        regex_free(step.pattern);
        step.pattern = own_pattern(TEKKEN_PATTERN);
    }
    return pretok_add(c, at, step);
}

static int pretok_byte_level(struct chain *c, yyjson_val *value, const struct json_at *at) {
    static const char *const known[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                        NULL};
    bool prefix = true, use_regex = true;
    int rc = load_known_keys(c->l, value, at, known);
    if (rc == 0) rc = load_bool(c->l, value, at, "add_prefix_space", &prefix);
    if (rc == 0) rc = load_bool(c->l, value, at, "use_regex", &use_regex);
    if (rc == 0 && prefix) {
        rc = pretok_add(c, at, (struct pretok_step){.kind = PRETOK_PREFIX, .content = " "});
    }
    if (rc == 0 && use_regex) {
        rc = pretok_add(
            c, at,
            (struct pretok_step){.kind = PRETOK_PATTERN, .pattern = own_pattern(GPT2_PATTERN)});
    }
    if (rc == 0) rc = pretok_add(c, at, (struct pretok_step){.kind = PRETOK_BYTES});
    return rc;
}

/* prepend_scheme and its old form add_prefix_space; for the decoder too. */
static int load_scheme(struct loader *l, yyjson_val *value, const struct json_at *at,
                       struct slice *scheme) {
    static const char *const known[] = {
        "type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep", NULL};
    bool prefix = true;
    *scheme = slice_of("always");
    int rc = load_known_keys(l, value, at, known);
    if (rc == 0) rc = load_text(l, value, at, "prepend_scheme", scheme);
    if (rc == 0) rc = load_bool(l, value, at, "add_prefix_space", &prefix);
    if (rc < 0) return rc;
    if (!is(*scheme, "always") && !is(*scheme, "first") && !is(*scheme, "never")) {
        return load_fail(l, AT(at, "prepend_scheme"), IMP_ERR_UNSUPPORTED, "is not known");
    }
    if (!prefix && yyjson_get_type(yyjson_obj_get(value, "prepend_scheme")) == YYJSON_TYPE_STR &&
        !is(*scheme, "never")) {
        return load_fail(l, AT(at, "add_prefix_space"), IMP_ERR_FILE, "contradicts prepend_scheme");
    }
    if (!prefix) *scheme = slice_of("never");
    return 0;
}

/* "first" asks where a piece began before it was normalized, which nobody keeps track of here. */
static bool moves_the_start(const struct normalizer *n) {
    for (int i = 0; i < n->count; i++) {
        switch (n->steps[i].kind) {
        case NORMALIZE_REPLACE:
        case NORMALIZE_PREPEND:
        case NORMALIZE_STRIP:
        case NORMALIZE_STRIP_ACCENTS:
        case NORMALIZE_NMT:
            return true;
        default:
            break;
        }
    }
    return false;
}

static int pretok_metaspace(struct chain *c, yyjson_val *value, const struct json_at *at) {
    struct pretok_step space = {.kind = PRETOK_SPACES_TO}, prefix = {.kind = PRETOK_PREFIX};
    struct pretok_step cut = {.kind = PRETOK_CHARACTER, .behaviour = PRETOK_MERGED_WITH_NEXT};
    struct slice scheme, text;
    bool split = true;
    int rc = load_scheme(c->l, value, at, &scheme);
    if (rc == 0) rc = load_bool(c->l, value, at, "split", &split);
    if (rc == 0) rc = load_character(c->l, value, at, "replacement", &cut.character, &text);
    if (rc < 0) return rc;
    if (is(scheme, "first") && moves_the_start(&c->l->t->normalizer)) {
        return load_fail(c->l, AT(at, "prepend_scheme"), IMP_ERR_UNSUPPORTED,
                         "first is not supported behind a normalizer that moves the start");
    }
    memcpy(space.content, text.data, text.size);
    memcpy(prefix.content, text.data, text.size);
    prefix.first_only = is(scheme, "first");
    rc = pretok_add(c, at, space);
    if (rc == 0) rc = grow(c, at, text.size);
    if (rc == 0 && !is(scheme, "never")) rc = pretok_add(c, at, prefix);
    if (rc == 0 && split) rc = pretok_add(c, at, cut);
    return rc;
}

/* The ones with at most one field. */
static int pretok_small(struct chain *c, yyjson_val *value, const struct json_at *at,
                        struct slice type) {
    static const char *const known[] = {
        "type", "individual_digits", "behavior", "delimiter", "length", NULL};
    struct pretok_step step = {0};
    bool individual = false;
    int rc = load_known_keys(c->l, value, at, known);
    if (rc < 0) return rc;
    if (is(type, "Digits")) {
        step.kind = PRETOK_NUMERIC;
        rc = load_bool(c->l, value, at, "individual_digits", &individual);
        step.behaviour = individual ? PRETOK_ISOLATED : PRETOK_CONTIGUOUS;
    } else if (is(type, "Punctuation")) {
        step.kind = PRETOK_PUNCTUATION;
        rc = load_behaviour(c->l, value, at, &step.behaviour);
    } else if (is(type, "WhitespaceSplit")) {
        step.kind = PRETOK_SPACE;
        step.behaviour = PRETOK_REMOVED;
    } else if (is(type, "CharDelimiterSplit")) {
        step.kind = PRETOK_CHARACTER;
        step.behaviour = PRETOK_REMOVED;
        rc = load_character(c->l, value, at, "delimiter", &step.character, NULL);
    } else if (is(type, "FixedLength")) {
        step.kind = PRETOK_FIXED;
        step.length = 5;
        rc = load_size(c->l, value, at, "length", &step.length);
        if (rc == 0 && step.length == 0) {
            rc = load_fail(c->l, AT(at, "length"), IMP_ERR_FILE, "must not be 0");
        }
    } else if (is(type, "BertPreTokenizer")) {
        rc = pretok_add(c, at,
                        (struct pretok_step){.kind = PRETOK_SPACE, .behaviour = PRETOK_REMOVED});
        step.kind = PRETOK_PUNCTUATION;
    } else {
        return unsupported(c->l, at, type);
    }
    return rc < 0 ? rc : pretok_add(c, at, step);
}

static int pretok_item(struct chain *c, yyjson_val *value, const struct json_at *at) {
    struct slice type;
    int rc = load_type(c->l, value, at, &type);
    if (rc < 0) return rc;
    if (is(type, "Sequence")) return each_of(c, value, at, "pretokenizers", pretok_item);
    if (is(type, "Split")) return pretok_split(c, value, at);
    if (is(type, "ByteLevel")) return pretok_byte_level(c, value, at);
    if (is(type, "Metaspace")) return pretok_metaspace(c, value, at);
    if (is(type, "Whitespace")) {
        struct pretok_step step = {
            .kind = PRETOK_PATTERN, .behaviour = PRETOK_REMOVED, .invert = true};
        step.pattern = regex_word_new(true);
        return pretok_add(c, at, step);
    }
    return pretok_small(c, value, at, type);
}

int load_pretok(struct loader *l, yyjson_val *value) {
    struct chain c = {.l = l, .growth = 1};
    struct pretok *p = &l->t->pretok;
    int rc = value ? pretok_item(&c, value, AT(&load_root_at, "pre_tokenizer")) : 0;
    if (rc < 0) return rc;
    p->raw = p->count > 0 && p->steps[p->count - 1].kind == PRETOK_BYTES;
    if (p->raw) p->count--;
    return 0;
}

/* ---- decoders ---- */

static int decoder_replace(struct chain *c, yyjson_val *value, const struct json_at *at,
                           struct decode_step *step) {
    struct slice pattern;
    bool literal;
    int rc = load_replace(c, value, at, &step->content, &step->pattern, &pattern, &literal);
    uint32_t first;
    /* A stream cannot know where a longer match would end. */
    if (rc == 0 && c->fused &&
        !(literal && utf8_decode(pattern.data, pattern.size, &first) == pattern.size)) {
        rc = load_fail(c->l, at, IMP_ERR_UNSUPPORTED,
                       "behind Fuse or ByteLevel only one character can be replaced");
    }
    return rc;
}

static int decoder_strip(struct chain *c, yyjson_val *value, const struct json_at *at,
                         struct decode_step *step) {
    static const char *const known[] = {"type", "content", "start", "stop", NULL};
    int rc = load_known_keys(c->l, value, at, known);
    if (rc == 0) rc = load_character(c->l, value, at, "content", &step->character, NULL);
    if (rc == 0) rc = load_size(c->l, value, at, "start", &step->left);
    if (rc == 0) rc = load_size(c->l, value, at, "stop", &step->right);
    return rc;
}

static int decoder_metaspace(struct chain *c, yyjson_val *value, const struct json_at *at,
                             struct decode_step *step) {
    struct slice scheme;
    int rc = load_scheme(c->l, value, at, &scheme);
    if (rc == 0) rc = load_character(c->l, value, at, "replacement", &step->character, NULL);
    step->drop_first = rc == 0 && !is(scheme, "never");
    return rc;
}

static int decoder_fill(struct chain *c, yyjson_val *value, const struct json_at *at,
                        struct decode_step *step) {
    static const char *const type_alone[] = {"type", NULL};
    static const char *const byte_level[] = {"type", "add_prefix_space", "trim_offsets",
                                             "use_regex", NULL};
    bool bytes = step->kind == DECODE_BYTE_LEVEL, fallback = step->kind == DECODE_BYTE_FALLBACK;
    switch (step->kind) {
    case DECODE_REPLACE:
        return decoder_replace(c, value, at, step);
    case DECODE_STRIP:
        return decoder_strip(c, value, at, step);
    case DECODE_METASPACE:
        return decoder_metaspace(c, value, at, step);
    default:
        break;
    }
    if (c->fused && (bytes || fallback)) {
        return load_fail(c->l, at, IMP_ERR_UNSUPPORTED, "it stands behind Fuse or ByteLevel");
    }
    if (!fallback) c->fused = true;
    return load_known_keys(c->l, value, at, bytes ? byte_level : type_alone);
}

static int decoder_item(struct chain *c, yyjson_val *value, const struct json_at *at) {
    static const struct {
        const char *name;
        enum decode_kind kind;
    } kinds[] = {
        {"ByteLevel", DECODE_BYTE_LEVEL}, {"ByteFallback", DECODE_BYTE_FALLBACK},
        {"Metaspace", DECODE_METASPACE},  {"Fuse", DECODE_FUSE},
        {"Strip", DECODE_STRIP},          {"Replace", DECODE_REPLACE},
    };
    struct decoder *d = &c->l->t->decoder;
    struct slice type;
    int rc = load_type(c->l, value, at, &type);
    if (rc < 0) return rc;
    if (is(type, "Sequence")) return each_of(c, value, at, "decoders", decoder_item);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!is(type, kinds[i].name)) continue;
        if (d->count == CAP_TOKENIZER_STEPS) return too_many(c, at);
        struct decode_step *step = &d->steps[d->count++];
        *step = (struct decode_step){.kind = kinds[i].kind};
        return decoder_fill(c, value, at, step);
    }
    return unsupported(c->l, at, type);
}

int load_decoder(struct loader *l, yyjson_val *value) {
    struct chain c = {.l = l, .growth = 1};
    if (value) return decoder_item(&c, value, AT(&load_root_at, "decoder"));
    l->t->decoder.steps[0] = (struct decode_step){.kind = DECODE_JOIN};
    l->t->decoder.count = 1;
    return 0;
}
