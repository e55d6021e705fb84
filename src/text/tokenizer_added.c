#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer_internal.h"

static int read_added(struct loader *l, const struct added_source *from, struct added_token *out) {
    static const char *const known[] = {"id",         "content", "single_word", "lstrip", "rstrip",
                                        "normalized", "special", "__type",      NULL};
    yyjson_val *value = from->value;
    const struct json_at *at = &from->at;
    int rc = load_known_keys(l, value, at, known);
    if (rc == 0) rc = load_text(l, value, at, "content", &out->content);
    if (rc == 0 && (out->content.size == 0 || out->content.size > CAP_ADDED_TOKEN_BYTES)) {
        rc = load_fail(l, AT(at, "content"), IMP_ERR_FILE, "has %zu bytes", out->content.size);
    }
    if (rc == 0) rc = load_bool(l, value, at, "special", &out->special);
    out->normalized = !out->special;
    if (rc == 0) rc = load_bool(l, value, at, "normalized", &out->normalized);
    if (rc == 0) rc = load_bool(l, value, at, "lstrip", &out->left_strip);
    if (rc == 0) rc = load_bool(l, value, at, "rstrip", &out->right_strip);
    if (rc == 0) rc = load_bool(l, value, at, "single_word", &out->single_word);
    if (rc < 0) return rc;
    out->id = (int32_t)from->id;
    out->content = load_copy(l, out->content);
    out->match = out->content;
    return 0;
}

static int place_added(struct loader *l, const struct added_source *from,
                       const struct added_token *added) {
    struct tokenizer *t = l->t;
    struct token *token = &t->tokens[added->id];
    if (map_find(&t->added_ids, added->content)) {
        return load_fail(l, &from->at, IMP_ERR_FILE, "this token is there twice");
    }
    int32_t model_id = load_vocab_id(t, added->content);
    if (model_id >= 0 && model_id != added->id) {
        return load_fail(l, &from->at, IMP_ERR_FILE, "the vocabulary gives this token the id %d",
                         model_id);
    }
    if (token->content.data != NULL && model_id < 0) {
        return load_fail(l, &from->at, IMP_ERR_FILE, "the id %d belongs to another token",
                         added->id);
    }
    token->content = token->decoded = added->content;
    token->special = added->special;
    map_add(&t->added_ids, added->content, (int64_t)t->added_count);
    t->added[t->added_count++] = *added;
    return 0;
}

/* An object's key as an id: digits alone. */
static bool id_of_key(yyjson_val *key, int64_t *id) {
    struct slice text = json_slice(key);
    *id = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || *id >= CAP_VOCAB) return false;
        *id = *id * 10 + (text.data[i] - '0');
    }
    return text.size > 0 && *id < CAP_VOCAB;
}

static int list_added(struct loader *l, yyjson_val *array, const struct json_at *at,
                      struct added_source *list, size_t *count) {
    size_t i, n;
    yyjson_val *value;
    yyjson_arr_foreach(array, i, n, value) {
        struct added_source from = {value, {.up = at, .index = i}, 0};
        if (!yyjson_is_obj(value)) return load_fail(l, &from.at, IMP_ERR_FILE, "must be an object");
        if (!load_id(yyjson_obj_get(value, "id"), &from.id)) {
            return load_fail(l, AT(&from.at, "id"), IMP_ERR_FILE, "must be an id from 0 to %d",
                             CAP_VOCAB - 1);
        }
        list[(*count)++] = from;
    }
    return 0;
}

/* Those of tokenizer_config.json that tokenizer.json has neither by id nor by content. */
static int list_configured(struct loader *l, yyjson_val *object, const struct json_at *at,
                           struct added_source *list, size_t *count) {
    size_t i, n, own = *count;
    yyjson_val *key, *value;
    yyjson_obj_foreach(object, i, n, key, value) {
        struct added_source from = {value, {.up = at, .key = yyjson_get_str(key)}, 0};
        bool there = !yyjson_is_obj(value);
        if (there || !id_of_key(key, &from.id)) {
            return load_fail(l, &from.at, IMP_ERR_FILE, "must be a token under its id");
        }
        yyjson_val *content = yyjson_obj_get(value, "content");
        for (size_t k = 0; k < own && !there; k++) {
            there = list[k].id == from.id ||
                    yyjson_equals(yyjson_obj_get(list[k].value, "content"), content);
        }
        if (!there) list[(*count)++] = from;
    }
    return 0;
}

int added_list(struct loader *l, yyjson_val *root, yyjson_val *config, struct added_source **list,
               size_t *count) {
    static const struct json_at array_at = {.up = &load_root_at, .key = "added_tokens"};
    static const struct json_at config_at = {.key =
                                                 "tokenizer_config.json: $.added_tokens_decoder"};
    yyjson_val *array = load_field(root, "added_tokens");
    yyjson_val *object = config ? load_field(config, "added_tokens_decoder") : NULL;
    if (array && !yyjson_is_arr(array)) {
        return load_fail(l, &array_at, IMP_ERR_FILE, "must be an array");
    }
    if (object && !yyjson_is_obj(object)) {
        return load_fail(l, &config_at, IMP_ERR_FILE, "must be an object");
    }
    size_t room = yyjson_arr_size(array) + yyjson_obj_size(object);
    if (room > CAP_ADDED_TOKENS) {
        return load_fail(l, &array_at, IMP_ERR_FILE, "%zu tokens are over the limit", room);
    }
    *list = mem_zero(room, sizeof **list);
    int rc = array ? list_added(l, array, &array_at, *list, count) : 0;
    if (rc == 0 && object) rc = list_configured(l, object, &config_at, *list, count);
    return rc;
}

int added_place(struct loader *l, const struct added_source *list, size_t count) {
    struct tokenizer *t = l->t;
    t->added = mem_zero(count, sizeof *t->added);
    map_create(&t->added_ids, count);
    for (size_t i = 0; i < count; i++) {
        struct added_token added = {0};
        int rc = read_added(l, &list[i], &added);
        if (rc == 0) rc = place_added(l, &list[i], &added);
        if (rc < 0) return rc;
    }
    return 0;
}

/* Longer ones would take quadratic time; one of nothing, in the package, cuts every text between
 * all of its characters. */
static int check_normalized(struct loader *l, const struct added_token *added, size_t bytes) {
    const struct json_at at = {.up = &load_root_at, .key = "added_tokens"};
    if (bytes > 0 && bytes <= CAP_ADDED_TOKEN_BYTES) return 0;
    return load_fail(l, &at, IMP_ERR_UNSUPPORTED, "the token %d has %zu bytes when normalized",
                     added->id, bytes);
}

int added_finish(struct loader *l) {
    struct tokenizer *t = l->t;
    struct normalize_scratch scratch = {0};
    struct regex_scratch regex;
    regex_scratch_init(&regex);
    bool words = false;
    int rc = 0;
    for (size_t i = 0; i < t->added_count && rc == 0; i++) {
        struct added_token *added = &t->added[i];
        words |= added->single_word;
        if (added->normalized && t->normalizer.count > 0) {
            struct slice text = added->content;
            normalize_run(&t->normalizer, &scratch, &regex, &text, NULL);
            rc = check_normalized(l, added, text.size);
            added->match = load_copy(l, text);
            t->tokens[added->id].decoded = added->match;
        }
        t->normalized_special |= added->normalized && added->special;
    }
    for (size_t i = 0; i < t->added_count; i++) {
        struct token *token = &t->tokens[t->added[i].id];
        const int64_t *named = map_find(&t->added_ids, token->decoded);
        token->skipped = named && t->added[*named].special;
    }
    regex_scratch_free(&regex);
    normalize_scratch_free(&scratch);
    if (words) t->word = regex_word_new(false);
    added_set_build(&t->raw_set, t->added, t->added_count, false);
    added_set_build(&t->normalized_set, t->added, t->added_count, true);
    return rc;
}
