/* What has gone wrong with NVFP4 files in public engines, one test a fault. Faults of schedulers
 * and of reference runs are tested where those are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "load/experts.h"
#include "num/nvfp4.h"
#include "support/quant_lines.h"

/* A power of two, for exact values. */
#define MO_POWER "weight_scale_2 F32 - =0.0009765625;"

#define NVFP4_CONFIG                                                                               \
    "{\"model_type\":\"m\",\"quantization_config\":{\"quant_algo\":\"W4A16_NVFP4\"}}"

#define W4A4_CONFIG                                                                                \
    "{\"model_type\":\"m\",\"quantization_config\":{\"quant_method\":\"modelopt\","                \
    "\"quant_algo\":\"NVFP4\"}}"

static void refuse(const char *line, int code, const char *words) {
    struct tiny t;
    struct weight w;
    struct imp_error err = {0};
    must_open(&t, line, TINY_CONFIG);
    int rc = checkpoint_weight(&t.ck, M, -1, -1, &w, &err);
    if (rc != code || !strstr(err.message, words))
        fail_msg("rc %d \"%s\"; expected %d with \"%s\"", rc, err.message, code, words);
    tiny_close(&t);
}

/* An encoder that takes exponent field 15 for reserved turns 256 .. 448 into something else. Scale
 * bytes are the file's own, never coded again; and the encoder gives each byte back. */
static void p01_scales_of_256_and_above(void **state) {
    (void)state;
    struct maker m = {0};
    uint8_t codes[127][8], scales[127];
    const float one = 1;
    memset(codes, 0x22, sizeof codes);
    for (int i = 0; i < 127; i++) {
        scales[i] = (uint8_t)i;
        assert_int_equal(e4m3_encode(e4m3_decode((uint8_t)i)), i);
    }
    assert_int_equal(e4m3_encode(247.9f), 0x77);
    assert_int_equal(e4m3_encode(248), 0x78);
    assert_int_equal(e4m3_encode(300), 0x79);
    assert_int_equal(e4m3_encode(500), 0x7E);
    maker_add(&m, M ".weight", "U8", "[127,8]", codes, sizeof codes);
    maker_add(&m, M ".weight_scale", "F8_E4M3", "[127,1]", scales, sizeof scales);
    maker_add(&m, M ".weight_scale_2", "F32", "[]", &one, sizeof one);
    struct tiny t;
    struct imp_error err;
    float row[16];
    assert_int_equal(tiny_open_skewed(&t, &m, 0, TINY_CONFIG, &err), 0);
    struct weight w = must_load(&t, M);
    assert_ptr_equal(w.block_scale, checkpoint_find(&t.ck, M ".weight_scale")->data);
    weight_dequantize_row(&w, 0x78, row);
    assert_true(row[0] == 256);
    weight_dequantize_row(&w, 0x7E, row);
    assert_true(row[15] == 448);
    tiny_close(&t);
}

/* One maker stores the scale of the whole tensor, the other its inverse. */
static void p02_divisor_and_multiplier(void **state) {
    (void)state;
    static const char *const right[] = {CT_CODES CT_SCALE "weight_global_scale F32 1 =1024",
                                        MO_CODES CT_SCALE MO_POWER};
    static const char *const wrong[] = {CT_CODES CT_SCALE
                                        "weight_global_scale F32 1 =0.0000009765625",
                                        MO_CODES CT_SCALE "weight_scale_2 F32 - =1024"};
    for (int i = 0; i < 2; i++) {
        struct tiny t;
        float row[32];
        must_open(&t, right[i], TINY_CONFIG);
        struct weight w = must_load(&t, M);
        weight_dequantize_row(&w, 0, row);
        assert_true(row[0] == -1.5f / 1024 && row[1] == 9.0f / 1024);
        assert_null(strstr(t.last, "not plausible"));
        tiny_close(&t);
        /* Weights of a million, or more, are not plausible. */
        must_open(&t, wrong[i], NVFP4_CONFIG);
        must_load(&t, M);
        assert_true(t.lines == 1 && strstr(t.last, "not plausible"));
        tiny_close(&t);
    }
}

/* Scales laid out for one GPU's tensor cores are not what the linear layout means. */
static void p03_swizzled_scales(void **state) {
    (void)state;
    refuse(CT_CODES "weight_scale F8_E4M3 128,4 3C;" CT_GLOBAL, IMP_ERR_FILE, "swizzled");
    refuse(MO_CODES "weight_scale F8_E4M3 512 3C;" MO_POWER, IMP_ERR_FILE, "swizzled");
}

/* Calibration did not reach an expert: its input scale is absent, 0, Inf, NaN or memory that nobody
 * wrote. Said once, and the activations' own range serves. */
static void p04_input_scale_missing(void **state) {
    (void)state;
    static const char *const scales[] = {"",
                                         "input_scale F32 - =0",
                                         "input_scale F32 - =inf",
                                         "input_scale F32 - =nan",
                                         "input_scale F32 - =-1",
                                         "input_scale F32 - =1e-40",
                                         "input_scale F32 - =3e38",
                                         "input_scale I32 1 7F"};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        char line[256];
        struct tiny t;
        float x[16] = {0.5f, -2}, out[16];
        snprintf(line, sizeof line, "%s%s", MO_CODES CT_SCALE MO_POWER, scales[i]);
        must_open(&t, line, W4A4_CONFIG);
        struct weight w = must_load(&t, M);
        assert_true(isnan(w.input_multiplier));
        must_load(&t, M);
        assert_int_equal(t.lines, 1);
        assert_non_null(strstr(t.last, "no usable input scale"));
        float a = nvfp4_round_activation(x, w.input_multiplier, 16, out);
        assert_true(isfinite(a) && out[1] * a == -2);
        tiny_close(&t);
    }
}

/* Asked to run a weight-only file in W4A4, an engine multiplied by a scale that was never read. */
static void p05_weight_only_as_w4a4(void **state) {
    (void)state;
    struct tiny t;
    float x[16] = {1, 2, 3, 4}, out[16];
    must_open(&t, MO_CODES CT_SCALE MO_POWER,
              "{\"model_type\":\"m\",\"quantization_config\":{\"quant_method\":\"modelopt\","
              "\"quant_algo\":\"W4A16_NVFP4\"}}");
    struct weight w = must_load(&t, M);
    assert_int_equal(t.lines, 0);
    float a = nvfp4_round_activation(x, w.input_multiplier, 16, out);
    assert_true(a == 4.0f / 2688 && out[3] == 2688 && out[0] > 0);
    tiny_close(&t);
}

/* q, k, v and gate, up do not share a global scale in many files; engines took the largest. */
static void p06_globals_of_shards(void **state) {
    (void)state;
    static const char line[] =
        "/e.0.gate_proj.weight U8 32,16 22; /e.0.gate_proj.weight_scale F8_E4M3 32,2 38;"
        "/e.0.gate_proj.weight_scale_2 F32 - =1; /e.0.up_proj.weight U8 32,16 22;"
        "/e.0.up_proj.weight_scale F8_E4M3 32,2 38; /e.0.up_proj.weight_scale_2 F32 - =10;"
        "/e.0.down_proj.weight BF16 32,32 =1";
    struct tiny t;
    struct expert x;
    struct imp_error err;
    float row[32];
    must_open(&t, line, TINY_CONFIG);
    assert_int_equal(checkpoint_expert(&t.ck, "e", EXPERTS_PLAIN, 1, 0, 32, 32, &x, &err), 0);
    weight_dequantize_row(&x.gate_up[0], 0, row);
    assert_true(row[0] == 1);
    weight_dequantize_row(&x.gate_up[1], 0, row);
    assert_true(row[0] == 10);
    tiny_close(&t);
}

static void p07_scale_that_is_no_number(void **state) {
    (void)state;
    refuse(MO_CODES "weight_scale F8_E4M3 2,2 7F;" MO_POWER, IMP_ERR_FILE, "not a number");
    refuse(CT_CODES "weight_scale F8_E4M3 2,2 FF;" CT_GLOBAL, IMP_ERR_FILE, "not a number");
    /* other formats use the sign bit to select a kind of block */
    refuse(MO_CODES "weight_scale F8_E4M3 2,2 BC;" MO_POWER, IMP_ERR_FILE, "negative");
}

static void p08_scale_zero_is_a_block_of_zeros(void **state) {
    (void)state;
    struct tiny t;
    float row[32];
    must_open(&t, MO_CODES "weight_scale F8_E4M3 2,2 00;" MO_POWER, TINY_CONFIG);
    struct weight w = must_load(&t, M);
    weight_dequantize_row(&w, 0, row);
    for (int k = 0; k < 32; k++) assert_true(row[k] == 0);
    tiny_close(&t);
}

/* Rows that are not whole blocks cannot be NVFP4; as BF16 they are fine, and so are odd heights. */
static void p09_odd_sizes(void **state) {
    (void)state;
    struct tiny t;
    refuse("weight U8 2,12 7A; weight_scale F8_E4M3 2,1 38;" MO_POWER, IMP_ERR_FILE,
           "not whole blocks of 16");
    must_open(&t, "weight BF16 3,588 =1", TINY_CONFIG);
    assert_int_equal(must_load(&t, M).cols, 588);
    tiny_close(&t);
    must_open(&t, "weight U8 3,24 7A; weight_scale F8_E4M3 3,3 38;" MO_POWER, TINY_CONFIG);
    struct weight w = must_load(&t, M);
    assert_true(w.rows == 3 && w.cols == 48);
    tiny_close(&t);
}

/* Code times scale reaches 2688, and the multiplier comes last: in fp32, not in fp16. */
static void p10_no_overflow_at_the_multiplier(void **state) {
    (void)state;
    struct tiny t;
    float row[32];
    must_open(&t, "weight U8 2,16 77; weight_scale F8_E4M3 2,2 7E; weight_scale_2 F32 - =30;",
              TINY_CONFIG);
    struct weight w = must_load(&t, M);
    weight_dequantize_row(&w, 1, row);
    assert_true(row[0] == 2688.0f * 30);
    tiny_close(&t);
}

/* A router or gate must stay plain; where a tool packed it by mistake its width is half. */
static void p13_packed_router(void **state) {
    (void)state;
    struct tiny t;
    struct weight w;
    struct imp_error err;
    must_open(&t, "/model.layers.0.mlp.gate.weight U8 8,16 22;", TINY_CONFIG);
    assert_int_equal(checkpoint_weight(&t.ck, "model.layers.0.mlp.gate", 8, 32, &w, &err),
                     IMP_ERR_FILE);
    assert_non_null(
        strstr(err.message, "4-bit codes without weight_scale: found weight U8 [8, 16]"));
    tiny_close(&t);
    must_open(&t, "/model.layers.0.mlp.gate.weight BF16 8,16 =1;", TINY_CONFIG);
    assert_int_equal(checkpoint_weight(&t.ck, "model.layers.0.mlp.gate", 8, 32, &w, &err),
                     IMP_ERR_FILE);
    assert_non_null(strstr(err.message, "[8, 32] weights expected, [8, 16] found"));
    tiny_close(&t);
}

/* A KV scale multiplies what is stored, in every dialect; without one it is 1. */
static void p15_kv_scales_are_multipliers(void **state) {
    (void)state;
    struct tiny t;
    float k, v;
    must_open(&t, "/model.layers.0.self_attn.k_proj.k_scale F32 - =0.25;", TINY_CONFIG);
    checkpoint_kv_scales(&t.ck, "model.layers.0.self_attn", &k, &v);
    assert_true(k == 0.25f && v == 1);
    tiny_close(&t);
}

/* Rows may be put in another order, or cut, if codes and scales go together. */
static void p16_rows_of_codes_and_scales(void **state) {
    (void)state;
    struct maker m = {0};
    uint8_t codes[4][16], scales[4][2];
    const float one = 1;
    for (int r = 0; r < 4; r++) {
        memset(codes[r], 0x22 + r * 0x11, 16);
        memset(scales[r], 0x38 + 8 * r, 2);
    }
    maker_add(&m, M ".weight", "U8", "[4,16]", codes, sizeof codes);
    maker_add(&m, M ".weight_scale", "F8_E4M3", "[4,2]", scales, sizeof scales);
    maker_add(&m, M ".weight_scale_2", "F32", "[]", &one, sizeof one);
    struct tiny t;
    struct imp_error err;
    float row[32];
    static const float expect[4] = {1, 3, 8, 24};
    assert_int_equal(tiny_open_skewed(&t, &m, 0, TINY_CONFIG, &err), 0);
    struct weight w = must_load(&t, M), last = w;
    last.rows = 1;
    last.data = (const uint8_t *)w.data + 3 * 16;
    last.block_scale = w.block_scale + 3 * 2;
    for (int r = 0; r < 4; r++) {
        weight_dequantize_row(&w, r, row);
        assert_true(row[0] == expect[r] && row[31] == expect[r]);
    }
    weight_dequantize_row(&last, 0, row);
    assert_true(row[0] == 24 && row[31] == 24);
    tiny_close(&t);
}

/* A tool merged an adapter into `weight` and left the scales of the old weights behind. */
static void p17_stale_scales_of_a_merge(void **state) {
    (void)state;
    refuse("weight BF16 2,32 =1;" CT_SCALE MO_POWER, IMP_ERR_FILE,
           "unquantised weights with scales");
    refuse("weight BF16 2,32 =1;" CT_CODES CT_SCALE CT_GLOBAL, IMP_ERR_FILE, "two conventions");
    refuse("weight U8 4,16 7A;" CT_SCALE MO_POWER, IMP_ERR_FILE, "[4, 2] expected, [2, 2] found");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p01_scales_of_256_and_above),
        cmocka_unit_test(p02_divisor_and_multiplier),
        cmocka_unit_test(p03_swizzled_scales),
        cmocka_unit_test(p04_input_scale_missing),
        cmocka_unit_test(p05_weight_only_as_w4a4),
        cmocka_unit_test(p06_globals_of_shards),
        cmocka_unit_test(p07_scale_that_is_no_number),
        cmocka_unit_test(p08_scale_zero_is_a_block_of_zeros),
        cmocka_unit_test(p09_odd_sizes),
        cmocka_unit_test(p10_no_overflow_at_the_multiplier),
        cmocka_unit_test(p13_packed_router),
        cmocka_unit_test(p15_kv_scales_are_multipliers),
        cmocka_unit_test(p16_rows_of_codes_and_scales),
        cmocka_unit_test(p17_stale_scales_of_a_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
