/* GGUF models as Hugging Face folders: small synthetic models of each family; names, shapes, the
 * order of rows, config, tokenizer. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "load/config.h"
#include "load/gguf_import.h"
#include "support/gguf_model.h"
#include "text/tokenizer.h"

struct model {
    struct str file;
    struct gguf g;
    struct gguf_import in;
    struct config config;
};

static void open_maker(struct gguf_maker *m, struct model *out) {
    struct imp_error err = {0};
    *out = (struct model){.file = gguf_finish(m)};
    gguf_maker_free(m);
    int rc = gguf_parse((uint8_t *)out->file.data, out->file.size, "m.gguf", &out->g, &err);
    if (rc == 0) rc = gguf_import_open(&out->g, &out->in, &err);
    if (rc == 0)
        rc =
            config_parse(out->in.config, strlen(out->in.config), "config.json", &out->config, &err);
    if (rc < 0) fail_msg("%s: %s", err.where, err.message);
}

static void close_model(struct model *m) {
    config_close(&m->config);
    gguf_import_close(&m->in);
    gguf_close(&m->g);
    str_free(&m->file);
}

static size_t index_of(const struct model *m, const char *name) {
    for (size_t i = 0; i < m->in.tensor_count; i++) {
        if (strcmp(m->in.tensors[i].name, name) == 0) return i;
    }
    fail_msg("no tensor %s", name);
    return 0;
}

/* Element 0 of every row (matrix) or every element (vector) less the tensor's first value. */
static void expect_order(const struct model *m, const char *name, const char *gguf,
                         const int *order) {
    size_t i = index_of(m, name);
    const struct gguf_import_tensor *t = &m->in.tensors[i];
    const struct gguf_tensor *source = gguf_find_tensor(&m->g, gguf);
    float row[MODEL_WIDTH], base;
    gguf_dequantize(source, 0, 1, &base);
    assert_ptr_equal(t->source, source);
    for (int64_t r = 0; r < t->rows; r++) {
        assert_int_equal(gguf_import_row(&m->in, i, r, row, NULL), 0);
        int64_t count = t->dims == 1 ? t->cols : 1;
        for (int64_t k = 0; k < count; k++) {
            int want = t->dims == 1 ? order[k] : order[r] * (int)t->cols;
            if (row[k] - base != (float)want)
                fail_msg("%s: %g at %d, expected %d", name, (double)(row[k] - base), (int)(r + k),
                         want);
        }
    }
}

static const int PAIRED[] = {0, 2, 1, 3, 4, 6, 5, 7}; /* two heads of 4: halves from pairs */
static const int STRAIGHT[] = {0, 1, 2, 3, 4, 5, 6, 7};

static void expect_int(const struct model *m, const char *key, int64_t want) {
    int64_t got = -1;
    assert_int_equal(config_required_int(&m->config, key, 0, 1 << 26, &got, NULL), 0);
    assert_int_equal(got, want);
}

static void expect_numbers(const struct model *m) {
    double eps = 0, theta = 0;
    expect_int(m, "vocab_size", MODEL_VOCAB);
    expect_int(m, "hidden_size", MODEL_HIDDEN);
    expect_int(m, "intermediate_size", MODEL_WIDTH);
    expect_int(m, "num_hidden_layers", MODEL_LAYERS);
    expect_int(m, "num_attention_heads", MODEL_HEADS);
    expect_int(m, "num_key_value_heads", 1);
    expect_int(m, "head_dim", MODEL_HEAD);
    expect_int(m, "max_position_embeddings", 64);
    assert_int_equal(config_float(&m->config, "rms_norm_eps", 0, 1, 0, &eps, NULL), 0);
    assert_int_equal(config_float(&m->config, "rope_theta", 1, 1e9, 0, &theta, NULL), 0);
    assert_true(eps == 1e-5 && theta == 1e6);
    assert_string_equal(m->config.model_type, m->in.architecture);
}

static bool flag(const struct model *m, const char *key) {
    bool value;
    assert_int_equal(config_bool(&m->config, key, false, &value, NULL), 0);
    return value;
}

static void llama(void **state) {
    (void)state;
    struct model m;
    struct gguf_maker maker = model_make(&(struct model_options){.architecture = "llama",
                                                                 .tokenizer = "gpt2",
                                                                 .pre = "smollm",
                                                                 .template = "{{ x }}",
                                                                 .bias = true,
                                                                 .out_bias = true,
                                                                 .untied = true});
    open_maker(&maker, &m);
    expect_numbers(&m);
    assert_int_equal(m.in.tensor_count, 3 + MODEL_LAYERS * 13);
    assert_string_equal(m.in.tensors[0].name, "model.embed_tokens.weight");
    assert_string_equal(m.in.tensors[m.in.tensor_count - 1].name, "lm_head.weight");
    expect_order(&m, "model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", PAIRED);
    expect_order(&m, "model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight", PAIRED);
    expect_order(&m, "model.layers.0.self_attn.q_proj.bias", "blk.0.attn_q.bias", PAIRED);
    expect_order(&m, "model.layers.0.self_attn.k_proj.bias", "blk.0.attn_k.bias", PAIRED);
    expect_order(&m, "model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", STRAIGHT);
    expect_order(&m, "model.layers.0.self_attn.o_proj.bias", "blk.0.attn_output.bias", STRAIGHT);
    expect_order(&m, "model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", STRAIGHT);
    assert_true(flag(&m, "attention_bias"));
    assert_false(flag(&m, "tie_word_embeddings"));
    assert_non_null(strstr(m.in.tokenizer_config, "\"chat_template\": \"{{ x }}\""));
    close_model(&m);
}

static void qwen2(void **state) {
    (void)state;
    struct model m;
    struct imp_error err = {0};
    struct model_options o = {
        .architecture = "qwen2", .tokenizer = "gpt2", .pre = "qwen2", .bias = true};
    struct gguf_maker maker = model_make(&o);
    open_maker(&maker, &m);
    expect_numbers(&m);
    assert_int_equal(m.in.tensor_count, 2 + MODEL_LAYERS * 12);
    expect_order(&m, "model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", STRAIGHT);
    expect_order(&m, "model.layers.1.self_attn.q_proj.bias", "blk.1.attn_q.bias", STRAIGHT);
    assert_true(flag(&m, "tie_word_embeddings"));
    close_model(&m);
    o.bias = false; /* always there in this family: no config field would say otherwise */
    maker = model_make(&o);
    struct str file = gguf_finish(&maker);
    struct gguf g;
    struct gguf_import in;
    assert_int_equal(gguf_parse((uint8_t *)file.data, file.size, "m", &g, NULL), 0);
    assert_int_equal(gguf_import_open(&g, &in, &err), IMP_ERR_FILE);
    assert_non_null(strstr(err.where, "blk.0.attn_k.bias"));
    gguf_close(&g);
    str_free(&file);
    gguf_maker_free(&maker);
}

static void qwen3(void **state) {
    (void)state;
    struct model m;
    struct gguf_maker maker = model_make(&(struct model_options){
        .architecture = "qwen3", .tokenizer = "gpt2", .pre = "qwen2", .qk_norm = true});
    open_maker(&maker, &m);
    expect_numbers(&m);
    assert_int_equal(m.in.tensor_count, 2 + MODEL_LAYERS * 11);
    expect_order(&m, "model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight", STRAIGHT);
    expect_order(&m, "model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight",
                 STRAIGHT);
    assert_false(flag(&m, "attention_bias"));
    close_model(&m);
}

/* Norm weights come without the one that the converter added; four norms a layer. */
static void gemma3(void **state) {
    (void)state;
    struct model m;
    struct gguf_maker maker = model_make(&(struct model_options){
        .architecture = "gemma3", .tokenizer = "llama", .qk_norm = true, .gemma = true});
    open_maker(&maker, &m);
    assert_string_equal(m.config.model_type, "gemma3_text");
    assert_int_equal(m.in.tensor_count, 2 + MODEL_LAYERS * 13);
    expect_int(&m, "sliding_window", 32);
    expect_int(&m, "query_pre_attn_scalar", MODEL_HEAD);
    static const char *const norms[][2] = {
        {"model.layers.1.input_layernorm.weight", "blk.1.attn_norm.weight"},
        {"model.layers.1.post_attention_layernorm.weight", "blk.1.post_attention_norm.weight"},
        {"model.layers.1.pre_feedforward_layernorm.weight", "blk.1.ffn_norm.weight"},
        {"model.layers.1.post_feedforward_layernorm.weight", "blk.1.post_ffw_norm.weight"},
        {"model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight"},
        {"model.norm.weight", "output_norm.weight"},
    };
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
        float got[MODEL_HIDDEN], stored[MODEL_HIDDEN];
        size_t at = index_of(&m, norms[i][0]);
        const struct gguf_tensor *source = gguf_find_tensor(&m.g, norms[i][1]);
        assert_ptr_equal(m.in.tensors[at].source, source);
        gguf_dequantize(source, 0, source->shape[0], stored);
        assert_int_equal(gguf_import_row(&m.in, at, 0, got, NULL), 0);
        for (int64_t k = 0; k < source->shape[0]; k++) assert_true(got[k] == stored[k] - 1);
    }
    expect_order(&m, "model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", STRAIGHT);
    close_model(&m);
}

static void qwen3moe(void **state) {
    (void)state;
    struct model_options o = {.architecture = "qwen3moe",
                              .tokenizer = "gpt2",
                              .pre = "qwen2",
                              .qk_norm = true,
                              .experts = 3};
    struct model m;
    struct gguf_maker maker = model_make(&o);
    open_maker(&maker, &m);
    assert_string_equal(m.config.model_type, "qwen3_moe");
    assert_int_equal(m.in.tensor_count, 2 + MODEL_LAYERS * (9 + 3 * 3));
    expect_int(&m, "num_experts", 3);
    expect_int(&m, "num_experts_per_tok", 1);
    assert_true(flag(&m, "norm_topk_prob"));
    /* Row 1 of expert 2 in its stack of [3, I, H], and of [3, H, I]. */
    float row[MODEL_HIDDEN], first;
    const int64_t rows[] = {MODEL_HEAD, MODEL_HIDDEN};
    for (int i = 0; i < 2; i++) {
        size_t at = index_of(&m, i ? "model.layers.1.mlp.experts.2.down_proj.weight"
                                   : "model.layers.1.mlp.experts.2.up_proj.weight");
        const struct gguf_import_tensor *t = &m.in.tensors[at];
        assert_int_equal(t->rows, rows[i]);
        gguf_dequantize(t->source, 0, 1, &first);
        assert_int_equal(gguf_import_row(&m.in, at, 1, row, NULL), 0);
        for (int64_t k = 0; k < t->cols; k++)
            assert_true(row[k] == first + (float)((2 * t->rows + 1) * t->cols + k));
    }
    close_model(&m);
}

/* More experts than the stacks hold: found before a table is made for them. */
static void experts_are_counted(void **state) {
    (void)state;
    struct model_options o = {.architecture = "qwen3moe",
                              .tokenizer = "gpt2",
                              .pre = "qwen2",
                              .qk_norm = true,
                              .experts = 3};
    struct gguf_maker maker = model_make(&o);
    struct str file = gguf_finish(&maker);
    struct imp_error err = {0};
    struct gguf g;
    struct gguf_import in;
    static const char key[] = "qwen3moe.expert_count";
    char *at = memmem(file.data, file.size, key, sizeof key - 1);
    assert_non_null(at);
    at[sizeof key - 1 + 4] = 4; /* behind the type comes the value */
    assert_int_equal(gguf_parse((uint8_t *)file.data, file.size, "m", &g, NULL), 0);
    assert_int_equal(gguf_import_open(&g, &in, &err), IMP_ERR_FILE);
    assert_non_null(strstr(err.where, "blk.0.ffn_down_exps.weight"));
    gguf_close(&g);
    str_free(&file);
    gguf_maker_free(&maker);
}

/* ---- rope ---- */

static const struct model_options PLAIN = {
    .architecture = "llama", .tokenizer = "gpt2", .pre = "smollm"};

/* Two frequencies of a head of 4 at theta 1e6: wavelengths 6.28 (kept) and 6283 (between). */
static struct gguf_maker with_divisors(float first, float second) {
    struct gguf_maker m = model_make(&PLAIN);
    float divisors[] = {first, second};
    put_tensor(&m, "rope_freqs.weight", 2, 0, GGUF_F32, divisors, sizeof divisors);
    return m;
}

static void llama3_rope(void **state) {
    (void)state;
    static const double factors[] = {8, 32};
    for (int i = 0; i < 2; i++) {
        double smooth = (8192 / (2000 * 3.14159265358979323846) - 1) / 3, factor = -1;
        struct gguf_maker maker =
            with_divisors(1, (float)(1 / ((1 - smooth) / factors[i] + smooth)));
        struct model m;
        open_maker(&maker, &m);
        yyjson_val *rope = config_get(&m.config, "rope_scaling");
        assert_string_equal(yyjson_get_str(yyjson_obj_get(rope, "rope_type")), "llama3");
        assert_int_equal(config_member_float(rope, "$", "factor", 1, 100, 0, &factor, NULL), 0);
        assert_true(factor == factors[i]);
        close_model(&m);
    }
    struct gguf_maker maker = with_divisors(1, 3);
    struct str file = gguf_finish(&maker);
    struct imp_error err = {0};
    struct gguf g;
    struct gguf_import in;
    assert_int_equal(gguf_parse((uint8_t *)file.data, file.size, "m", &g, NULL), 0);
    assert_int_equal(gguf_import_open(&g, &in, &err), IMP_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.where, "rope_freqs.weight"));
    gguf_close(&g);
    str_free(&file);
    gguf_maker_free(&maker);
}

/* ---- tokenizers ---- */

static void expect_ids(const struct model *m, const char *text, unsigned flags, const int *want,
                       size_t count) {
    struct tokenizer *t = NULL;
    struct imp_error err = {0};
    struct ids ids = {0};
    if (tokenizer_parse(m->in.tokenizer, strlen(m->in.tokenizer), "t", NULL, &t, &err) < 0)
        fail_msg("%s: %s", err.where, err.message);
    tokenizer_encode(t, text, strlen(text), NULL, 0, flags, &ids);
    if (ids.count != count) fail_msg("%zu ids for %s", ids.count, text);
    for (size_t i = 0; i < count; i++) assert_int_equal(ids.data[i], want[i]);
    ids_free(&ids);
    tokenizer_free(t);
}

static void bpe(void **state) {
    (void)state;
    struct model m;
    struct gguf_maker maker = model_make(&PLAIN);
    open_maker(&maker, &m);
    expect_ids(&m, "abc a12<|end|>", 0, (int[]){7, 8, 3, 4, 9}, 5);
    expect_ids(&m, "ab", TOKENIZE_ADD_SPECIAL, (int[]){6}, 1);
    assert_null(strstr(m.in.tokenizer, "[PAD15]")); /* a row without a token */
    close_model(&m);
}

static void sentencepiece(void **state) {
    (void)state;
    struct model m;
    struct gguf_maker maker =
        model_make(&(struct model_options){.architecture = "llama", .tokenizer = "llama"});
    open_maker(&maker, &m);
    /* The whole word's score comes first; "ab" before "bc". */
    expect_ids(&m, "abc", TOKENIZE_ADD_SPECIAL, (int[]){1, 4, 11}, 3);
    expect_ids(&m, "bc\n", 0, (int[]){8, 7, 3}, 3);
    expect_ids(&m, "</s>", 0, (int[]){2}, 1);
    close_model(&m);
}

/* BF16's negative zero stays what it is. */
static void negative_zero(void **state) {
    (void)state;
    struct model m;
    struct gguf_maker maker = model_make(&PLAIN);
    memcpy(maker.data.data, "\0\0\0\x80", 4);
    open_maker(&maker, &m);
    float row[MODEL_HIDDEN];
    assert_int_equal(gguf_import_row(&m.in, 0, 0, row, NULL), 0);
    assert_true(row[0] == 0 && signbit(row[0]));
    close_model(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama),         cmocka_unit_test(qwen2),
        cmocka_unit_test(qwen3),         cmocka_unit_test(llama3_rope),
        cmocka_unit_test(bpe),           cmocka_unit_test(sentencepiece),
        cmocka_unit_test(negative_zero), cmocka_unit_test(gemma3),
        cmocka_unit_test(qwen3moe),      cmocka_unit_test(experts_are_counted),
    };
    return cmocka_run_group_tests_name("gguf_import", tests, NULL, NULL);
}
