/* Finds and opens the CUDA backend, a module beside the program: the same program runs where there
 * is no driver. Nothing of CUDA is loaded before somebody asks for it. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/cuda_module.h"
#include "base/error.h"

typedef int (*open_fn)(const struct backend_options *, struct backend **, struct imp_error *);

/* libimp_cuda.so in the folder of the running program. */
static bool module_path(char out[4096]) {
    ssize_t n = readlink("/proc/self/exe", out, 4000);
    if (n <= 0) return false;
    out[n] = 0;
    char *slash = strrchr(out, '/');
    if (slash == NULL) return false;
    snprintf(slash + 1, 64, "libimp_cuda.so");
    return true;
}

bool cuda_module_exists(void) {
    char path[4096];
    return module_path(path) && access(path, R_OK) == 0;
}

int cuda_module_open(const struct backend_options *options, struct backend **out,
                     struct imp_error *err) {
    char path[4096];
    if (!module_path(path) || access(path, R_OK) != 0)
        return error_set(err, IMP_ERR_DEVICE, NULL,
                         "there is no CUDA backend beside the program: make cuda builds it");
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (module == NULL)
        return error_set(err, IMP_ERR_DEVICE, path, "cannot be loaded: %s", dlerror());
    open_fn open;
    void *symbol = dlsym(module, "imp_cuda_open");
    memcpy(&open, &symbol, sizeof open); /* ISO C has no cast from object to function */
    if (symbol == NULL) {
        dlclose(module);
        return error_set(err, IMP_ERR_DEVICE, path, "is no CUDA backend of imp");
    }
    /* It stays loaded: the driver does not like to be unloaded. */
    return open(options, out, err);
}
