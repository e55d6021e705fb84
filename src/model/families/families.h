/* The registry of model families: config.json to struct model_desc.
 *
 * A family file reads every field it understands, gives absent ones the class default of
 * transformers, and refuses a value that the forward pass does not implement, naming the field. */
#ifndef IMP_MODEL_FAMILIES_FAMILIES_H
#define IMP_MODEL_FAMILIES_FAMILIES_H

#include "load/config.h"
#include "model/desc.h"

typedef int (*family_fn)(const struct config *config, struct arena *arena, struct model_desc *out,
                         struct imp_error *err);

/* IMP_ERR_UNSUPPORTED with the model_type for a family that is not in the table. */
int model_desc_make(const struct config *config, struct arena *arena, struct model_desc *out,
                    struct imp_error *err);

int family_llama(const struct config *config, struct arena *arena, struct model_desc *out,
                 struct imp_error *err);

/* ---- shared by the family files ---- */

/* hidden_size, vocab_size, layers, eps, context, eos, bos, tied head. */
int family_common(const struct config *config, struct arena *arena, struct model_desc *out,
                  struct imp_error *err);
/* num_attention_heads, num_key_value_heads, head_dim with their defaults. */
int family_heads(const struct config *config, const struct model_desc *desc,
                 struct attention_desc *out, struct imp_error *err);
/* The rope of `rope_parameters` or rope_theta + rope_scaling: default, linear, llama3, yarn. */
int family_rope(const struct config *config, struct arena *arena, int head_dim,
                double default_theta, struct rope_desc *out, struct imp_error *err);

#endif
