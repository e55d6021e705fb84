/* Mistral's own files read as the usual ones: params.json, names, the order of rows in q and k. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "load/consolidated.h"
#include "load/folder.h"
#include "support/tensors.h"

#define PARAMS                                                                                     \
    "{\"dim\":32,\"n_layers\":1,\"head_dim\":4,\"hidden_dim\":48,\"n_heads\":2,\"n_kv_heads\":1,"  \
    "\"rope_theta\":1000000000.0,\"norm_eps\":1e-05,\"vocab_size\":7"

static void config_of_params(void **state) {
    (void)state;
    static const char params[] =
        PARAMS ",\"max_seq_len\":4096,\"max_position_embeddings\":4096,\"use_biases\":false,"
               "\"causal\":true,\"vision_encoder\":{\"dim\":1},\"sliding_window\":null,"
               "\"tied_embeddings\":true,"
               "\"quantization\":{\"qformat_weight\":\"fp8_e4m3\",\"qscheme_act\":\"TENSOR\"}}";
    struct str text = {0};
    struct config c;
    struct imp_error err;
    const char *type;
    int64_t n;
    double x;
    bool flag;
    assert_int_equal(consolidated_config(params, sizeof params - 1, "params.json", &text, &err), 0);
    assert_int_equal(config_parse(text.data, text.size, "params.json", &c, &err), 0);
    assert_string_equal(c.model_type, "mistral");
    static const struct {
        const char *key;
        int64_t value;
    } expect[] = {{"hidden_size", 32},
                  {"num_hidden_layers", 1},
                  {"num_attention_heads", 2},
                  {"num_key_value_heads", 1},
                  {"head_dim", 4},
                  {"intermediate_size", 48},
                  {"vocab_size", 7},
                  {"max_position_embeddings", 4096}};
    for (size_t i = 0; i < sizeof expect / sizeof *expect; i++) {
        assert_int_equal(config_required_int(&c, expect[i].key, 1, 1 << 20, &n, &err), 0);
        if (n != expect[i].value) fail_msg("%s: %d", expect[i].key, (int)n);
    }
    assert_int_equal(config_float(&c, "rms_norm_eps", 0, 1, 0, &x, &err), 0);
    assert_true(x == 1e-5);
    assert_int_equal(config_float(&c, "rope_theta", 0, 1e12, 0, &x, &err), 0);
    assert_true(x == 1e9);
    assert_int_equal(config_bool(&c, "tie_word_embeddings", false, &flag, &err), 0);
    assert_true(flag);
    assert_null(config_get(&c, "sliding_window"));
    assert_true(yyjson_is_null(yyjson_obj_get(c.top, "sliding_window")));
    type = yyjson_get_str(yyjson_obj_get(config_get(&c, "quantization_config"), "quant_method"));
    assert_string_equal(type, "fp8");
    config_close(&c);
    str_free(&text);
}

static const struct {
    const char *json;
    int code;
    const char *where, *words;
} BAD[] = {
    {"[]", IMP_ERR_FILE, "p.json", "not a JSON object"},
    {"{", IMP_ERR_FILE, "p.json", ""},
    {"{\"dim\":32}", IMP_ERR_FILE, "$.n_layers", "is missing"},
    {"{\"dim\":null}", IMP_ERR_FILE, "$.dim", "is missing"},
    {PARAMS ",\"dim\":3}", IMP_ERR_FILE, "p.json", ""}, /* a key twice */
    {"{\"dim\":-1}", IMP_ERR_FILE, "$.dim", "is not a count"},
    {"{\"dim\":1.5}", IMP_ERR_FILE, "$.dim", "is not a count"},
    {"{\"dim\":99999999999}", IMP_ERR_FILE, "$.dim", "is not a count"},
    {"{\"rope_theta\":\"1\"}", IMP_ERR_FILE, "$.rope_theta", "is not a number"},
    {"{\"tied_embeddings\":1}", IMP_ERR_FILE, "$.tied_embeddings", "neither true nor false"},
    {"{\"use_biases\":true}", IMP_ERR_UNSUPPORTED, "$.use_biases", "only false"},
    {"{\"causal\":false}", IMP_ERR_UNSUPPORTED, "$.causal", "only true"},
    {PARAMS ",\"sliding_window\":[4096]}", IMP_ERR_FILE, "$.sliding_window", "is not a count"},
    {PARAMS ",\"yarn\":{\"factor\":16}}", IMP_ERR_UNSUPPORTED, "$.yarn", "is not known"},
    {PARAMS ",\"llama_4_scaling\":{}}", IMP_ERR_UNSUPPORTED, "$.llama_4_scaling", "is not known"},
    {PARAMS ",\"moe\":{\"num_experts\":8}}", IMP_ERR_UNSUPPORTED, "$.moe", "is not known"},
    {PARAMS ",\"q_lora_rank\":1536}", IMP_ERR_UNSUPPORTED, "$.q_lora_rank", "is not known"},
};

static void bad_params(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        struct str text = {0};
        struct imp_error err = {0};
        int rc = consolidated_config(BAD[i].json, strlen(BAD[i].json), "p.json", &text, &err);
        if (rc != BAD[i].code || !strstr(err.where, BAD[i].where) ||
            !strstr(err.message, BAD[i].words))
            fail_msg("case %zu: rc %d \"%s\" at \"%s\"", i, rc, err.message, err.where);
        assert_int_equal(text.size, 0);
        str_free(&text);
    }
}

/* A folder with these files; the weights under one name or another. */
static int open_folder(struct checkpoint *ck, char **folder, const char *line, const char *file,
                       const char *config_name, const char *config, struct imp_error *err) {
    struct maker m = {0};
    *folder = temp_folder();
    tensors_add(&m, "", line);
    put_tensors(*folder, file, &m);
    put_text(*folder, config_name, config);
    return checkpoint_open(*folder, true, NULL, ck, err);
}

static void names(void **state) {
    (void)state;
    static const char line[] =
        "/tok_embeddings.weight BF16 7,32 =1; /norm.weight BF16 32 =2; /output.weight BF16 7,32 =3;"
        "/layers.0.attention_norm.weight BF16 32 =4; /layers.0.ffn_norm.weight BF16 32 =5;"
        "/layers.0.attention.wq.weight BF16 8,32 =6; /layers.0.attention.wk.weight BF16 4,32 =7;"
        "/layers.0.attention.wv.weight F8_E4M3 4,32 =8;"
        "/layers.0.attention.wv.qscale_weight F32 - =0.5;"
        "/layers.0.attention.wv.qscale_act F32 - =0.25; /layers.0.attention.wo.weight BF16 32,8 =9;"
        "/layers.0.feed_forward.w1.weight BF16 48,32 =10;"
        "/layers.0.feed_forward.w2.weight BF16 32,48 =11;"
        "/layers.0.feed_forward.w3.weight BF16 48,32 =12;"
        "/vision_encoder.ln_pre.weight BF16 8 =1; /layers.x.y F32 1 =1; /layers.0.odd F32 1 =1";
    static const struct {
        const char *module;
        int64_t rows, cols;
        float value;
    } expect[] = {
        {"model.embed_tokens", 7, 32, 1},
        {"lm_head", 7, 32, 3},
        {"model.layers.0.self_attn.q_proj", 8, 32, 6},
        {"model.layers.0.self_attn.k_proj", 4, 32, 7},
        {"model.layers.0.self_attn.v_proj", 4, 32, 4},
        {"model.layers.0.self_attn.o_proj", 32, 8, 9},
        {"model.layers.0.mlp.gate_proj", 48, 32, 10},
        {"model.layers.0.mlp.down_proj", 32, 48, 11},
        {"model.layers.0.mlp.up_proj", 48, 32, 12},
    };
    struct checkpoint ck;
    struct imp_error err;
    char *folder, path[300];
    const float *v;
    float row[48];
    if (open_folder(&ck, &folder, line, "consolidated.safetensors", "params.json", PARAMS "}",
                    &err) < 0)
        fail_msg("%s: %s", err.where, err.message);
    for (size_t i = 0; i < sizeof expect / sizeof *expect; i++) {
        struct weight w;
        if (checkpoint_weight(&ck, expect[i].module, expect[i].rows, expect[i].cols, &w, &err) < 0)
            fail_msg("%s: %s", err.where, err.message);
        weight_dequantize_row(&w, w.rows - 1, row);
        assert_true(row[0] == expect[i].value);
        if (w.format == WEIGHT_FP8) assert_true(w.input_multiplier == 0.25f);
    }
    assert_int_equal(checkpoint_vector(&ck, "model.norm.weight", 32, &v, &err), 0);
    assert_int_equal(checkpoint_vector(&ck, "model.layers.0.input_layernorm.weight", 32, &v, &err),
                     0);
    assert_true(v[0] == 4);
    assert_int_equal(
        checkpoint_vector(&ck, "model.layers.0.post_attention_layernorm.weight", 32, &v, &err), 0);
    assert_true(v[0] == 5);
    const struct tensor *first;
    assert_int_equal(checkpoint_unread(&ck, &first), 2); /* what it does not know keeps its name */
    assert_string_equal(first->name, "layers.0.odd");
    checkpoint_close(&ck);
    /* the file alone, by its path */
    snprintf(path, sizeof path, "%s/consolidated.safetensors", folder);
    assert_int_equal(checkpoint_open(path, true, NULL, &ck, &err), 0);
    assert_true(checkpoint_has(&ck, "model.layers.0.self_attn.q_proj"));
    checkpoint_close(&ck);
    temp_remove(folder);
}

/* Beside the usual files Mistral's own are not looked at. */
static void usual_files_first(void **state) {
    (void)state;
    struct checkpoint ck;
    struct imp_error err;
    struct weight w;
    struct maker m = {0};
    char *folder = temp_folder();
    float row[32];
    tensors_add(&m, "", "/model.layers.0.self_attn.q_proj.weight F32 8,32 =1");
    put_tensors(folder, "model.safetensors", &m);
    tensors_add(&m, "", "/layers.0.attention.wq.weight F32 8,32 =2");
    put_tensors(folder, "consolidated.safetensors", &m);
    put_text(folder, "params.json", PARAMS "}");
    put_text(folder, "config.json", TINY_CONFIG);
    assert_int_equal(checkpoint_open(folder, true, NULL, &ck, &err), 0);
    assert_string_equal(ck.config.model_type, "llama");
    assert_false(ck.consolidated);
    assert_int_equal(checkpoint_weight(&ck, "model.layers.0.self_attn.q_proj", 8, 32, &w, &err), 0);
    weight_dequantize_row(&w, 1, row);
    assert_true(row[0] == 1);
    checkpoint_close(&ck);
    temp_remove(folder);
    /* config.json without the numbers of heads: nothing says how rows lie. */
    assert_int_equal(open_folder(&ck, &folder, "/layers.0.attention.wq.weight F32 8,32 =2",
                                 "consolidated.safetensors", "config.json", TINY_CONFIG, &err),
                     IMP_ERR_FILE);
    assert_non_null(strstr(err.where, "$.hidden_size"));
    temp_remove(folder);
}

/* Two heads of 4: interleaved rows 0 1 2 3 | 4 5 6 7 become 0 2 1 3 | 4 6 5 7, scales with them. */
static void rows_of_q_and_k(void **state) {
    (void)state;
    static const int order[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    uint16_t half[8][32];
    uint8_t codes[8][16], scales[8][2], fp8[8][32];
    float rows[8], one = 1;
    for (int r = 0; r < 8; r++) {
        rows[r] = ldexpf(1, r);
        memset(codes[r], 0x22, sizeof codes[r]);
        memset(scales[r], e4m3_encode(ldexpf(1, r)), sizeof scales[r]);
        memset(fp8[r], 0x38, sizeof fp8[r]);
        for (int k = 0; k < 32; k++) half[r][k] = bf16_encode(ldexpf(1, r));
    }
    struct maker m = {0};
    maker_add(&m, "layers.0.attention.wq.weight", "BF16", "[8,32]", half, sizeof half);
    maker_add(&m, "layers.1.attention.wk.weight", "U8", "[8,16]", codes, sizeof codes);
    maker_add(&m, "layers.1.attention.wk.weight_scale", "F8_E4M3", "[8,2]", scales, sizeof scales);
    maker_add(&m, "layers.1.attention.wk.weight_scale_2", "F32", "[]", &one, sizeof one);
    maker_add(&m, "layers.2.attention.wq.weight", "F8_E4M3", "[8,32]", fp8, sizeof fp8);
    maker_add(&m, "layers.2.attention.wq.qscale_weight", "F32", "[8,1]", rows, sizeof rows);
    maker_add(&m, "layers.3.attention.wv.weight", "BF16", "[8,32]", half, sizeof half);
    maker_add(&m, "layers.4.attention.wq.weight", "BF16", "[6,32]", half, 6 * sizeof half[0]);
    maker_add(&m, "layers.5.attention.wq.weight", "F8_E4M3", "[8,32]", fp8, sizeof fp8);
    maker_add(&m, "layers.5.attention.wq.weight_scale_inv", "F32", "[4,1]", rows, 16);
    char *folder = temp_folder();
    put_tensors(folder, "consolidated-00001-of-00001.safetensors", &m);
    put_text(folder, "params.json", PARAMS "}");
    struct checkpoint ck;
    struct imp_error err;
    assert_int_equal(checkpoint_open(folder, true, NULL, &ck, &err), 0);
    static const char *const modules[] = {
        "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.k_proj",
        "model.layers.2.self_attn.q_proj", "model.layers.3.self_attn.v_proj"};
    struct weight w;
    for (int i = 0; i < 4; i++) {
        if (checkpoint_weight(&ck, modules[i], 8, 32, &w, &err) < 0)
            fail_msg("%s: %s", err.where, err.message);
        for (int r = 0; r < 8; r++) {
            float row[32], expect = ldexpf(1, i == 3 ? r : order[r]);
            weight_dequantize_row(&w, r, row);
            if (row[0] != expect || row[31] != expect)
                fail_msg("%s, row %d: %g", modules[i], r, (double)row[0]);
        }
    }
    assert_int_equal(checkpoint_weight(&ck, "model.layers.4.self_attn.q_proj", -1, -1, &w, &err),
                     IMP_ERR_FILE);
    assert_non_null(strstr(err.message, "6 rows are not whole heads of 4"));
    assert_int_equal(checkpoint_weight(&ck, "model.layers.5.self_attn.q_proj", -1, -1, &w, &err),
                     IMP_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "scales of 2 rows across heads of 4"));
    checkpoint_close(&ck);
    temp_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_of_params),
        cmocka_unit_test(bad_params),
        cmocka_unit_test(names),
        cmocka_unit_test(usual_files_first),
        cmocka_unit_test(rows_of_q_and_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
