/* The configuration files of the new checkpoint: what tells other engines how it is quantised. */
#ifndef IMP_QUANTIZE_DESCRIBE_H
#define IMP_QUANTIZE_DESCRIBE_H

#include "base/str.h"
#include "quantize/layout.h"

/* The source's config.json with its element type set to BF16 and, where anything is quantised,
 * the dialect's quantization_config. Appends to *out. */
int describe_config(const struct source *source, const struct layout *layout,
                    enum layout_dialect dialect, struct str *out, struct imp_error *err);
/* ModelOpt's hf_quant_config.json. */
void describe_hf_quant_config(const struct source *source, const struct layout *layout,
                              struct str *out);

#endif
