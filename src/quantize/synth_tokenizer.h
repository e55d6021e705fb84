/* The smallest tokenizer that can read any text: a token for each byte, and one that ends. */
#ifndef IMP_QUANTIZE_SYNTH_TOKENIZER_H
#define IMP_QUANTIZE_SYNTH_TOKENIZER_H

#include "base/str.h"

enum { SYNTH_TOKENIZER_EOS = 256, SYNTH_TOKENIZER_SIZE = 257 };

void synth_tokenizer_json(struct str *out);
extern const char synth_tokenizer_config_json[]; /* with a chat template */

#endif
