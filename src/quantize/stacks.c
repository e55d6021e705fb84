#include "quantize/stacks.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "num/fp.h"

enum { MX_BLOCK = 32, NAME_ROOM = CAP_TENSOR_NAME + 32 };

/* ---- elements ---- */

/* Little-endian in the file, and aligned or not: files of other writers need not be. */
static float plain_element(const uint8_t *p, enum dtype dtype, int64_t i) {
    union {
        double d;
        float f;
        uint16_t u;
    } v;
    switch (dtype) {
    case DTYPE_F64:
        memcpy(&v.d, p + i * 8, 8);
        return (float)v.d;
    case DTYPE_F32:
        memcpy(&v.f, p + i * 4, 4);
        return v.f;
    case DTYPE_F16:
        memcpy(&v.u, p + i * 2, 2);
        return fp16_decode(v.u);
    default:
        memcpy(&v.u, p + i * 2, 2);
        return bf16_decode(v.u);
    }
}

void view_read_row(const struct view *v, int64_t row, int64_t cols, float *out) {
    int64_t at = v->base + row / v->group_rows * v->group_step + row % v->group_rows * v->row_step;
    for (int64_t c = 0; c < cols; c++, at += v->col_step) {
        if (v->scales == NULL) {
            out[c] = plain_element(v->data, v->dtype, at);
            continue;
        }
        uint8_t code = at & 1 ? v->data[at / 2] >> 4 : v->data[at / 2] & 15;
        out[c] = e2m1_decode(code) * e8m0_decode(v->scales[at / MX_BLOCK]);
    }
}

/* ---- which tensors ---- */

/* What a file calls a part of a stack, behind "experts.". */
enum member { GATE_UP, DOWN, GATE_UP_BIAS, DOWN_BIAS, SCALES };
static const struct {
    const char *name;
    enum member member;
} NAMES[] = {
    {"gate_up_proj", GATE_UP},
    {"gate_up_proj_blocks", GATE_UP},
    {"down_proj", DOWN},
    {"down_proj_blocks", DOWN},
    {"gate_up_proj_bias", GATE_UP_BIAS},
    {"down_proj_bias", DOWN_BIAS},
    {"gate_up_proj_scales", SCALES},
    {"down_proj_scales", SCALES},
};

struct stack {
    int module; /* length of "....experts" at the start of the names */
    enum member member;
    const struct tensor *gate_up, *down;
    const uint8_t *gate_up_scales, *down_scales; /* MXFP4, or NULL */
    int64_t experts, width, hidden;
    bool transposed;  /* [in, out] in place of [out, in] */
    bool alternating; /* gate and up, row by row */
};

static bool find_member(const char *name, int *module, enum member *out) {
    static const char experts[] = "experts.";
    const char *dot = strrchr(name, '.');
    size_t n = sizeof experts - 1;
    if (dot == NULL || (size_t)(dot + 1 - name) < n || memcmp(dot + 1 - n, experts, n) != 0)
        return false;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        if (strcmp(dot + 1, NAMES[i].name) != 0) continue;
        *module = (int)(dot - name);
        *out = NAMES[i].member;
        return true;
    }
    return false;
}

static const struct tensor *sibling(const struct checkpoint *ck, const struct tensor *t, int module,
                                    const char *name) {
    char full[NAME_ROOM];
    snprintf(full, sizeof full, "%.*s.%s", module, t->name, name);
    return checkpoint_find(ck, full);
}

static int bad_stack(const struct tensor *t, int code, struct imp_error *err, const char *what) {
    char place[sizeof err->where], shape[128];
    tensor_shape_text(t, shape);
    error_place(place, t->file, "tensor %s", t->name);
    return error_set(err, code, place, "%s %s: %s", dtype_name(t->dtype), shape, what);
}

/* 3 dimensions, whichever way the elements are stored. */
static bool has_shape(const struct tensor *t, bool mxfp4, int64_t out[3]) {
    if (t->bytes == 0 || t->dims != (mxfp4 ? 4 : 3)) return false;
    memcpy(out, t->shape, 3 * sizeof *out);
    if (!mxfp4) return source_is_float(t->dtype);
    out[2] *= MX_BLOCK;
    return t->dtype == DTYPE_U8 && t->shape[3] == MX_BLOCK / 2;
}

static int find_scales(const struct tensor *blocks, const struct tensor *scales,
                       const uint8_t **out, struct imp_error *err) {
    if (scales == NULL || scales->bytes * (MX_BLOCK / 2) != blocks->bytes ||
        (scales->dtype != DTYPE_U8 && scales->dtype != DTYPE_F8_E8M0))
        return bad_stack(blocks, IMP_ERR_FILE, err, "no scale for every 32 codes beside it");
    *out = scales->data;
    return 0;
}

/* The order of the dimensions, from both shapes: H and I that fit one way never fit the other. */
static int find_sizes(const struct tensor *t, struct stack *s, bool mxfp4, struct imp_error *err) {
    int64_t g[3], d[3];
    if (!has_shape(s->gate_up, mxfp4, g) || !has_shape(s->down, mxfp4, d) || g[0] != d[0] ||
        g[0] > CAP_EXPERTS)
        return bad_stack(t, IMP_ERR_FILE, err, "no stack of experts");
    s->experts = g[0];
    bool plain = g[2] == d[1] && g[1] == 2 * d[2];
    s->transposed = !plain && !mxfp4 && g[1] == d[2] && g[2] == 2 * d[1];
    if (!plain && !s->transposed)
        return bad_stack(t, IMP_ERR_FILE, err, "gate_up_proj and down_proj do not fit together");
    s->hidden = plain ? d[1] : d[2];
    s->width = plain ? d[2] : d[1];
    return 0;
}

static int check_bias(const struct checkpoint *ck, const struct tensor *t, const struct stack *s,
                      const char *name, int64_t n, struct imp_error *err) {
    const struct tensor *bias = sibling(ck, t, s->module, name);
    if (bias == NULL) return 0;
    if (bias->dims == 2 && bias->shape[0] == s->experts && bias->shape[1] == n &&
        source_is_float(bias->dtype))
        return 0;
    return bad_stack(bias, IMP_ERR_FILE, err, "not one bias for every row of every expert");
}

/* 1: t is a part of *out; 0: it is none of any stack. */
static int find_stack(const struct checkpoint *ck, const struct tensor *t, struct stack *out,
                      struct imp_error *err) {
    struct stack s = {0};
    int rc;
    if (checkpoint_role(t->name) != TENSOR_TEXT || !find_member(t->name, &s.module, &s.member))
        return 0;
    bool mxfp4 = sibling(ck, t, s.module, "gate_up_proj_blocks") != NULL;
    s.gate_up = sibling(ck, t, s.module, mxfp4 ? "gate_up_proj_blocks" : "gate_up_proj");
    s.down = sibling(ck, t, s.module, mxfp4 ? "down_proj_blocks" : "down_proj");
    if (s.gate_up == NULL || s.down == NULL)
        return bad_stack(t, IMP_ERR_FILE, err, "a stack of experts is not whole");
    if ((rc = find_sizes(t, &s, mxfp4, err)) < 0 ||
        (rc = check_bias(ck, t, &s, "gate_up_proj_bias", 2 * s.width, err)) < 0 ||
        (rc = check_bias(ck, t, &s, "down_proj_bias", s.hidden, err)) < 0)
        return rc;
    if (mxfp4 && ((rc = find_scales(s.gate_up, sibling(ck, t, s.module, "gate_up_proj_scales"),
                                    &s.gate_up_scales, err)) < 0 ||
                  (rc = find_scales(s.down, sibling(ck, t, s.module, "down_proj_scales"),
                                    &s.down_scales, err)) < 0))
        return rc;
    s.alternating = mxfp4 || sibling(ck, t, s.module, "gate_up_proj_bias") != NULL;
    *out = s;
    return 1;
}

int stack_count(const struct checkpoint *ck, const struct tensor *t, bool split, size_t *count,
                struct imp_error *err) {
    struct stack s;
    int rc = find_stack(ck, t, &s, err);
    if (rc <= 0) return rc;
    if (!split) {
        if (s.gate_up_scales == NULL || s.member == GATE_UP_BIAS || s.member == DOWN_BIAS) return 0;
        *count = s.member == SCALES ? 0 : 1;
        return 1;
    }
    if (s.transposed != s.alternating && s.gate_up_scales == NULL)
        return bad_stack(t, IMP_ERR_UNSUPPORTED, err,
                         "a stack of experts whose order of rows is not known");
    size_t n = s.member == SCALES ? 0 : s.member == GATE_UP || s.member == GATE_UP_BIAS ? 2 : 1;
    *count = n * (size_t)s.experts;
    return 1;
}

/* ---- taking them apart ---- */

static struct source_tensor float_tensor(const char *name, enum dtype dtype, int dims, int64_t a,
                                         int64_t b, int64_t c) {
    struct source_tensor t = {.name = name, .dtype = dtype, .dims = dims, .rows = 1, .cols = 1};
    const int64_t all[3] = {a, b, c};
    memcpy(t.shape, all + 3 - dims, (size_t)dims * sizeof *all);
    for (int d = 0; d < dims; d++) *(d == dims - 1 ? &t.cols : &t.rows) *= t.shape[d];
    return t;
}

/* Matrix `part` (0 gate, 1 up) of gate_up's expert e, or down's. */
static struct stack_part one_matrix(const struct stack *s, const struct tensor *t, int64_t e,
                                    int part, struct arena *arena) {
    const bool down = s->member == DOWN;
    const int64_t rows = down ? s->hidden : s->width, cols = down ? s->width : s->hidden;
    const int64_t all_rows = down ? rows : 2 * rows;
    const int64_t skip = down ? 0 : s->alternating ? part : part * rows;
    const int64_t stride = !down && s->alternating ? 2 : 1;
    const int64_t row_step = s->transposed ? 1 : cols;
    const char *leaf = down ? "down_proj" : part ? "up_proj" : "gate_proj";
    const uint8_t *scales = down ? s->down_scales : s->gate_up_scales;
    return (struct stack_part){
        .tensor = float_tensor(
            arena_printf(arena, "%.*s.%lld.%s.weight", s->module, t->name, (long long)e, leaf),
            scales ? DTYPE_BF16 : t->dtype, 2, 1, rows, cols),
        .view = {.data = t->data,
                 .scales = scales,
                 .dtype = t->dtype,
                 .base = e * all_rows * cols + skip * row_step,
                 .group_rows = rows,
                 .row_step = stride * row_step,
                 .col_step = s->transposed ? all_rows : 1}};
}

static struct stack_part one_bias(const struct stack *s, const struct tensor *t, int64_t e,
                                  int part, struct arena *arena) {
    const bool down = s->member == DOWN_BIAS;
    const int64_t n = down ? s->hidden : s->width;
    const char *leaf = down ? "down_proj" : part ? "up_proj" : "gate_proj";
    const int64_t skip = down ? 0 : s->alternating ? part : part * n;
    return (struct stack_part){.tensor =
                                   float_tensor(arena_printf(arena, "%.*s.%lld.%s.bias", s->module,
                                                             t->name, (long long)e, leaf),
                                                t->dtype, 1, 1, 1, n),
                               .view = {.data = t->data,
                                        .dtype = t->dtype,
                                        .base = e * (down ? n : 2 * n) + skip,
                                        .group_rows = 1,
                                        .col_step = !down && s->alternating ? 2 : 1}};
}

/* A stack in MXFP4 as the floats that it was made from: [E, in, out], without "_blocks". */
static struct stack_part whole_stack(const struct stack *s, const struct tensor *t,
                                     struct arena *arena) {
    const bool down = s->member == DOWN;
    const int64_t rows = down ? s->hidden : 2 * s->width, cols = down ? s->width : s->hidden;
    const char *leaf = down ? "down_proj" : "gate_up_proj";
    return (struct stack_part){
        .tensor = float_tensor(arena_printf(arena, "%.*s.%s", s->module, t->name, leaf), DTYPE_BF16,
                               3, s->experts, cols, rows),
        .view = {.data = t->data,
                 .scales = down ? s->down_scales : s->gate_up_scales,
                 .group_rows = cols,
                 .group_step = rows * cols,
                 .row_step = 1,
                 .col_step = cols}};
}

void stack_parts(const struct checkpoint *ck, const struct tensor *t, bool split,
                 struct arena *arena, struct stack_part *out) {
    struct stack s;
    check(find_stack(ck, t, &s, NULL) == 1);
    if (s.member == SCALES) return;
    if (!split) {
        *out = whole_stack(&s, t, arena);
        return;
    }
    const bool bias = s.member == GATE_UP_BIAS || s.member == DOWN_BIAS;
    const int parts = s.member == GATE_UP || s.member == GATE_UP_BIAS ? 2 : 1;
    for (int64_t e = 0; e < s.experts; e++) {
        for (int part = 0; part < parts; part++)
            *out++ = bias ? one_bias(&s, t, e, part, arena) : one_matrix(&s, t, e, part, arena);
    }
}
