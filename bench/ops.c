/* Times the ops of the CPU backend: the linears of tests/op/cases.h, and all ops of a model of
 * SmolLM2-135M's shape in the order of a forward pass. A probe of read bandwidth runs before and
 * after: two figures far apart mean that the machine was not ours alone.
 *
 *     bench_ops [threads [isa [decode]]]      a third argument leaves the prompts out */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "op/support.h"

enum {
    MAX_ROWS = 512,
    HIDDEN = 576,
    WIDE = 1536,
    HEADS = 9,
    KV_HEADS = 3,
    DIM = 64,
    LAYERS = 30,
    VOCAB = 49152,
    BLOCKS = 16
};

/* ---- read bandwidth ---- */

enum { PROBE_BYTES = 256 << 20, PROBE_TASKS = 64 };
struct probe {
    const uint64_t *data;
    uint64_t sum[PROBE_TASKS];
};

static void probe_task(void *ctx, int task, int thread) {
    (void)thread;
    struct probe *probe = ctx;
    const size_t n = PROBE_BYTES / 8 / PROBE_TASKS;
    const uint64_t *p = probe->data + (size_t)task * n;
    uint64_t s[8] = {0};
    for (size_t i = 0; i < n; i += 8)
        for (int j = 0; j < 8; j++) s[j] += p[i + (size_t)j];
    for (int j = 1; j < 8; j++) s[0] += s[j];
    probe->sum[task] = s[0];
}

static double probe_gb_per_s(int threads) {
    struct pool *pool = NULL;
    if (pool_create(threads, &pool, NULL) < 0) return 0;
    void *data = malloc(PROBE_BYTES);
    memset(data, 1, PROBE_BYTES);
    struct probe probe = {.data = data};
    double best = 1e30;
    for (int i = 0; i < 5; i++) {
        double start = clock_ms();
        pool_run(pool, probe_task, &probe, PROBE_TASKS);
        double ms = clock_ms() - start;
        if (ms < best) best = ms;
    }
    volatile uint64_t sink = probe.sum[0];
    (void)sink;
    free(data);
    pool_destroy(pool);
    return PROBE_BYTES / best * 1e-6;
}

/* ---- one linear ---- */

static void time_linear(struct backend *be, const struct matrix *m, const char *name, int rows,
                        const void *x, float *y) {
    struct op_linear op = {ROWS_ALL, LINEAR_STORE, m, x, y};
    be->ops->step_begin(be, &(struct batch){.rows = rows});
    double best = 1e30, begin = clock_ms();
    while (clock_ms() - begin < 60) {
        double start = clock_ms();
        be->ops->linear(be, &op);
        double ms = clock_ms() - start;
        if (ms < best) best = ms;
    }
    printf("%-30s %5lld x %-5lld rows %3d %9.1f us %7.2f GB/s %8.2f GMAC/s\n", name,
           (long long)m->rows, (long long)m->cols, rows, best * 1e3, (double)m->bytes / best * 1e-6,
           (double)m->rows * (double)m->cols * rows / best * 1e-6);
}

static double packing_ms;

static struct matrix *make_matrix(struct backend *be, const struct linear_case *c) {
    struct weight parts[3];
    struct matrix *m = NULL;
    for (int i = 0; i < c->count; i++)
        parts[i] = case_weight(&c->part[i], c->cols, 100 + (uint64_t)i);
    double start = clock_ms();
    if (be->ops->matrix_create(be, parts, c->count, NULL, &m, NULL) < 0) abort();
    packing_ms += clock_ms() - start;
    for (int i = 0; i < c->count; i++) case_weight_free(&parts[i]);
    return m;
}

/* ---- a model ---- */

struct bench_model {
    struct matrix *qkv[LAYERS], *out[LAYERS], *gate_up[LAYERS], *down[LAYERS], *head;
    void *kv[LAYERS], *x, *q;
    float *h, *wide, *logits, *angles, norm[HIDDEN];
};

static const struct linear_case MODEL_CASES[] = {
    {"qkv",
     HIDDEN,
     3,
     {{WEIGHT_NVFP4, 576, 0, 0}, {WEIGHT_NVFP4, 192, 0, 0}, {WEIGHT_NVFP4, 192, 0, 0}},
     false},
    {"out", HIDDEN, 1, {{WEIGHT_NVFP4, HIDDEN, 0, 0}}, false},
    {"gate_up", HIDDEN, 2, {{WEIGHT_NVFP4, WIDE, 0, 0}, {WEIGHT_NVFP4, WIDE, 0, 0}}, false},
    {"down", WIDE, 1, {{WEIGHT_NVFP4, HIDDEN, 0, 0}}, false},
    {"head", HIDDEN, 1, {{WEIGHT_BF16, VOCAB, 0, 0}}, false},
};

static void *device(struct backend *be, size_t bytes) {
    void *p = NULL;
    if (be->ops->alloc(be, bytes, &p, NULL) < 0) abort();
    memset(p, 0, bytes);
    return p;
}

static void model_make(struct backend *be, struct bench_model *m) {
    for (int i = 0; i < LAYERS; i++) {
        m->qkv[i] = make_matrix(be, &MODEL_CASES[0]);
        m->out[i] = make_matrix(be, &MODEL_CASES[1]);
        m->gate_up[i] = make_matrix(be, &MODEL_CASES[2]);
        m->down[i] = make_matrix(be, &MODEL_CASES[3]);
        m->kv[i] = device(be, BLOCKS * be->ops->kv_block_bytes(be, KV_HEADS, DIM));
    }
    m->head = make_matrix(be, &MODEL_CASES[4]);
    m->x = device(be, MAX_ROWS * be->ops->act_bytes(be, WIDE));
    m->q = device(be, MAX_ROWS * be->ops->act_bytes(be, HIDDEN));
    m->h = device(be, MAX_ROWS * HIDDEN * sizeof(float));
    m->wide = device(be, MAX_ROWS * 2 * WIDE * sizeof(float));
    m->logits = device(be, VOCAB * sizeof(float));
    m->angles = device(be, MAX_ROWS * DIM * sizeof(float));
    for (int i = 0; i < HIDDEN; i++) m->norm[i] = 1;
}

enum { TIME_ROWS, TIME_QKV, TIME_ATTENTION, TIME_LINEAR, TIME_HEAD, TIMES };
static const char *const TIME_NAMES[TIMES] = {"norm+glu", "qkv", "attention", "linear", "head"};

static void lap(double *from, double *into) {
    double now = clock_ms();
    *into += now - *from;
    *from = now;
}

static void model_layer(struct backend *be, struct bench_model *m, int i, double *t) {
    double now = clock_ms();
    struct op_norm norm = {ROWS_ALL, m->h, m->norm, 1e-5f, HIDDEN, m->x};
    be->ops->norm(be, &norm);
    lap(&now, &t[TIME_ROWS]);
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, LINEAR_STORE, m->qkv[i], m->x, m->wide});
    lap(&now, &t[TIME_LINEAR]);
    be->ops->qkv(be, &(struct op_qkv){.qkv = m->wide,
                                      .row_cols = (HEADS + 2 * KV_HEADS) * DIM,
                                      .heads = HEADS,
                                      .kv_heads = KV_HEADS,
                                      .head_dim = DIM,
                                      .q_step = DIM,
                                      .angles = m->angles,
                                      .pairs = DIM / 2,
                                      .pair_offset = DIM / 2,
                                      .q_scale = 0.125f,
                                      .q = m->q,
                                      .kv = m->kv[i]});
    lap(&now, &t[TIME_QKV]);
    be->ops->attention(be, &(struct op_attention){.q = m->q,
                                                  .kv = m->kv[i],
                                                  .heads = HEADS,
                                                  .kv_heads = KV_HEADS,
                                                  .head_dim = DIM,
                                                  .out = m->x});
    lap(&now, &t[TIME_ATTENTION]);
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, LINEAR_ADD, m->out[i], m->x, m->h});
    lap(&now, &t[TIME_LINEAR]);
    be->ops->norm(be, &norm);
    lap(&now, &t[TIME_ROWS]);
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, LINEAR_STORE, m->gate_up[i], m->x, m->wide});
    lap(&now, &t[TIME_LINEAR]);
    be->ops->glu(be, &(struct op_glu){.kind = GLU_SILU,
                                      .gate = m->wide,
                                      .up = m->wide + WIDE,
                                      .gate_row = 2 * WIDE,
                                      .up_row = 2 * WIDE,
                                      .step = 1,
                                      .cols = WIDE,
                                      .out = m->x});
    lap(&now, &t[TIME_ROWS]);
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, LINEAR_ADD, m->down[i], m->x, m->h});
    lap(&now, &t[TIME_LINEAR]);
}

static double model_step(struct backend *be, struct bench_model *m, int rows, int start,
                         double *t) {
    int32_t position[MAX_ROWS], seq[MAX_ROWS] = {0}, blocks[BLOCKS], out_row = rows - 1;
    for (int i = 0; i < rows; i++) position[i] = start + i;
    for (int i = 0; i < BLOCKS; i++) blocks[i] = BLOCKS - 1 - i;
    struct batch batch = {.rows = rows,
                          .seqs = 1,
                          .out_rows = 1,
                          .position = position,
                          .seq = seq,
                          .blocks = {blocks, blocks},
                          .max_blocks = BLOCKS,
                          .out_row = &out_row};
    static const float frequency[DIM / 2] = {1, 0.5f, 0.25f};
    double begin = clock_ms();
    be->ops->step_begin(be, &batch);
    case_fill(m->h, HIDDEN, 1, 1.0f);
    be->ops->rope_angles(be, &(struct op_rope_angles){frequency, DIM / 2, 1, m->angles});
    for (int i = 0; i < LAYERS; i++) model_layer(be, m, i, t);
    double now = clock_ms();
    be->ops->norm(be, &(struct op_norm){ROWS_OUT, m->h, m->norm, 1e-5f, HIDDEN, m->x});
    be->ops->linear(be, &(struct op_linear){ROWS_OUT, LINEAR_STORE, m->head, m->x, m->logits});
    lap(&now, &t[TIME_HEAD]);
    be->ops->step_end(be, NULL);
    return clock_ms() - begin;
}

static void model_time(struct backend *be, struct bench_model *m, int rows, int start, int steps) {
    double best[TIMES] = {0}, total = 1e30;
    for (int i = 0; i < steps; i++) {
        double t[TIMES] = {0}, ms = model_step(be, m, rows, start, t);
        if (ms < total) memcpy(best, t, sizeof best);
        if (ms < total) total = ms;
    }
    printf("model, %3d row%s at %3d: best step %8.3f ms, %7.1f tok/s;", rows, rows == 1 ? " " : "s",
           start, total, rows / total * 1e3);
    for (int i = 0; i < TIMES; i++) printf(" %s %.3f", TIME_NAMES[i], best[i]);
    printf("\n");
}

/* ---- mixers and experts of Qwen3.6-35B-A3B's shape ---- */

enum { BIG_HIDDEN = 2048, EXPERTS = 256, TOP_K = 8, EXPERT_WIDTH = 512, BIG_ROWS = 128 };
static const struct linear_case EXPERT_CASES[] = {
    {"expert gate_up",
     BIG_HIDDEN,
     2,
     {{WEIGHT_NVFP4, EXPERT_WIDTH, 0, 0}, {WEIGHT_NVFP4, EXPERT_WIDTH, 0, 0}},
     false},
    {"expert down", EXPERT_WIDTH, 1, {{WEIGHT_NVFP4, BIG_HIDDEN, 0, 0}}, false},
};

/* Rows of some sequences: one each, or all of one. */
struct big_batch {
    int32_t position[BIG_ROWS], seq[BIG_ROWS], seq_row[BIG_ROWS + 1], slot[BIG_ROWS];
    struct batch batch;
};

static void big_batch_make(struct big_batch *b, int rows, int seqs) {
    for (int r = 0; r < rows; r++) {
        b->position[r] = 1000 + r;
        b->seq[r] = seqs == 1 ? 0 : r;
    }
    for (int s = 0; s <= seqs; s++) {
        b->seq_row[s] = seqs == 1 ? s * rows : s;
        if (s < seqs) b->slot[s] = s;
    }
    b->batch = (struct batch){.rows = rows,
                              .seqs = seqs,
                              .out_rows = rows,
                              .position = b->position,
                              .seq = b->seq,
                              .seq_row = b->seq_row,
                              .slot = b->slot};
}

typedef void (*timed_fn)(struct backend *be, void *ctx);

static void time_op(struct backend *be, const char *name, int rows, int seqs, double bytes,
                    timed_fn fn, void *ctx) {
    struct big_batch b;
    double best = 1e30, begin = clock_ms();
    big_batch_make(&b, rows, seqs);
    while (clock_ms() - begin < 300) {
        be->ops->step_begin(be, &b.batch);
        double start = clock_ms();
        fn(be, ctx);
        double ms = clock_ms() - start;
        if (ms < best) best = ms;
    }
    printf("%-10s rows %3d, sequences %3d %9.1f us %7.2f GB/s\n", name, rows, seqs, best * 1e3,
           bytes / best * 1e-6);
}

struct big_moe {
    struct experts *experts;
    struct op_route route;
    struct op_moe moe;
};

static void run_route(struct backend *be, void *ctx) {
    be->ops->route(be, &((struct big_moe *)ctx)->route);
}
static void run_moe(struct backend *be, void *ctx) {
    be->ops->moe(be, &((struct big_moe *)ctx)->moe);
}

static float *big_floats(struct backend *be, int64_t n, uint64_t stream, float scale) {
    float *x = device(be, (size_t)n * sizeof *x);
    case_fill(x, n, stream, scale);
    return x;
}

/* Every expert's memory is its own; their values are one's, which is quicker to draw. */
static struct experts *make_experts(struct backend *be) {
    struct matrix *gate_up[EXPERTS], *down[EXPERTS];
    struct weight parts[3];
    struct experts *experts = NULL;
    for (int i = 0; i < 3; i++)
        parts[i] = case_weight(&EXPERT_CASES[i / 2].part[i % 2], EXPERT_CASES[i / 2].cols,
                               500 + 3 * (uint64_t)i);
    for (int e = 0; e < EXPERTS; e++) {
        if (be->ops->matrix_create(be, parts, 2, NULL, &gate_up[e], NULL) < 0 ||
            be->ops->matrix_create(be, parts + 2, 1, NULL, &down[e], NULL) < 0)
            abort();
    }
    if (be->ops->experts_create(be, gate_up, down, EXPERTS, &experts, NULL) < 0) abort();
    for (int i = 0; i < 3; i++) case_weight_free(&parts[i]);
    return experts;
}

/* Bytes of the experts that any of the rows chose. */
static double moe_bytes(const struct big_moe *m, int rows) {
    bool chosen[EXPERTS] = {false};
    int count = 0;
    for (int i = 0; i < rows * TOP_K; i++) {
        count += !chosen[m->moe.expert[i]];
        chosen[m->moe.expert[i]] = true;
    }
    return (double)m->experts->bytes / EXPERTS * count;
}

static void time_moe(struct backend *be) {
    struct big_moe m = {.experts = make_experts(be)};
    void *x = device(be, BIG_ROWS * be->ops->act_bytes(be, BIG_HIDDEN));
    float *h = big_floats(be, BIG_ROWS * BIG_HIDDEN, 1, 1.0f);
    float *y = device(be, BIG_ROWS * BIG_HIDDEN * sizeof *y);
    float *weight = device(be, BIG_ROWS * TOP_K * sizeof *weight);
    float *router = big_floats(be, EXPERTS * BIG_HIDDEN, 2, 0.02f);
    int32_t *expert = device(be, BIG_ROWS * TOP_K * sizeof *expert);
    m.route = (struct op_route){.h = h,
                                .cols = BIG_HIDDEN,
                                .router = router,
                                .experts = EXPERTS,
                                .top_k = TOP_K,
                                .renormalize = true,
                                .expert = expert,
                                .weight = weight};
    m.moe = (struct op_moe){.mode = LINEAR_STORE,
                            .experts = m.experts,
                            .x = x,
                            .expert = expert,
                            .weight = weight,
                            .top_k = TOP_K,
                            .kind = GLU_SILU,
                            .y = y};
    be->ops->step_begin(be, &(struct batch){.rows = BIG_ROWS});
    be->ops->convert(be, &(struct op_convert){h, BIG_HIDDEN, x});
    for (int rows = 1; rows <= BIG_ROWS; rows *= rows == 1 ? 8 : 16) {
        time_op(be, "route", rows, 1, EXPERTS * BIG_HIDDEN * sizeof(float), run_route, &m);
        time_op(be, "moe", rows, 1, moe_bytes(&m, rows), run_moe, &m);
    }
    be->ops->experts_free(be, m.experts);
    void *all[] = {x, h, y, weight, router, expert};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) be->ops->free(be, all[i]);
}

static const struct gdn_shape BIG_GDN = {16, 32, 128, 128};
struct big_gdn {
    struct op_gdn op;
    const float *in;
    int rows;
};

/* The op overwrites its input; the copy is a hundredth of it. */
static void run_gdn(struct backend *be, void *ctx) {
    struct big_gdn *g = ctx;
    memcpy(g->op.in, g->in, (size_t)(g->rows * gdn_row(&BIG_GDN)) * sizeof(float));
    be->ops->gdn(be, &g->op);
}

static void time_gdn(struct backend *be) {
    const struct gdn_shape *s = &BIG_GDN;
    const int64_t values = (int64_t)s->value_heads * s->value_dim;
    const size_t state = be->ops->gdn_state_bytes(be, s);
    float *in = big_floats(be, BIG_ROWS * gdn_row(s), 3, 1.0f);
    struct big_gdn g = {.in = in};
    g.op = (struct op_gdn){.shape = *s,
                           .in = device(be, (size_t)(BIG_ROWS * gdn_row(s)) * sizeof *in),
                           .conv = big_floats(be, gdn_channels(s) * GDN_CONV, 4, 0.5f),
                           .decay = big_floats(be, s->value_heads, 5, 0),
                           .dt_bias = big_floats(be, s->value_heads, 6, 1.0f),
                           .norm = big_floats(be, s->value_dim, 7, 1.0f),
                           .eps = 1e-6f,
                           .state = device(be, BIG_ROWS * state),
                           .out = device(be, BIG_ROWS * be->ops->act_bytes(be, values))};
    for (int h = 0; h < s->value_heads; h++) ((float *)(uintptr_t)g.op.decay)[h] = 0.5f;
    const int cases[][2] = {{1, 1}, {8, 1}, {BIG_ROWS, 1}, {8, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        g.rows = cases[i][0];
        time_op(be, "gdn", g.rows, cases[i][1], 2.0 * (double)state * cases[i][1], run_gdn, &g);
    }
    void *all[] = {in,
                   g.op.in,
                   g.op.state,
                   g.op.out,
                   (void *)(uintptr_t)g.op.conv,
                   (void *)(uintptr_t)g.op.decay,
                   (void *)(uintptr_t)g.op.dt_bias,
                   (void *)(uintptr_t)g.op.norm};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) be->ops->free(be, all[i]);
}

int main(int argc, char **argv) {
    struct backend_options options = {BACKEND_CPU, argc > 1 ? atoi(argv[1]) : cpu_count(), false,
                                      argc > 2 ? argv[2] : NULL};
    struct step_limits max = {.rows = MAX_ROWS,
                              .seqs = 1,
                              .out_rows = 1,
                              .max_blocks = BLOCKS,
                              .max_cols = 4096,
                              .max_heads = HEADS,
                              .max_head_dim = DIM,
                              .vocab = VOCAB,
                              .moe_top_k = TOP_K,
                              .moe_width = EXPERT_WIDTH,
                              .moe_hidden = BIG_HIDDEN};
    struct backend *be = NULL;
    struct imp_error err;
    if (backend_open(&options, &be, &err) < 0 || be->ops->reserve(be, &max, &err) < 0) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s; read probe %.1f GB/s\n", be->name, probe_gb_per_s(options.threads));
    time_gdn(be);
    time_moe(be);
    struct bench_model *m = mem_zero(1, sizeof *m);
    model_make(be, m);
    printf("weights of the model packed in %.0f ms\n", packing_ms);
    const struct matrix *matrices[] = {m->qkv[0], m->out[0], m->gate_up[0], m->down[0], m->head};
    const int rows[] = {1, 2, 4, 8, 64, 512};
    for (int i = 0; i < 5; i++) {
        for (int r = 0; r < 6; r++) {
            if (i == 4 && rows[r] > 1) continue; /* logits of one row */
            time_linear(be, matrices[i], MODEL_CASES[i].name, rows[r], m->x,
                        i == 4 ? m->logits : m->wide);
        }
    }
    for (size_t i = 0; i < sizeof LINEAR_CASES / sizeof LINEAR_CASES[0]; i++) {
        struct matrix *matrix = make_matrix(be, &LINEAR_CASES[i]);
        time_linear(be, matrix, LINEAR_CASES[i].name, 1, m->x, m->wide);
        time_linear(be, matrix, LINEAR_CASES[i].name, 64, m->x, m->wide);
        be->ops->matrix_free(be, matrix);
    }
    for (int repeat = 0; repeat < 3; repeat++) {
        model_time(be, m, 1, 0, 64);
        model_time(be, m, 1, 512, 64);
        if (argc < 4) model_time(be, m, 512, 0, 2);
    }
    printf("read probe %.1f GB/s\n", probe_gb_per_s(options.threads));
    return 0;
}
