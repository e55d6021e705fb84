/* Any bytes as model.safetensors.index.json: refused, or a set of files inside the folder.
 *
 * Proved by planting (clang-14, one core): when ".." was allowed as a component it was found
 * within 1 s. Found in earnest: a missing weight_map went into yyjson_obj_foreach, which adds to
 * NULL. */
#include <string.h>

#include "base/error.h"
#include "load/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct folder_index index;
    struct imp_error err;
    if (folder_index_parse((const char *)data, size, "fuzz", &index, &err) < 0) {
        check(err.code == IMP_ERR_FILE && err.message[0] && index.doc == NULL);
        return 0;
    }
    check(index.file_count > 0 && index.file_count <= yyjson_obj_size(index.weight_map));
    for (size_t i = 0; i < index.file_count; i++) {
        const char *file = index.files[i];
        check(file[0] != '/' && strncmp(file, "../", 3) != 0 && strstr(file, "/../") == NULL);
        check(i == 0 || strcmp(index.files[i - 1], file) < 0);
    }
    folder_index_free(&index);
    return 0;
}
