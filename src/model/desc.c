#include "model/desc.h"

#include <stdio.h>

int64_t attention_row(const struct attention_desc *a) {
    int64_t q = (int64_t)a->heads * attention_q_step(a), kv = (int64_t)a->kv_heads * a->head_dim;
    if (a->shares_kv) return q;
    return q + (a->v_from_k ? kv : 2 * kv);
}

int model_desc_max_heads(const struct model_desc *desc) {
    int max = 1;
    for (int i = 0; i < desc->layers; i++) {
        if (desc->layer[i].attention.heads > max) max = desc->layer[i].attention.heads;
    }
    return max;
}

int model_desc_max_head_dim(const struct model_desc *desc) {
    int max = 2;
    for (int i = 0; i < desc->layers; i++) {
        if (desc->layer[i].attention.head_dim > max) max = desc->layer[i].attention.head_dim;
    }
    return max;
}

int64_t model_desc_max_cols(const struct model_desc *desc) {
    int64_t max = max64(desc->hidden, desc->ple_width);
    for (int i = 0; i < desc->layers; i++) {
        const struct layer_desc *layer = &desc->layer[i];
        const struct gdn_shape *s = &layer->gdn.shape;
        max = max64(max, layer->mixer == MIXER_GDN
                             ? (int64_t)s->value_heads * s->value_dim
                             : (int64_t)layer->attention.heads * layer->attention.head_dim);
        max = max64(max, max64(layer->ffn.width, layer->moe.width));
        max = max64(max, layer->moe.shared_width);
    }
    return max;
}

static int max_int(int a, int b) {
    return a > b ? a : b;
}

static struct gdn_shape largest_gdn(const struct model_desc *desc) {
    struct gdn_shape most = {0};
    for (int i = 0; i < desc->layers; i++) {
        const struct gdn_shape *s = &desc->layer[i].gdn.shape;
        if (desc->layer[i].mixer != MIXER_GDN) continue;
        most.key_heads = max_int(most.key_heads, s->key_heads);
        most.value_heads = max_int(most.value_heads, s->value_heads);
        most.key_dim = max_int(most.key_dim, s->key_dim);
        most.value_dim = max_int(most.value_dim, s->value_dim);
    }
    return most;
}

void model_desc_limits(const struct model_desc *desc, struct step_limits *out) {
    out->max_cols = model_desc_max_cols(desc);
    out->max_heads = model_desc_max_heads(desc);
    out->max_head_dim = model_desc_max_head_dim(desc);
    out->vocab = desc->vocab;
    out->gdn = largest_gdn(desc);
    out->moe_top_k = 0;
    out->moe_width = out->moe_hidden = 0;
    for (int i = 0; i < desc->layers; i++) {
        const struct moe_desc *m = &desc->layer[i].moe;
        if (m->experts == 0) continue;
        if (m->top_k > out->moe_top_k) out->moe_top_k = m->top_k;
        out->moe_width = max64(out->moe_width, m->width);
        out->moe_hidden = desc->hidden;
    }
}

void module_name(const struct model_desc *desc, enum module module, int layer, char out[128]) {
    static const char *const usual[MODULE_COUNT] = {
        [MODULE_Q] = "self_attn.q_proj",
        [MODULE_K] = "self_attn.k_proj",
        [MODULE_V] = "self_attn.v_proj",
        [MODULE_O] = "self_attn.o_proj",
        [MODULE_GATE] = "mlp.gate_proj",
        [MODULE_UP] = "mlp.up_proj",
        [MODULE_DOWN] = "mlp.down_proj",
        [MODULE_GDN_QKV] = "linear_attn.in_proj_qkv",
        [MODULE_GDN_Z] = "linear_attn.in_proj_z",
        [MODULE_GDN_B] = "linear_attn.in_proj_b",
        [MODULE_GDN_A] = "linear_attn.in_proj_a",
        [MODULE_GDN_OUT] = "linear_attn.out_proj",
        [MODULE_SHARED_GATE] = "mlp.shared_expert.gate_proj",
        [MODULE_SHARED_UP] = "mlp.shared_expert.up_proj",
        [MODULE_SHARED_EXPERT_GATE] = "mlp.shared_expert_gate",
        [MODULE_SHARED_DOWN] = "mlp.shared_expert.down_proj",
        [MODULE_ROUTER] = "mlp.gate",
        [MODULE_EXPERTS] = "mlp.experts",
        [MODULE_EXPERTS_DOWN] = "mlp.experts",
        [MODULE_PLE_GATE] = "per_layer_input_gate",
        [MODULE_PLE_PROJ] = "per_layer_projection",
        [MODULE_GDN_QKVZ] = "linear_attn.in_proj_qkvz",
        [MODULE_GDN_BA] = "linear_attn.in_proj_ba",
        [MODULE_INPUT_NORM] = "input_layernorm.weight",
        [MODULE_FFN_NORM] = "post_attention_layernorm.weight",
        [MODULE_Q_NORM] = "self_attn.q_norm.weight",
        [MODULE_K_NORM] = "self_attn.k_norm.weight",
        [MODULE_SINKS] = "self_attn.sinks",
        [MODULE_GDN_CONV] = "linear_attn.conv1d.weight",
        [MODULE_GDN_DT_BIAS] = "linear_attn.dt_bias",
        [MODULE_GDN_A_LOG] = "linear_attn.A_log",
        [MODULE_GDN_NORM] = "linear_attn.norm.weight",
        [MODULE_PLE_NORM] = "post_per_layer_input_norm.weight",
        [MODULE_LAYER_SCALE] = "layer_scalar",
    };
    const char *name = desc->names && desc->names[module] ? desc->names[module] : usual[module];
    snprintf(out, 128, "model.layers.%d.%s", layer, name);
}
