/* One quantised linear, "model.layers.0.mlp.up_proj", as lines of support/tensors.h: the parts that
 * the tests of src/load put together, and opening and loading what must succeed. */
#ifndef IMP_TESTS_SUPPORT_QUANT_LINES_H
#define IMP_TESTS_SUPPORT_QUANT_LINES_H

#include "load/quant.h"
#include "support/tensors.h"

#define M "model.layers.0.mlp.up_proj"

#define CT_CODES  "weight_packed U8 2,16 7A;"
#define CT_SCALE  "weight_scale F8_E4M3 2,2 3C;"
#define CT_GLOBAL "weight_global_scale F32 1 =2688;"
#define MO_CODES  "weight U8 2,16 7A;"
#define MO_GLOBAL "weight_scale_2 F32 - =0.00037202381;"
#define FP8       "weight F8_E4M3 4,8 =2;"

#define CT_CONFIG                                                                                  \
    "{\"model_type\":\"m\",\"quantization_config\":{\"quant_method\":\"compressed-tensors\","      \
    "\"config_groups\":{\"group_0\":{\"weights\":{\"num_bits\":4,\"type\":\"float\","              \
    "\"group_size\":16},\"input_activations\":{\"num_bits\":4}}},\"ignore\":[\"lm_head\"]}}"

static inline void must_open(struct tiny *t, const char *line, const char *config) {
    struct imp_error err;
    if (tiny_open(t, M, line, config, &err) < 0) fail_msg("%s: %s", err.where, err.message);
}

static inline struct weight must_load(struct tiny *t, const char *module) {
    struct weight w;
    struct imp_error err;
    if (checkpoint_weight(&t->ck, module, -1, -1, &w, &err) < 0)
        fail_msg("%s: %s", err.where, err.message);
    return w;
}

#endif
