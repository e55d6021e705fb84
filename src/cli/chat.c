#include "cli/chat.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/conversation.h"
#include "cli/editor.h"
#include "cli/markdown.h"
#include "cli/reply_view.h"
#include "cli/terminal.h"

struct chat_room {
    imp_engine *engine;
    struct options *options;
    const char *template_source;
    imp_info info;
    struct editor *editor;
    struct conversation conversation;
    bool leaving, show_reasoning;
    unsigned idle_interrupts; /* Ctrl-C in a row at an empty prompt */
};

/* ---- what is said about the answers --------------------------------------------------------- */

/* On standard error, dim where it can be; the chat's own words, never the model's. */
static void aside(const struct chat_room *room, const struct str *text) {
    if (options_flag(room->options, OPT_QUIET)) return;
    bool colour = terminal_has_colour(stderr);
    fflush(stdout);
    fprintf(stderr, "%s%s%s\n", colour ? "\033[2m" : "", text->data, colour ? "\033[0m" : "");
}

/* Text from files and arguments, with no control characters. */
static void add_plain(struct str *out, const char *text, size_t bytes) {
    struct markdown plain = {.mode = MARKDOWN_PLAIN};
    markdown_feed(&plain, text, bytes, out);
    markdown_end(&plain, out);
}

static void print_banner(const struct chat_room *room) {
    struct str text = {0};
    const imp_info *info = &room->info;
    str_printf(&text, "imp %s: ", imp_version());
    add_plain(&text, info->name, strlen(info->name));
    str_printf(&text, ", %s on %s\nContext of %u tokens. ", info->quantisation, info->device,
               info->context_tokens);
    str_add_text(&text, "/help lists the commands, Ctrl-D ends.\n");
    aside(room, &text);
    str_free(&text);
}

static void print_figures(const struct chat_room *room, const struct answer *answer) {
    if (!terminal_is(stderr)) return;
    struct str text = {0};
    uint32_t tokens = answer->generated_tokens;
    str_printf(&text, "%u token%s", tokens, tokens == 1 ? "" : "s");
    if (tokens > 1 && answer->decode_ms > 0) {
        str_printf(&text, ", %.1f tokens/s", (tokens - 1) * 1e3 / answer->decode_ms);
    }
    str_printf(&text, ", context %u/%u", answer->prompt_tokens + tokens, room->info.context_tokens);
    if (answer->end == ANSWER_INTERRUPTED) str_add_text(&text, ", stopped");
    if (answer->end == ANSWER_AT_MAX_TOKENS) str_add_text(&text, ", ended by max-tokens");
    if (answer->end == ANSWER_AT_CONTEXT) {
        str_add_text(&text, "\nThe context is full; /clear starts a new conversation.");
    }
    str_add_char(&text, '\n');
    aside(room, &text);
    str_free(&text);
}

/* ---- a turn --------------------------------------------------------------------------------- */

static int make_prompt(const struct chat_room *room, const struct str *text, struct prompt *out,
                       imp_error *err) {
    if (options_flag(room->options, OPT_RAW)) {
        return prompt_from_text(room->engine, text->data, text->size, out, err);
    }
    return prompt_from_conversation(room->engine, &room->conversation, room->template_source, out,
                                    err);
}

static int speak(struct chat_room *room, const struct prompt *prompt, struct answer *answer,
                 imp_error *err) {
    struct reply_view view;
    reply_view_start(&view, options_flag(room->options, OPT_RAW), false);
    view.show = room->show_reasoning;
    view.quiet = options_flag(room->options, OPT_QUIET);
    int rc = answer_make(room->engine, room->options, prompt, reply_view_take, &view, answer, err);
    if (rc == 0 || !answer_is_empty(answer)) {
        int ended = reply_view_end(&view, rc < 0 ? NULL : err);
        if (rc == 0) rc = ended;
    }
    reply_view_free(&view);
    return rc;
}

/* A turn without an answer leaves no trace: templates refuse two messages of the user in a row. */
static void take_message(struct chat_room *room, const struct str *text) {
    struct conversation *conversation = &room->conversation;
    struct prompt prompt = {0};
    struct answer answer = {0};
    imp_error err = {0};
    conversation_add(conversation, true, text->data, text->size);
    interrupt_clear();
    int rc = make_prompt(room, text, &prompt, &err);
    if (rc == 0) rc = speak(room, &prompt, &answer, &err);
    interrupt_clear();
    if (answer.text.size > 0) {
        conversation_add(conversation, false, answer.text.data, answer.text.size);
        conversation_add_reasoning(conversation, answer.reasoning.data, answer.reasoning.size);
    } else {
        conversation_drop_last(conversation);
    }
    if (rc == 0) {
        print_figures(room, &answer);
    } else {
        report_error(&err);
        if (prompt.count >= room->info.context_tokens) {
            fputs("The conversation no longer fits; /clear starts a new one.\n", stderr);
        }
    }
    prompt_free(&prompt);
    answer_free(&answer);
}

/* ---- commands ------------------------------------------------------------------------------- */

static void list_setting(const struct chat_room *room, enum option_id id) {
    const struct option *row = &option_table[id];
    const imp_info *info = &room->info;
    char value[64] = "none";
    if (options_text(room->options, id) != NULL) {
        snprintf(value, sizeof value, "%s", options_text(room->options, id));
    } else if (id == OPT_TEMPERATURE) {
        snprintf(value, sizeof value, "%g", (double)info->temperature);
    } else if (id == OPT_TOP_P) {
        snprintf(value, sizeof value, "%g", (double)info->top_p);
    } else if (id == OPT_TOP_K) {
        snprintf(value, sizeof value, "%d", info->top_k);
    } else if (id == OPT_MIN_P) {
        snprintf(value, sizeof value, "%g", (double)info->min_p);
    } else if (id == OPT_REPETITION_PENALTY) {
        snprintf(value, sizeof value, "%g", (double)info->repetition_penalty);
    }
    printf("  %-18s %-8s %s\n", row->name, value, row->help);
}

static int set_option(struct chat_room *room, char *argument, imp_error *err) {
    if (argument[0] == 0) {
        for (int id = 0; id < OPT_COUNT; id++) {
            if (option_table[id].commands & IN_CHAT) list_setting(room, (enum option_id)id);
        }
        return 0;
    }
    char *value = argument + strcspn(argument, " =");
    if (*value != 0) *value++ = 0;
    while (*value == ' ') value++;
    int id = options_find(IN_CHAT, argument);
    if (id >= 0 && *value == 0) {
        list_setting(room, (enum option_id)id);
        return 0;
    }
    if (id >= 0) return options_set(room->options, (enum option_id)id, value, err);
    struct nearest best = {0};
    for (id = 0; id < OPT_COUNT; id++) {
        if (option_table[id].commands & IN_CHAT) {
            nearest_offer(&best, argument, option_table[id].name);
        }
    }
    return error_set(err, IMP_ERR_USAGE, argument,
                     best.word ? "no such setting; the nearest is %s"
                               : "no such setting; /set lists them",
                     best.word);
}

static int do_set(struct chat_room *room, const char *argument, imp_error *err) {
    char *copy = mem_strndup(argument, strlen(argument));
    int rc = set_option(room, copy, err);
    free(copy);
    return rc;
}

static int do_clear(struct chat_room *room, const char *argument, imp_error *err) {
    (void)argument;
    (void)err;
    conversation_clear(&room->conversation);
    puts("A new conversation.");
    return 0;
}

static int do_system(struct chat_room *room, const char *argument, imp_error *err) {
    (void)err;
    struct str *system = &room->conversation.system, shown = {0};
    if (strcmp(argument, "-") == 0) {
        str_clear(system);
    } else if (argument[0] != 0) {
        str_clear(system);
        str_add_text(system, argument);
    }
    if (system->size > 0) add_plain(&shown, system->data, system->size);
    printf("System message: %s\n", shown.size ? shown.data : "none");
    str_free(&shown);
    return 0;
}

static const char *count_noun(size_t count) {
    return count == 1 ? "message" : "messages";
}

static int do_save(struct chat_room *room, const char *argument, imp_error *err) {
    if (argument[0] == 0) return error_set(err, IMP_ERR_USAGE, "/save", "needs the name of a file");
    int rc = conversation_save(&room->conversation, argument, err);
    size_t count = room->conversation.count;
    if (rc == 0) printf("Saved %zu %s.\n", count, count_noun(count));
    return rc;
}

static int do_load(struct chat_room *room, const char *argument, imp_error *err) {
    if (argument[0] == 0) return error_set(err, IMP_ERR_USAGE, "/load", "needs the name of a file");
    int rc = conversation_load(&room->conversation, argument, err);
    size_t count = room->conversation.count;
    if (rc == 0) printf("Loaded %zu %s.\n", count, count_noun(count));
    return rc;
}

static int do_think(struct chat_room *room, const char *argument, imp_error *err) {
    (void)argument;
    (void)err;
    room->show_reasoning = !room->show_reasoning;
    puts(room->show_reasoning ? "What the model thinks is shown."
                              : "What the model thinks is folded.");
    return 0;
}

static int do_quit(struct chat_room *room, const char *argument, imp_error *err) {
    (void)argument;
    (void)err;
    room->leaving = true;
    return 0;
}

static int do_help(struct chat_room *room, const char *argument, imp_error *err);

static const struct chat_command {
    const char *name, *argument, *help;
    int (*run)(struct chat_room *room, const char *argument, imp_error *err);
} chat_commands[] = {
    {"/help", "", "this list", do_help},
    {"/clear", "", "start a new conversation; the system message stays", do_clear},
    {"/system", "TEXT", "set the system message; - removes it, nothing shows it", do_system},
    {"/set", "NAME VALUE", "change how answers are drawn; alone, list the settings", do_set},
    {"/save", "FILE", "write the conversation to a JSON file", do_save},
    {"/load", "FILE", "go on with a saved conversation", do_load},
    {"/think", "", "show what the model thinks, or fold it again", do_think},
    {"/quit", "", "end the chat", do_quit},
};
enum { CHAT_COMMANDS = sizeof chat_commands / sizeof chat_commands[0] };

static int do_help(struct chat_room *room, const char *argument, imp_error *err) {
    (void)room;
    (void)argument;
    (void)err;
    for (size_t i = 0; i < CHAT_COMMANDS; i++) {
        const struct chat_command *command = &chat_commands[i];
        int column = printf("  %s %s", command->name, command->argument);
        printf("%*s%s\n", column < 20 ? 20 - column : 1, "", command->help);
    }
    puts("  Alt-Enter         start a new line in the message; a paste may have several\n"
         "  Ctrl-C            stop the answer; at the prompt, throw the message away\n"
         "  Ctrl-D            end the chat");
    return 0;
}

static int do_command(struct chat_room *room, const char *line, imp_error *err) {
    size_t length = strcspn(line, " ");
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)length, line);
    const char *argument = line + length + strspn(line + length, " ");
    struct nearest best = {0};
    for (size_t i = 0; i < CHAT_COMMANDS; i++) {
        if (strcmp(chat_commands[i].name, name) == 0) {
            return chat_commands[i].run(room, argument, err);
        }
        nearest_offer(&best, name, chat_commands[i].name);
    }
    return error_set(err, IMP_ERR_USAGE, name,
                     best.word ? "no such command; the nearest is %s"
                               : "no such command; /help lists them",
                     best.word);
}

/* "/word" and what follows, in one line; a path or a pasted text is a message. */
static bool is_command(const char *line) {
    size_t letters = strspn(line + 1, "abcdefghijklmnopqrstuvwxyz");
    return line[0] == '/' && letters > 0 && (line[1 + letters] == 0 || line[1 + letters] == ' ') &&
           strchr(line, '\n') == NULL;
}

/* ---- the loop ------------------------------------------------------------------------------- */

/* $XDG_STATE_HOME/imp/history, made with its folders; false if there is no home. */
static bool find_history(struct str *out) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state != NULL && state[0] == '/') {
        str_add_text(out, state);
    } else if (home != NULL && home[0] == '/') {
        str_printf(out, "%s/.local/state", home);
    } else {
        return false;
    }
    str_add_text(out, "/imp/history");
    for (size_t i = 1; i < out->size; i++) {
        if (out->data[i] != '/') continue;
        out->data[i] = 0;
        mkdir(out->data, 0700); /* most are there; a history that cannot be kept is no error */
        out->data[i] = '/';
    }
    return true;
}

static void take_interrupt(struct chat_room *room, const struct str *thrown_away) {
    bool empty = thrown_away->size == 0;
    room->idle_interrupts = empty ? room->idle_interrupts + 1 : 0;
    if (room->idle_interrupts >= 2) puts("To end the chat: Ctrl-D, or /quit.");
}

static void take_line(struct chat_room *room, const struct str *line) {
    size_t at = line->size > 0 ? strspn(line->data, " \t\n") : 0;
    if (at == line->size) return;
    imp_error err = {0};
    editor_remember(room->editor, line->data);
    if (!is_command(line->data + at)) {
        take_message(room, line);
    } else if (do_command(room, line->data + at, &err) < 0) {
        report_error(&err);
    }
    fflush(stdout);
}

static void converse(struct chat_room *room) {
    /* libedit drops an escape sequence that nothing visible follows: the space comes last. */
    const char *prompt = terminal_has_colour(stdout) ? "\1\033[1;32m\1>\1\033[0m\1 " : "> ";
    struct str line = {0};
    while (!room->leaving) {
        switch (editor_read(room->editor, prompt, &line)) {
        case EDITOR_INTERRUPT:
            take_interrupt(room, &line);
            break;
        case EDITOR_END:
            room->leaving = true;
            putchar('\n');
            break;
        case EDITOR_TEXT:
            room->idle_interrupts = 0;
            take_line(room, &line);
            break;
        }
    }
    fflush(stdout);
    str_free(&line);
}

int chat_run(imp_engine *engine, struct options *options, const char *template_source,
             imp_error *err) {
    struct chat_room room = {
        .engine = engine, .options = options, .template_source = template_source};
    struct str history = {0};
    imp_info_get(engine, &room.info);
    room.show_reasoning = options_flag(options, OPT_SHOW_REASONING);
    const char *system = options_text(options, OPT_SYSTEM);
    if (system != NULL) str_add_text(&room.conversation.system, system);
    int rc = editor_open(find_history(&history) ? history.data : NULL, &room.editor, err);
    if (rc == 0) {
        print_banner(&room);
        converse(&room);
    }
    editor_close(room.editor);
    conversation_free(&room.conversation);
    str_free(&history);
    return rc;
}
