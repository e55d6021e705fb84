/* The conversation at the terminal of `imp run`: prompt, commands, answers. */
#ifndef IMP_CLI_CHAT_H
#define IMP_CLI_CHAT_H

#include "cli/options.h"
#include "imp/imp.h"

/* Until /quit or the end of input. Errors of one answer are printed and the chat goes on. /set
 * changes *options. template_source NULL: the model's own. */
int chat_run(imp_engine *engine, struct options *options, const char *template_source,
             imp_error *err);

#endif
