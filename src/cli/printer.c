#include "cli/printer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/terminal.h"

static enum markdown_mode mode_for_stdout(void) {
    if (!terminal_is(stdout)) return MARKDOWN_BYTES;
    return terminal_has_colour(stdout) ? MARKDOWN_COLOUR : MARKDOWN_PLAIN;
}

void printer_start(struct printer *p, bool plain_text) {
    fflush(stdout); /* what came before the answer */
    *p = (struct printer){.markdown = {.mode = mode_for_stdout()}};
    if (plain_text && p->markdown.mode == MARKDOWN_COLOUR) p->markdown.mode = MARKDOWN_PLAIN;
}

void printer_free(struct printer *p) {
    str_free(&p->ready);
}

/* write and not stdio: an interrupt ends a write that waits, and a FILE would lose the rest.
 * Waiting for a terminal to take what is left is short; the reader of a pipe may never come. */
int printer_flush(struct printer *p, imp_error *err) {
    size_t done = 0;
    while (done < p->ready.size && !p->broken) {
        ssize_t n = write(STDOUT_FILENO, p->ready.data + done, p->ready.size - done);
        if (n >= 0) {
            done += (size_t)n;
            continue;
        }
        int reason = errno;
        if (reason == EINTR && (!interrupt_pending() || terminal_is(stdout))) continue;
        p->broken = true;
        if (reason == EINTR) return error_set(err, IMP_ERR_CANCELLED, NULL, "interrupted");
        /* A reader that has seen enough needs no message. */
        if (reason == EPIPE) return error_set(err, IMP_ERR_IO, NULL, "%s", "");
        return error_set(err, IMP_ERR_IO, "standard output", "cannot write: %s", strerror(reason));
    }
    str_clear(&p->ready);
    return 0;
}

int printer_take(struct printer *p, const char *text, size_t bytes, imp_error *err) {
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
