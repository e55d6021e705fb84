/* imp_synth: a checkpoint of random weights with the shapes of a real one. */
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"
#include "base/str.h"
#include "base/thread.h"
#include "load/folder.h"
#include "model/model.h"
#include "num/nvfp4.h"
#include "quantize/quantize.h"
#include "quantize/synth_config.h"
#include "quantize/synth_source.h"
#include "quantize/synth_tokenizer.h"
#include "quantize/write.h"

enum synth_format { FORMAT_BF16, FORMAT_COMPRESSED_TENSORS, FORMAT_MODELOPT, FORMAT_MXFP4 };

struct job {
    const struct imp_synth_options *options;
    enum synth_format format;
    struct log log;
    char *folder;         /* that the configuration is in */
    struct config config; /* the original */
    struct arena arena;
    struct model_desc desc;
    struct str text;          /* the new config.json */
    struct config new_config; /* parsed again */
    struct model_desc new_desc;
};

static int read_format(struct job *job, struct imp_error *err) {
    static const char *const names[] = {"bf16", "compressed-tensors", "modelopt", "mxfp4"};
    const char *format = job->options->format ? job->options->format : "compressed-tensors";
    int i = 0;
    while (i < 4 && strcmp(format, names[i]) != 0) i++;
    if (i == 4)
        return error_set(err, IMP_ERR_USAGE, NULL,
                         "no format \"%s\": there are bf16, compressed-tensors, modelopt, mxfp4",
                         format);
    job->format = (enum synth_format)i;
    return 0;
}

/* Of a folder, or of a config.json itself. */
static char *folder_of(const char *path) {
    if (!slice_ends(slice_of(path), ".json")) return mem_strndup(path, strlen(path));
    const char *slash = strrchr(path, '/');
    return slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strndup(".", 1);
}

/* MXFP4 is gpt-oss's own: stacks of experts whose rows are whole blocks. */
static int check_mxfp4(const struct job *job, struct imp_error *err) {
    if (job->format != FORMAT_MXFP4) return 0;
    for (int i = 0; i < job->desc.layers; i++) {
        const struct moe_desc *m = &job->desc.layer[i].moe;
        if (m->experts && m->layout == EXPERTS_GPT_OSS && m->width % MXFP4_BLOCK == 0 &&
            job->desc.hidden % MXFP4_BLOCK == 0)
            continue;
        return error_set(err, IMP_ERR_UNSUPPORTED, job->config.path,
                         "mxfp4 is for gpt_oss alone, with sizes that are multiples of 32");
    }
    return 0;
}

static int describe(struct job *job, struct imp_error *err) {
    const struct imp_synth_options *o = job->options;
    const struct synth_changes changes = {.layers = (int)o->layers,
                                          .vocab = (int64_t)o->vocab,
                                          .eos = SYNTH_TOKENIZER_EOS,
                                          .mxfp4 = job->format == FORMAT_MXFP4};
    if (o->layers > CAP_LAYERS)
        return error_set(err, IMP_ERR_USAGE, NULL, "%u layers are too many", o->layers);
    if (o->vocab && (o->vocab < SYNTH_TOKENIZER_SIZE || o->vocab > CAP_VOCAB))
        return error_set(err, IMP_ERR_USAGE, NULL, "a vocabulary of %u: %d to %d is allowed",
                         o->vocab, SYNTH_TOKENIZER_SIZE, CAP_VOCAB);
    int rc = config_open(job->folder, &job->config, err);
    if (rc == 0) rc = model_describe(&job->config, &job->arena, &job->desc, err);
    if (rc == 0) rc = check_mxfp4(job, err);
    if (rc == 0) rc = synth_config_make(&job->config, &job->desc, &changes, &job->text, err);
    if (rc == 0)
        rc = config_parse(job->text.data, job->text.size, "config.json", &job->new_config, err);
    if (rc == 0) rc = model_describe(&job->new_config, &job->arena, &job->new_desc, err);
    if (rc == 0 && o->layers) check(job->new_desc.layers == (int)o->layers);
    return rc;
}

/* ---- the files beside the weights ---- */

static int add_copy(const struct job *job, struct source *source, const char *name,
                    struct imp_error *err) {
    char *path;
    if (!folder_has(job->folder, name)) return 0;
    int rc = folder_path(job->folder, name, &path, err);
    if (rc < 0) return rc;
    source->files[source->file_count++] = (struct source_file){
        .name = name, .path = arena_strndup(&source->arena, path, strlen(path))};
    free(path);
    return 0;
}

static int add_own_tokenizer(const struct job *job, struct source *source, struct imp_error *err) {
    struct str text = {0};
    if (job->new_desc.vocab < SYNTH_TOKENIZER_SIZE)
        return error_set(err, IMP_ERR_UNSUPPORTED, job->config.path,
                         "the folder has no tokenizer.json, and vocab_size %lld is too little for "
                         "one of bytes, which needs %d",
                         (long long)job->new_desc.vocab, SYNTH_TOKENIZER_SIZE);
    synth_tokenizer_json(&text);
    source->files[source->file_count++] = (struct source_file){
        .name = "tokenizer.json", .text = arena_strndup(&source->arena, text.data, text.size)};
    source->files[source->file_count++] =
        (struct source_file){.name = "tokenizer_config.json", .text = synth_tokenizer_config_json};
    str_free(&text);
    return 0;
}

/* The model's own where its words are kept, else a tokenizer of bytes. */
static int add_files(const struct job *job, struct source *source, struct imp_error *err) {
    static const char *const own[] = {"tokenizer.json",
                                      "tokenizer_config.json",
                                      "chat_template.jinja",
                                      "chat_template.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "vocab.json",
                                      "merges.txt"};
    enum { OWN = sizeof own / sizeof *own };
    const bool keep = job->options->vocab == 0;
    int rc = 0;
    source->files = arena_array(&source->arena, OWN + 3, sizeof *source->files);
    if (keep) rc = add_copy(job, source, "generation_config.json", err);
    if (rc == 0 && (!keep || !folder_has(job->folder, "tokenizer.json")))
        return add_own_tokenizer(job, source, err);
    for (int i = 0; i < OWN && rc == 0; i++) rc = add_copy(job, source, own[i], err);
    return rc;
}

/* ---- the run ---- */

static void make_tensors(const struct job *job, struct source *source) {
    const bool wrapped = job->new_config.text != job->new_config.top;
    const enum expert_form form = job->format == FORMAT_BF16    ? EXPERT_AS_SAVED
                                  : job->format == FORMAT_MXFP4 ? EXPERT_MXFP4
                                                                : EXPERT_ONE_BY_ONE;
    source->path = job->folder;
    source->config = job->text.data;
    synth_source_make(&job->new_desc, wrapped ? job->new_desc.wrapped_prefix : "model.", form,
                      job->options->seed, source);
}

static int write_folder(const struct job *job, const struct source *source, struct pool *pool,
                        struct imp_error *err) {
    const bool nvfp4 = job->format == FORMAT_COMPRESSED_TENSORS || job->format == FORMAT_MODELOPT;
    struct new_folder folder = {0};
    struct str made_by = {0};
    str_printf(&made_by, "imp %s synth --seed %llu", IMP_VERSION,
               (unsigned long long)job->options->seed);
    const struct write_job write = {
        .method = nvfp4 ? QUANTIZE_AMAX : QUANTIZE_NONE,
        .dialect = job->format == FORMAT_MODELOPT ? LAYOUT_MODELOPT : LAYOUT_COMPRESSED_TENSORS,
        .shard_bytes = QUANTIZE_SHARD_BYTES,
        .pool = pool,
        .progress = job->options->progress,
        .progress_ctx = job->options->progress_ctx,
        .log = &job->log,
        .made_by = made_by.data};
    int rc = new_folder_open(job->options->destination, &folder, err);
    if (rc == 0) rc = write_checkpoint(&write, source, &folder, err);
    if (rc == 0) rc = new_folder_commit(&folder, err);
    new_folder_discard(&folder);
    str_free(&made_by);
    return rc;
}

int imp_synth(const struct imp_synth_options *options, struct imp_error *err) {
    check(options->config != NULL && options->destination != NULL);
    struct job job = {.options = options, .log = {options->log, options->log_ctx}};
    struct source source = {0};
    struct pool *pool = NULL;
    job.folder = folder_of(options->config);
    int rc = read_format(&job, err);
    if (rc == 0) rc = describe(&job, err);
    if (rc == 0) make_tensors(&job, &source);
    if (rc == 0) rc = add_files(&job, &source, err);
    if (rc == 0)
        rc = pool_create(options->threads ? (int)options->threads : cpu_count(), &pool, err);
    if (rc == 0) rc = write_folder(&job, &source, pool, err);
    pool_destroy(pool);
    source_close(&source);
    str_free(&job.text);
    config_close(&job.new_config);
    config_close(&job.config);
    arena_free(&job.arena);
    free(job.folder);
    return rc;
}
