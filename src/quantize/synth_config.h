/* config.json of a synthetic checkpoint: another's, with fewer layers or words.
 *
 * Pure functions of their arguments; any thread. */
#ifndef IMP_QUANTIZE_SYNTH_CONFIG_H
#define IMP_QUANTIZE_SYNTH_CONFIG_H

#include "base/str.h"
#include "load/config.h"
#include "model/desc.h"

struct synth_changes {
    int layers;    /* 0: all. Those that are left have every kind of layer, the last one included */
    int64_t vocab; /* 0: as it is. End tokens become `eos`, other special ids go */
    int32_t eos;
    bool mxfp4; /* experts will be MXFP4 as gpt-oss ships them */
};

/* Appends the new file. The quantization_config is left out: writing describes its own. Too few
 * layers for their kinds is IMP_ERR_USAGE with the least number. */
int synth_config_make(const struct config *config, const struct model_desc *desc,
                      const struct synth_changes *changes, struct str *out, struct imp_error *err);

#endif
