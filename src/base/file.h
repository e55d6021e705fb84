/* Files: whole small ones read into memory, large ones mapped read-only. Any thread. */
#ifndef IMP_BASE_FILE_H
#define IMP_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "imp/imp.h"

/* Appends the whole file; more than cap_bytes is IMP_ERR_FILE. */
int file_read(const char *path, size_t cap_bytes, struct str *out, struct imp_error *err);

struct file_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
};

/* Regular files only. The mapping lives until file_unmap, whatever becomes of the name; a file that
 * is truncated meanwhile raises SIGBUS on the missing pages. */
int file_map_open(const char *path, struct file_map *out, struct imp_error *err);
void file_map_close(struct file_map *map);

bool file_exists(const char *path);
bool file_is_folder(const char *path);

#endif
