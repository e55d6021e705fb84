#include "backend/backend.h"

#include "backend/cpu/cpu.h"
#include "backend/cuda_module.h"

int backend_open(const struct backend_options *options, struct backend **out,
                 struct imp_error *err) {
    switch (options->kind) {
    case BACKEND_CPU:
        return cpu_fast_open(options, out, err);
    case BACKEND_CPU_REFERENCE:
        return cpu_reference_open(options, out, err);
    case BACKEND_GPU:
        break;
    }
    return cuda_module_open(options, out, err);
}

bool backend_gpu_exists(void) {
    return cuda_module_exists();
}

void backend_close(struct backend *be) {
    if (be) be->ops->destroy(be);
}
