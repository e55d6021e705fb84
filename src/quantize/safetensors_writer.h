/* Writes one SafeTensors file in pieces: header first, then any tensor's bytes in any order.
 *
 * Owns the file until finish or abort; holds no tensor data. A file that was not finished is
 * removed by abort. One thread at a time. Format: huggingface/safetensors README. */
#ifndef IMP_QUANTIZE_SAFETENSORS_WRITER_H
#define IMP_QUANTIZE_SAFETENSORS_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "base/caps.h"
#include "imp/imp.h"
#include "num/dtype.h"

struct writer_tensor {
    const char *name; /* borrowed until finish */
    enum dtype dtype;
    int dims; /* 0: a scalar */
    int64_t shape[CAP_TENSOR_DIMS];
    uint64_t bytes;   /* made by the writer from here on */
    uint64_t offset;  /* from the start of the data */
    uint64_t written; /* bytes put so far */
};

struct safetensors_writer {
    int fd;     /* -1: not open */
    char *path; /* owned */
    struct writer_tensor *tensors;
    size_t count;
    uint64_t data_start; /* a multiple of 64 */
};

uint64_t writer_tensor_bytes(const struct writer_tensor *t); /* by dtype and shape */

/* Lays the tensors out in the given order (the caller sorts: large element types first, so that
 * every tensor is aligned), creates the file, reserves its room on the disk and writes the header.
 * `tensors` is borrowed until finish or abort; made_by goes into the metadata (NULL: nothing does).
 * On failure nothing stays. */
int safetensors_writer_open(const char *path, struct writer_tensor *tensors, size_t count,
                            const char *made_by, struct safetensors_writer *out,
                            struct imp_error *err);
/* Bytes [at, at + bytes) of tensor `index`. */
int safetensors_writer_put(struct safetensors_writer *w, size_t index, uint64_t at,
                           const void *data, size_t bytes, struct imp_error *err);
/* Every byte must have been put. Syncs to the disk and closes; the file stays unless this fails. */
int safetensors_writer_finish(struct safetensors_writer *w, struct imp_error *err);
void safetensors_writer_abort(struct safetensors_writer *w); /* closed or {.fd = -1} is fine */

#endif
