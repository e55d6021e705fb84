#include "quantize/calibrate.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "base/str.h"
#include "base/thread.h"
#include "model/model.h"

/* Tokens of one sequence: each starts from an empty cache. */
enum { WINDOW_TOKENS = 512, LAYER_INPUTS = 10 };
/* An expert that few tokens chose is weighted as if so many average rows of the layer's came on
 * top: a mean over a handful of rows says more about them than about the expert. */
enum { PRIOR_ROWS = 32 };

/* Sums of squares of what one linear, or each expert of a layer, reads. */
struct input_sum {
    enum module module, last; /* those that read it */
    int layer, owners;        /* owners: experts, or 1 */
    int64_t cols;
    double *sum;    /* [owners, cols] */
    uint32_t *rows; /* [owners] */
};

struct calibration {
    struct checkpoint checkpoint;
    struct backend *be;
    struct model model;
    struct input_sum *inputs; /* [layers * LAYER_INPUTS], in the order of the pass */
    size_t input_count, input_at;
    int top_k;
    float *rows;     /* [WINDOW_TOKENS * top_k, max_cols] */
    int32_t *expert; /* [WINDOW_TOKENS, top_k] */
    void *inner;     /* device: of struct model_tap */
};

static void add_row(struct input_sum *in, int owner, const float *row) {
    double *sum = in->sum + owner * in->cols;
    for (int64_t k = 0; k < in->cols; k++) sum[k] += (double)row[k] * (double)row[k];
    in->rows[owner]++;
}

static struct input_sum *next_input(struct calibration *c, enum module module, enum module last,
                                    int layer, int64_t cols) {
    struct input_sum *in = &c->inputs[c->input_at++];
    bool experts = module == MODULE_EXPERTS || module == MODULE_EXPERTS_DOWN;
    int owners = experts ? c->model.desc.layer[layer].moe.experts : 1;
    if (in->sum == NULL) {
        *in = (struct input_sum){module, last, layer, owners, cols, NULL, NULL};
        in->sum = mem_zero((size_t)owners * (size_t)cols, sizeof *in->sum);
        in->rows = mem_zero((size_t)owners, sizeof *in->rows);
        c->input_count++;
    }
    check(in->module == module && in->layer == layer);
    return in;
}

static void tap(void *ctx, enum module module, enum module last, int layer, const void *x, int rows,
                int64_t cols) {
    struct calibration *c = ctx;
    struct input_sum *in = next_input(c, module, last, layer, cols);
    c->be->ops->act_read(c->be, x, rows, cols, c->rows);
    if (module != MODULE_EXPERTS && module != MODULE_EXPERTS_DOWN) {
        for (int r = 0; r < rows; r++) add_row(in, 0, c->rows + r * cols);
        return;
    }
    const int top_k = c->model.desc.layer[layer].moe.top_k;
    const int slots = module == MODULE_EXPERTS ? rows * top_k : rows;
    c->be->ops->read(c->be, c->expert, c->model.expert, (size_t)slots * sizeof *c->expert);
    for (int i = 0; i < slots; i++) {
        int row = module == MODULE_EXPERTS ? i / top_k : i;
        add_row(in, c->expert[i], c->rows + row * cols);
    }
}

static int reserve(struct calibration *c, struct imp_error *err) {
    const struct model_desc *desc = &c->model.desc;
    const int blocks = (WINDOW_TOKENS + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    const struct model_memory memory = {{blocks, blocks}, 1};
    struct step_limits limits = {.rows = WINDOW_TOKENS, .seqs = 1, .max_blocks = blocks};
    model_desc_limits(desc, &limits);
    c->top_k = limits.moe_top_k > 0 ? limits.moe_top_k : 1;
    c->inputs = mem_zero((size_t)desc->layers * LAYER_INPUTS, sizeof *c->inputs);
    const size_t slots = (size_t)WINDOW_TOKENS * (size_t)c->top_k;
    const size_t widest = (size_t)WINDOW_TOKENS * (size_t)limits.max_cols;
    const size_t inner = slots * (size_t)limits.moe_width;
    c->rows = mem_zero(inner > widest ? inner : widest, sizeof *c->rows);
    c->expert = mem_zero(slots, sizeof *c->expert);
    int rc = 0;
    if (limits.moe_width > 0)
        rc = c->be->ops->alloc(c->be, slots * c->be->ops->act_bytes(c->be, limits.moe_width),
                               &c->inner, err);
    return rc < 0 ? rc : model_reserve(&c->model, &limits, &memory, err);
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
    return reserve(c, err);
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
    struct model_tap taps = {.fn = tap, .ctx = c, .inner = c->inner};
    c->input_at = 0;
    return model_forward(&c->model, &batch, &taps, err);
}

/* The name that convert asks for: as the files have it, which may put more in front. */
static void file_name(const struct calibration *c, enum module module, int layer, struct str *out) {
    static const char model[] = "model.";
    char name[128];
    module_name(&c->model.desc, module, layer, name);
    str_clear(out);
    str_add_text(out, c->checkpoint.prefix);
    str_add_text(out, name + sizeof model - 1);
}

static void add_linears(const struct calibration *c, const struct input_sum *in,
                        struct moments *out) {
    float *h = mem_alloc((size_t)in->cols * sizeof *h);
    for (int64_t k = 0; k < in->cols; k++) h[k] = (float)(in->sum[k] / in->rows[0]);
    const float *stored = h;
    struct str name = {0};
    for (enum module m = in->module; m <= in->last; m++) {
        file_name(c, m, in->layer, &name);
        stored = moments_add(out, name.data, stored, in->cols);
    }
    str_free(&name);
    free(h);
}

static void add_experts(const struct calibration *c, const struct input_sum *in,
                        struct moments *out) {
    float *h = mem_alloc((size_t)in->cols * sizeof *h);
    double *mean = mem_zero((size_t)in->cols, sizeof *mean), rows = 0;
    struct str name = {0};
    for (int e = 0; e < in->owners; e++) rows += in->rows[e];
    for (int e = 0; e < in->owners; e++)
        for (int64_t k = 0; k < in->cols; k++) mean[k] += in->sum[e * in->cols + k] / rows;
    for (int e = 0; e < in->owners; e++) {
        for (int64_t k = 0; k < in->cols; k++)
            h[k] = (float)((in->sum[e * in->cols + k] + PRIOR_ROWS * mean[k]) /
                           (in->rows[e] + PRIOR_ROWS));
        file_name(c, MODULE_EXPERTS, in->layer, &name);
        str_printf(&name, ".%d.%s", e, in->module == MODULE_EXPERTS ? "in" : "out");
        moments_add(out, name.data, h, in->cols);
    }
    str_free(&name);
    free(mean);
    free(h);
}

static void add_moments(const struct calibration *c, struct moments *out) {
    for (size_t i = 0; i < c->input_count; i++) {
        const struct input_sum *in = &c->inputs[i];
        bool experts = in->module == MODULE_EXPERTS || in->module == MODULE_EXPERTS_DOWN;
        (experts ? add_experts : add_linears)(c, in, out);
    }
}

static void close_all(struct calibration *c) {
    for (size_t i = 0; i < c->input_count; i++) {
        free(c->inputs[i].sum);
        free(c->inputs[i].rows);
    }
    free(c->inputs);
    free(c->rows);
    free(c->expert);
    if (c->inner) c->be->ops->free(c->be, c->inner);
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
    if (rc == 0) add_moments(&c, out);
    if (rc == 0 && o->progress)
        o->progress(o->progress_ctx, "calibrate", o->tokens, o->tokens, "tokens");
    close_all(&c);
    return rc;
}
