/* Carries one source's tensors into the shards of a layout.
 *
 * Borrows everything; lives for one run. The caller's thread reads, writes and reports progress,
 * the pool's threads convert. */
#ifndef IMP_QUANTIZE_CONVERT_H
#define IMP_QUANTIZE_CONVERT_H

#include "base/thread.h"
#include "quantize/calibrate.h"
#include "quantize/layout.h"
#include "quantize/new_folder.h"

struct convert {
    const struct source *source;
    const struct layout *layout;
    enum quantize_method method;
    enum layout_dialect dialect;
    const struct moments *moments; /* NULL: none */
    struct pool *pool;
    imp_progress_fn progress; /* may be NULL */
    void *progress_ctx;
    const struct log *log;
    const char *made_by; /* kept in every shard's metadata */
};

int convert_run(const struct convert *c, const struct new_folder *folder, struct imp_error *err);

#endif
