#include "model/families/families.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"

/* Two ways to store a model that is part of a wrapper (desc.h). */
#define OUTSIDE "language_model.model."
#define INSIDE  "model.language_model."

static const struct {
    const char *model_type;
    family_fn make;
    const char *wrapped_prefix;
} FAMILIES[] = {
    {"llama", family_llama, INSIDE},
    {"granite", family_granite, INSIDE},
    {"mistral", family_mistral, OUTSIDE},
    {"ministral3", family_mistral, OUTSIDE},
    {"qwen2", family_qwen, INSIDE},
    {"qwen3", family_qwen, INSIDE},
    {"qwen3_moe", family_qwen, INSIDE},
    {"qwen3_next", family_qwen3_next, INSIDE},
    {"qwen3_5_text", family_qwen3_next, INSIDE},
    {"qwen3_5_moe_text", family_qwen3_next, INSIDE},
    {"gemma3_text", family_gemma3, OUTSIDE},
    {"gemma4_text", family_gemma4, INSIDE},
    {"gemma4_unified_text", family_gemma4, INSIDE},
    {"gpt_oss", family_gpt_oss, INSIDE},
};

int model_desc_make(const struct config *config, struct arena *arena, struct model_desc *out,
                    struct imp_error *err) {
    for (size_t i = 0; i < sizeof FAMILIES / sizeof FAMILIES[0]; i++) {
        if (strcmp(config->model_type, FAMILIES[i].model_type) != 0) continue;
        *out = (struct model_desc){.family = FAMILIES[i].model_type,
                                   .wrapped_prefix = FAMILIES[i].wrapped_prefix,
                                   .embed_scale = 1.0f,
                                   .residual_scale = 1.0f,
                                   .logit_scale = 1.0f};
        return FAMILIES[i].make(config, arena, out, err);
    }
    return error_set(err, IMP_ERR_UNSUPPORTED, config->path,
                     "model_type \"%s\" is not a family that imp runs", config->model_type);
}

/* Of a field that has a class default or, with default 0, is required. */
static int default_or_required(const struct config *config, const char *key, int64_t min,
                               int64_t max, int64_t absent, int64_t *out, struct imp_error *err) {
    if (absent) return config_int(config, key, min, max, absent, out, err);
    return config_required_int(config, key, min, max, out, err);
}

int family_common(const struct config *config, const struct family_defaults *d, struct arena *arena,
                  struct model_desc *out, struct imp_error *err) {
    int64_t layers, bos;
    double eps;
    size_t eos_count;
    int rc;
    if ((rc = default_or_required(config, "hidden_size", 1, CAP_HIDDEN, d->hidden, &out->hidden,
                                  err)) < 0 ||
        (rc = default_or_required(config, "vocab_size", 1, CAP_VOCAB, d->vocab, &out->vocab, err)) <
            0 ||
        (rc = default_or_required(config, "num_hidden_layers", 1, CAP_LAYERS, d->layers, &layers,
                                  err)) < 0 ||
        (rc = config_int(config, "max_position_embeddings", 1, CAP_CONTEXT, d->context,
                         &out->max_context, err)) < 0 ||
        (rc = config_float(config, "rms_norm_eps", 1e-12, 1.0, d->eps, &eps, err)) < 0 ||
        (rc = config_int(config, "bos_token_id", -1, out->vocab - 1, d->bos ? d->bos : -1, &bos,
                         err)) < 0 ||
        (rc = config_bool(config, "tie_word_embeddings", d->tied, &out->tied_head, err)) < 0 ||
        (rc = config_eos_ids(config, out->vocab, out->eos, MODEL_MAX_EOS, &eos_count, err)) < 0)
        return rc;
    out->eos_count = (int)eos_count;
    out->layers = (int)layers;
    out->bos = (int32_t)bos;
    out->norm_eps = (float)eps;
    out->layer = arena_array(arena, (size_t)layers, sizeof *out->layer);
    memset(out->layer, 0, (size_t)layers * sizeof *out->layer);
    return 0;
}

int family_heads(const struct config *config, const struct family_defaults *d,
                 const struct model_desc *desc, struct attention_desc *out, struct imp_error *err) {
    int64_t heads, kv_heads, head_dim;
    int rc;
    if ((rc = default_or_required(config, "num_attention_heads", 1, CAP_HEADS, d->heads, &heads,
                                  err)) < 0 ||
        (rc = config_int(config, "num_key_value_heads", 1, heads, d->kv_heads ? d->kv_heads : heads,
                         &kv_heads, err)) < 0)
        return rc;
    if (kv_heads > heads || heads % kv_heads != 0)
        return error_set(err, IMP_ERR_FILE, config->path,
                         "num_attention_heads %lld is no multiple of num_key_value_heads %lld",
                         (long long)heads, (long long)kv_heads);
    int64_t derived = d->head_dim ? d->head_dim : desc->hidden / heads;
    rc = config_int(config, "head_dim", 2, 1024, derived ? derived : 2, &head_dim, err);
    if (rc < 0) return rc;
    const bool given = d->head_dim || config_get(config, "head_dim") != NULL;
    if (head_dim % 2 != 0 || head_dim > 1024 || (!given && desc->hidden % heads != 0))
        return error_set(
            err, IMP_ERR_FILE, config->path,
            "head_dim %lld (hidden_size %lld, num_attention_heads %lld): must be even, "
            "at most 1024, and divide hidden_size if it is not given",
            (long long)head_dim, (long long)desc->hidden, (long long)heads);
    out->heads = (int)heads;
    out->kv_heads = (int)kv_heads;
    out->head_dim = (int)head_dim;
    out->q_scale = (float)(1.0 / sqrt((double)head_dim));
    return 0;
}

int family_layer_kinds(const struct config *config, const struct model_desc *desc, unsigned allowed,
                       enum layer_kind *out, struct imp_error *err) {
    static const char *const names[] = {"full_attention", "sliding_attention", "linear_attention"};
    yyjson_val *list = config_get(config, "layer_types");
    if (list == NULL) return 0;
    if (!yyjson_is_arr(list) || yyjson_arr_size(list) != (size_t)desc->layers)
        return error_set(err, IMP_ERR_FILE, config->path,
                         "$.layer_types must be a list of num_hidden_layers (%d) names",
                         desc->layers);
    for (int i = 0; i < desc->layers; i++) {
        const char *name = yyjson_get_str(yyjson_arr_get(list, (size_t)i));
        int kind = 2;
        while (kind >= 0 && (name == NULL || strcmp(name, names[kind]) != 0)) kind--;
        if (kind < 0 || !(allowed & 1u << kind))
            return error_set(err, IMP_ERR_UNSUPPORTED, config->path,
                             "$.layer_types[%d] \"%s\" is not a kind of layer that %s has", i,
                             name ? name : "?", desc->family);
        out[i] = (enum layer_kind)kind;
    }
    return 0;
}

int family_sparse_layers(const struct config *config, const struct model_desc *desc, bool *out,
                         struct imp_error *err) {
    int64_t step;
    int rc = config_int(config, "decoder_sparse_step", 1, CAP_LAYERS, 1, &step, err);
    if (rc < 0) return rc;
    for (int i = 0; i < desc->layers; i++) out[i] = (i + 1) % step == 0;
    yyjson_val *dense = config_get(config, "mlp_only_layers");
    if (dense && !yyjson_is_arr(dense))
        return error_set(err, IMP_ERR_FILE, config->path, "$.mlp_only_layers must be a list");
    for (size_t i = 0; i < yyjson_arr_size(dense); i++) {
        yyjson_val *v = yyjson_arr_get(dense, i);
        if (!yyjson_is_uint(v) || yyjson_get_uint(v) >= (uint64_t)desc->layers)
            return error_set(err, IMP_ERR_FILE, config->path,
                             "$.mlp_only_layers[%zu] must be a layer's number", i);
        out[yyjson_get_uint(v)] = false;
    }
    return 0;
}

int family_experts(const struct config *config, const struct family_moe_defaults *d,
                   struct moe_desc *out, struct imp_error *err) {
    const char *key = config_get(config, "num_local_experts") ? "num_local_experts" : "num_experts";
    int64_t experts, top_k;
    int rc;
    if ((rc = default_or_required(config, key, 1, CAP_EXPERTS, d->experts, &experts, err)) < 0 ||
        (rc = default_or_required(config, d->top_k_key, 1, MOE_MAX_TOP_K, d->top_k, &top_k, err)) <
            0 ||
        (rc = default_or_required(config, d->width_key, 1, CAP_HIDDEN, d->width, &out->width,
                                  err)) < 0)
        return rc;
    if (top_k > experts)
        return error_set(err, IMP_ERR_FILE, config->path, "%s %lld is more than %s %lld",
                         d->top_k_key, (long long)top_k, key, (long long)experts);
    out->experts = (int)experts;
    out->top_k = (int)top_k;
    out->renormalize = true;
    return 0;
}
