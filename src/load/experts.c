#include "load/experts.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "load/quant_internal.h"

enum { NAME_ROOM = CAP_TENSOR_NAME + 64 };

/* One matrix that is asked for: which, of how many, and what the model needs. */
struct want {
    struct checkpoint *ck;
    const char *module; /* of the experts */
    int experts, index;
    int64_t rows, cols;
    struct imp_error *err;
};

static const struct tensor *find(const struct checkpoint *ck, const char *a, const char *b,
                                 const char *c) {
    char name[NAME_ROOM];
    int n = snprintf(name, sizeof name, "%s%s%s", a, b, c);
    return n < NAME_ROOM ? checkpoint_find(ck, name) : NULL;
}

static int fail_shape(const struct want *want, const struct tensor *t, const char *expected) {
    char place[sizeof want->err->where], shape[128];
    tensor_shape_text(t, shape);
    error_place(place, t->file, "tensor %s", t->name);
    return error_set(want->err, IMP_ERR_FILE, place, "%s expected, %s %s found", expected,
                     dtype_name(t->dtype), shape);
}

/* ---- one expert's part of a stack ---- */

/* The last `dims` dimensions of t at the expert's number. What is one number, is everyone's. */
static int slice(const struct want *want, const struct tensor *t, struct tensor *out) {
    char expected[64];
    *out = *t;
    if (tensor_elements(t) == 1) return 0;
    if (t->dims < 1 || t->shape[0] != want->experts || t->bytes == 0) {
        snprintf(expected, sizeof expected, "a stack of %d experts", want->experts);
        return fail_shape(want, t, expected);
    }
    out->dims--;
    memmove(out->shape, out->shape + 1, sizeof *out->shape * (CAP_TENSOR_DIMS - 1));
    out->bytes = t->bytes / (size_t)want->experts;
    out->data = t->data + out->bytes * (size_t)want->index;
    out->file_offset = t->file_offset + (uint64_t)out->bytes * (uint64_t)want->index;
    return 0;
}

/* out[c, r] = in[r, c], in squares that stay in the cache. */
static void transpose(const uint8_t *in, int64_t rows, int64_t cols, int64_t bytes, uint8_t *out) {
    enum { SIDE = 64 };
    for (int64_t r0 = 0; r0 < rows; r0 += SIDE) {
        int64_t r1 = r0 + SIDE < rows ? r0 + SIDE : rows;
        for (int64_t c = 0; c < cols; c++) {
            for (int64_t r = r0; r < r1; r++) {
                const uint8_t *from = in + (r * cols + c) * bytes;
                uint8_t *to = out + (c * rows + r) * bytes;
                if (bytes == 1)
                    *to = *from;
                else
                    memcpy(to, from, (size_t)bytes);
            }
        }
    }
}

/* Replaces the view by a transposed copy of it. */
static void flip(struct checkpoint *ck, struct tensor *t) {
    int64_t rows = t->shape[0], cols = t->shape[1];
    uint8_t *copy = arena_alloc(&ck->copies, t->bytes);
    transpose(t->data, rows, cols, dtype_bits(t->dtype) / 8, copy);
    t->data = copy;
    t->shape[0] = cols;
    t->shape[1] = rows;
}

static bool is_plain(const struct tensor *t) {
    return t->dtype == DTYPE_F32 || t->dtype == DTYPE_F16 || t->dtype == DTYPE_BF16;
}

/* Stacks under `name`: its tensors are name + separator + the part. Where the separator is "_",
 * ModelOpt's way for stacks that have no ".weight", the codes are under the bare name. */
struct stack {
    const char *name, *separator;
    bool transposed; /* as the layout of unquantised weights has it */
    struct tensor part[PART_COUNT];
};

/* ModelOpt quantises these stacks along H and puts them back as they were, so codes are [H/2, 2I].
 * The shapes tell; where codes fit both ways, the scales do not, and without scales a bare name
 * means ModelOpt. */
static bool is_transposed(const struct want *want, const struct stack *s,
                          const struct quant_module *m) {
    const struct tensor *t = m->part[PART_WEIGHT], *scale = m->part[PART_SCALE];
    if (t == NULL || t->dims != 2) return false;
    if (is_plain(t)) return s->transposed;
    if (*s->separator != '_') return false;
    int64_t cols = t->dtype == DTYPE_U8 ? want->cols / 2 : want->cols;
    bool fits = t->shape[0] == want->rows && t->shape[1] == cols;
    bool flipped = t->shape[0] == cols && t->shape[1] == want->rows;
    if (fits && flipped) return !(scale && scale->dims == 2 && scale->shape[0] == want->rows);
    return flipped;
}

static int flip_stack(const struct quant_module *m, struct stack *s) {
    struct tensor *scale = m->part[PART_SCALE] ? &s->part[PART_SCALE] : NULL;
    if (scale && scale->dtype == DTYPE_F8_E4M3) { /* here, where a byte's place is the file's */
        int rc = quant_check_e4m3_scales(m, scale);
        if (rc < 0) return rc;
    }
    flip(m->ck, &s->part[PART_WEIGHT]);
    if (scale && scale->dims == 2 && scale->bytes > 0) flip(m->ck, scale);
    return 0;
}

static const struct tensor *stack_part(const struct want *want, const struct stack *s, int part) {
    if (part == PART_WEIGHT && *s->separator == '_') return find(want->ck, s->name, "", "");
    return find(want->ck, s->name, s->separator, quant_part_names[part]);
}

static int load_stack(const struct want *want, struct stack *s, struct weight *out) {
    char label[NAME_ROOM + 16];
    struct quant_module m = {.ck = want->ck,
                             .name = label,
                             .want_rows = want->rows,
                             .want_cols = want->cols,
                             .err = want->err};
    snprintf(label, sizeof label, "%s[%d]", s->name, want->index);
    for (int i = 0; i < PART_COUNT; i++) {
        const struct tensor *t = stack_part(want, s, i);
        if (t == NULL) continue;
        if ((i == PART_WEIGHT || i == PART_PACKED) && t->dims != 3)
            return fail_shape(want, t, "a matrix for each expert");
        int rc = slice(want, t, &s->part[i]);
        if (rc < 0) return rc;
        m.part[i] = &s->part[i];
    }
    if (is_transposed(want, s, &m)) {
        int rc = flip_stack(&m, s);
        if (rc < 0) return rc;
    }
    return quant_module_load(&m, out);
}

/* gpt-oss: a block's 16 bytes are a dimension of their own. */
static int load_blocks(const struct want *want, const char *name, struct weight *out) {
    char label[NAME_ROOM + 16], expected[100];
    const struct tensor *blocks = find(want->ck, name, "_blocks", "");
    const struct tensor *scales = find(want->ck, name, "_scales", "");
    struct tensor codes, scale;
    struct quant_module m = {.ck = want->ck,
                             .name = label,
                             .part = {[PART_WEIGHT] = &codes, [PART_SCALE] = &scale},
                             .want_rows = want->rows,
                             .want_cols = want->cols,
                             .err = want->err};
    snprintf(label, sizeof label, "%s[%d]", name, want->index);
    if (blocks == NULL) return quant_fail(&m, IMP_ERR_FILE, NULL, "%s_blocks is missing", name);
    if (scales == NULL) return quant_fail(&m, IMP_ERR_FILE, NULL, "%s_scales is missing", name);
    if (blocks->dtype != DTYPE_U8 || blocks->dims != 4 || blocks->shape[3] != 16 ||
        blocks->shape[0] != want->experts || blocks->bytes == 0) {
        snprintf(expected, sizeof expected, "U8 [%d, %lld, %lld, 16]", want->experts,
                 (long long)want->rows, (long long)want->cols / 32);
        return fail_shape(want, blocks, expected);
    }
    if ((scales->dtype != DTYPE_U8 && scales->dtype != DTYPE_F8_E8M0) || scales->dims != 3 ||
        scales->shape[0] != want->experts || scales->bytes == 0) {
        snprintf(expected, sizeof expected, "U8 [%d, %lld, %lld]", want->experts,
                 (long long)want->rows, (long long)want->cols / 32);
        return fail_shape(want, scales, expected);
    }
    int rc = slice(want, blocks, &codes);
    if (rc == 0) rc = slice(want, scales, &scale);
    if (rc < 0) return rc;
    codes.dims = 2;
    codes.shape[1] *= 16;
    return quant_module_load(&m, out);
}

/* ---- biases ---- */

static int stack_bias(const struct want *want, const char *name, const float **out) {
    struct tensor one;
    char expected[64];
    const struct tensor *t = find(want->ck, name, "_bias", "");
    if (t == NULL) return 0;
    snprintf(expected, sizeof expected, "a stack of [%d, %lld] numbers", want->experts,
             (long long)want->rows);
    if (!is_plain(t) || t->dims != 2 || t->shape[0] != want->experts || t->shape[1] != want->rows)
        return fail_shape(want, t, expected);
    int rc = slice(want, t, &one);
    return rc < 0 ? rc : quant_vector(want->ck, &one, want->rows, out, want->err);
}

/* Those of gate and up behind each other, if there are any. */
static int plain_bias(const struct want *want, const char *const *names, int count,
                      const float **out) {
    char name[2][NAME_ROOM];
    int there = 0;
    for (int i = 0; i < count; i++) {
        snprintf(name[i], NAME_ROOM, "%s.%d.%s.bias", want->module, want->index, names[i]);
        there += checkpoint_find(want->ck, name[i]) != NULL;
    }
    if (there == 0) return 0;
    float *all = arena_array(&want->ck->arena, (size_t)(want->rows * count), sizeof *all);
    for (int i = 0; i < count; i++) {
        const float *one;
        int rc = checkpoint_vector(want->ck, name[i], want->rows, &one, want->err);
        if (rc < 0) return rc;
        memcpy(all + i * want->rows, one, (size_t)want->rows * sizeof *all);
    }
    *out = all;
    return 0;
}

/* ---- the ways to store an expert ---- */

/* gate, up, down; or both in one and down. */
static const char *const NAMES[][3] = {
    {"gate_proj", "up_proj", "down_proj"}, {"w1", "w3", "w2"}, {"gate_up_proj", NULL, "down_proj"}};
enum { NAMINGS = sizeof NAMES / sizeof *NAMES };

static bool has_one(const struct checkpoint *ck, const char *module, int index, int naming) {
    char name[NAME_ROOM];
    int n = snprintf(name, sizeof name, "%s.%d.%s", module, index, NAMES[naming][0]);
    return n < NAME_ROOM && checkpoint_has(ck, name);
}

static int one_by_one(struct want *want, int naming, int64_t width, int64_t hidden,
                      struct expert *out) {
    const char *const *names = NAMES[naming];
    char name[NAME_ROOM];
    int count = names[1] ? 2 : 1, rc;
    want->rows = width * 2 / count;
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s.%d.%s", want->module, want->index, names[i]);
        rc = checkpoint_weight(want->ck, name, want->rows, hidden, &out->gate_up[i], want->err);
        if (rc < 0) return rc;
    }
    out->gate_up_count = count;
    rc = plain_bias(want, names, count, &out->gate_up_bias);
    if (rc < 0) return rc;
    want->rows = hidden;
    snprintf(name, sizeof name, "%s.%d.%s", want->module, want->index, names[2]);
    rc = checkpoint_weight(want->ck, name, hidden, width, &out->down, want->err);
    return rc < 0 ? rc : plain_bias(want, names + 2, 1, &out->down_bias);
}

/* A stack of any kind: "M.gate_up_proj", and what goes with it. */
static int load_stacked(struct want *want, const char *what, int64_t rows, int64_t cols,
                        enum expert_layout layout, struct weight *out, const float **bias) {
    char name[NAME_ROOM];
    bool gpt_oss = layout == EXPERTS_GPT_OSS;
    int rc, n = snprintf(name, sizeof name, "%s.%s", want->module, what);
    check(n < NAME_ROOM);
    want->rows = rows;
    want->cols = cols;
    if (find(want->ck, name, "_blocks", "") || find(want->ck, name, "_scales", "")) {
        rc = load_blocks(want, name, out);
    } else {
        bool bare = find(want->ck, name, "", "") != NULL;
        struct stack s = {.name = name, .separator = bare ? "_" : ".", .transposed = gpt_oss};
        rc = load_stack(want, &s, out);
    }
    return rc == 0 && gpt_oss ? stack_bias(want, name, bias) : rc;
}

/* Whether there is a stack M.WHAT, under any of its names. */
static bool has_stack(const struct checkpoint *ck, const char *module, const char *what) {
    static const char *const ends[] = {"_blocks", "", ".weight", ".weight_packed"};
    char name[NAME_ROOM];
    int n = snprintf(name, sizeof name, "%s.%s", module, what);
    for (size_t i = 0; n < NAME_ROOM && i < sizeof ends / sizeof *ends; i++) {
        if (find(ck, name, ends[i], "")) return true;
    }
    return false;
}

static int stacked(struct want *want, enum expert_layout layout, int64_t width, int64_t hidden,
                   struct expert *out) {
    int rc;
    if (has_stack(want->ck, want->module, "gate_up_proj")) {
        rc = load_stacked(want, "gate_up_proj", 2 * width, hidden, layout, &out->gate_up[0],
                          &out->gate_up_bias);
        out->gate_up_count = 1;
        out->interleaved = layout == EXPERTS_GPT_OSS;
    } else {
        rc = load_stacked(want, "gate_proj", width, hidden, EXPERTS_PLAIN, &out->gate_up[0], NULL);
        if (rc == 0)
            rc =
                load_stacked(want, "up_proj", width, hidden, EXPERTS_PLAIN, &out->gate_up[1], NULL);
        out->gate_up_count = 2;
    }
    if (rc < 0) return rc;
    return load_stacked(want, "down_proj", hidden, width, layout, &out->down, &out->down_bias);
}

static bool has_stacks(const struct checkpoint *ck, const char *module) {
    return has_stack(ck, module, "gate_up_proj") || has_stack(ck, module, "gate_proj");
}

bool checkpoint_has_experts(const struct checkpoint *ck, const char *module) {
    for (int i = 0; i < NAMINGS; i++) {
        if (has_one(ck, module, 0, i)) return true;
    }
    return has_stacks(ck, module);
}

int checkpoint_expert(struct checkpoint *ck, const char *module, enum expert_layout layout,
                      int experts, int index, int64_t width, int64_t hidden, struct expert *out,
                      struct imp_error *err) {
    struct want want = {.ck = ck, .module = module, .experts = experts, .index = index, .err = err};
    struct expert e = {0};
    char place[sizeof err->where];
    check(experts > 0 && index >= 0 && index < experts && width > 0 && hidden > 0);
    error_place(place, ck->path, "module %s.%d", module, index);
    int naming = 0, rc;
    while (naming < NAMINGS && !has_one(ck, module, index, naming)) naming++;
    if (naming < NAMINGS && has_one(ck, module, experts, naming))
        return error_set(err, IMP_ERR_FILE, place,
                         "%d experts expected, the files hold more of them", experts);
    if (naming < NAMINGS)
        rc = one_by_one(&want, naming, width, hidden, &e);
    else if (has_stacks(ck, module))
        rc = stacked(&want, layout, width, hidden, &e);
    else
        return error_set(err, IMP_ERR_FILE, place, "expert %d of %d is missing", index, experts);
    if (rc == 0) *out = e;
    return rc;
}

void checkpoint_drop_copies(struct checkpoint *ck) {
    arena_free(&ck->copies);
}
