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
int family_granite(const struct config *config, struct arena *arena, struct model_desc *out,
                   struct imp_error *err);
int family_mistral(const struct config *config, struct arena *arena, struct model_desc *out,
                   struct imp_error *err);
int family_qwen(const struct config *config, struct arena *arena, struct model_desc *out,
                struct imp_error *err);
int family_qwen3_next(const struct config *config, struct arena *arena, struct model_desc *out,
                      struct imp_error *err);
int family_gemma3(const struct config *config, struct arena *arena, struct model_desc *out,
                  struct imp_error *err);
int family_gemma4(const struct config *config, struct arena *arena, struct model_desc *out,
                  struct imp_error *err);
int family_gpt_oss(const struct config *config, struct arena *arena, struct model_desc *out,
                   struct imp_error *err);

/* ---- shared by the family files ---- */

/* The class defaults of a family. 0: the field has none and is required; kv_heads 0: as many as
 * heads; head_dim 0: hidden / heads. */
struct family_defaults {
    int64_t vocab, hidden, layers, heads, kv_heads, head_dim, context;
    double eps, theta;
    bool tied;
    int bos; /* 0: none */
};

/* hidden_size, vocab_size, layers, eps, context, eos, bos, tied head; layers zeroed. */
int family_common(const struct config *config, const struct family_defaults *defaults,
                  struct arena *arena, struct model_desc *out, struct imp_error *err);
/* num_attention_heads, num_key_value_heads, head_dim; q_scale head_dim^-1/2. */
int family_heads(const struct config *config, const struct family_defaults *defaults,
                 const struct model_desc *desc, struct attention_desc *out, struct imp_error *err);

/* Kinds of layers as layer_types has them; out[desc->layers] keeps what it holds where the field is
 * absent. `allowed`: bits of the kinds that the family has. */
enum layer_kind { LAYER_FULL, LAYER_SLIDING, LAYER_LINEAR };
int family_layer_kinds(const struct config *config, const struct model_desc *desc, unsigned allowed,
                       enum layer_kind *out, struct imp_error *err);

/* mlp_only_layers and decoder_sparse_step: out[layers], whether a layer has experts. */
int family_sparse_layers(const struct config *config, const struct model_desc *desc, bool *out,
                         struct imp_error *err);
/* num_experts (also written num_local_experts), experts per token and their width, required unless
 * a default is given. */
struct family_moe_defaults {
    const char *top_k_key, *width_key;
    int64_t experts, top_k, width;
};
int family_experts(const struct config *config, const struct family_moe_defaults *defaults,
                   struct moe_desc *out, struct imp_error *err);

/* The rope of rope_parameters, or rope_theta + rope_scaling: default, linear, llama3, yarn. The
 * share of a head that turns: partial_rotary_factor in either place, else `partial`. */
int family_rope(const struct config *config, struct arena *arena, int head_dim,
                double default_theta, double partial, struct rope_desc *out, struct imp_error *err);
/* The same of one object ("$.rope_parameters.full_attention"), which may be NULL; also the type
 * "proportional". */
int family_rope_of(const struct config *config, yyjson_val *object, const char *path,
                   struct arena *arena, int head_dim, double default_theta, double partial,
                   struct rope_desc *out, struct imp_error *err);

/* A class default that is written as JSON, in place of what the file lacks. */
int family_rope_default(const struct config *config, const char *json, struct arena *arena,
                        int head_dim, double default_theta, struct rope_desc *out,
                        struct imp_error *err);

#endif
