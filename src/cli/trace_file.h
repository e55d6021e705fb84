/* Trace files as debug.trace writes them (src/engine/trace.h says what the columns mean): reading,
 * and what `imp trace` prints of one and of two.
 *
 * Stages are numbered in the order in which files name them, which is the order of the pass; two
 * files that are compared share one numbering. One thread; each struct has its free. */
#ifndef IMP_CLI_TRACE_FILE_H
#define IMP_CLI_TRACE_FILE_H

#include <stdbool.h>
#include <stdio.h>

#include "base/map.h"
#include "base/str.h"
#include "imp/imp.h"

enum { TRACE_NAME = 32 };

struct trace_stage {
    int layer; /* -1: of no layer */
    char name[TRACE_NAME];
    char *key; /* in the map */
};
struct trace_stages {
    struct trace_stage *list;
    size_t count, capacity;
    struct map map; /* "LAYER,NAME" to its place in list */
};
void trace_stages_free(struct trace_stages *stages);

struct trace_row {
    int32_t seq, position, token;
    uint32_t stage, order; /* order: its place in the file */
    int64_t cols;
    double max, l2, probe;
    uint32_t nan, inf, hash;
    bool exact; /* integers: no difference is a small one */
};
struct trace_rows {
    struct trace_row *list; /* by stage, then sequence, then position */
    size_t count;
};
/* IMP_ERR_FILE names the line. A row that was computed twice, to the same bits, counts once. */
int trace_rows_read(const char *path, struct trace_stages *stages, struct trace_rows *out,
                    imp_error *err);
void trace_rows_free(struct trace_rows *rows);

/* trace_show.c: a line for each stage. */
void trace_show(FILE *out, const struct trace_stages *stages, const struct trace_rows *rows,
                bool json);

/* trace_compare.c: where two runs part. Returns whether they are equal: in all bits, or with a
 * tolerance, nowhere further apart. */
bool trace_compare(FILE *out, const struct trace_stages *stages, const struct trace_rows *a,
                   const struct trace_rows *b, double tolerance, bool json);

#endif
