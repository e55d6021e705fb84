#include "backend/backend.h"

#include "backend/cpu/cpu.h"
#include "base/error.h"

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
    return error_set(err, IMP_ERR_DEVICE, NULL, "this build of imp has no CUDA backend");
}

void backend_close(struct backend *be) {
    if (be) be->ops->destroy(be);
}
