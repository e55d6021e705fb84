/* What opening shares with inspection. */
#ifndef IMP_ENGINE_OPEN_H
#define IMP_ENGINE_OPEN_H

#include "engine/engine.h"

/* The backend that the options ask for; *threads is what it runs with. */
int open_backend(const struct imp_options *options, struct backend **out, int *threads,
                 struct imp_error *err);

#endif
