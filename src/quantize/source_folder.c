#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "load/checkpoint.h"
#include "load/folder.h"
#include "quantize/source.h"
#include "quantize/stacks.h"

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
    struct view *views; /* [tensor_count], in the source's arena */
    bool split;         /* experts one by one */
};

static void close_folder(struct source *s) {
    struct folder_state *state = s->state;
    checkpoint_close(&state->ck);
    str_free(&state->config);
    free(state);
}

static int read_folder(const struct source *s, size_t tensor, int64_t first, int64_t count,
                       float *out, struct imp_error *err) {
    (void)err;
    const struct folder_state *state = s->state;
    const int64_t cols = s->tensors[tensor].cols;
    for (int64_t i = 0; i < count; i++)
        view_read_row(&state->views[tensor], first + i, cols, out + i * cols);
    return 0;
}

/* What the recurrence of a delta net multiplies with at every position is kept as fine as it comes.
 */
static bool keeps_type(const struct tensor *t) {
    return t->dtype == DTYPE_F32 && t->dims == 1 && strstr(t->name, ".linear_attn.") != NULL;
}

static int plain_tensor(const struct tensor *from, struct stack_part *to, struct imp_error *err) {
    if (dtype_bits(from->dtype) < 8 || from->dtype == DTYPE_F8_E4M3 ||
        from->dtype == DTYPE_F8_E5M2 || from->dtype == DTYPE_F8_E8M0 || from->dtype == DTYPE_U8) {
        char place[sizeof err->where];
        error_place(place, from->file, "tensor %s", from->name);
        return error_set(err, IMP_ERR_UNSUPPORTED, place,
                         "%s: quantised already; give the BF16, F16 or F32 original",
                         dtype_name(from->dtype));
    }
    struct source_tensor *t = &to->tensor;
    *t = (struct source_tensor){.name = from->name,
                                .dtype = from->dtype,
                                .dims = from->dims,
                                .rows = 1,
                                .cols = 1,
                                .raw = from->data,
                                .as_it_is = !source_is_float(from->dtype) || keeps_type(from)};
    memcpy(t->shape, from->shape, sizeof t->shape);
    if (from->dims > 0) t->cols = from->shape[from->dims - 1];
    for (int d = 0; d + 1 < from->dims; d++) t->rows *= from->shape[d];
    to->view = (struct view){.data = from->data,
                             .dtype = from->dtype,
                             .group_rows = t->rows ? t->rows : 1,
                             .row_step = t->cols,
                             .col_step = 1};
    return 0;
}

static int list_tensors(struct source *s, struct folder_state *state, struct imp_error *err) {
    const struct checkpoint *ck = &state->ck;
    size_t *parts = mem_zero(ck->tensor_count, sizeof *parts), total = 0, n = 0;
    bool *stacked = mem_zero(ck->tensor_count, sizeof *stacked);
    struct stack_part *all = NULL;
    int rc = 0;
    for (size_t i = 0; i < ck->tensor_count && rc >= 0; i++) {
        parts[i] = 1;
        rc = stack_count(ck, ck->tensors[i], state->split, &parts[i], err);
        stacked[i] = rc == 1;
        total += parts[i];
    }
    if (rc >= 0 && total > CAP_TENSORS)
        rc = error_set(err, IMP_ERR_FILE, ck->path, "%zu tensors, more than the %u allowed", total,
                       CAP_TENSORS);
    if (rc < 0) goto done;
    all = mem_zero(total, sizeof *all);
    for (size_t i = 0; i < ck->tensor_count && rc >= 0; n += parts[i++]) {
        if (stacked[i])
            stack_parts(ck, ck->tensors[i], state->split, &s->arena, all + n);
        else
            rc = plain_tensor(ck->tensors[i], all + n, err);
    }
    s->tensor_count = total;
    s->tensors = arena_array(&s->arena, total, sizeof *s->tensors);
    state->views = arena_array(&s->arena, total, sizeof *state->views);
    for (size_t i = 0; i < total; i++) {
        s->tensors[i] = all[i].tensor;
        state->views[i] = all[i].view;
    }
done:
    free(all);
    free(stacked);
    free(parts);
    return rc < 0 ? rc : 0;
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

/* gpt-oss is trained in MXFP4: there is no other original. */
static bool is_original(const struct checkpoint *ck) {
    yyjson_val *quantization = config_get(&ck->config, "quantization_config");
    const char *method = yyjson_get_str(yyjson_obj_get(quantization, "quant_method"));
    if (quantization == NULL) return ck->dialect == QUANT_NONE;
    return method && strcmp(method, "mxfp4") == 0;
}

int source_open_folder(const struct log *log, bool split, struct source *out,
                       struct imp_error *err) {
    struct folder_state *state = mem_zero(1, sizeof *state);
    state->split = split;
    out->state = state;
    out->close = close_folder;
    out->read = read_folder;
    int rc = checkpoint_open(out->path, true, log, &state->ck, err);
    if (rc < 0) return rc;
    if (!is_original(&state->ck))
        return error_set(err, IMP_ERR_UNSUPPORTED, state->ck.config.path,
                         "quantised already; give the BF16, F16 or F32 original");
    rc = file_read(state->ck.config.path, CAP_CONFIG_BYTES, &state->config, err);
    if (rc < 0) return rc;
    out->config = state->config.data;
    rc = list_tensors(out, state, err);
    if (rc < 0) return rc;
    return list_files(out, state->ck.path, err);
}
