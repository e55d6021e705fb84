/* A source without files: random numbers where a description says that tensors are.
 *
 * Every number is a function of the seed, the module it belongs to and its place there, so it is
 * the same whichever way experts are stored and whatever else is written. Owns its names; the
 * description is borrowed while it is made. Any thread may read. */
#ifndef IMP_QUANTIZE_SYNTH_SOURCE_H
#define IMP_QUANTIZE_SYNTH_SOURCE_H

#include "model/tensors.h"
#include "quantize/source.h"

/* prefix: what the files have for "model."; its lm_head goes with it. Fills tensors and functions
 * of *out, which is zeroed but for what the caller keeps in it. source_close frees. */
void synth_source_make(const struct model_desc *desc, const char *prefix, enum expert_form form,
                       uint64_t seed, struct source *out);

#endif
