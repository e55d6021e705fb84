/* What the configuration says about quantisation, against the tensors; what it makes imp refuse. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "support/quant_lines.h"

/* The tensors decide, and each kind of disagreement is said once. */
static void config_is_not_believed(void **state) {
    (void)state;
    struct tiny t;
    must_open(&t, FP8 "weight_scale F32 - =1", CT_CONFIG);
    assert_int_equal(must_load(&t, M).format, WEIGHT_FP8);
    must_load(&t, M);
    assert_int_equal(t.lines, 1);
    assert_string_equal(t.last, M " is stored as fp8, which the configuration does not mention; "
                                  "going by the tensors");
    tiny_close(&t);
    must_open(&t, MO_CODES CT_SCALE MO_GLOBAL "input_scale F32 - =1", CT_CONFIG);
    must_load(&t, M);
    must_load(&t, M);
    assert_int_equal(t.lines, 1);
    assert_non_null(strstr(t.last, "says compressed-tensors"));
    tiny_close(&t);
    must_open(&t,
              "/lm_head.weight_packed U8 2,16 7A; /lm_head.weight_scale F8_E4M3 2,2 3C;"
              "/lm_head.weight_global_scale F32 1 =1; /lm_head.input_global_scale F32 1 =1",
              CT_CONFIG);
    must_load(&t, "lm_head");
    assert_int_equal(t.lines, 1);
    assert_non_null(strstr(t.last, "leaves lm_head unquantised, it is stored as nvfp4"));
    tiny_close(&t);
    must_open(&t, CT_CODES CT_SCALE "weight_global_scale F32 1 =1e-8; input_global_scale F32 1 =1",
              CT_CONFIG);
    must_load(&t, M);
    assert_int_equal(t.lines, 1);
    assert_non_null(strstr(t.last, "not plausible"));
    tiny_close(&t);
}

static void online_transforms(void **state) {
    (void)state;
    static const struct {
        const char *transform, *words; /* NULL: fine */
    } cases[] = {
        {"{}", NULL},
        {"null", NULL},
        {"{\"config_groups\":{}}", NULL},
        {"{\"config_groups\":{\"R1\":{\"type\":\"hadamard\",\"apply\":[{\"location\":"
         "\"weight_output\"},{\"location\":\"weight_input\"}]}}}",
         NULL},
        {"{\"config_groups\":{\"R4\":{\"type\":\"hadamard\",\"apply\":[{\"location\":"
         "\"weight_input\"},{\"location\":\"input\"}]}}}",
         "\"hadamard\""},
        {"{\"config_groups\":{\"R3\":{\"type\":\"random-hadamard\",\"apply\":[{\"location\":"
         "\"k_cache\"}]}}}",
         "location \"k_cache\""},
        {"{\"config_groups\":{\"R9\":{\"type\":\"hadamard\"}}}", "location \"unknown\""},
        {"{\"config_groups\":{\"R9\":{\"apply\":[{}]}}}", "\"unknown\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str config = {0};
        struct tiny t;
        struct imp_error err = {0};
        str_printf(&config,
                   "{\"model_type\":\"m\",\"quantization_config\":{\"quant_method\":"
                   "\"compressed-tensors\",\"transform_config\":%s}}",
                   cases[i].transform);
        int rc = tiny_open(&t, M, CT_CODES CT_SCALE CT_GLOBAL, config.data, &err);
        assert_int_equal(rc, cases[i].words ? IMP_ERR_UNSUPPORTED : 0);
        if (cases[i].words) {
            assert_non_null(strstr(err.message, cases[i].words));
            assert_non_null(strstr(err.where, "transform_config.R"));
        }
        str_free(&config);
        tiny_close(&t);
    }
}

#define NVFP4 (1 << WEIGHT_NVFP4)
#define FP8_  (1 << WEIGHT_FP8)

/* What the configurations of published checkpoints declare: every folder of tests/data/configs. */
static const struct published {
    const char *folder;
    enum quant_dialect dialect;
    unsigned formats;
    bool activations;
    int64_t block;
    int kv_bits;
} PUBLISHED[] = {
    {"DeepSeek-V3.1-NVFP4", QUANT_MODELOPT, NVFP4, true, 0, 8},
    {"Devstral-Small-2-24B-Instruct-2512", QUANT_NONE, FP8_, false, 0, 0},
    {"MiniMax-M2.7-NVFP4", QUANT_MODELOPT, NVFP4, true, 0, 8},
    {"Mistral-7B-Instruct-v0.2", QUANT_NONE, 0, false, 0, 0},
    {"Mistral-Small-3.2-24B-Instruct-2506", QUANT_NONE, 0, false, 0, 0},
    {"Mistral-Small-3.2-24B-Instruct-2506-NVFP4", QUANT_COMPRESSED_TENSORS, NVFP4, true, 0, 0},
    {"Mixtral-8x7B-v0.1", QUANT_NONE, 0, false, 0, 0},
    {"Qwen2.5-7B-Instruct", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3-0.6B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3-1.7B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3-235B-A22B-NVFP4", QUANT_MODELOPT, NVFP4, true, 0, 8},
    {"Qwen3-30B-A3B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3-30B-A3B-FP8", QUANT_NONE, FP8_, false, 128, 0},
    {"Qwen3-30B-A3B-NVFP4", QUANT_MODELOPT, NVFP4, true, 0, 8},
    {"Qwen3-32B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3-32B-FP8-Static-PerTensor", QUANT_MODELOPT, FP8_, true, 0, 8},
    {"Qwen3-4B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3-8B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3-Coder-30B-A3B-Instruct", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3-Coder-30B-A3B-Instruct-NVFP4", QUANT_COMPRESSED_TENSORS, NVFP4, true, 0, 0},
    {"Qwen3.5-0.8B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3.5-122B-A10B-NVFP4", QUANT_MODELOPT, NVFP4, true, 0, 8},
    {"Qwen3.5-27B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3.5-35B-A3B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3.5-9B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3.6-27B-NVFP4", QUANT_MODELOPT, NVFP4 | FP8_, true, 0, 8},
    {"Qwen3.6-35B-A3B", QUANT_NONE, 0, false, 0, 0},
    {"Qwen3.6-35B-A3B-NVFP4", QUANT_MODELOPT, NVFP4 | FP8_, true, 0, 8},
    {"Qwen3.6-35B-A3B-NVFP4.llm-compressor", QUANT_COMPRESSED_TENSORS, NVFP4, true, 0, 0},
    {"SmolLM2-135M-Instruct", QUANT_NONE, 0, false, 0, 0},
    {"gpt-oss-120b", QUANT_NONE, 1 << WEIGHT_MXFP4, false, 0, 0},
    {"gpt-oss-20b", QUANT_NONE, 1 << WEIGHT_MXFP4, false, 0, 0},
};

static void published_declarations(void **state) {
    (void)state;
    const char *root = IMP_SOURCE_DIR "/tests/data/configs";
    size_t folders = 0, count = sizeof PUBLISHED / sizeof *PUBLISHED;
    struct dirent *entry;
    DIR *dir = opendir(root);
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        char path[512];
        snprintf(path, sizeof path, "%s/%.200s/config.json", root, entry->d_name);
        folders += file_exists(path);
    }
    closedir(dir);
    assert_int_equal(folders, count);
    for (size_t i = 0; i < count; i++) {
        const struct published *p = &PUBLISHED[i];
        char folder[512];
        struct checkpoint ck;
        struct imp_error err;
        snprintf(folder, sizeof folder, "%s/%s", root, p->folder);
        assert_int_equal(checkpoint_open(folder, false, NULL, &ck, &err), 0);
        const struct quant_declared *d = &ck.declared;
        if (ck.dialect != p->dialect || d->formats != p->formats ||
            d->activations != p->activations || d->block_rows != p->block ||
            d->kv_bits != p->kv_bits || d->fp8_inputs)
            fail_msg("%s: dialect %d formats %#x activations %d block %d kv %d", p->folder,
                     ck.dialect, d->formats, d->activations, (int)d->block_rows, d->kv_bits);
        assert_int_equal(quant_check_config(&ck, &err), 0);
        checkpoint_close(&ck);
    }
}

/* Methods whose weights nobody here can read, or that rotate activations without a trace. */
static void unknown_methods(void **state) {
    (void)state;
    static const char *const refused[] = {"gptq", "awq",   "bitsandbytes", "aqlm",      "hqq",
                                          "quip", "quark", "fp_quant",     "auto-round"};
    static const char *const known[] = {"modelopt",   "modelopt_fp4", "modelopt_mixed",    "fp8",
                                        "fbgemm_fp8", "mxfp4",        "compressed-tensors"};
    for (size_t i = 0; i < 16; i++) {
        const char *method = i < 9 ? refused[i] : known[i - 9];
        char config[160];
        struct tiny t;
        struct imp_error err = {0};
        snprintf(config, sizeof config,
                 "{\"model_type\":\"m\",\"quantization_config\":{\"quant_method\":\"%s\"}}",
                 method);
        int rc = tiny_open(&t, M, "weight BF16 2,3 =1", config, &err);
        assert_int_equal(rc, i < 9 ? IMP_ERR_UNSUPPORTED : 0);
        if (rc < 0) {
            assert_non_null(strstr(err.message, method));
            assert_non_null(strstr(err.where, "config.json: $.quantization_config.quant_method"));
        }
        tiny_close(&t);
    }
}

/* One file as nvidia's Qwen3.6-35B-A3B export: FP8 attention and delta nets, NVFP4 experts and
 * head, BF16 the rest, under the prefix of a wrapped model; its own configuration. */
static void mixed_file(void **state) {
    (void)state;
    static const char line[] =
        "/model.language_model.embed_tokens.weight BF16 4,32 =1;"
        "/model.language_model.layers.0.linear_attn.in_proj_qkv.weight F8_E4M3 4,32 =2;"
        "/model.language_model.layers.0.linear_attn.in_proj_qkv.weight_scale F32 - =0.5;"
        "/model.language_model.layers.0.linear_attn.in_proj_qkv.input_scale F32 - =0.25;"
        "/model.language_model.layers.0.linear_attn.in_proj_b.weight BF16 4,32 =3;"
        "/model.language_model.layers.0.linear_attn.conv1d.weight BF16 8,1,4 =4;"
        "/model.language_model.layers.1.self_attn.q_proj.weight F8_E4M3 4,32 =2;"
        "/model.language_model.layers.1.self_attn.q_proj.weight_scale F32 4 =4;"
        "/model.language_model.layers.1.self_attn.k_proj.weight F8_E4M3 4,32 =2;"
        "/model.language_model.layers.1.self_attn.k_proj.weight_scale BF16 4,1 =8;"
        "/model.language_model.layers.1.self_attn.v_proj.weight F8_E4M3 4,32 =2;"
        "/model.language_model.layers.1.self_attn.v_proj.weight_scale_inv F32 1,1 =16;"
        "/model.language_model.layers.1.mlp.experts.0.up_proj.weight U8 2,16 22;"
        "/model.language_model.layers.1.mlp.experts.0.up_proj.weight_scale F8_E4M3 2,2 38;"
        "/model.language_model.layers.1.mlp.experts.0.up_proj.weight_scale_2 F32 - =0.5;"
        "/model.language_model.layers.1.mlp.experts.0.up_proj.input_scale F32 - =0.125;"
        "/lm_head.weight U8 2,16 22; /lm_head.weight_scale F8_E4M3 2,2 38;"
        "/lm_head.weight_scale_2 F32 - =0.25; /lm_head.input_scale F32 - =1";
    static const struct {
        const char *module;
        enum weight_format format;
        float value;
    } expect[] = {
        {"model.embed_tokens", WEIGHT_BF16, 1},
        {"model.layers.0.linear_attn.in_proj_qkv", WEIGHT_FP8, 1},
        {"model.layers.0.linear_attn.in_proj_b", WEIGHT_BF16, 3},
        {"model.layers.1.self_attn.q_proj", WEIGHT_FP8, 8},
        {"model.layers.1.self_attn.k_proj", WEIGHT_FP8, 16},
        {"model.layers.1.self_attn.v_proj", WEIGHT_FP8, 32},
        {"model.layers.1.mlp.experts.0.up_proj", WEIGHT_NVFP4, 0.5f},
        {"lm_head", WEIGHT_NVFP4, 0.25f},
    };
    struct str config = {0};
    struct tiny t;
    struct imp_error err;
    const float *conv;
    const struct tensor *unread;
    assert_int_equal(file_read(IMP_SOURCE_DIR "/tests/data/configs/Qwen3.6-35B-A3B-NVFP4/"
                                              "config.json",
                               CAP_CONFIG_BYTES, &config, &err),
                     0);
    must_open(&t, line, config.data);
    for (size_t i = 0; i < sizeof expect / sizeof *expect; i++) {
        float row[32];
        assert_int_equal(checkpoint_unread(&t.ck, &unread) > 0, true);
        struct weight w = must_load(&t, expect[i].module);
        weight_dequantize_row(&w, 1, row);
        if (w.format != expect[i].format || row[31] != expect[i].value)
            fail_msg("%s: %s %g", expect[i].module, weight_format_name(w.format), (double)row[31]);
    }
    assert_int_equal(checkpoint_unread(&t.ck, &unread), 1);
    assert_string_equal(unread->name, "model.language_model.layers.0.linear_attn.conv1d.weight");
    assert_int_equal(
        checkpoint_vector(&t.ck, "model.layers.0.linear_attn.conv1d.weight", 32, &conv, &err), 0);
    assert_true(conv[0] == 4 && conv[31] == 4);
    assert_int_equal(checkpoint_unread(&t.ck, &unread), 0);
    assert_null(unread);
    assert_int_equal(t.lines, 0);
    str_free(&config);
    tiny_close(&t);
}

/* ModelOpt's W4A8: the stored scale is for an FP8 activation, amax/448. */
static void fp8_activations(void **state) {
    (void)state;
    struct tiny t;
    must_open(&t, MO_CODES CT_SCALE MO_GLOBAL "input_scale F32 - =3",
              "{\"model_type\":\"m\",\"quantization_config\":{\"quant_method\":\"modelopt\","
              "\"quant_algo\":\"W4A8_NVFP4_FP8\"}}");
    assert_true(t.ck.declared.fp8_inputs);
    assert_true(must_load(&t, M).input_multiplier == 0.5f);
    assert_int_equal(t.lines, 0);
    tiny_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_is_not_believed),
        cmocka_unit_test(online_transforms),
        cmocka_unit_test(published_declarations),
        cmocka_unit_test(unknown_methods),
        cmocka_unit_test(mixed_file),
        cmocka_unit_test(fp8_activations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
