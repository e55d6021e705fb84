/* The dialects of quantised checkpoints, made ONE form.
 *
 * llm-compressor (compressed-tensors) and ModelOpt store the same numbers under other names, and
 * one as the reciprocal of the other. Which format a linear has is decided from the tensors under
 * its path, never from the configuration, which real files get wrong. Same threads as checkpoint.h.
 */
#ifndef IMP_LOAD_QUANT_H
#define IMP_LOAD_QUANT_H

#include "load/checkpoint.h"

/* Fills ck->dialect and ck->declared from the configuration. Whatever it does not understand it
 * leaves out. */
void quant_read_config(struct checkpoint *ck);
/* IMP_ERR_UNSUPPORTED if a method made the weights that imp does not know, or if the model needs
 * transforms of its activations at run time: neither need leave a trace in the tensors. */
int quant_check_config(const struct checkpoint *ck, struct imp_error *err);

/* checkpoint_weight, with the module's name as in the files. */
int quant_weight(struct checkpoint *ck, const char *module, int64_t rows, int64_t cols,
                 struct weight *out, struct imp_error *err);
/* A zero-terminated list of the parameter names by which a linear is known. */
extern const char *const quant_parameters[];

/* t's elements, whatever its rank, as fp32 in the checkpoint's arena; count -1 accepts any number.
 * All finite, or an error. */
int quant_vector(struct checkpoint *ck, const struct tensor *t, int64_t count, const float **out,
                 struct imp_error *err);
/* t's elements as fp32 in out; false if its dtype is not F32, F16 or BF16. */
bool quant_to_floats(const struct tensor *t, float *out);
/* Index of the first byte with the sign bit or of the value NaN, or -1. */
int64_t quant_find_bad_e4m3_scale(const uint8_t *scales, size_t count);
int64_t quant_find_bad_e8m0_scale(const uint8_t *scales, size_t count); /* NaN */

#endif
