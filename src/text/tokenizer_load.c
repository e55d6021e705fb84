#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer_internal.h"
#include "text/unicode.h"

const struct json_at load_root_at = {.key = "$"};

/* ---- errors and fields ---- */

static size_t write_path(const struct json_at *at, char *out, size_t size) {
    size_t n = at->up ? write_path(at->up, out, size) : 0;
    if (n >= size) return n;
    int more = at->key ? snprintf(out + n, size - n, at->up ? ".%s" : "%s", at->key)
                       : snprintf(out + n, size - n, "[%zu]", at->index);
    return n + (more > 0 ? (size_t)more : 0);
}

void load_where(const struct loader *l, const struct json_at *at, char *out, size_t size) {
    int n = snprintf(out, size, "%s: ", l->name);
    if (n > 0 && (size_t)n < size) write_path(at, out + n, size - (size_t)n);
}

int load_fail(struct loader *l, const struct json_at *at, int code, const char *fmt, ...) {
    char line[400], where[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    load_where(l, at, where, sizeof where);
    return error_set(l->err, code, where, "%s", line);
}

/* The field, or NULL where it is absent or null. */
yyjson_val *load_field(yyjson_val *object, const char *key) {
    yyjson_val *value = yyjson_obj_get(object, key);
    return yyjson_is_null(value) ? NULL : value;
}

int load_bool(struct loader *l, yyjson_val *object, const struct json_at *at, const char *key,
              bool *out) {
    yyjson_val *value = load_field(object, key);
    if (value == NULL) return 0;
    if (!yyjson_is_bool(value)) {
        return load_fail(l, AT(at, key), IMP_ERR_FILE, "must be true or false");
    }
    *out = yyjson_get_bool(value);
    return 0;
}

int load_text(struct loader *l, yyjson_val *object, const struct json_at *at, const char *key,
              struct slice *out) {
    yyjson_val *value = load_field(object, key);
    if (value == NULL) return 0;
    if (!yyjson_is_str(value)) return load_fail(l, AT(at, key), IMP_ERR_FILE, "must be a string");
    *out = json_slice(value);
    return 0;
}

int load_size(struct loader *l, yyjson_val *object, const struct json_at *at, const char *key,
              size_t *out) {
    yyjson_val *value = load_field(object, key);
    if (value == NULL) return 0;
    if (!yyjson_is_uint(value) || yyjson_get_uint(value) > UINT32_MAX) {
        return load_fail(l, AT(at, key), IMP_ERR_FILE, "must be a whole number");
    }
    *out = (size_t)yyjson_get_uint(value);
    return 0;
}

int load_known_keys(struct loader *l, yyjson_val *object, const struct json_at *at,
                    const char *const *known) {
    size_t i, n;
    yyjson_val *key, *value;
    if (!yyjson_is_obj(object)) return load_fail(l, at, IMP_ERR_FILE, "must be an object");
    yyjson_obj_foreach(object, i, n, key, value) {
        const char *const *k = known;
        while (*k && !yyjson_equals_str(key, *k)) k++;
        if (*k == NULL) {
            return load_fail(l, AT(at, yyjson_get_str(key)), IMP_ERR_UNSUPPORTED,
                             "this field is not known");
        }
    }
    return 0;
}

int load_type(struct loader *l, yyjson_val *object, const struct json_at *at, struct slice *out) {
    *out = (struct slice){"", 0};
    if (!yyjson_is_obj(object)) return load_fail(l, at, IMP_ERR_FILE, "must be an object");
    int rc = load_text(l, object, at, "type", out);
    if (rc == 0 && out->size == 0) {
        rc = load_fail(l, AT(at, "type"), IMP_ERR_FILE, "is missing");
    }
    return rc;
}

bool load_id(yyjson_val *value, int64_t *id) {
    if (!yyjson_is_uint(value) || yyjson_get_uint(value) >= CAP_VOCAB) return false;
    *id = (int64_t)yyjson_get_uint(value);
    return true;
}

struct slice load_copy(struct loader *l, struct slice text) {
    return (struct slice){arena_strndup(&l->t->arena, text.data, text.size), text.size};
}

/* ---- vocabulary ---- */

static int check_vocab(struct loader *l, yyjson_val *vocab, const struct json_at *at,
                       int64_t *max_id) {
    size_t i, n;
    yyjson_val *key, *value;
    if (!yyjson_is_obj(vocab) || yyjson_obj_size(vocab) == 0) {
        return load_fail(l, at, IMP_ERR_FILE, "must be an object of tokens");
    }
    yyjson_obj_foreach(vocab, i, n, key, value) {
        if (!yyjson_is_uint(value) || yyjson_get_uint(value) >= CAP_VOCAB) {
            return load_fail(l, AT(at, yyjson_get_str(key)), IMP_ERR_FILE,
                             "must be an id from 0 to %d", CAP_VOCAB - 1);
        }
        if (yyjson_get_len(key) > CAP_TOKEN_BYTES) {
            return load_fail(l, at, IMP_ERR_FILE, "a token of %zu bytes", yyjson_get_len(key));
        }
        int64_t id = (int64_t)yyjson_get_uint(value);
        if (id > *max_id) *max_id = id;
    }
    return 0;
}

static int add_vocab(struct loader *l, yyjson_val *vocab, const struct json_at *at) {
    size_t i, n;
    yyjson_val *key, *value;
    struct tokenizer *t = l->t;
    map_create(&t->bpe.vocab, yyjson_obj_size(vocab));
    yyjson_obj_foreach(vocab, i, n, key, value) {
        int32_t id = (int32_t)yyjson_get_uint(value);
        struct token *token = &t->tokens[id];
        if (token->content.data != NULL) {
            return load_fail(l, AT(at, yyjson_get_str(key)), IMP_ERR_FILE,
                             "the id %d belongs to two tokens", id);
        }
        token->content = token->decoded = load_copy(l, json_slice(key));
        map_add(&t->bpe.vocab, token->content, id);
    }
    return 0;
}

int32_t load_vocab_id(const struct tokenizer *t, struct slice content) {
    const int64_t *id = map_find(&t->bpe.vocab, content);
    return id ? (int32_t)*id : -1;
}

static void index_bytes(struct tokenizer *t) {
    struct bpe *bpe = &t->bpe;
    bpe->all_bytes = true;
    for (int b = 0; b < 256; b++) {
        char text[8];
        size_t n = utf8_encode(byte_level_encode((uint8_t)b), text);
        bpe->byte_ids[b] = load_vocab_id(t, (struct slice){text, n});
        if (bpe->byte_ids[b] < 0) bpe->all_bytes = false;
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        bpe->fallback_ids[b] = load_vocab_id(t, (struct slice){text, 6});
        text[0] = (char)b;
        if (b < 128) bpe->ascii_ids[b] = load_vocab_id(t, (struct slice){text, 1});
    }
}

/* ---- merges ---- */

static int split_merge(yyjson_val *value, struct slice *left, struct slice *right) {
    if (yyjson_is_arr(value)) {
        yyjson_val *a = yyjson_arr_get(value, 0), *b = yyjson_arr_get(value, 1);
        if (yyjson_arr_size(value) != 2 || !yyjson_is_str(a) || !yyjson_is_str(b)) return -1;
        *left = json_slice(a);
        *right = json_slice(b);
        return 0;
    }
    if (!yyjson_is_str(value)) return -1;
    struct slice text = json_slice(value);
    const char *blank = memchr(text.data, ' ', text.size);
    if (blank == NULL) return -1;
    *left = (struct slice){text.data, (size_t)(blank - text.data)};
    *right = (struct slice){blank + 1, text.size - left->size - 1};
    return memchr(right->data, ' ', right->size) == NULL ? 0 : -1;
}

/* "a▁": a mark that something else stands before. */
static bool has_inner_mark(struct slice text) {
    const size_t n = sizeof BPE_SPACE - 1;
    for (size_t i = 1; i + n <= text.size; i++) {
        if (memcmp(text.data + i, BPE_SPACE, n) != 0) continue;
        if (i < n || memcmp(text.data + i - n, BPE_SPACE, n) != 0) return true;
    }
    return false;
}

static int load_merges(struct loader *l, yyjson_val *merges, const struct json_at *at) {
    struct tokenizer *t = l->t;
    struct str joined = {0};
    size_t i, n;
    yyjson_val *value;
    uint32_t rank = 0;
    int rc = 0;
    bool words = load_vocab_id(t, slice_of(BPE_SPACE)) >= 0;
    if (!yyjson_is_arr(merges)) return load_fail(l, at, IMP_ERR_FILE, "must be an array");
    bpe_merges_init(&t->bpe, yyjson_arr_size(merges));
    yyjson_arr_foreach(merges, i, n, value) {
        struct slice left, right;
        if (yyjson_is_str(value) && slice_starts(json_slice(value), "#version")) continue;
        if (split_merge(value, &left, &right) < 0) {
            rc = load_fail(l, AT_INDEX(at, i), IMP_ERR_FILE, "is not a pair of tokens");
            break;
        }
        str_clear(&joined);
        str_add(&joined, left.data, left.size);
        str_add(&joined, right.data, right.size);
        int32_t a = load_vocab_id(t, left), b = load_vocab_id(t, right);
        int32_t id = load_vocab_id(t, (struct slice){joined.data, joined.size});
        if (a < 0 || b < 0 || id < 0) {
            rc = load_fail(l, AT_INDEX(at, i), IMP_ERR_FILE, "%s is not in the vocabulary",
                           a < 0   ? "the left token"
                           : b < 0 ? "the right token"
                                   : "the joined token");
            break;
        }
        bpe_merges_add(&t->bpe, a, b, rank++, id);
        if (words && has_inner_mark((struct slice){joined.data, joined.size})) words = false;
    }
    t->bpe.words = words;
    str_free(&joined);
    return rc;
}

static int refuse_text(struct loader *l, yyjson_val *model, const struct json_at *at,
                       const char *key) {
    struct slice text = {"", 0};
    int rc = load_text(l, model, at, key, &text);
    if (rc == 0 && text.size > 0) {
        rc = load_fail(l, AT(at, key), IMP_ERR_UNSUPPORTED, "is not supported");
    }
    return rc;
}

static int load_model_options(struct loader *l, yyjson_val *model, const struct json_at *at) {
    static const char *const known[] = {"type",
                                        "dropout",
                                        "unk_token",
                                        "continuing_subword_prefix",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "ignore_merges",
                                        "end_of_word_suffix",
                                        "vocab",
                                        "merges",
                                        NULL};
    struct bpe *bpe = &l->t->bpe;
    struct slice type = slice_of("BPE");
    int rc = load_known_keys(l, model, at, known);
    if (rc == 0) rc = load_text(l, model, at, "type", &type);
    if (rc == 0 && !slice_equal(type, slice_of("BPE"))) {
        rc = load_fail(l, AT(at, "type"), IMP_ERR_UNSUPPORTED, "only BPE is supported");
    }
    yyjson_val *dropout = load_field(model, "dropout");
    if (rc == 0 && dropout && !(yyjson_is_num(dropout) && yyjson_get_num(dropout) == 0)) {
        rc = load_fail(l, AT(at, "dropout"), IMP_ERR_UNSUPPORTED, "must be 0 or absent");
    }
    if (rc == 0) rc = refuse_text(l, model, at, "continuing_subword_prefix");
    if (rc == 0) rc = refuse_text(l, model, at, "end_of_word_suffix");
    if (rc == 0) rc = load_bool(l, model, at, "fuse_unk", &bpe->fuse_unk);
    if (rc == 0) rc = load_bool(l, model, at, "byte_fallback", &bpe->byte_fallback);
    if (rc == 0) rc = load_bool(l, model, at, "ignore_merges", &bpe->ignore_merges);
    return rc;
}

static int load_unknown(struct loader *l, yyjson_val *model, const struct json_at *at) {
    struct slice unk = {"", 0};
    struct bpe *bpe = &l->t->bpe;
    bpe->unk_id = -1;
    int rc = load_text(l, model, at, "unk_token", &unk);
    if (rc < 0 || unk.size == 0) return rc;
    bpe->unk_id = load_vocab_id(l->t, unk);
    /* Where every byte has a token nothing is unknown, so a name that does not exist is harmless.
     */
    if (bpe->unk_id < 0 && !(l->t->pretok.raw && bpe->all_bytes)) {
        return load_fail(l, AT(at, "unk_token"), IMP_ERR_FILE, "is not in the vocabulary");
    }
    return 0;
}

/* ---- post-processor ---- */

static int special_ids(struct loader *l, yyjson_val *specials, yyjson_val *piece,
                       const struct json_at *at, struct ids *out) {
    struct slice name = {"", 0};
    int rc = load_text(l, piece, at, "id", &name);
    if (rc < 0) return rc;
    yyjson_val *ids = yyjson_obj_get(yyjson_obj_getn(specials, name.data, name.size), "ids");
    if (!yyjson_is_arr(ids)) return load_fail(l, at, IMP_ERR_FILE, "names no special token");
    size_t i, n;
    yyjson_val *value;
    yyjson_arr_foreach(ids, i, n, value) {
        int64_t id;
        if (!load_id(value, &id) || id >= l->t->size || l->t->tokens[id].content.data == NULL) {
            return load_fail(l, at, IMP_ERR_FILE, "has an id that does not exist");
        }
        ids_add(out, (int32_t)id);
    }
    return 0;
}

static void ids_append(struct ids *to, const struct ids *from) {
    for (size_t i = 0; i < from->count; i++) ids_add(to, from->data[i]);
}

static int load_template(struct loader *l, yyjson_val *value, const struct json_at *at) {
    static const char *const known[] = {"type", "single", "pair", "special_tokens", NULL};
    struct ids parts[2] = {{0}}; /* before and behind the sequence */
    yyjson_val *single = load_field(value, "single"),
               *specials = load_field(value, "special_tokens"), *piece;
    const struct json_at single_at = {.up = at, .key = "single"};
    int sequences = 0;
    size_t i, n;
    int rc = load_known_keys(l, value, at, known);
    if (rc == 0 && !yyjson_is_arr(single)) {
        rc = load_fail(l, &single_at, IMP_ERR_FILE, "must be an array");
    }
    if (rc < 0) return rc;
    yyjson_arr_foreach(single, i, n, piece) {
        const struct json_at here = {.up = &single_at, .index = i};
        yyjson_val *special = yyjson_obj_get(piece, "SpecialToken");
        yyjson_val *sequence = yyjson_obj_get(piece, "Sequence");
        if (special) {
            rc = special_ids(l, specials, special, &here, &parts[sequences ? 1 : 0]);
        } else if (sequence && yyjson_equals_str(yyjson_obj_get(sequence, "id"), "A")) {
            sequences++;
        } else {
            rc = load_fail(l, &here, IMP_ERR_UNSUPPORTED, "is neither a special token nor $A");
        }
        if (rc < 0) break;
    }
    if (rc == 0 && sequences != 1) {
        rc = load_fail(l, &single_at, IMP_ERR_UNSUPPORTED, "must hold the sequence once");
    }
    if (rc == 0) { /* around what an earlier processor has put */
        ids_append(&parts[0], &l->t->prefix);
        ids_append(&l->t->suffix, &parts[1]);
        struct ids swap = l->t->prefix;
        l->t->prefix = parts[0];
        parts[0] = swap;
    }
    ids_free(&parts[0]);
    ids_free(&parts[1]);
    return rc;
}

static int load_post(struct loader *l, yyjson_val *value, const struct json_at *at, int depth) {
    struct slice type;
    if (value == NULL) return 0;
    if (depth > CAP_TOKENIZER_DEPTH) return load_fail(l, at, IMP_ERR_FILE, "nested too deep");
    int rc = load_type(l, value, at, &type);
    if (rc < 0) return rc;
    if (slice_equal(type, slice_of("TemplateProcessing"))) return load_template(l, value, at);
    if (slice_equal(type, slice_of("ByteLevel"))) return 0; /* offsets only */
    if (!slice_equal(type, slice_of("Sequence"))) {
        return load_fail(l, AT(at, "type"), IMP_ERR_UNSUPPORTED, "%.*s is not supported",
                         (int)(type.size < 60 ? type.size : 60), type.data);
    }
    yyjson_val *list = load_field(value, "processors"), *item;
    const struct json_at list_at = {.up = at, .key = "processors"};
    if (!yyjson_is_arr(list)) return load_fail(l, &list_at, IMP_ERR_FILE, "must be an array");
    size_t i, n;
    yyjson_arr_foreach(list, i, n, item) {
        rc = load_post(l, item, AT_INDEX(&list_at, i), depth + 1);
        if (rc < 0) return rc;
    }
    return 0;
}

/* ---- the whole ---- */

static int allocate_tokens(struct loader *l, int64_t max_id, size_t count) {
    /* Ids without a token are tolerated, but not so many that a small file takes much memory. */
    if ((uint64_t)max_id >= 2 * (uint64_t)count + 65536) {
        return load_fail(l, &load_root_at, IMP_ERR_FILE, "%zu tokens with ids up to %lld", count,
                         (long long)max_id);
    }
    l->t->size = (int32_t)max_id + 1;
    l->t->tokens = mem_zero((size_t)l->t->size, sizeof *l->t->tokens);
    return 0;
}

static int load_tokens(struct loader *l, yyjson_val *root, yyjson_val *model, yyjson_val *config) {
    const struct json_at model_at = {.up = &load_root_at, .key = "model"};
    const struct json_at vocab_at = {.up = &model_at, .key = "vocab"};
    yyjson_val *vocab = load_field(model, "vocab");
    struct added_source *list = NULL;
    size_t count = 0;
    int64_t max_id = 0;
    int rc = check_vocab(l, vocab, &vocab_at, &max_id);
    if (rc == 0) rc = added_list(l, root, config, &list, &count);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (list[i].id > max_id) max_id = list[i].id;
    }
    if (rc == 0) rc = allocate_tokens(l, max_id, yyjson_obj_size(vocab) + count);
    if (rc == 0) rc = add_vocab(l, vocab, &vocab_at);
    if (rc == 0) rc = added_place(l, list, count);
    free(list);
    return rc;
}

static int load_root(struct loader *l, yyjson_val *root, yyjson_val *config) {
    static const char *const known[] = {
        "version",       "truncation",     "padding", "added_tokens", "normalizer",
        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    const struct json_at model_at = {.up = &load_root_at, .key = "model"};
    const struct json_at merges_at = {.up = &model_at, .key = "merges"};
    const struct json_at post_at = {.up = &load_root_at, .key = "post_processor"};
    struct slice version = slice_of("1.0");
    int rc = load_known_keys(l, root, &load_root_at, known);
    if (rc == 0) rc = load_text(l, root, &load_root_at, "version", &version);
    if (rc == 0 && !slice_equal(version, slice_of("1.0"))) {
        rc = load_fail(l, AT(&load_root_at, "version"), IMP_ERR_UNSUPPORTED,
                       "only 1.0 is supported");
    }
    yyjson_val *model = load_field(root, "model");
    if (rc == 0 && model == NULL) rc = load_fail(l, &model_at, IMP_ERR_FILE, "is missing");
    if (rc == 0) rc = load_model_options(l, model, &model_at);
    if (rc == 0) rc = load_tokens(l, root, model, config);
    if (rc < 0) return rc;
    index_bytes(l->t);
    rc = load_merges(l, load_field(model, "merges"), &merges_at);
    if (rc == 0) rc = load_normalizer(l, load_field(root, "normalizer"));
    if (rc == 0) rc = load_pretok(l, load_field(root, "pre_tokenizer"));
    if (rc == 0) rc = load_unknown(l, model, &model_at);
    if (rc == 0) rc = load_decoder(l, load_field(root, "decoder"));
    if (rc == 0) rc = load_post(l, load_field(root, "post_processor"), &post_at, 0);
    if (rc == 0) rc = added_finish(l);
    return rc;
}

/* Fills l->t from a document; config is tokenizer_config.json or NULL. */
typedef int (*load_fn)(struct loader *l, yyjson_val *root, yyjson_val *config);

static int parse(load_fn load, struct slice json, struct loader l, yyjson_val *config,
                 struct tokenizer **out) {
    yyjson_doc *doc = NULL;
    if (json.size > CAP_TOKENIZER_BYTES) {
        return error_set(l.err, IMP_ERR_FILE, l.name, "%zu bytes are over the limit", json.size);
    }
    int rc = json_read(json.data, json.size, l.name, &doc, l.err);
    if (rc < 0) return rc;
    l.t = mem_zero(1, sizeof *l.t);
    rc = load(&l, yyjson_doc_get_root(doc), config);
    yyjson_doc_free(doc);
    if (rc < 0) {
        tokenizer_free(l.t);
        return rc;
    }
    *out = l.t;
    return 0;
}

int tokenizer_parse(const char *json, size_t size, const char *name, const struct log *log,
                    struct tokenizer **out, struct imp_error *err) {
    struct loader l = {.name = name, .log = log, .err = err};
    return parse(load_root, (struct slice){json, size}, l, NULL, out);
}

int tokenizer_parse_tekken(const char *json, size_t size, const char *name, const struct log *log,
                           struct tokenizer **out, struct imp_error *err) {
    struct loader l = {.name = name, .log = log, .err = err};
    return parse(load_tekken, (struct slice){json, size}, l, NULL, out);
}

int tokenizer_load(const char *folder, const struct log *log, struct tokenizer **out,
                   struct imp_error *err) {
    struct str path = {0}, tekken_path = {0}, config_path = {0}, text = {0};
    yyjson_doc *config = NULL;
    str_printf(&path, "%s/tokenizer.json", folder);
    str_printf(&tekken_path, "%s/tekken.json", folder);
    str_printf(&config_path, "%s/tokenizer_config.json", folder);
    bool tekken = !file_exists(path.data) && file_exists(tekken_path.data);
    struct loader l = {.name = tekken ? tekken_path.data : path.data, .log = log, .err = err};
    int rc = file_read(l.name, CAP_TOKENIZER_BYTES, &text, err);
    if (rc == 0 && !tekken && file_exists(config_path.data)) {
        rc = json_read_file(config_path.data, CAP_CONFIG_BYTES, &config, err);
    }
    if (rc == 0) {
        rc = parse(tekken ? load_tekken : load_root,
                   (struct slice){text.data ? text.data : "", text.size}, l,
                   config ? yyjson_doc_get_root(config) : NULL, out);
    }
    yyjson_doc_free(config);
    str_free(&text);
    str_free(&path);
    str_free(&tekken_path);
    str_free(&config_path);
    return rc;
}
