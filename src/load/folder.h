/* The files of one checkpoint folder: what its index names, and which names may be opened.
 *
 * A checkpoint comes from strangers, so a name out of an index, or a symlink, must not lead out of
 * the folder. The one exception is the Hub's cache, whose snapshots/REVISION/ links to
 * ../../blobs/. Any thread. */
#ifndef IMP_LOAD_FOLDER_H
#define IMP_LOAD_FOLDER_H

#include <stdbool.h>

#include "base/json.h"
#include "base/map.h"

/* The path of `name` in `folder` in *path, to be freed. IMP_ERR_IO if nothing is there,
 * IMP_ERR_FILE if the name or a symlink leads out of the folder. */
int folder_path(const char *folder, const char *name, char **path, struct imp_error *err);
bool folder_has(const char *folder, const char *name); /* there, wherever it leads */

/* Names of the folder's *.safetensors files, sorted: all but consolidated*, or only those, which
 * repeat the weights under Mistral's own names. */
struct folder_list {
    char **names;
    size_t count;
};
int folder_list_weights(const char *folder, struct folder_list *out, struct imp_error *err);
int folder_list_consolidated(const char *folder, struct folder_list *out, struct imp_error *err);
void folder_list_free(struct folder_list *list); /* zeroed is fine */

/* model.safetensors.index.json: which file has which tensor. */
struct folder_index {
    yyjson_doc *doc;
    yyjson_val *weight_map; /* object of strings */
    const char **files;     /* the different ones, sorted; strings of doc */
    size_t file_count;
};
int folder_index_parse(const char *json, size_t size, const char *name, struct folder_index *out,
                       struct imp_error *err);
void folder_index_free(struct folder_index *index); /* zeroed is fine */

#endif
