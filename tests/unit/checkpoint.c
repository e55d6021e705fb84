/* Folders, shards and indices, names under other prefixes, vectors. st12, st14 and st15 name rows
 * of the list of bad files that a loader must survive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "load/folder.h"
#include "support/tensors.h"

static void put_shard(const char *folder, const char *name, const char *line) {
    struct maker m = {0};
    tensors_add(&m, "", line);
    put_tensors(folder, name, &m);
}

static char *new_folder(void) {
    char *folder = temp_folder();
    put_text(folder, "config.json", TINY_CONFIG);
    return folder;
}

#define INDEX   "model.safetensors.index.json"
#define SHARD_1 "model-00001-of-00002.safetensors"
#define SHARD_2 "model-00002-of-00002.safetensors"

static int open_code(const char *path, struct imp_error *err) {
    struct checkpoint ck;
    *err = (struct imp_error){0};
    int rc = checkpoint_open(path, true, NULL, &ck, err);
    if (rc < 0) assert_null(ck.path);
    checkpoint_close(&ck);
    return rc;
}

static void expect(const char *path, int code, const char *words) {
    struct imp_error err;
    int rc = open_code(path, &err);
    if (rc != code || (!strstr(err.message, words) && !strstr(err.where, words)))
        fail_msg("rc %d \"%s\" at \"%s\"; expected %d with \"%s\"", rc, err.message, err.where,
                 code, words);
}

static void shards_with_index(void **state) {
    (void)state;
    char *folder = new_folder();
    put_shard(folder, SHARD_1, "/model.layers.0.a.weight F32 2,2 =1; /model.norm.weight BF16 4 =2");
    put_shard(folder, SHARD_2, "/model.layers.0.b.weight F32 2,2 =3");
    put_shard(folder, "consolidated.safetensors", "/layers.0.a.weight F32 2,2 =9");
    put_shard(folder, "extra.safetensors", "/model.layers.0.a.weight F32 2,2 =9");
    put_text(folder, INDEX,
             "{\"metadata\":{\"total_size\":40},\"weight_map\":{"
             "\"model.layers.0.a.weight\":\"" SHARD_1 "\",\"model.norm.weight\":\"" SHARD_1 "\","
             "\"model.layers.0.b.weight\":\"" SHARD_2 "\"}}");
    struct checkpoint ck;
    struct imp_error err;
    struct weight w;
    float row[2];
    assert_int_equal(checkpoint_open(folder, true, NULL, &ck, &err), 0);
    assert_int_equal(ck.file_count, 2);
    assert_int_equal(ck.tensor_count, 3);
    assert_string_equal(ck.tensors[0]->name, "model.layers.0.a.weight");
    assert_string_equal(ck.tensors[2]->name, "model.norm.weight");
    assert_int_equal(checkpoint_weight(&ck, "model.layers.0.b", 2, 2, &w, &err), 0);
    weight_dequantize_row(&w, 1, row);
    assert_true(row[1] == 3);
    assert_non_null(strstr(checkpoint_find(&ck, "model.norm.weight")->file, SHARD_1));
    checkpoint_close(&ck);
    checkpoint_close(&ck);
    temp_remove(folder);
}

static void files_without_index(void **state) {
    (void)state;
    char *folder = new_folder(), path[512];
    struct checkpoint ck;
    struct imp_error err;
    expect(folder, IMP_ERR_FILE, "no .safetensors files");
    put_shard(folder, "a.safetensors", "/a.weight F32 2,2 =1");
    put_shard(folder, "b.safetensors", "/b.weight F32 2,2 =1");
    put_shard(folder, "consolidated.00.safetensors", "/a.weight F32 2,2 =1");
    put_text(folder, "._a.safetensors", "left by another system");
    assert_int_equal(checkpoint_open(folder, true, NULL, &ck, &err), 0);
    assert_int_equal(ck.file_count, 2);
    checkpoint_close(&ck);
    put_shard(folder, "model.safetensors", "/c.weight F32 2,2 =1");
    assert_int_equal(checkpoint_open(folder, true, NULL, &ck, &err), 0);
    assert_int_equal(ck.file_count, 1);
    assert_non_null(checkpoint_find(&ck, "c.weight"));
    checkpoint_close(&ck);
    /* One file by its own name, config.json beside it. */
    snprintf(path, sizeof path, "%s/b.safetensors", folder);
    assert_int_equal(checkpoint_open(path, true, NULL, &ck, &err), 0);
    assert_int_equal(ck.tensor_count, 1);
    assert_non_null(checkpoint_find(&ck, "b.weight"));
    checkpoint_close(&ck);
    snprintf(path, sizeof path, "%s/config.json", folder);
    expect(path, IMP_ERR_FILE, "neither a folder nor a .safetensors file");
    snprintf(path, sizeof path, "%s/none", folder);
    expect(path, IMP_ERR_IO, "no such file or folder");
    temp_remove(folder);
}

static void config_alone(void **state) {
    (void)state;
    char *folder = new_folder();
    struct checkpoint ck;
    struct imp_error err;
    assert_int_equal(checkpoint_open(folder, false, NULL, &ck, &err), 0);
    assert_string_equal(ck.config.model_type, "llama");
    assert_null(checkpoint_find(&ck, "model.norm.weight"));
    assert_false(checkpoint_has(&ck, "lm_head"));
    checkpoint_close(&ck);
    temp_remove(folder);
}

static void bad_index(const char *json, const char *words) {
    char *folder = new_folder();
    put_shard(folder, SHARD_1, "/a.weight F32 2,2 =1");
    put_shard(folder, SHARD_2, "/b.weight F32 2,2 =1");
    put_text(folder, INDEX, json);
    expect(folder, IMP_ERR_FILE, words);
    temp_remove(folder);
}

static void st15_index(void **state) {
    (void)state;
    bad_index("{\"weight_map\":{\"a.weight\":\"../x.safetensors\"}}", "\"../x.safetensors\"");
    bad_index("{\"weight_map\":{\"a.weight\":\"sub/../../x.safetensors\"}}", "in this folder");
    bad_index("{\"weight_map\":{\"a.weight\":\"./" SHARD_1 "\"}}", "in this folder");
    bad_index("{\"weight_map\":{\"a.weight\":\"/etc/x.safetensors\"}}", "in this folder");
    bad_index("{\"weight_map\":{\"a.weight\":\"a\\\\b.safetensors\"}}", "in this folder");
    bad_index("{\"weight_map\":{\"a.weight\":\"a\\u0000.safetensors\"}}", "in this folder");
    bad_index("{\"weight_map\":{\"a.weight\":\"\"}}", "in this folder");
    bad_index("{\"weight_map\":{\"a.weight\":\"/dev/zero\"}}", "in this folder");
    bad_index("{\"weight_map\":{\"a.weight\":\"config.json\"}}", "in this folder");
    bad_index("{\"weight_map\":{\"a.weight\":1}}", "in this folder");
    bad_index("{\"weight_map\":{\"a.weight\":\"none.safetensors\"}}", "which is missing");
    bad_index("{\"weight_map\":{\"a.weight\":\"" SHARD_1 "\",\"c.weight\":\"" SHARD_2 "\"}}",
              "c.weight is not in " SHARD_2);
    bad_index("{\"weight_map\":{\"a.weight\":\"" SHARD_1 "\",\"b.weight\":\"" SHARD_1 "\"}}",
              "b.weight is not in " SHARD_1);
    bad_index("{\"weight_map\":{\"b.weight\":\"" SHARD_1 "\",\"a.weight\":\"" SHARD_2 "\"}}",
              "b.weight is not in " SHARD_1);
    bad_index("{\"weight_map\":{\"a.weight\":\"" SHARD_1 "\",\"a.weight\":\"" SHARD_2 "\"}}",
              "occurs twice");
    bad_index("{\"weight_map\":{}}", "$.weight_map");
    bad_index("{\"weight_map\":[]}", "$.weight_map");
    bad_index("{}", "$.weight_map");
    bad_index("[]", "$.weight_map");
    bad_index("", "not valid JSON");
    bad_index("{\"weight_map\":{\"a.weight\":\"x\"}", "not valid JSON");
}

static void st15_same_tensor_twice(void **state) {
    (void)state;
    char *folder = new_folder();
    put_shard(folder, "a.safetensors", "/m.weight F32 2,2 =1");
    put_shard(folder, "b.safetensors", "/m.weight F32 2,2 =1");
    expect(folder, IMP_ERR_FILE, "tensor m.weight");
    struct imp_error err;
    open_code(folder, &err);
    assert_non_null(strstr(err.message, "a second tensor"));
    temp_remove(folder);
}

static void link_to(const char *target, const char *folder, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
    check(symlink(target, path) == 0);
}

static void st15_symlinks(void **state) {
    (void)state;
    char *folder = new_folder(), *outside = new_folder(), target[512];
    put_shard(outside, "w.safetensors", "/a.weight F32 2,2 =1");
    snprintf(target, sizeof target, "%s/w.safetensors", outside);
    link_to(target, folder, "model.safetensors");
    expect(folder, IMP_ERR_FILE, "a symlink out of the checkpoint's folder");
    link_to("nothing", folder, "model.safetensors");
    expect(folder, IMP_ERR_IO, "model.safetensors");
    /* A neighbour whose name starts like the folder's is outside too. */
    char *neighbour = mem_alloc(strlen(folder) + 2);
    sprintf(neighbour, "%s2", folder);
    check(mkdir(neighbour, 0700) == 0);
    put_shard(neighbour, "w.safetensors", "/a.weight F32 2,2 =1");
    snprintf(target, sizeof target, "%s/w.safetensors", neighbour);
    link_to(target, folder, "model.safetensors");
    expect(folder, IMP_ERR_FILE, "a symlink out of the checkpoint's folder");
    temp_remove(neighbour);
    /* Inside the folder a link is as good as a file. */
    put_shard(folder, "weights.bin", "/a.weight F32 2,2 =1");
    link_to("weights.bin", folder, "model.safetensors");
    expect(folder, 0, "");
    link_to("model.safetensors", folder, "model.safetensors"); /* a ring */
    expect(folder, IMP_ERR_IO, "model.safetensors");
    snprintf(target, sizeof target, "%s/w.safetensors", outside);
    link_to(target, folder, "model.safetensors");
    put_text(folder, INDEX, "{\"weight_map\":{\"a.weight\":\"model.safetensors\"}}");
    expect(folder, IMP_ERR_FILE, "a symlink out of");
    /* config.json and the index too. */
    link_to("weights.bin", folder, "model.safetensors");
    expect(folder, 0, "");
    snprintf(target, sizeof target, "%s/config.json", outside);
    link_to(target, folder, "config.json");
    expect(folder, IMP_ERR_FILE, "config.json");
    /* The folder itself may be named through a link. */
    snprintf(target, sizeof target, "%s/link", folder);
    link_to(outside, folder, "link");
    expect(target, 0, "");
    temp_remove(folder);
    temp_remove(outside);
}

/* models--ORG--NAME/{blobs/HASH, snapshots/REVISION/NAME -> ../../blobs/HASH} */
static void hub_cache(void **state) {
    (void)state;
    char *root = temp_folder(), blobs[256], snapshot[300], path[512];
    snprintf(blobs, sizeof blobs, "%s/blobs", root);
    snprintf(snapshot, sizeof snapshot, "%s/snapshots", root);
    check(mkdir(blobs, 0700) == 0 && mkdir(snapshot, 0700) == 0);
    snprintf(snapshot, sizeof snapshot, "%s/snapshots/0123abcd", root);
    check(mkdir(snapshot, 0700) == 0);
    put_text(blobs, "11", TINY_CONFIG);
    put_shard(blobs, "22", "/a.weight F32 2,2 =1");
    put_shard(root, "33", "/a.weight F32 2,2 =1");
    link_to("../../blobs/11", snapshot, "config.json");
    link_to("../../blobs/22", snapshot, "model.safetensors");
    expect(snapshot, 0, "");
    snprintf(path, sizeof path, "%s/model.safetensors", snapshot);
    expect(path, 0, "");
    link_to("../../33", snapshot, "model.safetensors");
    expect(snapshot, IMP_ERR_FILE, "a symlink out of");
    temp_remove(root);
}

/* Every place where real checkpoints have the text model. */
static void prefixes(void **state) {
    (void)state;
    static const struct {
        const char *prefix, *head;
    } cases[] = {
        {"model.", "lm_head"},
        {"model.language_model.", "lm_head"},
        {"language_model.model.", "language_model.lm_head"},
        {"model.language_model.model.", "model.lm_head"},
        {"language_model.", "lm_head"},
        {"", "lm_head"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str line = {0};
        str_printf(&line,
                   "/%slayers.0.q_proj.weight F32 2,2 =1; /%snorm.weight BF16 2 =3;"
                   "/%sembed_tokens.weight F32 4,2 =2; /%s.weight F32 4,2 =4;"
                   "/model.visual.blocks.0.weight F32 2,2 =5; /mtp.fc.weight F32 2,4 =6",
                   cases[i].prefix, cases[i].prefix, cases[i].prefix, cases[i].head);
        struct tiny t;
        struct imp_error err;
        struct weight w;
        const float *v;
        float row[4];
        char exact[128];
        assert_int_equal(tiny_open(&t, "", line.data, TINY_CONFIG, &err), 0);
        assert_string_equal(t.ck.prefix, cases[i].prefix);
        assert_string_equal(t.ck.head, cases[i].head);
        assert_true(checkpoint_has(&t.ck, "model.layers.0.q_proj"));
        assert_false(checkpoint_has(&t.ck, "model.layers.0"));
        assert_false(checkpoint_has(&t.ck, "model.layers.1.q_proj"));
        assert_int_equal(checkpoint_weight(&t.ck, "lm_head", 4, 2, &w, &err), 0);
        weight_dequantize_row(&w, 0, row);
        assert_true(row[0] == 4);
        assert_int_equal(checkpoint_weight(&t.ck, "model.embed_tokens", 4, 2, &w, &err), 0);
        weight_dequantize_row(&w, 3, row);
        assert_true(row[1] == 2);
        snprintf(exact, sizeof exact, "%sembed_tokens", cases[i].prefix);
        assert_string_equal(w.name, exact);
        assert_int_equal(checkpoint_vector(&t.ck, "model.norm.weight", 2, &v, &err), 0);
        assert_true(v[1] == 3);
        /* The files' own names work too. */
        assert_int_equal(checkpoint_weight(&t.ck, exact, 4, 2, &w, &err), 0);
        assert_true(checkpoint_has(&t.ck, "model.visual.blocks.0"));
        assert_int_equal(checkpoint_weight(&t.ck, "mtp.fc", 2, 4, &w, &err), 0);
        assert_non_null(checkpoint_find(&t.ck, "model.layers.0.q_proj.weight"));
        assert_null(checkpoint_find(&t.ck, "model.layers.0.q_proj"));
        str_free(&line);
        tiny_close(&t);
    }
}

static const struct {
    const char *name;
    enum tensor_role role;
} ROLES[] = {
    {"model.layers.0.mlp.up_proj.weight", TENSOR_TEXT},
    {"model.language_model.layers.3.self_attn.q_proj.weight_packed", TENSOR_TEXT},
    {"model.language_model.embed_tokens_per_layer.weight", TENSOR_TEXT},
    {"language_model.lm_head.weight", TENSOR_TEXT},
    {"model.layers.0.router.per_expert_scale", TENSOR_TEXT},
    {"model.layers.0.layer_scalar", TENSOR_TEXT},
    {"mtp.fc.weight", TENSOR_MTP},
    {"mtp.layers.0.mlp.experts.0.up_proj.weight", TENSOR_MTP},
    {"model.mtp.norm.weight", TENSOR_MTP},
    {"pre_projection.weight", TENSOR_DRAFTER},
    {"masked_embedding.centroids.weight", TENSOR_DRAFTER},
    {"model.visual.blocks.0.attn.qkv.weight", TENSOR_VISION},
    {"visual.merger.mlp.0.weight", TENSOR_VISION},
    {"vision_tower.transformer.layers.0.ffn_norm.weight", TENSOR_VISION},
    {"model.vision_tower.encoder.layers.0.mlp.up_proj.linear.input_max", TENSOR_VISION},
    {"model.multi_modal_projector.linear_1.weight", TENSOR_VISION},
    {"model.embed_vision.embedding_projection.weight", TENSOR_VISION},
    {"vision_embedder.patch_dense.weight", TENSOR_VISION},
    {"model.audio_tower.layers.0.norm_out.weight", TENSOR_AUDIO},
    {"model.embed_audio.embedding_projection.weight", TENSOR_AUDIO},
    {"model.layers.0.self_attn.rotary_emb.inv_freq", TENSOR_UNUSED},
    {"model.layers.0.mlp.up_proj.output_min", TENSOR_UNUSED},
    {"model.layers.0.mlp.up_proj.weight_zero_point", TENSOR_UNUSED},
    {"model.layers.0.self_attn.k_proj.k_scale", TENSOR_KV_SCALE},
    {"model.layers.0.self_attn.v_scale", TENSOR_KV_SCALE},
    {"model.layers.0.self_attn.k_proj.output_scale", TENSOR_KV_SCALE},
    {"", TENSOR_TEXT},
    {"..", TENSOR_TEXT},
    {"mtp", TENSOR_MTP},
    {"layers.mtp.visual", TENSOR_TEXT},
};

static void keep_all(void *ctx, int level, const char *line) {
    struct str *all = ctx;
    str_printf(all, "%d %s\n", level, line);
}

static void left_alone(void **state) {
    (void)state;
    struct str said = {0};
    const struct log log = {keep_all, &said};
    char *folder = new_folder();
    struct checkpoint ck;
    struct imp_error err;
    put_shard(folder, "model.safetensors",
              "/model.layers.0.a.weight F32 2,2 =1; /visual.a F32 1 =1; /audio_tower.b F32 1 =1;"
              "/mtp.fc.weight F32 1,1 =1");
    assert_int_equal(checkpoint_open(folder, true, &log, &ck, &err), 0);
    assert_string_equal(said.data,
                        "1 images and sound are not read: 2 tensors for them are left alone\n"
                        "2 tensors of a drafter are kept for later use: 1\n");
    checkpoint_close(&ck);
    str_free(&said);
    temp_remove(folder);
}

/* What is in the files beside the language model is told apart and counted. */
static void roles(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof ROLES / sizeof *ROLES; i++) {
        enum tensor_role role = checkpoint_role(ROLES[i].name);
        if (role != ROLES[i].role) fail_msg("%s: %s", ROLES[i].name, checkpoint_role_name(role));
    }
    struct tiny t;
    struct imp_error err;
    struct checkpoint_counts n;
    const struct tensor *first;
    const float *v;
    assert_int_equal(tiny_open(&t, "",
                               "/model.visual.a F32 4 =1; /model.visual.b BF16 2 =1;"
                               "/mtp.fc.weight F32 2,2 =1; /model.layers.0.extra F32 3 =1;"
                               "/model.layers.0.self_attn.k_scale F32 1 =1;"
                               "/model.norm.weight F32 2 =1; /audio_tower.x U8 5 01",
                               TINY_CONFIG, &err),
                     0);
    checkpoint_count(&t.ck, &n);
    assert_int_equal(n.tensors[TENSOR_VISION], 2);
    assert_int_equal(n.bytes[TENSOR_VISION], 20);
    assert_int_equal(n.tensors[TENSOR_MTP], 1);
    assert_int_equal(n.tensors[TENSOR_TEXT], 2);
    assert_int_equal(n.bytes[TENSOR_TEXT], 20);
    assert_int_equal(n.tensors[TENSOR_KV_SCALE], 1);
    assert_int_equal(n.bytes[TENSOR_AUDIO], 5);
    assert_int_equal(n.tensors[TENSOR_DRAFTER] + n.tensors[TENSOR_UNUSED], 0);
    assert_int_equal(checkpoint_unread(&t.ck, &first), 2);
    assert_int_equal(checkpoint_vector(&t.ck, "model.norm.weight", 2, &v, &err), 0);
    assert_int_equal(checkpoint_unread(&t.ck, &first), 1); /* st14: a tensor too many */
    assert_string_equal(first->name, "model.layers.0.extra");
    tiny_close(&t);
}

static const struct {
    const char *line;
    float k, v;
    int lines;
} KV_SCALES[] = {
    {"x F32 1 =1", 1, 1, 0},
    {"k_proj.k_scale F32 - =0.5; v_proj.v_scale F32 - =2", 0.5f, 2, 0}, /* ModelOpt */
    {"k_scale BF16 1 =0.5; v_scale BF16 1 =2; q_scale BF16 1 =3", 0.5f, 2, 0},
    {"k_scale F32 2,1,1 =0.5; v_scale F32 2,1,1 =2", 0.5f, 2, 0}, /* a number a head */
    {"k_proj.output_scale F32 1 =0.5; v_proj.output_scale F32 1 =2", 0.5f, 2, 0},
    {"kv_scale F32 1 =4", 4, 4, 0},
    {"attn.k_scale F32 1 =4", 4, 1, 0},
    {"k_cache.scale F32 1 =4; v_cache.scale F32 1 =8", 4, 8, 0},
    {"k_scale F32 1 =0; v_scale F32 1 =2", 1, 2, 1},
    {"k_scale F32 1 =nan; v_scale F32 1 =inf", 1, 1, 1},
    {"k_scale F32 1 =-1; v_scale I32 1 01", 1, 1, 1},
    {"k_scale F32 0 =1; v_scale F32 2000 =1", 1, 1, 1},
};

static void kv_scales(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof KV_SCALES / sizeof *KV_SCALES; i++) {
        struct tiny t;
        struct imp_error err;
        float k = 0, v = 0;
        assert_int_equal(tiny_open(&t, "model.language_model.layers.7.self_attn", KV_SCALES[i].line,
                                   TINY_CONFIG, &err),
                         0);
        checkpoint_kv_scales(&t.ck, "model.layers.7.self_attn", &k, &v);
        if (k != KV_SCALES[i].k || v != KV_SCALES[i].v || t.lines != KV_SCALES[i].lines)
            fail_msg("case %zu: %g %g, %d lines", i, (double)k, (double)v, t.lines);
        checkpoint_kv_scales(&t.ck, "model.layers.8.self_attn", &k, &v);
        assert_true(k == 1 && v == 1);
        tiny_close(&t);
    }
    struct maker m = {0};
    struct tiny t;
    struct imp_error err;
    const float heads[3] = {1, 5, 3};
    float k, v;
    maker_add(&m, "model.layers.0.self_attn.k_scale", "F32", "[3,1,1]", heads, sizeof heads);
    assert_int_equal(tiny_open_skewed(&t, &m, 1, TINY_CONFIG, &err), 0);
    checkpoint_kv_scales(&t.ck, "model.layers.0.self_attn", &k, &v);
    assert_true(k == 5 && v == 1);
    tiny_close(&t);
}

static const struct {
    const char *line;
    int64_t count;
    const char *words; /* NULL: fine */
} VECTORS[] = {
    {"/model.norm.weight F32 4 =-1.5", 4, NULL},
    {"/model.norm.weight F16 4 =-1.5", 4, NULL},
    {"/model.norm.weight BF16 4 =-1.5", -1, NULL},
    {"/model.norm.weight BF16 2,1,2 =-1.5", 4, NULL},
    {"/model.norm.weight BF16 4 =-1.5", 5, "5 values expected, [4] found"},
    {"/model.norm.weight BF16 0 =1", -1, "[0] found"},
    {"/model.norm.weight BF16 2,0 =1", 0, "[2, 0] found"},
    {"/model.norm.weight F32 4 =nan", 4, "value 0 is not finite"},
    {"/model.norm.weight BF16 4 =inf", 4, "value 0 is not finite"},
    {"/model.norm.weight I32 4 00", 4, "I32 found"},
    {"/model.norm.weight U8 4 00", 4, "U8 found"},
    {"/model.norm.bias F32 4 =1", 4, "is missing"},
};

static void st12_st14_vectors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof VECTORS / sizeof *VECTORS; i++) {
        struct tiny t;
        struct imp_error err = {0};
        const float *v = NULL;
        assert_int_equal(tiny_open(&t, "", VECTORS[i].line, TINY_CONFIG, &err), 0);
        int rc = checkpoint_vector(&t.ck, "model.norm.weight", VECTORS[i].count, &v, &err);
        assert_int_equal(rc, VECTORS[i].words ? IMP_ERR_FILE : 0);
        if (rc == 0) {
            assert_true(v[0] == -1.5f && v[3] == -1.5f);
        } else {
            assert_non_null(strstr(err.where, "tensor model.norm.weight"));
            if (!strstr(err.message, VECTORS[i].words))
                fail_msg("case %zu: \"%s\" lacks \"%s\"", i, err.message, VECTORS[i].words);
        }
        tiny_close(&t);
    }
}

/* A name of any length is only a name that is not there. */
static void long_names(void **state) {
    (void)state;
    struct tiny t;
    struct imp_error err;
    struct weight w;
    const float *v;
    char name[5000] = "model.layers.";
    memset(name + 13, 'x', sizeof name - 14);
    assert_int_equal(tiny_open(&t, "", "/model.layers.0.a.weight F32 2,2 =1", TINY_CONFIG, &err),
                     0);
    for (size_t n = 1000; n < sizeof name; n += 7) {
        char *part = mem_strndup(name, n);
        assert_null(checkpoint_find(&t.ck, part));
        assert_false(checkpoint_has(&t.ck, part));
        assert_int_equal(checkpoint_weight(&t.ck, part, 1, 1, &w, &err), IMP_ERR_FILE);
        assert_int_equal(checkpoint_vector(&t.ck, part, 1, &v, &err), IMP_ERR_FILE);
        free(part);
    }
    tiny_close(&t);
}

/* A whole folder, each of its files cut at every 1/64: an error or a sound checkpoint. */
static void st18_truncated_folder(void **state) {
    (void)state;
    static const char *const names[] = {SHARD_1, INDEX, "config.json"};
    for (size_t f = 0; f < 3; f++) {
        char *folder = new_folder(), path[512];
        struct str text = {0};
        struct imp_error err;
        put_shard(folder, SHARD_1, "/a.weight F32 2,2 =1");
        put_text(folder, INDEX, "{\"weight_map\":{\"a.weight\":\"" SHARD_1 "\"}}");
        expect(folder, 0, "");
        snprintf(path, sizeof path, "%s/%s", folder, names[f]);
        check(file_read(path, 1 << 20, &text, &err) == 0);
        for (size_t i = 0; i < 64; i++) {
            put_file(folder, names[f], text.data, text.size * i / 64);
            expect(folder, IMP_ERR_FILE, names[f]);
        }
        str_free(&text);
        temp_remove(folder);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_with_index),
        cmocka_unit_test(files_without_index),
        cmocka_unit_test(config_alone),
        cmocka_unit_test(st15_index),
        cmocka_unit_test(st15_same_tensor_twice),
        cmocka_unit_test(st15_symlinks),
        cmocka_unit_test(hub_cache),
        cmocka_unit_test(prefixes),
        cmocka_unit_test(left_alone),
        cmocka_unit_test(roles),
        cmocka_unit_test(kv_scales),
        cmocka_unit_test(st12_st14_vectors),
        cmocka_unit_test(long_names),
        cmocka_unit_test(st18_truncated_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
