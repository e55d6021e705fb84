#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"
#include "base/map.h"

struct slice json_slice(yyjson_val *string) {
    return (struct slice){yyjson_get_str(string), yyjson_get_len(string)};
}

/* Objects up to this size are checked for equal keys by comparing pairs, larger ones by a map. */
enum { SMALL_OBJECT = 16 };

static int duplicate_key(yyjson_val *object, const char *where, struct imp_error *err) {
    size_t i, n, j, m;
    yyjson_val *key, *value, *other, *other_value;
    struct slice twice = {0};
    if (yyjson_obj_size(object) <= SMALL_OBJECT) {
        yyjson_obj_foreach(object, i, n, key, value) {
            yyjson_obj_foreach(object, j, m, other, other_value) {
                if (j >= i) break;
                if (slice_equal(json_slice(key), json_slice(other))) twice = json_slice(key);
            }
        }
    } else {
        struct map keys;
        map_create(&keys, yyjson_obj_size(object));
        yyjson_obj_foreach(object, i, n, key, value) {
            if (!map_add(&keys, json_slice(key), 0)) twice = json_slice(key);
        }
        map_free(&keys);
    }
    if (twice.data == NULL) return 0;
    return error_set(err, IMP_ERR_FILE, where, "the key \"%.*s\" occurs twice in one JSON object",
                     (int)(twice.size > 100 ? 100 : twice.size), twice.data);
}

/* Walks without recursion: the stack holds one iterator per open container. */
static int check_tree(yyjson_val *root, const char *where, struct imp_error *err) {
    struct level {
        bool object;
        yyjson_arr_iter arr;
        yyjson_obj_iter obj;
    } *stack = mem_alloc(CAP_JSON_DEPTH * sizeof *stack);
    size_t depth = 0;
    int rc = 0;
    yyjson_val *value = root;
    while (value != NULL && rc == 0) {
        if (yyjson_is_ctn(value)) {
            if (depth == CAP_JSON_DEPTH) {
                rc = error_set(err, IMP_ERR_FILE, where, "JSON nested deeper than %d levels",
                               CAP_JSON_DEPTH);
                break;
            }
            struct level *level = &stack[depth++];
            level->object = yyjson_is_obj(value);
            if (level->object) {
                rc = duplicate_key(value, where, err);
                level->obj = yyjson_obj_iter_with(value);
            } else {
                level->arr = yyjson_arr_iter_with(value);
            }
        }
        value = NULL;
        while (depth > 0 && value == NULL) {
            struct level *level = &stack[depth - 1];
            value = level->object ? yyjson_obj_iter_get_val(yyjson_obj_iter_next(&level->obj))
                                  : yyjson_arr_iter_next(&level->arr);
            if (value == NULL) depth--;
        }
    }
    free(stack);
    return rc;
}

static int read_with(yyjson_read_flag flags, const char *data, size_t size, const char *where,
                     yyjson_doc **out, struct imp_error *err) {
    yyjson_read_err why = {0};
    /* yyjson does not write into the buffer without YYJSON_READ_INSITU. */
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)data, size, flags, NULL, &why);
    if (doc == NULL) {
        char place[sizeof err->where];
        snprintf(place, sizeof place, "%s: byte %zu", where, why.pos);
        return error_set(err, IMP_ERR_FILE, place, "not valid JSON: %s", why.msg ? why.msg : "?");
    }
    int rc = check_tree(yyjson_doc_get_root(doc), where, err);
    if (rc < 0) {
        yyjson_doc_free(doc);
        return rc;
    }
    *out = doc;
    return 0;
}

int json_read(const char *data, size_t size, const char *where, yyjson_doc **out,
              struct imp_error *err) {
    return read_with(YYJSON_READ_NOFLAG, data, size, where, out, err);
}

int json_read_exact(const char *data, size_t size, const char *where, yyjson_doc **out,
                    struct imp_error *err) {
    return read_with(YYJSON_READ_BIGNUM_AS_RAW, data, size, where, out, err);
}

int json_read_file(const char *path, size_t cap_bytes, yyjson_doc **out, struct imp_error *err) {
    struct str text = {0};
    int rc = file_read(path, cap_bytes, &text, err);
    if (rc == 0) rc = json_read(text.data, text.size, path, out, err);
    str_free(&text);
    return rc;
}
