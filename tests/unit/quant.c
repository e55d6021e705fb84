/* Both dialects and all formats made one form, and what is refused. st14 and st17 name rows of the
 * list of bad files that a loader must survive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/quant_lines.h"

/* NVFP4 of codes -1 and 6 under scale 1.5 and 1/2688: the two dialects, scalars of both shapes. */
static void nvfp4_both_dialects(void **state) {
    (void)state;
    static const char *const lines[] = {
        CT_CODES CT_SCALE CT_GLOBAL,
        CT_CODES CT_SCALE "weight_global_scale F32 - =2688",
        CT_CODES CT_SCALE CT_GLOBAL "weight_zero_point F8_E4M3 2,2 00",
        MO_CODES CT_SCALE MO_GLOBAL,
        MO_CODES CT_SCALE "weight_scale_2 F32 1 =0.00037202381",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct tiny t;
        float row[32];
        must_open(&t, lines[i], CT_CONFIG);
        struct weight w = must_load(&t, M);
        assert_int_equal(w.format, WEIGHT_NVFP4);
        assert_string_equal(w.name, M);
        assert_int_equal(w.rows, 2);
        assert_int_equal(w.cols, 32);
        assert_true(w.multiplier == 1.0f / 2688.0f);
        assert_true(isnan(w.input_multiplier));
        weight_dequantize_row(&w, 1, row);
        for (int k = 0; k < 32; k += 2) {
            assert_true(row[k] == -1.5f * (1.0f / 2688.0f));
            assert_true(row[k + 1] == 9.0f * (1.0f / 2688.0f));
        }
        tiny_close(&t);
    }
}

/* Rows, blocks and extreme scale bytes land where they belong; values by hand. */
static void nvfp4_places(void **state) {
    (void)state;
    struct maker m = {0};
    uint8_t codes[3][16], scales[3][2] = {{0x38, 0x01}, {0x7E, 0x00}, {0x3C, 0x08}};
    for (int r = 0; r < 3; r++) {
        for (int j = 0; j < 16; j++) codes[r][j] = (uint8_t)((2 * j % 16) | (2 * j + 1) % 16 << 4);
    }
    const float g = 0.25f;
    maker_add(&m, M ".weight", "U8", "[3,16]", codes, sizeof codes);
    maker_add(&m, M ".weight_scale", "F8_E4M3", "[3,2]", scales, sizeof scales);
    maker_add(&m, M ".weight_scale_2", "F32", "[]", &g, sizeof g);
    struct tiny t;
    struct imp_error err;
    assert_int_equal(tiny_open_skewed(&t, &m, 3, TINY_CONFIG, &err), 0);
    struct weight w = must_load(&t, M);
    static const float value[16] = {0,     .5f,  1,  1.5f,  2,  3,  4,  6,
                                    -0.0f, -.5f, -1, -1.5f, -2, -3, -4, -6};
    static const float scale[3][2] = {{1, 0x1p-9f}, {448, 0}, {1.5f, 0x1p-6f}};
    for (int r = 0; r < 3; r++) {
        float row[32];
        weight_dequantize_row(&w, r, row);
        for (int k = 0; k < 32; k++)
            assert_true(row[k] == value[k % 16] * scale[r][k / 16] * 0.25f);
    }
    tiny_close(&t);
}

/* ModelOpt's AWQ: factors for the input, beside the weights and not in them. */
static void pre_quant_scale(void **state) {
    (void)state;
    static const char *const lines[] = {
        MO_CODES CT_SCALE MO_GLOBAL "pre_quant_scale BF16 32 =0.5",
        MO_CODES CT_SCALE MO_GLOBAL "pre_quant_scale F32 1,32 =0.5",
        MO_CODES CT_SCALE MO_GLOBAL "input_quantizer._pre_quant_scale F16 32 =0.5",
        "weight F8_E4M3 4,32 =2; weight_scale F32 - =0.5; pre_quant_scale F32 32 =0.5",
        "weight BF16 4,32 =2;",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct tiny t;
        float row[32];
        must_open(&t, lines[i], TINY_CONFIG);
        struct weight w = must_load(&t, M);
        assert_int_equal(w.pre_scale == NULL, i == 4);
        for (int k = 0; k < 32 && w.pre_scale; k++) assert_true(w.pre_scale[k] == 0.5f);
        weight_dequantize_row(&w, 0, row);
        assert_true(i < 3 ? row[1] == 9.0f * w.multiplier : row[1] == (i == 3 ? 1.0f : 2.0f));
        tiny_close(&t);
    }
}

/* Real files do not share the global scale over q, k and v. */
static void globals_kept_apart(void **state) {
    (void)state;
    struct tiny t;
    static const char line[] =
        "/a.q_proj.weight_packed U8 2,16 22; /a.q_proj.weight_scale F8_E4M3 2,2 38;"
        "/a.q_proj.weight_global_scale F32 1 =2;"
        "/a.k_proj.weight_packed U8 2,16 22; /a.k_proj.weight_scale F8_E4M3 2,2 38;"
        "/a.k_proj.weight_global_scale F32 1 =4;"
        "/a.v_proj.weight_packed U8 2,16 22; /a.v_proj.weight_scale F8_E4M3 2,2 38;"
        "/a.v_proj.weight_global_scale F32 1 =16;";
    must_open(&t, line, CT_CONFIG);
    float row[32];
    struct weight q = must_load(&t, "a.q_proj"), k = must_load(&t, "a.k_proj");
    struct weight v = must_load(&t, "a.v_proj");
    assert_true(q.multiplier == 0.5f && k.multiplier == 0.25f && v.multiplier == 0.0625f);
    weight_dequantize_row(&k, 0, row);
    assert_true(row[0] == 0.25f);
    tiny_close(&t);
}

static void mxfp4(void **state) {
    (void)state;
    static const char *const lines[] = {
        "weight_packed U8 2,32 7A; weight_scale U8 2,2 80",
        "weight U8 2,32 7A; weight_scale U8 2,2 80",
        "weight U8 2,32 7A; weight_scale F8_E8M0 2,2 80",
    };
    for (size_t i = 0; i < 3; i++) {
        struct tiny t;
        float row[64];
        must_open(&t, lines[i], TINY_CONFIG);
        struct weight w = must_load(&t, M);
        assert_int_equal(w.format, WEIGHT_MXFP4);
        assert_int_equal(w.cols, 64);
        weight_dequantize_row(&w, 1, row);
        assert_true(row[0] == -2.0f && row[1] == 12.0f && row[63] == 12.0f);
        tiny_close(&t);
    }
}

static const struct fp8_case {
    const char *line;
    int64_t rows, cols, scale_rows, scale_cols; /* 0: one scale */
    float value;
} FP8_CASES[] = {
    {FP8 "weight_scale F32 - =0.5", 4, 8, 0, 0, 1},
    {FP8 "weight_scale BF16 1 =0.5", 4, 8, 0, 0, 1},
    {FP8 "weight_scale_inv BF16 - =0.5; activation_scale BF16 - =3", 4, 8, 0, 0, 1},
    {FP8 "weight_scale F32 4 =0.25", 4, 8, 1, 8, 0.5f},
    {FP8 "weight_scale BF16 4,1 =0.25", 4, 8, 1, 8, 0.5f},
    {FP8 "weight_scale F16 4,1 =0.25", 4, 8, 1, 8, 0.5f},
    {FP8 "weight_scale F32 4,2 =0.25", 4, 8, 1, 4, 0.5f},
    {"weight F8_E4M3 130,256 =2; weight_scale BF16 2,2 =4", 130, 256, 128, 128, 8},
    {"weight F8_E4M3 130,256 =2; weight_scale_inv F32 2,2 =4", 130, 256, 128, 128, 8},
    {"weight F8_E4M3 130,256 =2; weight_scale F32 2,1,2,1 =4", 130, 256, 128, 128, 8},
    {"weight F8_E4M3 576,8 =2; weight_scale F32 5,1 =4", 576, 8, 128, 128, 8},
    {"weight F8_E4M3 128,64 =2; weight_scale F32 2,2 =4", 128, 64, 64, 32, 8},
};

static void fp8_kinds(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof FP8_CASES / sizeof *FP8_CASES; i++) {
        const struct fp8_case *c = &FP8_CASES[i];
        struct tiny t;
        float row[256];
        must_open(&t, c->line, TINY_CONFIG);
        struct weight w = must_load(&t, M);
        assert_int_equal(w.format, WEIGHT_FP8);
        assert_int_equal(w.rows, c->rows);
        assert_int_equal(w.cols, c->cols);
        assert_int_equal(w.scale != NULL, c->scale_rows != 0);
        if (w.scale) {
            assert_int_equal(w.scale_rows, c->scale_rows);
            assert_int_equal(w.scale_cols, c->scale_cols);
        }
        weight_dequantize_row(&w, w.rows - 1, row);
        assert_true(row[0] == c->value && row[w.cols - 1] == c->value);
        tiny_close(&t);
    }
}

/* Each block under its own scale, with the block size that the configuration states. */
static void fp8_blocks_apart(void **state) {
    (void)state;
    struct maker m = {0};
    static uint8_t one[65 * 70];
    const uint16_t scales[4] = {0x3F80, 0x4000, 0x4040, 0x4080}; /* BF16 1 2 3 4 */
    memset(one, 0x38, sizeof one);
    maker_add(&m, M ".weight", "F8_E4M3", "[65,70]", one, sizeof one);
    maker_add(&m, M ".weight_scale_inv", "BF16", "[2,2]", scales, sizeof scales);
    struct tiny t;
    struct imp_error err;
    float row[70];
    assert_int_equal(
        tiny_open_skewed(&t, &m, 1,
                         "{\"model_type\":\"m\",\"quantization_config\":{\"quant_method\":"
                         "\"fp8\",\"weight_block_size\":[64,64]}}",
                         &err),
        0);
    struct weight w = must_load(&t, M);
    assert_int_equal(w.scale_rows, 64);
    weight_dequantize_row(&w, 63, row);
    assert_true(row[0] == 1 && row[63] == 1 && row[64] == 2 && row[69] == 2);
    weight_dequantize_row(&w, 64, row);
    assert_true(row[63] == 3 && row[64] == 4);
    assert_int_equal(t.lines, 0);
    tiny_close(&t);
}

static void plain_formats(void **state) {
    (void)state;
    static const char *const dtypes[] = {"F32", "F16", "BF16"};
    static const enum weight_format formats[] = {WEIGHT_F32, WEIGHT_F16, WEIGHT_BF16};
    for (int i = 0; i < 3; i++) {
        for (int skew = 0; skew < 4; skew++) { /* an unaligned file must read alike */
            struct maker m = {0};
            char line[64];
            snprintf(line, sizeof line, "weight %s 2,3 =-1.5", dtypes[i]);
            tensors_add(&m, M, line);
            struct tiny t;
            struct imp_error err;
            float row[3];
            assert_int_equal(tiny_open_skewed(&t, &m, skew, TINY_CONFIG, &err), 0);
            struct weight w = must_load(&t, M);
            assert_int_equal(w.format, formats[i]);
            weight_dequantize_row(&w, 1, row);
            assert_true(row[0] == -1.5f && row[2] == -1.5f);
            tiny_close(&t);
        }
    }
}

static const struct input_case {
    const char *line;
    float expect;
    int lines;
} INPUT_CASES[] = {
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale F32 1 =4", 0.25f, 0},
    {MO_CODES CT_SCALE MO_GLOBAL "input_scale F32 - =4", 4.0f, 1}, /* 1: the dialect's remark */
    {CT_CODES CT_SCALE CT_GLOBAL, NAN, 1},
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale F32 1 =0", NAN, 1},
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale F32 1 =inf", NAN, 1},
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale F32 1 =nan", NAN, 1},
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale F32 1 =-4", NAN, 1},
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale F32 1 =1e-45", NAN, 1},
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale F32 1 =1e30", NAN, 1},
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale F32 1 =1", 1.0f, 0},
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale F32 2 =4", NAN, 1},
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale I32 1 00", NAN, 1},
    {CT_CODES CT_SCALE CT_GLOBAL "input_global_scale F32 1 =4; input_scale F32 1 =4", NAN, 1},
    {FP8 "weight_scale F32 - =1; input_scale F32 1 =0.5", 0.5f, 1},
    {FP8 "weight_scale F32 - =1; activation_scale BF16 - =0.5", 0.5f, 1},
};

static void input_scales_never_fail(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof INPUT_CASES / sizeof *INPUT_CASES; i++) {
        const struct input_case *c = &INPUT_CASES[i];
        struct tiny t;
        must_open(&t, c->line, CT_CONFIG);
        struct weight w = must_load(&t, M);
        must_load(&t, M);
        if (isnan(c->expect)) {
            assert_true(isnan(w.input_multiplier));
            assert_non_null(strstr(t.last, "input scale"));
            assert_int_equal(t.ck.no_input_scale, 2); /* loaded twice, said once */
        } else {
            assert_true(w.input_multiplier == c->expect);
        }
        if (t.lines != c->lines) fail_msg("case %zu: %d lines, last \"%s\"", i, t.lines, t.last);
        tiny_close(&t);
    }
}

static const struct bad_case {
    const char *line;
    int code;
    const char *words; /* in the message or its place */
} BAD[] = {
    /* scale counts */
    {CT_CODES "weight_scale F8_E4M3 2,3 3C;" CT_GLOBAL, IMP_ERR_FILE,
     "[2, 2] expected, [2, 3] found"},
    {CT_CODES "weight_scale F8_E4M3 1,2 3C;" CT_GLOBAL, IMP_ERR_FILE, "[2, 2] expected"},
    {CT_CODES "weight_scale F8_E4M3 4 3C;" CT_GLOBAL, IMP_ERR_FILE, "[2, 2] expected, [4] found"},
    {CT_CODES "weight_scale F8_E4M3 2,0 3C;" CT_GLOBAL, IMP_ERR_FILE, "[2, 2] expected"},
    {CT_CODES "weight_scale F8_E4M3 128,4 3C;" CT_GLOBAL, IMP_ERR_FILE, "swizzled"},
    {MO_CODES "weight_scale F8_E4M3 512 3C;" MO_GLOBAL, IMP_ERR_FILE, "swizzled"},
    {MO_CODES "weight_scale F8_E4M3 2,1 3C;" MO_GLOBAL, IMP_ERR_UNSUPPORTED, "blocks of 32"},
    {"weight_packed U8 2,12 7A;" CT_SCALE CT_GLOBAL, IMP_ERR_FILE, "not whole blocks of 16"},
    {"weight_packed U8 2,16 7A; weight_scale U8 2,2 7F", IMP_ERR_FILE, "[2, 1] expected"},
    {"weight U8 2,8 7A; weight_scale U8 2,1 7F", IMP_ERR_FILE, "not whole blocks of 32"},
    /* the scale of the whole tensor */
    {CT_CODES CT_SCALE "weight_global_scale F32 1 =0", IMP_ERR_FILE, "weight_global_scale"},
    {CT_CODES CT_SCALE "weight_global_scale F32 1 =-0.0", IMP_ERR_FILE, "whole tensor is"},
    {CT_CODES CT_SCALE "weight_global_scale F32 1 =-1", IMP_ERR_FILE, "whole tensor is -1"},
    {CT_CODES CT_SCALE "weight_global_scale F32 1 =inf", IMP_ERR_FILE, "whole tensor is inf"},
    {CT_CODES CT_SCALE "weight_global_scale F32 1 =nan", IMP_ERR_FILE, "whole tensor is"},
    {CT_CODES CT_SCALE "weight_global_scale F32 1 =1e-45", IMP_ERR_FILE, "whole tensor is"},
    {CT_CODES CT_SCALE "weight_global_scale F32 3 =1", IMP_ERR_FILE, "F32 [3] found"},
    {CT_CODES CT_SCALE "weight_global_scale F32 0 =1", IMP_ERR_FILE, "F32 [0] found"},
    {CT_CODES CT_SCALE "weight_global_scale I32 1 00", IMP_ERR_FILE, "I32 [1] found"},
    {MO_CODES CT_SCALE "weight_scale_2 F32 - =0", IMP_ERR_FILE, "weight_scale_2"},
    {MO_CODES CT_SCALE "weight_scale_2 F32 - =nan", IMP_ERR_FILE, "whole tensor is"},
    {MO_CODES CT_SCALE "weight_scale_2 F32 - =inf", IMP_ERR_FILE, "whole tensor is inf"},
    {MO_CODES CT_SCALE "weight_scale_2 F32 - =-1", IMP_ERR_FILE, "whole tensor is -1"},
    /* block scales */
    {CT_CODES "weight_scale F8_E4M3 2,2 7F;" CT_GLOBAL, IMP_ERR_FILE, "0x7F: not a number"},
    {CT_CODES "weight_scale F8_E4M3 2,2 FF;" CT_GLOBAL, IMP_ERR_FILE, "0xFF: not a number"},
    {CT_CODES "weight_scale F8_E4M3 2,2 BC;" CT_GLOBAL, IMP_ERR_FILE, "0xBC: negative"},
    {MO_CODES "weight_scale F8_E4M3 2,2 80;" MO_GLOBAL, IMP_ERR_FILE, "0x80: negative"},
    {"weight U8 2,32 7A; weight_scale U8 2,2 FF", IMP_ERR_FILE, "0xFF: not a number"},
    /* two conventions, and too little of one */
    {CT_CODES MO_CODES CT_SCALE CT_GLOBAL, IMP_ERR_FILE, "two conventions"},
    {CT_CODES CT_SCALE CT_GLOBAL MO_GLOBAL, IMP_ERR_FILE, "two conventions"},
    {MO_CODES CT_SCALE CT_GLOBAL MO_GLOBAL, IMP_ERR_FILE, "two conventions"},
    {CT_CODES CT_SCALE MO_GLOBAL, IMP_ERR_FILE, "two conventions"},
    {MO_CODES CT_SCALE CT_GLOBAL, IMP_ERR_FILE, "two conventions"},
    {FP8 "weight_scale F32 - =1; weight_scale_inv F32 - =1", IMP_ERR_FILE, "two conventions"},
    {CT_CODES CT_SCALE, IMP_ERR_FILE, "without weight_global_scale"},
    {MO_CODES CT_SCALE, IMP_ERR_FILE, "without weight_scale_2"},
    {CT_CODES CT_GLOBAL, IMP_ERR_FILE, "without weight_scale"},
    {MO_CODES, IMP_ERR_FILE, "found weight U8 [2, 16]"},
    {CT_CODES "weight_scale F32 2,2 =1;" CT_GLOBAL, IMP_ERR_FILE, "neither E4M3 nor E8M0"},
    {CT_CODES "weight_scale U8 2,1 7F;" CT_GLOBAL, IMP_ERR_FILE, "MXFP4 has no scale of the whole"},
    {CT_SCALE CT_GLOBAL, IMP_ERR_FILE, "no linear under this name"},
    {"weight_packed F32 2,16 =1;" CT_SCALE CT_GLOBAL, IMP_ERR_FILE, "means nothing"},
    /* FP8 */
    {FP8, IMP_ERR_FILE, "without a scale"},
    {FP8 "weight_scale F32 - =0", IMP_ERR_FILE, "whole tensor is 0"},
    {FP8 "weight_scale F32 - =nan", IMP_ERR_FILE, "whole tensor is"},
    {FP8 "weight_scale F32 - =-1", IMP_ERR_FILE, "whole tensor is -1"},
    {FP8 "weight_scale F32 4,1 =inf", IMP_ERR_FILE, "scale 0 is inf"},
    {FP8 "weight_scale BF16 4,1 =-1", IMP_ERR_FILE, "scale 0 is -1"},
    {FP8 "weight_scale F32 8 =1", IMP_ERR_FILE, "fit no layout"},
    {FP8 "weight_scale F32 3,3 =1", IMP_ERR_FILE, "fit no layout"},
    {FP8 "weight_scale F32 0 =1", IMP_ERR_FILE, "fit no layout"},
    {FP8 "weight_scale F32 0,0 =1", IMP_ERR_FILE, "fit no layout"},
    {FP8 "weight_scale F32 5,9 =1", IMP_ERR_FILE, "fit no layout"},
    {FP8 "weight_scale F32 2,2,1,1 =1", IMP_ERR_FILE, "fit no layout"},
    {FP8 "weight_scale I32 4 00", IMP_ERR_FILE, "dtype I32"},
    {FP8 "weight_scale F32 - =1; weight_scale_2 F32 - =1", IMP_ERR_FILE, "second scale"},
    /* a matrix that is none */
    {"weight F32 6 =1", IMP_ERR_FILE, "a matrix expected, [6] found"},
    {"weight F32 - =1", IMP_ERR_FILE, "a matrix expected, [] found"},
    {"weight F32 2,0 =1", IMP_ERR_FILE, "a matrix expected, [2, 0] found"},
    {"weight BF16 2,2 =1; weight_scale F32 2 =1", IMP_ERR_FILE, "unquantised weights with scales"},
    /* formats that imp does not have, by name */
    {"weight_packed I32 2,4 00; weight_scale BF16 2,1 =1; weight_shape I64 2 00",
     IMP_ERR_UNSUPPORTED, "pack-quantized"},
    {"weight I8 2,4 00; weight_scale BF16 2,1 =1", IMP_ERR_UNSUPPORTED, "int-quantized"},
    {"weight F8_E4M3 2,32 =1; weight_scale U8 2,1 7F", IMP_ERR_UNSUPPORTED, "MXFP8"},
    {"weight F8_E5M2 2,32 3C; weight_scale F32 - =1", IMP_ERR_UNSUPPORTED, "F8_E5M2"},
    {"weight F64 2,2 00", IMP_ERR_UNSUPPORTED, "F64"},
    {"weight F32 2,2,2 =1", IMP_ERR_UNSUPPORTED, "stacked matrices [2, 2, 2]"},
    {"qweight I32 4,4 00; qzeros I32 1,1 00; scales F16 1,4 =1", IMP_ERR_UNSUPPORTED,
     "GPTQ or AWQ"},
    {"compressed BF16 4 =1; bitmask U8 4,1 00", IMP_ERR_UNSUPPORTED, "sparse bitmasks"},
    {"W_q U8 4,4 00; meta F32 1 =1", IMP_ERR_UNSUPPORTED, "HQQ"},
    {"q_weight I32 4,4 00", IMP_ERR_UNSUPPORTED, "EXL2"},
    {"trellis I16 4,4 00", IMP_ERR_UNSUPPORTED, "EXL3"},
    {"weight U8 4,8 00; weight_scale F32 4,1 =1; pre_quant_scale BF16 16 =1", IMP_ERR_UNSUPPORTED,
     "4-bit integers (ModelOpt's INT4 and AWQ)"},
    {"weight U8 16,1 00; weight.absmax F32 1 =1", IMP_ERR_UNSUPPORTED, "bitsandbytes 4-bit"},
    {"weight I8 2,2 00; SCB F32 2 =1", IMP_ERR_UNSUPPORTED, "bitsandbytes 8-bit"},
    /* AWQ's factors */
    {MO_CODES CT_SCALE MO_GLOBAL "pre_quant_scale BF16 31 =1", IMP_ERR_FILE,
     "32 factors expected, BF16 [31] found"},
    {MO_CODES CT_SCALE MO_GLOBAL "pre_quant_scale F32 - =1", IMP_ERR_FILE, "F32 [] found"},
    {MO_CODES CT_SCALE MO_GLOBAL "pre_quant_scale I32 32 00", IMP_ERR_FILE, "I32 [32] found"},
    {MO_CODES CT_SCALE MO_GLOBAL "pre_quant_scale F32 32 =nan", IMP_ERR_FILE, "factor 0 is"},
    {MO_CODES CT_SCALE MO_GLOBAL "pre_quant_scale F32 32 =0", IMP_ERR_FILE, "factor 0 is 0"},
    {MO_CODES CT_SCALE MO_GLOBAL "pre_quant_scale F32 32 =-1", IMP_ERR_FILE, "factor 0 is -1"},
    {MO_CODES CT_SCALE MO_GLOBAL "svdquant_lora_a BF16 4,32 =1", IMP_ERR_UNSUPPORTED, "SVDQuant"},
};

static void check_bad(const struct bad_case *c, size_t i) {
    struct tiny t;
    struct weight w;
    struct imp_error err = {0};
    must_open(&t, c->line, TINY_CONFIG);
    int rc = checkpoint_weight(&t.ck, M, -1, -1, &w, &err);
    if (rc != c->code || (!strstr(err.message, c->words) && !strstr(err.where, c->words)))
        fail_msg("case %zu: rc %d \"%s\" at \"%s\"; expected %d with \"%s\"", i, rc, err.message,
                 err.where, c->code, c->words);
    assert_non_null(strstr(err.where, M));
    assert_non_null(strstr(err.where, t.folder));
    tiny_close(&t);
}

static void st17_nvfp4_scales(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) check_bad(&BAD[i], i);
}

/* A single bad byte, wherever it is; the message says where. */
static void st17_one_bad_block_scale(void **state) {
    (void)state;
    enum { N = 10007 };
    static uint8_t scales[N];
    memset(scales, 0x7E, N);
    assert_int_equal(quant_find_bad_e4m3_scale(scales, N), -1);
    assert_int_equal(quant_find_bad_e4m3_scale(NULL, 0), -1);
    for (int at = 0; at < N; at += at < 40 || at > N - 40 ? 1 : 97) {
        for (int byte = 0; byte < 256; byte += at % 16 ? 127 : 1) {
            scales[at] = (uint8_t)byte;
            assert_int_equal(quant_find_bad_e4m3_scale(scales, N), byte >= 0x7F ? at : -1);
        }
        scales[at] = 0x7E;
    }
    memset(scales, 0xFE, N);
    assert_int_equal(quant_find_bad_e8m0_scale(scales, N), -1);
    scales[N - 1] = 0xFF;
    assert_int_equal(quant_find_bad_e8m0_scale(scales, N), N - 1);

    struct maker m = {0};
    uint8_t codes[32] = {0}, four[4] = {0x38, 0x38, 0x38, 0x7F};
    const float g = 1;
    maker_add(&m, M ".weight", "U8", "[2,16]", codes, sizeof codes);
    maker_add(&m, M ".weight_scale", "F8_E4M3", "[2,2]", four, sizeof four);
    maker_add(&m, M ".weight_scale_2", "F32", "[]", &g, sizeof g);
    struct tiny t;
    struct imp_error err;
    struct weight w;
    char words[80];
    assert_int_equal(tiny_open_skewed(&t, &m, 0, TINY_CONFIG, &err), 0);
    assert_int_equal(checkpoint_weight(&t.ck, M, 2, 32, &w, &err), IMP_ERR_FILE);
    uint64_t offset = checkpoint_find(&t.ck, M ".weight_scale")->file_offset + 3;
    snprintf(words, sizeof words, "block scale 3, at byte %" PRIu64 " of the file", offset);
    assert_non_null(strstr(err.message, words));
    assert_non_null(strstr(err.where, "tensor " M ".weight_scale"));
    tiny_close(&t);
}

static const struct {
    const char *line;
    int64_t rows, cols;
    const char *words; /* NULL: fits */
} SHAPES[] = {
    {CT_CODES CT_SCALE CT_GLOBAL, 2, 32, NULL},
    {CT_CODES CT_SCALE CT_GLOBAL, -1, 32, NULL},
    {CT_CODES CT_SCALE CT_GLOBAL, 3, 32, "[3, 32] weights expected, [2, 32] found"},
    {CT_CODES CT_SCALE CT_GLOBAL, 2, 16, "[2, 16] weights expected, [2, 32] found"},
    {CT_CODES CT_SCALE CT_GLOBAL, -1, 16, "[any, 16] weights expected"},
    {FP8 "weight_scale F32 - =1", 4, 8, NULL},
    {FP8 "weight_scale F32 - =1", 8, 4, "[8, 4] weights expected, [4, 8] found"},
    {"weight BF16 2,3 =1", 2, 3, NULL},
    {"weight BF16 2,3 =1", 2, 4, "[2, 4] weights expected, [2, 3] found (stored as BF16 [2, 3])"},
    {"weight U8 2,32 7A; weight_scale U8 2,2 80", 2, 32, "[2, 32] weights expected, [2, 64] found"},
};

static void st14_shape_disagrees(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++) {
        struct tiny t;
        struct weight w;
        struct imp_error err = {0};
        must_open(&t, SHAPES[i].line, TINY_CONFIG);
        int rc = checkpoint_weight(&t.ck, M, SHAPES[i].rows, SHAPES[i].cols, &w, &err);
        assert_int_equal(rc, SHAPES[i].words ? IMP_ERR_FILE : 0);
        if (SHAPES[i].words && !strstr(err.message, SHAPES[i].words))
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, err.message, SHAPES[i].words);
        if (SHAPES[i].words) assert_non_null(strstr(err.where, "tensor " M ".weight"));
        tiny_close(&t);
    }
    struct tiny t;
    struct weight w;
    struct imp_error err = {0};
    must_open(&t, CT_CODES CT_SCALE CT_GLOBAL, TINY_CONFIG);
    assert_int_equal(checkpoint_weight(&t.ck, "model.layers.0.mlp.down_proj", 1, 1, &w, &err),
                     IMP_ERR_FILE);
    assert_non_null(strstr(err.where, "module model.layers.0.mlp.down_proj"));
    assert_non_null(strstr(err.message, "no linear under this name: found nothing"));
    tiny_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nvfp4_both_dialects),
        cmocka_unit_test(nvfp4_places),
        cmocka_unit_test(pre_quant_scale),
        cmocka_unit_test(globals_kept_apart),
        cmocka_unit_test(mxfp4),
        cmocka_unit_test(fp8_kinds),
        cmocka_unit_test(fp8_blocks_apart),
        cmocka_unit_test(plain_formats),
        cmocka_unit_test(input_scales_never_fail),
        cmocka_unit_test(st14_shape_disagrees),
        cmocka_unit_test(st17_nvfp4_scales),
        cmocka_unit_test(st17_one_bad_block_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
