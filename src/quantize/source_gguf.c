#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "load/gguf_import.h"
#include "quantize/source.h"

struct gguf_state {
    struct gguf file;
    struct gguf_import import;
};

static void close_gguf(struct source *s) {
    struct gguf_state *state = s->state;
    gguf_import_close(&state->import);
    gguf_close(&state->file);
    free(state);
}

static int read_gguf(const struct source *s, size_t tensor, int64_t first, int64_t count,
                     float *out, struct imp_error *err) {
    const struct gguf_state *state = s->state;
    return gguf_import_rows(&state->import, tensor, first, count, out, err);
}

static void list_tensors(struct source *s, const struct gguf_import *import) {
    s->tensor_count = import->tensor_count;
    s->tensors = arena_array(&s->arena, s->tensor_count, sizeof *s->tensors);
    for (size_t i = 0; i < s->tensor_count; i++) {
        const struct gguf_import_tensor *from = &import->tensors[i];
        struct source_tensor *to = &s->tensors[i];
        *to = (struct source_tensor){.name = from->name,
                                     .dtype = DTYPE_F32,
                                     .dims = from->dims,
                                     .rows = from->rows,
                                     .cols = from->cols};
        int d = 0;
        if (from->dims == 2) to->shape[d++] = from->rows;
        to->shape[d] = from->cols;
    }
}

static void list_files(struct source *s, const struct gguf_import *import) {
    const struct source_file files[] = {
        {"generation_config.json", import->generation_config, NULL},
        {"tokenizer.json", import->tokenizer, NULL},
        {"tokenizer_config.json", import->tokenizer_config, NULL},
    };
    s->file_count = sizeof files / sizeof *files;
    s->files = arena_alloc(&s->arena, sizeof files);
    memcpy(s->files, files, sizeof files);
    s->config = import->config;
}

int source_open_gguf(struct source *out, struct imp_error *err) {
    struct gguf_state *state = mem_zero(1, sizeof *state);
    out->state = state;
    out->close = close_gguf;
    out->read = read_gguf;
    int rc = gguf_open(out->path, &state->file, err);
    if (rc == 0) rc = gguf_import_open(&state->file, &state->import, err);
    if (rc < 0) return rc;
    list_tensors(out, &state->import);
    list_files(out, &state->import);
    return 0;
}
