#include "quantize/write.h"

#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "quantize/describe.h"

static int write_files(const struct write_job *job, const struct source *source,
                       const struct layout *layout, const struct new_folder *folder,
                       struct imp_error *err) {
    struct str text = {0};
    int rc = describe_config(source, layout, job->dialect, &text, err);
    if (rc == 0) rc = new_folder_write(folder, "config.json", text.data, text.size, err);
    str_clear(&text);
    if (rc == 0 && job->dialect == LAYOUT_MODELOPT && layout->quantized_count > 0) {
        describe_hf_quant_config(source, layout, &text);
        rc = new_folder_write(folder, "hf_quant_config.json", text.data, text.size, err);
        str_clear(&text);
    }
    if (rc == 0 && layout->shard_count > 1) {
        layout_index_json(layout, &text);
        rc = new_folder_write(folder, "model.safetensors.index.json", text.data, text.size, err);
    }
    for (size_t i = 0; rc == 0 && i < source->file_count; i++) {
        const struct source_file *f = &source->files[i];
        rc = f->text ? new_folder_write(folder, f->name, f->text, strlen(f->text), err)
                     : new_folder_copy(folder, f->name, f->path, err);
    }
    str_free(&text);
    return rc;
}

int write_checkpoint(const struct write_job *job, const struct source *source,
                     const struct new_folder *folder, struct imp_error *err) {
    struct layout layout;
    layout_make(source, job->method, job->dialect, job->shard_bytes, &layout);
    int rc = 0;
    if (job->method != QUANTIZE_NONE && layout.quantized_count == 0)
        rc = error_set(err, IMP_ERR_UNSUPPORTED, source->path,
                       "nothing in here can be quantised: no projection with a multiple of 16 "
                       "columns");
    const struct convert c = {.source = source,
                              .layout = &layout,
                              .method = job->method,
                              .dialect = job->dialect,
                              .moments = job->moments,
                              .pool = job->pool,
                              .progress = job->progress,
                              .progress_ctx = job->progress_ctx,
                              .log = job->log,
                              .made_by = job->made_by};
    if (rc == 0) rc = write_files(job, source, &layout, folder, err);
    if (rc == 0) rc = convert_run(&c, folder, err);
    layout_free(&layout);
    return rc;
}
