/* --help of the program and of each command, from the two tables. */
#include <string.h>

#include "cli/cli.h"

static void print_row(FILE *out, const struct option *row) {
    char left[64];
    const char *argument = row->argument ? row->argument : "";
    if (row->letter) {
        snprintf(left, sizeof left, "-%c, --%s %s", row->letter, row->name, argument);
    } else {
        snprintf(left, sizeof left, "    --%s %s", row->name, argument);
    }
    fprintf(out, "  %-30s %s", left, row->help);
    if (row->default_text) fprintf(out, " (default: %s)", row->default_text);
    if (row->env) fprintf(out, " [%s]", row->env);
    fputc('\n', out);
}

static void print_rows(FILE *out, unsigned commands, bool common) {
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option *row = &option_table[i];
        bool is_common = (row->commands & IN_ENGINE) == IN_ENGINE;
        if ((row->commands & commands) && is_common == common) print_row(out, row);
    }
}

void help_print_command(FILE *out, const struct command *command) {
    fprintf(out, "imp %s %s: %s\n\n%s\n", command->name, command->arguments, command->summary,
            command->description);
    if (command->bit & IN_ENGINE) {
        fprintf(out, "\nOptions:\n");
        print_rows(out, command->bit, false);
    }
    fprintf(out, "\nCommon options:\n");
    print_rows(out, command->bit, true);
    if (command->bit & IN_ENGINE) {
        fprintf(out, "\nSettings for --set and configuration files:\n");
        imp_option_info row;
        for (size_t i = 0; imp_options_describe(i, &row) == 0; i++)
            fprintf(out, "  %-30s %s (%s; default: %s)\n", row.key, row.help, row.type,
                    row.default_value[0] ? row.default_value : "none");
    }
    fprintf(out, "\nExamples:\n");
    for (const char *line = command->examples; *line;) {
        size_t n = strcspn(line, "\n");
        fprintf(out, "  %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
}

void help_print(FILE *out) {
    fprintf(out,
            "imp %s: NVFP4-quantised language models, the same bytes every time\n\n"
            "Usage: imp COMMAND ...\n\nCommands:\n",
            imp_version());
    for (const struct command *c = command_table; c->name; c++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", c->name, c->arguments);
        fprintf(out, "  %-30s %s\n", left, c->summary);
    }
    fprintf(out,
            "\nMODEL is a folder with config.json and SafeTensors, one of its files, or a name\n"
            "ORG/NAME from the Hub's cache. imp COMMAND --help says more.\n\n"
            "Exit status:\n  0   all is well\n  1   usage\n  2   a verdict that failed\n");
    static const char *const meaning[] = {
        [2] = "a file was refused",
        [3] = "a sound file asks for something imp does not have",
        [4] = "the system refused: open, read, write, full disk",
        [5] = "does not fit into memory",
        [6] = "the request cannot be served as asked",
        [7] = "the chat template refused the conversation",
        [8] = "the device failed or is missing",
        [9] = "logits were not finite",
        [10] = "cancelled, as by Ctrl-C",
        [11] = "a fault of imp itself",
    };
    for (int status = 2; status <= 11; status++)
        fprintf(out, "  %-3d %s\n", exit_status(-status), meaning[status]);
}
