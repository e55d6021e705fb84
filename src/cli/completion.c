/* Shell completion from the two tables. */
#include <string.h>

#include "base/error.h"
#include "cli/cli.h"

static void print_words(const char *prefix, unsigned commands) {
    for (int i = 0; i < OPT_COUNT; i++) {
        if (option_table[i].commands & commands) printf("%s--%s", prefix, option_table[i].name);
    }
}

static void print_bash(void) {
    printf("_imp() {\n    local cur=${COMP_WORDS[COMP_CWORD]} words=\n    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" = 1 ]; then\n        words=\"");
    for (const struct command *c = command_table; c->name; c++) printf("%s ", c->name);
    printf("help\"\n    else case ${COMP_WORDS[1]} in\n");
    for (const struct command *c = command_table; c->name; c++) {
        printf("        %s) words=\"", c->name);
        print_words(" ", c->bit);
        printf(" %s\" ;;\n", c->bit == IN_COMPLETION ? "bash zsh fish" : "");
    }
    printf("    esac; fi\n    case $cur in\n    -*) COMPREPLY=($(compgen -W \"$words\" -- "
           "\"$cur\")) ;;\n"
           "    *) if [ \"$COMP_CWORD\" = 1 ] || [ \"${COMP_WORDS[1]}\" = completion ]; then\n"
           "           COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
           "       else COMPREPLY=($(compgen -f -- \"$cur\")); fi ;;\n    esac\n}\n"
           "complete -o filenames -F _imp imp\n");
}

/* zsh quotes: a ' in a help text ends the string. */
static void print_quoted(const char *text) {
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (strchr("[]:", *text))
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void print_zsh(void) {
    printf(
        "#compdef imp\n_imp() {\n    if (( CURRENT == 2 )); then\n        local -a commands=(\n");
    for (const struct command *c = command_table; c->name; c++) {
        printf("            '%s:", c->name);
        print_quoted(c->summary);
        printf("'\n");
    }
    printf("        )\n        _describe command commands\n        return\n    fi\n"
           "    case $words[2] in\n");
    for (const struct command *c = command_table; c->name; c++) {
        printf("    %s) _arguments", c->name);
        for (int i = 0; i < OPT_COUNT; i++) {
            const struct option *row = &option_table[i];
            if (!(row->commands & c->bit)) continue;
            printf(" \\\n        '%s--%s[", row->many ? "*" : "", row->name);
            print_quoted(row->help);
            printf("]%s'", row->kind == KIND_FLAG   ? ""
                           : row->kind == KIND_FILE ? ":file:_files"
                                                    : ":value:");
        }
        printf(" \\\n        '*:file:_files' ;;\n");
    }
    printf("    esac\n}\ncompdef _imp imp\n");
}

static void print_fish(void) {
    for (const struct command *c = command_table; c->name; c++)
        printf("complete -c imp -n __fish_use_subcommand -a %s -d \"%s\"\n", c->name, c->summary);
    for (const struct command *c = command_table; c->name; c++) {
        for (int i = 0; i < OPT_COUNT; i++) {
            const struct option *row = &option_table[i];
            if (!(row->commands & c->bit)) continue;
            printf("complete -c imp -n \"__fish_seen_subcommand_from %s\" -l %s", c->name,
                   row->name);
            if (row->letter) printf(" -s %c", row->letter);
            printf("%s\n", row->kind == KIND_FLAG ? "" : " -r");
        }
    }
}

int command_completion(struct options *options, imp_error *err) {
    const char *shell = options->arguments[0];
    if (strcmp(shell, "bash") == 0)
        print_bash();
    else if (strcmp(shell, "zsh") == 0)
        print_zsh();
    else if (strcmp(shell, "fish") == 0)
        print_fish();
    else
        return error_set(err, IMP_ERR_USAGE, shell, "no such shell: bash, zsh or fish");
    return 0;
}
