/* qwen3_next, qwen3_5 and qwen3_5_moe (Qwen3.5, Qwen3.6): gated delta nets with a gated attention
 * every fourth layer, norms stored around zero, experts with a shared one.
 * Equations and defaults: transformers models/qwen3_next, models/qwen3_5, models/qwen3_5_moe. */
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "model/families/families.h"

static int read_gdn(const struct config *config, struct gdn_desc *out, struct imp_error *err) {
    int64_t key_heads, value_heads, key_dim, value_dim, kernel;
    int rc;
    if ((rc = config_int(config, "linear_num_key_heads", 1, CAP_HEADS, 16, &key_heads, err)) < 0 ||
        (rc = config_int(config, "linear_num_value_heads", 1, CAP_HEADS, 32, &value_heads, err)) <
            0 ||
        (rc = config_int(config, "linear_key_head_dim", 1, 512, 128, &key_dim, err)) < 0 ||
        (rc = config_int(config, "linear_value_head_dim", 1, 512, 128, &value_dim, err)) < 0 ||
        (rc = config_int(config, "linear_conv_kernel_dim", 1, 64, GDN_CONV, &kernel, err)) < 0 ||
        (rc = config_only_string(config, "output_gate_type", "swish", err)) < 0)
        return rc;
    if (kernel != GDN_CONV)
        return error_set(err, IMP_ERR_UNSUPPORTED, config->path,
                         "linear_conv_kernel_dim %lld: imp has %d", (long long)kernel, GDN_CONV);
    if (value_heads % key_heads != 0)
        return error_set(err, IMP_ERR_FILE, config->path,
                         "linear_num_value_heads %lld is no multiple of linear_num_key_heads %lld",
                         (long long)value_heads, (long long)key_heads);
    out->shape = (struct gdn_shape){(int)key_heads, (int)value_heads, (int)key_dim, (int)value_dim};
    return 0;
}

/* qwen3_next has norm_topk_prob and dense layers; qwen3_5_moe always renormalizes and has experts
 * in every layer. */
static int read_moe(const struct config *config, bool next, struct arena *arena,
                    struct model_desc *out, struct imp_error *err) {
    const struct family_moe_defaults defaults = {"num_experts_per_tok", "moe_intermediate_size",
                                                 next ? 512 : 256, next ? 10 : 8, 512};
    struct moe_desc moe = {.kind = GLU_SILU, .stacked = !next, .shared_gate = true};
    bool *sparse = arena_array(arena, (size_t)out->layers, sizeof *sparse);
    int rc;
    if ((rc = family_experts(config, &defaults, &moe, err)) < 0 ||
        (rc = config_int(config, "shared_expert_intermediate_size", 1, CAP_HIDDEN, 512,
                         &moe.shared_width, err)) < 0)
        return rc;
    for (int i = 0; i < out->layers; i++) sparse[i] = true;
    if (next && ((rc = config_bool(config, "norm_topk_prob", true, &moe.renormalize, err)) < 0 ||
                 (rc = family_sparse_layers(config, out, sparse, err)) < 0))
        return rc;
    for (int i = 0; i < out->layers; i++) {
        if (!sparse[i]) continue;
        out->layer[i].moe = moe;
        out->layer[i].ffn.width = 0;
    }
    return 0;
}

int family_qwen3_next(const struct config *config, struct arena *arena, struct model_desc *out,
                      struct imp_error *err) {
    const bool next = strcmp(out->family, "qwen3_next") == 0;
    const bool dense = strcmp(out->family, "qwen3_5_text") == 0;
    const struct family_defaults defaults = {.vocab = next ? 151936 : 248320,
                                             .hidden = dense ? 4096 : 2048,
                                             .layers = next    ? 48
                                                       : dense ? 32
                                                               : 40,
                                             .heads = 16,
                                             .kv_heads = dense ? 4 : 2,
                                             .head_dim = 256,
                                             .context = 32768,
                                             .eps = 1e-6,
                                             .theta = 10000};
    struct attention_desc attention = {.qk_norm = true, .gate = true};
    struct gdn_desc gdn = {.grouped = next};
    struct ffn_desc ffn = {.kind = GLU_SILU};
    int64_t interval;
    int rc;
    if ((rc = family_common(config, &defaults, arena, out, err)) < 0 ||
        (rc = family_heads(config, &defaults, out, &attention, err)) < 0 ||
        (rc = family_rope(config, arena, attention.head_dim, defaults.theta, 0.25, &out->ropes[0],
                          err)) < 0 ||
        (rc = read_gdn(config, &gdn, err)) < 0 ||
        (rc = config_int(config, "full_attention_interval", 1, CAP_LAYERS, 4, &interval, err)) <
            0 ||
        (rc = config_int(config, "intermediate_size", 1, CAP_HIDDEN, next ? 5632 : 12288,
                         &ffn.width, err)) < 0 ||
        (rc = config_only_bool(config, "attn_output_gate", true, err)) < 0 ||
        (rc = config_only_bool(config, "attention_bias", false, err)) < 0 ||
        (rc = config_only_string(config, "hidden_act", "silu", err)) < 0)
        return rc;
    out->norm_offset = 1.0f;
    out->rope_count = 1;
    enum layer_kind *kind = arena_array(arena, (size_t)out->layers, sizeof *kind);
    for (int i = 0; i < out->layers; i++)
        kind[i] = (i + 1) % interval == 0 ? LAYER_FULL : LAYER_LINEAR;
    rc = family_layer_kinds(config, out, 1u << LAYER_FULL | 1u << LAYER_LINEAR, kind, err);
    if (rc < 0) return rc;
    for (int i = 0; i < out->layers; i++) {
        out->layer[i].ffn = ffn;
        if (kind[i] == LAYER_LINEAR) {
            out->layer[i].mixer = MIXER_GDN;
            out->layer[i].gdn = gdn;
        } else {
            out->layer[i].attention = attention;
        }
    }
    return dense ? 0 : read_moe(config, next, arena, out, err);
}
