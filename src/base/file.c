#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

static int open_regular(const char *path, int *fd, size_t *size, struct imp_error *err) {
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) return error_set(err, IMP_ERR_IO, path, "cannot open: %s", strerror(errno));
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(*fd);
        error_set(err, IMP_ERR_FILE, path, "not a regular file");
        return IMP_ERR_FILE;
    }
    *size = (size_t)st.st_size;
    return 0;
}

int file_read(const char *path, size_t cap_bytes, struct str *out, struct imp_error *err) {
    int fd = -1;
    size_t size = 0;
    int rc = open_regular(path, &fd, &size, err);
    if (rc < 0) return rc;
    if (size > cap_bytes) {
        close(fd);
        return error_set(err, IMP_ERR_FILE, path, "%zu bytes, more than the %zu allowed", size,
                         cap_bytes);
    }
    str_reserve(out, size);
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, out->data + out->size, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            rc = error_set(err, IMP_ERR_IO, path, "cannot read: %s",
                           n < 0 ? strerror(errno) : "the file became shorter");
            break;
        }
        out->size += (size_t)n;
        done += (size_t)n;
    }
    out->data[out->size] = 0;
    close(fd);
    return rc;
}

int file_map_open(const char *path, struct file_map *out, struct imp_error *err) {
    int fd = -1;
    size_t size = 0;
    *out = (struct file_map){0};
    int rc = open_regular(path, &fd, &size, err);
    if (rc < 0) return rc;
    if (size > 0) {
        void *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            rc =
                error_set(err, IMP_ERR_IO, path, "cannot map %zu bytes: %s", size, strerror(errno));
        } else {
            *out = (struct file_map){p, size};
        }
    }
    close(fd);
    return rc;
}

void file_map_close(struct file_map *map) {
    if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
    *map = (struct file_map){0};
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
