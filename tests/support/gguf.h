/* GGUF files made on the spot, for tests: header, keys, tensor infos and data as four buffers, so
 * that a test can spoil any one of them. Abort on failure. */
#ifndef IMP_TESTS_SUPPORT_GGUF_H
#define IMP_TESTS_SUPPORT_GGUF_H

#include <string.h>

#include "base/str.h"
#include "load/gguf.h"

enum {
    PUT_U8,
    PUT_I8,
    PUT_U16,
    PUT_I16,
    PUT_U32,
    PUT_I32,
    PUT_F32,
    PUT_BOOL,
    PUT_STRING,
    PUT_ARRAY,
    PUT_U64,
    PUT_I64,
    PUT_F64
};

struct gguf_maker {
    struct str keys, infos, data;
    uint64_t key_count, tensor_count;
    uint64_t version, alignment; /* 0: 3 and 32 */
};

static inline void put_le(struct str *s, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) str_add_char(s, (char)(value >> 8 * i));
}

static inline void put_string(struct str *s, const char *text) {
    put_le(s, strlen(text), 8);
    str_add(s, text, strlen(text));
}

/* Only the key and the type: the value is the caller's. */
static inline struct str *put_key(struct gguf_maker *m, const char *key, uint32_t type) {
    put_string(&m->keys, key);
    put_le(&m->keys, type, 4);
    m->key_count++;
    return &m->keys;
}

static inline void put_u32(struct gguf_maker *m, const char *key, uint32_t value) {
    put_le(put_key(m, key, PUT_U32), value, 4);
}

static inline void put_f32(struct gguf_maker *m, const char *key, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    put_le(put_key(m, key, PUT_F32), bits, 4);
}

static inline void put_bool(struct gguf_maker *m, const char *key, bool value) {
    put_le(put_key(m, key, PUT_BOOL), value, 1);
}

static inline void put_text_key(struct gguf_maker *m, const char *key, const char *value) {
    put_string(put_key(m, key, PUT_STRING), value);
}

static inline struct str *put_array(struct gguf_maker *m, const char *key, uint32_t type,
                                    uint64_t count) {
    struct str *s = put_key(m, key, PUT_ARRAY);
    put_le(s, type, 4);
    put_le(s, count, 8);
    return s;
}

static inline void put_strings(struct gguf_maker *m, const char *key, const char *const *list,
                               size_t count) {
    struct str *s = put_array(m, key, PUT_STRING, count);
    for (size_t i = 0; i < count; i++) put_string(s, list[i]);
}

/* The info alone; `offset` into the data section. */
static inline void put_info(struct gguf_maker *m, const char *name, uint32_t dims,
                            const uint64_t *shape, uint32_t type, uint64_t offset) {
    put_string(&m->infos, name);
    put_le(&m->infos, dims, 4);
    for (uint32_t d = 0; d < dims && d < 8; d++) put_le(&m->infos, shape[d], 8);
    put_le(&m->infos, type, 4);
    put_le(&m->infos, offset, 8);
    m->tensor_count++;
}

/* rows 0: a vector of `cols`. Pads the data to the alignment first. */
static inline void put_tensor(struct gguf_maker *m, const char *name, uint64_t cols, uint64_t rows,
                              uint32_t type, const void *bytes, size_t size) {
    size_t alignment = m->alignment ? (size_t)m->alignment : 32;
    while (m->data.size % alignment != 0) str_add_char(&m->data, 0);
    put_info(m, name, rows ? 2 : 1, (uint64_t[]){cols, rows}, type, m->data.size);
    str_add(&m->data, bytes, size);
}

/* [depth, rows, cols] */
static inline void put_stack(struct gguf_maker *m, const char *name, uint64_t cols, uint64_t rows,
                             uint64_t depth, uint32_t type, const void *bytes, size_t size) {
    size_t alignment = m->alignment ? (size_t)m->alignment : 32;
    while (m->data.size % alignment != 0) str_add_char(&m->data, 0);
    put_info(m, name, 3, (uint64_t[]){cols, rows, depth}, type, m->data.size);
    str_add(&m->data, bytes, size);
}

/* The file. The maker can be changed and finished again. */
static inline struct str gguf_finish(const struct gguf_maker *m) {
    struct str out = {0};
    size_t alignment = m->alignment ? (size_t)m->alignment : 32;
    str_add_text(&out, "GGUF");
    put_le(&out, m->version ? m->version : 3, 4);
    put_le(&out, m->tensor_count, 8);
    put_le(&out, m->key_count, 8);
    str_add(&out, m->keys.data, m->keys.size);
    str_add(&out, m->infos.data, m->infos.size);
    while (out.size % alignment != 0) str_add_char(&out, 0);
    str_add(&out, m->data.data, m->data.size);
    return out;
}

static inline void gguf_maker_free(struct gguf_maker *m) {
    str_free(&m->keys);
    str_free(&m->infos);
    str_free(&m->data);
    *m = (struct gguf_maker){0};
}

#endif
