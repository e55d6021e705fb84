/* Which tensors of a checkpoint become NVFP4, and which of them share a multiplier.
 *
 * Pure functions of names and shapes; any thread. */
#ifndef IMP_QUANTIZE_POLICY_H
#define IMP_QUANTIZE_POLICY_H

#include "base/str.h"
#include "quantize/source.h"

/* True for the projections inside the text model's layers (attention, MLP, experts) whose columns
 * come in whole blocks. Everything else stays high: embeddings, per-layer embeddings and their
 * linears, lm_head, routers, gates of one number, norms, biases, gated delta nets, towers of other
 * senses, multi-token prediction. */
bool policy_quantizes(const struct source_tensor *t);

/* True for a matrix that Hugging Face holds in a Linear module: it goes on the configuration's
 * ignore list if it is not quantised. Embeddings are none. */
bool policy_is_linear(const struct source_tensor *t);

/* The module path: name without ".weight". */
struct slice policy_module(const struct source_tensor *t);

/* Under which name the moments of what the matrix reads are kept, into *out: the module; of an
 * expert, "....experts.7.in" for gate and up and "....experts.7.out" for down, however the file
 * names them. */
void policy_input(const struct source_tensor *t, struct str *out);

/* Name of the group of matrices with one multiplier, into *out: q, k, v of one attention; gate and
 * up of one MLP or expert (engines run each group as one matrix). Others: the module itself. */
void policy_group(const struct source_tensor *t, struct str *out);

#endif
