#include "load/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "load/consolidated.h"
#include "load/folder.h"
#include "load/quant.h"

/* ---- the set of files ---- */

static int add_file(struct checkpoint *ck, const char *path, struct imp_error *err) {
    int rc = safetensors_open(path, &ck->files[ck->file_count], err);
    if (rc < 0) return rc;
    ck->file_count++;
    return 0;
}

static int add_files(struct checkpoint *ck, const char *const *names, size_t count,
                     struct imp_error *err) {
    ck->files = mem_zero(count, sizeof *ck->files);
    for (size_t i = 0; i < count; i++) {
        char *path = NULL;
        int rc = folder_path(ck->path, names[i], &path, err);
        if (rc == 0) rc = add_file(ck, path, err);
        free(path);
        if (rc < 0) return rc;
    }
    return 0;
}

static bool file_holds(const struct safetensors *file, const struct tensor *t) {
    return t >= file->tensors && t < file->tensors + file->count;
}

/* Files are in the order of index->files, which is sorted. */
static int check_index(const struct checkpoint *ck, const struct folder_index *index,
                       const char *place, struct imp_error *err) {
    struct map number = {0};
    size_t i, n;
    yyjson_val *key, *value;
    int rc = 0;
    for (i = 0; i < index->file_count; i++) map_add(&number, slice_of(index->files[i]), (int64_t)i);
    yyjson_obj_foreach(index->weight_map, i, n, key, value) {
        const int64_t *at = map_find(&ck->by_name, json_slice(key));
        const int64_t *file = map_find(&number, json_slice(value));
        if (at && file && file_holds(&ck->files[*file], ck->tensors[*at])) continue;
        rc = error_set(err, IMP_ERR_FILE, place,
                       "tensor %.150s is not in %.100s, where the index "
                       "puts it",
                       yyjson_get_str(key), yyjson_get_str(value));
        break;
    }
    map_free(&number);
    return rc;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(struct tensor *const *)a)->name, (*(struct tensor *const *)b)->name);
}

static int gather(struct checkpoint *ck, struct imp_error *err) {
    size_t total = 0, n = 0;
    for (size_t i = 0; i < ck->file_count; i++) total += ck->files[i].count;
    if (total > CAP_TENSORS)
        return error_set(err, IMP_ERR_FILE, ck->path, "%zu tensors, more than the %u allowed",
                         total, CAP_TENSORS);
    ck->tensors = mem_zero(total, sizeof *ck->tensors);
    for (size_t i = 0; i < ck->file_count; i++) {
        for (size_t j = 0; j < ck->files[i].count; j++) ck->tensors[n++] = &ck->files[i].tensors[j];
    }
    ck->tensor_count = total;
    if (ck->consolidated) consolidated_rename(ck);
    if (total > 0) qsort(ck->tensors, total, sizeof *ck->tensors, by_name);
    ck->read = mem_zero(total, sizeof *ck->read);
    map_create(&ck->by_name, total);
    for (size_t i = 0; i < total; i++) {
        const struct tensor *t = ck->tensors[i];
        if (map_add(&ck->by_name, slice_of(t->name), (int64_t)i)) continue;
        char place[sizeof err->where];
        error_place(place, t->file, "tensor %s", t->name);
        return error_set(err, IMP_ERR_FILE, place,
                         "a second tensor of that name, besides the one in "
                         "%.200s",
                         ck->tensors[i - 1]->file);
    }
    return 0;
}

static int open_indexed(struct checkpoint *ck, const char *index_name, struct imp_error *err) {
    struct folder_index index = {0};
    struct str text = {0};
    char *path = NULL;
    int rc = folder_path(ck->path, index_name, &path, err);
    if (rc == 0) rc = file_read(path, CAP_INDEX_BYTES, &text, err);
    if (rc == 0) rc = folder_index_parse(text.data, text.size, path, &index, err);
    for (size_t i = 0; rc == 0 && i < index.file_count; i++) {
        if (!folder_has(ck->path, index.files[i]))
            rc = error_set(err, IMP_ERR_FILE, path, "names %.200s, which is missing",
                           index.files[i]);
    }
    if (rc == 0) rc = add_files(ck, index.files, index.file_count, err);
    if (rc == 0) rc = gather(ck, err);
    if (rc == 0) rc = check_index(ck, &index, path, err);
    folder_index_free(&index);
    str_free(&text);
    free(path);
    return rc;
}

static int open_folder(struct checkpoint *ck, struct imp_error *err) {
    static const char index[] = "model.safetensors.index.json", *const single = "model.safetensors";
    struct folder_list list = {0};
    int rc;
    if (ck->consolidated) {
        rc = folder_list_consolidated(ck->path, &list, err);
        if (rc == 0) rc = add_files(ck, (const char *const *)list.names, list.count, err);
    } else if (folder_has(ck->path, index)) {
        return open_indexed(ck, index, err);
    } else if (folder_has(ck->path, single)) {
        rc = add_files(ck, &single, 1, err);
    } else {
        rc = folder_list_weights(ck->path, &list, err);
        if (rc == 0 && list.count == 0)
            rc = error_set(err, IMP_ERR_FILE, ck->path, "there are no .safetensors files");
        if (rc == 0) rc = add_files(ck, (const char *const *)list.names, list.count, err);
    }
    folder_list_free(&list);
    return rc < 0 ? rc : gather(ck, err);
}

/* ---- names ---- */

/* True if some tensor's name starts with prefix and rest. */
static bool any_under(const struct checkpoint *ck, const char *prefix, const char *rest) {
    char start[256];
    int n = snprintf(start, sizeof start, "%s%s", prefix, rest);
    size_t low = 0, high = ck->tensor_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strncmp(ck->tensors[middle]->name, start, (size_t)n) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < ck->tensor_count && strncmp(ck->tensors[low]->name, start, (size_t)n) == 0;
}

/* Longest first: "model." is also the start of others. "": saved from the model class without head.
 */
static void find_prefixes(struct checkpoint *ck) {
    static const char *const prefixes[] = {"model.language_model.model.",
                                           "language_model.model.",
                                           "model.language_model.",
                                           "model.",
                                           "language_model.",
                                           ""};
    static const char *const heads[] = {"lm_head", "language_model.lm_head", "model.lm_head",
                                        "model.language_model.lm_head"};
    ck->prefix = "model.";
    ck->head = "lm_head";
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (!any_under(ck, prefixes[i], "layers.") && !any_under(ck, prefixes[i], "embed_tokens."))
            continue;
        ck->prefix = prefixes[i];
        break;
    }
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        if (!any_under(ck, heads[i], ".")) continue;
        ck->head = heads[i];
        break;
    }
}

enum { NAME_ROOM = CAP_TENSOR_NAME + 64 };

/* A canonical name as the files have it. False if it has no other form, or does not fit. */
static bool translate(const struct checkpoint *ck, const char *name, char out[NAME_ROOM]) {
    static const char model[] = "model.", head[] = "lm_head";
    int n = 0;
    if (strncmp(name, model, sizeof model - 1) == 0) {
        /* A name out of the files may start like the canonical form too. */
        if (*ck->prefix && strncmp(name, ck->prefix, strlen(ck->prefix)) == 0) return false;
        n = snprintf(out, NAME_ROOM, "%s%s", ck->prefix, name + sizeof model - 1);
    } else if (strncmp(name, head, sizeof head - 1) == 0 &&
               (name[sizeof head - 1] == 0 || name[sizeof head - 1] == '.')) {
        n = snprintf(out, NAME_ROOM, "%s%s", ck->head, name + sizeof head - 1);
    }
    return n > 0 && n < NAME_ROOM;
}

static const struct tensor *find_exact(const struct checkpoint *ck, const char *name) {
    const int64_t *at = map_find(&ck->by_name, slice_of(name));
    return at ? ck->tensors[*at] : NULL;
}

const struct tensor *checkpoint_find(const struct checkpoint *ck, const char *name) {
    char other[NAME_ROOM];
    const struct tensor *t = translate(ck, name, other) ? find_exact(ck, other) : NULL;
    return t ? t : find_exact(ck, name);
}

static bool has_exact(const struct checkpoint *ck, const char *module) {
    char name[NAME_ROOM];
    for (size_t i = 0; quant_parameters[i] != NULL; i++) {
        int n = snprintf(name, sizeof name, "%s.%s", module, quant_parameters[i]);
        if (n < NAME_ROOM && find_exact(ck, name)) return true;
    }
    return false;
}

bool checkpoint_has(const struct checkpoint *ck, const char *module) {
    char other[NAME_ROOM];
    return (translate(ck, module, other) && has_exact(ck, other)) || has_exact(ck, module);
}

/* ---- opening ---- */

static int find_folder(const char *path, bool *one_file, char **folder, struct imp_error *err) {
    *one_file = false;
    if (file_is_folder(path)) {
        *folder = mem_strndup(path, strlen(path));
        return 0;
    }
    if (!file_exists(path))
        return error_set(err, IMP_ERR_IO, path, "there is no such file or folder");
    if (!slice_ends(slice_of(path), ".safetensors"))
        return error_set(err, IMP_ERR_FILE, path, "neither a folder nor a .safetensors file");
    const char *slash = strrchr(path, '/');
    *one_file = true;
    *folder = slash == NULL   ? mem_strndup(".", 1)
              : slash == path ? mem_strndup("/", 1)
                              : mem_strndup(path, (size_t)(slash - path));
    return 0;
}

/* Whether there are weight files; *consolidated: they are Mistral's own, and the only ones. */
static bool has_weights(const char *folder, bool *consolidated) {
    struct folder_list usual = {0}, own = {0};
    bool any = folder_list_weights(folder, &usual, NULL) == 0 && usual.count > 0;
    *consolidated = !any && folder_list_consolidated(folder, &own, NULL) == 0 && own.count > 0;
    folder_list_free(&usual);
    folder_list_free(&own);
    return any || *consolidated;
}

static bool is_consolidated(const char *path) {
    const char *slash = strrchr(path, '/');
    return slice_starts(slice_of(slash ? slash + 1 : path), "consolidated");
}

/* The text model of a wrapped one loads all the same. */
static void say_what_is_left(const struct checkpoint *ck) {
    struct checkpoint_counts n;
    checkpoint_count(ck, &n);
    size_t senses = n.tensors[TENSOR_VISION] + n.tensors[TENSOR_AUDIO];
    if (senses)
        log_line(ck->log, LOG_WARNING,
                 "images and sound are not read: %zu tensors for them are left alone", senses);
    size_t drafter = n.tensors[TENSOR_MTP] + n.tensors[TENSOR_DRAFTER];
    if (drafter)
        log_line(ck->log, LOG_INFO, "tensors of a drafter are kept for later use: %zu", drafter);
}

int checkpoint_open(const char *path, bool need_tensors, const struct log *log,
                    struct checkpoint *out, struct imp_error *err) {
    bool one_file;
    *out = (struct checkpoint){.log = log};
    int rc = find_folder(path, &one_file, &out->path, err);
    if (rc == 0) rc = config_open(out->path, &out->config, err);
    if (rc < 0) goto fail;
    quant_read_config(out);
    bool any = has_weights(out->path, &out->consolidated);
    if (one_file) out->consolidated = is_consolidated(path);
    if (out->consolidated) rc = consolidated_head_rows(&out->config, &out->head_rows, err);
    if (rc < 0) goto fail;
    if (need_tensors || any) {
        rc = quant_check_config(out, err);
        if (rc < 0) goto fail;
        if (one_file) {
            out->files = mem_zero(1, sizeof *out->files);
            rc = add_file(out, path, err);
            if (rc == 0) rc = gather(out, err);
        } else {
            rc = open_folder(out, err);
        }
        if (rc < 0) goto fail;
    }
    find_prefixes(out);
    say_what_is_left(out);
    return 0;
fail:
    checkpoint_close(out);
    return rc;
}

void checkpoint_close(struct checkpoint *ck) {
    for (size_t i = 0; i < ck->file_count; i++) safetensors_close(&ck->files[i]);
    free(ck->files);
    free(ck->tensors);
    free(ck->read);
    map_free(&ck->by_name);
    arena_free(&ck->arena);
    arena_free(&ck->copies);
    config_close(&ck->config);
    free(ck->path);
    *ck = (struct checkpoint){0};
}

/* ---- reading ---- */

int checkpoint_weight(struct checkpoint *ck, const char *module, int64_t rows, int64_t cols,
                      struct weight *out, struct imp_error *err) {
    char other[NAME_ROOM];
    bool translated = translate(ck, module, other);
    if (translated && (has_exact(ck, other) || !has_exact(ck, module))) module = other;
    struct weight w;
    int rc = quant_weight(ck, module, rows, cols, &w, err);
    if (rc == 0 && ck->consolidated && consolidated_is_rotated(w.name))
        rc = consolidated_rotate(ck, &w, err);
    if (rc == 0) *out = w;
    return rc;
}

int checkpoint_vector(struct checkpoint *ck, const char *name, int64_t count, const float **out,
                      struct imp_error *err) {
    char place[sizeof err->where];
    const struct tensor *t = checkpoint_find(ck, name);
    if (t) return quant_vector(ck, t, count, out, err);
    error_place(place, ck->path, "tensor %s", name);
    return error_set(err, IMP_ERR_FILE, place, "is missing");
}
