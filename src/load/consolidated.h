/* Mistral's own files: params.json for config.json, consolidated*.safetensors with names of their
 * own, and the rows of q and k in the order of interleaved RoPE. What is read here is made into the
 * usual form, so that no layer above knows. A folder that has the usual files too is read by those.
 *
 * Source: mistral-inference's ModelArgs and transformers' convert_mistral_weights_to_hf. Pure but
 * for the arena; one thread at a time per checkpoint. */
#ifndef IMP_LOAD_CONSOLIDATED_H
#define IMP_LOAD_CONSOLIDATED_H

#include "load/checkpoint.h"

/* The text of a config.json that says what params.json does. An unknown key is refused: it may
 * change the equations. */
int consolidated_config(const char *json, size_t size, const char *name, struct str *out,
                        struct imp_error *err);
/* Gives every tensor its usual name. */
void consolidated_rename(struct checkpoint *ck);
/* The rows of one head, for consolidated_rotate, from the configuration. */
int consolidated_head_rows(const struct config *config, int64_t *out, struct imp_error *err);
/* True for the linears whose rows RoPE turns. */
bool consolidated_is_rotated(const char *module);
/* Replaces w's rows by a copy in the order of rotate-half: rows 2i and 2i + 1 of each head become i
 * and i + head_rows / 2. */
int consolidated_rotate(struct checkpoint *ck, struct weight *w, struct imp_error *err);

#endif
