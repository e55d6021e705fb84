/* mistral and ministral3: llama's equations without biases, a window over every layer where one is
 * set, and for ministral3 a factor on q that grows with the position.
 * Equations and defaults: transformers models/mistral, models/ministral3. */
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "model/families/families.h"

static int read_window(const struct config *config, bool ministral, int64_t *out,
                       struct imp_error *err) {
    const int64_t absent = ministral || config_is_null(config, "sliding_window") ? 0 : 4096;
    return config_int(config, "sliding_window", 1, CAP_CONTEXT, absent, out, err);
}

static int read_growth(const struct config *config, struct attention_desc *out,
                       struct imp_error *err) {
    yyjson_val *rope = config_get(config, "rope_parameters");
    double beta = 0;
    int64_t tokens = 16384;
    int rc = 0;
    if (rope == NULL) {
        beta = 0.1;
    } else if ((rc = config_member_float(rope, "$.rope_parameters", "llama_4_scaling_beta", 0, 1e3,
                                         0, &beta, err)) < 0 ||
               (rc =
                    config_member_int(rope, "$.rope_parameters", "original_max_position_embeddings",
                                      1, CAP_CONTEXT, tokens, &tokens, err)) < 0) {
        return rc;
    }
    out->q_growth = (float)beta;
    out->q_growth_tokens = (float)tokens;
    return 0;
}

/* ministral3's own rope where the file has none. */
static const char MINISTRAL_ROPE[] =
    "{\"rope_type\":\"yarn\",\"rope_theta\":1e6,\"factor\":16,"
    "\"original_max_position_embeddings\":16384,\"beta_fast\":32,\"beta_slow\":1,"
    "\"mscale\":1,\"mscale_all_dim\":1}";

int family_mistral(const struct config *config, struct arena *arena, struct model_desc *out,
                   struct imp_error *err) {
    const bool ministral = strcmp(out->family, "ministral3") == 0;
    const struct family_defaults defaults = {.vocab = ministral ? 131072 : 32000,
                                             .hidden = 4096,
                                             .layers = ministral ? 34 : 32,
                                             .heads = 32,
                                             .kv_heads = 8,
                                             .head_dim = ministral ? 128 : 0,
                                             .context = ministral ? 262144 : 131072,
                                             .eps = ministral ? 1e-5 : 1e-6,
                                             .theta = 10000,
                                             .bos = 1};
    struct attention_desc attention = {0};
    struct ffn_desc ffn = {.kind = GLU_SILU};
    int64_t window;
    int rc;
    if ((rc = family_common(config, &defaults, arena, out, err)) < 0 ||
        (rc = family_heads(config, &defaults, out, &attention, err)) < 0 ||
        (rc = config_int(config, "intermediate_size", 1, CAP_HIDDEN, 14336, &ffn.width, err)) < 0 ||
        (rc = read_window(config, ministral, &window, err)) < 0 ||
        (rc = config_only_bool(config, "attention_bias", false, err)) < 0 ||
        (rc = config_only_string(config, "hidden_act", "silu", err)) < 0)
        return rc;
    if (ministral && (rc = read_growth(config, &attention, err)) < 0) return rc;
    if (ministral && config_get(config, "rope_parameters") == NULL &&
        config_get(config, "rope_scaling") == NULL) {
        rc = family_rope_default(config, MINISTRAL_ROPE, arena, attention.head_dim, 1e6,
                                 &out->ropes[0], err);
    } else {
        rc = family_rope(config, arena, attention.head_dim, defaults.theta, 1, &out->ropes[0], err);
    }
    if (rc < 0) return rc;
    out->rope_count = 1;
    enum layer_kind *kind = arena_array(arena, (size_t)out->layers, sizeof *kind);
    for (int i = 0; i < out->layers; i++) kind[i] = window ? LAYER_SLIDING : LAYER_FULL;
    rc = family_layer_kinds(config, out, 1u << LAYER_FULL | 1u << LAYER_SLIDING, kind, err);
    for (int i = 0; i < out->layers && rc == 0; i++) {
        out->layer[i] = (struct layer_desc){.attention = attention, .ffn = ffn};
        if (kind[i] != LAYER_SLIDING) continue;
        if (window == 0)
            return error_set(err, IMP_ERR_FILE, config->path,
                             "$.layer_types[%d] is sliding_attention without a sliding_window", i);
        out->layer[i].attention.window = (int)window;
    }
    return rc;
}
