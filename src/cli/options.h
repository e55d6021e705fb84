/* The one table of options, and the values of one invocation.
 *
 * A row of the table (option_table.c) makes the parser, --help, the man page, the shell completion,
 * the environment name and the key of the configuration file. Values come, the strongest first,
 * from the command line, the environment, --config FILE, the table. A row with an engine key goes
 * to imp_options; the others are read with the getters below. In a configuration file a section
 * named after a command holds that command's options, every other section holds engine keys.
 *
 * Nothing else in imp reads the environment for settings. One thread. options_free frees all. */
#ifndef IMP_CLI_OPTIONS_H
#define IMP_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "imp/imp.h"

enum command_bit {
    IN_RUN = 1 << 0,
    IN_BENCH = 1 << 1,
    IN_SCORE = 1 << 2,
    IN_INSPECT = 1 << 3,
    IN_QUANTIZE = 1 << 4,
    IN_TOKENIZE = 1 << 5,
    IN_COMPLETION = 1 << 6,
    IN_CHAT = 1 << 7, /* /set inside a chat */
    IN_SYNTH = 1 << 8,
    IN_TRACE = 1 << 9,
};
#define IN_ENGINE                                                                                  \
    (IN_RUN | IN_BENCH | IN_SCORE | IN_INSPECT | IN_QUANTIZE | IN_SYNTH | IN_TOKENIZE | IN_TRACE)
#define IN_ALL (IN_ENGINE | IN_COMPLETION)

enum option_id {
    OPT_HELP,
    OPT_VERSION,
    OPT_DEVICE,
    OPT_THREADS,
    OPT_CTX,
    OPT_SET,
    OPT_CONFIG,
    OPT_JSON,
    OPT_QUIET,
    OPT_VERBOSE,
    OPT_PROMPT,
    OPT_MAX_TOKENS,
    OPT_TEMPERATURE,
    OPT_TOP_P,
    OPT_TOP_K,
    OPT_MIN_P,
    OPT_REPETITION_PENALTY,
    OPT_PRESENCE_PENALTY,
    OPT_FREQUENCY_PENALTY,
    OPT_SEED,
    OPT_STOP,
    OPT_SYSTEM,
    OPT_RAW,
    OPT_SHOW_REASONING,
    OPT_PROMPT_TOKENS,
    OPT_DECODE_TOKENS,
    OPT_BATCH,
    OPT_REPEATS,
    OPT_BENCH_SEED,
    OPT_CSV,
    OPT_TOKENIZER,
    OPT_IDS,
    OPT_LOGITS,
    OPT_TRACE,
    OPT_TEXT,
    OPT_WINDOW,
    OPT_TOKENS,
    OPT_REFERENCE,
    OPT_TENSORS,
    OPT_WEIGHTS,
    OPT_OTHER_MODEL,
    OPT_MEMORY,
    OPT_FORMAT,
    OPT_METHOD,
    OPT_SYNTH_FORMAT,
    OPT_LAYERS,
    OPT_VOCAB,
    OPT_SYNTH_SEED,
    OPT_TRACE_A,
    OPT_TRACE_B,
    OPT_TOLERANCE,
    OPT_PLAIN,
    OPT_ADD_SPECIAL,
    OPT_TEXTS,
    OPT_DECODE,
    OPT_CHAT,
    OPT_RENDER,
    OPT_CHAT_TEMPLATE,
    OPT_COUNT
};

enum option_kind { KIND_FLAG, KIND_INT, KIND_REAL, KIND_TEXT, KIND_FILE, KIND_CHOICE };

struct option {
    const char *name; /* without its dashes */
    char letter;      /* 0: none */
    enum option_kind kind;
    bool many;                /* every occurrence counts */
    const char *argument;     /* "N"; of KIND_CHOICE the values, "a|b" */
    const char *env;          /* NULL: not from the environment */
    const char *default_text; /* NULL: unset; otherwise parsed like a value */
    const char *key;          /* the engine's key; NULL: read by the command */
    double low, high;         /* of KIND_INT and KIND_REAL, inclusive */
    unsigned commands;        /* enum command_bit */
    const char *help;
};
extern const struct option option_table[OPT_COUNT];

struct command;

enum option_source { FROM_NOWHERE, FROM_TABLE, FROM_CONFIG, FROM_ENV, FROM_LINE };

struct option_value {
    enum option_source source;
    char **texts; /* `count` of them; one unless the option may be given many times */
    size_t count;
    uint64_t integer;
    double real;
};

struct options {
    const struct command *command;
    struct option_value values[OPT_COUNT];
    const char *arguments[4]; /* what is not an option; borrowed from argv */
    size_t argument_count;
    imp_options *engine;
    struct str engine_keys; /* that a file, a variable or the line has set, each after a newline */
};

/* Parses everything after the command's name. With --help or --version on the line the rest is not
 * checked. err->where is the option, the variable or the place in the file. */
int options_parse(struct options *options, const struct command *command, int argc, char **argv,
                  imp_error *err);
void options_free(struct options *options); /* the half-built too */
/* Sets one value as if it stood on the command line (/set in a chat). */
int options_set(struct options *options, enum option_id id, const char *text, imp_error *err);
/* "SECTION.KEY=VALUE" to the engine; `option` is the one that said so. */
int options_set_engine(struct options *options, const char *option, const char *text,
                       imp_error *err);
/* Forgets what was set on the engine since options_parse. */
int options_restart_engine(struct options *options, imp_error *err);
int options_find(unsigned commands, const char *name); /* the row, or -1; name without dashes */

bool options_given(const struct options *options, enum option_id id); /* set by anybody */
bool options_key_given(const struct options *options, const char *engine_key);
bool options_flag(const struct options *options, enum option_id id);
uint64_t options_int(const struct options *options, enum option_id id);
double options_real(const struct options *options, enum option_id id);
const char *options_text(const struct options *options, enum option_id id); /* NULL: unset */

/* A whole number without sign and with nothing around it. */
bool parse_uint(const char *text, uint64_t *out);

/* The nearest of a set of words to one that is not among them. Start with a zeroed struct, offer
 * every word, then `word` is NULL when none was near enough to be meant. */
struct nearest {
    const char *word;
    size_t distance;
};
void nearest_offer(struct nearest *best, const char *wanted, const char *word);

/* Reads an ini file and hands every line to `set`, which gives 0 or a negative status. */
typedef int (*config_fn)(void *ctx, const char *section, const char *name, const char *value,
                         imp_error *err);
int config_file_read(const char *path, config_fn set, void *ctx, imp_error *err);

#endif
