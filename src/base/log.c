#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"

void log_line(const struct log *log, enum log_level level, const char *fmt, ...) {
    if (log == NULL || log->fn == NULL) return;
    char line[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    struct imp_error clean;
    error_set(&clean, 0, NULL, "%s", line);
    log->fn(log->ctx, (int)level, clean.message);
}
