#include "cli/markdown.h"

#include <string.h>

enum { STYLE_BOLD = 1, STYLE_ITALIC = 2, STYLE_CODE = 4, STYLE_DIM = 8, STYLE_UNDERLINE = 16 };

/* ---- what reaches the terminal -------------------------------------------------------------- */

static void set_style(struct markdown *m, unsigned style, struct str *out) {
    if (m->mode != MARKDOWN_COLOUR || style == m->style) return;
    m->style = style;
    str_add_text(out, "\033[0");
    if (style & STYLE_BOLD) str_add_text(out, ";1");
    if (style & STYLE_DIM) str_add_text(out, ";2");
    if (style & STYLE_ITALIC) str_add_text(out, ";3");
    if (style & STYLE_UNDERLINE) str_add_text(out, ";4");
    if (style & STYLE_CODE) str_add_text(out, ";36");
    str_add_char(out, 'm');
}

static unsigned style_here(const struct markdown *m) {
    if (m->line == LINE_FENCE) return STYLE_DIM;
    if (m->fence) return STYLE_CODE;
    unsigned style = 0;
    if (m->bold || m->heading > 0) style |= STYLE_BOLD;
    if (m->heading == 1) style |= STYLE_UNDERLINE;
    if (m->italic) style |= STYLE_ITALIC;
    if (m->code) style |= STYLE_CODE;
    return style;
}

/* One character, made harmless. Terminals take C1 controls in UTF-8 for escapes too. */
static void add_safe(struct str *out, const char *p, size_t bytes) {
    uint32_t codepoint;
    utf8_decode(p, bytes, &codepoint);
    if (codepoint < 0x20 && codepoint != '\n' && codepoint != '\t') {
        codepoint += 0x2400; /* the pictures of the controls: ESC is one character, visible */
    } else if (codepoint == 0x7f) {
        codepoint = 0x2421;
    } else if (codepoint >= 0x80 && codepoint < 0xa0) {
        codepoint = 0xfffd;
    }
    str_add_codepoint(out, codepoint);
}

/* Emits the character at p in the style of this place; its bytes, 0 if it is still incomplete. */
static size_t take_character(struct markdown *m, const char *p, size_t n, bool final,
                             struct str *out) {
    size_t bytes = utf8_sequence_length(p, n);
    if (bytes == 0) {
        if (!final && utf8_incomplete_tail(p, n) == n) return 0;
        bytes = 1;
    }
    set_style(m, style_here(m), out);
    add_safe(out, p, bytes);
    m->before = p[bytes - 1];
    return bytes;
}

static size_t take_newline(struct markdown *m, struct str *out) {
    m->bold = m->italic = m->code = false; /* a mark that nothing closes must not run on */
    m->heading = 0;
    m->line = LINE_START;
    set_style(m, style_here(m), out);
    str_add_char(out, '\n');
    m->before = '\n';
    return 1;
}

/* Our own decoration in place of `bytes` of markup. */
static size_t take_decoration(struct markdown *m, const char *text, size_t bytes, struct str *out) {
    set_style(m, STYLE_DIM, out);
    str_add_text(out, text);
    m->before = ' ';
    return bytes;
}

static size_t take_literal(struct markdown *m, const char *p, size_t bytes, struct str *out) {
    set_style(m, style_here(m), out);
    str_add(out, p, bytes);
    m->before = p[bytes - 1];
    return bytes;
}

/* ---- inside a line -------------------------------------------------------------------------- */

static size_t run_length(const char *p, size_t n) {
    size_t run = 1;
    while (run < n && p[run] == p[0]) run++;
    return run;
}

static bool is_blank(char c) {
    return c == 0 || c == ' ' || c == '\t' || c == '\n';
}

static bool is_one_of(char c, const char *set) {
    return c != 0 && strchr(set, c) != NULL; /* strchr finds the zero that ends the set */
}

static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static size_t take_ticks(struct markdown *m, const char *p, size_t run, struct str *out) {
    if (m->code && run != m->code_ticks) return take_literal(m, p, run, out);
    m->code = !m->code;
    m->code_ticks = run;
    m->before = '`';
    return run;
}

/* Marks that close what the same mark opened; how many of the run they use up. */
static size_t close_emphasis(struct markdown *m, char mark, size_t run) {
    size_t used = 0;
    if (run >= 2 && m->bold && m->bold_mark == mark) {
        m->bold = false;
        used += 2;
    }
    if (run - used >= 1 && m->italic && m->italic_mark == mark) {
        m->italic = false;
        used += 1;
    }
    return used;
}

static bool open_emphasis(struct markdown *m, char mark, size_t run) {
    bool bold = run >= 2, italic = run != 2;
    if (run > 3 || (bold && m->bold) || (italic && m->italic)) return false;
    if (bold) {
        m->bold = true;
        m->bold_mark = mark;
    }
    if (italic) {
        m->italic = true;
        m->italic_mark = mark;
    }
    return true;
}

/* A run of '*' or '_'. CommonMark also opens inside words; here nobody can look ahead for the mark
 * that closes, and 2*3 or 2**8 would set the rest of the line in italics or bold. */
static size_t take_emphasis(struct markdown *m, const char *p, size_t run, char after,
                            struct str *out) {
    bool closes = !is_blank(m->before) && !(p[0] == '_' && is_word(after));
    bool opens = !is_blank(after) && !is_word(m->before);
    size_t used = closes ? close_emphasis(m, p[0], run) : 0;
    if (used > 0 || (opens && open_emphasis(m, p[0], run))) {
        m->before = p[0];
        return used > 0 ? used : run;
    }
    return take_literal(m, p, run, out);
}

static size_t take_inline(struct markdown *m, const char *p, size_t n, bool final,
                          struct str *out) {
    if (p[0] == '`' || (!m->code && (p[0] == '*' || p[0] == '_'))) {
        size_t run = run_length(p, n);
        if (run == n && !final) return 0;
        if (p[0] == '`') return take_ticks(m, p, run, out);
        return take_emphasis(m, p, run, run < n ? p[run] : '\n', out);
    }
    if (p[0] == '\\' && !m->code) {
        if (n == 1 && !final) return 0;
        if (n > 1 && is_one_of(p[1], "\\`*_#~>|-+.!")) {
            take_literal(m, p + 1, 1, out);
            return 2;
        }
    }
    return take_character(m, p, n, final, out);
}

/* ---- the start of a line -------------------------------------------------------------------- */

static size_t start_fence(struct markdown *m, const char *p, size_t run, struct str *out) {
    m->fence = p[0];
    m->fence_length = run;
    m->line = LINE_FENCE;
    return take_literal(m, p, run, out);
}

/* A run of '-', '*', '+' or '_': a bullet, a rule, or text. */
static size_t start_mark(struct markdown *m, const char *p, size_t n, size_t run, struct str *out) {
    char next = run < n ? p[run] : '\n';
    if (run == 1 && next == ' ' && p[0] != '_') return take_decoration(m, "\u2022 ", 2, out);
    if (run >= 3 && next == '\n' && p[0] != '+') {
        m->line = LINE_TEXT;
        return take_decoration(m,
                               "\u2500\u2500\u2500\u2500\u2500\u2500\u2500\u2500"
                               "\u2500\u2500\u2500\u2500\u2500\u2500\u2500\u2500",
                               run, out);
    }
    m->line = LINE_TEXT;
    return take_inline(m, p, n, run == n, out);
}

static size_t take_line_start(struct markdown *m, const char *p, size_t n, bool final,
                              struct str *out) {
    if (p[0] == ' ' || p[0] == '\t') return take_literal(m, p, 1, out);
    if (!is_one_of(p[0], "#>-*+_`~")) {
        m->line = LINE_TEXT;
        return take_inline(m, p, n, final, out);
    }
    size_t run = p[0] == '>' ? 1 : run_length(p, n);
    if (run == n && !final) return 0;
    char next = run < n ? p[run] : '\n';
    if (p[0] == '>') return take_decoration(m, "\u2502 ", next == ' ' ? 2 : 1, out);
    if ((p[0] == '`' || p[0] == '~') && run >= 3) return start_fence(m, p, run, out);
    if (is_one_of(p[0], "-*+_")) return start_mark(m, p, n, run, out);
    m->line = LINE_TEXT;
    if (p[0] == '#' && run <= 6 && next == ' ') {
        m->heading = (unsigned)run;
        return run + 1;
    }
    return take_inline(m, p, n, final, out);
}

/* ---- fenced blocks -------------------------------------------------------------------------- */

static size_t take_code_start(struct markdown *m, const char *p, size_t n, bool final,
                              struct str *out) {
    if (p[0] == ' ') return take_literal(m, p, 1, out);
    if (p[0] == m->fence) {
        size_t run = run_length(p, n), end = run;
        while (end < n && p[end] == ' ') end++;
        if (end == n && !final) return 0;
        if (run >= m->fence_length && (end == n || p[end] == '\n')) {
            m->line = LINE_FENCE;
            take_literal(m, p, run, out);
            m->fence = 0;
            return end;
        }
        m->line = LINE_CODE;
        return take_literal(m, p, run, out);
    }
    m->line = LINE_CODE;
    return take_character(m, p, n, final, out);
}

/* ```code``` in one line is not a fence: what follows the mark may hold no other. */
static size_t take_fence_line(struct markdown *m, const char *p, size_t n, bool final,
                              struct str *out) {
    if (p[0] == '`' && m->fence == '`') {
        m->line = LINE_TEXT;
        m->code = true;
        m->code_ticks = m->fence_length;
        m->fence = 0;
        return take_inline(m, p, n, final, out);
    }
    return take_character(m, p, n, final, out);
}

/* ---- the stream ----------------------------------------------------------------------------- */

/* What the start of p[0..n) is, if that is certain; 0 if it is not. With `final` it always is. */
static size_t take(struct markdown *m, const char *p, size_t n, bool final, struct str *out) {
    if (m->mode == MARKDOWN_PLAIN) return take_character(m, p, n, final, out);
    if (p[0] == '\n') return take_newline(m, out);
    switch (m->line) {
    case LINE_START:
        if (m->fence) return take_code_start(m, p, n, final, out);
        return take_line_start(m, p, n, final, out);
    case LINE_TEXT:
        return take_inline(m, p, n, final, out);
    case LINE_FENCE:
        return take_fence_line(m, p, n, final, out);
    case LINE_CODE:
        break;
    }
    return take_character(m, p, n, final, out);
}

static void drain(struct markdown *m, bool final, struct str *out) {
    size_t used = 0;
    while (used < m->held_bytes) {
        size_t bytes = take(m, m->held + used, m->held_bytes - used, final, out);
        if (bytes == 0) break;
        used += bytes;
    }
    m->held_bytes -= used;
    memmove(m->held, m->held + used, m->held_bytes);
}

/* Byte by byte, so that how the text was cut cannot matter. */
void markdown_feed(struct markdown *m, const char *text, size_t bytes, struct str *out) {
    if (m->mode == MARKDOWN_BYTES) {
        str_add(out, text, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i++) {
        m->held[m->held_bytes++] = text[i];
        drain(m, m->held_bytes == MARKDOWN_HELD, out);
    }
}

void markdown_end(struct markdown *m, struct str *out) {
    drain(m, true, out);
    set_style(m, 0, out);
    *m = (struct markdown){.mode = m->mode};
}
