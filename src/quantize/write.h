/* A source as a new checkpoint: layout, configuration, companions and weights into a folder.
 *
 * Borrows everything; lives for one call. Threads as in convert.h. */
#ifndef IMP_QUANTIZE_WRITE_H
#define IMP_QUANTIZE_WRITE_H

#include "quantize/convert.h"

struct write_job {
    enum quantize_method method;
    enum layout_dialect dialect;
    uint64_t shard_bytes;
    const struct moments *moments; /* NULL: none */
    struct pool *pool;
    imp_progress_fn progress; /* may be NULL */
    void *progress_ctx;
    const struct log *log;
    const char *made_by; /* kept in every shard's metadata */
};

/* Fills the folder, which the caller commits. A method other than none must find something to
 * quantise (IMP_ERR_UNSUPPORTED). */
int write_checkpoint(const struct write_job *job, const struct source *source,
                     const struct new_folder *folder, struct imp_error *err);

#endif
