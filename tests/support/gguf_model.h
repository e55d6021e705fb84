/* A whole small model as a GGUF file: two layers, hidden 8, two query heads of 4 and one key head,
 * width 16, 16 tokens. Value i of a tensor of F32 is (place in the file) * 1000 + i. */
#ifndef IMP_TESTS_SUPPORT_GGUF_MODEL_H
#define IMP_TESTS_SUPPORT_GGUF_MODEL_H

#include <stdio.h>

#include "support/gguf.h"

enum {
    MODEL_HIDDEN = 8,
    MODEL_HEAD = 4,
    MODEL_HEADS = 2,
    MODEL_WIDTH = 16,
    MODEL_VOCAB = 16,
    MODEL_LAYERS = 2,
    MODEL_EXPERTS = 8 /* at most */
};

static const char *const MODEL_BPE[MODEL_VOCAB] = {"a",
                                                   "b",
                                                   "c",
                                                   "1",
                                                   "2",
                                                   "\xC4\xA0",
                                                   "ab",
                                                   "abc",
                                                   "\xC4\xA0"
                                                   "a",
                                                   "<|end|>",
                                                   "!",
                                                   "d",
                                                   "e",
                                                   "f",
                                                   "g",
                                                   "[PAD15]"};
static const char *const MODEL_MERGES[] = {"a b", "ab c", "\xC4\xA0 a"};
static const char *const MODEL_SPM[MODEL_VOCAB] = {"<unk>",
                                                   "<s>",
                                                   "</s>",
                                                   "<0x0A>",
                                                   "\xE2\x96\x81"
                                                   "ab",
                                                   "ab",
                                                   "\xE2\x96\x81"
                                                   "a",
                                                   "bc",
                                                   "\xE2\x96\x81",
                                                   "a",
                                                   "b",
                                                   "c",
                                                   "d",
                                                   "e",
                                                   "f",
                                                   "g"};

struct model_options {
    const char *architecture, *tokenizer; /* "gpt2" or "llama" */
    const char *pre, *template;           /* NULL: none */
    bool bias, out_bias, qk_norm, untied;
    bool gemma;  /* norms behind mixer and ffn, a window */
    int experts; /* in place of the ffn; 0: none */
};

static inline void model_number(struct gguf_maker *m, const char *arch, const char *suffix,
                                uint32_t value) {
    char key[100];
    snprintf(key, sizeof key, "%s.%s", arch, suffix);
    put_u32(m, key, value);
}

static inline void model_keys(struct gguf_maker *m, const struct model_options *o) {
    char key[100];
    put_text_key(m, "general.architecture", o->architecture);
    model_number(m, o->architecture, "block_count", MODEL_LAYERS);
    model_number(m, o->architecture, "context_length", 64);
    model_number(m, o->architecture, "embedding_length", MODEL_HIDDEN);
    model_number(m, o->architecture, "feed_forward_length", MODEL_WIDTH);
    model_number(m, o->architecture, "attention.head_count", MODEL_HEADS);
    model_number(m, o->architecture, "attention.head_count_kv", 1);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", o->architecture);
    put_f32(m, key, 1e-5f);
    snprintf(key, sizeof key, "%s.rope.freq_base", o->architecture);
    put_f32(m, key, 1e6f);
    if (o->gemma) model_number(m, o->architecture, "attention.sliding_window", 32);
    if (o->experts == 0) return;
    model_number(m, o->architecture, "expert_count", (uint32_t)o->experts);
    model_number(m, o->architecture, "expert_used_count", 1);
    model_number(m, o->architecture, "expert_feed_forward_length", MODEL_HEAD);
}

static inline void model_tokenizer(struct gguf_maker *m, const struct model_options *o) {
    bool bpe = strcmp(o->tokenizer, "gpt2") == 0;
    put_text_key(m, "tokenizer.ggml.model", o->tokenizer);
    if (o->pre) put_text_key(m, "tokenizer.ggml.pre", o->pre);
    put_strings(m, "tokenizer.ggml.tokens", bpe ? MODEL_BPE : MODEL_SPM, MODEL_VOCAB);
    struct str *s = put_array(m, "tokenizer.ggml.token_type", PUT_I32, MODEL_VOCAB);
    static const uint8_t bpe_types[MODEL_VOCAB] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 5};
    static const uint8_t spm_types[MODEL_VOCAB] = {2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    for (int i = 0; i < MODEL_VOCAB; i++) put_le(s, (bpe ? bpe_types : spm_types)[i], 4);
    if (bpe) {
        put_strings(m, "tokenizer.ggml.merges", MODEL_MERGES, 3);
        put_u32(m, "tokenizer.ggml.eos_token_id", 9);
    } else {
        s = put_array(m, "tokenizer.ggml.scores", PUT_F32, MODEL_VOCAB);
        for (int i = 0; i < MODEL_VOCAB; i++) {
            float score = -(float)i;
            uint32_t bits;
            memcpy(&bits, &score, 4);
            put_le(s, bits, 4);
        }
        put_u32(m, "tokenizer.ggml.bos_token_id", 1);
        put_u32(m, "tokenizer.ggml.eos_token_id", 2);
        put_u32(m, "tokenizer.ggml.unknown_token_id", 0);
    }
    if (o->template) put_text_key(m, "tokenizer.chat_template", o->template);
}

static inline void model_tensor(struct gguf_maker *m, const char *name, uint64_t cols,
                                uint64_t rows) {
    float values[MODEL_WIDTH * MODEL_VOCAB];
    size_t count = (size_t)(cols * (rows ? rows : 1));
    for (size_t i = 0; i < count; i++) values[i] = (float)(m->tensor_count * 1000 + i);
    put_tensor(m, name, cols, rows, GGUF_F32, values, 4 * count);
}

/* Experts of width MODEL_HEAD. */
static inline void model_experts(struct gguf_maker *m, int experts, int layer) {
    enum { H = MODEL_HIDDEN, I = MODEL_HEAD };
    static const char *const names[] = {"gate", "up", "down"};
    float values[H * I * MODEL_EXPERTS];
    for (int n = 0; n < 3; n++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", layer, names[n]);
        size_t count = (size_t)(H * I * experts);
        for (size_t i = 0; i < count; i++) values[i] = (float)(m->tensor_count * 1000 + i);
        put_stack(m, name, n == 2 ? I : H, n == 2 ? H : I, (uint64_t)experts, GGUF_F32, values,
                  4 * count);
    }
}

static inline void model_layer(struct gguf_maker *m, const struct model_options *o, int layer) {
    enum { H = MODEL_HIDDEN, W = MODEL_WIDTH, D = MODEL_HEAD };
    const struct {
        const char *name;
        uint64_t cols, rows;
        bool wanted;
    } tensors[] = {
        {"attn_norm.weight", H, 0, true},
        {"attn_q.weight", H, H, true},
        {"attn_k.weight", H, D, true},
        {"attn_v.weight", H, D, true},
        {"attn_output.weight", H, H, true},
        {"ffn_norm.weight", H, 0, true},
        {"ffn_gate.weight", H, W, o->experts == 0},
        {"ffn_up.weight", H, W, o->experts == 0},
        {"ffn_down.weight", W, H, o->experts == 0},
        {"ffn_gate_inp.weight", H, (uint64_t)o->experts, o->experts > 0},
        {"post_attention_norm.weight", H, 0, o->gemma},
        {"post_ffw_norm.weight", H, 0, o->gemma},
        {"attn_q.bias", H, 0, o->bias},
        {"attn_k.bias", D, 0, o->bias},
        {"attn_v.bias", D, 0, o->bias},
        {"attn_output.bias", H, 0, o->out_bias},
        {"attn_q_norm.weight", D, 0, o->qk_norm},
        {"attn_k_norm.weight", D, 0, o->qk_norm},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s", layer, tensors[i].name);
        if (tensors[i].wanted) model_tensor(m, name, tensors[i].cols, tensors[i].rows);
    }
    if (o->experts) model_experts(m, o->experts, layer);
}

static inline struct gguf_maker model_make(const struct model_options *o) {
    struct gguf_maker m = {0};
    model_keys(&m, o);
    model_tokenizer(&m, o);
    model_tensor(&m, "token_embd.weight", MODEL_HIDDEN, MODEL_VOCAB);
    for (int layer = 0; layer < MODEL_LAYERS; layer++) model_layer(&m, o, layer);
    model_tensor(&m, "output_norm.weight", MODEL_HIDDEN, 0);
    if (o->untied) model_tensor(&m, "output.weight", MODEL_HIDDEN, MODEL_VOCAB);
    return m;
}

#endif
