/* gemma3_text: norms before and after mixer and ffn, stored around zero; windows in five of six
 * layers with a rope of their own; a scaled embedding.
 * Equations and defaults: transformers models/gemma3. */
#include <math.h>

#include "base/caps.h"
#include "base/error.h"
#include "model/families/families.h"
#include "num/fp.h"

static const char *const NAMES[MODULE_COUNT] = {
    [MODULE_MIXER_POST_NORM] = "post_attention_layernorm.weight",
    [MODULE_FFN_NORM] = "pre_feedforward_layernorm.weight",
    [MODULE_FFN_POST_NORM] = "post_feedforward_layernorm.weight",
};
enum { ROPE_FULL, ROPE_SLIDING };

/* Both ropes under rope_parameters by kind of layer, or in the older fields. */
static int read_ropes(const struct config *config, struct arena *arena, int head_dim,
                      struct model_desc *out, struct imp_error *err) {
    yyjson_val *both = config_get(config, "rope_parameters");
    double local;
    int rc;
    out->rope_count = 2;
    if ((rc = config_float(config, "rope_local_base_freq", 1, 1e12, 10000, &local, err)) < 0)
        return rc;
    if (yyjson_obj_get(both, "full_attention") == NULL &&
        yyjson_obj_get(both, "sliding_attention") == NULL) {
        if ((rc = family_rope(config, arena, head_dim, 1e6, 1, &out->ropes[ROPE_FULL], err)) < 0)
            return rc;
        return family_rope_of(config, NULL, "$", arena, head_dim, local, 1,
                              &out->ropes[ROPE_SLIDING], err);
    }
    rc = family_rope_of(config, yyjson_obj_get(both, "full_attention"),
                        "$.rope_parameters.full_attention", arena, head_dim, 1e6, 1,
                        &out->ropes[ROPE_FULL], err);
    if (rc < 0) return rc;
    return family_rope_of(config, yyjson_obj_get(both, "sliding_attention"),
                          "$.rope_parameters.sliding_attention", arena, head_dim, local, 1,
                          &out->ropes[ROPE_SLIDING], err);
}

int family_gemma3(const struct config *config, struct arena *arena, struct model_desc *out,
                  struct imp_error *err) {
    static const struct family_defaults defaults = {.vocab = 262208,
                                                    .hidden = 2304,
                                                    .layers = 26,
                                                    .heads = 8,
                                                    .kv_heads = 4,
                                                    .head_dim = 256,
                                                    .context = 131072,
                                                    .eps = 1e-6,
                                                    .tied = true,
                                                    .bos = 2};
    struct attention_desc attention = {.qk_norm = true};
    struct ffn_desc ffn = {.kind = GLU_GELU_TANH};
    double query_scalar, softcap, logit_softcap;
    int64_t window, pattern;
    int rc;
    if ((rc = family_common(config, &defaults, arena, out, err)) < 0 ||
        (rc = family_heads(config, &defaults, out, &attention, err)) < 0 ||
        (rc = read_ropes(config, arena, attention.head_dim, out, err)) < 0 ||
        (rc = config_int(config, "intermediate_size", 1, CAP_HIDDEN, 9216, &ffn.width, err)) < 0 ||
        (rc = config_float(config, "query_pre_attn_scalar", 1e-3, 1e6, 256, &query_scalar, err)) <
            0 ||
        (rc = config_float(config, "attn_logit_softcapping", 1e-3, 1e6, 0, &softcap, err)) < 0 ||
        (rc = config_float(config, "final_logit_softcapping", 1e-3, 1e6, 0, &logit_softcap, err)) <
            0 ||
        (rc = config_int(config, "sliding_window", 1, CAP_CONTEXT, 4096, &window, err)) < 0 ||
        (rc = config_int(config, "sliding_window_pattern", 1, CAP_LAYERS, 6, &pattern, err)) < 0 ||
        (rc = config_only_bool(config, "attention_bias", false, err)) < 0 ||
        (rc = config_only_bool(config, "use_bidirectional_attention", false, err)) < 0 ||
        (rc = config_only_string(config, "hidden_activation", "gelu_pytorch_tanh", err)) < 0)
        return rc;
    attention.q_scale = (float)(1.0 / sqrt(query_scalar));
    attention.softcap = (float)softcap;
    out->logit_softcap = (float)logit_softcap;
    /* A BF16 number, as the trained models multiply by. */
    out->embed_scale = bf16_round((float)sqrt((double)out->hidden));
    out->norm_offset = 1.0f;
    out->post_norms = true;
    out->names = NAMES;
    enum layer_kind *kind = arena_array(arena, (size_t)out->layers, sizeof *kind);
    for (int i = 0; i < out->layers; i++)
        kind[i] = (i + 1) % pattern == 0 ? LAYER_FULL : LAYER_SLIDING;
    rc = family_layer_kinds(config, out, 1u << LAYER_FULL | 1u << LAYER_SLIDING, kind, err);
    for (int i = 0; i < out->layers && rc == 0; i++) {
        attention.rope = kind[i] == LAYER_FULL ? ROPE_FULL : ROPE_SLIDING;
        attention.window = kind[i] == LAYER_FULL ? 0 : (int)window;
        out->layer[i] = (struct layer_desc){.attention = attention, .ffn = ffn};
    }
    return rc;
}
