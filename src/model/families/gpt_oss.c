/* gpt_oss: biases on every linear, sinks, windows in every second layer, experts with a clamped
 * GLU. Equations and defaults: transformers models/gpt_oss. */
#include "base/caps.h"
#include "base/error.h"
#include "model/families/families.h"

static const char *const NAMES[MODULE_COUNT] = {[MODULE_ROUTER] = "mlp.router"};

static int read_rope(const struct config *config, struct arena *arena, int head_dim,
                     struct rope_desc *out, struct imp_error *err) {
    static const char json[] =
        "{\"rope_type\":\"yarn\",\"factor\":32,\"beta_fast\":32,\"beta_slow\":1,"
        "\"truncate\":false,\"original_max_position_embeddings\":4096}";
    if (config_get(config, "rope_parameters") || config_get(config, "rope_scaling"))
        return family_rope(config, arena, head_dim, 150000, 1, out, err);
    double theta;
    int rc = config_float(config, "rope_theta", 1, 1e12, 150000, &theta, err);
    if (rc < 0) return rc;
    return family_rope_default(config, json, arena, head_dim, theta, out, err);
}

int family_gpt_oss(const struct config *config, struct arena *arena, struct model_desc *out,
                   struct imp_error *err) {
    static const struct family_defaults defaults = {.vocab = 201088,
                                                    .hidden = 2880,
                                                    .layers = 36,
                                                    .heads = 64,
                                                    .kv_heads = 8,
                                                    .head_dim = 64,
                                                    .context = 131072,
                                                    .eps = 1e-5};
    const struct family_moe_defaults moe_defaults = {
        config_get(config, "num_experts_per_tok") ? "num_experts_per_tok" : "experts_per_token",
        "intermediate_size", 128, 4, 2880};
    struct attention_desc attention = {.sinks = true};
    struct moe_desc moe = {
        .kind = GLU_CLAMPED, .layout = EXPERTS_GPT_OSS, .stacked = true, .router_bias = true};
    double limit;
    int64_t window;
    int rc;
    if ((rc = family_common(config, &defaults, arena, out, err)) < 0 ||
        (rc = family_heads(config, &defaults, out, &attention, err)) < 0 ||
        (rc = read_rope(config, arena, attention.head_dim, &out->ropes[0], err)) < 0 ||
        (rc = family_experts(config, &moe_defaults, &moe, err)) < 0 ||
        (rc = config_float(config, "swiglu_limit", 1e-3, 1e6, 7, &limit, err)) < 0 ||
        (rc = config_int(config, "sliding_window", 1, CAP_CONTEXT, 128, &window, err)) < 0 ||
        (rc = config_bool(config, "attention_bias", true, &attention.qkv_bias, err)) < 0 ||
        (rc = config_only_string(config, "hidden_act", "silu", err)) < 0)
        return rc;
    attention.out_bias = attention.qkv_bias;
    moe.limit = (float)limit;
    out->rope_count = 1;
    out->names = NAMES;
    enum layer_kind *kind = arena_array(arena, (size_t)out->layers, sizeof *kind);
    for (int i = 0; i < out->layers; i++) kind[i] = i % 2 == 0 ? LAYER_SLIDING : LAYER_FULL;
    rc = family_layer_kinds(config, out, 1u << LAYER_FULL | 1u << LAYER_SLIDING, kind, err);
    for (int i = 0; i < out->layers && rc == 0; i++) {
        attention.window = kind[i] == LAYER_SLIDING ? (int)window : 0;
        out->layer[i] = (struct layer_desc){.attention = attention, .moe = moe};
    }
    return rc;
}
