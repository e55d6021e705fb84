/* The experts of a mixture, whichever way their file stores them.
 *
 *   one by one   M.E.gate_proj, up_proj, down_proj (or w1, w3, w2; or gate_up_proj in one)
 *   stacked      M.gate_up_proj [E, 2I, H], M.down_proj [E, H, I], no ".weight", BF16, F16 or F32;
 *                M.gate_proj.weight [E, I, H] and the like, scales stacked alike
 *   gpt-oss      M.gate_up_proj_blocks [E, 2I, H/32, 16] and _scales (MXFP4), biases [E, 2I]; as
 *                BF16 transposed, [E, H, 2I]
 *   ModelOpt's   M.gate_up_proj U8 [E, H/2, 2I] and _weight_scale [E, H/16, 2I]: transposed too
 *
 * M is the module's path, E the expert's number, I the width, H the hidden size. Matrices are views
 * into the files where they lie as struct weight wants them, copies otherwise: those live until
 * checkpoint_drop_copies. Threads as in checkpoint.h. */
#ifndef IMP_LOAD_EXPERTS_H
#define IMP_LOAD_EXPERTS_H

#include "load/checkpoint.h"

enum expert_layout {
    EXPERTS_PLAIN,   /* gate's rows first, then up's; no biases */
    EXPERTS_GPT_OSS, /* stacks hold gate, up, gate, up ...; one by one as PLAIN; biases */
};

struct expert {
    struct weight gate_up[2]; /* gate [I, H], up [I, H]; or one of [2I, H] */
    int gate_up_count;
    bool interleaved;   /* of the one: row 2i is gate i, row 2i+1 is up i; else gate's rows first */
    struct weight down; /* [H, I] */
    /* fp32 in the checkpoint's arena, or NULL: [2I], rows in the order of gate_up; [H] */
    const float *gate_up_bias, *down_bias;
};

/* Expert `index` of `experts` under `module` ("model.layers.0.mlp.experts"). Errors name tensor,
 * expected and found. */
int checkpoint_expert(struct checkpoint *ck, const char *module, enum expert_layout layout,
                      int experts, int index, int64_t width, int64_t hidden, struct expert *out,
                      struct imp_error *err);
/* True if there is an expert 0, or a stack, under `module`. */
bool checkpoint_has_experts(const struct checkpoint *ck, const char *module);

/* Frees the matrices that were copied for experts so far: to be called when a layer's experts have
 * been taken over, or host memory holds the model twice. Views, biases and scales stay. */
void checkpoint_drop_copies(struct checkpoint *ck);

#endif
