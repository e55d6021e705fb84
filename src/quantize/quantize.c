#include "quantize/quantize.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "base/thread.h"
#include "quantize/write.h"

/* What the options say, checked. */
struct job {
    const struct imp_quantize_options *options;
    enum quantize_method method;
    enum layout_dialect dialect;
    uint64_t shard_bytes;
    struct log log;
};

static const char *const method_names[] = {"none", "amax", "sweep", "weighted"};

static int read_options(const struct imp_quantize_options *options, struct job *job,
                        struct imp_error *err) {
    check(options->source != NULL && options->destination != NULL);
    *job = (struct job){.options = options, .log = {options->log, options->log_ctx}};
    const char *method = options->method ? options->method : "weighted";
    const char *format = options->format ? options->format : "compressed-tensors";
    int m = 0, methods = sizeof method_names / sizeof *method_names;
    while (m < methods && strcmp(method, method_names[m]) != 0) m++;
    if (m == methods)
        return error_set(err, IMP_ERR_USAGE, NULL,
                         "no method \"%s\": there are none, amax, sweep, weighted", method);
    job->method = (enum quantize_method)m;
    if (strcmp(format, "modelopt") == 0)
        job->dialect = LAYOUT_MODELOPT;
    else if (strcmp(format, "compressed-tensors") == 0)
        job->dialect = LAYOUT_COMPRESSED_TENSORS;
    else
        return error_set(err, IMP_ERR_USAGE, NULL,
                         "no format \"%s\": there are compressed-tensors, modelopt", format);
    return 0;
}

static int fill_folder(const struct job *job, const struct source *source,
                       const struct moments *moments, struct pool *pool,
                       const struct new_folder *folder, struct imp_error *err) {
    struct str made_by = {0};
    str_printf(&made_by, "imp %s quantize --method %s", IMP_VERSION, method_names[job->method]);
    const struct write_job write = {.method = job->method,
                                    .dialect = job->dialect,
                                    .shard_bytes = job->shard_bytes,
                                    .moments = moments,
                                    .pool = pool,
                                    .progress = job->options->progress,
                                    .progress_ctx = job->options->progress_ctx,
                                    .log = &job->log,
                                    .made_by = made_by.data};
    int rc = write_checkpoint(&write, source, folder, err);
    str_free(&made_by);
    return rc;
}

/* Calibration runs a SafeTensors folder. A GGUF file is written out as one first, in BF16. */
static int calibrate(const struct job *job, const struct source *source, struct pool *pool,
                     struct moments *moments, struct imp_error *err) {
    struct calibrate_options options = {.folder = source->path,
                                        .tokens = QUANTIZE_CALIBRATION_TOKENS,
                                        .threads = (uint32_t)pool_threads(pool),
                                        .progress = job->options->progress,
                                        .progress_ctx = job->options->progress_ctx,
                                        .log = &job->log};
    if (source->is_folder) return calibrate_input_moments(&options, moments, err);
    struct job plain = *job;
    struct new_folder folder = {0};
    struct str name = {0};
    plain.method = QUANTIZE_NONE;
    str_printf(&name, "%s.bf16", job->options->destination);
    int rc = new_folder_open(name.data, &folder, err);
    if (rc == 0) rc = fill_folder(&plain, source, NULL, pool, &folder, err);
    options.folder = folder.temporary;
    if (rc == 0) rc = calibrate_input_moments(&options, moments, err);
    new_folder_discard(&folder);
    str_free(&name);
    return rc;
}

int quantize_run(const struct imp_quantize_options *options,
                 const struct quantize_settings *settings, struct imp_error *err) {
    struct job job;
    struct source source = {0};
    struct new_folder folder = {0};
    struct moments own = {0};
    const struct moments *moments = settings ? settings->moments : NULL;
    struct pool *pool = NULL;
    int rc = read_options(options, &job, err);
    if (rc < 0) return rc;
    job.shard_bytes =
        settings && settings->shard_bytes ? settings->shard_bytes : QUANTIZE_SHARD_BYTES;
    rc = source_open(options->source, job.method != QUANTIZE_NONE, &job.log, &source, err);
    if (rc < 0) return rc;
    rc = pool_create(options->threads ? (int)options->threads : cpu_count(), &pool, err);
    if (rc == 0) rc = new_folder_open(options->destination, &folder, err);
    if (rc == 0 && job.method == QUANTIZE_WEIGHTED && moments == NULL) {
        rc = calibrate(&job, &source, pool, &own, err);
        moments = &own;
    }
    if (rc == 0) rc = fill_folder(&job, &source, moments, pool, &folder, err);
    if (rc == 0) rc = new_folder_commit(&folder, err);
    new_folder_discard(&folder);
    moments_free(&own);
    pool_destroy(pool);
    source_close(&source);
    return rc;
}

int imp_quantize(const imp_quantize_options *options, imp_error *err) {
    return quantize_run(options, NULL, err);
}
