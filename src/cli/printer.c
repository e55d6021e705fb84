#include "cli/printer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/terminal.h"

static enum markdown_mode mode_for_stdout(void) {
    if (!terminal_is(stdout)) return MARKDOWN_BYTES;
    return terminal_has_colour(stdout) ? MARKDOWN_COLOUR : MARKDOWN_PLAIN;
}

void printer_start(struct printer *p, bool plain_text) {
    *p = (struct printer){.markdown = {.mode = mode_for_stdout()}};
    if (plain_text && p->markdown.mode == MARKDOWN_COLOUR) p->markdown.mode = MARKDOWN_PLAIN;
}

void printer_free(struct printer *p) {
    str_free(&p->ready);
}

int printer_flush(struct printer *p, imp_error *err) {
    fwrite(p->ready.data, 1, p->ready.size, stdout);
    str_clear(&p->ready);
    if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
    return error_set(err, IMP_ERR_IO, "standard output", "cannot write: %s", strerror(errno));
}

int printer_take(void *printer, const char *text, size_t bytes, imp_error *err) {
    struct printer *p = printer;
    if (bytes > 0) p->last = text[bytes - 1];
    if (p->silent) return 0;
    markdown_feed(&p->markdown, text, bytes, &p->ready);
    return p->ready.size > 0 ? printer_flush(p, err) : 0;
}

int printer_end(struct printer *p, imp_error *err) {
    markdown_end(&p->markdown, &p->ready);
    if (p->last != '\n') str_add_char(&p->ready, '\n');
    return printer_flush(p, err);
}
