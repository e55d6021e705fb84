#include "model/families/families.h"

#include <math.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"

static const struct {
    const char *model_type;
    family_fn make;
} FAMILIES[] = {
    {"llama", family_llama},
};

int model_desc_make(const struct config *config, struct arena *arena, struct model_desc *out,
                    struct imp_error *err) {
    for (size_t i = 0; i < sizeof FAMILIES / sizeof FAMILIES[0]; i++) {
        if (strcmp(config->model_type, FAMILIES[i].model_type) != 0) continue;
        *out = (struct model_desc){.family = FAMILIES[i].model_type};
        return FAMILIES[i].make(config, arena, out, err);
    }
    return error_set(err, IMP_ERR_UNSUPPORTED, config->path,
                     "model_type \"%s\" is not a family that imp runs", config->model_type);
}

int family_common(const struct config *config, struct arena *arena, struct model_desc *out,
                  struct imp_error *err) {
    int64_t layers, bos;
    double eps;
    int rc;
    if ((rc = config_required_int(config, "hidden_size", 1, CAP_HIDDEN, &out->hidden, err)) < 0 ||
        (rc = config_required_int(config, "vocab_size", 1, CAP_VOCAB, &out->vocab, err)) < 0 ||
        (rc = config_required_int(config, "num_hidden_layers", 1, CAP_LAYERS, &layers, err)) < 0 ||
        (rc = config_int(config, "max_position_embeddings", 1, CAP_CONTEXT, 2048, &out->max_context,
                         err)) < 0 ||
        (rc = config_float(config, "rms_norm_eps", 1e-12, 1.0, 1e-6, &eps, err)) < 0 ||
        (rc = config_int(config, "bos_token_id", -1, out->vocab - 1, -1, &bos, err)) < 0 ||
        (rc = config_bool(config, "tie_word_embeddings", false, &out->tied_head, err)) < 0)
        return rc;
    size_t eos_count;
    rc = config_eos_ids(config, out->vocab, out->eos, MODEL_MAX_EOS, &eos_count, err);
    if (rc < 0) return rc;
    out->eos_count = (int)eos_count;
    out->layers = (int)layers;
    out->bos = (int32_t)bos;
    out->norm_eps = (float)eps;
    out->embed_scale = 1.0f;
    out->layer = arena_array(arena, (size_t)layers, sizeof *out->layer);
    return 0;
}

int family_heads(const struct config *config, const struct model_desc *desc,
                 struct attention_desc *out, struct imp_error *err) {
    int64_t heads, kv_heads, head_dim;
    int rc;
    if ((rc = config_required_int(config, "num_attention_heads", 1, CAP_HEADS, &heads, err)) < 0 ||
        (rc = config_int(config, "num_key_value_heads", 1, heads, heads, &kv_heads, err)) < 0)
        return rc;
    if (heads % kv_heads != 0)
        return error_set(err, IMP_ERR_FILE, config->path,
                         "num_attention_heads %lld is no multiple of num_key_value_heads %lld",
                         (long long)heads, (long long)kv_heads);
    int64_t derived = desc->hidden / heads;
    rc = config_int(config, "head_dim", 2, 1024, derived ? derived : 2, &head_dim, err);
    if (rc < 0) return rc;
    if (head_dim % 2 != 0 || head_dim > 1024 ||
        (config_get(config, "head_dim") == NULL && desc->hidden % heads != 0))
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
