/* imp trace: what the stages of a run left, or where two runs part. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/trace_file.h"

static int show_file(FILE *out, const char *path, bool json, imp_error *err) {
    struct trace_stages stages = {0};
    struct trace_rows rows = {0};
    int rc = trace_rows_read(path, &stages, &rows, err);
    if (rc == 0) trace_show(out, &stages, &rows, json);
    trace_rows_free(&rows);
    trace_stages_free(&stages);
    return rc;
}

/* 0, or 2: the verdict of a comparison (exit_status). */
static int compare_files(const struct options *options, const char *path_a, const char *path_b,
                         imp_error *err) {
    struct trace_stages stages = {0};
    struct trace_rows a = {0}, b = {0};
    int rc = trace_rows_read(path_a, &stages, &a, err);
    if (rc == 0) rc = trace_rows_read(path_b, &stages, &b, err);
    if (rc == 0 && !trace_compare(stdout, &stages, &a, &b, options_real(options, OPT_TOLERANCE),
                                  options_flag(options, OPT_JSON)))
        rc = 2;
    trace_rows_free(&a);
    trace_rows_free(&b);
    trace_stages_free(&stages);
    return rc;
}

/* ---- traces that nobody keeps ---- */

static int temporary_file(struct str *path, imp_error *err) {
    const char *folder = getenv("TMPDIR");
    str_printf(path, "%s/imp-trace-XXXXXX", folder && folder[0] ? folder : "/tmp");
    int fd = mkstemp(path->data);
    if (fd >= 0) {
        close(fd);
        return 0;
    }
    int rc = error_set(err, IMP_ERR_IO, path->data, "cannot create: %s", strerror(errno));
    str_free(path);
    return rc;
}

static void temporary_drop(struct str *path) {
    if (path->size > 0) remove(path->data);
    str_free(path);
}

int trace_table_begin(struct options *options, struct str *temporary, imp_error *err) {
    const char *given = options_text(options, OPT_TRACE);
    if (given == NULL || strcmp(given, "-") != 0) return 0;
    int rc = temporary_file(temporary, err);
    return rc < 0 ? rc : imp_options_set(options->engine, "debug.trace", temporary->data, err);
}

int trace_table_end(struct str *temporary, int rc, imp_error *err) {
    if (temporary->size > 0) {
        int shown = show_file(stderr, temporary->data, false, rc < 0 ? NULL : err);
        if (rc == 0) rc = shown;
    }
    temporary_drop(temporary);
    return rc;
}

/* ---- two runs of one model ---- */

static int run_side(struct options *options, enum option_id side, const char *path,
                    imp_error *err) {
    const struct option_value *settings = &options->values[side];
    imp_engine *engine = NULL;
    int rc = options_restart_engine(options, err);
    for (size_t i = 0; rc == 0 && i < settings->count; i++)
        rc = options_set_engine(options, option_table[side].name, settings->texts[i], err);
    if (rc == 0) rc = imp_options_set(options->engine, "debug.trace", path, err);
    if (rc == 0) rc = open_model(options, options->arguments[0], false, &engine, err);
    if (rc == 0) rc = score_ids(options, engine, err);
    imp_close(engine);
    return rc;
}

static int compare_runs(struct options *options, imp_error *err) {
    struct str a = {0}, b = {0};
    interrupt_catch();
    int rc = temporary_file(&a, err);
    if (rc == 0) rc = temporary_file(&b, err);
    if (rc == 0) rc = run_side(options, OPT_TRACE_A, a.data, err);
    if (rc == 0) rc = run_side(options, OPT_TRACE_B, b.data, err);
    if (rc == 0) rc = compare_files(options, a.data, b.data, err);
    temporary_drop(&a);
    temporary_drop(&b);
    return rc;
}

int command_trace(struct options *options, imp_error *err) {
    const bool two = options->argument_count == 2, run = options_given(options, OPT_IDS);
    if (run && two)
        return error_set(err, IMP_ERR_USAGE, "--ids", "runs one model: give MODEL alone");
    if (!run && (options_given(options, OPT_TRACE_A) || options_given(options, OPT_TRACE_B)))
        return error_set(err, IMP_ERR_USAGE, NULL, "--a and --b go with --ids");
    if (!run && !two && options_given(options, OPT_TOLERANCE))
        return error_set(err, IMP_ERR_USAGE, "--tolerance", "needs two traces");
    if (run) return compare_runs(options, err);
    if (two) return compare_files(options, options->arguments[0], options->arguments[1], err);
    return show_file(stdout, options->arguments[0], options_flag(options, OPT_JSON), err);
}
