/* Any text as a template, rendered with a small fixed conversation. Seeds:
 * tests/data/chat-templates and the sources of tests/data/jinja/programs.jsonl. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char context[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"hi <|x|> é\"}, {\"role\": \"assistant\", "
    "\"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": "
    "[1, 2.5, true, null]}}}]}], \"tools\": [{\"type\": \"function\"}], \"s\": \"text, é\", "
    "\"i\": 7, \"l\": [3, 1, 2], \"d\": {\"a\": 1}, \"bos_token\": \"<s>\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static yyjson_doc *doc;
    if (doc == NULL) doc = yyjson_read(context, sizeof context - 1, 0);
    struct jinja_var vars[8];
    size_t n = 0, i, max, total = 0;
    yyjson_val *key, *value;
    yyjson_obj_foreach(yyjson_doc_get_root(doc), i, max, key, value) {
        vars[n++] = (struct jinja_var){yyjson_get_str(key), value, i < 2, NULL};
    }
    struct jinja *t = NULL;
    struct jinja_output out = {0};
    struct imp_error err = {0};
    const struct jinja_clock clock = {1767323045, 0};
    if (jinja_parse((const char *)data, size, "fuzz", &t, &err) == 0) {
        if (jinja_render(t, vars, n, &clock, &out, &err) == 0) {
            for (i = 0; i < out.run_count; i++) total += out.runs[i].bytes;
            check(total == out.text.size);
            check(utf8_valid(out.text.data, out.text.size));
        } else {
            check(out.text.data == NULL && err.code == IMP_ERR_TEMPLATE);
        }
    }
    jinja_output_free(&out);
    jinja_free(t);
    return 0;
}
