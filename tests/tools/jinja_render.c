/* Renders programs for tests/python/test_jinja_programs.py: a file whose first line holds the
 * variables and every other a "source"; prints a line of JSON for each, "text" or "error". */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "text/jinja.h"

enum { MAX_VARS = 64 };

static void answer(yyjson_val *source, const struct jinja_var *vars, size_t count) {
    const struct jinja_clock clock = {1767323045, 0}; /* 2026-01-02 03:04:05 UTC */
    struct jinja *t = NULL;
    struct jinja_output out = {0};
    struct imp_error err = {0};
    struct str line = {0};
    int rc = jinja_parse(yyjson_get_str(source), yyjson_get_len(source), "program", &t, &err);
    if (rc == 0) rc = jinja_render(t, vars, count, &clock, &out, &err);
    if (rc == 0) {
        str_add_text(&line, "{\"text\": ");
        str_add_json(&line, out.text.data ? out.text.data : "", out.text.size);
    } else {
        str_add_text(&line, "{\"error\": ");
        str_add_json(&line, err.message, strlen(err.message));
    }
    str_add_text(&line, "}\n");
    fwrite(line.data, 1, line.size, stdout);
    str_free(&line);
    jinja_output_free(&out);
    jinja_free(t);
}

int main(int argc, char **argv) {
    struct str file = {0};
    struct imp_error err = {0};
    yyjson_doc *first = NULL;
    struct jinja_var vars[MAX_VARS];
    size_t n = 0, i, max;
    yyjson_val *key, *value;
    if (argc != 2 || file_read(argv[1], 256u << 20, &file, &err) < 0) {
        fprintf(stderr, "jinja_render FILE: %s\n", err.message);
        return 1;
    }
    for (char *line = file.data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        yyjson_doc *doc = NULL;
        if (json_read_exact(line, (size_t)(end - line), "line", &doc, &err) < 0) {
            fprintf(stderr, "jinja_render: %s: %s\n", err.where, err.message);
            return 1;
        }
        yyjson_val *row = yyjson_doc_get_root(doc);
        if (first) {
            answer(yyjson_obj_get(row, "source"), vars, n);
            yyjson_doc_free(doc);
            continue;
        }
        first = doc;
        yyjson_obj_foreach(yyjson_obj_get(row, "vars"), i, max, key, value) {
            if (n < MAX_VARS)
                vars[n++] = (struct jinja_var){yyjson_get_str(key), value, false, NULL};
        }
    }
    yyjson_doc_free(first);
    str_free(&file);
    return 0;
}
