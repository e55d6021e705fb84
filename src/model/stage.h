/* The stages of a step: what each op leaves that a trace can look at, in the order of the pass.
 *
 * Names are those of trace files and of `imp trace`. Keys and values are not among them: they lie
 * in the KV blocks, whose form is the backend's; what is wrong with them shows in `attention`. */
#ifndef IMP_MODEL_STAGE_H
#define IMP_MODEL_STAGE_H

#include <stdbool.h>

enum stage {
    STAGE_EMBEDDING, /* h */
    STAGE_PLE,       /* per-layer embeddings of all layers */
    /* the mixer */
    STAGE_INPUT_NORM,
    STAGE_QKV, /* q|k|v before norms and rotation */
    STAGE_Q,   /* as attention reads it */
    STAGE_ATTENTION,
    STAGE_GDN_IN, /* q|k|v|z|b|a of a gated delta net */
    STAGE_GDN,
    STAGE_MIXER, /* the mixer's output, where a norm lies between it and h */
    STAGE_H_MIXER,
    /* the ffn */
    STAGE_EXPERT_IDS,
    STAGE_EXPERT_WEIGHTS,
    STAGE_FFN_NORM,
    STAGE_GATE_UP,
    STAGE_GLU,
    STAGE_DENSE, /* the dense ffn's output, where experts stand beside it */
    STAGE_MOE_NORM,
    STAGE_EXPERTS, /* their sum, or h with it added */
    STAGE_SHARED_GATE_UP,
    STAGE_SHARED_GLU,
    STAGE_FFN, /* the ffn's output, where a norm lies between it and h */
    STAGE_H_FFN,
    /* per-layer embeddings */
    STAGE_PLE_GATE,
    STAGE_PLE_GLU,
    STAGE_PLE_OUT,
    STAGE_H_PLE,
    /* the end: rows whose logits are wanted */
    STAGE_FINAL_NORM,
    STAGE_LOGITS,
    STAGE_COUNT
};

enum stage_type { STAGE_F32, STAGE_ACT, STAGE_I32 };

struct stage_row {
    const char *name;
    enum stage_type type;
    bool out_rows; /* rows are the batch's out_rows, not its rows */
};
extern const struct stage_row stage_table[STAGE_COUNT];

#endif
