#include "load/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"

enum { LENGTH_BYTES = 8 }; /* before the header: its length, little-endian */

struct reader {
    const char *name;     /* of the file */
    const uint8_t *data;  /* first byte behind the header */
    size_t data_bytes;    /* from there to the end of the file */
    uint64_t data_offset; /* of `data` in the file */
    struct imp_error *err;
};

static int fail_tensor(const struct reader *r, const char *tensor, const char *what) {
    char place[sizeof r->err->where];
    error_place(place, r->name, "tensor %s", tensor);
    return error_set(r->err, IMP_ERR_FILE, place, "%s", what);
}

static int fail_byte(const char *name, uint64_t byte, const char *what, struct imp_error *err) {
    char place[sizeof err->where];
    error_place(place, name, "byte %llu", (unsigned long long)byte);
    return error_set(err, IMP_ERR_FILE, place, "%s", what);
}

/* The JSON reader spends 16 bytes on a single "[" and 100 on a tensor, so nesting and the number of
 * objects are capped before it sees the text. Whatever else is wrong with the text it will find. */
static int scan_header(const char *p, size_t n, const char *name, struct imp_error *err) {
    size_t objects = 0, depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (in_string) {
            if (c == '\\') i++;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            objects += c == '{';
            if (++depth > CAP_JSON_DEPTH)
                return fail_byte(name, LENGTH_BYTES + i, "the header's JSON is nested too deep",
                                 err);
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        }
    }
    if (objects > CAP_TENSORS + 2)
        return error_set(err, IMP_ERR_FILE, name,
                         "the header has %zu objects, more than the %u "
                         "tensors allowed",
                         objects, CAP_TENSORS);
    return 0;
}

/* Names go to terminals and logs, and into zero-terminated strings. */
static bool name_is_plain(struct slice s) {
    for (size_t i = 0; i < s.size; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if (c < 0x20 || c == 0x7f) return false;
        if (c == 0xc2 && (unsigned char)s.data[i + 1] < 0xa0) return false; /* U+0080..U+009F */
    }
    return true;
}

static int parse_shape(const struct reader *r, yyjson_val *shape, struct tensor *t,
                       uint64_t *elements) {
    if (!yyjson_is_arr(shape)) return fail_tensor(r, t->name, "\"shape\" is not an array");
    if (yyjson_arr_size(shape) > CAP_TENSOR_DIMS)
        return fail_tensor(r, t->name, "\"shape\" has too many dimensions");
    size_t i, n;
    yyjson_val *dim;
    *elements = 1;
    yyjson_arr_foreach(shape, i, n, dim) {
        if (!yyjson_is_uint(dim) || yyjson_get_uint(dim) > INT64_MAX)
            return fail_tensor(r, t->name, "\"shape\" holds something that is not a size");
        if (__builtin_mul_overflow(*elements, yyjson_get_uint(dim), elements) ||
            *elements > INT64_MAX)
            return fail_tensor(r, t->name, "\"shape\" has more elements than 64 bits can count");
        t->shape[t->dims++] = (int64_t)yyjson_get_uint(dim);
    }
    return 0;
}

static int parse_span(const struct reader *r, yyjson_val *offsets, struct tensor *t,
                      uint64_t elements) {
    yyjson_val *first = yyjson_arr_get(offsets, 0), *last = yyjson_arr_get(offsets, 1);
    if (yyjson_arr_size(offsets) != 2 || !yyjson_is_uint(first) || !yyjson_is_uint(last))
        return fail_tensor(r, t->name, "\"data_offsets\" is not two offsets");
    uint64_t begin = yyjson_get_uint(first), end = yyjson_get_uint(last), bits;
    if (end < begin) return fail_tensor(r, t->name, "its data ends before it begins");
    if (end > r->data_bytes) return fail_tensor(r, t->name, "its data ends behind the file's end");
    if (__builtin_mul_overflow(elements, (uint64_t)dtype_bits(t->dtype), &bits))
        return fail_tensor(r, t->name, "\"shape\" has more bits than 64 bits can count");
    if (bits % 8 != 0) return fail_tensor(r, t->name, "its elements do not fill whole bytes");
    if (bits / 8 != end - begin) {
        char what[200], shape[128];
        tensor_shape_text(t, shape);
        snprintf(what, sizeof what, "%s %s takes %llu bytes, \"data_offsets\" gives it %llu",
                 dtype_name(t->dtype), shape, (unsigned long long)(bits / 8),
                 (unsigned long long)(end - begin));
        return fail_tensor(r, t->name, what);
    }
    t->bytes = (size_t)(end - begin);
    t->data = t->bytes ? r->data + begin : NULL;
    t->file_offset = r->data_offset + begin;
    return 0;
}

static int parse_tensor(const struct reader *r, yyjson_val *key, yyjson_val *entry,
                        struct arena *arena, struct tensor *t) {
    struct slice name = json_slice(key);
    if (name.size > CAP_TENSOR_NAME)
        return error_set(r->err, IMP_ERR_FILE, r->name, "a tensor's name has %zu bytes", name.size);
    t->name = arena_strndup(arena, name.data, name.size);
    if (!name_is_plain(name))
        return fail_tensor(r, t->name, "the tensor's name holds control characters");
    if (!yyjson_is_obj(entry)) return fail_tensor(r, t->name, "its entry is not an object");
    yyjson_val *dtype = yyjson_obj_get(entry, "dtype");
    if (!yyjson_is_str(dtype)) return fail_tensor(r, t->name, "\"dtype\" is not a string");
    t->dtype = dtype_from_name(json_slice(dtype));
    if (t->dtype == DTYPE_UNKNOWN) {
        char what[100];
        snprintf(what, sizeof what, "unknown dtype \"%.40s\"", yyjson_get_str(dtype));
        return fail_tensor(r, t->name, what);
    }
    uint64_t elements = 0;
    int rc = parse_shape(r, yyjson_obj_get(entry, "shape"), t, &elements);
    if (rc == 0) rc = parse_span(r, yyjson_obj_get(entry, "data_offsets"), t, elements);
    /* A key that this reader does not know might change what the bytes mean. */
    if (rc == 0 && yyjson_obj_size(entry) != 3)
        rc = fail_tensor(r, t->name, "its entry has keys besides dtype, shape and data_offsets");
    return rc;
}

static int check_metadata(const struct reader *r, yyjson_val *metadata) {
    size_t i, n;
    yyjson_val *key, *value;
    bool strings = yyjson_is_obj(metadata);
    yyjson_obj_foreach(metadata, i, n, key, value) strings = strings && yyjson_is_str(value);
    if (strings) return 0;
    char place[sizeof r->err->where];
    error_place(place, r->name, "$.__metadata__");
    return error_set(r->err, IMP_ERR_FILE, place, "not an object of strings");
}

static int by_place(const void *a, const void *b) {
    const struct tensor *x = a, *y = b;
    if (x->file_offset != y->file_offset) return x->file_offset < y->file_offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Tensors lie back to back from the first data byte to the last of the file. */
static int check_tiling(const struct reader *r, const struct safetensors *file) {
    uint64_t at = r->data_offset;
    for (size_t i = 0; i < file->count; i++) {
        const struct tensor *t = &file->tensors[i];
        if (t->file_offset > at)
            return fail_tensor(r, t->name, "there are bytes before its data that no tensor has");
        if (t->file_offset < at) {
            char what[200];
            snprintf(what, sizeof what, "its data overlaps that of %.120s",
                     file->tensors[i - 1].name);
            return fail_tensor(r, t->name, what);
        }
        at += t->bytes;
    }
    if (at - r->data_offset == r->data_bytes) return 0;
    return fail_byte(r->name, at, "there are bytes behind the last tensor", r->err);
}

static int parse_header(const struct reader *r, yyjson_val *root, struct safetensors *out) {
    if (!yyjson_is_obj(root)) return fail_byte(r->name, LENGTH_BYTES, "not an object", r->err);
    if (yyjson_obj_size(root) > CAP_TENSORS + 1)
        return error_set(r->err, IMP_ERR_FILE, r->name, "more than %u tensors", CAP_TENSORS);
    const char *name = arena_strndup(&out->arena, r->name, strlen(r->name));
    out->tensors = arena_array(&out->arena, yyjson_obj_size(root), sizeof *out->tensors);
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach(root, i, n, key, value) {
        int rc;
        if (yyjson_equals_str(key, "__metadata__")) {
            rc = check_metadata(r, value);
        } else {
            struct tensor *t = &out->tensors[out->count++];
            t->file = name;
            rc = parse_tensor(r, key, value, &out->arena, t);
        }
        if (rc < 0) return rc;
    }
    if (out->count > 0) qsort(out->tensors, out->count, sizeof *out->tensors, by_place);
    return check_tiling(r, out);
}

int safetensors_parse(const uint8_t *data, size_t size, const char *name, struct safetensors *out,
                      struct imp_error *err) {
    *out = (struct safetensors){0};
    if (size < LENGTH_BYTES)
        return error_set(err, IMP_ERR_FILE, name, "%zu bytes: too short for a SafeTensors file",
                         size);
    uint64_t length = 0;
    for (int i = 0; i < LENGTH_BYTES; i++) length |= (uint64_t)data[i] << 8 * i;
    if (length > CAP_SAFETENSORS_HEADER)
        return error_set(err, IMP_ERR_FILE, name,
                         "the header has %llu bytes, more than the %u "
                         "allowed",
                         (unsigned long long)length, CAP_SAFETENSORS_HEADER);
    if (length > size - LENGTH_BYTES)
        return error_set(err, IMP_ERR_FILE, name,
                         "the header has %llu bytes, the file only %zu "
                         "after its length",
                         (unsigned long long)length, size - LENGTH_BYTES);

    const char *header = (const char *)data + LENGTH_BYTES;
    char where[sizeof err->where];
    error_place(where, name, "header");
    yyjson_doc *doc = NULL;
    int rc = scan_header(header, (size_t)length, name, err);
    if (rc == 0) rc = json_read(header, (size_t)length, where, &doc, err);
    if (rc < 0) return rc;
    struct reader r = {name, data + LENGTH_BYTES + length, size - LENGTH_BYTES - (size_t)length,
                       LENGTH_BYTES + length, err};
    rc = parse_header(&r, yyjson_doc_get_root(doc), out);
    yyjson_doc_free(doc);
    if (rc < 0) safetensors_close(out);
    return rc;
}

int safetensors_open(const char *path, struct safetensors *out, struct imp_error *err) {
    struct file_map map;
    *out = (struct safetensors){0};
    int rc = file_map_open(path, &map, err);
    if (rc < 0) return rc;
    rc = safetensors_parse(map.data, map.size, path, out, err);
    if (rc < 0) {
        file_map_close(&map);
        return rc;
    }
    out->map = map;
    return 0;
}

void safetensors_close(struct safetensors *file) {
    arena_free(&file->arena);
    file_map_close(&file->map);
    *file = (struct safetensors){0};
}

int64_t tensor_elements(const struct tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->dims; i++) n *= t->shape[i];
    return n;
}

void tensor_shape_text(const struct tensor *t, char out[128]) {
    enum { SIZE = 128 };
    int n = snprintf(out, SIZE, "[");
    for (int i = 0; i < t->dims && n < SIZE; i++)
        n += snprintf(out + n, (size_t)(SIZE - n), "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    if (n < SIZE) snprintf(out + n, (size_t)(SIZE - n), "]");
}
