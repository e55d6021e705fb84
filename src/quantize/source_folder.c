#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "load/checkpoint.h"
#include "load/folder.h"
#include "num/fp.h"
#include "quantize/source.h"

/* Files that travel with the weights unchanged. */
static const char *const companions[] = {
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "tekken.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
};

struct folder_state {
    struct checkpoint ck;
    struct str config;
};

static void close_folder(struct source *s) {
    struct folder_state *state = s->state;
    checkpoint_close(&state->ck);
    str_free(&state->config);
    free(state);
}

/* Little-endian in the file, and aligned or not: files of other writers need not be. */
static float element(const uint8_t *p, enum dtype dtype, int64_t i) {
    union {
        double d;
        float f;
        uint16_t u;
    } v;
    switch (dtype) {
    case DTYPE_F64:
        memcpy(&v.d, p + i * 8, 8);
        return (float)v.d;
    case DTYPE_F32:
        memcpy(&v.f, p + i * 4, 4);
        return v.f;
    case DTYPE_F16:
        memcpy(&v.u, p + i * 2, 2);
        return fp16_decode(v.u);
    default:
        memcpy(&v.u, p + i * 2, 2);
        return bf16_decode(v.u);
    }
}

static int read_folder(const struct source *s, size_t tensor, int64_t first, int64_t count,
                       float *out, struct imp_error *err) {
    (void)err;
    const struct source_tensor *t = &s->tensors[tensor];
    for (int64_t i = 0; i < count * t->cols; i++)
        out[i] = element(t->raw, t->dtype, first * t->cols + i);
    return 0;
}

static int list_tensors(struct source *s, const struct checkpoint *ck, struct imp_error *err) {
    s->tensor_count = ck->tensor_count;
    s->tensors = arena_array(&s->arena, s->tensor_count, sizeof *s->tensors);
    for (size_t i = 0; i < s->tensor_count; i++) {
        const struct tensor *from = ck->tensors[i];
        struct source_tensor *to = &s->tensors[i];
        int bits = dtype_bits(from->dtype);
        if (bits < 8 || from->dtype == DTYPE_F8_E4M3 || from->dtype == DTYPE_F8_E5M2 ||
            from->dtype == DTYPE_F8_E8M0 || from->dtype == DTYPE_U8) {
            char place[sizeof err->where];
            error_place(place, from->file, "tensor %s", from->name);
            return error_set(err, IMP_ERR_UNSUPPORTED, place,
                             "%s: quantised already; give the BF16, F16 or F32 original",
                             dtype_name(from->dtype));
        }
        *to = (struct source_tensor){.name = from->name,
                                     .dtype = from->dtype,
                                     .dims = from->dims,
                                     .rows = 1,
                                     .cols = 1,
                                     .raw = from->data};
        memcpy(to->shape, from->shape, sizeof to->shape);
        if (from->dims > 0) to->cols = from->shape[from->dims - 1];
        for (int d = 0; d + 1 < from->dims; d++) to->rows *= from->shape[d];
    }
    return 0;
}

static int list_files(struct source *s, const char *folder, struct imp_error *err) {
    size_t cap = sizeof companions / sizeof *companions;
    s->files = arena_array(&s->arena, cap, sizeof *s->files);
    for (size_t i = 0; i < cap; i++) {
        if (!folder_has(folder, companions[i])) continue;
        char *path;
        int rc = folder_path(folder, companions[i], &path, err);
        if (rc < 0) return rc;
        s->files[s->file_count++] = (struct source_file){
            .name = companions[i], .path = arena_strndup(&s->arena, path, strlen(path))};
        free(path);
    }
    return 0;
}

int source_open_folder(const struct log *log, struct source *out, struct imp_error *err) {
    struct folder_state *state = mem_zero(1, sizeof *state);
    out->state = state;
    out->close = close_folder;
    out->read = read_folder;
    int rc = checkpoint_open(out->path, true, log, &state->ck, err);
    if (rc < 0) return rc;
    if (state->ck.dialect != QUANT_NONE || config_get(&state->ck.config, "quantization_config"))
        return error_set(err, IMP_ERR_UNSUPPORTED, state->ck.config.path,
                         "quantised already; give the BF16, F16 or F32 original");
    rc = file_read(state->ck.config.path, CAP_CONFIG_BYTES, &state->config, err);
    if (rc < 0) return rc;
    out->config = state->config.data;
    rc = list_tensors(out, &state->ck, err);
    if (rc < 0) return rc;
    return list_files(out, state->ck.path, err);
}
