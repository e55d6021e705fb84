/* tekken.json, Mistral's own form of a tokenizer: an expression, the bytes of every token in the
 * order of its rank, and the names of the special tokens. It lists no merges: two neighbours join
 * where their bytes together are a token, the lowest rank first. So the table of merges is every
 * way of cutting a token in two tokens. Semantics: the Python package `mistral-common`. */
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer_internal.h"
#include "text/unicode.h"

enum { BYTES = 256, MAX_OLD_SPECIALS = 20 };

/* What files up to v7, which may name none, mean by their first ids. */
static const char *const old_specials[MAX_OLD_SPECIALS] = {
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
};

/* A checked config: ids below `specials` are special, token of rank r is id specials + r. */
struct tekken {
    size_t specials, ranks;
    bool may_name_none; /* special_tokens may be absent */
    struct slice pattern;
};

static const struct json_at config_at = {.up = &load_root_at, .key = "config"};
static const struct json_at vocab_at = {.up = &load_root_at, .key = "vocab"};
static const struct json_at specials_at = {.up = &load_root_at, .key = "special_tokens"};

/* ---- config ---- */

static int load_version(struct loader *l, yyjson_val *config, struct tekken *k) {
    static const char *const known[] = {"v3", "v7", "v11", "v13", "v15"};
    struct slice version = {"", 0};
    int rc = load_text(l, config, &config_at, "version", &version);
    if (rc < 0) return rc;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!slice_equal(version, slice_of(known[i]))) continue;
        k->may_name_none = i < 2;
        return 0;
    }
    return load_fail(l, AT(&config_at, "version"), IMP_ERR_UNSUPPORTED, "is not known");
}

static int load_sizes(struct loader *l, yyjson_val *root, yyjson_val *config, struct tekken *k) {
    yyjson_val *vocab = load_field(root, "vocab");
    size_t size = 0, listed = yyjson_arr_size(vocab), declared = listed;
    int rc = yyjson_is_arr(vocab) ? 0 : load_fail(l, &vocab_at, IMP_ERR_FILE, "must be an array");
    if (rc == 0) rc = load_size(l, config, &config_at, "default_vocab_size", &size);
    if (rc == 0) {
        rc = load_size(l, config, &config_at, "default_num_special_tokens", &k->specials);
    }
    if (rc == 0) rc = load_size(l, config, &config_at, "num_vocab_tokens", &declared);
    if (rc < 0) return rc;
    if (declared != listed) {
        return load_fail(l, AT(&config_at, "num_vocab_tokens"), IMP_ERR_FILE,
                         "is %zu, but vocab has %zu", declared, listed);
    }
    if (k->specials > CAP_ADDED_TOKENS) {
        return load_fail(l, AT(&config_at, "default_num_special_tokens"), IMP_ERR_FILE,
                         "%zu are over the limit", k->specials);
    }
    if (size > CAP_VOCAB || size < k->specials + BYTES || size - k->specials > listed) {
        return load_fail(l, AT(&config_at, "default_vocab_size"), IMP_ERR_FILE,
                         "%zu, with %zu special tokens and %zu others listed", size, k->specials,
                         listed);
    }
    k->ranks = size - k->specials;
    return 0;
}

static int load_config(struct loader *l, yyjson_val *root, struct tekken *k) {
    static const char *const known[] = {"pattern",
                                        "num_vocab_tokens",
                                        "default_vocab_size",
                                        "default_num_special_tokens",
                                        "version",
                                        NULL};
    yyjson_val *config = load_field(root, "config");
    int rc = load_known_keys(l, config, &config_at, known);
    if (rc == 0) rc = load_version(l, config, k);
    if (rc == 0) rc = load_sizes(l, root, config, k);
    if (rc == 0) rc = load_text(l, config, &config_at, "pattern", &k->pattern);
    return rc;
}

/* {n}+, not \p{L}+. The expression is Rust's, in which such a count gives nothing back, while Ruby
 * would repeat it. */
static bool has_possessive_count(struct slice pattern) {
    size_t open = 0;
    for (size_t i = 0; i + 1 < pattern.size; i++) {
        if (pattern.data[i] == '{') open = i;
        if (pattern.data[i] != '}' || pattern.data[i + 1] != '+') continue;
        bool named = open >= 2 && pattern.data[open - 2] == '\\';
        if (!named) return true;
    }
    return false;
}

/* A split that leaves text between its matches loses none of it here. */
static int load_pattern(struct loader *l, const struct tekken *k) {
    struct pretok *p = &l->t->pretok;
    const struct json_at *at = AT(&config_at, "pattern");
    char where[200];
    if (has_possessive_count(k->pattern)) {
        return load_fail(l, at, IMP_ERR_UNSUPPORTED, "a possessive count is not supported");
    }
    load_where(l, at, where, sizeof where);
    p->steps[0] = (struct pretok_step){.kind = PRETOK_PATTERN};
    int rc = regex_compile(k->pattern, where, &p->steps[0].pattern, l->err);
    if (rc < 0) return rc;
    p->count = 1;
    p->raw = true;
    return 0;
}

/* ---- tokens ---- */

static int digit_of(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Base64 with its padding; false if it is anything else. */
static bool decode_base64(struct slice text, struct str *out) {
    str_clear(out);
    if (text.size % 4 != 0) return false;
    for (size_t i = 0; i < text.size; i += 4) {
        const char *p = text.data + i;
        bool last = i + 4 == text.size;
        int pad = last && p[3] == '=' ? (p[2] == '=' ? 2 : 1) : 0;
        uint32_t bits = 0;
        for (int d = 0; d < 4; d++) {
            int digit = d < 4 - pad ? digit_of(p[d]) : 0;
            if (digit < 0) return false;
            bits = bits << 6 | (uint32_t)digit;
        }
        for (int b = 0; b < 3 - pad; b++) str_add_char(out, (char)(bits >> (16 - 8 * b)));
    }
    return true;
}

/* Bytes as the characters that stand for them, as all byte-level vocabularies hold them. */
static struct slice spell(struct loader *l, struct str *scratch, struct slice bytes) {
    str_clear(scratch);
    for (size_t i = 0; i < bytes.size; i++) {
        str_add_codepoint(scratch, byte_level_encode((uint8_t)bytes.data[i]));
    }
    return load_copy(l, (struct slice){scratch->data ? scratch->data : "", scratch->size});
}

struct spelling {
    struct str bytes, text;
    uint64_t cuts; /* ways of cutting all tokens so far, times their bytes: time of load_merges */
};

static int load_token(struct loader *l, yyjson_val *value, const struct json_at *at, size_t rank,
                      size_t id, struct spelling *s) {
    static const char *const known[] = {"rank", "token_bytes", "token_str", NULL};
    struct tokenizer *t = l->t;
    struct slice coded = {"", 0};
    yyjson_val *number = yyjson_obj_get(value, "rank");
    int rc = load_known_keys(l, value, at, known);
    if (rc == 0) rc = load_text(l, value, at, "token_bytes", &coded);
    if (rc < 0) return rc;
    if (!yyjson_is_uint(number) || yyjson_get_uint(number) != rank) {
        return load_fail(l, AT(at, "rank"), IMP_ERR_FILE, "must be %zu, its place", rank);
    }
    if (coded.size > CAP_TOKEN_BYTES || !decode_base64(coded, &s->bytes) || s->bytes.size == 0) {
        return load_fail(l, AT(at, "token_bytes"), IMP_ERR_FILE, "is not the base64 of a token");
    }
    if (rank < BYTES && (s->bytes.size != 1 || (uint8_t)s->bytes.data[0] != rank)) {
        return load_fail(l, AT(at, "token_bytes"), IMP_ERR_FILE, "must be the byte %zu", rank);
    }
    s->cuts += (uint64_t)s->bytes.size * s->bytes.size;
    if (s->cuts > CAP_TEKKEN_CUTS) {
        return load_fail(l, at, IMP_ERR_UNSUPPORTED, "the tokens so far are too long");
    }
    struct token *token = &t->tokens[id];
    token->content = spell(l, &s->text, (struct slice){s->bytes.data, s->bytes.size});
    token->decoded = token->content;
    if (!map_add(&t->bpe.vocab, token->content, (int64_t)id)) {
        return load_fail(l, AT(at, "token_bytes"), IMP_ERR_FILE, "belongs to two tokens");
    }
    if (rank < BYTES) t->bpe.byte_ids[rank] = (int32_t)id;
    return 0;
}

static int load_tokens(struct loader *l, yyjson_val *vocab, const struct tekken *k) {
    struct spelling s = {0};
    size_t i, n;
    yyjson_val *value;
    int rc = 0;
    map_create(&l->t->bpe.vocab, k->ranks);
    yyjson_arr_foreach(vocab, i, n, value) {
        if (i == k->ranks) break; /* the rest is for larger models */
        rc = load_token(l, value, AT_INDEX(&vocab_at, i), i, k->specials + i, &s);
        if (rc < 0) break;
    }
    str_free(&s.bytes);
    str_free(&s.text);
    return rc;
}

static void add_cuts(struct tokenizer *t, size_t id, uint32_t rank) {
    struct slice whole = t->tokens[id].content;
    for (size_t cut = 1; cut < whole.size; cut++) {
        if (((unsigned char)whole.data[cut] & 0xc0) == 0x80) continue;
        int32_t left = load_vocab_id(t, (struct slice){whole.data, cut});
        if (left < 0) continue;
        int32_t right = load_vocab_id(t, (struct slice){whole.data + cut, whole.size - cut});
        if (right >= 0) bpe_merges_add(&t->bpe, left, right, rank, (int32_t)id);
    }
}

static void load_merges(struct tokenizer *t, const struct tekken *k) {
    bpe_merges_init(&t->bpe, 2 * k->ranks);
    for (size_t rank = BYTES; rank < k->ranks; rank++) {
        add_cuts(t, k->specials + rank, (uint32_t)rank);
    }
}

/* ---- special tokens ---- */

static int add_special(struct loader *l, const struct json_at *at, struct slice content,
                       struct str *scratch) {
    struct tokenizer *t = l->t;
    int32_t id = (int32_t)t->added_count;
    struct token *token = &t->tokens[id];
    if (content.size == 0 || content.size > CAP_ADDED_TOKEN_BYTES) {
        return load_fail(l, at, IMP_ERR_FILE, "has %zu bytes", content.size);
    }
    struct added_token *added = &t->added[t->added_count];
    *added = (struct added_token){.id = id, .content = load_copy(l, content), .special = true};
    added->match = added->content;
    if (!map_add(&t->added_ids, added->content, id)) {
        return load_fail(l, at, IMP_ERR_FILE, "this token is there twice");
    }
    t->added_count++;
    *token = (struct token){.content = added->content,
                            .decoded = spell(l, scratch, content),
                            .special = true,
                            .skipped = true};
    return 0;
}

static int list_specials(struct loader *l, yyjson_val *list, struct str *scratch) {
    static const char *const known[] = {"rank", "token_str", "is_control", NULL};
    size_t i, n;
    yyjson_val *value;
    yyjson_arr_foreach(list, i, n, value) {
        const struct json_at *at = AT_INDEX(&specials_at, i);
        yyjson_val *rank = yyjson_obj_get(value, "rank");
        struct slice content = {"", 0};
        bool control = true; /* whether or not, no text may spell it */
        int rc = load_known_keys(l, value, at, known);
        if (rc == 0) rc = load_text(l, value, at, "token_str", &content);
        if (rc == 0) rc = load_bool(l, value, at, "is_control", &control);
        if (rc == 0 && (!yyjson_is_uint(rank) || yyjson_get_uint(rank) != i)) {
            rc = load_fail(l, AT(at, "rank"), IMP_ERR_FILE, "must be %zu, its place", i);
        }
        if (rc == 0) rc = add_special(l, AT(at, "token_str"), content, scratch);
        if (rc < 0) return rc;
    }
    return 0;
}

static int load_specials(struct loader *l, yyjson_val *list, const struct tekken *k) {
    struct tokenizer *t = l->t;
    struct str scratch = {0};
    char filler[32];
    int rc = 0;
    if (list == NULL && !k->may_name_none) {
        return load_fail(l, &specials_at, IMP_ERR_FILE, "is missing");
    }
    if (list && (!yyjson_is_arr(list) || yyjson_arr_size(list) > k->specials)) {
        return load_fail(l, &specials_at, IMP_ERR_FILE, "must be an array of at most %zu",
                         k->specials);
    }
    t->added = mem_zero(k->specials, sizeof *t->added);
    map_create(&t->added_ids, k->specials);
    if (list) rc = list_specials(l, list, &scratch);
    for (size_t i = 0; list == NULL && rc == 0 && i < MAX_OLD_SPECIALS && i < k->specials; i++) {
        rc = add_special(l, &specials_at, slice_of(old_specials[i]), &scratch);
    }
    while (rc == 0 && t->added_count < k->specials) {
        snprintf(filler, sizeof filler, "<SPECIAL_%zu>", t->added_count);
        rc = add_special(l, &specials_at, slice_of(filler), &scratch);
    }
    str_free(&scratch);
    added_set_build(&t->raw_set, t->added, t->added_count, false);
    added_set_build(&t->normalized_set, t->added, t->added_count, true);
    int32_t bos = tokenizer_find(t, "<s>", 3);
    if (bos >= 0 && bos < (int32_t)k->specials) ids_add(&t->prefix, bos);
    return rc;
}

/* ---- the whole ---- */

int load_tekken(struct loader *l, yyjson_val *root, yyjson_val *config) {
    /* Sound, pictures and the model's settings are none of a tokenizer's business. */
    static const char *const known[] = {
        "config",     "vocab", "special_tokens",         "version", "type", "image",
        "multimodal", "audio", "model_settings_builder", NULL};
    struct tekken k = {.pattern = {"", 0}};
    struct tokenizer *t = l->t;
    (void)config;
    int rc = load_known_keys(l, root, &load_root_at, known);
    if (rc == 0) rc = load_config(l, root, &k);
    if (rc == 0) rc = load_pattern(l, &k);
    if (rc < 0) return rc;
    t->size = (int32_t)(k.specials + k.ranks);
    t->tokens = mem_zero((size_t)t->size, sizeof *t->tokens);
    t->bpe.all_bytes = t->bpe.ignore_merges = true;
    t->bpe.unk_id = -1;
    t->decoder.steps[0] = (struct decode_step){.kind = DECODE_BYTE_LEVEL};
    t->decoder.count = 1;
    t->skipped_cuts = true;
    rc = load_tokens(l, load_field(root, "vocab"), &k);
    if (rc < 0) return rc;
    load_merges(t, &k);
    return load_specials(l, load_field(root, "special_tokens"), &k);
}
