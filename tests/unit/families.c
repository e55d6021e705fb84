/* Real configurations, and what a description makes of them: sizes as published, or a refusal that
 * names what it is about.
 *
 * Numbers of parameters are those of transformers' own class for the text model, made without
 * memory from the same file; bytes are the published ones for BF16 (two per number of K and V; four
 * per number of recurrent state). Licences keep some files out of tests/data: with IMP_CONFIGS set
 * to a folder of configurations, those cases are read there and fail where they are missing;
 * without it they are skipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/options.h"
#include "load/checkpoint.h"
#include "model/model.h"
#include "model/tensors.h"
#include "support/files.h"

/* ---- sizes ---- */

struct published {
    const char *name; /* of the folder; "~" before one that is not in tests/data */
    int64_t parameters;
    int64_t kv;     /* bytes per token, layers that see everything */
    int64_t window; /* bytes per token, layers with a window */
    int64_t reach;  /* tokens of that window */
    int64_t state;  /* bytes of delta state */
};
static const struct published PUBLISHED[] = {
    {"Devstral-Small-2-24B-Instruct-2512", 23572403200, 163840, 0, 0, 0},
    {"~Llama-3.1-70B-Instruct-FP8", 70553706496, 327680, 0, 0, 0},
    {"~Llama-3.1-8B", 8030261248, 131072, 0, 0, 0},
    {"~Llama-3.1-8B-Instruct", 8030261248, 131072, 0, 0, 0},
    {"~Llama-3.2-3B-Instruct", 3212749824, 114688, 0, 0, 0},
    {"Mistral-7B-Instruct-v0.2", 7241732096, 131072, 0, 0, 0},
    {"Mistral-Small-3.2-24B-Instruct-2506", 23572403200, 163840, 0, 0, 0},
    {"Mistral-Small-3.2-24B-Instruct-2506-NVFP4", 23572403200, 163840, 0, 0, 0},
    {"Qwen2.5-7B-Instruct", 7615616512, 57344, 0, 0, 0},
    {"Qwen3-0.6B", 596049920, 114688, 0, 0, 0},
    {"Qwen3-1.7B", 1720574976, 114688, 0, 0, 0},
    {"Qwen3-235B-A22B-NVFP4", 235093634560, 192512, 0, 0, 0},
    {"Qwen3-30B-A3B", 30532122624, 98304, 0, 0, 0},
    {"Qwen3-30B-A3B-FP8", 30532122624, 98304, 0, 0, 0},
    {"Qwen3-30B-A3B-NVFP4", 30532122624, 98304, 0, 0, 0},
    {"Qwen3-32B", 32762123264, 262144, 0, 0, 0},
    {"Qwen3-32B-FP8-Static-PerTensor", 32762123264, 262144, 0, 0, 0},
    {"Qwen3-4B", 4022468096, 147456, 0, 0, 0},
    {"Qwen3-8B", 8190735360, 147456, 0, 0, 0},
    {"Qwen3-Coder-30B-A3B-Instruct", 30532122624, 98304, 0, 0, 0},
    {"Qwen3-Coder-30B-A3B-Instruct-NVFP4", 30532122624, 98304, 0, 0, 0},
    {"Qwen3.5-0.8B", 752393024, 12288, 0, 0, 18874368},
    {"Qwen3.5-122B-A10B-NVFP4", 122111526912, 24576, 0, 0, 150994944},
    {"Qwen3.5-27B", 26895998464, 65536, 0, 0, 150994944},
    {"Qwen3.5-35B-A3B", 34660610688, 20480, 0, 0, 62914560},
    {"Qwen3.5-9B", 8953803264, 32768, 0, 0, 50331648},
    {"Qwen3.6-27B-NVFP4", 26895998464, 65536, 0, 0, 150994944},
    {"Qwen3.6-35B-A3B", 34660610688, 20480, 0, 0, 62914560},
    {"Qwen3.6-35B-A3B-NVFP4", 34660610688, 20480, 0, 0, 62914560},
    {"Qwen3.6-35B-A3B-NVFP4.llm-compressor", 34660610688, 20480, 0, 0, 62914560},
    {"SmolLM2-135M-Instruct", 134515008, 23040, 0, 0, 0},
    {"~gemma-3-1b-it", 999885952, 4096, 22528, 512, 0},
    {"~gemma-3-270m", 268098176, 3072, 15360, 512, 0},
    {"~gemma-3-4b-it", 3880263168, 20480, 118784, 1024, 0},
    {"~gemma-4-26B-A4B", 25233141790, 20480, 204800, 1024, 0},
    {"~gemma-4-26B-A4B-it", 25233141790, 20480, 204800, 1024, 0},
    {"~gemma-4-26B-A4B-it-NVFP4", 25233141790, 20480, 204800, 1024, 0},
    {"~gemma-4-26B-A4B-it-NVFP4.llm-compressor", 25233141790, 20480, 204800, 1024, 0},
    {"~gemma-4-31B-it-NVFP4", 30697345340, 81920, 819200, 1024, 0},
    {"~gemma-4-E2B-it", 4628569379, 6144, 12288, 512, 0},
    {"gpt-oss-120b", 116829156672, 36864, 36864, 128, 0},
    {"gpt-oss-20b", 20914757184, 24576, 24576, 128, 0},
};

static char *folder_of(const char *name) {
    struct str path = {0};
    const char *outside = getenv("IMP_CONFIGS");
    if (*name == '~' && outside == NULL) return NULL;
    if (*name != '~') {
        str_printf(&path, "%s/tests/data/configs/%s", IMP_SOURCE_DIR, name);
    } else {
        str_printf(&path, "%s/%s", outside, name + 1);
    }
    return str_take(&path);
}

struct described {
    struct config config;
    struct arena arena;
    struct model_desc desc;
};

static int describe(const char *folder, struct described *out, struct imp_error *err) {
    *out = (struct described){0};
    int rc = config_open(folder, &out->config, err);
    return rc < 0 ? rc : model_describe(&out->config, &out->arena, &out->desc, err);
}

static void described_free(struct described *d) {
    arena_free(&d->arena);
    config_close(&d->config);
}

static int64_t window_of(const struct model_desc *desc) {
    int64_t widest = 0;
    for (int i = 0; i < desc->layers; i++) {
        if (desc->layer[i].attention.window > widest) widest = desc->layer[i].attention.window;
    }
    return widest;
}

/* Without the three inputs of the convolution, which published figures leave out. */
static int64_t delta_state(const struct model_desc *desc) {
    int64_t bytes = 0;
    for (int i = 0; i < desc->layers; i++) {
        const struct gdn_shape *s = &desc->layer[i].gdn.shape;
        if (desc->layer[i].mixer == MIXER_GDN)
            bytes += 4 * (int64_t)s->value_heads * s->key_dim * s->value_dim;
    }
    return bytes;
}

static void same(const char *model, const char *what, int64_t found, int64_t expected) {
    if (found != expected)
        fail_msg("%s: %s is %lld, published %lld", model, what, (long long)found,
                 (long long)expected);
}

static void check_sizes(const struct published *p, struct backend *be) {
    struct described d;
    struct imp_error err = {0};
    char *folder = folder_of(p->name);
    if (folder == NULL) return;
    if (describe(folder, &d, &err) < 0) fail_msg("%s: %s: %s", p->name, err.where, err.message);
    same(p->name, "parameters", model_desc_parameters(&d.desc), p->parameters);
    same(p->name, "KV per token",
         (int64_t)model_kv_block_bytes(&d.desc, be, KV_FULL) / KV_BLOCK_TOKENS, p->kv);
    same(p->name, "KV of windows per token",
         (int64_t)model_kv_block_bytes(&d.desc, be, KV_WINDOW) / KV_BLOCK_TOKENS, p->window);
    same(p->name, "window", window_of(&d.desc), p->reach);
    same(p->name, "delta state", delta_state(&d.desc), p->state);
    assert_true((int64_t)model_slot_bytes(&d.desc, be) >= p->state);
    described_free(&d);
    free(folder);
}

static void published_sizes(void **state) {
    (void)state;
    struct backend *be;
    const struct backend_options options = {.kind = BACKEND_CPU, .threads = 1, .isa = "portable"};
    assert_int_equal(backend_open(&options, &be, NULL), 0);
    for (size_t i = 0; i < sizeof PUBLISHED / sizeof *PUBLISHED; i++)
        check_sizes(&PUBLISHED[i], be);
    backend_close(be);
}

/* ---- refusals ---- */

struct refused {
    const char *name;
    int code;
    const char *words; /* in the message or its place */
};
static const struct refused REFUSED[] = {
    {"DeepSeek-V3.1-NVFP4", IMP_ERR_UNSUPPORTED, "model_type \"deepseek_v3\""},
    {"MiniMax-M2.7-NVFP4", IMP_ERR_UNSUPPORTED, "model_type \"minimax_m2\""},
    {"Mixtral-8x7B-v0.1", IMP_ERR_UNSUPPORTED, "model_type \"mixtral\""},
    {"~refuse/Llama-3_3-Nemotron-Super-49B-v1", IMP_ERR_UNSUPPORTED, "model_type \"nemotron-nas\""},
    {"~refuse/Nemotron-3-Nano-30B-A3B-NVFP4", IMP_ERR_UNSUPPORTED, "model_type \"nemotron_h\""},
    {"~refuse/Nemotron-3.5-Lightning-30B-A3B-NVFP4", IMP_ERR_UNSUPPORTED,
     "model_type \"nemotron_h\""},
    {"~Qwen2-Audio-7B-Instruct", IMP_ERR_IO, "config.json"},
};

static void expect_refusal(const char *what, const struct imp_error *err, int rc, int code,
                           const char *words) {
    if (rc != code) fail_msg("%s: status %d, not %d (%s)", what, rc, code, err->message);
    if (!strstr(err->message, words) && !strstr(err->where, words))
        fail_msg("%s: \"%s\" at \"%s\" lacks \"%s\"", what, err->message, err->where, words);
}

static void other_families(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        const struct refused *r = &REFUSED[i];
        struct described d;
        struct imp_error err = {0};
        char *folder = folder_of(r->name);
        if (folder == NULL) continue;
        int rc = describe(folder, &d, &err);
        expect_refusal(r->name, &err, rc, r->code, r->words);
        described_free(&d);
        free(folder);
    }
}

/* ---- fields ---- */

/* A small model of every family, to which a case's JSON is merged (RFC 7396). */
static const char *const BASES[][2] = {
    {"llama", "{'hidden_size':64,'intermediate_size':96,'num_hidden_layers':4,"
              "'num_attention_heads':4,'num_key_value_heads':2,'vocab_size':300}"},
    {"granite", "{'hidden_size':64,'intermediate_size':96,'num_hidden_layers':4,"
                "'num_attention_heads':4,'num_key_value_heads':2,'vocab_size':300}"},
    {"mistral", "{'num_hidden_layers':4}"},
    {"ministral3", "{'num_hidden_layers':4}"},
    {"qwen2", "{'num_hidden_layers':4}"},
    {"qwen3", "{'num_hidden_layers':4}"},
    {"qwen3_moe", "{'num_hidden_layers':4}"},
    {"qwen3_next", "{'num_hidden_layers':4}"},
    {"qwen3_5_text", "{'num_hidden_layers':4}"},
    {"qwen3_5_moe_text", "{'num_hidden_layers':4}"},
    {"gemma3_text", "{'num_hidden_layers':6}"},
    {"gemma4_text", "{'num_hidden_layers':6}"},
    {"gemma4_unified_text", "{'num_hidden_layers':6}"},
    {"gpt_oss", "{'num_hidden_layers':4}"},
};

struct edit {
    const char *family, *change;
    int code; /* 0: accepted */
    const char *words;
};
enum { OK = 0, BAD = IMP_ERR_FILE, NOT_HERE = IMP_ERR_UNSUPPORTED };
static const struct edit EDITS[] = {
    /* activations */
    {"llama", "{'hidden_act':'gelu'}", NOT_HERE, "$.hidden_act"},
    {"llama", "{'hidden_act':7}", BAD, "$.hidden_act"},
    {"granite", "{'hidden_act':'relu'}", NOT_HERE, "$.hidden_act"},
    {"mistral", "{'hidden_act':'gelu'}", NOT_HERE, "$.hidden_act"},
    {"ministral3", "{'hidden_act':'gelu'}", NOT_HERE, "$.hidden_act"},
    {"qwen2", "{'hidden_act':'gelu'}", NOT_HERE, "$.hidden_act"},
    {"qwen3_moe", "{'hidden_act':'relu2'}", NOT_HERE, "$.hidden_act"},
    {"qwen3_next", "{'hidden_act':'gelu'}", NOT_HERE, "$.hidden_act"},
    {"qwen3_5_text", "{'hidden_act':'gelu'}", NOT_HERE, "$.hidden_act"},
    {"gemma3_text", "{'hidden_activation':'gelu'}", NOT_HERE, "$.hidden_activation"},
    {"gemma4_text", "{'hidden_activation':'silu'}", NOT_HERE, "$.hidden_activation"},
    {"gpt_oss", "{'hidden_act':'swiglu'}", NOT_HERE, "$.hidden_act"},
    /* biases */
    {"llama", "{'attention_bias':true,'mlp_bias':true}", OK, NULL},
    {"qwen3", "{'attention_bias':true}", OK, NULL},
    {"gpt_oss", "{'attention_bias':false}", OK, NULL},
    {"mistral", "{'attention_bias':true}", NOT_HERE, "$.attention_bias"},
    {"qwen3_next", "{'attention_bias':true}", NOT_HERE, "$.attention_bias"},
    {"qwen3_5_moe_text", "{'attention_bias':true}", NOT_HERE, "$.attention_bias"},
    {"gemma3_text", "{'attention_bias':true}", NOT_HERE, "$.attention_bias"},
    {"gemma4_text", "{'attention_bias':true}", NOT_HERE, "$.attention_bias"},
    {"llama", "{'attention_bias':'yes'}", BAD, "$.attention_bias"},
    /* ropes */
    {"llama", "{'rope_scaling':{'rope_type':'dynamic','factor':2}}", NOT_HERE,
     "$.rope_scaling.rope_type \"dynamic\""},
    {"llama", "{'rope_scaling':{'type':'longrope'}}", NOT_HERE, "rope_type \"longrope\""},
    {"llama", "{'rope_scaling':{'rope_type':1}}", NOT_HERE, "$.rope_scaling.rope_type"},
    {"llama", "{'rope_scaling':'llama3'}", BAD, "$.rope_scaling"},
    {"llama", "{'rope_parameters':{'rope_type':'mrope'}}", NOT_HERE,
     "$.rope_parameters.rope_type \"mrope\""},
    {"llama", "{'rope_scaling':{'rope_type':'llama3','factor':0}}", BAD, "$.rope_scaling.factor"},
    {"llama", "{'rope_scaling':{'rope_type':'llama3','high_freq_factor':1}}", BAD,
     "high_freq_factor"},
    {"llama", "{'rope_theta':0}", BAD, "$.rope_theta"},
    {"llama", "{'partial_rotary_factor':0.001}", BAD, "partial_rotary_factor"},
    {"qwen3", "{'rope_scaling':{'rope_type':'yarn','factor':4}}", OK, NULL},
    {"qwen3_5_text", "{'rope_parameters':{'rope_type':'su'}}", NOT_HERE, "rope_type \"su\""},
    {"gemma3_text", "{'rope_scaling':{'rope_type':'dynamic'}}", NOT_HERE, "rope_type \"dynamic\""},
    {"gemma3_text", "{'rope_parameters':{'full_attention':{'rope_type':'xpos'}}}", NOT_HERE,
     "$.rope_parameters.full_attention.rope_type"},
    {"gemma4_text", "{'rope_parameters':{'sliding_attention':{'rope_type':'xpos'}}}", NOT_HERE,
     "$.rope_parameters.sliding_attention.rope_type"},
    {"gpt_oss", "{'rope_scaling':{'rope_type':'dynamic'}}", NOT_HERE, "rope_type \"dynamic\""},
    /* kinds of layers */
    {"mistral", "{'layer_types':['full_attention','full_attention','full_attention','mamba']}",
     NOT_HERE, "$.layer_types[3] \"mamba\""},
    {"qwen3", "{'layer_types':['chunked_attention',1,2,3]}", NOT_HERE, "$.layer_types[0]"},
    {"qwen3", "{'layer_types':[1,2,3,4]}", NOT_HERE, "$.layer_types[0]"},
    {"qwen3", "{'layer_types':['full_attention']}", BAD, "$.layer_types"},
    {"qwen3", "{'layer_types':'full_attention'}", BAD, "$.layer_types"},
    {"qwen3",
     "{'layer_types':['full_attention','full_attention','full_attention','linear_attention']}",
     NOT_HERE, "\"linear_attention\""},
    {"qwen3",
     "{'layer_types':['full_attention','full_attention','full_attention','sliding_attention']}",
     BAD, "use_sliding_window"},
    {"ministral3",
     "{'layer_types':['full_attention','full_attention','full_attention','sliding_attention']}",
     BAD, "sliding_window"},
    {"qwen3_5_text",
     "{'layer_types':['linear_attention','full_attention','full_attention','sliding_attention']}",
     NOT_HERE, "\"sliding_attention\""},
    {"gpt_oss",
     "{'layer_types':['linear_attention','full_attention','full_attention','full_attention']}",
     NOT_HERE, "\"linear_attention\""},
    {"gemma3_text", "{'use_bidirectional_attention':true}", NOT_HERE,
     "$.use_bidirectional_attention"},
    {"gemma4_text", "{'use_bidirectional_attention':'all'}", NOT_HERE,
     "use_bidirectional_attention \"all\""},
    {"gemma4_text", "{'use_bidirectional_attention':'vision'}", OK, NULL},
    /* gated delta nets */
    {"qwen3_next", "{'linear_conv_kernel_dim':3}", NOT_HERE, "linear_conv_kernel_dim 3"},
    {"qwen3_5_text", "{'output_gate_type':'sigmoid'}", NOT_HERE, "$.output_gate_type"},
    {"qwen3_5_text", "{'output_gate_type':'swish'}", OK, NULL},
    {"qwen3_5_text", "{'attn_output_gate':false}", NOT_HERE, "$.attn_output_gate"},
    {"qwen3_5_text", "{'linear_num_value_heads':24}", BAD, "linear_num_value_heads 24"},
    {"qwen3_5_text", "{'linear_value_head_dim':1024}", BAD, "$.linear_value_head_dim"},
    {"qwen3_5_text", "{'full_attention_interval':0}", BAD, "$.full_attention_interval"},
    /* experts */
    {"qwen3_moe", "{'num_experts_per_tok':200}", BAD, "num_experts_per_tok"},
    {"qwen3_moe", "{'num_experts':4}", BAD, "is more than num_experts 4"},
    {"qwen3_moe", "{'num_local_experts':4}", BAD, "is more than num_local_experts 4"},
    {"qwen3_moe", "{'mlp_only_layers':[9]}", BAD, "$.mlp_only_layers[0]"},
    {"qwen3_moe", "{'mlp_only_layers':2}", BAD, "$.mlp_only_layers"},
    {"qwen3_moe", "{'decoder_sparse_step':0}", BAD, "$.decoder_sparse_step"},
    {"qwen3_moe", "{'norm_topk_prob':1}", BAD, "$.norm_topk_prob"},
    {"gemma4_text", "{'enable_moe_block':true}", BAD, "$.num_experts"},
    {"gpt_oss", "{'swiglu_limit':-1}", BAD, "$.swiglu_limit"},
    /* sizes */
    {"llama", "{'hidden_size':null}", BAD, "$.hidden_size"},
    {"llama", "{'num_key_value_heads':3}", BAD, "num_key_value_heads 3"},
    {"llama", "{'num_attention_heads':5,'num_key_value_heads':5}", BAD, "head_dim 12"},
    {"llama", "{'head_dim':15}", BAD, "head_dim 15"},
    {"llama", "{'rms_norm_eps':0}", BAD, "$.rms_norm_eps"},
    {"llama", "{'eos_token_id':300}", BAD, "$.eos_token_id"},
    {"llama", "{'vocab_size':1000000000}", BAD, "$.vocab_size"},
    {"llama", "{'num_hidden_layers':100000}", BAD, "$.num_hidden_layers"},
    {"granite", "{'logits_scaling':0}", BAD, "$.logits_scaling"},
    {"gemma3_text", "{'query_pre_attn_scalar':0}", BAD, "$.query_pre_attn_scalar"},
    {"gemma3_text", "{'sliding_window':0}", BAD, "$.sliding_window"},
    {"gemma4_text", "{'num_kv_shared_layers':6}", BAD, "$.num_kv_shared_layers"},
    {"gemma4_text", "{'num_kv_shared_layers':5}", BAD, "num_kv_shared_layers: layer 5"},
    {"gemma4_text", "{'global_head_dim':511}", BAD, "global_head_dim 511"},
    {"gemma4_text", "{'attention_k_eq_v':true,'num_global_key_value_heads':3}", BAD,
     "num_global_key_value_heads 3"},
    {"gemma4_text", "{'vocab_size_per_layer_input':100}", NOT_HERE, "vocab_size_per_layer_input"},
};

/* Single quotes keep the tables readable. */
static yyjson_doc *read_json(const char *text) {
    struct str json = {0};
    for (const char *p = text; *p; p++) str_add_char(&json, *p == '\'' ? '"' : *p);
    yyjson_doc *doc = yyjson_read(json.data, json.size, 0);
    if (doc == NULL) fail_msg("bad JSON in a table: %s", text);
    str_free(&json);
    return doc;
}

static const char *base_of(const char *family) {
    size_t i = 0, n = sizeof BASES / sizeof *BASES;
    while (i < n && strcmp(BASES[i][0], family) != 0) i++;
    if (i == n) fail_msg("no base for %s", family);
    return BASES[i][1];
}

/* The base of `family` with `change` merged into it. */
static int describe_changed(const char *family, const char *change, struct described *out,
                            struct imp_error *err) {
    yyjson_doc *base = read_json(base_of(family)), *patch = read_json(change);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root =
        yyjson_merge_patch(doc, yyjson_doc_get_root(base), yyjson_doc_get_root(patch));
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "model_type", family);
    size_t bytes;
    char *json = yyjson_mut_write(doc, 0, &bytes);
    *out = (struct described){0};
    int rc = config_parse(json, bytes, "config.json", &out->config, err);
    if (rc == 0) rc = model_describe(&out->config, &out->arena, &out->desc, err);
    free(json);
    yyjson_mut_doc_free(doc);
    yyjson_doc_free(base);
    yyjson_doc_free(patch);
    return rc;
}

static void field_values(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof EDITS / sizeof *EDITS; i++) {
        const struct edit *e = &EDITS[i];
        struct described d;
        struct imp_error err = {0};
        int rc = describe_changed(e->family, e->change, &d, &err);
        if (e->code) {
            expect_refusal(e->change, &err, rc, e->code, e->words);
        } else if (rc < 0) {
            fail_msg("%s: %s: %s: %s", e->family, e->change, err.where, err.message);
        }
        described_free(&d);
    }
}

/* Every family as its class stands where the file says nothing. */
struct class_default {
    const char *family;
    int64_t hidden, vocab;
    int heads, kv_heads, head_dim; /* of the last layer */
    int window;                    /* of the first */
    int experts, top_k;
    double eps;
    bool tied;
    int64_t context;
    int ple_width;
};
static const struct class_default DEFAULTS[] = {
    {"mistral", 4096, 32000, 32, 8, 128, 4096, 0, 0, 1e-6, false, 131072, 0},
    {"ministral3", 4096, 131072, 32, 8, 128, 0, 0, 0, 1e-5, false, 262144, 0},
    {"qwen2", 4096, 151936, 32, 32, 128, 0, 0, 0, 1e-6, false, 32768, 0},
    {"qwen3", 4096, 151936, 32, 32, 128, 0, 0, 0, 1e-6, false, 32768, 0},
    {"qwen3_moe", 2048, 151936, 32, 4, 64, 0, 128, 8, 1e-6, false, 32768, 0},
    {"qwen3_next", 2048, 151936, 16, 2, 256, 0, 512, 10, 1e-6, false, 32768, 0},
    {"qwen3_5_text", 4096, 248320, 16, 4, 256, 0, 0, 0, 1e-6, false, 32768, 0},
    {"qwen3_5_moe_text", 2048, 248320, 16, 2, 256, 0, 256, 8, 1e-6, false, 32768, 0},
    {"gemma3_text", 2304, 262208, 8, 4, 256, 4096, 0, 0, 1e-6, true, 131072, 0},
    {"gemma4_text", 2304, 262144, 8, 4, 512, 512, 0, 0, 1e-6, true, 131072, 256},
    {"gemma4_unified_text", 2304, 262144, 8, 4, 512, 1024, 0, 0, 1e-6, true, 262144, 0},
    {"gpt_oss", 2880, 201088, 64, 8, 64, 128, 128, 4, 1e-5, false, 131072, 0},
};

static void class_defaults(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof DEFAULTS / sizeof *DEFAULTS; i++) {
        const struct class_default *e = &DEFAULTS[i];
        struct described d;
        struct imp_error err = {0};
        if (describe_changed(e->family, "{}", &d, &err) < 0)
            fail_msg("%s: %s", e->family, err.message);
        const struct layer_desc *first = &d.desc.layer[0], *last = &d.desc.layer[d.desc.layers - 1];
        same(e->family, "hidden", d.desc.hidden, e->hidden);
        same(e->family, "vocabulary", d.desc.vocab, e->vocab);
        same(e->family, "heads", last->attention.heads, e->heads);
        same(e->family, "KV heads", last->attention.kv_heads, e->kv_heads);
        same(e->family, "head size", last->attention.head_dim, e->head_dim);
        same(e->family, "window", first->attention.window, e->window);
        same(e->family, "experts", first->moe.experts, e->experts);
        same(e->family, "experts of a token", first->moe.top_k, e->top_k);
        same(e->family, "tied head", d.desc.tied_head, e->tied);
        same(e->family, "context", d.desc.max_context, e->context);
        same(e->family, "per-layer embeddings", d.desc.ple_width, e->ple_width);
        assert_true(d.desc.norm_eps == (float)e->eps);
        described_free(&d);
    }
}

/* A wrapper whose text_config says next to nothing, as the hub has them. */
static void few_fields(void **state) {
    (void)state;
    static const char json[] =
        "{\"model_type\":\"gemma3\",\"eos_token_id\":[1,106],\"text_config\":{"
        "\"model_type\":\"gemma3_text\",\"hidden_size\":2560,\"intermediate_size\":10240,"
        "\"num_hidden_layers\":34,\"sliding_window\":1024,"
        "\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"}}}";
    struct described d = {0};
    assert_int_equal(config_parse(json, sizeof json - 1, "config.json", &d.config, NULL), 0);
    assert_int_equal(model_describe(&d.config, &d.arena, &d.desc, NULL), 0);
    same("wrapper", "parameters", model_desc_parameters(&d.desc), 3880263168);
    same("wrapper", "end tokens", d.desc.eos_count, 2);
    same("wrapper", "first token", d.desc.bos, 2);
    const struct rope_desc *full = &d.desc.ropes[d.desc.layer[5].attention.rope];
    const struct rope_desc *local = &d.desc.ropes[d.desc.layer[0].attention.rope];
    assert_true(d.desc.layer[5].attention.window == 0 && d.desc.layer[4].attention.window == 1024);
    assert_true(full->frequency[0] == 0.125f && local->frequency[0] == 1.0f);
    described_free(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_sizes), cmocka_unit_test(other_families),
        cmocka_unit_test(field_values),    cmocka_unit_test(class_defaults),
        cmocka_unit_test(few_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
