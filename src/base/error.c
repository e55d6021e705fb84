#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

/* Copies text, escaping what a terminal or a log must not see raw. Truncates at a whole unit. */
static void copy_escaped(char *out, size_t size, const char *text) {
    size_t n = 0;
    const unsigned char *p = (const unsigned char *)text;
    while (*p != 0) {
        size_t len = utf8_sequence_length((const char *)p, strlen((const char *)p));
        int plain = len > 0 && *p >= 0x20 && *p != 0x7f && !(len == 2 && *p == 0xc2 && p[1] < 0xa0);
        size_t need = plain ? len : 4;
        if (n + need + 1 > size) break;
        if (plain) {
            memcpy(out + n, p, len);
            p += len;
        } else {
            snprintf(out + n, 5, "\\x%02X", *p++);
        }
        n += need;
    }
    out[n] = 0;
}

#undef error_set /* the analysers' macro */
int error_set(struct imp_error *err, int code, const char *where, const char *fmt, ...) {
    if (err == NULL) return code;
    char line[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    err->code = code;
    copy_escaped(err->message, sizeof err->message, line);
    copy_escaped(err->where, sizeof err->where, where ? where : "");
    return code;
}

void error_place(char out[200], const char *file, const char *fmt, ...) {
    enum { SIZE = sizeof((struct imp_error *)0)->where, PATH = 96 };
    size_t length = strlen(file);
    int n = length <= PATH ? snprintf(out, SIZE, "%s: ", file)
                           : snprintf(out, SIZE, "...%s: ", file + length - (PATH - 3));
    va_list args;
    va_start(args, fmt);
    vsnprintf(out + n, (size_t)(SIZE - n), fmt, args);
    va_end(args);
}

int error_prefix(struct imp_error *err, int code, const char *prefix) {
    if (err == NULL) return code;
    char old[sizeof err->where];
    memcpy(old, err->where, sizeof old);
    char line[2 * sizeof old];
    snprintf(line, sizeof line, "%s%s%s", prefix, old[0] ? ": " : "", old);
    copy_escaped(err->where, sizeof err->where, line);
    return code;
}

int error_memory(struct imp_error *err, size_t bytes) {
    return error_set(err, IMP_ERR_MEMORY, NULL, "out of memory (asked for %zu bytes)", bytes);
}

void check_failed(const char *file, int line, const char *expression) {
    fprintf(stderr, "imp: %s:%d: this must hold and does not: %s\n", file, line, expression);
    abort();
}
