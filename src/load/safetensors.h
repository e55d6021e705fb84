/* One SafeTensors file: 8 bytes of header length, a JSON header, the tensors' bytes.
 *
 * Everything is checked before anything is used: header within the file, UTF-8, no key twice, known
 * dtypes, dims, byte spans equal to shape times dtype, spans that tile the data exactly (no gap, no
 * overlap, nothing behind the last). Bytes stay in the mapping; tensors are views that live until
 * safetensors_close. Reading is safe from any thread. Format: huggingface/safetensors README. */
#ifndef IMP_LOAD_SAFETENSORS_H
#define IMP_LOAD_SAFETENSORS_H

#include "base/arena.h"
#include "base/caps.h"
#include "base/file.h"
#include "imp/imp.h"
#include "num/dtype.h"

struct tensor {
    const char *name; /* zero-terminated; no control characters inside */
    enum dtype dtype;
    int dims;                       /* 0 .. CAP_TENSOR_DIMS */
    int64_t shape[CAP_TENSOR_DIMS]; /* product fits int64_t */
    const uint8_t *data;            /* NULL if it has no elements */
    size_t bytes;
    const char *file; /* path, for messages */
    uint64_t file_offset;
};

struct safetensors {
    struct file_map map;
    struct arena arena;
    struct tensor *tensors; /* in the order of their bytes */
    size_t count;
};

int safetensors_open(const char *path, struct safetensors *out, struct imp_error *err);
/* The same from memory, which must outlive it: what the fuzzer calls. `name` is for messages. */
int safetensors_parse(const uint8_t *data, size_t size, const char *name, struct safetensors *out,
                      struct imp_error *err);
void safetensors_close(struct safetensors *file); /* zeroed or half-built is fine */

int64_t tensor_elements(const struct tensor *t);
/* "[576, 1536]" into out. */
void tensor_shape_text(const struct tensor *t, char out[128]);

#endif
