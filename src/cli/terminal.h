/* What a stream that may be a terminal can show: colour, width, a line that is drawn over. */
#ifndef IMP_CLI_TERMINAL_H
#define IMP_CLI_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/str.h"

bool terminal_is(FILE *stream);
bool terminal_has_colour(FILE *stream); /* a terminal, and neither NO_COLOR nor TERM=dumb */
int terminal_columns(FILE *stream);
size_t text_columns(const char *text, size_t bytes);  /* display width */
void add_bytes_text(struct str *out, uint64_t bytes); /* "1.2 GiB" */

/* Progress of a long call on standard error: a bar on a terminal, a line every few seconds
 * elsewhere. The signature of progress_step is imp_progress_fn; an interrupt cancels the call. */
struct progress {
    bool quiet;
    char stage[64];
    double stage_start_ms, last_ms;
    bool drawn;
};
int progress_step(void *ctx, const char *stage, uint64_t done, uint64_t total, const char *unit);
void progress_end(struct progress *progress); /* leaves the last bar standing */

#endif
