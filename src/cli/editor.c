#include "cli/editor.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/terminal.h"

enum {
    HISTORY_ENTRIES = 1000,
    INPUT_BYTES = 4096,
    LOOK_MS = 200,          /* a signal may go to another thread: then nothing ends the poll */
    PASTE_BYTES = 16 << 20, /* what comes after is dropped */
    KEY_CANCEL = 3,         /* Ctrl-C never arrives as a key, so its code is free to stand for it */
};

struct editor {
    EditLine *line;
    History *history;
    HistEvent event;
    char *history_path;
    const char *prompt;
    unsigned char input[INPUT_BYTES];
    size_t input_at, input_bytes;
    bool cancelling, cancelled;
    bool pastes; /* the terminal is asked to mark pastes */
};

static volatile sig_atomic_t resized; /* as in support.c: a handler writes nowhere else */

static void on_resize(int signal_number) {
    (void)signal_number;
    resized = 1;
}

/* ---- keys ----------------------------------------------------------------------------------- */

enum { BYTE_END = -1, BYTE_CANCEL = -2 };

static int next_byte(struct editor *e) {
    while (e->input_at == e->input_bytes) {
        if (interrupt_pending()) return BYTE_CANCEL;
        if (resized) {
            resized = 0;
            el_resize(e->line);
            fputs("\r\033[K", stdout); /* libedit draws anew where the cursor is */
            el_set(e->line, EL_REFRESH);
        }
        struct pollfd terminal = {.fd = STDIN_FILENO, .events = POLLIN};
        if (poll(&terminal, 1, LOOK_MS) <= 0) continue;
        ssize_t n = read(STDIN_FILENO, e->input, sizeof e->input);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n <= 0) return BYTE_END;
        e->input_at = 0;
        e->input_bytes = (size_t)n;
    }
    return e->input[e->input_at++];
}

/* libedit's own reader cannot tell an interrupt from a fault, and it depends on the locale. */
static int read_key(EditLine *line, wchar_t *out) {
    struct editor *e;
    el_get(line, EL_CLIENTDATA, &e);
    char sequence[4];
    size_t bytes = 0;
    if (e->cancelling) {
        *out = KEY_CANCEL;
        return 1;
    }
    do {
        int byte = next_byte(e);
        if (byte == BYTE_END) return 0;
        if (byte == BYTE_CANCEL) {
            interrupt_clear();
            *out = KEY_CANCEL;
            return 1;
        }
        sequence[bytes++] = (char)byte;
    } while (utf8_incomplete_tail(sequence, bytes) == bytes);
    uint32_t codepoint;
    size_t used = utf8_decode(sequence, bytes, &codepoint);
    /* Of a broken sequence, what follows its first byte is read again. */
    size_t again = bytes - used;
    e->input_at -= again < e->input_at ? again : e->input_at;
    *out = (wchar_t)codepoint;
    return 1;
}

static unsigned char key_cancel(EditLine *line, int key) {
    (void)key;
    struct editor *e;
    el_get(line, EL_CLIENTDATA, &e);
    if (e->cancelling) {
        e->cancelled = true;
        return CC_NEWLINE;
    }
    /* First to the end of the message, so that what is printed next goes below it; libedit moves
     * the cursor only after we return. read_key brings us back. */
    const LineInfo *info = el_line(line);
    el_cursor(line, (int)(info->lastchar - info->cursor));
    e->cancelling = true;
    return CC_CURSOR;
}

static unsigned char key_newline(EditLine *line, int key) {
    (void)key;
    return el_insertstr(line, "\n") == 0 ? CC_REFRESH : CC_ERROR;
}

static bool is_line_end(char c) {
    return c == '\r' || c == '\n';
}

/* What is between the terminal's marks, as text: line ends are \n, no other control characters,
 * no newline at the end, so that the user sees the message before sending it. Terminals send \r,
 * \n or both for a line end, and libedit's terminal mode swaps the two. */
static void clean_paste(const struct str *raw, struct str *out) {
    for (size_t i = 0; i < raw->size;) {
        uint32_t codepoint;
        size_t used = utf8_decode(raw->data + i, raw->size - i, &codepoint);
        i += used;
        if (codepoint == '\r' || codepoint == '\n') {
            bool pair =
                i < raw->size && is_line_end(raw->data[i]) && raw->data[i] != raw->data[i - 1];
            if (pair) i++;
            str_add_char(out, '\n');
        } else if (codepoint == '\t' || (codepoint >= 0x20 && codepoint < 0x7f) ||
                   codepoint >= 0xa0) {
            str_add_codepoint(out, codepoint);
        }
    }
    while (out->size > 0 && out->data[out->size - 1] == '\n') out->data[--out->size] = 0;
}

static unsigned char key_paste(EditLine *line, int key) {
    static const char end_mark[] = "\033[201~";
    (void)key;
    struct editor *e;
    el_get(line, EL_CLIENTDATA, &e);
    struct str raw = {0}, text = {0};
    size_t matched = 0; /* bytes of the end mark just read */
    while (end_mark[matched] != 0) {
        int byte = next_byte(e);
        if (byte < 0) break;
        matched = byte == end_mark[matched] ? matched + 1 : byte == end_mark[0];
        if (raw.size < PASTE_BYTES) str_add_char(&raw, (char)byte);
    }
    if (slice_ends((struct slice){raw.data, raw.size}, end_mark)) raw.size -= strlen(end_mark);
    clean_paste(&raw, &text);
    bool inserted = text.size == 0 || el_insertstr(line, text.data) == 0;
    str_free(&raw);
    str_free(&text);
    return inserted ? CC_REFRESH : CC_ERROR;
}

static void bind_keys(EditLine *line) {
    el_set(line, EL_ADDFN, "imp-cancel", "Give this message up", key_cancel);
    el_set(line, EL_ADDFN, "imp-newline", "A new line in the message", key_newline);
    el_set(line, EL_ADDFN, "imp-paste", "Insert what the terminal pastes", key_paste);
    static const char *const keys[][2] = {
        {"^C", "imp-cancel"},          {"\\e^M", "imp-newline"},
        {"\\e^J", "imp-newline"},      {"\\e[200~", "imp-paste"},
        {"^I", "ed-insert"},           {"^R", "em-inc-search-prev"},
        {"^W", "ed-delete-prev-word"}, {"\\e[3~", "ed-delete-next-char"},
        {"\\e[1;5C", "em-next-word"},  {"\\e[1;5D", "ed-prev-word"},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        el_set(line, EL_BIND, keys[i][0], keys[i][1], NULL);
    }
}

/* ---- the editor ----------------------------------------------------------------------------- */

static char *prompt_text(EditLine *line) {
    struct editor *e;
    el_get(line, EL_CLIENTDATA, &e);
    return (char *)e->prompt;
}

int editor_open(const char *history_path, struct editor **out, imp_error *err) {
    struct editor *e = mem_zero(1, sizeof *e);
    const char *term = getenv("TERM");
    e->pastes = term != NULL && strcmp(term, "dumb") != 0;
    e->prompt = "";
    /* The chat is UTF-8 whatever the locale says; libedit counts in wide characters of the locale.
     * C.UTF-8 comes with glibc. */
    if (setlocale(LC_CTYPE, "C.UTF-8") == NULL) setlocale(LC_CTYPE, "");
    e->line = el_init("imp", stdin, stdout, stderr);
    e->history = history_init();
    if (e->line == NULL || e->history == NULL) {
        editor_close(e);
        return error_set(err, IMP_ERR_IO, "terminal", "libedit cannot start on it");
    }
    history(e->history, &e->event, H_SETSIZE, HISTORY_ENTRIES);
    history(e->history, &e->event, H_SETUNIQUE, 1);
    if (history_path != NULL) {
        e->history_path = mem_strndup(history_path, strlen(history_path));
        history(e->history, &e->event, H_LOAD, history_path);
    }
    el_set(e->line, EL_CLIENTDATA, e);
    el_set(e->line, EL_EDITOR, "emacs");
    el_set(e->line, EL_SIGNAL, 0);
    el_set(e->line, EL_GETCFN, read_key);
    el_set(e->line, EL_PROMPT_ESC, prompt_text, '\1');
    el_set(e->line, EL_HIST, history, e->history);
    bind_keys(e->line);
    struct sigaction action = {.sa_handler = on_resize};
    sigemptyset(&action.sa_mask);
    sigaction(SIGWINCH, &action, NULL);
    *out = e;
    return 0;
}

void editor_close(struct editor *e) {
    if (e == NULL) return;
    if (e->line) el_end(e->line);
    if (e->history) history_end(e->history);
    free(e->history_path);
    free(e);
}

static void mark_pastes(const struct editor *e, const char *sequence) {
    if (e->pastes) fputs(sequence, stdout);
    fflush(stdout);
}

enum editor_result editor_read(struct editor *e, const char *prompt, struct str *out) {
    str_clear(out);
    e->prompt = prompt;
    e->cancelling = e->cancelled = false;
    el_set(e->line, EL_PREP_TERM, 1); /* el_gets would do it only after drawing the prompt */
    mark_pastes(e, "\033[?2004h");
    int characters = 0;
    const char *text = el_gets(e->line, &characters);
    mark_pastes(e, "\033[?2004l");
    if (text != NULL) str_add_text(out, text);
    if (e->cancelled) {
        fputs("^C\n", stdout);
        fflush(stdout);
        return EDITOR_INTERRUPT;
    }
    if (text == NULL) return EDITOR_END;
    if (out->size > 0 && out->data[out->size - 1] == '\n') out->data[--out->size] = 0;
    return EDITOR_TEXT;
}

void editor_remember(struct editor *e, const char *text) {
    history(e->history, &e->event, H_ENTER, text);
    if (e->history_path) history(e->history, &e->event, H_SAVE, e->history_path);
}
