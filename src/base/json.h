/* Strict reading of JSON that comes from files and requests, over yyjson.
 *
 * Beyond RFC 8259 as yyjson checks it: nesting over CAP_JSON_DEPTH and equal keys in one object are
 * errors. The document owns its strings. Getters know the path they are at, so that an error names
 * "$.rope_scaling.factor". Any thread.
 *
 * yyjson_obj_foreach is undefined on NULL (it computes NULL + 1); yyjson_obj_iter is not. */
#ifndef IMP_BASE_JSON_H
#define IMP_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <yyjson.h>

#include "base/str.h"
#include "imp/imp.h"

/* `where` names the file for errors. Free with yyjson_doc_free. */
int json_read(const char *data, size_t size, const char *where, yyjson_doc **out,
              struct imp_error *err);
/* The same, but a number that neither 64 bits nor a double can hold keeps its text (yyjson_is_raw):
 * for values that are passed on. */
int json_read_exact(const char *data, size_t size, const char *where, yyjson_doc **out,
                    struct imp_error *err);
/* json_read from a file of at most cap_bytes. IMP_ERR_IO if it cannot be read. */
int json_read_file(const char *path, size_t cap_bytes, yyjson_doc **out, struct imp_error *err);

struct slice json_slice(yyjson_val *string); /* of a string value */

#endif
