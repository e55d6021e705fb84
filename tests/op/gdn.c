/* The gated delta net against its recurrence in double, and against itself in every cut. */
#include "op/harness.h"

struct gdn_test {
    const struct gdn_case *c;
    struct stream stream;
    float *conv, *decay, *dt_bias, *norm;
    uint8_t *state;
    size_t state_bytes;
};

static const float EPS = 1e-6f;

static int64_t values_of(const struct gdn_shape *s) {
    return (int64_t)s->value_heads * s->value_dim;
}

static void setup(struct gdn_test *t, const struct gdn_case *c) {
    const struct gdn_shape *s = &c->shape;
    *t = (struct gdn_test){.c = c};
    stream_setup(&t->stream, c->tokens, gdn_row(s), 1.0f);
    t->conv = normals(gdn_channels(s) * GDN_CONV, 1, 0.5f);
    t->decay = normals(s->value_heads, 2, 1.0f);
    t->dt_bias = normals(s->value_heads, 3, 1.0f);
    t->norm = normals(s->value_dim, 4, 1.0f);
    for (int i = 0; i < s->value_heads; i++) t->decay[i] = expf(t->decay[i]);
}

static void teardown(struct gdn_test *t) {
    stream_teardown(&t->stream);
    op_free(t->conv);
    op_free(t->decay);
    op_free(t->dt_bias);
    op_free(t->norm);
}

/* ---- exactly ---- */

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* [tokens, channels] */
static double *convolved(const struct gdn_test *t) {
    const int64_t channels = gdn_channels(&t->c->shape);
    double *out = mem_alloc((size_t)(t->c->tokens * channels) * sizeof *out);
    for (int r = 0; r < t->c->tokens; r++) {
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0;
            for (int j = 0; j < GDN_CONV; j++) {
                int at = r - (GDN_CONV - 1) + j;
                if (at < 0) continue;
                sum += (double)t->conv[c * GDN_CONV + j] *
                       t->stream.in[TESTED][at * t->stream.width + c];
            }
            out[r * channels + c] = sum * sigmoid(sum);
        }
    }
    return out;
}

static void unit_vector(const double *x, int n, double factor, double *out) {
    double sum = 1e-6;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    for (int i = 0; i < n; i++) out[i] = x[i] * factor / sqrt(sum);
}

/* S [key_dim, value_dim] through one row; o = S^T q. */
static void delta(double *state, const double *q, const double *k, const double *v, double alpha,
                  double beta, const struct gdn_shape *s, double *o) {
    for (int j = 0; j < s->value_dim; j++) {
        double held = 0;
        o[j] = 0;
        for (int i = 0; i < s->key_dim; i++) {
            state[i * s->value_dim + j] *= alpha;
            held += state[i * s->value_dim + j] * k[i];
        }
        for (int i = 0; i < s->key_dim; i++) {
            state[i * s->value_dim + j] += k[i] * beta * (v[j] - held);
            o[j] += state[i * s->value_dim + j] * q[i];
        }
    }
}

static void check_head(const struct target *target, const struct gdn_test *t, int row, int head,
                       const double *o, const float *out) {
    const struct gdn_shape *s = &t->c->shape;
    const float *z = t->stream.in[TESTED] + row * t->stream.width + gdn_channels(s) +
                     (int64_t)head * s->value_dim;
    double sum = 0, most = 0;
    for (int j = 0; j < s->value_dim; j++) {
        sum += o[j] * o[j];
        most = fmax(most, fabs(o[j]));
    }
    double scale = 1 / sqrt(sum / s->value_dim + (double)EPS);
    for (int j = 0; j < s->value_dim; j++) {
        double factor = scale * t->norm[j] * z[j] * sigmoid(z[j]);
        /* A sum of key_dim terms that may cancel, over a state that remembers its roundings. */
        double slack = target->bounds->delta * fabs(o[j]) + target->bounds->state * (most + 0x1p-6);
        slack *= fabs(factor);
        check_act(target, out[j], o[j] * factor, slack, t->c->name, row, head * s->value_dim + j);
    }
}

static void exact(const struct target *target, void *ctx, const float *out) {
    const struct gdn_test *t = ctx;
    const struct gdn_shape *s = &t->c->shape;
    const int64_t channels = gdn_channels(s), keys = (int64_t)s->key_heads * s->key_dim;
    double *u = convolved(t), q[512], k[512], o[512];
    double *state = mem_alloc((size_t)(s->key_dim * s->value_dim) * sizeof *state);
    for (int head = 0; head < s->value_heads; head++) {
        const int key_head = head / (s->value_heads / s->key_heads);
        memset(state, 0, (size_t)(s->key_dim * s->value_dim) * sizeof *state);
        for (int r = 0; r < t->c->tokens; r++) {
            const double *row = u + r * channels;
            const float *ba = t->stream.in[TESTED] + r * t->stream.width + channels + values_of(s);
            double step = (double)ba[s->value_heads + head] + t->dt_bias[head];
            unit_vector(row + key_head * s->key_dim, s->key_dim, 1 / sqrt(s->key_dim), q);
            unit_vector(row + keys + key_head * s->key_dim, s->key_dim, 1, k);
            delta(state, q, k, row + 2 * keys + head * s->value_dim,
                  exp(-t->decay[head] * log1p(exp(step))), sigmoid(ba[head]), s, o);
            check_head(target, t, r, head, o, out + r * values_of(s) + head * s->value_dim);
        }
    }
    free(u);
    free(state);
}

/* ---- the op ---- */

/* Nothing is in the slots before position 0 but poison. */
static void make(struct backend *be, void *ctx) {
    struct gdn_test *t = ctx;
    t->state_bytes = be->ops->gdn_state_bytes(be, &t->c->shape);
    t->state = op_alloc(SLOTS * t->state_bytes);
}

static void step(struct backend *be, void *ctx, struct step *step, float *out) {
    struct gdn_test *t = ctx;
    void *act = act_alloc(be, step->batch.rows, values_of(&t->c->shape));
    be->ops->gdn(be, &(struct op_gdn){.shape = t->c->shape,
                                      .in = step->in,
                                      .conv = t->conv,
                                      .decay = t->decay,
                                      .dt_bias = t->dt_bias,
                                      .norm = t->norm,
                                      .eps = EPS,
                                      .state = t->state,
                                      .out = act});
    take_act(be, act, step->batch.rows, values_of(&t->c->shape), out);
}

/* Slots of nobody are as they were. */
static void end(struct backend *be, void *ctx, const struct cut *cut) {
    struct gdn_test *t = ctx;
    bool used[SLOTS] = {false};
    (void)be;
    for (int s = 0; s < SEQS; s++)
        if (cut->mask >> s & 1) used[(s * 3 + cut->shuffle) % SLOTS] = true;
    for (size_t i = 0; i < SLOTS * t->state_bytes; i++) {
        if (!used[i / t->state_bytes]) assert_int_equal(t->state[i], 0xFF);
    }
    op_free(t->state);
}

static void run_case(const struct gdn_case *c, bool large) {
    struct gdn_test t;
    setup(&t, c);
    stream_test_all(&(struct stream_test){.what = t.c->name,
                                          .stream = &t.stream,
                                          .out_width = values_of(&t.c->shape),
                                          .large = large,
                                          .ctx = &t,
                                          .make = make,
                                          .step = step,
                                          .end = end,
                                          .exact = exact},
                    1e-4);
    teardown(&t);
}

static void test_gdn(void **state) {
    run_case(*state, false);
}
static void test_large_gdn(void **state) {
    run_case(*state, true);
}

int main(void) {
    struct CMUnitTest tests[COUNT(GDN_CASES) + COUNT(LARGE_GDN_CASES)] = {{0}};
    ADD_TESTS(tests, test_gdn, GDN_CASES);
    if (test_gpu()) ADD_TESTS(tests, test_large_gdn, LARGE_GDN_CASES);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
