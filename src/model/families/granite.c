/* granite: IBM's Granite 3 and 4 dense models: llama with four factors.
 * Equations and defaults: transformers models/granite. */
#include "base/error.h"
#include "model/families/families.h"

int family_granite(const struct config *config, struct arena *arena, struct model_desc *out,
                   struct imp_error *err) {
    double embedding, attention, residual, logits;
    int rc = family_llama(config, arena, out, err);
    if (rc < 0 ||
        (rc = config_float(config, "embedding_multiplier", 1e-6, 1e6, 1, &embedding, err)) < 0 ||
        (rc = config_float(config, "attention_multiplier", 1e-6, 1e6, 1, &attention, err)) < 0 ||
        (rc = config_float(config, "residual_multiplier", 1e-6, 1e6, 1, &residual, err)) < 0 ||
        (rc = config_float(config, "logits_scaling", 1e-6, 1e6, 1, &logits, err)) < 0)
        return rc;
    out->embed_scale = (float)embedding;
    out->residual_scale = (float)residual;
    out->logit_scale = (float)(1.0 / logits);
    for (int i = 0; i < out->layers; i++) out->layer[i].attention.q_scale = (float)attention;
    return 0;
}
