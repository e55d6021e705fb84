#include "backend/backend.h"

#include "backend/cpu/cpu.h"

int backend_open(const struct backend_options *options, struct backend **out,
                 struct imp_error *err) {
    switch (options->kind) {
    case BACKEND_CPU: return cpu_fast_open(options, out, err);
    case BACKEND_CPU_REFERENCE: return cpu_reference_open(options, out, err);
    }
    return IMP_ERR_INTERNAL;
}

void backend_close(struct backend *be) {
    if (be) be->ops->destroy(be);
}
