/* A model as data: what a family file makes of config.json, and all that the forward pass knows.
 *
 * Plain values; every number is checked when the description is made (families/), so inside it is
 * trusted. Owned by struct model, immutable. A family is one file that fills this and one row in
 * families.c; no other file names a family. */
#ifndef IMP_MODEL_DESC_H
#define IMP_MODEL_DESC_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/arena.h"

enum { MODEL_MAX_ROPES = 2, MODEL_MAX_EOS = 16 };

/* Rotation of pairs (i, i + pair_offset) for i < pairs; frequency already scaled by its variant. */
struct rope_desc {
    int pairs, pair_offset;
    float *frequency; /* [pairs] */
    float amplitude;  /* multiplies cosine and sine (yarn), else 1 */
};

struct attention_desc {
    int heads, kv_heads, head_dim;
    int rope;      /* index into model_desc.ropes */
    float q_scale; /* head_dim^-1/2 in most */
    int window;    /* keys a row sees, itself included; 0: all */
    float softcap; /* 0: none */
    bool qk_norm;  /* RMS norm of q and k per head, before the rotation */
    bool qkv_bias, out_bias;
};

struct ffn_desc {
    int64_t width;
    enum glu_kind kind;
    bool bias;
};

struct layer_desc {
    struct attention_desc attention;
    struct ffn_desc ffn;
};

struct model_desc {
    const char *family; /* model_type */
    int64_t hidden, vocab;
    int layers;
    struct layer_desc *layer; /* [layers] */
    struct rope_desc ropes[MODEL_MAX_ROPES];
    int rope_count;
    float norm_eps;
    float
        norm_offset; /* added to every norm weight: 0, or 1 where weights are stored around zero */
    float embed_scale;
    bool tied_head;      /* no lm_head tensor: the head is the embedding */
    int64_t max_context; /* positions the model was made for */
    int32_t eos[MODEL_MAX_EOS];
    int eos_count;
    int32_t bos; /* -1: none */
};

/* Numbers that follow from the description. */
int64_t model_desc_parameters(const struct model_desc *desc);
int model_desc_max_heads(const struct model_desc *desc);
int model_desc_max_head_dim(const struct model_desc *desc);
int64_t model_desc_max_cols(const struct model_desc *desc); /* longest input of a linear */

/* The one table of a plain decoder's tensor names: "model.layers.N.self_attn.q_proj" and so on. */
enum module {
    MODULE_Q,
    MODULE_K,
    MODULE_V,
    MODULE_O,
    MODULE_GATE,
    MODULE_UP,
    MODULE_DOWN,
    MODULE_INPUT_NORM,
    MODULE_POST_NORM,
    MODULE_Q_NORM,
    MODULE_K_NORM,
    MODULE_COUNT
};
/* "model.layers.3.mlp.up_proj" into out. */
void module_name(enum module module, int layer, char out[128]);

#endif
