/* The log hook, passed down to whoever may have to say something. Never a global. */
#ifndef IMP_BASE_LOG_H
#define IMP_BASE_LOG_H

#include "imp/imp.h"

enum log_level { LOG_ERROR = 0, LOG_WARNING = 1, LOG_INFO = 2, LOG_DEBUG = 3 };

struct log {
    imp_log_fn fn; /* NULL: silence */
    void *ctx;
};

/* One line, escaped like an error message. log may be NULL. */
void log_line(const struct log *log, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
