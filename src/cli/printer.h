/* An answer on its way to standard output: as it is into a file or a pipe, through markdown.h on a
 * terminal. One thread. */
#ifndef IMP_CLI_PRINTER_H
#define IMP_CLI_PRINTER_H

#include "cli/markdown.h"
#include "imp/imp.h"

struct printer {
    struct markdown markdown;
    struct str ready; /* to be written; reused for every piece */
    char last;        /* the last byte of the answer */
    bool silent;      /* write nothing */
    bool broken;      /* a write failed: nothing more is written */
};

/* plain_text: the text is not Markdown. */
void printer_start(struct printer *printer, bool plain_text);
void printer_free(struct printer *printer);
int printer_take(struct printer *printer, const char *text, size_t bytes, imp_error *err);
int printer_end(struct printer *printer, imp_error *err); /* a newline if the answer has none */
int printer_flush(struct printer *printer, imp_error *err);

#endif
