#include "quantize/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "num/fp.h"
#include "num/nvfp4.h"
#include "quantize/policy.h"

enum {
    CHUNK_VALUES = 4 << 20, /* at most, or one row: 16 MB as fp32 */
    TASK_VALUES = 32 << 10, /* of one task of the pool */
};

struct thread_error {
    int task; /* the first that failed on this thread; -1: none */
    struct imp_error error;
};

/* One run's working memory and counters. */
struct run {
    const struct convert *c;
    float *group_amax; /* [group_count] */
    float *values;     /* one chunk */
    uint16_t *plain;   /* BF16 of a chunk */
    uint8_t *codes, *scales;
    struct thread_error *failed; /* [threads] */
    float *thread_amax;          /* [threads] */
    uint64_t done_bytes, total_bytes;
    /* The chunk that the pool works on. */
    size_t tensor;
    int64_t first, count, rows_per_task;
    float multiplier;
    const float *h;
    enum step { STEP_AMAX, STEP_PLAIN, STEP_NVFP4, STEP_BYTES } step;
};

/* Bytes that the source makes row by row. */
static bool is_made(const struct source *s, const struct source_tensor *t) {
    return !source_is_float(t->dtype) && t->raw == NULL && s->read_bytes != NULL;
}

static int64_t rows_within(int64_t values, int64_t cols) {
    return cols > 0 && values / cols > 1 ? values / cols : 1;
}

static void finish_rows(struct run *run, int thread, int64_t at, int64_t rows) {
    const struct source_tensor *t = &run->c->source->tensors[run->tensor];
    float *values = run->values + at * t->cols;
    int64_t n = rows * t->cols, blocks = t->cols / NVFP4_BLOCK;
    switch (run->step) {
    case STEP_AMAX: {
        float amax = run->thread_amax[thread];
        for (int64_t i = 0; i < n; i++) amax = fabsf(values[i]) > amax ? fabsf(values[i]) : amax;
        run->thread_amax[thread] = amax;
        break;
    }
    case STEP_PLAIN:
        for (int64_t i = 0; i < n; i++) run->plain[at * t->cols + i] = bf16_encode(values[i]);
        break;
    case STEP_NVFP4:
        /* -0 becomes +0 first: the code of a negative zero is kept for what rounds to it. */
        for (int64_t i = 0; i < n; i++) values[i] += 0.0f;
        for (int64_t r = at; r < at + rows; r++)
            rule_quantize_row(run->c->method, run->values + r * t->cols, run->h, run->multiplier,
                              t->cols, run->codes + r * t->cols / 2, run->scales + r * blocks);
        break;
    case STEP_BYTES:
        break;
    }
}

static void run_task(void *ctx, int task, int thread) {
    struct run *run = ctx;
    int64_t at = task * run->rows_per_task;
    int64_t rows = run->count - at < run->rows_per_task ? run->count - at : run->rows_per_task;
    const struct source *source = run->c->source;
    int64_t cols = source->tensors[run->tensor].cols;
    struct imp_error err;
    if (run->step == STEP_BYTES) {
        source->read_bytes(source, run->tensor, run->first + at, rows,
                           (uint8_t *)run->values + at * cols);
        return;
    }
    int rc = source_read(source, run->tensor, run->first + at, rows, run->values + at * cols, &err);
    struct thread_error *failed = &run->failed[thread];
    if (rc == 0)
        finish_rows(run, thread, at, rows);
    else if (failed->task < 0 || task < failed->task)
        *failed = (struct thread_error){task, err};
}

/* Reads and converts rows first .. first + count - 1. Of several bad rows the first is reported. */
static int run_chunk(struct run *run, int64_t first, int64_t count, struct imp_error *err) {
    int threads = pool_threads(run->c->pool);
    run->first = first;
    run->count = count;
    for (int i = 0; i < threads; i++) run->failed[i].task = -1;
    int tasks = (int)((count + run->rows_per_task - 1) / run->rows_per_task);
    pool_run(run->c->pool, run_task, run, tasks);
    const struct thread_error *worst = NULL;
    for (int i = 0; i < threads; i++) {
        const struct thread_error *f = &run->failed[i];
        if (f->task >= 0 && (worst == NULL || f->task < worst->task)) worst = f;
    }
    if (worst == NULL) return 0;
    if (err) *err = worst->error;
    return worst->error.code;
}

static int report(struct run *run, const char *stage, uint64_t bytes, struct imp_error *err) {
    run->done_bytes += bytes;
    const struct convert *c = run->c;
    if (c->progress == NULL ||
        c->progress(c->progress_ctx, stage, run->done_bytes, run->total_bytes, "bytes") == 0)
        return 0;
    return error_set(err, IMP_ERR_CANCELLED, NULL, "cancelled");
}

static void start_tensor(struct run *run, size_t tensor, enum step step) {
    run->tensor = tensor;
    run->step = step;
    run->rows_per_task = rows_within(TASK_VALUES, run->c->source->tensors[tensor].cols);
}

/* ---- pass 1: the largest magnitude of every group that shares a multiplier ---- */

static int find_amax(struct run *run, size_t tensor, struct imp_error *err) {
    const struct source_tensor *t = &run->c->source->tensors[tensor];
    float *group = &run->group_amax[run->c->layout->tensors[tensor].group];
    int threads = pool_threads(run->c->pool);
    int64_t step = rows_within(CHUNK_VALUES, t->cols);
    start_tensor(run, tensor, STEP_AMAX);
    for (int i = 0; i < threads; i++) run->thread_amax[i] = 0;
    for (int64_t row = 0; row < t->rows; row += step) {
        int64_t count = t->rows - row < step ? t->rows - row : step;
        int rc = run_chunk(run, row, count, err);
        if (rc == 0) rc = report(run, "measure", (uint64_t)(count * t->cols) * 4, err);
        if (rc < 0) return rc;
    }
    for (int i = 0; i < threads; i++)
        if (run->thread_amax[i] > *group) *group = run->thread_amax[i];
    return 0;
}

/* ---- pass 2 ---- */

/* The weights of the columns' errors, in *copy, to be freed. A channel that calibration never saw
 * move gets a small weight rather than none: its codes should still be sensible. */
static int column_weights(const struct run *run, const struct source_tensor *t, float **copy,
                          struct imp_error *err) {
    *copy = NULL;
    if (run->c->method != QUANTIZE_WEIGHTED) return 0;
    struct str input = {0};
    policy_input(t, &input);
    const char *name = input.data;
    const struct moments_entry *m = run->c->moments ? moments_find(run->c->moments, name) : NULL;
    double mean = 0;
    int rc = 0;
    if (m == NULL) {
        log_line(run->c->log, LOG_WARNING, "%s was not reached by calibration: `sweep` is used",
                 t->name);
    } else if (m->cols != t->cols) {
        rc = error_set(err, IMP_ERR_INTERNAL, t->name, "%lld moments for %lld columns",
                       (long long)m->cols, (long long)t->cols);
    } else {
        for (int64_t k = 0; k < t->cols; k++) mean += m->h[k] / (double)t->cols;
    }
    str_free(&input);
    /* Only the ratios matter; near 1 the products keep their precision. */
    if (rc < 0 || !(mean > 0)) return rc;
    *copy = mem_alloc((size_t)t->cols * sizeof **copy);
    for (int64_t k = 0; k < t->cols; k++) {
        float ratio = (float)(m->h[k] / mean);
        (*copy)[k] = ratio > 1e-4f ? ratio : 1e-4f;
    }
    return 0;
}

static int put_matrix_chunk(struct run *run, struct safetensors_writer *w, struct imp_error *err) {
    const struct layout_tensor *to = &run->c->layout->tensors[run->tensor];
    int64_t cols = run->c->source->tensors[run->tensor].cols;
    uint64_t row = (uint64_t)run->first;
    size_t code_bytes = (size_t)cols / 2, scale_bytes = (size_t)cols / NVFP4_BLOCK;
    size_t rows = (size_t)run->count;
    int rc =
        safetensors_writer_put(w, to->codes, row * code_bytes, run->codes, rows * code_bytes, err);
    if (rc < 0) return rc;
    return safetensors_writer_put(w, to->scales, row * scale_bytes, run->scales, rows * scale_bytes,
                                  err);
}

/* BF16, or bytes as the source made them. */
static int put_plain_chunk(struct run *run, struct safetensors_writer *w, struct imp_error *err) {
    const bool bytes = run->step == STEP_BYTES;
    size_t row_bytes = (size_t)run->c->source->tensors[run->tensor].cols * (bytes ? 1 : 2);
    const void *data = bytes ? (const void *)run->values : (const void *)run->plain;
    return safetensors_writer_put(w, run->c->layout->tensors[run->tensor].plain,
                                  (uint64_t)run->first * row_bytes, data,
                                  (size_t)run->count * row_bytes, err);
}

/* What is stored and what readers multiply with: compressed-tensors keeps a divisor, so there the
 * multiplier is what its inverse gives back. */
static void global_scale(const struct run *run, float amax, float *stored, float *multiplier) {
    *multiplier = *stored = rule_multiplier(run->c->method, amax);
    if (run->c->dialect == LAYOUT_MODELOPT) return;
    *stored = 1.0f / *multiplier;
    *multiplier = 1.0f / *stored;
}

static int convert_rows(struct run *run, struct safetensors_writer *w, struct imp_error *err) {
    const struct source_tensor *t = &run->c->source->tensors[run->tensor];
    int64_t step = rows_within(CHUNK_VALUES, t->cols);
    for (int64_t row = 0; t->cols > 0 && row < t->rows; row += step) {
        int64_t count = t->rows - row < step ? t->rows - row : step;
        int rc = run_chunk(run, row, count, err);
        if (rc == 0)
            rc = run->step == STEP_NVFP4 ? put_matrix_chunk(run, w, err)
                                         : put_plain_chunk(run, w, err);
        if (rc == 0) rc = report(run, "write", (uint64_t)(count * t->cols) * 4, err);
        if (rc < 0) return rc;
    }
    return 0;
}

static int convert_matrix(struct run *run, size_t tensor, struct safetensors_writer *w,
                          struct imp_error *err) {
    const struct layout_tensor *to = &run->c->layout->tensors[tensor];
    float stored, *h;
    int rc = column_weights(run, &run->c->source->tensors[tensor], &h, err);
    if (rc < 0) return rc;
    global_scale(run, run->group_amax[to->group], &stored, &run->multiplier);
    run->h = h;
    start_tensor(run, tensor, STEP_NVFP4);
    rc = convert_rows(run, w, err);
    if (rc == 0) rc = safetensors_writer_put(w, to->global, 0, &stored, sizeof stored, err);
    run->h = NULL;
    free(h);
    return rc;
}

/* Integers, booleans, and whatever else must not be rounded. */
static int copy_tensor(struct run *run, size_t tensor, struct safetensors_writer *w,
                       struct imp_error *err) {
    size_t index = run->c->layout->tensors[tensor].plain;
    uint64_t bytes = w->tensors[index].bytes;
    const uint8_t *raw = run->c->source->tensors[tensor].raw;
    check(raw != NULL || bytes == 0);
    return safetensors_writer_put(w, index, 0, raw, (size_t)bytes, err);
}

static int convert_tensor(struct run *run, size_t tensor, struct safetensors_writer *w,
                          struct imp_error *err) {
    if (run->c->layout->tensors[tensor].quantized) return convert_matrix(run, tensor, w, err);
    const struct source_tensor *t = &run->c->source->tensors[tensor];
    const bool made = is_made(run->c->source, t);
    if (!made && t->as_it_is) return copy_tensor(run, tensor, w, err);
    start_tensor(run, tensor, made ? STEP_BYTES : STEP_PLAIN);
    return convert_rows(run, w, err);
}

static int convert_shard(struct run *run, const struct layout_shard *shard,
                         const struct new_folder *folder, struct imp_error *err) {
    struct safetensors_writer w = {.fd = -1};
    char *path = new_folder_path(folder, shard->name);
    int rc = safetensors_writer_open(path, shard->tensors, shard->count, run->c->made_by, &w, err);
    for (size_t i = shard->first; rc == 0 && i < shard->end; i++)
        rc = convert_tensor(run, i, &w, err);
    if (rc == 0) rc = safetensors_writer_finish(&w, err);
    safetensors_writer_abort(&w);
    free(path);
    return rc;
}

/* ---- the run ---- */

/* A chunk holds CHUNK_VALUES, or one row of the widest tensor. */
static void allocate(struct run *run) {
    const struct source *s = run->c->source;
    const struct layout *layout = run->c->layout;
    size_t n = CHUNK_VALUES, threads = (size_t)pool_threads(run->c->pool);
    for (size_t i = 0; i < s->tensor_count; i++) {
        const struct source_tensor *t = &s->tensors[i];
        if (t->as_it_is && !is_made(s, t)) continue;
        if ((size_t)t->cols > n) n = (size_t)t->cols;
        uint64_t bytes = (uint64_t)t->rows * (uint64_t)t->cols * 4;
        run->total_bytes += layout->tensors[i].quantized ? 2 * bytes : bytes;
    }
    run->values = mem_alloc(n * sizeof *run->values);
    run->plain = mem_alloc(n * sizeof *run->plain);
    run->codes = mem_alloc(n / 2);
    run->scales = mem_alloc(n / NVFP4_BLOCK + 1);
    run->failed = mem_zero(threads, sizeof *run->failed);
    run->thread_amax = mem_zero(threads, sizeof *run->thread_amax);
    run->group_amax = mem_zero(layout->group_count + 1, sizeof *run->group_amax);
}

int convert_run(const struct convert *c, const struct new_folder *folder, struct imp_error *err) {
    struct run run = {.c = c};
    int rc = 0;
    allocate(&run);
    for (size_t i = 0; rc == 0 && i < c->layout->tensor_count; i++)
        if (c->layout->tensors[i].quantized) rc = find_amax(&run, i, err);
    for (size_t i = 0; rc == 0 && i < c->layout->shard_count; i++)
        rc = convert_shard(&run, &c->layout->shards[i], folder, err);
    free(run.values);
    free(run.plain);
    free(run.codes);
    free(run.scales);
    free(run.failed);
    free(run.thread_amax);
    free(run.group_amax);
    return rc;
}
