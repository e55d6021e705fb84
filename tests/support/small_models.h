/* A small model of every family, and checkpoints of random weights made of them. */
#ifndef IMP_TESTS_SUPPORT_SMALL_MODELS_H
#define IMP_TESTS_SUPPORT_SMALL_MODELS_H

#include "load/checkpoint.h"
#include "model/model.h"
#include "support/files.h"

/* Sizes are odd where they may be; rows are whole blocks of both 16 and 32 where they can be. */
#define SIZES "'vocab_size':300,'num_hidden_layers':4,'max_position_embeddings':512,"
#define HEADS "'num_attention_heads':4,'num_key_value_heads':2,'head_dim':16,"
#define GDN                                                                                        \
    "'linear_num_key_heads':2,'linear_num_value_heads':4,'linear_key_head_dim':8,"                 \
    "'linear_value_head_dim':16,"
static const struct family {
    const char *name, *json;
} FAMILIES[] = {
    {"llama", "{'model_type':'llama'," SIZES HEADS "'hidden_size':64,'intermediate_size':96,"
              "'attention_bias':true,'mlp_bias':true}"},
    {"granite", "{'model_type':'granite'," SIZES HEADS "'hidden_size':64,'intermediate_size':96,"
                "'tie_word_embeddings':true,'logits_scaling':8,'residual_multiplier':0.22,"
                "'embedding_multiplier':12}"},
    {"mistral", "{'model_type':'mistral'," SIZES HEADS "'hidden_size':64,'intermediate_size':96,"
                "'sliding_window':32}"},
    {"mistral3", "{'model_type':'mistral3','text_config':{'model_type':'ministral3'," SIZES HEADS
                 "'hidden_size':64,'intermediate_size':96}}"},
    {"qwen2", "{'model_type':'qwen2'," SIZES HEADS "'hidden_size':64,'intermediate_size':96}"},
    {"qwen3", "{'model_type':'qwen3'," SIZES HEADS "'hidden_size':64,'intermediate_size':96}"},
    {"qwen3_moe", "{'model_type':'qwen3_moe'," SIZES HEADS "'hidden_size':64,"
                  "'intermediate_size':96,'num_experts':5,'num_experts_per_tok':2,"
                  "'moe_intermediate_size':32,'mlp_only_layers':[1]}"},
    {"qwen3_next", "{'model_type':'qwen3_next'," SIZES HEADS GDN "'hidden_size':64,"
                   "'num_experts':3,'num_experts_per_tok':2,'moe_intermediate_size':32,"
                   "'shared_expert_intermediate_size':48}"},
    {"qwen3_5", "{'model_type':'qwen3_5','tie_word_embeddings':true,'text_config':{"
                "'model_type':'qwen3_5_text'," SIZES HEADS GDN "'hidden_size':64,"
                "'intermediate_size':96,'mtp_num_hidden_layers':1}}"},
    {"qwen3_5_moe",
     "{'model_type':'qwen3_5_moe','text_config':{'model_type':'qwen3_5_moe_text'," SIZES HEADS GDN
     "'hidden_size':64,'num_experts':3,'num_experts_per_tok':2,"
     "'moe_intermediate_size':32,'shared_expert_intermediate_size':48}}"},
    {"gemma3", "{'model_type':'gemma3','text_config':{'model_type':'gemma3_text'," SIZES HEADS
               "'hidden_size':64,'intermediate_size':96,'sliding_window':32,"
               "'sliding_window_pattern':2}}"},
    {"gemma4", "{'model_type':'gemma4','text_config':{'model_type':'gemma4_text'," SIZES HEADS
               "'hidden_size':64,'intermediate_size':96,'sliding_window':32,'global_head_dim':32,"
               "'hidden_size_per_layer_input':0,'attention_k_eq_v':true,"
               "'num_global_key_value_heads':1,'enable_moe_block':true,'num_experts':5,"
               "'top_k_experts':2,'moe_intermediate_size':32}}"},
    {"gemma4_ple", "{'model_type':'gemma4','text_config':{'model_type':'gemma4_text'," SIZES HEADS
                   "'hidden_size':64,'intermediate_size':96,'sliding_window':32,"
                   "'global_head_dim':32,'hidden_size_per_layer_input':16,"
                   "'vocab_size_per_layer_input':320,'num_kv_shared_layers':2,"
                   "'use_double_wide_mlp':true,'layer_types':['sliding_attention',"
                   "'full_attention','sliding_attention','full_attention']}}"},
    {"gpt_oss", "{'model_type':'gpt_oss'," SIZES HEADS "'hidden_size':64,'intermediate_size':32,"
                "'num_local_experts':5,'num_experts_per_tok':2,'sliding_window':32}"},
};
enum { FAMILY_COUNT = sizeof FAMILIES / sizeof *FAMILIES };

static inline void put_config(const char *folder, const char *json) {
    struct str text = {0};
    for (const char *p = json; *p; p++) str_add_char(&text, *p == '\'' ? '"' : *p);
    put_text(folder, "config.json", text.data);
    str_free(&text);
}

static inline char *within(const char *folder, const char *name) {
    struct str path = {0};
    str_printf(&path, "%s/%s", folder, name);
    return str_take(&path);
}

/* A new folder FOLDER/FORMAT out of FOLDER/config.json. */
static inline char *synth(const char *folder, const char *format, uint32_t threads) {
    char *made = within(folder, format);
    const struct imp_synth_options options = {
        .config = folder, .destination = made, .format = format, .seed = 7, .threads = threads};
    struct imp_error err = {0};
    if (imp_synth(&options, &err) < 0) fail_msg("%s: %s: %s", folder, err.where, err.message);
    return made;
}

static inline void open_checkpoint(const char *folder, struct checkpoint *ck) {
    static const struct log quiet = {0};
    struct imp_error err = {0};
    if (checkpoint_open(folder, true, &quiet, ck, &err) < 0)
        fail_msg("%s: %s: %s", folder, err.where, err.message);
}

static inline struct backend *portable(void) {
    struct backend *be;
    const struct backend_options options = {.kind = BACKEND_CPU, .threads = 1, .isa = "portable"};
    assert_int_equal(backend_open(&options, &be, NULL), 0);
    return be;
}

#endif
