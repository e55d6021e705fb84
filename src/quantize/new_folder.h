/* A folder that appears whole or not at all: filled under a temporary name beside its place, made
 * durable, then renamed.
 *
 * Owns the temporary folder until commit or discard; discard removes it with all files inside. One
 * thread at a time. */
#ifndef IMP_QUANTIZE_NEW_FOLDER_H
#define IMP_QUANTIZE_NEW_FOLDER_H

#include <stddef.h>

#include "imp/imp.h"

struct new_folder {
    char *destination; /* NULL: not open */
    char *temporary;   /* "DESTINATION.partial-PID-N" */
};

/* The destination must not exist, or be an empty folder; its parent must exist. */
int new_folder_open(const char *destination, struct new_folder *out, struct imp_error *err);
char *new_folder_path(const struct new_folder *folder, const char *name); /* free() it */
int new_folder_write(const struct new_folder *folder, const char *name, const char *data,
                     size_t bytes, struct imp_error *err);
int new_folder_copy(const struct new_folder *folder, const char *name, const char *from,
                    struct imp_error *err);
int new_folder_commit(struct new_folder *folder, struct imp_error *err); /* failing discards */
void new_folder_discard(struct new_folder *folder);                      /* zeroed is fine */

#endif
