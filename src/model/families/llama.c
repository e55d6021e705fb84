/* llama: Llama 2 and 3, SmolLM2. Pre-norm decoder, RMS norms, rotate-half rope, SiLU GLU.
 * Equations and defaults: transformers models/llama. */
#include "base/caps.h"
#include "base/error.h"
#include "model/families/families.h"

int family_llama(const struct config *config, struct arena *arena, struct model_desc *out,
                 struct imp_error *err) {
    static const struct family_defaults defaults = {.context = 2048, .eps = 1e-6, .theta = 10000};
    struct attention_desc attention = {0};
    struct ffn_desc ffn = {.kind = GLU_SILU};
    bool bias;
    int rc;
    if ((rc = family_common(config, &defaults, arena, out, err)) < 0 ||
        (rc = family_heads(config, &defaults, out, &attention, err)) < 0 ||
        (rc = family_rope(config, arena, attention.head_dim, defaults.theta, 1, &out->ropes[0],
                          err)) < 0 ||
        (rc = config_required_int(config, "intermediate_size", 1, CAP_HIDDEN, &ffn.width, err)) <
            0 ||
        (rc = config_bool(config, "attention_bias", false, &bias, err)) < 0 ||
        (rc = config_bool(config, "mlp_bias", false, &ffn.bias, err)) < 0 ||
        (rc = config_only_string(config, "hidden_act", "silu", err)) < 0)
        return rc;
    attention.qkv_bias = attention.out_bias = bias;
    out->rope_count = 1;
    for (int i = 0; i < out->layers; i++)
        out->layer[i] = (struct layer_desc){.attention = attention, .ffn = ffn};
    return 0;
}
