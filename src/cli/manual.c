/* Man pages in scdoc's markup, from the same tables as --help. */
#include <ctype.h>
#include <string.h>

#include "cli/cli.h"

/* scdoc takes * _ and \ as markup. */
static void print_text(FILE *out, const char *text) {
    for (; *text; text++) {
        if (strchr("*_\\<>#", *text)) fputc('\\', out);
        fputc(*text, out);
    }
}

static void print_option(FILE *out, const struct option *row) {
    fprintf(out, "*--%s*", row->name);
    if (row->letter) fprintf(out, ", *-%c*", row->letter);
    if (row->argument) {
        fputs(" _", out);
        print_text(out, row->argument);
        fputc('_', out);
    }
    fputs("\n\t", out);
    print_text(out, row->help);
    if (row->default_text) fprintf(out, ". Default: %s", row->default_text);
    if (row->env) {
        fputs(". Environment: ", out);
        print_text(out, row->env);
    }
    fputs("\n\n", out);
}

static void print_options(FILE *out, unsigned commands) {
    fputs("# OPTIONS\n\n", out);
    for (int i = 0; i < OPT_COUNT; i++) {
        if (option_table[i].commands & commands) print_option(out, &option_table[i]);
    }
}

static void print_settings(FILE *out) {
    fputs("# SETTINGS\n\nFor *--set* and configuration files.\n\n", out);
    imp_option_info row;
    for (size_t i = 0; imp_options_describe(i, &row) == 0; i++) {
        fputc('*', out);
        print_text(out, row.key);
        fputs("*\n\t", out);
        print_text(out, row.help);
        fputs(". Type: ", out);
        print_text(out, row.type);
        fprintf(out, ". Default: %s\n\n", row.default_value[0] ? row.default_value : "none");
    }
}

static void print_command(FILE *out, const struct command *c) {
    fprintf(out, "imp-%s(1)\n\n# NAME\n\nimp-%s - %s\n\n# SYNOPSIS\n\n*imp %s* ", c->name, c->name,
            c->summary, c->name);
    print_text(out, c->arguments);
    fputs(" [_options_]\n\n# DESCRIPTION\n\n", out);
    print_text(out, c->description);
    fputs("\n\n", out);
    print_options(out, c->bit);
    if (c->bit & IN_ENGINE) print_settings(out);
    fprintf(out, "# EXAMPLES\n\n```\n%s\n```\n\n# SEE ALSO\n\n*imp*(1)\n", c->examples);
}

void manual_print(FILE *out, const struct command *command) {
    if (command) {
        print_command(out, command);
        return;
    }
    fputs("imp(1)\n\n# NAME\n\nimp - NVFP4-quantised language models on a CPU or a GPU\n\n"
          "# SYNOPSIS\n\n*imp* _command_ ...\n\n# COMMANDS\n\n",
          out);
    for (const struct command *c = command_table; c->name; c++) {
        fprintf(out, "*imp-%s*(1)\n\t", c->name);
        print_text(out, c->summary);
        fputs("\n\n", out);
    }
    fputs("# CONFIGURATION\n\n*--config* names an ini file. A section named after a command holds "
          "that command's options; any other section with its keys is a setting. An unknown key is "
          "an error. Command line, environment, file and default count in that order.\n\n"
          "# EXIT STATUS\n\n0 all is well, 1 usage, 2 a verdict that failed, 3 a file was refused; "
          "*imp --help* lists the others.\n",
          out);
}
