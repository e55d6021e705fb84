#include "engine/trace.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* XXH_INLINE_ALL makes the library unnecessary at link time. */
#define XXH_INLINE_ALL
#include <xxhash.h>

static const char HEADER[] = "seq,position,token,layer,stage,type,cols,max,l2,probe,nan,inf,hash\n";

struct trace {
    FILE *file;
    char *path;
    const struct model *model;
    struct model_tap tap;
    float *host; /* [floats] rows of a stage; 32-bit integers too */
    int64_t floats;

    /* of the step */
    const struct plan *plan;
    const struct batch *batch;
};

/* ---- one row ---- */

struct summary {
    double max, l2, probe;
    int nan, inf;
    uint32_t hash;
};

/* +1 or -1, by the finalizer of MurmurHash3. Part of the file's format. */
static double probe_sign(uint32_t k) {
    k ^= k >> 16;
    k *= 0x85ebca6bu;
    k ^= k >> 13;
    k *= 0xc2b2ae35u;
    k ^= k >> 16;
    return k & 1 ? -1.0 : 1.0;
}

static struct summary summarise(const float *row, int64_t cols, bool integers) {
    struct summary s = {.hash = XXH32(row, (size_t)cols * sizeof *row, 0)};
    double squares = 0;
    for (int64_t k = 0; k < cols; k++) {
        int32_t integer;
        memcpy(&integer, row + k, sizeof integer);
        const double x = integers ? (double)integer : (double)row[k];
        if (isnan(x) || isinf(x)) {
            s.nan += isnan(x) != 0;
            s.inf += isinf(x) != 0;
            continue;
        }
        s.max = fmax(s.max, fabs(x));
        squares += x * x;
        s.probe += probe_sign((uint32_t)k) * x;
    }
    s.l2 = sqrt(squares);
    return s;
}

static void write_row(struct trace *t, enum stage stage, int layer, int row, const float *values,
                      int64_t cols) {
    static const char *const types[] = {
        [STAGE_F32] = "f32", [STAGE_ACT] = "act", [STAGE_I32] = "i32"};
    const struct stage_row *info = &stage_table[stage];
    const struct batch *b = t->batch;
    if (info->out_rows) row = b->out_row[row];
    const struct summary s = summarise(values, cols, info->type == STAGE_I32);
    fprintf(t->file, "%d,%d,%d,%d,%s,%s,%lld,%.9g,%.9g,%.9g,%d,%d,%08x\n",
            t->plan->entry[b->seq[row]].seq->number, b->position[row], b->token[row], layer,
            info->name, types[info->type], (long long)cols, s.max, s.l2, s.probe, s.nan, s.inf,
            s.hash);
}

/* An act comes whole, because its order is the backend's own; a wide row of logits does not have to
 * fit so many times. */
static void on_stage(void *ctx, enum stage stage, int layer, const void *x, int64_t cols) {
    struct trace *t = ctx;
    struct backend *be = t->model->be;
    const bool act = stage_table[stage].type == STAGE_ACT;
    const int rows = stage_table[stage].out_rows ? t->batch->out_rows : t->batch->rows;
    const int64_t fit = t->floats / cols;
    check(fit >= 1 && (!act || fit >= rows));
    for (int first = 0; first < rows;) {
        const int count = rows - first < fit ? rows - first : (int)fit;
        if (act)
            be->ops->act_read(be, x, count, cols, t->host);
        else
            be->ops->read(be, t->host, (const float *)x + first * cols,
                          (size_t)count * (size_t)cols * sizeof *t->host);
        for (int r = 0; r < count; r++)
            write_row(t, stage, layer, first + r, t->host + r * cols, cols);
        first += count;
    }
}

/* ---- the file ---- */

int trace_open(const char *path, const struct model *model, const struct step_limits *max,
               struct trace **out, struct imp_error *err) {
    FILE *file = fopen(path, "wbe");
    if (file == NULL) return error_set(err, IMP_ERR_IO, path, "cannot create: %s", strerror(errno));
    struct trace *t = mem_zero(1, sizeof *t);
    t->file = file;
    t->path = mem_strndup(path, strlen(path));
    t->model = model;
    t->tap = (struct model_tap){.ctx = t, .stage = on_stage};
    t->floats = max64(max->rows * max->max_cols, model_stage_max_cols(&model->desc));
    t->host = mem_alloc((size_t)t->floats * sizeof *t->host);
    fputs(HEADER, file);
    *out = t;
    return 0;
}

void trace_close(struct trace *t) {
    if (t == NULL) return;
    fclose(t->file);
    free(t->path);
    free(t->host);
    free(t);
}

const struct model_tap *trace_begin(struct trace *t, const struct plan *plan,
                                    const struct batch *batch) {
    if (t == NULL) return NULL;
    t->plan = plan;
    t->batch = batch;
    return &t->tap;
}

int trace_end(struct trace *t, struct imp_error *err) {
    if (t == NULL || (fflush(t->file) == 0 && !ferror(t->file))) return 0;
    return error_set(err, IMP_ERR_IO, t->path, "cannot write the trace: %s", strerror(errno));
}
