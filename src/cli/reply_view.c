#include "cli/reply_view.h"

#include <stdio.h>

#include "cli/cli.h"
#include "cli/terminal.h"

void reply_view_start(struct reply_view *v, bool text_only, bool silent) {
    *v = (struct reply_view){.plain = {.mode = MARKDOWN_PLAIN}};
    printer_start(&v->printer, text_only);
    v->printer.silent = silent;
}

void reply_view_free(struct reply_view *v) {
    printer_free(&v->printer);
    str_free(&v->line);
}

/* ---- standard error ---- */

static bool is_folded(const struct reply_view *v) {
    return !v->show && terminal_is(stderr);
}

static void say_dim(struct reply_view *v) {
    bool colour = terminal_has_colour(stderr);
    if (v->line.size > 0)
        fprintf(stderr, "%s%s%s", colour ? "\033[2m" : "", v->line.data, colour ? "\033[0m" : "");
    fflush(stderr);
    str_clear(&v->line);
}

/* What the model wrote, with nothing in it that could steer a terminal. */
static void add_plain(struct reply_view *v, const imp_event *event) {
    markdown_feed(&v->plain, event->text, event->text_bytes, &v->line);
}

/* Its own line: an answer that the model broke off to think stays as it is. */
static void begin_line(struct reply_view *v) {
    bool broken_off = v->printer.last != 0 && v->printer.last != '\n';
    if (broken_off && terminal_is(stdout) && terminal_is(stderr)) fputc('\n', stderr);
}

static void end_line(struct reply_view *v) {
    if (v->thinking && is_folded(v)) {
        str_printf(&v->line, "\rthought for %u token%s", v->tokens, v->tokens == 1 ? "" : "s");
    } else if (v->thinking || v->calling) {
        markdown_end(&v->plain, &v->line);
    }
    if (v->thinking || v->calling) {
        str_add_char(&v->line, '\n');
        say_dim(v);
    }
    v->thinking = v->calling = false;
}

static void take_reasoning(struct reply_view *v, const imp_event *event) {
    if (!v->show && !terminal_is(stderr)) return;
    if (!v->thinking) {
        end_line(v);
        begin_line(v);
        v->thinking = true;
        v->tokens = 0;
    }
    v->tokens += event->kind == IMP_EVENT_TOKEN;
    if (v->show) {
        add_plain(v, event);
    } else {
        str_printf(&v->line, "\rthinking... %u", v->tokens);
    }
    say_dim(v);
}

static void take_call(struct reply_view *v, const imp_event *event) {
    if (event->part == IMP_PART_CALL) {
        end_line(v);
        begin_line(v);
        v->calling = true;
        str_add_text(&v->line, "calls ");
        add_plain(v, event);
        str_add_char(&v->line, ' ');
    } else if (event->part == IMP_PART_ARGUMENTS) {
        add_plain(v, event);
    } else if (event->part != IMP_PART_CALL_ID) {
        if (event->part == IMP_PART_CALL_CUT) str_add_text(&v->line, " ...broken off");
        end_line(v);
    }
    say_dim(v);
}

int reply_view_take(void *view, const imp_event *event, imp_error *err) {
    struct reply_view *v = view;
    bool aside = !v->quiet && !v->printer.silent;
    if (event->part == IMP_PART_CONTENT) {
        if (event->text_bytes > 0) end_line(v);
        return printer_take(&v->printer, event->text, event->text_bytes, err);
    }
    if (aside && event->part == IMP_PART_REASONING) take_reasoning(v, event);
    if (aside && event->part != IMP_PART_REASONING) take_call(v, event);
    return 0;
}

int reply_view_end(struct reply_view *v, imp_error *err) {
    end_line(v);
    return printer_end(&v->printer, err);
}
