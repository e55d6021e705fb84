/* The same experts out of every layout that files have, and what is refused. Matrices are made of
 * values that every format holds exactly, so all layouts must give the same numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "load/experts.h"
#include "num/fp.h"
#include "support/tensors.h"

#define M "model.layers.0.mlp.experts"
enum { EXPERTS = 3, WIDTH = 32, HIDDEN = 64, GATE = 0, UP = 1, DOWN = 2 };

static uint32_t mix(uint32_t e, uint32_t which, uint32_t row, uint32_t col) {
    uint32_t x = ((e * 3 + which) * 977 + row) * 1009 + col;
    x = (x ^ x >> 7) * 0x9E3779B1u;
    return x >> 13;
}

static uint8_t code(int e, int which, int row, int col) {
    return (uint8_t)(mix((uint32_t)e, (uint32_t)which, (uint32_t)row, (uint32_t)col) & 15);
}

/* log2 of the scale: of 32 columns, so that it serves blocks of 16 and of 32. */
static int power(int e, int which, int row, int col) {
    return (int)(mix((uint32_t)e, (uint32_t)which + 7, (uint32_t)row, (uint32_t)col / 32) % 3) - 1;
}

static float truth(int e, int which, int row, int col) {
    return e2m1_decode(code(e, which, row, col)) * ldexpf(1, power(e, which, row, col));
}

static float bias(int e, int which, int row) {
    return (float)(1 + e * 1000 + which * 100 + row);
}

/* What a tensor of a layout holds at [e, row, col]: rows of gate and up in one, or one of three. */
enum rows { ONLY_GATE, ONLY_UP, ONLY_DOWN, GATE_THEN_UP, INTERLEAVED };

static void place(enum rows rows, int row, int *which, int *at) {
    *which = rows == ONLY_GATE ? GATE : rows == ONLY_UP ? UP : DOWN;
    *at = row;
    if (rows == GATE_THEN_UP) *which = row / WIDTH, *at = row % WIDTH;
    if (rows == INTERLEAVED) *which = row % 2, *at = row / 2;
}

static int row_count(enum rows rows) {
    return rows == ONLY_DOWN ? HIDDEN : rows >= GATE_THEN_UP ? 2 * WIDTH : WIDTH;
}

static int col_count(enum rows rows) {
    return rows == ONLY_DOWN ? WIDTH : HIDDEN;
}

enum content { PLAIN, CODES, E4M3, E8M0, BIAS };

/* One element (or byte of two codes, or scale of a block) of expert e. */
static size_t element(enum content what, enum rows rows, const char *dtype, int e, int row, int col,
                      uint8_t *out) {
    int which, r;
    float x;
    place(rows, row, &which, &r);
    switch (what) {
    case CODES:
        *out = (uint8_t)(code(e, which, r, 2 * col) | code(e, which, r, 2 * col + 1) << 4);
        return 1;
    case E4M3:
        *out = e4m3_encode(ldexpf(1, power(e, which, r, 16 * col)));
        return 1;
    case E8M0:
        *out = (uint8_t)(127 + power(e, which, r, 32 * col));
        return 1;
    default:
        break;
    }
    char text[32];
    x = what == BIAS ? bias(e, which, r) : truth(e, which, r, col);
    snprintf(text, sizeof text, "=%a", (double)x);
    return tensors_encode(dtype, 1, text, out);
}

static int per_row(enum content what, enum rows rows) {
    int cols = col_count(rows);
    return what == CODES ? cols / 2 : what == E4M3 ? cols / 16 : what == E8M0 ? cols / 32 : cols;
}

/* Experts first .. first + count, [rows, cols] or transposed, one after the other. */
static void add(struct maker *m, const char *name, const char *dtype, const char *shape,
                enum content what, enum rows rows, int first, int count, bool transposed) {
    struct str data = {0};
    uint8_t bytes[4];
    int height = row_count(rows), width = what == BIAS ? 1 : per_row(what, rows);
    for (int e = first; e < first + count; e++) {
        for (int i = 0; i < height * width; i++) {
            int row = transposed ? i % height : i / width;
            int col = transposed ? i / height : i % width;
            str_add(&data, bytes, element(what, rows, dtype, e, row, col, bytes));
        }
    }
    maker_add(m, name, dtype, shape, data.data, data.size);
    str_free(&data);
}

static void add_number(struct maker *m, const char *name, const char *shape, int count, float x) {
    float many[EXPERTS] = {x, x, x};
    maker_add(m, name, "F32", shape, many, (size_t)count * sizeof x);
}

/* ---- the layouts ---- */

static void one_by_one(struct maker *m, const char *const names[3], const char *dtype) {
    for (int e = 0; e < EXPERTS; e++) {
        for (int i = 0; i < 3; i++) {
            char name[128];
            snprintf(name, sizeof name, M ".%d.%s.weight", e, names[i]);
            add(m, name, dtype, i == 2 ? "[64,32]" : "[32,64]", PLAIN, (enum rows)i, e, 1, false);
        }
    }
}

static void make_one_by_one(struct maker *m) {
    one_by_one(m, (const char *const[]){"gate_proj", "up_proj", "down_proj"}, "BF16");
}

static void make_mixtral(struct maker *m) {
    one_by_one(m, (const char *const[]){"w1", "w3", "w2"}, "F32");
}

static void make_fused(struct maker *m) {
    for (int e = 0; e < EXPERTS; e++) {
        char name[128];
        snprintf(name, sizeof name, M ".%d.gate_up_proj.weight", e);
        add(m, name, "F16", "[64,64]", PLAIN, GATE_THEN_UP, e, 1, false);
        snprintf(name, sizeof name, M ".%d.down_proj.weight", e);
        add(m, name, "F16", "[64,32]", PLAIN, ONLY_DOWN, e, 1, false);
    }
}

static void make_stacked(struct maker *m) {
    add(m, M ".gate_up_proj", "BF16", "[3,64,64]", PLAIN, GATE_THEN_UP, 0, EXPERTS, false);
    add(m, M ".down_proj", "BF16", "[3,64,32]", PLAIN, ONLY_DOWN, 0, EXPERTS, false);
}

static void make_stacked_f32(struct maker *m) {
    add(m, M ".gate_up_proj", "F32", "[3,64,64]", PLAIN, GATE_THEN_UP, 0, EXPERTS, false);
    add(m, M ".down_proj", "F16", "[3,64,32]", PLAIN, ONLY_DOWN, 0, EXPERTS, false);
}

static void nvfp4(struct maker *m, const char *module, enum rows rows, int first, int count,
                  bool compressed, const char *stack) {
    char name[128], shape[64];
    int height = row_count(rows), width = col_count(rows);
    snprintf(name, sizeof name, "%s.%s", module, compressed ? "weight_packed" : "weight");
    snprintf(shape, sizeof shape, "[%s%d,%d]", stack, height, width / 2);
    add(m, name, "U8", shape, CODES, rows, first, count, false);
    snprintf(name, sizeof name, "%s.weight_scale", module);
    snprintf(shape, sizeof shape, "[%s%d,%d]", stack, height, width / 16);
    add(m, name, "F8_E4M3", shape, E4M3, rows, first, count, false);
    snprintf(name, sizeof name, "%s.%s", module,
             compressed ? "weight_global_scale" : "weight_scale_2");
    add_number(m, name, *stack ? "[3]" : "[1]", count, compressed ? 4 : 0.25f);
    snprintf(name, sizeof name, "%s.%s", module, compressed ? "input_global_scale" : "input_scale");
    add_number(m, name, *stack ? "[3]" : "[]", count, compressed ? 2 : 0.5f);
}

static void nvfp4_one_by_one(struct maker *m, bool compressed, bool biases) {
    static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
    for (int e = 0; e < EXPERTS; e++) {
        for (int i = 0; i < 3; i++) {
            char module[128], name[160];
            snprintf(module, sizeof module, M ".%d.%s", e, names[i]);
            nvfp4(m, module, (enum rows)i, e, 1, compressed, "");
            snprintf(name, sizeof name, "%s.bias", module);
            if (biases) add(m, name, "BF16", i == 2 ? "[64]" : "[32]", BIAS, i, e, 1, false);
        }
    }
}

static void make_modelopt(struct maker *m) {
    nvfp4_one_by_one(m, false, false);
}

static void make_compressed(struct maker *m) {
    nvfp4_one_by_one(m, true, false);
}

static void make_compressed_gpt_oss(struct maker *m) {
    nvfp4_one_by_one(m, true, true);
}

/* As ModelOpt writes Step-3.5's. */
static void make_stacked_linears(struct maker *m) {
    nvfp4(m, M ".gate_proj", ONLY_GATE, 0, EXPERTS, false, "3,");
    nvfp4(m, M ".up_proj", ONLY_UP, 0, EXPERTS, false, "3,");
    nvfp4(m, M ".down_proj", ONLY_DOWN, 0, EXPERTS, false, "3,");
}

static void add_biases(struct maker *m, const char *dtype) {
    add(m, M ".gate_up_proj_bias", dtype, "[3,64]", BIAS, INTERLEAVED, 0, EXPERTS, false);
    add(m, M ".down_proj_bias", dtype, "[3,64]", BIAS, ONLY_DOWN, 0, EXPERTS, false);
}

static void make_gpt_oss(struct maker *m) {
    add(m, M ".gate_up_proj_blocks", "U8", "[3,64,2,16]", CODES, INTERLEAVED, 0, EXPERTS, false);
    add(m, M ".gate_up_proj_scales", "U8", "[3,64,2]", E8M0, INTERLEAVED, 0, EXPERTS, false);
    add(m, M ".down_proj_blocks", "U8", "[3,64,1,16]", CODES, ONLY_DOWN, 0, EXPERTS, false);
    add(m, M ".down_proj_scales", "U8", "[3,64,1]", E8M0, ONLY_DOWN, 0, EXPERTS, false);
    add_biases(m, "BF16");
}

static void make_gpt_oss_bf16(struct maker *m) {
    add(m, M ".gate_up_proj", "BF16", "[3,64,64]", PLAIN, INTERLEAVED, 0, EXPERTS, true);
    add(m, M ".down_proj", "F32", "[3,32,64]", PLAIN, ONLY_DOWN, 0, EXPERTS, true);
    add_biases(m, "F32");
}

/* ModelOpt's stacks without ".weight"; `shape` of the numbers: one for all, or one each. */
static void modelopt_stacks(struct maker *m, enum rows rows, const char *shape, int count) {
    add(m, M ".gate_up_proj", "U8", "[3,32,64]", CODES, rows, 0, EXPERTS, true);
    add(m, M ".gate_up_proj_weight_scale", "F8_E4M3", "[3,4,64]", E4M3, rows, 0, EXPERTS, true);
    add_number(m, M ".gate_up_proj_weight_scale_2", shape, count, 0.25f);
    add_number(m, M ".gate_up_proj_input_scale", shape, count, 0.5f);
    add(m, M ".down_proj", "U8", "[3,16,64]", CODES, ONLY_DOWN, 0, EXPERTS, true);
    add(m, M ".down_proj_weight_scale", "F8_E4M3", "[3,2,64]", E4M3, ONLY_DOWN, 0, EXPERTS, true);
    add_number(m, M ".down_proj_weight_scale_2", shape, count, 0.25f);
    add_number(m, M ".down_proj_input_scale", shape, count, 0.5f);
}

static void make_modelopt_gpt_oss(struct maker *m) {
    modelopt_stacks(m, INTERLEAVED, "[]", 1);
    add_biases(m, "BF16");
}

static void make_modelopt_llama4(struct maker *m) {
    modelopt_stacks(m, GATE_THEN_UP, "[3]", 3);
}

static const struct layout {
    const char *name;
    void (*make)(struct maker *m);
    enum expert_layout layout;
    enum weight_format format;
    bool interleaved, biases, copied;
    int gate_up_count;
    float multiplier;
} LAYOUTS[] = {
    {"one by one", make_one_by_one, EXPERTS_PLAIN, WEIGHT_BF16, 0, 0, 0, 2, 1},
    {"mixtral", make_mixtral, EXPERTS_PLAIN, WEIGHT_F32, 0, 0, 0, 2, 1},
    {"gate and up in one", make_fused, EXPERTS_PLAIN, WEIGHT_F16, 0, 0, 0, 1, 1},
    {"stacked", make_stacked, EXPERTS_PLAIN, WEIGHT_BF16, 0, 0, 0, 1, 1},
    {"stacked f32", make_stacked_f32, EXPERTS_PLAIN, WEIGHT_F32, 0, 0, 0, 1, 1},
    {"modelopt", make_modelopt, EXPERTS_PLAIN, WEIGHT_NVFP4, 0, 0, 0, 2, .25f},
    {"compressed", make_compressed, EXPERTS_PLAIN, WEIGHT_NVFP4, 0, 0, 0, 2, .25f},
    {"stacked linears", make_stacked_linears, EXPERTS_PLAIN, WEIGHT_NVFP4, 0, 0, 0, 2, .25f},
    {"modelopt llama4", make_modelopt_llama4, EXPERTS_PLAIN, WEIGHT_NVFP4, 0, 0, 1, 1, .25f},
    {"gpt-oss", make_gpt_oss, EXPERTS_GPT_OSS, WEIGHT_MXFP4, 1, 1, 0, 1, 1},
    {"gpt-oss bf16", make_gpt_oss_bf16, EXPERTS_GPT_OSS, WEIGHT_BF16, 1, 1, 1, 1, 1},
    {"gpt-oss modelopt", make_modelopt_gpt_oss, EXPERTS_GPT_OSS, WEIGHT_NVFP4, 1, 1, 1, 1, .25f},
    {"gpt-oss compressed", make_compressed_gpt_oss, EXPERTS_GPT_OSS, WEIGHT_NVFP4, 0, 1, 0, 2,
     .25f},
};

static void check_rows(const struct layout *l, const struct weight *w, int e, enum rows rows) {
    float row[HIDDEN];
    assert_int_equal(w->rows, row_count(rows));
    assert_int_equal(w->cols, col_count(rows));
    for (int r = 0; r < w->rows; r++) {
        int which, at;
        place(rows, r, &which, &at);
        weight_dequantize_row(w, r, row);
        for (int k = 0; k < w->cols; k++) {
            if (row[k] != truth(e, which, at, k) * l->multiplier)
                fail_msg("%s: expert %d, %s, row %d, column %d: %g", l->name, e, w->name, r, k,
                         (double)row[k]);
        }
    }
    assert_true(isnan(w->input_multiplier) == (w->format != WEIGHT_NVFP4));
    if (w->format == WEIGHT_NVFP4) assert_true(w->input_multiplier == 0.5f);
}

static void check_biases(const struct expert *x, int e) {
    enum rows rows = x->interleaved ? INTERLEAVED : GATE_THEN_UP;
    assert_non_null(x->gate_up_bias);
    assert_non_null(x->down_bias);
    for (int r = 0; r < 2 * WIDTH; r++) {
        int which, at;
        place(rows, r, &which, &at);
        assert_true(x->gate_up_bias[r] == bf16_round(bias(e, which, at)) ||
                    x->gate_up_bias[r] == bias(e, which, at));
    }
    for (int r = 0; r < HIDDEN; r++)
        assert_true(x->down_bias[r] == bf16_round(bias(e, DOWN, r)) ||
                    x->down_bias[r] == bias(e, DOWN, r));
}

static void check_expert(const struct layout *l, const struct expert *x, int e) {
    assert_int_equal(x->gate_up_count, l->gate_up_count);
    assert_int_equal(x->gate_up[0].format, l->format);
    assert_int_equal(x->interleaved, l->interleaved);
    if (l->gate_up_count == 2) {
        check_rows(l, &x->gate_up[0], e, ONLY_GATE);
        check_rows(l, &x->gate_up[1], e, ONLY_UP);
    } else {
        check_rows(l, &x->gate_up[0], e, l->interleaved ? INTERLEAVED : GATE_THEN_UP);
    }
    check_rows(l, &x->down, e, ONLY_DOWN);
    if (l->biases)
        check_biases(x, e);
    else
        assert_true(x->gate_up_bias == NULL && x->down_bias == NULL);
}

static void every_layout(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof LAYOUTS / sizeof *LAYOUTS; i++) {
        const struct layout *l = &LAYOUTS[i];
        struct maker m = {0};
        struct tiny t;
        struct imp_error err;
        l->make(&m);
        assert_int_equal(tiny_open_skewed(&t, &m, 0, TINY_CONFIG, &err), 0);
        assert_true(checkpoint_has_experts(&t.ck, M));
        assert_false(checkpoint_has_experts(&t.ck, "model.layers.1.mlp.experts"));
        for (int e = 0; e < EXPERTS; e++) {
            struct expert x;
            if (checkpoint_expert(&t.ck, M, l->layout, EXPERTS, e, WIDTH, HIDDEN, &x, &err) < 0)
                fail_msg("%s: %s: %s", l->name, err.where, err.message);
            check_expert(l, &x, e);
            if ((t.ck.copies.used_bytes > 0) != l->copied)
                fail_msg("%s: %zu bytes copied", l->name, t.ck.copies.used_bytes);
            checkpoint_drop_copies(&t.ck);
        }
        tiny_close(&t);
    }
}

/* ---- what is refused ---- */

#define BF16_STACK "/" M ".gate_up_proj BF16 3,64,64 =1; /" M ".down_proj BF16 3,64,32 =1;"
#define MX_DOWN    "/" M ".down_proj_blocks U8 3,64,1,16 11; /" M ".down_proj_scales U8 3,64,1 7F;"
#define MX_GATE                                                                                    \
    "/" M ".gate_up_proj_blocks U8 3,64,2,16 11; /" M ".gate_up_proj_scales U8 3,64,2 7F;"
#define ONE(e, gate, up, down)                                                                     \
    "/" M "." e ".gate_proj.weight BF16 " gate " =1; /" M "." e ".up_proj.weight BF16 " up         \
    " =1; /" M "." e ".down_proj.weight BF16 " down " =1;"
#define GOOD(e) ONE(e, "32,64", "32,64", "64,32")
#define MO_GATE "/" M ".gate_up_proj U8 3,32,64 11; /" M ".gate_up_proj_weight_scale_2 F32 - =1;"
#define MO_DOWN                                                                                    \
    "/" M ".down_proj U8 3,16,64 11; /" M ".down_proj_weight_scale F8_E4M3 3,2,64 38;"             \
    "/" M ".down_proj_weight_scale_2 F32 - =1;"

static const struct bad {
    enum expert_layout layout;
    const char *line, *where, *words;
} BAD[] = {
    /* counts: one expert too few, one too many, one without up */
    {EXPERTS_PLAIN, GOOD("0") GOOD("1"), "module " M ".2", "expert 2 of 3 is missing"},
    {EXPERTS_PLAIN, "/" M ".x F32 1 =1", "module " M ".0", "expert 0 of 3 is missing"},
    {EXPERTS_PLAIN, GOOD("0") GOOD("1") GOOD("2") GOOD("3"), "experts", "3 experts expected"},
    {EXPERTS_PLAIN, "/" M ".0.gate_proj.weight BF16 32,64 =1", "experts.0.up_proj", "no linear"},
    {EXPERTS_PLAIN, "/" M ".gate_up_proj BF16 4,64,64 =1;" MX_DOWN, "experts.gate_up_proj",
     "a stack of 3 experts expected, BF16 [4, 64, 64] found"},
    {EXPERTS_PLAIN, "/" M ".gate_up_proj BF16 3,0,64 =1;", "experts.gate_up_proj",
     "a stack of 3 experts expected, BF16 [3, 0, 64] found"},
    {EXPERTS_PLAIN, "/" M ".gate_up_proj BF16 3,64,64 =1;", "experts.down_proj[0]", "no linear"},
    {EXPERTS_PLAIN, "/" M ".down_proj BF16 3,64,32 =1;", "module " M ".0", "expert 0 of 3"},
    /* shapes */
    {EXPERTS_PLAIN, ONE("0", "32,63", "32,64", "64,32"), "gate_proj", "[32, 63] found"},
    {EXPERTS_PLAIN, ONE("0", "32,64", "31,64", "64,32"), "up_proj", "[32, 64] weights expected"},
    {EXPERTS_PLAIN, ONE("0", "32,64", "32,64", "32,64"), "down_proj", "[64, 32] weights expected"},
    {EXPERTS_PLAIN, "/" M ".gate_up_proj BF16 3,32,64 =1;", "experts.gate_up_proj",
     "[64, 64] weights expected, [32, 64] found"},
    {EXPERTS_PLAIN, "/" M ".gate_up_proj BF16 3,64,64 =1; /" M ".down_proj BF16 3,32,64 =1;",
     "experts.down_proj", "[64, 32] weights expected, [32, 64] found"},
    {EXPERTS_GPT_OSS, "/" M ".gate_up_proj BF16 3,64,64 =1; /" M ".down_proj BF16 3,64,32 =1;",
     "experts.down_proj", "[64, 32] weights expected, [32, 64] found"},
    {EXPERTS_PLAIN, "/" M ".gate_up_proj BF16 3 =1;", "experts.gate_up_proj", "a matrix for each"},
    {EXPERTS_PLAIN, "/" M ".gate_up_proj BF16 3,64,8,8 =1;", "gate_up_proj", "a matrix for each"},
    /* MXFP4 of gpt-oss */
    {EXPERTS_GPT_OSS, "/" M ".gate_up_proj_blocks U8 3,64,2,16 11;", "gate_up_proj[0]",
     "gate_up_proj_scales is missing"},
    {EXPERTS_GPT_OSS, MX_GATE "/" M ".down_proj_scales U8 3,64,1 7F;", "down_proj[0]",
     "down_proj_blocks is missing"},
    {EXPERTS_GPT_OSS,
     "/" M ".gate_up_proj_blocks U8 3,64,2,8 11; /" M ".gate_up_proj_scales U8 3,64,2 7F",
     "gate_up_proj_blocks", "U8 [3, 64, 2, 16] expected, U8 [3, 64, 2, 8] found"},
    {EXPERTS_GPT_OSS,
     "/" M ".gate_up_proj_blocks U8 2,64,2,16 11; /" M ".gate_up_proj_scales U8 3,64,2 7F",
     "gate_up_proj_blocks", "U8 [3, 64, 2, 16] expected"},
    {EXPERTS_GPT_OSS,
     "/" M ".gate_up_proj_blocks I8 3,64,2,16 11; /" M ".gate_up_proj_scales U8 3,64,2 7F",
     "gate_up_proj_blocks", "I8 [3, 64, 2, 16] found"},
    {EXPERTS_GPT_OSS,
     "/" M ".gate_up_proj_blocks U8 3,64,2,16 11; /" M ".gate_up_proj_scales U8 3,64,2,1 7F",
     "gate_up_proj_scales", "U8 [3, 64, 2] expected"},
    {EXPERTS_GPT_OSS,
     "/" M ".gate_up_proj_blocks U8 3,64,2,16 11; /" M ".gate_up_proj_scales U8 3,64,1 7F",
     "gate_up_proj_scales", "block scales [64, 2] expected, [64, 1] found"},
    {EXPERTS_GPT_OSS,
     "/" M ".gate_up_proj_blocks U8 3,64,2,16 11; /" M ".gate_up_proj_scales U8 3,64,2 FF",
     "gate_up_proj_scales", "0xFF: not a number"},
    {EXPERTS_GPT_OSS, MX_GATE MX_DOWN "/" M ".gate_up_proj_bias BF16 3,32 =1", "gate_up_proj_bias",
     "[3, 64] numbers expected, BF16 [3, 32] found"},
    {EXPERTS_GPT_OSS, MX_GATE MX_DOWN "/" M ".gate_up_proj_bias U8 3,64 11", "gate_up_proj_bias",
     "U8 [3, 64] found"},
    {EXPERTS_GPT_OSS, MX_GATE MX_DOWN "/" M ".down_proj_bias F32 3,64 =nan", "down_proj_bias",
     "value 0 is not finite"},
    /* ModelOpt's transposed stacks */
    {EXPERTS_GPT_OSS, MO_GATE MO_DOWN, "gate_up_proj[0]", "without weight_scale"},
    {EXPERTS_GPT_OSS, MO_GATE "/" M ".gate_up_proj_weight_scale F8_E4M3 3,3,64 38;",
     "gate_up_proj_weight_scale", "[64, 4] expected, [64, 3] found"},
    {EXPERTS_GPT_OSS, MO_GATE "/" M ".gate_up_proj_weight_scale F8_E4M3 3,4,64 7F;",
     "gate_up_proj_weight_scale", "block scale 0, at byte"},
    {EXPERTS_GPT_OSS, MO_GATE "/" M ".gate_up_proj_weight_scale F8_E4M3 3,4,64 B8;",
     "gate_up_proj_weight_scale", "negative"},
    {EXPERTS_PLAIN,
     "/" M ".gate_up_proj U8 3,32,32 11; /" M ".gate_up_proj_weight_scale F8_E4M3 3,2,32 38;"
     "/" M ".gate_up_proj_weight_scale_2 F32 - =1;",
     "gate_up_proj", "[64, 64] weights expected, [32, 64] found"},
    {EXPERTS_PLAIN,
     "/" M ".gate_up_proj U8 3,32,64 11; /" M ".gate_up_proj_weight_scale F8_E4M3 3,4,64 38;"
     "/" M ".gate_up_proj_weight_scale_2 F32 2 =1;",
     "gate_up_proj_weight_scale_2", "a stack of 3 experts expected, F32 [2] found"},
    /* biases one by one: of the wrong length, of one of the two */
    {EXPERTS_GPT_OSS, GOOD("0") "/" M ".0.gate_proj.bias F32 32 =1;", "experts.0.up_proj.bias",
     "is missing"},
    {EXPERTS_GPT_OSS, GOOD("0") "/" M ".0.down_proj.bias F32 32 =1;", "experts.0.down_proj.bias",
     "64 values expected, [32] found"},
};

static void st14_experts_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        const struct bad *b = &BAD[i];
        struct tiny t;
        struct expert x;
        struct imp_error err = {0};
        int rc = 0;
        assert_int_equal(tiny_open(&t, "", b->line, TINY_CONFIG, &err), 0);
        for (int e = 0; e < EXPERTS && rc == 0; e++)
            rc = checkpoint_expert(&t.ck, M, b->layout, EXPERTS, e, WIDTH, HIDDEN, &x, &err);
        if (rc != IMP_ERR_FILE || !strstr(err.where, b->where) || !strstr(err.message, b->words))
            fail_msg("case %zu: rc %d \"%s\" at \"%s\"; expected \"%s\" at \"%s\"", i, rc,
                     err.message, err.where, b->words, b->where);
        tiny_close(&t);
    }
}

/* A bad byte of one expert is found with that expert, at its place in the file. */
static void one_bad_scale(void **state) {
    (void)state;
    static uint8_t codes[3 * 64 * 32], scales[3 * 64 * 4];
    const float one = 1;
    for (int transposed = 0; transposed < 2; transposed++) {
        struct maker m = {0};
        memset(scales, 0x38, sizeof scales);
        scales[2 * 256 + 77] = 0x7F;
        const char *name = transposed ? M ".gate_up_proj" : M ".gate_up_proj.weight";
        const char *scale =
            transposed ? M ".gate_up_proj_weight_scale" : M ".gate_up_proj.weight_scale";
        maker_add(&m, name, "U8", transposed ? "[3,32,64]" : "[3,64,32]", codes, sizeof codes);
        maker_add(&m, scale, "F8_E4M3", transposed ? "[3,4,64]" : "[3,64,4]", scales,
                  sizeof scales);
        maker_add(&m,
                  transposed ? M ".gate_up_proj_weight_scale_2" : M ".gate_up_proj.weight_scale_2",
                  "F32", "[]", &one, sizeof one);
        tensors_add(&m, "", "/" M ".down_proj BF16 3,64,32 =1");
        struct tiny t;
        struct expert x;
        struct imp_error err;
        char words[80];
        assert_int_equal(tiny_open_skewed(&t, &m, 0, TINY_CONFIG, &err), 0);
        for (int e = 0; e < 2; e++)
            assert_int_equal(checkpoint_expert(&t.ck, M, EXPERTS_PLAIN, 3, e, 32, 64, &x, &err), 0);
        assert_int_equal(checkpoint_expert(&t.ck, M, EXPERTS_PLAIN, 3, 2, 32, 64, &x, &err),
                         IMP_ERR_FILE);
        snprintf(words, sizeof words, "block scale 77, at byte %" PRIu64 " of the file",
                 checkpoint_find(&t.ck, scale)->file_offset + 2 * 256 + 77);
        assert_non_null(strstr(err.message, words));
        tiny_close(&t);
    }
}

/* Where codes are as high as wide in bytes, the scales say which way they lie. */
static void square_stacks(void **state) {
    (void)state;
    for (int transposed = 0; transposed < 2; transposed++) {
        struct maker m = {0};
        struct tiny t;
        struct expert x;
        struct imp_error err;
        /* [2I, H] = [32, 64]: 32 x 32 bytes; element [r, c] of the bytes is r */
        uint8_t codes[32 * 32], scales[32 * 4];
        const float one = 1;
        for (int i = 0; i < 32 * 32; i++) codes[i] = (uint8_t)(transposed ? i % 32 : i / 32);
        memset(scales, 0x38, sizeof scales);
        maker_add(&m, M ".gate_up_proj", "U8", "[1,32,32]", codes, sizeof codes);
        maker_add(&m, M ".gate_up_proj_weight_scale", "F8_E4M3",
                  transposed ? "[1,4,32]" : "[1,32,4]", scales, sizeof scales);
        maker_add(&m, M ".gate_up_proj_weight_scale_2", "F32", "[]", &one, sizeof one);
        tensors_add(&m, "",
                    "/" M ".down_proj F8_E4M3 1,16,64 =2; /" M
                    ".down_proj_weight_scale F32 - =0.5");
        assert_int_equal(tiny_open_skewed(&t, &m, 0, TINY_CONFIG, &err), 0);
        if (checkpoint_expert(&t.ck, M, EXPERTS_PLAIN, 1, 0, 16, 64, &x, &err) < 0)
            fail_msg("%s: %s", err.where, err.message);
        for (int r = 0; r < 32; r++)
            assert_int_equal(((const uint8_t *)x.gate_up[0].data)[r * 32 + 7], r);
        float row[16];
        assert_int_equal(x.down.format, WEIGHT_FP8);
        weight_dequantize_row(&x.down, 63, row);
        assert_true(row[15] == 1.0f);
        tiny_close(&t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout),
        cmocka_unit_test(st14_experts_refused),
        cmocka_unit_test(one_bad_scale),
        cmocka_unit_test(square_stacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
