/* imp inspect MODEL --weights: what src/health finds, as tables, JSON or CSV. */
#ifndef IMP_CLI_INSPECT_WEIGHTS_H
#define IMP_CLI_INSPECT_WEIGHTS_H

#include "cli/cli.h"

/* 0, or 2 if anything is broken; path as model_path gives it. */
int inspect_weights(const struct options *options, const char *path, imp_error *err);

#endif
