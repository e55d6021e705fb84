/* What `imp bench` measures besides the model: its tokenizer alone. */
#ifndef IMP_CLI_BENCH_H
#define IMP_CLI_BENCH_H

#include "cli/options.h"

/* With --tokenizer: needs the tokenizer's files only, prints one row. */
int bench_tokenizer(const struct options *options, imp_error *err);

#endif
