#include "quantize/calibrate.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "base/str.h"
#include "base/thread.h"
#include "model/model.h"

/* Tokens of one sequence: each starts from an empty cache. */
enum { WINDOW_TOKENS = 512, LAYER_INPUTS = 9 };

/* Sums of squares of what one linear reads. */
struct input_sum {
    enum module module, last; /* those that read it */
    int layer;
    int64_t cols;
    double *sum; /* [cols] */
};

struct calibration {
    struct checkpoint checkpoint;
    struct backend *be;
    struct model model;
    struct input_sum *inputs; /* [layers * LAYER_INPUTS], in the order of the pass */
    size_t input_count, input_at;
    float *rows; /* [WINDOW_TOKENS, max_cols] */
};

static void tap(void *ctx, enum module module, enum module last, int layer, const void *x, int rows,
                int64_t cols) {
    struct calibration *c = ctx;
    struct input_sum *in = &c->inputs[c->input_at++];
    if (in->sum == NULL) {
        *in =
            (struct input_sum){module, last, layer, cols, mem_zero((size_t)cols, sizeof *in->sum)};
        c->input_count++;
    }
    check(in->module == module && in->layer == layer);
    c->be->ops->act_read(c->be, x, rows, cols, c->rows);
    for (int r = 0; r < rows; r++) {
        const float *row = c->rows + r * cols;
        for (int64_t k = 0; k < cols; k++) in->sum[k] += (double)row[k] * (double)row[k];
    }
}

static int open_model(struct calibration *c, const struct calibrate_options *o,
                      struct imp_error *err) {
    struct backend_options be = {.kind = BACKEND_CPU_REFERENCE,
                                 .threads = o->threads ? (int)o->threads : cpu_count()};
    int rc;
    if ((rc = checkpoint_open(o->folder, true, o->log, &c->checkpoint, err)) < 0 ||
        (rc = backend_open(&be, &c->be, err)) < 0 ||
        (rc = model_open(&c->checkpoint, c->be, NULL, NULL, &c->model, err)) < 0)
        return rc;
    const struct model_desc *desc = &c->model.desc;
    const int blocks = (WINDOW_TOKENS + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    const struct model_memory memory = {{blocks, blocks}, 1};
    struct step_limits limits = {.rows = WINDOW_TOKENS, .seqs = 1, .max_blocks = blocks};
    model_desc_limits(desc, &limits);
    c->inputs = mem_zero((size_t)desc->layers * LAYER_INPUTS, sizeof *c->inputs);
    c->rows = mem_zero((size_t)WINDOW_TOKENS * (size_t)limits.max_cols, sizeof *c->rows);
    return model_reserve(&c->model, &limits, &memory, err);
}

static int run_window(struct calibration *c, uint32_t first, int count, struct imp_error *err) {
    int32_t token[WINDOW_TOKENS], position[WINDOW_TOKENS], seq[WINDOW_TOKENS] = {0};
    int32_t blocks[WINDOW_TOKENS / KV_BLOCK_TOKENS], seq_row[2] = {0, count}, slot = 0;
    for (int i = 0; i < count; i++) {
        token[i] = (int32_t)(rng_uniform(0, 0, first + (uint64_t)i) * (double)c->model.desc.vocab);
        position[i] = i;
    }
    for (int i = 0; i < WINDOW_TOKENS / KV_BLOCK_TOKENS; i++) blocks[i] = i;
    struct batch batch = {.rows = count,
                          .seqs = 1,
                          .token = token,
                          .position = position,
                          .seq = seq,
                          .seq_row = seq_row,
                          .blocks = {blocks, blocks},
                          .slot = &slot,
                          .max_blocks = WINDOW_TOKENS / KV_BLOCK_TOKENS};
    struct model_tap taps = {tap, c};
    c->input_at = 0;
    return model_forward(&c->model, &batch, &taps, err);
}

static void add_moments(const struct calibration *c, uint32_t tokens, struct moments *out) {
    for (size_t i = 0; i < c->input_count; i++) {
        const struct input_sum *in = &c->inputs[i];
        float *h = mem_alloc((size_t)in->cols * sizeof *h);
        for (int64_t k = 0; k < in->cols; k++) h[k] = (float)(in->sum[k] / (double)tokens);
        const float *stored = h;
        for (enum module m = in->module; m <= in->last; m++) {
            char name[128];
            module_name(&c->model.desc, m, in->layer, name);
            stored = moments_add(out, name, stored, in->cols);
        }
        free(h);
    }
}

static void close_all(struct calibration *c) {
    for (size_t i = 0; i < c->input_count; i++) free(c->inputs[i].sum);
    free(c->inputs);
    free(c->rows);
    model_close(&c->model);
    backend_close(c->be);
    checkpoint_close(&c->checkpoint);
}

int calibrate_input_moments(const struct calibrate_options *o, struct moments *out,
                            struct imp_error *err) {
    struct calibration c = {0};
    int rc = open_model(&c, o, err);
    uint32_t window = WINDOW_TOKENS;
    if (rc == 0 && c.model.desc.max_context < window) window = (uint32_t)c.model.desc.max_context;
    for (uint32_t done = 0; rc == 0 && done < o->tokens;) {
        uint32_t count = o->tokens - done < window ? o->tokens - done : window;
        if (o->progress && o->progress(o->progress_ctx, "calibrate", done, o->tokens, "tokens"))
            rc = error_set(err, IMP_ERR_CANCELLED, o->folder, "calibration was cancelled");
        if (rc == 0) rc = run_window(&c, done, (int)count, err);
        done += count;
    }
    if (rc == 0) add_moments(&c, o->tokens, out);
    if (rc == 0 && o->progress)
        o->progress(o->progress_ctx, "calibrate", o->tokens, o->tokens, "tokens");
    close_all(&c);
    return rc;
}
