/* imp_quantize of mixtures: experts in stacks, and what calibration learns of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>

#include "base/file.h"
#include "quantize/quantize.h"
#include "support/files.h"

#define MODELS IMP_SOURCE_DIR "/tests/data/models/"

static struct imp_error failure;

static int quantize(const char *from, const char *to, const char *method) {
    struct imp_quantize_options o = {
        .source = from, .destination = to, .method = method, .threads = 1};
    failure = (struct imp_error){0};
    return quantize_run(&o, NULL, &failure);
}

static void read_whole(const char *folder, const char *name, struct str *out) {
    char *path = path_in(folder, name);
    assert_int_equal(file_read(path, 16 << 20, out, NULL), 0);
    free(path);
}

/* ---- experts in stacks ---- */

#define EXPERTS "model.layers.0.mlp.experts."

struct stack_case {
    const char *dtype, *gate_up, *down, *bias; /* shapes; bias NULL: none */
    int code;
    const char *message;
};

/* E = 2, I = 16, H = 32; every byte is 1. */
static void try_stack(const struct stack_case *c) {
    static uint8_t ones[2 * 32 * 32 * 4];
    memset(ones, 1, sizeof ones);
    char *folder = temp_folder(), *from = path_in(folder, "from"), *out = path_in(folder, "out");
    assert_int_equal(mkdir(from, 0755), 0);
    put_text(from, "config.json", "{\"model_type\": \"gpt_oss\"}");
    struct maker m = {0};
    const size_t bytes = strcmp(c->dtype, "F32") == 0 ? 4 : 2;
    maker_add(&m, EXPERTS "gate_up_proj", c->dtype, c->gate_up, ones, 2 * 32 * 32 * bytes);
    if (c->down) maker_add(&m, EXPERTS "down_proj", c->dtype, c->down, ones, 2 * 32 * 16 * bytes);
    if (c->bias) maker_add(&m, EXPERTS "gate_up_proj_bias", "F32", c->bias, ones, 2 * 32 * 4);
    put_tensors(from, "model.safetensors", &m);
    int rc = quantize(from, out, "amax");
    if (rc != c->code) fail_msg("%s %s: %s", c->gate_up, c->down ? c->down : "", failure.message);
    if (rc < 0) {
        assert_non_null(strstr(failure.where, EXPERTS));
        if (!strstr(failure.message, c->message)) fail_msg("%s", failure.message);
    }
    assert_int_equal(count_entries(folder), rc < 0 ? 1 : 2);
    free(from);
    free(out);
    temp_remove(folder);
}

static void stacks(void **state) {
    (void)state;
    static const struct stack_case cases[] = {
        {"BF16", "[2,32,32]", "[2,32,16]", NULL, 0, ""},
        {"F32", "[2,32,32]", "[2,32,16]", NULL, 0, ""},
        {"BF16", "[2,32,32]", "[2,16,32]", "[2,32]", 0, ""}, /* gpt-oss's */
        {"BF16", "[2,32,32]", "[2,16,32]", NULL, IMP_ERR_UNSUPPORTED, "order of rows"},
        {"BF16", "[2,32,32]", "[2,32,16]", "[2,32]", IMP_ERR_UNSUPPORTED, "order of rows"},
        {"BF16", "[2,32,32]", "[1,32,32]", NULL, IMP_ERR_FILE, "no stack of experts"},
        {"BF16", "[2,32,32]", "[2,8,64]", NULL, IMP_ERR_FILE, "do not fit together"},
        {"BF16", "[2,32,32]", "[64,16]", NULL, IMP_ERR_FILE, "no stack of experts"},
        {"BF16", "[2,32,32]", NULL, NULL, IMP_ERR_FILE, "is not whole"},
        {"BF16", "[2,32,32]", "[2,16,32]", "[64]", IMP_ERR_FILE, "not one bias"},
        {"I16", "[2,32,32]", "[2,32,16]", NULL, IMP_ERR_FILE, "no stack of experts"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) try_stack(&cases[i]);
}

/* MXFP4, E = 2, I = H = 32: scales that are missing, too few, or no number. */
static void stacks_of_codes(void **state) {
    (void)state;
    static const struct {
        const char *shape;
        size_t bytes;
        uint8_t last;
        const char *message; /* NULL: taken */
    } cases[] = {{"[2,64,1]", 128, 120, NULL},
                 {"[2,64,1]", 128, 255, "row 31, column 0 is not a finite number"},
                 {"[2,32,1]", 64, 120, "no scale for every 32 codes"},
                 {NULL, 0, 0, "no scale for every 32 codes"}};
    uint8_t codes[2 * 64 * 16], scales[128];
    for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)(i * 37);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = temp_folder(), *from = path_in(folder, "from"),
             *out = path_in(folder, "out");
        assert_int_equal(mkdir(from, 0755), 0);
        put_text(from, "config.json",
                 "{\"model_type\": \"gpt_oss\", "
                 "\"quantization_config\": {\"quant_method\": \"mxfp4\"}}");
        memset(scales, 120, sizeof scales);
        if (cases[i].bytes) scales[cases[i].bytes - 1] = cases[i].last;
        struct maker m = {0};
        maker_add(&m, EXPERTS "gate_up_proj_blocks", "U8", "[2,64,1,16]", codes, 2048);
        maker_add(&m, EXPERTS "down_proj_blocks", "U8", "[2,32,1,16]", codes, 1024);
        if (cases[i].shape)
            maker_add(&m, EXPERTS "gate_up_proj_scales", "U8", cases[i].shape, scales,
                      cases[i].bytes);
        scales[127] = 120;
        maker_add(&m, EXPERTS "down_proj_scales", "U8", "[2,32,1]", scales, 64);
        put_tensors(from, "model.safetensors", &m);
        int rc = quantize(from, out, "sweep");
        assert_int_equal(rc, cases[i].message ? IMP_ERR_FILE : 0);
        if (rc < 0 && !strstr(failure.message, cases[i].message)) fail_msg("%s", failure.message);
        free(from);
        free(out);
        temp_remove(folder);
    }
}

/* ---- calibration of experts ---- */

static void copy_file(const char *from, const char *to, const char *name) {
    struct str data = {0};
    read_whole(from, name, &data);
    put_file(to, name, data.data, data.size);
    str_free(&data);
}

/* Where every row chooses every expert, each reads what the shared expert reads; and what a down
 * reads is its expert's own. */
static void experts_moments(void **state) {
    (void)state;
    static const char model[] = MODELS "tiny-qwen3.5-moe", few[] = "\"num_experts_per_tok\": 2";
    char *folder = temp_folder();
    struct str config = {0};
    read_whole(model, "config.json", &config);
    char *at = strstr(config.data, few);
    assert_non_null(at);
    at[sizeof few - 2] = '5'; /* all of them */
    put_text(folder, "config.json", config.data);
    copy_file(model, folder, "model.safetensors");
    copy_file(model, folder, "generation_config.json");
    struct moments m = {0};
    struct calibrate_options o = {.folder = folder, .tokens = 40, .threads = 1};
    if (calibrate_input_moments(&o, &m, &failure) < 0)
        fail_msg("%s: %s", failure.where, failure.message);
    const char *mlp = "model.language_model.layers.1.mlp";
    char name[128];
    snprintf(name, sizeof name, "%s.shared_expert.up_proj", mlp);
    const struct moments_entry *shared = moments_find(&m, name), *out[5];
    assert_non_null(shared);
    for (int e = 0; e < 5; e++) {
        snprintf(name, sizeof name, "%s.experts.%d.in", mlp, e);
        const struct moments_entry *in = moments_find(&m, name);
        assert_non_null(in);
        assert_int_equal(in->cols, shared->cols);
        for (int64_t k = 0; k < in->cols; k++)
            assert_true(fabsf(in->h[k] - shared->h[k]) <= 1e-5f * shared->h[k]);
        snprintf(name, sizeof name, "%s.experts.%d.out", mlp, e);
        out[e] = moments_find(&m, name);
        assert_non_null(out[e]);
        assert_true(e == 0 || memcmp(out[e]->h, out[0]->h, 16 * sizeof(float)) != 0);
    }
    assert_null(moments_find(&m, "model.language_model.layers.1.mlp.experts.5.in"));
    moments_free(&m);
    str_free(&config);
    temp_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stacks),
        cmocka_unit_test(stacks_of_codes),
        cmocka_unit_test(experts_moments),
    };
    return cmocka_run_group_tests_name("quantize_experts", tests, NULL, NULL);
}
