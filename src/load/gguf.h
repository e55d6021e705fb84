/* GGUF files (version 2 and 3, little-endian) as an import source: reading and dequantising.
 *
 * Everything is checked before it is used: counts against the bytes left, string lengths, value
 * types, array nesting (none), alignment, offsets, sizes, equal names. Views live until gguf_close.
 * Immutable after opening; any thread. Format: ggml-org/ggml docs/gguf.md; block layouts:
 * ggml-common.h. */
#ifndef IMP_LOAD_GGUF_H
#define IMP_LOAD_GGUF_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/caps.h"
#include "base/file.h"
#include "base/map.h"
#include "imp/imp.h"

enum gguf_type { /* the file's numbers */
    GGUF_F32 = 0, GGUF_F16 = 1, GGUF_Q4_0 = 2, GGUF_Q4_1 = 3, GGUF_Q5_0 = 6, GGUF_Q5_1 = 7,
    GGUF_Q8_0 = 8, GGUF_Q2_K = 10, GGUF_Q3_K = 11, GGUF_Q4_K = 12, GGUF_Q5_K = 13, GGUF_Q6_K = 14,
    GGUF_BF16 = 30, GGUF_MXFP4 = 39, GGUF_NVFP4 = 40,
};

struct gguf_tensor {
    const char *name;
    enum gguf_type type;
    int dims;           /* 1 .. 4 */
    int64_t shape[4];   /* as in the file: shape[0] runs fastest (= columns of a matrix) */
    const uint8_t *data;
    size_t bytes;
    uint64_t file_offset;
};

enum gguf_kind { GGUF_KIND_UINT, GGUF_KIND_INT, GGUF_KIND_FLOAT, GGUF_KIND_BOOL, GGUF_KIND_STRING,
                 GGUF_KIND_ARRAY };

struct gguf_value {
    enum gguf_kind kind;
    union {
        uint64_t u;
        int64_t i;
        double f;
        bool b;
        struct slice s; /* borrowed from the mapping */
    };
    enum gguf_kind element; /* GGUF_KIND_ARRAY from here on */
    uint64_t count;
    const uint8_t *elements; /* first element in the file */
    size_t element_bytes;    /* of all of them */
    uint32_t file_type;      /* of the value, or of the elements */
};

struct gguf {
    char *path;
    struct file_map map;
    struct arena arena;
    uint32_t version;
    size_t key_count;
    struct slice *keys;
    struct gguf_value *values;
    size_t tensor_count;
    struct gguf_tensor *tensors;
    struct map key_by_name, tensor_by_name;
};

int gguf_open(const char *path, struct gguf *out, struct imp_error *err);
int gguf_parse(const uint8_t *data, size_t size, const char *name, struct gguf *out,
               struct imp_error *err); /* data must outlive it */
void gguf_close(struct gguf *g);       /* zeroed or half-built is fine */

const struct gguf_value *gguf_find(const struct gguf *g, const char *key);          /* or NULL */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name); /* or NULL */
/* Element i of an array value, as a scalar. Strings: O(i), so walk with gguf_string_next. */
struct gguf_value gguf_element(const struct gguf_value *array, uint64_t i);
/* Walks an array of strings: start with *cursor = NULL; false at the end. */
bool gguf_string_next(const struct gguf_value *array, const uint8_t **cursor, struct slice *out);

const char *gguf_type_name(uint32_t type); /* "Q4_1"; "unknown type" if nobody gave it that number */
/* n values from the block that holds element `first`; first and n multiples of the block size.
 * Bit-equal to the PyPI package gguf's dequantiser (fp32). */
void gguf_dequantize(const struct gguf_tensor *t, int64_t first, int64_t n, float *out);
int gguf_block_elements(enum gguf_type type);
size_t gguf_block_bytes(enum gguf_type type); /* 0: a type that cannot be read */

#endif
