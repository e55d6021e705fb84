#include "model/desc.h"

#include <stdio.h>

static int64_t attention_parameters(const struct model_desc *desc, const struct attention_desc *a) {
    int64_t q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim;
    int64_t n = desc->hidden * (2 * q + 2 * kv);
    if (a->qkv_bias) n += q + 2 * kv;
    if (a->out_bias) n += desc->hidden;
    if (a->qk_norm) n += 2 * a->head_dim;
    return n;
}

int64_t model_desc_parameters(const struct model_desc *desc) {
    int64_t n = desc->vocab * desc->hidden * (desc->tied_head ? 1 : 2) + desc->hidden;
    for (int i = 0; i < desc->layers; i++) {
        const struct layer_desc *layer = &desc->layer[i];
        n += attention_parameters(desc, &layer->attention) + 2 * desc->hidden;
        n += 3 * desc->hidden * layer->ffn.width;
        if (layer->ffn.bias) n += 2 * layer->ffn.width + desc->hidden;
    }
    return n;
}

int model_desc_max_heads(const struct model_desc *desc) {
    int max = 0;
    for (int i = 0; i < desc->layers; i++) {
        if (desc->layer[i].attention.heads > max) max = desc->layer[i].attention.heads;
    }
    return max;
}

int model_desc_max_head_dim(const struct model_desc *desc) {
    int max = 0;
    for (int i = 0; i < desc->layers; i++) {
        if (desc->layer[i].attention.head_dim > max) max = desc->layer[i].attention.head_dim;
    }
    return max;
}

int64_t model_desc_max_cols(const struct model_desc *desc) {
    int64_t max = desc->hidden;
    for (int i = 0; i < desc->layers; i++) {
        const struct attention_desc *a = &desc->layer[i].attention;
        if ((int64_t)a->heads * a->head_dim > max) max = (int64_t)a->heads * a->head_dim;
        if (desc->layer[i].ffn.width > max) max = desc->layer[i].ffn.width;
    }
    return max;
}

void module_name(enum module module, int layer, char out[128]) {
    static const char *const names[MODULE_COUNT] = {
        [MODULE_Q] = "self_attn.q_proj",
        [MODULE_K] = "self_attn.k_proj",
        [MODULE_V] = "self_attn.v_proj",
        [MODULE_O] = "self_attn.o_proj",
        [MODULE_GATE] = "mlp.gate_proj",
        [MODULE_UP] = "mlp.up_proj",
        [MODULE_DOWN] = "mlp.down_proj",
        [MODULE_INPUT_NORM] = "input_layernorm",
        [MODULE_POST_NORM] = "post_attention_layernorm",
        [MODULE_Q_NORM] = "self_attn.q_norm",
        [MODULE_K_NORM] = "self_attn.k_norm",
    };
    snprintf(out, 128, "model.layers.%d.%s", layer, names[module]);
}
