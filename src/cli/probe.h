/* How fast memory can be read: the ceiling that decoding is held against. */
#ifndef IMP_CLI_PROBE_H
#define IMP_CLI_PROBE_H

#include "imp/imp.h"

/* Bytes per second, the best of several passes over a buffer far larger than the caches, read by
 * `threads` threads at once. */
int probe_bandwidth(int threads, double *bytes_per_s, imp_error *err);

#endif
