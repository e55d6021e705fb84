/* The door to the CUDA backend. Any thread; the module stays loaded once it was opened. */
#ifndef IMP_BACKEND_CUDA_MODULE_H
#define IMP_BACKEND_CUDA_MODULE_H

#include "backend/backend.h"

bool cuda_module_exists(void); /* beside the program */
/* IMP_ERR_DEVICE with the reason where there is no module, no driver or no GPU. */
int cuda_module_open(const struct backend_options *options, struct backend **out,
                     struct imp_error *err);

#endif
