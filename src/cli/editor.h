/* The input line of the chat: libedit, with pastes of several lines kept as one message and a
 * history file.
 *
 * libedit edits standard input and draws on standard output, both terminals. Only the editor reads
 * the terminal while it exists. It needs interrupt_catch before. One editor, one thread. */
#ifndef IMP_CLI_EDITOR_H
#define IMP_CLI_EDITOR_H

#include "base/str.h"
#include "imp/imp.h"

struct editor;

/* history_path NULL: none is kept. A file that cannot be read or written is no error. */
int editor_open(const char *history_path, struct editor **out, imp_error *err);
void editor_close(struct editor *editor); /* NULL is fine */

enum editor_result {
    EDITOR_TEXT,      /* *out holds the message, without the newline that ended it */
    EDITOR_INTERRUPT, /* Ctrl-C; *out holds what it threw away */
    EDITOR_END,       /* Ctrl-D, or the terminal is gone */
};
enum editor_result editor_read(struct editor *editor, const char *prompt, struct str *out);
void editor_remember(struct editor *editor, const char *text);

#endif
