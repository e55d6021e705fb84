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
#include "load/experts.h"

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
    bool v_norm;   /* the same of v, without weights */
    bool v_from_k; /* no v_proj: v is k before norm and rotation */
    bool gate;     /* q_proj has a gate behind each head of q; its sigmoid multiplies the output */
    bool sinks;    /* one more logit per head in the softmax */
    bool qkv_bias, out_bias;
    bool shares_kv; /* reads the KV of layer kv_layer, has no k and v of its own */
    int kv_layer;
    float q_growth; /* q also times 1 + q_growth ln(1 + floor(position / q_growth_tokens)) */
    float q_growth_tokens;
};

struct gdn_desc {
    struct gdn_shape shape;
    bool grouped; /* in_proj_qkvz and in_proj_ba, rows grouped by key head */
};

struct ffn_desc {
    int64_t width; /* 0: none */
    enum glu_kind kind;
    bool bias;
};

struct moe_desc {
    int experts, top_k; /* experts 0: none */
    int64_t width;
    enum glu_kind kind;
    float limit; /* of GLU_CLAMPED */
    enum expert_layout layout;
    bool stacked; /* as transformers saves them: all experts of a layer in one tensor */
    bool renormalize;
    bool router_bias;
    bool router_norm;     /* the router reads h by a norm of its own, with a scale per column */
    bool expert_scale;    /* a factor per expert on the router's weights */
    int64_t shared_width; /* of the expert that every token takes; 0: none */
    bool shared_gate;     /* its output times the sigmoid of one linear */
};

/* mixer: h += mix(norm h), then ffn: h += ffn(norm h). A layer may have both a dense ffn and
 * experts: they read h by norms of their own and their normed outputs are added. */
enum mixer_kind { MIXER_ATTENTION, MIXER_GDN };
struct layer_desc {
    enum mixer_kind mixer;
    struct attention_desc attention;
    struct gdn_desc gdn;
    struct ffn_desc ffn;
    struct moe_desc moe;
};

/* Modules of a layer, and what a file calls them after "model.layers.N.". Those that share an input
 * stand together. */
enum module {
    MODULE_Q,
    MODULE_K,
    MODULE_V,
    MODULE_O,
    MODULE_GATE,
    MODULE_UP,
    MODULE_DOWN,
    MODULE_GDN_QKV,
    MODULE_GDN_Z,
    MODULE_GDN_B,
    MODULE_GDN_A,
    MODULE_GDN_OUT,
    MODULE_SHARED_GATE,
    MODULE_SHARED_UP,
    MODULE_SHARED_EXPERT_GATE,
    MODULE_SHARED_DOWN,
    MODULE_ROUTER,
    MODULE_EXPERTS,
    MODULE_EXPERTS_DOWN,
    MODULE_PLE_GATE,
    MODULE_PLE_PROJ,
    MODULE_GDN_QKVZ, /* grouped: in place of QKV and Z */
    MODULE_GDN_BA,
    /* vectors */
    MODULE_INPUT_NORM,
    MODULE_MIXER_POST_NORM, /* of the mixer's output */
    MODULE_FFN_NORM,
    MODULE_FFN_POST_NORM, /* of the ffn's output */
    MODULE_DENSE_POST_NORM,
    MODULE_MOE_NORM,
    MODULE_MOE_POST_NORM,
    MODULE_Q_NORM,
    MODULE_K_NORM,
    MODULE_SINKS,
    MODULE_GDN_CONV,
    MODULE_GDN_DT_BIAS,
    MODULE_GDN_A_LOG,
    MODULE_GDN_NORM,
    MODULE_ROUTER_SCALE,
    MODULE_EXPERT_SCALE,
    MODULE_PLE_NORM,
    MODULE_LAYER_SCALE,
    MODULE_COUNT
};

struct model_desc {
    const char *family;         /* model_type */
    const char *wrapped_prefix; /* what stands for "model." in files of a wrapped model */
    int64_t hidden, vocab;
    int layers;
    struct layer_desc *layer; /* [layers] */
    struct rope_desc ropes[MODEL_MAX_ROPES];
    int rope_count;
    float norm_eps;
    float norm_offset; /* added to norm weights: 0, or 1 where they are stored around zero */
    float embed_scale;
    float residual_scale; /* multiplies what mixer and ffn add to h */
    float logit_scale;    /* multiplies the logits */
    float logit_softcap;  /* 0: none */
    bool post_norms;      /* mixer's and ffn's outputs are normed before they are added */
    bool layer_scale;     /* h times a number of the layer's, at its end */
    int64_t ple_width;    /* per-layer embeddings (Gemma 3n, 4): columns of a layer; 0: none */
    int64_t ple_vocab;
    float ple_scale;     /* of their table's rows */
    bool tied_head;      /* no lm_head tensor: the head is the embedding */
    int64_t max_context; /* positions the model was made for */
    int32_t eos[MODEL_MAX_EOS];
    int eos_count;
    int32_t bos;              /* -1: none */
    const char *const *names; /* [MODULE_COUNT] where they differ from the usual; or NULL */
};

/* "model.layers.3.mlp.up_proj" into out. */
void module_name(const struct model_desc *desc, enum module module, int layer, char out[128]);

/* Numbers that follow from the description. */
int model_desc_max_heads(const struct model_desc *desc);
int model_desc_max_head_dim(const struct model_desc *desc);
int64_t model_desc_max_cols(const struct model_desc *desc); /* longest input of a linear */
/* Fills the fields of step_limits that follow from the model alone. */
void model_desc_limits(const struct model_desc *desc, struct step_limits *out);

static inline int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Columns of what the mixer's first product makes. */
static inline int attention_q_step(const struct attention_desc *a) {
    return a->gate ? 2 * a->head_dim : a->head_dim;
}
static inline enum kv_group attention_group(const struct attention_desc *a) {
    return a->window > 0 ? KV_WINDOW : KV_FULL;
}
int64_t attention_row(const struct attention_desc *a);

#endif
