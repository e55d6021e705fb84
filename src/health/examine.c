/* health_examine: batches of matrices, cut into stripes of rows for the pool, put together again
 * in order. What stripes there are depends on the shapes alone. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "health/compare.h"
#include "health/judge.h"
#include "health/pass.h"
#include "health/summary.h"

enum {
    STRIPE_WEIGHTS = 1 << 20, /* half a megabyte of codes: enough for a task */
    BATCH_BYTES = 128 << 20,  /* after these, copies of experts are dropped */
};

struct job {
    struct weights_matrix *matrix;
    struct list_view view, reference;
    bool compared;
    float *output_largest; /* [rows] */
    int first_stripe, stripes;
};

struct stripe {
    const struct job *job;
    int64_t from, count;
    struct pass pass;
    struct compare_sums sums;
    uint64_t hash;
};

struct examination {
    struct list list, reference_list; /* the latter empty without a reference */
    struct health_report *report;
    struct pool *pool;
    struct pass_tables tables;
    /* one batch */
    struct arena arena;
    struct job *jobs;
    int job_count;
    struct stripe *stripes;
    int stripe_count;
};

/* ---- a stripe, in any thread ---- */

/* Of the bytes as they lie; block scales too, or two experts of one sign pattern could be equal. */
static uint64_t hash_rows(const struct list_view *v, int64_t from, int64_t count) {
    const struct weight *w = &v->weight;
    const size_t bytes = weight_row_bytes(w), blocks = weight_block_row_bytes(w);
    uint64_t hash = 0;
    for (int64_t r = from; r < from + count; r++) {
        const size_t at = (size_t)(v->first + r * v->step);
        hash = XXH3_64bits_withSeed((const uint8_t *)w->data + at * bytes, bytes, hash);
        if (blocks) hash = XXH3_64bits_withSeed(w->block_scale + at * blocks, blocks, hash);
    }
    return hash;
}

static void run_stripe(void *ctx, int task, int thread) {
    struct stripe *s = &((struct examination *)ctx)->stripes[task];
    const struct list_view *v = &s->job->view;
    (void)thread;
    s->hash = hash_rows(v, s->from, s->count);
    pass_rows(&s->pass, &v->weight, v->first + s->from * v->step, v->step, s->count,
              s->job->output_largest + s->from);
    if (s->job->compared)
        compare_rows(&s->sums, v, &s->job->reference, s->from, s->count, s->pass.row);
}

/* ---- a batch ---- */

static void cut(struct examination *x, struct job *job) {
    const int64_t rows = job->view.rows, cols = job->view.weight.cols;
    int64_t per_stripe = STRIPE_WEIGHTS / cols;
    if (per_stripe < 16) per_stripe = 16;
    job->output_largest = arena_array(&x->arena, (size_t)rows, sizeof(float));
    job->first_stripe = x->stripe_count;
    for (int64_t from = 0; from < rows; from += per_stripe) {
        x->stripes = mem_grow(x->stripes, (size_t)(x->stripe_count + 1) * sizeof *x->stripes);
        struct stripe *s = &x->stripes[x->stripe_count++];
        *s = (struct stripe){.job = job, .from = from, .pass.tables = &x->tables};
        s->count = rows - from < per_stripe ? rows - from : per_stripe;
        s->pass.input_largest = arena_array(&x->arena, (size_t)cols, sizeof(float));
        s->pass.row = arena_array(&x->arena, (size_t)cols * 2, sizeof(float));
        if (job->compared)
            compare_place(&s->sums, cols,
                          arena_array(&x->arena, compare_room(cols), sizeof(double)));
    }
    job->stripes = x->stripe_count - job->first_stripe;
}

static void put_together(struct examination *x, struct job *job) {
    struct stripe *all = &x->stripes[job->first_stripe];
    const int64_t cols = job->view.weight.cols;
    uint64_t hash = all[0].hash;
    for (int i = 1; i < job->stripes; i++) {
        hash = XXH3_64bits_withSeed(&all[i].hash, sizeof hash, hash);
        summary_add(&all[0].pass, &all[i].pass, cols);
        if (job->compared) compare_add(&all[0].sums, &all[i].sums, cols);
    }
    job->matrix->hash = hash;
    summary_finish(&job->view, &all[0].pass, job->output_largest, job->matrix);
    if (job->compared) compare_finish(&all[0].sums, cols, job->matrix);
}

static void find_reference(struct examination *x, const struct list_item *item, struct job *job) {
    const struct list_item *other = list_find(&x->reference_list, item);
    if (other == NULL || list_view(&x->reference_list, other, &job->reference, NULL) < 0) return;
    job->compared = job->reference.rows == job->view.rows &&
                    job->reference.weight.cols == job->view.weight.cols;
    job->matrix->other_shape = !job->compared;
    x->report->compared += job->compared;
}

static void begin_job(struct examination *x, const struct list_item *item,
                      struct weights_matrix *m) {
    struct imp_error err = {0};
    struct list_view view;
    *m = (struct weights_matrix){.layer = item->layer, .expert = item->expert};
    m->name = arena_strndup(&x->report->arena, item->name, strlen(item->name));
    m->part = arena_strndup(&x->report->arena, item->part, strlen(item->part));
    if (list_view(&x->list, item, &view, &err) < 0) {
        m->problem = arena_printf(&x->report->arena, "%s", err.message);
        return;
    }
    struct job *job = &x->jobs[x->job_count++];
    *job = (struct job){.matrix = m, .view = view};
    find_reference(x, item, job);
    cut(x, job);
}

/* Takes matrices from `first` on until they are enough; returns the next. */
static size_t run_batch(struct examination *x, size_t first) {
    const size_t count = x->list.count;
    size_t i = first, bytes = 0;
    x->job_count = x->stripe_count = 0;
    x->jobs = mem_alloc((count - first) * sizeof *x->jobs);
    for (; i < count && bytes < BATCH_BYTES; i++) {
        const int before = x->job_count;
        begin_job(x, &x->list.items[i], &x->report->matrices[i]);
        if (x->job_count == before) continue;
        const struct list_view *v = &x->jobs[before].view;
        bytes +=
            (size_t)v->rows * (weight_row_bytes(&v->weight) + weight_block_row_bytes(&v->weight));
    }
    if (x->stripe_count) pool_run(x->pool, run_stripe, x, x->stripe_count);
    for (int j = 0; j < x->job_count; j++) put_together(x, &x->jobs[j]);
    x->report->bytes += bytes;
    free(x->jobs);
    free(x->stripes);
    x->stripes = NULL;
    arena_free(&x->arena);
    list_drop_copies(&x->list);
    list_drop_copies(&x->reference_list);
    return i;
}

static void read_weights(struct examination *x) {
    struct health_report *r = x->report;
    pass_tables_make(&x->tables);
    r->count = x->list.count;
    r->matrices = mem_zero(r->count, sizeof *r->matrices);
    const double start = clock_ms();
    for (size_t i = 0; i < r->count;) i = run_batch(x, i);
    r->seconds = (clock_ms() - start) / 1000;
}

/* ---- all ---- */

static int by_level(const void *a, const void *b) {
    const struct health_finding *x = a, *y = b;
    if (x->level != y->level) return x->level > y->level ? -1 : 1;
    const int order = strcmp(x->tensor ? x->tensor : "", y->tensor ? y->tensor : "");
    return order ? order : strcmp(x->rule, y->rule);
}

static int examine(struct checkpoint *ck, struct checkpoint *reference, int threads,
                   struct health_report *out, struct imp_error *err) {
    struct examination x = {.report = out};
    struct arena names = {0};
    list_linears(ck, &names, &x.list);
    if (reference) list_linears(reference, &names, &x.reference_list);
    int rc = 0;
    if (x.list.count == 0) rc = error_set(err, IMP_ERR_FILE, ck->path, "there are no weights");
    if (rc == 0) rc = pool_create(threads, &x.pool, err);
    if (rc == 0) {
        judge_tensors(out, ck);
        read_weights(&x);
        judge_weights(out);
        judge_declared(out, ck);
        judge_text(out, ck);
        if (out->finding_count)
            qsort(out->findings, out->finding_count, sizeof *out->findings, by_level);
    }
    pool_destroy(x.pool);
    list_free(&x.list);
    list_free(&x.reference_list);
    arena_free(&names);
    return rc;
}

static int open_one(const char *path, struct checkpoint *ck, struct imp_error *err) {
    static const struct log silent; /* what would be a remark is a finding here */
    int rc = checkpoint_open(path, true, &silent, ck, err);
    if (rc == 0) ck->keep_bad_scales = true;
    return rc;
}

int health_examine(const char *path, const char *reference, int threads, struct health_report *out,
                   struct imp_error *err) {
    struct checkpoint ck = {0}, other = {0};
    *out = (struct health_report){0};
    int rc = open_one(path, &ck, err);
    if (rc == 0 && reference) rc = open_one(reference, &other, err);
    if (rc == 0) {
        out->path = arena_strndup(&out->arena, path, strlen(path));
        if (reference) out->reference = arena_strndup(&out->arena, reference, strlen(reference));
        rc = examine(&ck, reference ? &other : NULL, threads, out, err);
    }
    checkpoint_close(&other);
    checkpoint_close(&ck);
    if (rc < 0) health_report_free(out);
    return rc;
}

enum health_level health_worst(const struct health_report *r) {
    return r->finding_count ? r->findings[0].level : HEALTH_NOTE;
}

void health_report_free(struct health_report *report) {
    free(report->matrices);
    free(report->findings);
    arena_free(&report->arena);
    *report = (struct health_report){0};
}
