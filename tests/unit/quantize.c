/* imp_quantize: rounding rules on blocks made by hand, files against the makers' own, the folder
 * that appears whole or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/file.h"
#include "base/rng.h"
#include "load/checkpoint.h"
#include "num/fp.h"
#include "num/nvfp4.h"
#include "quantize/new_folder.h"
#include "quantize/policy.h"
#include "quantize/quantize.h"
#include "quantize/rules.h"
#include "quantize/rules_search.h"
#include "quantize/safetensors_writer.h"
#include "support/files.h"

#define MODELS IMP_SOURCE_DIR "/tests/data/models/"

/* ---- rules ---- */

static void quantize_block(enum quantize_method method, const float *x, const float *h, float g,
                           uint8_t *codes, uint8_t *scale, float *values) {
    rule_quantize_row(method, x, h, g, 16, codes, scale);
    nvfp4_dequantize_row(codes, scale, g, 16, values);
}

static void multipliers(void **state) {
    (void)state;
    assert_true(rule_multiplier(QUANTIZE_AMAX, 2688.0f) == 1.0f);
    assert_true(rule_multiplier(QUANTIZE_AMAX, 1.0f) == 1.0f / 2688.0f);
    assert_true(rule_multiplier(QUANTIZE_SWEEP, 1536.0f) == 1.0f); /* the largest byte is 256 */
    assert_true(rule_multiplier(QUANTIZE_SWEEP, 1536.01f) == 2.0f);
    assert_true(rule_multiplier(QUANTIZE_SWEEP, 769.0f) == 1.0f);
    assert_true(rule_multiplier(QUANTIZE_WEIGHTED, 768.0f) == 0.5f);
    assert_true(rule_multiplier(QUANTIZE_AMAX, 0.0f) == 1.0f);
    float tiny = rule_multiplier(QUANTIZE_AMAX, 1e-40f);
    assert_true(tiny > 0 && isfinite(1.0f / tiny));
}

static void amax_block(void **state) {
    (void)state;
    /* amax 6 under g = 1: scale 1.0 (0x38); every E2M1 value is met, the ties go to even codes. */
    const float x[16] = {6, -6, 4, 3, 2, 1.5f, 1, .5f, 0, .25f, .75f, 1.25f, 1.75f, 2.5f, 3.5f, -5};
    const uint8_t want[8] = {0xF7, 0x56, 0x34, 0x12, 0x00, 0x22, 0x44, 0xE6};
    uint8_t codes[8], scale;
    rule_quantize_row(QUANTIZE_AMAX, x, NULL, 1.0f, 16, codes, &scale);
    assert_int_equal(scale, 0x38);
    assert_memory_equal(codes, want, 8);
}

static void zero_block(void **state) {
    (void)state;
    const float x[16] = {0}, h[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    for (int m = QUANTIZE_AMAX; m <= QUANTIZE_WEIGHTED; m++) {
        uint8_t codes[8] = {9}, scale = 0;
        rule_quantize_row((enum quantize_method)m, x, h, 0.01f, 16, codes, &scale);
        assert_int_equal(scale, 0x38); /* 1.0: no reader divides by zero */
        for (int i = 0; i < 8; i++) assert_int_equal(codes[i], 0);
    }
}

/* 4 and 3.5s: amax/6 puts 3.5 between two codes, amax/4 does not. The byte is b0+5. */
static void sweep_finds_amax_over_four(void **state) {
    (void)state;
    float x[16], values[16];
    for (int i = 0; i < 16; i++) x[i] = i % 2 ? 3.0f : 4.0f;
    uint8_t codes[8], amax, scale;
    rule_quantize_row(QUANTIZE_AMAX, x, NULL, 1.0f, 16, codes, &amax);
    quantize_block(QUANTIZE_SWEEP, x, NULL, 1.0f, codes, &scale, values);
    assert_int_equal(scale, 0x38);
    assert_int_equal(amax, 0x33);
    assert_memory_equal(values, x, sizeof x);
}

static void random_block(uint64_t i, float *x, float *h) {
    for (uint64_t k = 0; k < 16; k++) {
        x[k] = (float)rng_normal(1, i, k) * 0.03f;
        h[k] = expf(2.0f * (float)rng_normal(2, i, k));
    }
}

/* Against the plain loss of num/nvfp4: nothing in the window is better than what was chosen. */
static void search_is_the_minimum(void **state) {
    (void)state;
    const float g = 0x1p-13f;
    int differs = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        float x[16], h[16], amax = 0;
        uint8_t codes[8], sweep, weighted, base;
        random_block(i, x, h);
        for (int k = 0; k < 16; k++) amax = fmaxf(amax, fabsf(x[k]));
        base = nvfp4_scale_byte(amax, g);
        rule_quantize_row(QUANTIZE_SWEEP, x, NULL, g, 16, codes, &sweep);
        rule_quantize_row(QUANTIZE_WEIGHTED, x, h, g, 16, codes, &weighted);
        float least = nvfp4_block_error(x, NULL, sweep, g);
        float least_weighted = nvfp4_block_error(x, h, weighted, g);
        differs += sweep != weighted;
        for (int byte = base - 4; byte <= base + 8; byte++) {
            if (byte < 1 || byte > 126) continue;
            assert_true(least <= nvfp4_block_error(x, NULL, (uint8_t)byte, g) * 1.00001f);
            assert_true(least_weighted <= nvfp4_block_error(x, h, (uint8_t)byte, g) * 1.00001f);
        }
        assert_in_range(sweep, base - 4, base + 8);
    }
    assert_true(differs > 1000); /* the weights matter */
}

static void search_stays_in_range(void **state) {
    (void)state;
    float a[16], h[16];
    for (int k = 0; k < 16; k++) a[k] = 1e-9f, h[k] = 1;
    assert_in_range(rules_search_portable(a, h, 1.0f, 1), 1, 9);
    for (int k = 0; k < 16; k++) a[k] = 1e9f;
    assert_int_equal(rules_search_portable(a, h, 1.0f, 126), 126);
}

static void instruction_sets_agree(void **state) {
    (void)state;
#if defined(__x86_64__)
    for (uint64_t i = 0; i < 3000; i++) {
        float x[16], h[16], amax = 0;
        random_block(i, x, h);
        for (int k = 0; k < 16; k++) x[k] = fabsf(x[k]), amax = fmaxf(amax, x[k]);
        uint8_t base = nvfp4_scale_byte(amax, 0x1p-13f);
        uint8_t want = rules_search_portable(x, h, 0x1p-13f, base);
        if (__builtin_cpu_supports("avx2"))
            assert_int_equal(rules_search_avx2(x, h, 0x1p-13f, base), want);
        if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl"))
            assert_int_equal(rules_search_avx512(x, h, 0x1p-13f, base), want);
    }
#endif
}

/* ---- which tensors ---- */

static struct source_tensor matrix(const char *name, int64_t rows, int64_t cols) {
    return (struct source_tensor){.name = name,
                                  .dtype = DTYPE_BF16,
                                  .dims = 2,
                                  .shape = {rows, cols},
                                  .rows = rows,
                                  .cols = cols};
}

static void policy(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t cols;
        bool quantized;
    } cases[] = {
        {"model.layers.0.self_attn.q_proj.weight", 64, true},
        {"model.layers.10.mlp.down_proj.weight", 48, true},
        {"model.layers.3.mlp.experts.7.up_proj.weight", 64, true},
        {"model.layers.3.block_sparse_moe.experts.7.w2.weight", 64, true},
        {"language_model.model.layers.3.self_attn.o_proj.weight", 64, true},
        {"model.language_model.layers.3.mlp.gate_proj.weight", 64, true},
        {"model.layers.0.mlp.gate_proj.weight", 24, false}, /* not whole blocks */
        {"model.layers.0.mlp.gate.weight", 64, false},      /* router */
        {"model.layers.0.mlp.shared_expert_gate.weight", 64, false},
        {"model.layers.3.linear_attn.in_proj_a.weight", 64, false},
        {"model.layers.3.linear_attn.in_proj_qkv.weight", 64, false},
        {"model.layers.3.linear_attn.out_proj.weight", 64, false},
        {"model.layers.0.mlp.router.weight", 64, false},
        {"model.language_model.layers.0.router.proj.weight", 64, false},
        {"model.language_model.layers.0.per_layer_input_gate.weight", 64, false},
        {"model.language_model.layers.0.per_layer_projection.weight", 64, false},
        {"model.language_model.per_layer_model_projection.weight", 64, false},
        {"model.language_model.embed_tokens_per_layer.weight", 64, false},
        {"model.embed_vision.embedding_projection.weight", 64, false},
        {"model.layers.0.input_layernorm.weight", 64, false},
        {"model.embed_tokens.weight", 64, false},
        {"lm_head.weight", 64, false},
        {"model.layers.0.self_attn.q_proj.bias", 64, false},
        {"model.visual.layers.0.mlp.up_proj.weight", 64, false},
        {"vision_tower.encoder.layers.0.mlp.up_proj.weight", 64, false},
        {"mtp.layers.0.mlp.up_proj.weight", 64, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct source_tensor t = matrix(cases[i].name, 32, cases[i].cols);
        if (policy_quantizes(&t) != cases[i].quantized) fail_msg("%s", cases[i].name);
    }
    struct source_tensor q = matrix("model.layers.1.self_attn.q_proj.weight", 32, 64),
                         v = matrix("model.layers.1.self_attn.v_proj.weight", 32, 64),
                         o = matrix("model.layers.1.self_attn.o_proj.weight", 32, 64),
                         q2 = matrix("model.layers.2.self_attn.q_proj.weight", 32, 64);
    struct str a = {0}, b = {0};
    policy_group(&q, &a);
    policy_group(&v, &b);
    assert_string_equal(a.data, b.data);
    policy_group(&o, &b);
    assert_string_not_equal(a.data, b.data);
    policy_group(&q2, &b);
    assert_string_not_equal(a.data, b.data);
    str_free(&a);
    str_free(&b);
}

static void input_names(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj"},
        {"model.layers.1.mlp.experts.7.up_proj.weight", "model.layers.1.mlp.experts.7.in"},
        {"model.layers.1.mlp.experts.12.gate_proj.weight", "model.layers.1.mlp.experts.12.in"},
        {"model.layers.1.mlp.experts.7.down_proj.weight", "model.layers.1.mlp.experts.7.out"},
        {"model.layers.1.block_sparse_moe.experts.3.w2.weight",
         "model.layers.1.block_sparse_moe.experts.3.out"},
        {"model.layers.1.mlp.shared_expert.down_proj.weight",
         "model.layers.1.mlp.shared_expert.down_proj"},
        {"w1.weight", "w1"},
    };
    struct str name = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct source_tensor t = matrix(cases[i][0], 32, 64);
        policy_input(&t, &name);
        assert_string_equal(name.data, cases[i][1]);
    }
    str_free(&name);
}

/* ---- moments ---- */

static void moments_share(void **state) {
    (void)state;
    struct moments m = {0};
    const float h[3] = {1, 2, 3}, other[3] = {4, 5, 6};
    assert_null(moments_find(&m, "q"));
    const float *kept = moments_add(&m, "q", h, 3);
    assert_ptr_equal(moments_add(&m, "k", kept, 3), kept);
    assert_ptr_not_equal(moments_add(&m, "o", other, 3), kept);
    assert_ptr_equal(moments_find(&m, "k")->h, kept);
    assert_true(moments_find(&m, "o")->h[2] == 6);
    assert_null(moments_find(&m, "v"));
    moments_free(&m);
    moments_free(&m);
}

/* ---- whole folders ---- */

static struct imp_error failure;

static int quantize(const char *from, const char *to, const char *method, const char *format,
                    const struct quantize_settings *settings) {
    struct imp_quantize_options o = {
        .source = from, .destination = to, .method = method, .format = format, .threads = 1};
    failure = (struct imp_error){0};
    return quantize_run(&o, settings, &failure);
}

static bool tensors_equal(const struct tensor *a, const struct tensor *b) {
    if (a->dtype != b->dtype || a->bytes != b->bytes) return false;
    return a->bytes == 0 || memcmp(a->data, b->data, a->bytes) == 0;
}

/* Every tensor but the activations' scales, which need a calibration that amax does without. */
static void equals_folder(const char *ours, const char *theirs) {
    struct checkpoint a, b;
    assert_int_equal(checkpoint_open(ours, true, NULL, &a, NULL), 0);
    assert_int_equal(checkpoint_open(theirs, true, NULL, &b, NULL), 0);
    size_t compared = 0;
    for (size_t i = 0; i < b.tensor_count; i++) {
        const struct tensor *want = b.tensors[i];
        if (slice_ends(slice_of(want->name), ".input_scale")) continue;
        const struct tensor *got = checkpoint_find(&a, want->name);
        if (got == NULL || !tensors_equal(got, want)) fail_msg("%s: %s", theirs, want->name);
        compared++;
    }
    assert_int_equal(compared, a.tensor_count);
    checkpoint_close(&a);
    checkpoint_close(&b);
}

/* ModelOpt quantised the same tiny models; by its rule, ours must be the same bytes. */
static void amax_equals_modelopt(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"tiny-rope3", "tiny-rope3-modelopt-w4a16"},
                                           {"tiny-gqa", "tiny-gqa-modelopt"},
                                           {"tiny-bias", "tiny-bias-modelopt"},
                                           {"tiny-smol", "tiny-smol-modelopt"}};
    for (size_t i = 0; i < 4; i++) {
        char *folder = temp_folder(), *out = path_in(folder, "out"),
             *from = path_in(MODELS, pairs[i][0]);
        char *theirs = path_in(MODELS, pairs[i][1]);
        assert_int_equal(quantize(from, out, "amax", "modelopt", NULL), 0);
        equals_folder(out, theirs);
        free(from);
        free(theirs);
        free(out);
        temp_remove(folder);
    }
}

static void none_keeps_every_bit(void **state) {
    (void)state;
    char *folder = temp_folder(), *out = path_in(folder, "out");
    assert_int_equal(quantize(MODELS "tiny-bias", out, "none", NULL, NULL), 0);
    equals_folder(out, MODELS "tiny-bias");
    static const char *const same[] = {"tokenizer.json", "tokenizer_config.json",
                                       "generation_config.json", "chat_template.jinja"};
    for (size_t i = 0; i < 4; i++) {
        char *a = path_in(out, same[i]), *b = path_in(MODELS "tiny-bias", same[i]);
        struct str x = {0}, y = {0};
        assert_int_equal(file_read(a, 1 << 20, &x, NULL), 0);
        assert_int_equal(file_read(b, 1 << 20, &y, NULL), 0);
        assert_int_equal(x.size, y.size);
        assert_memory_equal(x.data, y.data, x.size);
        str_free(&x);
        str_free(&y);
        free(a);
        free(b);
    }
    free(out);
    temp_remove(folder);
}

/* Through the loader: both dialects give the same weights, within the rule's distance of the
 * source, and code * scale * g is exact in BF16 whatever reads it. */
static void dialects_agree(void **state) {
    (void)state;
    char *folder = temp_folder(), *ct = path_in(folder, "ct"), *mo = path_in(folder, "mo");
    assert_int_equal(quantize(MODELS "tiny-gqa", ct, "sweep", "compressed-tensors", NULL), 0);
    assert_int_equal(quantize(MODELS "tiny-gqa", mo, "sweep", "modelopt", NULL), 0);
    struct checkpoint s, a, b;
    assert_int_equal(checkpoint_open(MODELS "tiny-gqa", true, NULL, &s, NULL), 0);
    assert_int_equal(checkpoint_open(ct, true, NULL, &a, NULL), 0);
    assert_int_equal(checkpoint_open(mo, true, NULL, &b, NULL), 0);
    assert_int_equal(a.dialect, QUANT_COMPRESSED_TENSORS);
    assert_int_equal(b.dialect, QUANT_MODELOPT);
    static const char *const modules[] = {"model.layers.1.mlp.down_proj",
                                          "model.layers.0.self_attn.k_proj"};
    float multiplier = 0;
    for (int i = 0; i < 2; i++) {
        struct weight w, wa, wb;
        float x[256], xa[256], xb[256];
        double error = 0, power = 0;
        assert_int_equal(checkpoint_weight(&s, modules[i], -1, -1, &w, NULL), 0);
        assert_int_equal(checkpoint_weight(&a, modules[i], w.rows, w.cols, &wa, NULL), 0);
        assert_int_equal(checkpoint_weight(&b, modules[i], w.rows, w.cols, &wb, NULL), 0);
        assert_int_equal(wa.format, WEIGHT_NVFP4);
        assert_int_equal(wb.format, WEIGHT_NVFP4);
        for (int64_t row = 0; row < w.rows; row++) {
            weight_dequantize_row(&w, row, x);
            weight_dequantize_row(&wa, row, xa);
            weight_dequantize_row(&wb, row, xb);
            assert_memory_equal(xa, xb, (size_t)w.cols * sizeof *xa);
            for (int64_t k = 0; k < w.cols; k++) {
                assert_true(bf16_round(xa[k]) == xa[k]);
                error += (x[k] - xa[k]) * (x[k] - xa[k]);
                power += x[k] * x[k];
            }
        }
        assert_true(error / power < 0.010 && error / power > 0.003);
        multiplier = wa.multiplier;
    }
    struct weight v;
    assert_int_equal(checkpoint_weight(&a, "model.layers.0.self_attn.v_proj", -1, -1, &v, NULL), 0);
    assert_true(v.multiplier == multiplier); /* q, k and v share it */
    checkpoint_close(&s);
    checkpoint_close(&a);
    checkpoint_close(&b);
    free(ct);
    free(mo);
    temp_remove(folder);
}

static void read_whole(const char *folder, const char *name, struct str *out) {
    char *path = path_in(folder, name);
    assert_int_equal(file_read(path, 16 << 20, out, NULL), 0);
    free(path);
}

/* Same bytes from 1 and 3 threads; `weighted` uses the moments it is given, and where it has none
 * it is `sweep`. */
static void weighted_and_threads(void **state) {
    (void)state;
    static const char module[] = "model.layers.0.self_attn.q_proj";
    char *folder = temp_folder(), *out[3];
    struct moments m = {0};
    float h[64];
    for (int k = 0; k < 64; k++) h[k] = k % 16 == 3 ? 1000.0f : k == 0 ? 0.0f : 1.0f;
    moments_add(&m, module, h, 64);
    struct quantize_settings settings = {.moments = &m};
    struct checkpoint ck[3];
    for (int i = 0; i < 3; i++) {
        char name[2] = {(char)('a' + i), 0};
        out[i] = path_in(folder, name);
        struct imp_quantize_options o = {.source = MODELS "tiny-gqa",
                                         .destination = out[i],
                                         .method = i == 2 ? "sweep" : "weighted",
                                         .threads = i == 1 ? 3 : 1};
        assert_int_equal(quantize_run(&o, &settings, NULL), 0);
        assert_int_equal(checkpoint_open(out[i], true, NULL, &ck[i], NULL), 0);
    }
    int differ = 0;
    for (size_t t = 0; t < ck[0].tensor_count; t++) {
        const struct tensor *a = ck[0].tensors[t];
        assert_true(tensors_equal(a, ck[1].tensors[t]));
        bool same = tensors_equal(a, ck[2].tensors[t]);
        if (!same && strncmp(a->name, module, strlen(module)) != 0) fail_msg("%s", a->name);
        differ += !same;
    }
    assert_int_equal(differ, 2); /* codes and scales */
    for (int i = 0; i < 3; i++) checkpoint_close(&ck[i]), free(out[i]);
    moments_free(&m);
    temp_remove(folder);
}

static void shards(void **state) {
    (void)state;
    char *folder = temp_folder(), *out = path_in(folder, "out");
    struct quantize_settings settings = {.shard_bytes = 50000};
    assert_int_equal(quantize(MODELS "tiny-rope3", out, "amax", "modelopt", &settings), 0);
    char *index = path_in(out, "model.safetensors.index.json");
    assert_true(file_exists(index));
    struct checkpoint ck;
    assert_int_equal(checkpoint_open(out, true, NULL, &ck, NULL), 0);
    assert_true(ck.file_count >= 3);
    checkpoint_close(&ck);
    equals_folder(out, MODELS "tiny-rope3-modelopt-w4a16");
    free(index);
    free(out);
    temp_remove(folder);
}

/* ---- refusals and failures: nothing may stay ---- */

static void refused(const char *from, const char *method, const char *format, int code) {
    char *folder = temp_folder(), *out = path_in(folder, "out");
    assert_int_equal(quantize(from, out, method, format, NULL), code);
    assert_int_equal(failure.code, code);
    assert_int_equal(count_entries(folder), 0);
    free(out);
    temp_remove(folder);
}

static void refusals(void **state) {
    (void)state;
    refused(MODELS "tiny-gqa", "best", NULL, IMP_ERR_USAGE);
    refused(MODELS "tiny-gqa", "amax", "gguf", IMP_ERR_USAGE);
    refused(MODELS "tiny-gqa-modelopt", "amax", NULL, IMP_ERR_UNSUPPORTED);
    refused(MODELS "tiny-gqa-nvfp4a16", "amax", NULL, IMP_ERR_UNSUPPORTED);
    assert_int_not_equal(quantize("/nonexistent", "/tmp/x", "amax", NULL, NULL), 0);
}

static void destination_taken(void **state) {
    (void)state;
    char *folder = temp_folder(), *out = path_in(folder, "out"), *file = path_in(folder, "file");
    put_text(folder, "file", "precious");
    assert_int_equal(quantize(MODELS "tiny-gqa", file, "amax", NULL, NULL), IMP_ERR_USAGE);
    assert_int_equal(quantize(MODELS "tiny-gqa", folder, "amax", NULL, NULL), IMP_ERR_USAGE);
    assert_int_equal(count_entries(folder), 1);
    char *orphan = path_in(folder, "no/such/parent");
    assert_int_equal(quantize(MODELS "tiny-gqa", orphan, "amax", NULL, NULL), IMP_ERR_IO);
    assert_int_equal(mkdir(out, 0755), 0); /* an empty folder may be filled */
    assert_int_equal(quantize(MODELS "tiny-gqa", out, "amax", NULL, NULL), 0);
    assert_int_equal(count_entries(folder), 2);
    free(orphan);
    free(file);
    free(out);
    temp_remove(folder);
}

/* The disk is full at the n-th byte of any file, as a limit on file sizes shows it. */
static void disk_full(void **state) {
    (void)state;
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    static const rlim_t limits[] = {100, 3000, 60000};
    for (int i = 0; i < 3; i++) {
        small = (struct rlimit){.rlim_cur = limits[i], .rlim_max = old.rlim_max};
        char *folder = temp_folder(), *out = path_in(folder, "out");
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        int rc = quantize(MODELS "tiny-gqa", out, "amax", NULL, NULL);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(rc, IMP_ERR_IO);
        assert_non_null(strstr(failure.where, "partial"));
        assert_int_equal(count_entries(folder), 0);
        free(out);
        temp_remove(folder);
    }
    signal(SIGXFSZ, SIG_DFL);
}

static int cancel_after(void *ctx, const char *stage, uint64_t done, uint64_t total,
                        const char *unit) {
    (void)stage;
    (void)unit;
    assert_true(done <= total);
    return (*(int *)ctx)-- == 0;
}

static void cancelled(void **state) {
    (void)state;
    for (int after = 0; after < 30; after += 7) {
        int left = after;
        char *folder = temp_folder(), *out = path_in(folder, "out");
        struct imp_quantize_options o = {.source = MODELS "tiny-gqa",
                                         .destination = out,
                                         .method = "sweep",
                                         .threads = 1,
                                         .progress = cancel_after,
                                         .progress_ctx = &left};
        assert_int_equal(imp_quantize(&o, &failure), IMP_ERR_CANCELLED);
        assert_int_equal(count_entries(folder), 0);
        free(out);
        temp_remove(folder);
    }
}

/* A number that is not finite is found wherever it stands, and named. */
static void not_finite(void **state) {
    (void)state;
    char *folder = temp_folder(), *from = path_in(folder, "from"), *out = path_in(folder, "out");
    assert_int_equal(mkdir(from, 0755), 0);
    struct str config = {0};
    read_whole(MODELS "tiny-gqa", "config.json", &config);
    put_text(from, "config.json", config.data);
    float w[2 * 32];
    for (int i = 0; i < 64; i++) w[i] = (float)i;
    w[32 + 5] = NAN;
    struct maker m = {0};
    maker_add(&m, "model.layers.0.mlp.up_proj.weight", "F32", "[2,32]", w, sizeof w);
    put_tensors(from, "model.safetensors", &m);
    assert_int_equal(quantize(from, out, "amax", NULL, NULL), IMP_ERR_FILE);
    assert_non_null(strstr(failure.where, "model.layers.0.mlp.up_proj.weight"));
    assert_non_null(strstr(failure.message, "row 1, column 5"));
    assert_int_equal(count_entries(folder), 1);
    str_free(&config);
    free(from);
    free(out);
    temp_remove(folder);
}

/* ---- the writer ---- */

static void writer_round_trip(void **state) {
    (void)state;
    char *folder = temp_folder(), *path = path_in(folder, "a.safetensors");
    const float f[2] = {1.5f, -2};
    const uint8_t bytes[6] = {1, 2, 3, 4, 5, 6};
    struct writer_tensor tensors[] = {
        {.name = "scalar", .dtype = DTYPE_F32, .dims = 0},
        {.name = "pair\"\\", .dtype = DTYPE_F32, .dims = 1, .shape = {1}},
        {.name = "bytes", .dtype = DTYPE_U8, .dims = 2, .shape = {2, 3}},
        {.name = "empty", .dtype = DTYPE_BF16, .dims = 2, .shape = {0, 3}},
    };
    struct safetensors_writer w;
    struct safetensors file;
    assert_int_equal(safetensors_writer_open(path, tensors, 4, "a test", &w, NULL), 0);
    assert_int_equal(safetensors_writer_put(&w, 2, 3, bytes + 3, 3, NULL), 0); /* any order */
    assert_int_equal(safetensors_writer_put(&w, 1, 0, &f[1], 4, NULL), 0);
    assert_int_equal(safetensors_writer_put(&w, 2, 0, bytes, 3, NULL), 0);
    assert_int_equal(safetensors_writer_put(&w, 0, 0, &f[0], 4, NULL), 0);
    assert_int_equal(safetensors_writer_finish(&w, NULL), 0);
    assert_int_equal(safetensors_open(path, &file, NULL), 0);
    assert_int_equal(file.count, 4);
    for (size_t i = 0; i < 4; i++) {
        const struct tensor *t = &file.tensors[i];
        if (strcmp(t->name, "scalar") == 0) {
            assert_int_equal(t->dims, 0);
            assert_memory_equal(t->data, &f[0], 4);
        } else if (strcmp(t->name, "bytes") == 0) {
            assert_memory_equal(t->data, bytes, 6);
            assert_int_equal(t->shape[1], 3);
        }
    }
    safetensors_close(&file);
    /* A name that is taken is not overwritten, and stays after the refusal. */
    assert_int_equal(safetensors_writer_open(path, tensors, 4, NULL, &w, NULL), IMP_ERR_IO);
    assert_true(file_exists(path));
    free(path);
    temp_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multipliers),
        cmocka_unit_test(amax_block),
        cmocka_unit_test(zero_block),
        cmocka_unit_test(sweep_finds_amax_over_four),
        cmocka_unit_test(search_is_the_minimum),
        cmocka_unit_test(search_stays_in_range),
        cmocka_unit_test(instruction_sets_agree),
        cmocka_unit_test(policy),
        cmocka_unit_test(input_names),
        cmocka_unit_test(moments_share),
        cmocka_unit_test(amax_equals_modelopt),
        cmocka_unit_test(none_keeps_every_bit),
        cmocka_unit_test(dialects_agree),
        cmocka_unit_test(weighted_and_threads),
        cmocka_unit_test(shards),
        cmocka_unit_test(refusals),
        cmocka_unit_test(destination_taken),
        cmocka_unit_test(disk_full),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(writer_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
