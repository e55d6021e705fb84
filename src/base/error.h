/* Errors that a user or a file can cause: filling a caller's imp_error.
 *
 * Every function that can fail takes `struct imp_error *err` last, returns a negative imp_status,
 * and leaves its out parameters untouched or NULL. err may be NULL. Programmer errors abort through
 * check(). Pure functions of their arguments: any thread. */
#ifndef IMP_BASE_ERROR_H
#define IMP_BASE_ERROR_H

#include <stdarg.h>

#include "imp/imp.h"

/* Fills *err and returns `code`, so that a caller can write `return error_set(err, ...)`. `where`
 * names the place (see imp_error.where) and may be NULL. Bytes that are not printable UTF-8 arrive
 * escaped as \xNN: messages quote names from hostile files. */
int error_set(struct imp_error *err, int code, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Writes "FILE: detail" into a buffer of the size of imp_error.where. A long path loses its front,
 * so that the detail (a tensor, a key, an offset) is there in full. */
void error_place(char out[200], const char *file, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Prefixes the place of an error that a lower layer set: "prefix: old place". Returns err's code.
 */
int error_prefix(struct imp_error *err, int code, const char *prefix);

/* Out of host memory while loading or parsing; returns IMP_ERR_MEMORY. */
int error_memory(struct imp_error *err, size_t bytes);

#if defined(__clang_analyzer__) || defined(IMP_ANALYZER)
/* Analysers look into one file at a time: this tells them that the code comes back as it went in.
 */
#define error_set(err, code, ...) (error_set(err, code, __VA_ARGS__), (code))
#endif

void check_failed(const char *file, int line, const char *expression)
    __attribute__((noreturn, cold));
#define check(expression) ((expression) ? (void)0 : check_failed(__FILE__, __LINE__, #expression))

#endif
