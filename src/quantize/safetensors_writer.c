#include "quantize/safetensors_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/str.h"

enum { DATA_ALIGNMENT = 64 }; /* of the first byte of data: a mapped file then has aligned lines */

uint64_t writer_tensor_bytes(const struct writer_tensor *t) {
    uint64_t n = 1;
    for (int d = 0; d < t->dims; d++) n *= (uint64_t)t->shape[d];
    return n * (uint64_t)dtype_bits(t->dtype) / 8;
}

static int write_error(const struct safetensors_writer *w, struct imp_error *err) {
    return error_set(err, IMP_ERR_IO, w->path, "cannot write: %s", strerror(errno));
}

static int write_all(struct safetensors_writer *w, const void *data, size_t bytes, uint64_t at,
                     struct imp_error *err) {
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = pwrite(w->fd, p, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return write_error(w, err);
        p += n;
        at += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

static void add_entry(struct str *header, const struct writer_tensor *t) {
    str_add_char(header, ',');
    str_add_json(header, t->name, strlen(t->name));
    str_printf(header, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype));
    for (int d = 0; d < t->dims; d++)
        str_printf(header, "%s%lld", d ? "," : "", (long long)t->shape[d]);
    str_printf(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t->offset,
               (unsigned long long)(t->offset + t->bytes));
}

/* The 8 bytes of length and the JSON, padded with the spaces that the format allows. */
static void make_header(struct writer_tensor *tensors, size_t count, const char *made_by,
                        struct str *out) {
    uint64_t offset = 0;
    str_add(out, "\0\0\0\0\0\0\0\0", 8);
    /* transformers refuses a file without this entry. */
    str_add_text(out, "{\"__metadata__\":{\"format\":\"pt\"");
    if (made_by) {
        str_add_text(out, ",\"made_by\":");
        str_add_json(out, made_by, strlen(made_by));
    }
    str_add_char(out, '}');
    for (size_t i = 0; i < count; i++) {
        tensors[i].bytes = writer_tensor_bytes(&tensors[i]);
        tensors[i].offset = offset;
        tensors[i].written = 0;
        offset += tensors[i].bytes;
        add_entry(out, &tensors[i]);
    }
    str_add_char(out, '}');
    while (out->size % DATA_ALIGNMENT) str_add_char(out, ' ');
    uint64_t length = out->size - 8;
    for (int i = 0; i < 8; i++) out->data[i] = (char)(length >> 8 * i);
}

static uint64_t data_bytes(const struct safetensors_writer *w) {
    if (w->count == 0) return 0;
    const struct writer_tensor *last = &w->tensors[w->count - 1];
    return last->offset + last->bytes;
}

/* A disk that is too small says so now and not after an hour. Where the file system cannot reserve,
 * the writes will tell. */
static int reserve(struct safetensors_writer *w, struct imp_error *err) {
    uint64_t total = w->data_start + data_bytes(w);
    if (fallocate(w->fd, 0, 0, (off_t)total) == 0) return 0;
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINTR) return 0;
    return error_set(err, IMP_ERR_IO, w->path, "cannot reserve %llu bytes: %s",
                     (unsigned long long)total, strerror(errno));
}

int safetensors_writer_open(const char *path, struct writer_tensor *tensors, size_t count,
                            const char *made_by, struct safetensors_writer *out,
                            struct imp_error *err) {
    struct safetensors_writer w = {.fd = -1, .tensors = tensors, .count = count};
    struct str header = {0};
    int rc = 0;
    w.path = mem_strndup(path, strlen(path));
    make_header(tensors, count, made_by, &header);
    w.data_start = header.size;
    if (header.size - 8 > CAP_SAFETENSORS_HEADER) {
        rc =
            error_set(err, IMP_ERR_UNSUPPORTED, path, "a header of %zu bytes: the format allows %u",
                      header.size, CAP_SAFETENSORS_HEADER);
        goto done;
    }
    w.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (w.fd < 0) {
        rc = error_set(err, IMP_ERR_IO, path, "cannot create: %s", strerror(errno));
        goto done;
    }
    rc = reserve(&w, err);
    if (rc == 0) rc = write_all(&w, header.data, header.size, 0, err);
done:
    str_free(&header);
    if (rc < 0)
        safetensors_writer_abort(&w);
    else
        *out = w;
    return rc;
}

int safetensors_writer_put(struct safetensors_writer *w, size_t index, uint64_t at,
                           const void *data, size_t bytes, struct imp_error *err) {
    struct writer_tensor *t = &w->tensors[index];
    check(index < w->count && at <= t->bytes && bytes <= t->bytes - at);
    t->written += bytes;
    return write_all(w, data, bytes, w->data_start + t->offset + at, err);
}

int safetensors_writer_finish(struct safetensors_writer *w, struct imp_error *err) {
    for (size_t i = 0; i < w->count; i++) check(w->tensors[i].written == w->tensors[i].bytes);
    int rc = 0, fd = w->fd;
    if (fsync(fd) != 0) rc = write_error(w, err);
    w->fd = -1;
    if (close(fd) != 0 && rc == 0) rc = write_error(w, err);
    if (rc < 0) unlink(w->path);
    free(w->path);
    w->path = NULL;
    return rc;
}

void safetensors_writer_abort(struct safetensors_writer *w) {
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->path);
    }
    w->fd = -1;
    free(w->path);
    w->path = NULL;
}
