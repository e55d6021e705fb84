#include "load/folder.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"

static char *join(const char *folder, const char *name) {
    struct str s = {0};
    str_printf(&s, "%s/%s", folder, name);
    return str_take(&s);
}

/* Relative, and every component an ordinary name. */
static bool name_stays_inside(struct slice name) {
    size_t start = 0;
    for (size_t i = 0; i <= name.size; i++) {
        if (i < name.size) {
            unsigned char c = (unsigned char)name.data[i];
            if (c < 0x20 || c == 0x7f || c == '\\') return false;
            if (c != '/') continue;
        }
        struct slice part = {name.data + start, i - start};
        if (part.size == 0 || slice_equal(part, slice_of(".")) || slice_equal(part, slice_of("..")))
            return false;
        start = i + 1;
    }
    return true;
}

static bool is_under(const char *path, const char *folder) {
    size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 && path[n] == '/';
}

/* `real` is the resolved folder. For .../snapshots/REVISION: the resolved .../blobs. */
static char *hub_blobs(const char *real) {
    static const char parent[] = "/snapshots";
    const char *end = strrchr(real, '/');
    size_t n = end ? (size_t)(end - real) : 0;
    if (n < sizeof parent - 1 || !slice_ends((struct slice){real, n}, parent)) return NULL;
    struct str path = {0};
    str_printf(&path, "%.*s/blobs", (int)(n - (sizeof parent - 1)), real);
    char *blobs = realpath(path.data, NULL);
    str_free(&path);
    return blobs;
}

int folder_path(const char *folder, const char *name, char **path, struct imp_error *err) {
    char place[sizeof err->where];
    error_place(place, folder, "%s", name);
    if (!name_stays_inside(slice_of(name)))
        return error_set(err, IMP_ERR_FILE, place, "the name leads out of the checkpoint's folder");
    char *joined = join(folder, name), *blobs = NULL;
    char *real_folder = realpath(folder, NULL), *real = realpath(joined, NULL);
    int rc = 0;
    if (real_folder == NULL || real == NULL) {
        rc = error_set(err, IMP_ERR_IO, place, "cannot open: %s", strerror(errno));
        goto done;
    }
    blobs = hub_blobs(real_folder);
    if (!is_under(real, real_folder) && (blobs == NULL || !is_under(real, blobs)))
        rc = error_set(err, IMP_ERR_FILE, place, "a symlink out of the checkpoint's folder");
done:
    free(real_folder);
    free(real);
    free(blobs);
    if (rc < 0) {
        free(joined);
        return rc;
    }
    *path = joined;
    return 0;
}

bool folder_has(const char *folder, const char *name) {
    char *path = join(folder, name);
    bool there = file_exists(path);
    free(path);
    return there;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list(const char *folder, bool consolidated, struct folder_list *out,
                struct imp_error *err) {
    *out = (struct folder_list){0};
    DIR *dir = opendir(folder);
    if (dir == NULL) return error_set(err, IMP_ERR_IO, folder, "cannot list: %s", strerror(errno));
    int rc = 0;
    size_t room = 0;
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir)) != NULL;) {
        struct slice name = slice_of(entry->d_name);
        if (!slice_ends(name, ".safetensors") || slice_starts(name, ".") ||
            slice_starts(name, "consolidated") != consolidated)
            continue;
        if (out->count == CAP_SHARDS)
            rc = error_set(err, IMP_ERR_FILE, folder, "more than %u weight files", CAP_SHARDS);
        if (rc < 0) break;
        if (out->count == room) {
            room = room ? 2 * room : 16;
            out->names = mem_grow(out->names, room * sizeof *out->names);
        }
        out->names[out->count++] = mem_strndup(name.data, name.size);
    }
    closedir(dir);
    if (rc < 0) folder_list_free(out);
    if (out->count > 0) qsort(out->names, out->count, sizeof *out->names, by_text);
    return rc;
}

int folder_list_weights(const char *folder, struct folder_list *out, struct imp_error *err) {
    return list(folder, false, out, err);
}

int folder_list_consolidated(const char *folder, struct folder_list *out, struct imp_error *err) {
    return list(folder, true, out, err);
}

void folder_list_free(struct folder_list *list) {
    for (size_t i = 0; i < list->count; i++) free(list->names[i]);
    free(list->names);
    *list = (struct folder_list){0};
}

static int index_add(struct folder_index *index, struct map *seen, yyjson_val *file,
                     const char *where, struct imp_error *err) {
    struct slice name = json_slice(file);
    if (!yyjson_is_str(file) || !name_stays_inside(name) || name.size > NAME_MAX ||
        !slice_ends(name, ".safetensors"))
        return error_set(err, IMP_ERR_FILE, where,
                         "\"%.100s\" is not the name of a weight file in "
                         "this folder",
                         yyjson_is_str(file) ? name.data : "?");
    if (!map_add(seen, name, 0)) return 0;
    if (index->file_count == CAP_SHARDS)
        return error_set(err, IMP_ERR_FILE, where, "more than %u weight files", CAP_SHARDS);
    if ((index->file_count & (index->file_count - 1)) == 0) { /* full at powers of two */
        size_t room = index->file_count ? 2 * index->file_count : 1;
        index->files = mem_grow(index->files, room * sizeof *index->files);
    }
    index->files[index->file_count++] = name.data;
    return 0;
}

int folder_index_parse(const char *json, size_t size, const char *name, struct folder_index *out,
                       struct imp_error *err) {
    *out = (struct folder_index){0};
    int rc = json_read(json, size, name, &out->doc, err);
    if (rc < 0) return rc;
    char where[sizeof err->where];
    error_place(where, name, "$.weight_map");
    struct map seen = {0};
    out->weight_map = yyjson_obj_get(yyjson_doc_get_root(out->doc), "weight_map");
    if (!yyjson_is_obj(out->weight_map) || yyjson_obj_size(out->weight_map) == 0)
        rc = error_set(err, IMP_ERR_FILE, where, "missing, empty, or not an object");
    else if (yyjson_obj_size(out->weight_map) > CAP_TENSORS)
        rc = error_set(err, IMP_ERR_FILE, where, "more than %u tensors", CAP_TENSORS);
    yyjson_obj_iter iter = yyjson_obj_iter_with(out->weight_map);
    for (yyjson_val *key; rc == 0 && (key = yyjson_obj_iter_next(&iter)) != NULL;)
        rc = index_add(out, &seen, yyjson_obj_iter_get_val(key), where, err);
    map_free(&seen);
    if (rc < 0)
        folder_index_free(out);
    else
        qsort(out->files, out->file_count, sizeof *out->files, by_text);
    return rc;
}

void folder_index_free(struct folder_index *index) {
    yyjson_doc_free(index->doc);
    free(index->files);
    *index = (struct folder_index){0};
}
