/* gemma4_text (26B-A4B, 31B, E2B, E4B) and gemma4_unified_text (12B): plain norms before and after
 * mixer and ffn, q and k norms in place of a score scale, v normed, wider heads in full layers, and
 * by size: experts beside the dense ffn, layers that read an earlier layer's KV, per-layer
 * embeddings. Equations and defaults: transformers models/gemma4. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "model/families/families.h"
#include "num/fp.h"

static const char *const NAMES[MODULE_COUNT] = {
    [MODULE_MIXER_POST_NORM] = "post_attention_layernorm.weight",
    [MODULE_FFN_NORM] = "pre_feedforward_layernorm.weight",
    [MODULE_FFN_POST_NORM] = "post_feedforward_layernorm.weight",
    [MODULE_DENSE_POST_NORM] = "post_feedforward_layernorm_1.weight",
    [MODULE_MOE_NORM] = "pre_feedforward_layernorm_2.weight",
    [MODULE_MOE_POST_NORM] = "post_feedforward_layernorm_2.weight",
    [MODULE_ROUTER] = "router.proj",
    [MODULE_ROUTER_SCALE] = "router.scale",
    [MODULE_EXPERT_SCALE] = "router.per_expert_scale",
    [MODULE_EXPERTS] = "experts",
};
enum { ROPE_FULL, ROPE_SLIDING };

struct gemma4 {
    enum layer_kind *kind; /* [layers] */
    struct attention_desc full, sliding;
    struct ffn_desc ffn;
    struct moe_desc moe;
    int own_kv; /* layers from here on read the KV of an earlier one */
    bool double_wide;
};

/* Which layers see everything: every sixth, or as the file says, and always the last. */
static int read_kinds(const struct config *config, const struct model_desc *desc,
                      enum layer_kind *kind, struct imp_error *err) {
    for (int i = 0; i < desc->layers; i++) kind[i] = (i + 1) % 6 == 0 ? LAYER_FULL : LAYER_SLIDING;
    int rc = family_layer_kinds(config, desc, 1u << LAYER_FULL | 1u << LAYER_SLIDING, kind, err);
    kind[desc->layers - 1] = LAYER_FULL; /* whatever the file says */
    return rc;
}

/* What newer files have in place of global_head_dim: {"5": {"head_dim": 512,
 * "num_key_value_heads": 2}, ...}. Every full layer must have the same, and no other any. */
static int read_overrides(const struct config *config, yyjson_val *layers,
                          const struct model_desc *desc, struct gemma4 *g, int64_t *dim,
                          int64_t *kv_heads, struct imp_error *err) {
    int64_t full = 0, listed = 0;
    for (int i = 0; i < desc->layers; i++) {
        char name[16], path[64];
        int64_t d, n;
        int rc;
        snprintf(name, sizeof name, "%d", i);
        snprintf(path, sizeof path, "$.per_layer_config.%d", i);
        yyjson_val *entry = yyjson_obj_get(layers, name);
        full += g->kind[i] == LAYER_FULL;
        if (entry == NULL) continue;
        if ((rc = config_member_int(entry, path, "head_dim", 2, 1024, g->sliding.head_dim, &d,
                                    err)) < 0 ||
            (rc = config_member_int(entry, path, "num_key_value_heads", 1, g->sliding.heads,
                                    g->sliding.kv_heads, &n, err)) < 0)
            return rc;
        if (g->kind[i] != LAYER_FULL || (listed > 0 && (d != *dim || n != *kv_heads)))
            return error_set(err, IMP_ERR_UNSUPPORTED, config->path,
                             "%s: only full_attention layers may differ, all in one way", path);
        *dim = d;
        *kv_heads = n;
        listed++;
    }
    if (listed == full || listed == 0) return 0;
    return error_set(err, IMP_ERR_UNSUPPORTED, config->path,
                     "$.per_layer_config names %lld of %lld full_attention layers",
                     (long long)listed, (long long)full);
}

static int read_full_heads(const struct config *config, const struct model_desc *desc, bool k_is_v,
                           struct gemma4 *g, struct imp_error *err) {
    yyjson_val *layers = config_get(config, "per_layer_config");
    int64_t dim = g->sliding.head_dim, kv_heads = g->sliding.kv_heads;
    int rc;
    if (layers) {
        rc = read_overrides(config, layers, desc, g, &dim, &kv_heads, err);
    } else if ((rc = config_int(config, "global_head_dim", 2, 1024, 512, &dim, err)) == 0 &&
               k_is_v) {
        rc = config_int(config, "num_global_key_value_heads", 1, g->sliding.heads, kv_heads,
                        &kv_heads, err);
    }
    if (rc < 0) return rc;
    if (dim % 2 != 0 || g->sliding.heads % kv_heads != 0)
        return error_set(err, IMP_ERR_FILE, config->path,
                         "global_head_dim %lld must be even, num_global_key_value_heads %lld "
                         "divide num_attention_heads %d",
                         (long long)dim, (long long)kv_heads, g->sliding.heads);
    g->full.head_dim = (int)dim;
    g->full.kv_heads = (int)kv_heads;
    return 0;
}

static int read_attention(const struct config *config, const struct family_defaults *defaults,
                          struct arena *arena, struct model_desc *out, struct gemma4 *g,
                          struct imp_error *err) {
    yyjson_val *ropes = config_get(config, "rope_parameters");
    int64_t window;
    bool k_is_v;
    int rc;
    if ((rc = family_heads(config, defaults, out, &g->sliding, err)) < 0 ||
        (rc = read_kinds(config, out, g->kind, err)) < 0 ||
        (rc = config_int(config, "sliding_window", 1, CAP_CONTEXT,
                         strcmp(out->family, "gemma4_text") == 0 ? 512 : 1024, &window, err)) < 0 ||
        (rc = config_bool(config, "attention_k_eq_v", false, &k_is_v, err)) < 0)
        return rc;
    g->sliding.q_scale = 1.0f;
    g->sliding.qk_norm = g->sliding.v_norm = true;
    g->full = g->sliding;
    if ((rc = read_full_heads(config, out, k_is_v, g, err)) < 0) return rc;
    g->full.v_from_k = k_is_v;
    g->full.rope = ROPE_FULL;
    g->sliding.rope = ROPE_SLIDING;
    g->sliding.window = (int)window;
    out->rope_count = 2;
    rc = family_rope_of(config, yyjson_obj_get(ropes, "sliding_attention"),
                        "$.rope_parameters.sliding_attention", arena, g->sliding.head_dim, 10000, 1,
                        &out->ropes[ROPE_SLIDING], err);
    if (rc < 0) return rc;
    static const char json[] = "{\"rope_type\":\"proportional\",\"rope_theta\":1e6,"
                               "\"partial_rotary_factor\":0.25}";
    if (ropes == NULL)
        return family_rope_default(config, json, arena, g->full.head_dim, 1e6,
                                   &out->ropes[ROPE_FULL], err);
    return family_rope_of(config, yyjson_obj_get(ropes, "full_attention"),
                          "$.rope_parameters.full_attention", arena, g->full.head_dim, 1e6, 1,
                          &out->ropes[ROPE_FULL], err);
}

static int read_ffn(const struct config *config, const struct model_desc *desc, struct gemma4 *g,
                    struct imp_error *err) {
    static const struct family_moe_defaults defaults = {"top_k_experts", "moe_intermediate_size", 0,
                                                        0, 0};
    int64_t shared;
    bool experts;
    int rc;
    g->ffn.kind = g->moe.kind = GLU_GELU_TANH;
    if ((rc = config_int(config, "intermediate_size", 1, CAP_HIDDEN, 9216, &g->ffn.width, err)) <
            0 ||
        (rc = config_int(config, "num_kv_shared_layers", 0, desc->layers - 1, 0, &shared, err)) <
            0 ||
        (rc = config_bool(config, "use_double_wide_mlp", false, &g->double_wide, err)) < 0 ||
        (rc = config_bool(config, "enable_moe_block", false, &experts, err)) < 0)
        return rc;
    g->own_kv = desc->layers - (int)shared;
    if (!experts) return 0;
    if ((rc = family_experts(config, &defaults, &g->moe, err)) < 0) return rc;
    g->moe.router_norm = g->moe.expert_scale = g->moe.stacked = true;
    return 0;
}

static int read_ple(const struct config *config, struct model_desc *out, struct imp_error *err) {
    const bool unified = strcmp(out->family, "gemma4_unified_text") == 0;
    int rc;
    if ((rc = config_int(config, "hidden_size_per_layer_input", 0, CAP_HIDDEN, unified ? 0 : 256,
                         &out->ple_width, err)) < 0 ||
        (rc = config_int(config, "vocab_size_per_layer_input", 1, CAP_VOCAB, 262144,
                         &out->ple_vocab, err)) < 0)
        return rc;
    out->ple_scale = bf16_round((float)sqrt((double)out->ple_width));
    if (out->ple_width && out->ple_vocab < out->vocab)
        return error_set(err, IMP_ERR_UNSUPPORTED, config->path,
                         "vocab_size_per_layer_input %lld is less than vocab_size %lld",
                         (long long)out->ple_vocab, (long long)out->vocab);
    return 0;
}

/* The last layer of the same kind among those with KV of their own. */
static int kv_source(const enum layer_kind *kind, int own_kv, int layer) {
    if (layer < own_kv) return layer;
    int i = own_kv - 1;
    while (i >= 0 && kind[i] != kind[layer]) i--;
    return i;
}

static int make_layers(const struct config *config, const struct gemma4 *g, struct model_desc *out,
                       struct imp_error *err) {
    const enum layer_kind *kind = g->kind;
    for (int i = 0; i < out->layers; i++) {
        struct layer_desc *layer = &out->layer[i];
        const int source = kv_source(kind, g->own_kv, i);
        if (source < 0)
            return error_set(err, IMP_ERR_FILE, config->path,
                             "num_kv_shared_layers: layer %d has no earlier layer of its kind "
                             "to share with",
                             i);
        *layer = (struct layer_desc){.attention = kind[i] == LAYER_FULL ? g->full : g->sliding,
                                     .ffn = g->ffn,
                                     .moe = g->moe};
        layer->attention.shares_kv = source != i;
        layer->attention.kv_layer = source;
        if (g->double_wide && i >= g->own_kv) layer->ffn.width *= 2;
    }
    return 0;
}

int family_gemma4(const struct config *config, struct arena *arena, struct model_desc *out,
                  struct imp_error *err) {
    const bool text = strcmp(out->family, "gemma4_text") == 0;
    const struct family_defaults defaults = {.vocab = 262144,
                                             .hidden = 2304,
                                             .layers = 30,
                                             .heads = 8,
                                             .kv_heads = 4,
                                             .head_dim = 256,
                                             .context = text ? 131072 : 262144,
                                             .eps = 1e-6,
                                             .tied = true,
                                             .bos = 2};
    struct gemma4 g = {0};
    double softcap;
    const char *bidirectional;
    int rc;
    if ((rc = family_common(config, &defaults, arena, out, err)) < 0) return rc;
    g.kind = arena_array(arena, (size_t)out->layers, sizeof *g.kind);
    if ((rc = read_attention(config, &defaults, arena, out, &g, err)) < 0 ||
        (rc = read_ffn(config, out, &g, err)) < 0 || (rc = read_ple(config, out, err)) < 0 ||
        (rc = config_float(config, "final_logit_softcapping", 1e-3, 1e6, 0, &softcap, err)) < 0 ||
        (rc = config_string(config, "use_bidirectional_attention", "vision", &bidirectional, err)) <
            0 ||
        (rc = config_only_bool(config, "attention_bias", false, err)) < 0 ||
        (rc = config_only_string(config, "hidden_activation", "gelu_pytorch_tanh", err)) < 0)
        return rc;
    if (strcmp(bidirectional, "vision") != 0) /* of images only: text is causal */
        return error_set(err, IMP_ERR_UNSUPPORTED, config->path,
                         "use_bidirectional_attention \"%s\"", bidirectional);
    out->logit_softcap = (float)softcap;
    /* A BF16 number, as the trained models multiply by. */
    out->embed_scale = bf16_round((float)sqrt((double)out->hidden));
    out->post_norms = out->layer_scale = true;
    out->names = NAMES;
    return make_layers(config, &g, out, err);
}
