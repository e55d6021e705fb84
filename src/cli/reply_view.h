/* A reply on its way to the user: the answer through printer.h to standard output, and beside it,
 * on standard error, what the model thought and which tools it called.
 *
 * On a terminal the thinking is folded into one line that counts its tokens; `show` prints its text
 * instead. Elsewhere it is left out, unless shown. One thread. */
#ifndef IMP_CLI_REPLY_VIEW_H
#define IMP_CLI_REPLY_VIEW_H

#include "cli/printer.h"

struct reply_view {
    struct printer printer;
    bool show;       /* the text of the reasoning */
    bool quiet;      /* nothing on standard error */
    bool thinking;   /* the line on the terminal, or the shown text, is open */
    bool calling;    /* a line with a call is open */
    unsigned tokens; /* of the reasoning that is open */
    struct markdown plain;
    struct str line; /* reused */
};

/* text_only: --raw, the reply is not Markdown. silent: nothing is shown at all. */
void reply_view_start(struct reply_view *view, bool text_only, bool silent);
int reply_view_take(void *view, const imp_event *event, imp_error *err); /* answer_sink */
int reply_view_end(struct reply_view *view, imp_error *err);
void reply_view_free(struct reply_view *view);

#endif
