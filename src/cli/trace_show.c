/* One trace, a line for each stage: all of its rows together. */
#include <math.h>

#include "cli/trace_file.h"

struct total {
    size_t rows;
    const struct trace_row *largest; /* by max */
    double squares;                  /* sum of l2^2 */
    uint64_t nan, inf;
};

static void print_total(FILE *out, const struct trace_stage *stage, const struct total *t,
                        bool json) {
    const struct trace_row *at = t->largest;
    char layer[16] = "-";
    if (stage->layer >= 0) snprintf(layer, sizeof layer, "%d", stage->layer);
    fprintf(out,
            json ? "{\"layer\": %s, \"stage\": \"%s\", \"rows\": %zu, \"cols\": %lld, "
                   "\"max\": %.9g, \"sequence\": %d, \"position\": %d, \"l2\": %.9g, "
                   "\"nan\": %llu, \"inf\": %llu}"
                 : "%5s  %-15s %6zu %7lld  %11.6g  %4d %6d  %11.6g  %6llu %6llu\n",
            json && stage->layer < 0 ? "null" : layer, stage->name, t->rows, (long long)at->cols,
            at->max, at->seq, at->position, sqrt(t->squares), (unsigned long long)t->nan,
            (unsigned long long)t->inf);
}

void trace_show(FILE *out, const struct trace_stages *stages, const struct trace_rows *rows,
                bool json) {
    if (!json)
        fprintf(out, "%5s  %-15s %6s %7s  %11s  %4s %6s  %11s  %6s %6s\n", "layer", "stage", "rows",
                "cols", "max |x|", "seq", "pos", "L2", "NaN", "Inf");
    for (size_t i = 0; i < rows->count;) {
        const uint32_t stage = rows->list[i].stage;
        struct total t = {.largest = &rows->list[i]};
        if (json) fputs(i ? ",\n " : "[", out);
        for (; i < rows->count && rows->list[i].stage == stage; i++) {
            const struct trace_row *row = &rows->list[i];
            if (row->max > t.largest->max) t.largest = row;
            t.rows++;
            t.squares += row->l2 * row->l2;
            t.nan += row->nan;
            t.inf += row->inf;
        }
        print_total(out, &stages->list[stage], &t, json);
    }
    if (json) fputs("]\n", out);
}
