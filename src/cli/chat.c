#include "cli/chat.h"
int chat_run(imp_engine *engine, struct options *options, const char *template_source,
             imp_error *err) { (void)engine; (void)options; (void)template_source; (void)err; return 0; }
