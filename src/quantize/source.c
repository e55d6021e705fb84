#include "quantize/source.h"

#include <math.h>

#include "base/error.h"
#include "base/file.h"

bool source_is_float(enum dtype dtype) {
    return dtype == DTYPE_F64 || dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16;
}

int source_open(const char *path, bool split, const struct log *log, struct source *out,
                struct imp_error *err) {
    struct source s = {.path = path};
    s.is_folder = file_is_folder(path) || slice_ends(slice_of(path), ".safetensors");
    int rc = s.is_folder ? source_open_folder(log, split, &s, err) : source_open_gguf(&s, err);
    if (rc < 0)
        source_close(&s);
    else
        *out = s;
    return rc;
}

void source_close(struct source *s) {
    if (s->close) s->close(s);
    arena_free(&s->arena);
    *s = (struct source){0};
}

int source_read(const struct source *s, size_t tensor, int64_t first, int64_t count, float *out,
                struct imp_error *err) {
    const struct source_tensor *t = &s->tensors[tensor];
    check(first >= 0 && count >= 0 && first + count <= t->rows);
    int rc = s->read(s, tensor, first, count, out, err);
    if (rc < 0) return rc;
    int64_t n = count * t->cols;
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(out[i])) continue;
        char place[sizeof err->where];
        error_place(place, s->path, "tensor %s", t->name);
        return error_set(err, IMP_ERR_FILE, place, "row %lld, column %lld is not a finite number",
                         (long long)(first + i / t->cols), (long long)(i % t->cols));
    }
    return 0;
}
