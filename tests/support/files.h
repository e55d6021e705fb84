/* SafeTensors files and checkpoint folders made on the spot, for tests. Abort on any failure. */
#ifndef IMP_TESTS_SUPPORT_FILES_H
#define IMP_TESTS_SUPPORT_FILES_H

#include <dirent.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/str.h"

/* A file under construction: entries of the header and the tensors' bytes. */
struct maker {
    struct str entries, data;
};

static inline void maker_add(struct maker *m, const char *name, const char *dtype,
                             const char *shape, const void *bytes, size_t size) {
    str_printf(&m->entries, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
               m->entries.size ? "," : "", name, dtype, shape, m->data.size, m->data.size + size);
    str_add(&m->data, bytes, size);
}

/* 8 bytes of length, the header as given, the data as given. */
static inline void file_image(struct str *out, const char *header, size_t header_bytes,
                              const void *data, size_t data_bytes) {
    for (int i = 0; i < 8; i++) str_add_char(out, (char)((uint64_t)header_bytes >> 8 * i));
    str_add(out, header, header_bytes);
    str_add(out, data, data_bytes);
}

/* Pads the header to 8 bytes, as the format's own writer does, plus `skew`. Frees the maker. */
static inline void maker_finish(struct maker *m, int skew, struct str *out) {
    struct str header = {0};
    str_printf(&header, "{%s}", m->entries.size ? m->entries.data : "");
    while (header.size % 8 != 0) str_add_char(&header, ' ');
    for (int i = 0; i < skew; i++) str_add_char(&header, ' ');
    file_image(out, header.data, header.size, m->data.data, m->data.size);
    str_free(&header);
    str_free(&m->entries);
    str_free(&m->data);
}

static inline char *temp_folder(void) {
    char *path = mem_strndup("/tmp/imp-test-XXXXXX", 20);
    check(mkdtemp(path) != NULL);
    return path;
}

static inline int temp_remove_one(const char *path, const struct stat *st, int type,
                                  struct FTW *where) {
    (void)st, (void)type, (void)where;
    return remove(path);
}

static inline void temp_remove(char *path) {
    nftw(path, temp_remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(path);
}

static inline void put_file(const char *folder, const char *name, const void *data, size_t size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    check(f != NULL && fwrite(data, 1, size, f) == size);
    check(fclose(f) == 0);
}

static inline void put_text(const char *folder, const char *name, const char *text) {
    put_file(folder, name, text, strlen(text));
}

static inline void remove_file(const char *folder, const char *name) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

static inline char *path_in(const char *folder, const char *name) {
    struct str s = {0};
    str_printf(&s, "%s/%s", folder, name);
    return str_take(&s);
}

static inline int count_entries(const char *folder) {
    DIR *dir = opendir(folder);
    int n = 0;
    check(dir != NULL);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static inline void put_tensors(const char *folder, const char *name, struct maker *m) {
    struct str image = {0};
    maker_finish(m, 0, &image);
    put_file(folder, name, image.data, image.size);
    str_free(&image);
}

#endif
