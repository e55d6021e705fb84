/* Stop strings over streamed text: what may be the beginning of one is held back until it is clear.
 *
 * Owns copies of the strings. One thread at a time. Memory is bounded by the longest stop string.
 */
#ifndef IMP_ENGINE_STOP_H
#define IMP_ENGINE_STOP_H

#include <stdbool.h>

#include "base/str.h"

struct stop_filter {
    char **strings;
    size_t *sizes;
    size_t count, longest;
    struct str held;
};

void stop_filter_init(struct stop_filter *f, const char *const *strings, size_t count);
void stop_filter_free(struct stop_filter *f);
/* Appends to *out the text that can no longer belong to a stop string. True when one was found: the
 * text before it is in *out, the string and all after it are dropped. */
bool stop_filter_add(struct stop_filter *f, const char *text, size_t size, struct str *out);
/* The end came without a stop string: the rest. */
void stop_filter_end(struct stop_filter *f, struct str *out);

#endif
