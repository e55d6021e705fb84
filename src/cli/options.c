#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "cli/cli.h"

bool parse_uint(const char *text, uint64_t *out) {
    if (text[0] == 0 || text[strspn(text, "0123456789")] != 0) return false;
    errno = 0;
    unsigned long long value = strtoull(text, NULL, 10);
    if (errno != 0) return false;
    *out = value;
    return true;
}

static bool parse_real(const char *text, double *out) {
    if (text[0] == 0 || text[strspn(text, "0123456789+-.eE")] != 0) return false;
    char *end;
    *out = strtod(text, &end);
    return *end == 0 && isfinite(*out);
}

static bool parse_flag(const char *text, uint64_t *out) {
    bool yes = strcmp(text, "1") == 0 || strcmp(text, "true") == 0;
    if (!yes && strcmp(text, "0") != 0 && strcmp(text, "false") != 0) return false;
    *out = yes;
    return true;
}

/* ---- nearest word --------------------------------------------------------------------------- */

enum { LONGEST_WORD = 64 };

void nearest_offer(struct nearest *best, const char *wanted, const char *word) {
    size_t distance = text_distance(wanted, word), longer = strlen(wanted);
    if (strlen(word) > longer) longer = strlen(word);
    if (distance * 2 > longer) return; /* more than half is different: not what was meant */
    if (best->word != NULL && best->distance <= distance) return;
    best->word = word;
    best->distance = distance;
}

/* ---- values --------------------------------------------------------------------------------- */

static bool is_choice(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (const char *p = choices; *p != 0;) {
        size_t len = strcspn(p, "|");
        if (len == n && memcmp(p, text, n) == 0) return true;
        p += len + (p[len] == '|');
    }
    return false;
}

static int value_check(const struct option *row, struct option_value *value, const char *text,
                       const char *where, imp_error *err) {
    switch (row->kind) {
    case KIND_FLAG:
        if (parse_flag(text, &value->integer)) return 0;
        return error_set(err, IMP_ERR_USAGE, where, "must be 0 or 1, not \"%s\"", text);
    case KIND_INT:
        if (parse_uint(text, &value->integer) && (double)value->integer >= row->low &&
            (double)value->integer <= row->high) {
            return 0;
        }
        return error_set(err, IMP_ERR_USAGE, where,
                         "must be a whole number from %.0f to %.0f, not \"%s\"", row->low,
                         row->high, text);
    case KIND_REAL:
        if (parse_real(text, &value->real) && value->real >= row->low && value->real <= row->high) {
            return 0;
        }
        return error_set(err, IMP_ERR_USAGE, where, "must be a number from %g to %g, not \"%s\"",
                         row->low, row->high, text);
    case KIND_CHOICE:
        if (is_choice(row->argument, text)) return 0;
        return error_set(err, IMP_ERR_USAGE, where, "must be one of %s, not \"%s\"", row->argument,
                         text);
    case KIND_FILE:
        if (text[0] != 0) return 0;
        return error_set(err, IMP_ERR_USAGE, where, "must name a file");
    case KIND_TEXT:
        return 0;
    }
    return 0;
}

static void value_clear(struct option_value *value) {
    for (size_t i = 0; i < value->count; i++) free(value->texts[i]);
    free(value->texts);
    *value = (struct option_value){0};
}

/* A stronger source replaces, an equal one replaces too unless the option may occur many times, a
 * weaker one is checked and dropped: a mistake in a file stays a mistake. */
static int value_set(struct options *options, enum option_id id, const char *text,
                     enum option_source source, const char *where, imp_error *err) {
    const struct option *row = &option_table[id];
    struct option_value *value = &options->values[id], parsed = {0};
    int rc = value_check(row, &parsed, text, where, err);
    if (rc < 0 || source < value->source) return rc;
    if (source > value->source || !row->many) value_clear(value);
    value->texts = mem_grow(value->texts, (value->count + 1) * sizeof *value->texts);
    value->texts[value->count++] = mem_strndup(text, strlen(text));
    value->source = source;
    value->integer = parsed.integer;
    value->real = parsed.real;
    return 0;
}

int options_find(unsigned commands, const char *name) {
    for (int i = 0; i < OPT_COUNT; i++) {
        if ((option_table[i].commands & commands) && strcmp(option_table[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

int options_set(struct options *options, enum option_id id, const char *text, imp_error *err) {
    return value_set(options, id, text, FROM_LINE, option_table[id].name, err);
}

/* ---- the command line ----------------------------------------------------------------------- */

static int unknown_option(const struct command *command, const char *word, size_t length,
                          imp_error *err) {
    char name[LONGEST_WORD + 1];
    snprintf(name, sizeof name, "%.*s", (int)length, word);
    struct nearest best = {0};
    for (int i = 0; i < OPT_COUNT; i++) {
        if (option_table[i].commands & command->bit) {
            nearest_offer(&best, name, option_table[i].name);
        }
    }
    char where[LONGEST_WORD + 4];
    snprintf(where, sizeof where, "--%s", name);
    if (best.word == NULL) {
        return error_set(err, IMP_ERR_USAGE, where, "unknown option; see imp %s --help",
                         command->name);
    }
    return error_set(err, IMP_ERR_USAGE, where, "unknown option; the nearest is --%s", best.word);
}

/* Takes "--name", "--name=value" or "--name value"; *at moves over a value of its own. */
static int take_long(struct options *options, int argc, char **argv, int *at, imp_error *err) {
    const char *word = argv[*at] + 2;
    size_t length = strcspn(word, "=");
    char where[LONGEST_WORD + 4];
    snprintf(where, sizeof where, "--%.*s", (int)length, word);
    int id = length <= LONGEST_WORD ? options_find(options->command->bit, where + 2) : -1;
    if (id < 0) return unknown_option(options->command, word, length, err);
    const char *value = word[length] == '=' ? word + length + 1 : NULL;
    if (option_table[id].kind == KIND_FLAG) {
        if (value != NULL) return error_set(err, IMP_ERR_USAGE, where, "takes no value");
        value = "1";
    } else if (value == NULL) {
        if (*at + 1 >= argc) {
            return error_set(err, IMP_ERR_USAGE, where, "needs a value: %s",
                             option_table[id].argument);
        }
        value = argv[++*at];
    }
    return value_set(options, (enum option_id)id, value, FROM_LINE, where, err);
}

/* Takes "-q", "-qv", "-n5" or "-n 5". */
static int take_short(struct options *options, int argc, char **argv, int *at, imp_error *err) {
    for (const char *p = argv[*at] + 1; *p != 0; p++) {
        int id = 0;
        while (id < OPT_COUNT && (option_table[id].letter != *p ||
                                  !(option_table[id].commands & options->command->bit))) {
            id++;
        }
        char where[3] = {'-', *p, 0};
        if (id == OPT_COUNT) {
            return error_set(err, IMP_ERR_USAGE, where, "unknown option; see imp %s --help",
                             options->command->name);
        }
        if (option_table[id].kind == KIND_FLAG) {
            int rc = value_set(options, (enum option_id)id, "1", FROM_LINE, where, err);
            if (rc < 0) return rc;
            continue;
        }
        const char *value = p + 1;
        if (*value == 0) {
            if (*at + 1 >= argc) {
                return error_set(err, IMP_ERR_USAGE, where, "needs a value: %s",
                                 option_table[id].argument);
            }
            value = argv[++*at];
        }
        return value_set(options, (enum option_id)id, value, FROM_LINE, where, err);
    }
    return 0;
}

static int take_line(struct options *options, int argc, char **argv, imp_error *err) {
    bool only_arguments = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        int rc = 0;
        if (!only_arguments && strcmp(word, "--") == 0) {
            only_arguments = true;
        } else if (!only_arguments && word[0] == '-' && word[1] == '-') {
            rc = take_long(options, argc, argv, &i, err);
        } else if (!only_arguments && word[0] == '-' && word[1] != 0) {
            rc = take_short(options, argc, argv, &i, err);
        } else if (options->argument_count == options->command->max_arguments) {
            rc = error_set(err, IMP_ERR_USAGE, word, "one argument too many; usage: imp %s %s",
                           options->command->name, options->command->arguments);
        } else {
            options->arguments[options->argument_count++] = word;
        }
        if (rc < 0) return rc;
    }
    return 0;
}

/* ---- environment and file ------------------------------------------------------------------- */

static int take_environment(struct options *options, imp_error *err) {
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option *row = &option_table[i];
        if (row->env == NULL || !(row->commands & options->command->bit)) continue;
        const char *text = getenv(row->env);
        if (text == NULL || text[0] == 0) continue;
        int rc = value_set(options, (enum option_id)i, text, FROM_ENV, row->env, err);
        if (rc < 0) return rc;
    }
    return 0;
}

static int set_engine(struct options *options, const char *key, const char *value, imp_error *err) {
    int rc = imp_options_set(options->engine, key, value, err);
    if (rc == 0) str_printf(&options->engine_keys, "\n%s\n", key);
    return rc;
}

static int take_config_line(void *ctx, const char *section, const char *name, const char *value,
                            imp_error *err) {
    struct options *options = ctx;
    char key[4 * LONGEST_WORD];
    snprintf(key, sizeof key, "%s.%s", section, name);
    const struct command *command = command_find(section);
    if (command == NULL) return set_engine(options, key, value, err);
    int id = options_find(command->bit, name);
    if (id >= 0 && id != OPT_CONFIG && id != OPT_HELP && id != OPT_VERSION) {
        /* Another command's section is checked like our own, into values nobody reads. */
        struct options other = {.command = command};
        bool ours = command == options->command;
        int rc =
            value_set(ours ? options : &other, (enum option_id)id, value, FROM_CONFIG, key, err);
        value_clear(&other.values[id]);
        return rc;
    }
    struct nearest best = {0};
    for (int i = 0; i < OPT_COUNT; i++) {
        if (option_table[i].commands & command->bit) {
            nearest_offer(&best, name, option_table[i].name);
        }
    }
    if (best.word == NULL) return error_set(err, IMP_ERR_USAGE, key, "unknown key");
    return error_set(err, IMP_ERR_USAGE, key, "unknown key; the nearest is %s.%s", section,
                     best.word);
}

static int set_engine_row(struct options *options, enum option_source source, imp_error *err) {
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option *row = &option_table[i];
        struct option_value *value = &options->values[i];
        if (row->key == NULL || value->source != source) continue;
        int rc = set_engine(options, row->key, value->texts[0], err);
        if (rc < 0) return rc;
    }
    return 0;
}

int options_set_engine(struct options *options, const char *option, const char *text,
                       imp_error *err) {
    const char *equals = strchr(text, '=');
    if (equals == NULL) {
        char where[LONGEST_WORD + 4];
        snprintf(where, sizeof where, "--%s", option);
        return error_set(err, IMP_ERR_USAGE, where, "must be SECTION.KEY=VALUE, not \"%s\"", text);
    }
    char *key = mem_strndup(text, (size_t)(equals - text));
    int rc = set_engine(options, key, equals + 1, err);
    free(key);
    return rc;
}

/* The engine keeps the last value it is given, so the weakest source comes first. */
static int take_engine(struct options *options, imp_error *err) {
    const char *path = options_text(options, OPT_CONFIG);
    int rc = path ? config_file_read(path, take_config_line, options, err) : 0;
    for (int source = FROM_CONFIG; rc == 0 && source <= FROM_LINE; source++) {
        rc = set_engine_row(options, (enum option_source)source, err);
    }
    const struct option_value *set = &options->values[OPT_SET];
    for (size_t i = 0; rc == 0 && i < set->count; i++) {
        rc = options_set_engine(options, "set", set->texts[i], err);
    }
    return rc;
}

static void new_engine(struct options *options) {
    imp_options_free(options->engine);
    options->engine = imp_options_new();
    imp_options_set_log(options->engine, log_to_stderr, options);
}

int options_restart_engine(struct options *options, imp_error *err) {
    new_engine(options);
    str_clear(&options->engine_keys);
    return take_engine(options, err);
}

int options_parse(struct options *options, const struct command *command, int argc, char **argv,
                  imp_error *err) {
    *options = (struct options){.command = command};
    new_engine(options);
    int rc = take_line(options, argc, argv, err);
    if (options_flag(options, OPT_HELP) || options_flag(options, OPT_VERSION)) return 0;
    if (rc < 0) return rc;
    if (options->argument_count < command->min_arguments) {
        return error_set(err, IMP_ERR_USAGE, command->name, "usage: imp %s %s [OPTION]...",
                         command->name, command->arguments);
    }
    rc = take_environment(options, err);
    if (rc == 0) rc = take_engine(options, err);
    for (int i = 0; rc == 0 && i < OPT_COUNT; i++) {
        const struct option *row = &option_table[i];
        if (row->default_text == NULL || !(row->commands & command->bit)) continue;
        rc = value_set(options, (enum option_id)i, row->default_text, FROM_TABLE, row->name, err);
    }
    return rc;
}

void options_free(struct options *options) {
    for (int i = 0; i < OPT_COUNT; i++) value_clear(&options->values[i]);
    imp_options_free(options->engine);
    str_free(&options->engine_keys);
    *options = (struct options){0};
}

bool options_given(const struct options *options, enum option_id id) {
    return options->values[id].source > FROM_TABLE;
}

bool options_key_given(const struct options *options, const char *engine_key) {
    char line[4 * LONGEST_WORD];
    snprintf(line, sizeof line, "\n%s\n", engine_key);
    return options->engine_keys.size > 0 && strstr(options->engine_keys.data, line) != NULL;
}

bool options_flag(const struct options *options, enum option_id id) {
    return options->values[id].integer != 0;
}

uint64_t options_int(const struct options *options, enum option_id id) {
    return options->values[id].integer;
}

double options_real(const struct options *options, enum option_id id) {
    return options->values[id].real;
}

const char *options_text(const struct options *options, enum option_id id) {
    const struct option_value *value = &options->values[id];
    return value->count ? value->texts[value->count - 1] : NULL;
}
