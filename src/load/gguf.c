/* Reading the head of a GGUF file: keys, values, tensor infos. See gguf.h. */
#include "load/gguf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { /* value types as the file numbers them */
       FILE_U8,
       FILE_I8,
       FILE_U16,
       FILE_I16,
       FILE_U32,
       FILE_I32,
       FILE_F32,
       FILE_BOOL,
       FILE_STRING,
       FILE_ARRAY,
       FILE_U64,
       FILE_I64,
       FILE_F64,
       FILE_TYPES
};

/* Bytes of a value, or the least a string or an array can take. */
static const uint8_t least_bytes[FILE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
static const enum gguf_kind kinds[FILE_TYPES] = {
    GGUF_KIND_UINT, GGUF_KIND_INT,   GGUF_KIND_UINT, GGUF_KIND_INT,    GGUF_KIND_UINT,
    GGUF_KIND_INT,  GGUF_KIND_FLOAT, GGUF_KIND_BOOL, GGUF_KIND_STRING, GGUF_KIND_ARRAY,
    GGUF_KIND_UINT, GGUF_KIND_INT,   GGUF_KIND_FLOAT};

/* The least bytes that one entry takes: what bounds a count before anything is allocated for it. */
enum {
    KEY_LEAST_BYTES = 8 + 1 + 4 + 1,            /* length, one byte, type, value */
    TENSOR_LEAST_BYTES = 8 + 1 + 4 + 8 + 4 + 8, /* length, one byte, dims, dim, type, offset */
    DEFAULT_ALIGNMENT = 32,
    LEAST_ALIGNMENT = 8,
};

struct reader {
    const uint8_t *data;
    size_t size, pos;
    const char *file; /* for messages */
    struct imp_error *err;
};

__attribute__((format(printf, 3, 4))) static int fail(const struct reader *r, size_t at,
                                                      const char *fmt, ...) {
    char message[400], where[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    error_place(where, r->file, "byte %zu", at);
    return error_set(r->err, IMP_ERR_FILE, where, "%s", message);
}

/* A name in a message: it comes from the file and may be long. */
static int shown(struct slice s) {
    return s.size > 100 ? 100 : (int)s.size;
}

static uint64_t little_endian(const uint8_t *p, size_t bytes) {
    uint64_t u = 0;
    for (size_t i = 0; i < bytes; i++) u |= (uint64_t)p[i] << 8 * i;
    return u;
}

static size_t left(const struct reader *r) {
    return r->size - r->pos;
}

static int read_uint(struct reader *r, size_t bytes, const char *what, uint64_t *out) {
    if (left(r) < bytes) return fail(r, r->pos, "the file ends in %s", what);
    *out = little_endian(r->data + r->pos, bytes);
    r->pos += bytes;
    return 0;
}

static int read_string(struct reader *r, const char *what, struct slice *out) {
    size_t at = r->pos;
    uint64_t size = 0;
    int rc = read_uint(r, 8, what, &size);
    if (rc < 0) return rc;
    if (size > left(r)) {
        return fail(r, at, "%s of %llu bytes, but only %zu are left", what,
                    (unsigned long long)size, left(r));
    }
    *out = (struct slice){(const char *)r->data + r->pos, (size_t)size};
    r->pos += (size_t)size;
    return 0;
}

/* Names become C strings and parts of messages. */
static int read_name(struct reader *r, const char *what, size_t cap, struct slice *out) {
    size_t at = r->pos;
    int rc = read_string(r, what, out);
    if (rc < 0) return rc;
    if (out->size == 0) return fail(r, at, "%s is empty", what);
    if (out->size > cap) {
        return fail(r, at, "%s of %zu bytes, at most %zu are allowed", what, out->size, cap);
    }
    if (!utf8_valid(out->data, out->size) || memchr(out->data, 0, out->size) != NULL) {
        return fail(r, at, "%s is not text: %.*s", what, shown(*out), out->data);
    }
    return 0;
}

/* ---- values ---- */

static struct gguf_value scalar_at(uint32_t file_type, const uint8_t *p) {
    struct gguf_value v = {.kind = kinds[file_type], .file_type = file_type};
    uint64_t u = little_endian(p, least_bytes[file_type]);
    switch (file_type) {
    case FILE_I8:
        v.i = u < 128 ? (int64_t)u : (int64_t)u - 256;
        break;
    case FILE_I16:
        v.i = (int16_t)u;
        break;
    case FILE_I32:
        v.i = (int32_t)u;
        break;
    case FILE_I64:
        v.i = (int64_t)u;
        break;
    case FILE_BOOL:
        v.b = u != 0;
        break;
    case FILE_F32: {
        float f;
        uint32_t bits = (uint32_t)u;
        memcpy(&f, &bits, sizeof f);
        v.f = (double)f;
        break;
    }
    case FILE_F64:
        memcpy(&v.f, &u, sizeof v.f);
        break;
    default:
        v.u = u;
    }
    return v;
}

static int check_bools(const struct reader *r, const uint8_t *p, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        if (p[i] > 1) return fail(r, (size_t)(p + i - r->data), "a boolean of value %d", p[i]);
    }
    return 0;
}

static int read_array(struct reader *r, struct slice key, struct gguf_value *out) {
    size_t at = r->pos;
    uint64_t type = 0, count = 0;
    int rc = read_uint(r, 4, "an array's type", &type);
    if (rc == 0) rc = read_uint(r, 8, "an array's length", &count);
    if (rc < 0) return rc;
    if (type == FILE_ARRAY) return fail(r, at, "\"%.*s\": array in an array", shown(key), key.data);
    if (type >= FILE_TYPES) {
        return fail(r, at, "\"%.*s\": array of values of type %llu", shown(key), key.data,
                    (unsigned long long)type);
    }
    if (count > left(r) / least_bytes[type]) {
        return fail(r, at, "\"%.*s\": array of %llu values, but only %zu bytes are left",
                    shown(key), key.data, (unsigned long long)count, left(r));
    }
    *out = (struct gguf_value){.kind = GGUF_KIND_ARRAY,
                               .element = kinds[type],
                               .count = count,
                               .elements = r->data + r->pos,
                               .file_type = (uint32_t)type};
    if (type == FILE_STRING) {
        struct slice ignored;
        for (uint64_t i = 0; i < count && rc == 0; i++) rc = read_string(r, "a string", &ignored);
    } else {
        r->pos += (size_t)count * least_bytes[type];
        if (type == FILE_BOOL) rc = check_bools(r, out->elements, count);
    }
    out->element_bytes = (size_t)(r->data + r->pos - out->elements);
    return rc;
}

static int read_value(struct reader *r, struct slice key, struct gguf_value *out) {
    size_t at = r->pos;
    uint64_t type = 0;
    int rc = read_uint(r, 4, "a value's type", &type);
    if (rc < 0) return rc;
    if (type >= FILE_TYPES) {
        return fail(r, at, "\"%.*s\": value of type %llu", shown(key), key.data,
                    (unsigned long long)type);
    }
    if (type == FILE_ARRAY) return read_array(r, key, out);
    if (type == FILE_STRING) {
        *out = (struct gguf_value){.kind = GGUF_KIND_STRING, .file_type = FILE_STRING};
        return read_string(r, "a string", &out->s);
    }
    size_t bytes = least_bytes[type];
    if (left(r) < bytes) return fail(r, r->pos, "the file ends in a value");
    *out = scalar_at((uint32_t)type, r->data + r->pos);
    rc = type == FILE_BOOL ? check_bools(r, r->data + r->pos, 1) : 0;
    r->pos += bytes;
    return rc;
}

static int read_keys(struct reader *r, struct gguf *g) {
    g->keys = arena_array(&g->arena, g->key_count, sizeof *g->keys);
    g->values = arena_array(&g->arena, g->key_count, sizeof *g->values);
    map_create(&g->key_by_name, g->key_count);
    for (size_t i = 0; i < g->key_count; i++) {
        size_t at = r->pos;
        int rc = read_name(r, "a key", CAP_GGUF_KEY_BYTES, &g->keys[i]);
        if (rc < 0) return rc;
        struct slice key = g->keys[i];
        if (!map_add(&g->key_by_name, key, (int64_t)i)) {
            return fail(r, at, "the key \"%.*s\" occurs twice", shown(key), key.data);
        }
        rc = read_value(r, key, &g->values[i]);
        if (rc < 0) return rc;
    }
    return 0;
}

static int read_alignment(const struct reader *r, const struct gguf *g, size_t *out) {
    const struct gguf_value *v = gguf_find(g, "general.alignment");
    *out = DEFAULT_ALIGNMENT;
    if (v == NULL) return 0;
    if (v->kind != GGUF_KIND_UINT || v->file_type != FILE_U32) {
        return fail(r, r->pos, "general.alignment must be an unsigned 32-bit integer");
    }
    if (v->u < LEAST_ALIGNMENT || v->u > CAP_GGUF_ALIGNMENT || (v->u & (v->u - 1)) != 0) {
        return fail(r, r->pos, "general.alignment is %llu, must be a power of two from %d to %u",
                    (unsigned long long)v->u, LEAST_ALIGNMENT, CAP_GGUF_ALIGNMENT);
    }
    *out = (size_t)v->u;
    return 0;
}

/* ---- tensors ---- */

static int read_shape(struct reader *r, struct gguf_tensor *t, uint64_t *elements) {
    size_t at = r->pos;
    uint64_t dims = 0;
    int rc = read_uint(r, 4, "a number of dimensions", &dims);
    if (rc < 0) return rc;
    if (dims < 1 || dims > 4) {
        return fail(r, at, "tensor \"%.100s\" has %llu dimensions, must have 1 to 4", t->name,
                    (unsigned long long)dims);
    }
    t->dims = (int)dims;
    *elements = 1;
    for (int d = 0; d < t->dims; d++) {
        uint64_t n = 0;
        at = r->pos;
        rc = read_uint(r, 8, "a dimension", &n);
        if (rc < 0) return rc;
        if (n == 0 || n > INT64_MAX || *elements > INT64_MAX / n) {
            return fail(r, at, "tensor \"%.100s\": dimension %d is %llu", t->name, d,
                        (unsigned long long)n);
        }
        t->shape[d] = (int64_t)n;
        *elements *= n;
    }
    return 0;
}

static int read_format(struct reader *r, struct gguf_tensor *t, uint64_t elements) {
    size_t at = r->pos;
    uint64_t type = 0;
    int rc = read_uint(r, 4, "a tensor's type", &type);
    if (rc < 0) return rc;
    size_t bytes = gguf_block_bytes((enum gguf_type)type);
    if (bytes == 0) {
        return fail(r, at, "tensor \"%.100s\" has type %llu (%s), which imp does not read", t->name,
                    (unsigned long long)type, gguf_type_name((uint32_t)type));
    }
    t->type = (enum gguf_type)type;
    int64_t block = gguf_block_elements(t->type);
    if (t->shape[0] % block != 0) {
        return fail(r, at, "tensor \"%.100s\": rows of %lld are no multiple of %s's block of %lld",
                    t->name, (long long)t->shape[0], gguf_type_name((uint32_t)type),
                    (long long)block);
    }
    uint64_t blocks = elements / (uint64_t)block;
    if (blocks > r->size / bytes) {
        return fail(r, at,
                    "tensor \"%.100s\" needs %llu blocks of %zu bytes, the file has %zu bytes",
                    t->name, (unsigned long long)blocks, bytes, r->size);
    }
    t->bytes = (size_t)blocks * bytes;
    return 0;
}

static int read_tensor(struct reader *r, struct gguf *g, size_t i) {
    struct gguf_tensor *t = &g->tensors[i];
    struct slice name;
    size_t at = r->pos;
    int rc = read_name(r, "a tensor's name", CAP_TENSOR_NAME, &name);
    if (rc < 0) return rc;
    t->name = arena_strndup(&g->arena, name.data, name.size);
    if (!map_add(&g->tensor_by_name, name, (int64_t)i)) {
        return fail(r, at, "the tensor \"%.100s\" occurs twice", t->name);
    }
    uint64_t elements = 0;
    rc = read_shape(r, t, &elements);
    if (rc == 0) rc = read_format(r, t, elements);
    if (rc == 0) rc = read_uint(r, 8, "a tensor's offset", &t->file_offset);
    return rc;
}

static int by_offset(const void *a, const void *b) {
    const struct gguf_tensor *x = *(struct gguf_tensor *const *)a;
    const struct gguf_tensor *y = *(struct gguf_tensor *const *)b;
    return x->file_offset < y->file_offset ? -1 : x->file_offset > y->file_offset;
}

static int refuse_overlap(const struct reader *r, struct gguf *g) {
    struct gguf_tensor **order = mem_alloc(g->tensor_count * sizeof *order);
    for (size_t i = 0; i < g->tensor_count; i++) order[i] = &g->tensors[i];
    qsort(order, g->tensor_count, sizeof *order, by_offset);
    int rc = 0;
    for (size_t i = 1; i < g->tensor_count && rc == 0; i++) {
        const struct gguf_tensor *a = order[i - 1], *b = order[i];
        if (a->file_offset + a->bytes <= b->file_offset) continue;
        rc = fail(r, (size_t)b->file_offset, "the tensors \"%.100s\" and \"%.100s\" overlap",
                  a->name, b->name);
    }
    free(order);
    return rc;
}

/* Turns offsets into the data section into offsets into the file and pointers. */
static int place_tensors(const struct reader *r, struct gguf *g, size_t alignment) {
    size_t base = (r->pos + alignment - 1) & ~(alignment - 1);
    for (size_t i = 0; i < g->tensor_count; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        uint64_t offset = t->file_offset;
        if (offset % alignment != 0) {
            return fail(r, r->pos, "tensor \"%.100s\": offset %llu is no multiple of %zu", t->name,
                        (unsigned long long)offset, alignment);
        }
        if (base > r->size || offset > r->size - base || t->bytes > r->size - base - offset) {
            return fail(r, r->size,
                        "the file is cut off: tensor \"%.100s\" needs %zu bytes at %zu + %llu, the "
                        "file has %zu",
                        t->name, t->bytes, base, (unsigned long long)offset, r->size);
        }
        t->file_offset = base + offset;
        t->data = r->data + t->file_offset;
    }
    return g->tensor_count > 1 ? refuse_overlap(r, g) : 0;
}

/* ---- the whole ---- */

static int read_start(struct reader *r, struct gguf *g) {
    uint64_t version = 0;
    if (left(r) < 4 || memcmp(r->data, "GGUF", 4) != 0) {
        return fail(r, 0, "not a GGUF file: it must begin with \"GGUF\"");
    }
    r->pos = 4;
    int rc = read_uint(r, 4, "the version", &version);
    if (rc < 0) return rc;
    if (version == 0x02000000 || version == 0x03000000) {
        return fail(r, 4, "a big-endian GGUF file; only little-endian ones can be read");
    }
    if (version != 2 && version != 3) {
        return fail(r, 4, "GGUF version %llu; 2 and 3 can be read", (unsigned long long)version);
    }
    g->version = (uint32_t)version;
    return 0;
}

static int read_count(struct reader *r, const char *what, size_t least, size_t cap, size_t *out) {
    size_t at = r->pos;
    uint64_t n = 0;
    int rc = read_uint(r, 8, what, &n);
    if (rc < 0) return rc;
    if (n > left(r) / least || n > cap) {
        return fail(r, at, "%s is %llu: more than %zu bytes can hold, or than %zu", what,
                    (unsigned long long)n, left(r), cap);
    }
    *out = (size_t)n;
    return 0;
}

static int parse(struct reader *r, struct gguf *g) {
    size_t alignment = DEFAULT_ALIGNMENT;
    int rc = read_start(r, g);
    if (rc == 0) {
        rc = read_count(r, "the number of tensors", TENSOR_LEAST_BYTES, CAP_TENSORS,
                        &g->tensor_count);
    }
    if (rc == 0) {
        rc = read_count(r, "the number of keys", KEY_LEAST_BYTES, CAP_GGUF_KEYS, &g->key_count);
    }
    if (rc == 0) rc = read_keys(r, g);
    if (rc == 0) rc = read_alignment(r, g, &alignment);
    if (rc < 0) return rc;
    /* What the keys took is gone: the count is held against what is left now. */
    if (g->tensor_count > left(r) / TENSOR_LEAST_BYTES) {
        return fail(r, r->pos, "%zu tensors do not fit in the %zu bytes left", g->tensor_count,
                    left(r));
    }
    g->tensors = arena_array(&g->arena, g->tensor_count, sizeof *g->tensors);
    map_create(&g->tensor_by_name, g->tensor_count);
    for (size_t i = 0; i < g->tensor_count && rc == 0; i++) rc = read_tensor(r, g, i);
    return rc < 0 ? rc : place_tensors(r, g, alignment);
}

int gguf_parse(const uint8_t *data, size_t size, const char *name, struct gguf *out,
               struct imp_error *err) {
    struct gguf g = {.path = mem_strndup(name, strlen(name))};
    struct reader r = {.data = data, .size = size, .file = g.path, .err = err};
    int rc = parse(&r, &g);
    if (rc < 0) {
        gguf_close(&g);
        return rc;
    }
    *out = g;
    return 0;
}

int gguf_open(const char *path, struct gguf *out, struct imp_error *err) {
    struct file_map map;
    int rc = file_map_open(path, &map, err);
    if (rc < 0) return rc;
    rc = gguf_parse(map.data, map.size, path, out, err);
    if (rc < 0) {
        file_map_close(&map);
        return rc;
    }
    out->map = map;
    return 0;
}

void gguf_close(struct gguf *g) {
    map_free(&g->key_by_name);
    map_free(&g->tensor_by_name);
    arena_free(&g->arena);
    file_map_close(&g->map);
    free(g->path);
    *g = (struct gguf){0};
}

const struct gguf_value *gguf_find(const struct gguf *g, const char *key) {
    const int64_t *i = map_find(&g->key_by_name, slice_of(key));
    return i ? &g->values[*i] : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name) {
    const int64_t *i = map_find(&g->tensor_by_name, slice_of(name));
    return i ? &g->tensors[*i] : NULL;
}

struct gguf_value gguf_element(const struct gguf_value *array, uint64_t i) {
    check(array->kind == GGUF_KIND_ARRAY && i < array->count);
    if (array->element != GGUF_KIND_STRING) {
        return scalar_at(array->file_type, array->elements + i * least_bytes[array->file_type]);
    }
    struct gguf_value v = {.kind = GGUF_KIND_STRING, .file_type = FILE_STRING};
    const uint8_t *cursor = NULL;
    for (uint64_t j = 0; j <= i; j++) gguf_string_next(array, &cursor, &v.s);
    return v;
}

bool gguf_string_next(const struct gguf_value *array, const uint8_t **cursor, struct slice *out) {
    check(array->kind == GGUF_KIND_ARRAY && array->element == GGUF_KIND_STRING);
    const uint8_t *p = *cursor ? *cursor : array->elements;
    if (p == array->elements + array->element_bytes) return false;
    size_t size = (size_t)little_endian(p, 8);
    *out = (struct slice){(const char *)p + 8, size};
    *cursor = p + 8 + size;
    return true;
}
