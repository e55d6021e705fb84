/* config.json: getters, wrapped models, end tokens, and the files of published checkpoints. st16 is
 * a row of the list of bad files that a loader must survive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "load/config.h"
#include "support/files.h"

static struct config parse(const char *json) {
    struct config c;
    struct imp_error err;
    if (config_parse(json, strlen(json), "config.json", &c, &err) < 0)
        fail_msg("%s: %s", err.where, err.message);
    return c;
}

static void refuse(const char *json, const char *words) {
    struct config c;
    struct imp_error err = {0};
    assert_int_equal(config_parse(json, strlen(json), "config.json", &c, &err), IMP_ERR_FILE);
    if (!strstr(err.message, words) && !strstr(err.where, words))
        fail_msg("\"%s\" at \"%s\" lacks \"%s\"", err.message, err.where, words);
    assert_non_null(strstr(err.where, "config.json"));
    config_close(&c);
}

/* The getter of an integer in [1, 100] on {"x": TEXT}. */
static int int_of(const char *text, int64_t *out, struct imp_error *err) {
    struct str json = {0};
    struct config c;
    str_printf(&json, "{\"model_type\":\"m\",\"x\":%s}", text);
    int rc = config_parse(json.data, json.size, "config.json", &c, err);
    if (rc == 0) rc = config_int(&c, "x", 1, 100, 7, out, err);
    config_close(&c);
    str_free(&json);
    return rc;
}

static void bad_int(const char *text, const char *words) {
    int64_t value = -5;
    struct imp_error err = {0};
    assert_int_equal(int_of(text, &value, &err), IMP_ERR_FILE);
    assert_int_equal(value, -5);
    assert_non_null(strstr(err.where, "config.json"));
    if (!strstr(err.message, words)) fail_msg("%s: \"%s\" lacks \"%s\"", text, err.message, words);
}

static void st16_integers(void **state) {
    (void)state;
    int64_t value;
    struct imp_error err;
    assert_int_equal(int_of("1", &value, &err), 0);
    assert_int_equal(value, 1);
    assert_int_equal(int_of("100", &value, &err), 0);
    assert_int_equal(int_of("null", &value, &err), 0);
    assert_int_equal(value, 7);
    bad_int("0", "out of range; 1 to 100");
    bad_int("-1", "out of range; 1 to 100");
    bad_int("1000000000", "out of range");
    bad_int("9223372036854775807", "out of range");
    bad_int("18446744073709551615", "out of range");
    bad_int("-9223372036854775808", "out of range");
    bad_int("18446744073709551617", "not an integer");
    bad_int("1.0", "not an integer");
    bad_int("1.5", "not an integer");
    bad_int("1e1", "not an integer");
    bad_int("\"4\"", "not an integer");
    bad_int("true", "not an integer");
    bad_int("[4]", "not an integer");
    bad_int("{}", "not an integer");
    bad_int("1e400", "not valid JSON");
    bad_int("NaN", "not valid JSON");
}

static void float_of(const char *text, int code, double expect) {
    struct str json = {0};
    struct config c;
    struct imp_error err;
    double value = -5;
    str_printf(&json, "{\"model_type\":\"m\",\"rope_theta\":%s}", text);
    int rc = config_parse(json.data, json.size, "config.json", &c, &err);
    if (rc == 0) rc = config_float(&c, "rope_theta", 1e-10, 1e10, 10000, &value, &err);
    assert_int_equal(rc, code);
    if (rc == 0)
        assert_true(value == expect);
    else
        assert_non_null(strstr(err.where, "config.json"));
    config_close(&c);
    str_free(&json);
}

static void st16_floats(void **state) {
    (void)state;
    float_of("1e6", 0, 1e6);
    float_of("500000", 0, 500000);
    float_of("null", 0, 10000);
    static const char *const bad[] = {"NaN",     "Infinity", "-Infinity", "nan", "1e400",
                                      "-1e400",  "0",        "0.0",       "-1",  "1e11",
                                      "\"1e6\"", "true",     "[1]",       "{}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) float_of(bad[i], IMP_ERR_FILE, 0);
}

static void st16_strings_and_bools(void **state) {
    (void)state;
    struct config c = parse("{\"model_type\":\"m\",\"hidden_act\":\"silu\",\"tie\":true,\"n\":1,"
                            "\"z\":\"a\\u0000b\"}");
    struct imp_error err;
    const char *text;
    bool flag;
    assert_int_equal(config_only_string(&c, "hidden_act", "silu", &err), 0);
    assert_int_equal(config_only_string(&c, "absent", "silu", &err), 0);
    assert_int_equal(config_only_string(&c, "hidden_act", "gelu", &err), IMP_ERR_UNSUPPORTED);
    assert_string_equal(err.where, "config.json: $.hidden_act");
    assert_string_equal(err.message, "is \"silu\"; only \"gelu\" is supported");
    assert_int_equal(config_only_string(&c, "n", "silu", &err), IMP_ERR_FILE);
    assert_int_equal(config_string(&c, "hidden_act", "x", &text, &err), 0);
    assert_string_equal(text, "silu");
    assert_int_equal(config_string(&c, "absent", "x", &text, &err), 0);
    assert_string_equal(text, "x");
    assert_int_equal(config_string(&c, "tie", "x", &text, &err), IMP_ERR_FILE);
    assert_int_equal(config_string(&c, "z", "x", &text, &err), IMP_ERR_FILE);
    assert_int_equal(config_bool(&c, "tie", false, &flag, &err), 0);
    assert_true(flag);
    assert_int_equal(config_bool(&c, "absent", true, &flag, &err), 0);
    assert_true(flag);
    assert_int_equal(config_bool(&c, "n", true, &flag, &err), IMP_ERR_FILE);
    assert_int_equal(config_only_bool(&c, "tie", true, &err), 0);
    assert_int_equal(config_only_bool(&c, "tie", false, &err), IMP_ERR_UNSUPPORTED);
    assert_int_equal(config_only_bool(&c, "absent", false, &err), 0);
    assert_int_equal(config_only_bool(&c, "n", false, &err), IMP_ERR_FILE);
    config_close(&c);
}

static void required_and_members(void **state) {
    (void)state;
    struct config c = parse("{\"model_type\":\"m\",\"layers\":2,\"rope_scaling\":{\"factor\":8.0,"
                            "\"original\":8192,\"bad\":\"8\"}}");
    struct imp_error err;
    int64_t n;
    double x;
    assert_int_equal(config_required_int(&c, "layers", 1, 4096, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(config_required_int(&c, "hidden_size", 1, 4096, &n, &err), IMP_ERR_FILE);
    assert_string_equal(err.where, "config.json: $.hidden_size");
    assert_non_null(strstr(err.message, "missing"));
    yyjson_val *rope = config_get(&c, "rope_scaling");
    const char *path = "$.rope_scaling";
    assert_int_equal(config_member_float(rope, path, "factor", 1, 1000, 1, &x, &err), 0);
    assert_true(x == 8.0);
    assert_int_equal(config_member_float(rope, path, "absent", 1, 1000, 3, &x, &err), 0);
    assert_true(x == 3.0);
    assert_int_equal(config_member_int(rope, path, "original", 1, 1 << 20, 0, &n, &err), 0);
    assert_int_equal(n, 8192);
    assert_int_equal(config_member_int(rope, path, "factor", 1, 100, 0, &n, &err), IMP_ERR_FILE);
    assert_string_equal(err.where, "config.json: $.rope_scaling.factor");
    assert_int_equal(config_member_float(rope, path, "bad", 1, 10, 1, &x, &err), IMP_ERR_FILE);
    assert_int_equal(config_member_int(NULL, path, "original", 1, 10, 5, &n, &err), 0);
    assert_int_equal(n, 5);
    config_close(&c);
}

static void wrapped_model(void **state) {
    (void)state;
    struct config c = parse("{\"model_type\":\"gemma3\",\"a\":1,\"b\":2,\"text_config\":"
                            "{\"model_type\":\"gemma3_text\",\"a\":10,\"b\":null,\"c\":\"x\"}}");
    struct imp_error err;
    int64_t n;
    assert_string_equal(c.model_type, "gemma3_text");
    assert_string_equal(c.top_type, "gemma3");
    assert_int_equal(config_int(&c, "a", 0, 100, 0, &n, &err), 0);
    assert_int_equal(n, 10);
    assert_int_equal(config_int(&c, "b", 0, 100, 0, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(config_int(&c, "c", 0, 100, 0, &n, &err), IMP_ERR_FILE);
    assert_string_equal(err.where, "config.json: $.text_config.c");
    config_close(&c);
    c = parse("{\"model_type\":\"outer\",\"text_config\":{\"a\":1}}");
    assert_string_equal(c.model_type, "outer");
    config_close(&c);
    config_close(&c);
    c = parse("{\"model_type\":\"outer\",\"text_config\":null}");
    assert_ptr_equal(c.text, c.top);
    config_close(&c);
}

static void not_a_config(void **state) {
    (void)state;
    refuse("", "not valid JSON");
    refuse("[]", "not a JSON object");
    refuse("{}", "$.model_type");
    refuse("{\"model_type\":4}", "not a string");
    refuse("{\"model_type\":\"a\",\"model_type\":\"b\"}", "occurs twice");
    refuse("{\"model_type\":\"a\",\"text_config\":[]}", "$.text_config");
    refuse("{\"model_type\":4,\"text_config\":{\"model_type\":\"a\"}}", "not a string");
    struct str deep = {0};
    for (int i = 0; i < 1000; i++) str_add_text(&deep, "{\"a\":");
    str_add_char(&deep, '1');
    for (int i = 0; i < 1000; i++) str_add_char(&deep, '}');
    refuse(deep.data, "nested deeper");
    str_free(&deep);
}

static int eos(const char *json, size_t cap, int32_t *ids, size_t *count, struct imp_error *err) {
    struct config c = parse(json);
    int rc = config_eos_ids(&c, 100, ids, cap, count, err);
    config_close(&c);
    return rc;
}

static void end_tokens(void **state) {
    (void)state;
    int32_t ids[4];
    size_t n;
    struct imp_error err;
    assert_int_equal(eos("{\"model_type\":\"m\"}", 4, ids, &n, &err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(eos("{\"model_type\":\"m\",\"eos_token_id\":[[1,2],3,1],\"text_config\":"
                         "{\"eos_token_id\":[99]}}",
                         4, ids, &n, &err),
                     0);
    assert_int_equal(n, 4);
    const int32_t expect[4] = {1, 2, 3, 99};
    assert_memory_equal(ids, expect, sizeof expect);
    assert_int_equal(eos("{\"model_type\":\"m\",\"eos_token_id\":[1,2,3,4,5]}", 4, ids, &n, &err),
                     IMP_ERR_FILE);
    static const char *const bad[] = {"100",     "-1", "1.0",    "\"1\"",
                                      "[[[1]]]", "{}", "[true]", "1e9"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char json[100];
        snprintf(json, sizeof json, "{\"model_type\":\"m\",\"eos_token_id\":%s}", bad[i]);
        assert_int_equal(eos(json, 4, ids, &n, &err), IMP_ERR_FILE);
        assert_string_equal(err.where, "config.json: $.eos_token_id");
    }
}

static const struct published {
    const char *folder, *model_type, *top_type;
    size_t eos_count;
    int32_t eos[3];
    bool has_quant; /* hf_quant_config.json */
} PUBLISHED[] = {
    {"DeepSeek-V3.1-NVFP4", "deepseek_v3", "deepseek_v3", 1, {1}, true},
    {"Devstral-Small-2-24B-Instruct-2512", "ministral3", "mistral3", 0, {0}, false},
    {"MiniMax-M2.7-NVFP4", "minimax_m2", "minimax_m2", 1, {2}, true},
    {"Mistral-7B-Instruct-v0.2", "mistral", "mistral", 1, {2}, false},
    {"Mistral-Small-3.2-24B-Instruct-2506", "mistral", "mistral3", 1, {2}, false},
    {"Mistral-Small-3.2-24B-Instruct-2506-NVFP4", "mistral", "mistral3", 0, {0}, false},
    {"Mixtral-8x7B-v0.1", "mixtral", "mixtral", 1, {2}, false},
    {"Qwen2.5-7B-Instruct", "qwen2", "qwen2", 2, {151645, 151643}, false},
    {"Qwen3-0.6B", "qwen3", "qwen3", 2, {151645, 151643}, false},
    {"Qwen3-1.7B", "qwen3", "qwen3", 1, {151645}, false},
    {"Qwen3-235B-A22B-NVFP4", "qwen3_moe", "qwen3_moe", 1, {151645}, true},
    {"Qwen3-30B-A3B", "qwen3_moe", "qwen3_moe", 2, {151645, 151643}, false},
    {"Qwen3-30B-A3B-FP8", "qwen3_moe", "qwen3_moe", 1, {151645}, false},
    {"Qwen3-30B-A3B-NVFP4", "qwen3_moe", "qwen3_moe", 1, {151645}, true},
    {"Qwen3-32B", "qwen3", "qwen3", 1, {151645}, false},
    {"Qwen3-32B-FP8-Static-PerTensor", "qwen3", "qwen3", 1, {151645}, true},
    {"Qwen3-4B", "qwen3", "qwen3", 2, {151645, 151643}, false},
    {"Qwen3-8B", "qwen3", "qwen3", 2, {151645, 151643}, false},
    {"Qwen3-Coder-30B-A3B-Instruct", "qwen3_moe", "qwen3_moe", 2, {151645, 151643}, false},
    {"Qwen3-Coder-30B-A3B-Instruct-NVFP4", "qwen3_moe", "qwen3_moe", 1, {151645}, false},
    {"Qwen3.5-0.8B", "qwen3_5_text", "qwen3_5", 1, {248044}, false},
    {"Qwen3.5-122B-A10B-NVFP4", "qwen3_5_moe_text", "qwen3_5_moe", 1, {248044}, true},
    {"Qwen3.5-27B", "qwen3_5_text", "qwen3_5", 1, {248044}, false},
    {"Qwen3.5-35B-A3B", "qwen3_5_moe_text", "qwen3_5_moe", 1, {248044}, false},
    {"Qwen3.5-9B", "qwen3_5_text", "qwen3_5", 1, {248044}, false},
    {"Qwen3.6-27B-NVFP4", "qwen3_5_text", "qwen3_5", 1, {248044}, true},
    {"Qwen3.6-35B-A3B", "qwen3_5_moe_text", "qwen3_5_moe", 2, {248044, 248046}, false},
    {"Qwen3.6-35B-A3B-NVFP4", "qwen3_5_moe_text", "qwen3_5_moe", 2, {248044, 248046}, true},
    {"Qwen3.6-35B-A3B-NVFP4.llm-compressor", "qwen3_5_moe_text", "qwen3_5_moe", 1, {248044}, false},
    {"SmolLM2-135M-Instruct", "llama", "llama", 1, {2}, false},
    {"gpt-oss-120b", "gpt_oss", "gpt_oss", 1, {200002}, false},
    {"gpt-oss-20b", "gpt_oss", "gpt_oss", 3, {200002, 199999, 200012}, false},
};

static void published_files(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof PUBLISHED / sizeof *PUBLISHED; i++) {
        const struct published *p = &PUBLISHED[i];
        char folder[512];
        struct config c;
        struct imp_error err;
        int32_t ids[8];
        size_t count;
        int64_t vocab, layers;
        snprintf(folder, sizeof folder, "%s/tests/data/configs/%s", IMP_SOURCE_DIR, p->folder);
        if (config_open(folder, &c, &err) < 0) fail_msg("%s: %s", err.where, err.message);
        assert_string_equal(c.model_type, p->model_type);
        assert_string_equal(c.top_type, p->top_type);
        assert_int_equal(c.quant != NULL, p->has_quant);
        assert_int_equal(config_required_int(&c, "vocab_size", 1, 1 << 24, &vocab, &err), 0);
        assert_int_equal(config_required_int(&c, "num_hidden_layers", 1, 4096, &layers, &err), 0);
        assert_int_equal(config_eos_ids(&c, vocab, ids, 8, &count, &err), 0);
        assert_int_equal(count, p->eos_count);
        assert_memory_equal(ids, p->eos, count * sizeof *ids);
        config_close(&c);
    }
}

static void neighbours(void **state) {
    (void)state;
    char *folder = temp_folder();
    struct config c;
    struct imp_error err;
    assert_int_equal(config_open(folder, &c, &err), IMP_ERR_IO);
    assert_non_null(strstr(err.where, "config.json"));
    config_close(&c);
    put_text(folder, "config.json", "{\"model_type\":\"m\",\"eos_token_id\":1}");
    put_text(folder, "generation_config.json", "{\"eos_token_id\":[2,1]}");
    assert_int_equal(config_open(folder, &c, &err), 0);
    int32_t ids[4];
    size_t n;
    assert_int_equal(config_eos_ids(&c, 10, ids, 4, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(config_eos_ids(&c, 2, ids, 4, &n, &err), IMP_ERR_FILE);
    assert_string_equal(err.where, "generation_config.json: $.eos_token_id");
    config_close(&c);
    put_text(folder, "generation_config.json", "[]");
    assert_int_equal(config_open(folder, &c, &err), IMP_ERR_FILE);
    assert_non_null(strstr(err.where, "generation_config.json"));
    put_text(folder, "generation_config.json", "{}");
    put_text(folder, "hf_quant_config.json", "{");
    assert_int_equal(config_open(folder, &c, &err), IMP_ERR_FILE);
    assert_non_null(strstr(err.where, "hf_quant_config.json"));
    temp_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(st16_integers),
        cmocka_unit_test(st16_floats),
        cmocka_unit_test(st16_strings_and_bools),
        cmocka_unit_test(required_and_members),
        cmocka_unit_test(wrapped_model),
        cmocka_unit_test(not_a_config),
        cmocka_unit_test(end_tokens),
        cmocka_unit_test(published_files),
        cmocka_unit_test(neighbours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
