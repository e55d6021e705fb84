/* imp_synth on a small model of every family: the files hold what model_open binds and nothing
 * else, under transformers' names, with numbers of the usual sizes, the same in every format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>

#include "base/file.h"
#include "base/rng.h"
#include "load/experts.h"
#include "load/folder.h"
#include "model/tensors.h"
#include "quantize/synth_config.h"
#include "support/small_models.h"

#define MODELS IMP_SOURCE_DIR "/tests/data/models"

/* ---- what is bound ---- */

struct total {
    int64_t numbers;
};
static void count_numbers(void *ctx, const struct model_tensor *t) {
    int64_t n = 1;
    for (int d = 0; d < t->dims; d++) n *= t->shape[d];
    ((struct total *)ctx)->numbers += n;
}

/* The list has as many numbers as the description says, however experts are stored. */
static void all_parameters(void **state) {
    (void)state;
    for (int i = 0; i < FAMILY_COUNT; i++) {
        char *folder = temp_folder();
        struct config config;
        struct arena arena = {0};
        struct model_desc desc;
        put_config(folder, FAMILIES[i].json);
        assert_int_equal(config_open(folder, &config, NULL), 0);
        assert_int_equal(model_describe(&config, &arena, &desc, NULL), 0);
        for (int form = EXPERT_AS_SAVED; form <= EXPERT_ONE_BY_ONE; form++) {
            struct total total = {0};
            model_desc_tensors(&desc, (enum expert_form)form, count_numbers, &total);
            if (total.numbers != model_desc_parameters(&desc))
                fail_msg("%s: %lld numbers, %lld parameters", FAMILIES[i].name,
                         (long long)total.numbers, (long long)model_desc_parameters(&desc));
        }
        arena_free(&arena);
        config_close(&config);
        temp_remove(folder);
    }
}

/* The weights under another name for tensor `name`: its last letter but one is changed. */
static void hide_tensor(const char *from, const char *to, const char *name) {
    struct str file = {0}, quoted = {0};
    char *path = within(from, "model.safetensors");
    assert_int_equal(file_read(path, 1u << 30, &file, NULL), 0);
    str_printf(&quoted, "\"%s\"", name);
    char *at = memmem(file.data, file.size, quoted.data, quoted.size);
    assert_non_null(at);
    at[quoted.size - 3] = '?';
    put_file(to, "model.safetensors", file.data, file.size);
    str_free(&quoted);
    str_free(&file);
    free(path);
}

static int try_open(const char *folder, struct backend *be, struct imp_error *err) {
    struct checkpoint ck;
    struct model model = {0};
    open_checkpoint(folder, &ck);
    int rc = model_open(&ck, be, NULL, NULL, &model, err);
    model_close(&model);
    checkpoint_close(&ck);
    return rc;
}

/* Opens with all tensors there, and not without any one of them. (Without its head a model is taken
 * for a tied one.) */
static void check_needed(const char *made, struct backend *be, const char *what) {
    struct checkpoint ck;
    struct imp_error err = {0};
    char *broken = temp_folder(), *config = within(made, "config.json");
    struct str text = {0};
    assert_int_equal(file_read(config, 1u << 20, &text, NULL), 0);
    put_file(broken, "config.json", text.data, text.size);
    if (try_open(made, be, &err) < 0) fail_msg("%s: %s: %s", what, err.where, err.message);
    open_checkpoint(made, &ck);
    for (size_t i = 0; i < ck.tensor_count; i++) {
        const char *name = ck.tensors[i]->name;
        if (strstr(name, "lm_head")) continue;
        hide_tensor(made, broken, name);
        if (try_open(broken, be, &err) == 0) fail_msg("%s: opens without %s", what, name);
    }
    checkpoint_close(&ck);
    str_free(&text);
    free(config);
    temp_remove(broken);
}

static void exactly_what_is_bound(void **state) {
    (void)state;
    struct backend *be = portable();
    for (int i = 0; i < FAMILY_COUNT; i++) {
        char *folder = temp_folder();
        put_config(folder, FAMILIES[i].json);
        char *made = synth(folder, "bf16", 2);
        check_needed(made, be, FAMILIES[i].name);
        free(made);
        temp_remove(folder);
    }
    backend_close(be);
}

/* Of NVFP4 and MXFP4 every part is read, but nothing is asked for twice: opening is enough. */
static void every_format_opens(void **state) {
    (void)state;
    static const char *const formats[] = {"compressed-tensors", "modelopt", "mxfp4"};
    struct backend *be = portable();
    for (int i = 0; i < FAMILY_COUNT; i++) {
        for (int f = 0; f < 3; f++) {
            struct imp_error err = {0};
            if (f == 2 && strcmp(FAMILIES[i].name, "gpt_oss") != 0) continue;
            char *folder = temp_folder();
            put_config(folder, FAMILIES[i].json);
            char *made = synth(folder, formats[f], 2);
            if (try_open(made, be, &err) < 0)
                fail_msg("%s, %s: %s: %s", FAMILIES[i].name, formats[f], err.where, err.message);
            free(made);
            temp_remove(folder);
        }
    }
    backend_close(be);
}

/* ---- names ---- */

static bool is_text(const char *name) {
    static const char *const others[] = {"visual.", "vision", "audio", "multi_modal", "mtp."};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strstr(name, others[i])) return false;
    }
    return true;
}

static void compare_names(const char *model) {
    char *folder = temp_folder(), *real = within(MODELS, model);
    char *made = within(folder, "made");
    const struct imp_synth_options options = {
        .config = real, .destination = made, .format = "bf16", .threads = 1};
    struct imp_error err = {0};
    struct checkpoint a, b;
    size_t text = 0;
    if (imp_synth(&options, &err) < 0) fail_msg("%s: %s: %s", model, err.where, err.message);
    open_checkpoint(real, &a);
    open_checkpoint(made, &b);
    for (size_t i = 0; i < a.tensor_count; i++) {
        const struct tensor *t = a.tensors[i];
        if (!is_text(t->name)) continue;
        const struct tensor *u = text < b.tensor_count ? b.tensors[text++] : NULL;
        if (u == NULL || strcmp(t->name, u->name) != 0)
            fail_msg("%s: %s is %s", model, t->name, u ? u->name : "missing");
        if (t->dims != u->dims || memcmp(t->shape, u->shape, sizeof t->shape[0] * (size_t)t->dims))
            fail_msg("%s: %s has another shape", model, t->name);
    }
    assert_int_equal(text, b.tensor_count);
    checkpoint_close(&a);
    checkpoint_close(&b);
    free(made);
    free(real);
    temp_remove(folder);
}

static bool is_plain_model(const char *folder) {
    struct config config;
    if (!folder_has(folder, "config.json") || config_open(folder, &config, NULL) < 0) return false;
    const bool plain = config.quant == NULL && !config_get(&config, "quantization_config");
    config_close(&config);
    return plain;
}

/* Every model in tests/data/models that transformers itself saved in BF16. */
static void names_of_transformers(void **state) {
    (void)state;
    DIR *dir = opendir(MODELS);
    int models = 0;
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char *folder = within(MODELS, e->d_name);
        if (*e->d_name != '.' && is_plain_model(folder)) {
            compare_names(e->d_name);
            models++;
        }
        free(folder);
    }
    closedir(dir);
    assert_true(models >= 8);
}

/* ---- numbers ---- */

static void quantiles(void **state) {
    (void)state;
    struct rng_table *table = mem_alloc(sizeof *table);
    enum { N = 100000 };
    float *x = mem_alloc(N * sizeof *x), part[77];
    double sum = 0, squares = 0, fourth = 0;
    rng_table_make(table);
    rng_normals(table, 1, 2, 5, N, x);
    for (int i = 0; i < N; i++) {
        sum += x[i];
        squares += (double)x[i] * x[i];
        fourth += pow(x[i], 4);
    }
    assert_true(fabs(sum / N) < 0.01 && fabs(squares / N - 1) < 0.02 && fabs(fourth / N - 3) < 0.1);
    assert_true(fabsf(table->quantile[65535] - 4.3255f) < 2e-3f); /* of 1 - 2^-17 */
    assert_true(fabsf(table->quantile[55138] - 1.0f) < 1e-3f);    /* of 0.84134 */
    rng_normals(table, 1, 2, 5 + 1001, 77, part);
    assert_memory_equal(part, x + 1001, sizeof part);
    free(x);
    free(table);
}

static double spread(struct checkpoint *ck, const char *name, double *mean) {
    const float *x;
    const struct tensor *t = checkpoint_find(ck, name);
    if (t == NULL) fail_msg("%s is missing", name);
    int64_t n = (int64_t)(t->bytes / 2);
    assert_int_equal(checkpoint_vector(ck, name, n, &x, NULL), 0);
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (x[i] - *mean) * (x[i] - *mean);
    return sqrt(squares / (double)n);
}

static void about(struct checkpoint *ck, const char *name, double mean, double sd) {
    double found_mean, found = spread(ck, name, &found_mean);
    if (fabs(found_mean - mean) > 0.3 * sd + 0.05 || found < 0.6 * sd || found > 2.5 * sd)
        fail_msg("%s: mean %.3f, spread %.3f; %.3f and %.3f expected", name, found_mean, found,
                 mean, sd);
}

static void usual_sizes(void **state) {
    (void)state;
    char *folder = temp_folder();
    struct checkpoint ck;
    put_config(folder, FAMILIES[9].json); /* norms around 0, gated delta nets, experts */
    char *made = synth(folder, "bf16", 1);
    open_checkpoint(made, &ck);
    about(&ck, "model.embed_tokens.weight", 0, 1);
    about(&ck, "lm_head.weight", 0, 2.5 / 8);
    about(&ck, "model.norm.weight", 0, 0.2);
    about(&ck, "model.layers.3.self_attn.q_proj.weight", 0, 1.0 / 8);
    about(&ck, "model.layers.3.self_attn.o_proj.weight", 0, 1.0 / 8 / sqrt(8));
    about(&ck, "model.layers.0.linear_attn.norm.weight", 1.15, 0.3);
    about(&ck, "model.layers.0.linear_attn.conv1d.weight", 0, 0.5);
    about(&ck, "model.layers.0.mlp.gate.weight", 0, 2.0 / 8);
    about(&ck, "model.layers.0.mlp.experts.down_proj", 0, 1 / sqrt(32) / sqrt(8));
    const float *x;
    assert_int_equal(checkpoint_vector(&ck, "model.layers.0.linear_attn.A_log", 4, &x, NULL), 0);
    for (int i = 0; i < 4; i++) assert_true(x[i] >= 0 && x[i] <= 2.78f);
    assert_int_equal(checkpoint_vector(&ck, "model.layers.0.linear_attn.dt_bias", 4, &x, NULL), 0);
    for (int i = 0; i < 4; i++) assert_true(log1pf(expf(x[i])) > 9e-4f && x[i] < -2);
    checkpoint_close(&ck);
    free(made);
    temp_remove(folder);
}

struct errors {
    double difference, square;
};
static void add_error(struct errors *e, const struct weight *a, int64_t row_a,
                      const struct weight *b, int64_t row_b) {
    float x[128], y[128];
    assert_int_equal(a->cols, b->cols);
    weight_dequantize_row(a, row_a, x);
    weight_dequantize_row(b, row_b, y);
    for (int64_t k = 0; k < a->cols; k++) {
        e->difference += (double)(x[k] - y[k]) * (x[k] - y[k]);
        e->square += (double)x[k] * x[k];
    }
}

static void load_expert(struct checkpoint *ck, enum expert_layout layout, int experts, int index,
                        const char *module, struct expert *out) {
    struct imp_error err = {0};
    if (checkpoint_expert(ck, module, layout, experts, index, 32, 64, out, &err) < 0)
        fail_msg("%s: %s", err.where, err.message);
}

/* Row `row` of gate (part 0) or up (1), whichever way the two lie. */
static int64_t expert_row(const struct expert *e, int part, int64_t row, const struct weight **w) {
    *w = &e->gate_up[e->gate_up_count == 2 ? part : 0];
    if (e->gate_up_count == 2) return row;
    return e->interleaved ? 2 * row + part : part * 32 + row;
}

/* The same experts out of BF16 stacks (gpt-oss's transposed), NVFP4 one by one, and MXFP4. */
static void compare_experts(int family, const char *module, enum expert_layout layout, int experts,
                            const char *format, double tolerance) {
    char *folder = temp_folder();
    struct checkpoint ck[2];
    struct errors error = {0};
    put_config(folder, FAMILIES[family].json);
    char *made[2] = {synth(folder, "bf16", 1), synth(folder, format, 1)};
    for (int i = 0; i < 2; i++) open_checkpoint(made[i], &ck[i]);
    for (int index = 0; index < experts; index++) {
        struct expert e[2];
        for (int i = 0; i < 2; i++) load_expert(&ck[i], layout, experts, index, module, &e[i]);
        for (int row = 0; row < 32; row++) {
            for (int part = 0; part < 2; part++) {
                const struct weight *w[2];
                int64_t a = expert_row(&e[0], part, row, &w[0]);
                int64_t b = expert_row(&e[1], part, row, &w[1]);
                add_error(&error, w[0], a, w[1], b);
            }
        }
        for (int row = 0; row < 64; row++) add_error(&error, &e[0].down, row, &e[1].down, row);
        if (e[0].down_bias) assert_memory_equal(e[0].down_bias, e[1].down_bias, 64 * sizeof(float));
    }
    const double found = sqrt(error.difference / error.square);
    if (found > tolerance) fail_msg("%s as %s: %.3f away", FAMILIES[family].name, format, found);
    for (int i = 0; i < 2; i++) {
        checkpoint_close(&ck[i]);
        free(made[i]);
    }
    temp_remove(folder);
}

static void formats_agree(void **state) {
    (void)state;
    const char *mlp = "model.layers.2.mlp.experts";
    compare_experts(6, mlp, EXPERTS_PLAIN, 5, "compressed-tensors", 0.13);
    compare_experts(9, mlp, EXPERTS_PLAIN, 3, "modelopt", 0.13);
    compare_experts(11, "model.layers.2.experts", EXPERTS_PLAIN, 5, "compressed-tensors", 0.13);
    compare_experts(13, mlp, EXPERTS_GPT_OSS, 5, "compressed-tensors", 0.13);
    compare_experts(13, mlp, EXPERTS_GPT_OSS, 5, "mxfp4", 0.18);
}

/* ---- the folder ---- */

static void same_file(const char *a, const char *b, bool same) {
    struct str x = {0}, y = {0};
    assert_int_equal(file_read(a, 1u << 30, &x, NULL), 0);
    assert_int_equal(file_read(b, 1u << 30, &y, NULL), 0);
    assert_int_equal(x.size == y.size && memcmp(x.data, y.data, x.size) == 0, same);
    str_free(&x);
    str_free(&y);
}

static void made_again(const struct family *family, const char *format) {
    struct str weights[3] = {0};
    char *folders[3];
    for (int run = 0; run < 3; run++) {
        folders[run] = temp_folder();
        put_config(folders[run], family->json);
        char *made = within(folders[run], "made");
        const struct imp_synth_options options = {.config = folders[run],
                                                  .destination = made,
                                                  .format = format,
                                                  .threads = run == 0 ? 1 : 3,
                                                  .seed = run == 2 ? 1 : 0};
        assert_int_equal(imp_synth(&options, NULL), 0);
        str_printf(&weights[run], "%s/model.safetensors", made);
        free(made);
    }
    same_file(weights[0].data, weights[1].data, true);
    same_file(weights[0].data, weights[2].data, false);
    for (int run = 0; run < 3; run++) {
        str_free(&weights[run]);
        temp_remove(folders[run]);
    }
}

static void equal_seeds(void **state) {
    (void)state;
    for (int i = 0; i < FAMILY_COUNT; i++) {
        made_again(&FAMILIES[i], "bf16");
        made_again(&FAMILIES[i], "compressed-tensors");
    }
    made_again(&FAMILIES[13], "mxfp4");
}

static int cancel_late(void *ctx, const char *stage, uint64_t done, uint64_t total,
                       const char *unit) {
    (void)ctx, (void)unit;
    return strcmp(stage, "write") == 0 && done > total / 2;
}

static int refused(const char *folder, struct imp_synth_options options, const char *words) {
    struct imp_error err = {0};
    char *made = within(folder, "made");
    options.config = folder;
    if (options.destination == NULL) options.destination = made;
    int rc = imp_synth(&options, &err);
    if (rc == 0 || !strstr(err.message, words))
        fail_msg("%d: \"%s\" lacks \"%s\"", rc, err.message, words);
    assert_false(file_exists(made));
    free(made);
    return rc;
}

static void whole_or_not_at_all(void **state) {
    (void)state;
    char *folder = temp_folder();
    typedef struct imp_synth_options with;
    put_config(folder, FAMILIES[8].json);
    assert_int_equal(refused(folder, (with){.progress = cancel_late}, "cancelled"),
                     IMP_ERR_CANCELLED);
    assert_int_equal(refused(folder, (with){.destination = folder}, "not empty"), IMP_ERR_USAGE);
    assert_int_equal(refused(folder, (with){.format = "fp8"}, "no format"), IMP_ERR_USAGE);
    assert_int_equal(refused(folder, (with){.format = "mxfp4"}, "gpt_oss"), IMP_ERR_UNSUPPORTED);
    assert_int_equal(refused(folder, (with){.layers = 1}, "2 kinds of layers"), IMP_ERR_USAGE);
    assert_int_equal(refused(folder, (with){.layers = 5}, "the model has 4"), IMP_ERR_USAGE);
    assert_int_equal(refused(folder, (with){.vocab = 10}, "257"), IMP_ERR_USAGE);
    put_config(folder, "{'model_type':'mamba'}");
    assert_int_equal(refused(folder, (with){0}, "mamba"), IMP_ERR_UNSUPPORTED);
    DIR *dir = opendir(folder);
    int entries = 0;
    while (readdir(dir)) entries++;
    closedir(dir);
    assert_int_equal(entries, 3); /* ".", ".." and config.json: nothing half-made stays */
    temp_remove(folder);
}

/* ---- fewer layers ---- */

struct shortened {
    const char *config;
    uint32_t layers;
    const char *kinds; /* of each layer: f full, w window, g gated delta net; capital: experts */
};
static const struct shortened SHORTENED[] = {
    {"Qwen3-0.6B", 2, "ff"},
    {"Qwen3-30B-A3B", 3, "FFF"},
    {"Mistral-7B-Instruct-v0.2", 2, "ff"},
    {"Devstral-Small-2-24B-Instruct-2512", 2, "ff"},
    {"Qwen3.5-0.8B", 2, "gf"},
    {"Qwen3.6-35B-A3B", 4, "GGGF"},
    {"gpt-oss-20b", 3, "WFF"},
};

static void letters_of(const struct model_desc *desc, char *out) {
    for (int i = 0; i < desc->layers; i++) {
        const struct layer_desc *layer = &desc->layer[i];
        out[i] = layer->mixer == MIXER_GDN ? 'g' : layer->attention.window ? 'w' : 'f';
        if (layer->moe.experts) out[i] = (char)(out[i] - 'a' + 'A');
    }
    out[desc->layers] = 0;
}

static void describe_shortened(const char *folder, const char *name, uint32_t layers,
                               struct config *config, struct arena *arena,
                               struct model_desc *desc) {
    static const struct synth_changes none;
    struct synth_changes changes = none;
    struct model_desc whole;
    struct config original;
    struct str text = {0};
    struct imp_error err = {0};
    changes.layers = (int)layers;
    changes.vocab = 300;
    changes.eos = 256;
    assert_int_equal(config_open(folder, &original, NULL), 0);
    assert_int_equal(model_describe(&original, arena, &whole, NULL), 0);
    if (synth_config_make(&original, &whole, &changes, &text, &err) < 0)
        fail_msg("%s: %s", name, err.message);
    assert_int_equal(config_parse(text.data, text.size, "config.json", config, NULL), 0);
    if (model_describe(config, arena, desc, &err) < 0)
        fail_msg("%s: %s: %s", name, err.where, err.message);
    assert_null(config_get(config, "quantization_config"));
    config_close(&original);
    str_free(&text);
}

static void fewer_layers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof SHORTENED / sizeof *SHORTENED; i++) {
        const struct shortened *s = &SHORTENED[i];
        char *folder = within(IMP_SOURCE_DIR "/tests/data/configs", s->config), letters[16];
        struct config config;
        struct arena arena = {0};
        struct model_desc desc;
        describe_shortened(folder, s->config, s->layers, &config, &arena, &desc);
        letters_of(&desc, letters);
        if (strcmp(letters, s->kinds) != 0)
            fail_msg("%s: layers %s, not %s", s->config, letters, s->kinds);
        assert_int_equal(desc.vocab, 300);
        assert_int_equal(desc.eos_count, 1);
        assert_int_equal(desc.eos[0], 256);
        config_close(&config);
        arena_free(&arena);
        free(folder);
    }
}

/* Dense layers among experts, and KV that later layers share, keep their places in the order. */
static void layers_that_differ(void **state) {
    (void)state;
    char *folder = temp_folder();
    struct config config;
    struct arena arena = {0};
    struct model_desc desc;
    put_config(folder, FAMILIES[6].json);
    describe_shortened(folder, "qwen3_moe", 2, &config, &arena, &desc);
    assert_true(desc.layer[0].moe.experts == 0 && desc.layer[1].moe.experts == 5);
    config_close(&config);
    put_config(folder, "{'model_type':'gemma4_text','vocab_size':300," HEADS
                       "'hidden_size':64,'intermediate_size':96,'num_kv_shared_layers':5,"
                       "'use_double_wide_mlp':true,'num_hidden_layers':12}");
    describe_shortened(folder, "gemma4", 5, &config, &arena, &desc);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(desc.layer[i].attention.shares_kv, i >= 3);
        assert_int_equal(desc.layer[i].ffn.width, i >= 3 ? 192 : 96);
    }
    assert_true(desc.layer[4].attention.window == 0 && desc.layer[4].attention.kv_layer == 2);
    assert_true(desc.layer[3].attention.kv_layer == 1);
    config_close(&config);
    arena_free(&arena);
    temp_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_parameters),      cmocka_unit_test(exactly_what_is_bound),
        cmocka_unit_test(every_format_opens),  cmocka_unit_test(names_of_transformers),
        cmocka_unit_test(quantiles),           cmocka_unit_test(usual_sizes),
        cmocka_unit_test(formats_agree),       cmocka_unit_test(equal_seeds),
        cmocka_unit_test(whole_or_not_at_all), cmocka_unit_test(fewer_layers),
        cmocka_unit_test(layers_that_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
