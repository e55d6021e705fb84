/* What the subcommands share: their table, the way errors leave the program, and interrupts.
 *
 * Results go to standard output and everything else to standard error. A command returns 0 or a
 * negative imp_status with *err filled; main prints the one line and maps the status. */
#ifndef IMP_CLI_CLI_H
#define IMP_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "base/str.h"
#include "cli/options.h"
#include "imp/imp.h"

struct command {
    const char *name;
    enum command_bit bit;
    const char *arguments; /* as the usage line shows them */
    size_t min_arguments, max_arguments;
    const char *summary;     /* one line */
    const char *description; /* for the man page; paragraphs are divided by an empty line */
    const char *examples;    /* lines of shell */
    int (*run)(struct options *options, imp_error *err);
};
extern const struct command command_table[]; /* ends with a NULL name */
const struct command *command_find(const char *name);

int command_run(struct options *options, imp_error *err);
int command_bench(struct options *options, imp_error *err);
int command_score(struct options *options, imp_error *err);
int command_inspect(struct options *options, imp_error *err);
int command_quantize(struct options *options, imp_error *err);
int command_synth(struct options *options, imp_error *err);
int command_tokenize(struct options *options, imp_error *err);
int command_trace(struct options *options, imp_error *err);
int command_completion(struct options *options, imp_error *err);

/* help.c */
void help_print(FILE *out);
void help_print_command(FILE *out, const struct command *command);
/* manual.c: scdoc source of imp(1) (command NULL) or imp-COMMAND(1). */
void manual_print(FILE *out, const struct command *command);

/* support.c */
int exit_status(int status);
void report_error(const imp_error *err);
void note(const struct options *options, const char *fmt, ...) /* unless --quiet */
    __attribute__((format(printf, 2, 3)));
void log_to_stderr(void *ctx, int level, const char *line); /* ctx: struct options */
/* The model's path as the engine wants it: a folder, the folder of a file, or the snapshot of a
 * name that was pulled into the Hub's cache. */
int model_path(const char *name, struct str *out, imp_error *err);
int open_model(const struct options *options, const char *name, bool text_only, imp_engine **out,
               imp_error *err);
int read_stdin(struct str *out, imp_error *err);
int parse_ids(const char *json, size_t bytes, const char *where, int32_t **ids, size_t *count,
              imp_error *err); /* free(*ids) */
/* A file that appears under its name only when whole. */
struct out_file {
    FILE *stream;
    struct str path, temporary;
};
int out_file_open(struct out_file *file, const char *path, imp_error *err);
int out_file_close(struct out_file *file, imp_error *err); /* renames it */
void out_file_drop(struct out_file *file);                 /* closed or not */

/* score.c: runs the sequences of --ids in one batch, with --logits to files. */
int score_ids(const struct options *options, imp_engine *engine, imp_error *err);
/* trace.c: with `--trace -` the engine writes to a temporary file, from before it is opened, and
 * when it is closed a table of it goes to standard error, also where rc is an error. Returns rc. */
int trace_table_begin(struct options *options, struct str *temporary, imp_error *err);
int trace_table_end(struct str *temporary, int rc, imp_error *err);

/* SIGINT as a count that the loops look at. Taken once; the handler stays until the end. */
void interrupt_catch(void);
bool interrupt_pending(void);
void interrupt_clear(void);

#endif
