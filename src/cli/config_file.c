#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/options.h"

struct reading {
    config_fn set;
    void *ctx;
    imp_error error;
    int status;
};

static int handle(void *ctx, const char *section, const char *name, const char *value) {
    struct reading *reading = ctx;
    if (reading->status < 0) return 0; /* only the first mistake is told */
    if (section[0] == 0) {
        reading->status =
            error_set(&reading->error, IMP_ERR_USAGE, name, "stands before the first [section]");
    } else {
        reading->status =
            reading->set(reading->ctx, section, name, value ? value : "", &reading->error);
    }
    return reading->status == 0;
}

/* inih cuts lines that are longer than its buffer and takes an indented line for the rest of the
 * value above. Both would change a value in silence, so both are refused here. */
static int check_lines(const char *path, const struct str *text, imp_error *err) {
    size_t line = 1;
    for (size_t i = 0; i < text->size; line++) {
        const char *start = text->data + i, *end = memchr(start, '\n', text->size - i);
        size_t length = end ? (size_t)(end - start) : text->size - i;
        char where[sizeof err->where];
        snprintf(where, sizeof where, "%s: line %zu", path, line);
        if (length > INI_MAX_LINE - 2) {
            return error_set(err, IMP_ERR_USAGE, where, "longer than %d bytes", INI_MAX_LINE - 2);
        }
        if (memchr(start, 0, length) != NULL) {
            return error_set(err, IMP_ERR_USAGE, where, "holds a zero byte");
        }
        size_t blank = 0;
        while (blank < length && strchr(" \t\r", start[blank])) blank++;
        if (blank > 0 && blank < length && start[blank] != ';' && start[blank] != '#') {
            return error_set(err, IMP_ERR_USAGE, where, "starts with a blank");
        }
        i += length + 1;
    }
    return 0;
}

int config_file_read(const char *path, config_fn set, void *ctx, imp_error *err) {
    struct str text = {0};
    int rc = file_read(path, CAP_CONFIG_BYTES, &text, err);
    if (rc == 0) rc = check_lines(path, &text, err);
    if (rc == 0) {
        struct reading reading = {.set = set, .ctx = ctx};
        int line = ini_parse_string(text.data, handle, &reading);
        char where[64 + sizeof err->where];
        snprintf(where, sizeof where, "%s: line %d", path, line);
        if (reading.status < 0) {
            if (err) *err = reading.error;
            rc = error_prefix(err, reading.status, where);
        } else if (line != 0) {
            rc = error_set(err, IMP_ERR_USAGE, where, "neither a [section] nor KEY = VALUE");
        }
    }
    str_free(&text);
    return rc;
}
