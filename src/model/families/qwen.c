/* qwen2, qwen3 and qwen3_moe: llama with biases on q, k, v (qwen2) or norms of q and k per head
 * (qwen3), and experts in place of the ffn (qwen3_moe).
 * Equations and defaults: transformers models/qwen2, models/qwen3, models/qwen3_moe. */
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "model/families/families.h"

/* A window that use_sliding_window turns on: qwen3_moe's on every layer, else from
 * max_window_layers on. */
static int read_windows(const struct config *config, bool moe, struct arena *arena,
                        struct model_desc *out, struct imp_error *err) {
    int64_t window, first;
    bool used;
    int rc;
    if ((rc = config_bool(config, "use_sliding_window", false, &used, err)) < 0 ||
        (rc = config_int(config, "sliding_window", 1, CAP_CONTEXT, 4096, &window, err)) < 0 ||
        (rc = config_int(config, "max_window_layers", 0, CAP_LAYERS, moe ? 0 : 28, &first, err)) <
            0)
        return rc;
    if (config_is_null(config, "sliding_window")) used = false;
    enum layer_kind *kind = arena_array(arena, (size_t)out->layers, sizeof *kind);
    for (int i = 0; i < out->layers; i++)
        kind[i] = used && i >= (moe ? 0 : first) ? LAYER_SLIDING : LAYER_FULL;
    rc = family_layer_kinds(config, out, 1u << LAYER_FULL | 1u << LAYER_SLIDING, kind, err);
    for (int i = 0; i < out->layers && rc == 0; i++) {
        if (kind[i] == LAYER_SLIDING && !used)
            return error_set(err, IMP_ERR_FILE, config->path,
                             "$.layer_types[%d] is sliding_attention, but use_sliding_window is "
                             "not set",
                             i);
        if (kind[i] == LAYER_SLIDING) out->layer[i].attention.window = (int)window;
    }
    return rc;
}

static int read_moe(const struct config *config, struct arena *arena, struct model_desc *out,
                    struct imp_error *err) {
    static const struct family_moe_defaults defaults = {"num_experts_per_tok",
                                                        "moe_intermediate_size", 128, 8, 768};
    struct moe_desc moe = {.kind = GLU_SILU};
    bool *sparse = arena_array(arena, (size_t)out->layers, sizeof *sparse);
    int rc;
    if ((rc = family_experts(config, &defaults, &moe, err)) < 0 ||
        (rc = config_bool(config, "norm_topk_prob", false, &moe.renormalize, err)) < 0 ||
        (rc = family_sparse_layers(config, out, sparse, err)) < 0)
        return rc;
    for (int i = 0; i < out->layers; i++) {
        if (!sparse[i]) continue;
        out->layer[i].moe = moe;
        out->layer[i].ffn.width = 0;
    }
    return 0;
}

int family_qwen(const struct config *config, struct arena *arena, struct model_desc *out,
                struct imp_error *err) {
    const bool two = strcmp(out->family, "qwen2") == 0, moe = strcmp(out->family, "qwen3_moe") == 0;
    const struct family_defaults defaults = {.vocab = 151936,
                                             .hidden = moe ? 2048 : 4096,
                                             .layers = moe ? 24 : 32,
                                             .heads = 32,
                                             .kv_heads = moe ? 4 : 32,
                                             .head_dim = two || moe ? 0 : 128,
                                             .context = 32768,
                                             .eps = 1e-6,
                                             .theta = 10000};
    struct attention_desc attention = {.qk_norm = !two};
    struct ffn_desc ffn = {.kind = GLU_SILU};
    bool bias = false;
    int rc;
    if ((rc = family_common(config, &defaults, arena, out, err)) < 0 ||
        (rc = family_heads(config, &defaults, out, &attention, err)) < 0 ||
        (rc = family_rope(config, arena, attention.head_dim, defaults.theta, 1, &out->ropes[0],
                          err)) < 0 ||
        (rc = config_int(config, "intermediate_size", 1, CAP_HIDDEN, moe ? 6144 : 22016, &ffn.width,
                         err)) < 0 ||
        (rc = config_only_string(config, "hidden_act", "silu", err)) < 0)
        return rc;
    if (!two && (rc = config_bool(config, "attention_bias", false, &bias, err)) < 0) return rc;
    attention.qkv_bias = two || bias;
    attention.out_bias = bias;
    out->rope_count = 1;
    for (int i = 0; i < out->layers; i++)
        out->layer[i] = (struct layer_desc){.attention = attention, .ffn = ffn};
    if ((rc = read_windows(config, moe, arena, out, err)) < 0) return rc;
    return moe ? read_moe(config, arena, out, err) : 0;
}
