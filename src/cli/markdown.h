/* Text of the model on a terminal: Markdown to ANSI as it streams, and nothing of the model's that
 * could steer the terminal.
 *
 * Feed any split of the text; what is ready is appended to `out`. Held back is only what could yet
 * become markup ("*", "``", "- "), never more than one such span, and what of a character is still
 * to come. Whatever the split, the bytes are the same. A zeroed struct with a mode is ready. The
 * terminal wraps the lines. Allocates nothing; one thread. */
#ifndef IMP_CLI_MARKDOWN_H
#define IMP_CLI_MARKDOWN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

enum markdown_mode {
    MARKDOWN_BYTES,  /* not a terminal: every byte as it is */
    MARKDOWN_PLAIN,  /* a terminal without colour: only control characters are replaced */
    MARKDOWN_COLOUR, /* markup becomes ANSI styles */
};

enum markdown_line {
    LINE_START, /* nothing but blanks, quote marks and bullets so far: its kind is open */
    LINE_TEXT,  /* inline markup is looked for */
    LINE_CODE,  /* inside a fenced block: as it is */
    LINE_FENCE, /* the line of an opening or closing fence */
};

enum { MARKDOWN_HELD = 96 };

struct markdown {
    enum markdown_mode mode;
    enum markdown_line line;
    char held[MARKDOWN_HELD]; /* the ambiguous span at the end of what was fed */
    size_t held_bytes;
    char before;                 /* the byte before the held ones; 0 at the start of the text */
    unsigned heading;            /* level of this line's heading, or 0 */
    bool bold, italic, code;     /* open spans of this line */
    char bold_mark, italic_mark; /* '*' or '_': what opened a span closes it */
    size_t code_ticks;           /* that opened the inline code */
    char fence;                  /* '`' or '~' inside a fenced block, else 0 */
    size_t fence_length;
    unsigned style; /* what the terminal is set to */
};

void markdown_feed(struct markdown *m, const char *text, size_t bytes, struct str *out);
/* The end of the text: what was held comes out, styles end. Ready for the next text after it. */
void markdown_end(struct markdown *m, struct str *out);

#endif
