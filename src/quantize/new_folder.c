#include "quantize/new_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/str.h"

static int check_destination(const char *path, struct imp_error *err) {
    DIR *dir = opendir(path);
    if (dir == NULL) {
        if (errno == ENOENT) return 0;
        return error_set(err, IMP_ERR_USAGE, path, "the destination exists and is not a folder");
    }
    bool empty = true;
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) empty = false;
    closedir(dir);
    if (empty) return 0;
    return error_set(err, IMP_ERR_USAGE, path, "the destination folder exists and is not empty");
}

/* Not mkdtemp, whose folder nobody else could read; the mode is as for any folder the user makes.
 */
static int make_temporary(struct new_folder *folder, struct imp_error *err) {
    for (int attempt = 0; attempt < 100; attempt++) {
        struct str name = {0};
        str_printf(&name, "%s.partial-%ld-%d", folder->destination, (long)getpid(), attempt);
        folder->temporary = str_take(&name);
        if (mkdir(folder->temporary, 0777) == 0) return 0;
        free(folder->temporary);
        folder->temporary = NULL;
        if (errno != EEXIST) break;
    }
    return error_set(err, IMP_ERR_IO, folder->destination, "cannot create a folder here: %s",
                     strerror(errno));
}

int new_folder_open(const char *destination, struct new_folder *out, struct imp_error *err) {
    size_t n = strlen(destination);
    while (n > 1 && destination[n - 1] == '/') n--;
    if (n == 0) return error_set(err, IMP_ERR_USAGE, NULL, "the destination has no name");
    struct new_folder folder = {.destination = mem_strndup(destination, n)};
    int rc = check_destination(folder.destination, err);
    if (rc == 0) rc = make_temporary(&folder, err);
    if (rc < 0)
        free(folder.destination);
    else
        *out = folder;
    return rc;
}

char *new_folder_path(const struct new_folder *folder, const char *name) {
    struct str path = {0};
    str_printf(&path, "%s/%s", folder->temporary, name);
    return str_take(&path);
}

int new_folder_write(const struct new_folder *folder, const char *name, const char *data,
                     size_t bytes, struct imp_error *err) {
    char *path = new_folder_path(folder, name);
    int rc = 0, fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    while (fd >= 0 && bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        data += n;
        bytes -= (size_t)n;
    }
    bool bad = fd < 0 || bytes > 0 || fsync(fd) != 0;
    if (bad) rc = error_set(err, IMP_ERR_IO, path, "cannot write: %s", strerror(errno));
    if (fd >= 0 && close(fd) != 0 && rc == 0)
        rc = error_set(err, IMP_ERR_IO, path, "cannot write: %s", strerror(errno));
    free(path);
    return rc;
}

int new_folder_copy(const struct new_folder *folder, const char *name, const char *from,
                    struct imp_error *err) {
    struct file_map map;
    int rc = file_map_open(from, &map, err);
    if (rc < 0) return rc;
    rc = new_folder_write(folder, name, (const char *)map.data, map.size, err);
    file_map_close(&map);
    return rc;
}

static int sync_folder(const char *path, struct imp_error *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems cannot sync a folder and say EINVAL; the rename is then all there is. */
    bool bad = fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != EROFS);
    int rc = bad ? error_set(err, IMP_ERR_IO, path, "cannot sync: %s", strerror(errno)) : 0;
    if (fd >= 0) close(fd);
    return rc;
}

static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) return mem_strndup(".", 1);
    return mem_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int new_folder_commit(struct new_folder *folder, struct imp_error *err) {
    char *parent = parent_of(folder->destination);
    int rc = sync_folder(folder->temporary, err);
    if (rc == 0 && rename(folder->temporary, folder->destination) != 0)
        rc = error_set(err, IMP_ERR_IO, folder->destination, "cannot rename the new folder: %s",
                       strerror(errno));
    if (rc == 0) {
        /* The folder is there; a parent that will not sync only makes it less durable. */
        sync_folder(parent, NULL);
        free(folder->temporary);
        free(folder->destination);
        *folder = (struct new_folder){0};
    } else {
        new_folder_discard(folder);
    }
    free(parent);
    return rc;
}

void new_folder_discard(struct new_folder *folder) {
    if (folder->destination == NULL) return;
    DIR *dir = opendir(folder->temporary);
    if (dir) {
        for (struct dirent *e; (e = readdir(dir)) != NULL;)
            unlinkat(dirfd(dir), e->d_name, 0); /* "." and ".." refuse */
        closedir(dir);
        rmdir(folder->temporary);
    }
    free(folder->temporary);
    free(folder->destination);
    *folder = (struct new_folder){0};
}
