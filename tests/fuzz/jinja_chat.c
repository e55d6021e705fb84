/* A template and a conversation, a zero byte between them: the conversation takes the way of a
 * request. What a string's origin is may not change what is rendered. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "text/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_output(const struct jinja_output *out) {
    size_t total = 0;
    for (size_t i = 0; i < out->run_count; i++) {
        check(out->runs[i].bytes > 0);
        check(i == 0 || out->runs[i].message != out->runs[i - 1].message);
        total += out->runs[i].bytes;
    }
    check(total == out->text.size);
    check(utf8_valid(out->text.data ? out->text.data : "", out->text.size));
}

enum { MAX_VARS = 32 };

/* The same with every variable counted as the template's: equal text, no byte of a message. */
static void render_unmarked(const char *source, const struct chat_request *r,
                            const struct jinja_output *want) {
    static const char added[] = "{\"tools\": null, \"documents\": null, \"bos_token\": \"<s>\", "
                                "\"eos_token\": \"</s>\", \"add_generation_prompt\": true}";
    static yyjson_doc *doc;
    struct jinja *t = NULL;
    struct jinja_output out = {0};
    struct jinja_var vars[MAX_VARS];
    size_t n = 0, i, max;
    yyjson_val *key, *value;
    if (doc == NULL) doc = yyjson_read(added, sizeof added - 1, 0);
    if (yyjson_obj_size(r->kwargs) > MAX_VARS - 8) return;
    yyjson_obj_foreach(yyjson_doc_get_root(doc), i, max, key, value) {
        vars[n++] = (struct jinja_var){yyjson_get_str(key), value, false, NULL};
    }
    if (r->tools) vars[n++] = (struct jinja_var){"tools", r->tools, false, NULL};
    vars[n++] = (struct jinja_var){"messages", r->messages, false, NULL};
    yyjson_obj_iter iter = yyjson_obj_iter_with(r->kwargs);
    while ((key = yyjson_obj_iter_next(&iter)) != NULL) {
        value = yyjson_obj_iter_get_val(key);
        vars[n++] = (struct jinja_var){yyjson_get_str(key), value, false, NULL};
    }
    check(jinja_parse(source, strlen(source), "chat template", &t, NULL) == 0);
    if (jinja_render(t, vars, n, &r->clock, &out, NULL) == 0) { /* budgets differ a little */
        check(out.text.size == want->text.size);
        check(out.text.size == 0 || memcmp(out.text.data, want->text.data, out.text.size) == 0);
        check(out.run_count == (out.text.size > 0));
        check(out.run_count == 0 || !out.runs[0].message);
    }
    jinja_output_free(&out);
    jinja_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct chat *chat;
    struct imp_error err = {0};
    yyjson_doc *doc = NULL;
    struct jinja_output out = {0};
    if (chat == NULL) check(chat_load("/nonexistent", &chat, NULL) == 0);
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    if (zero == NULL) return 0;
    const char *source = (const char *)data, *json = (const char *)zero + 1;
    size_t json_size = size - (size_t)(zero + 1 - data);
    if (json_read_exact(json, json_size, "conversation", &doc, &err) < 0) return 0;
    yyjson_val *root = yyjson_doc_get_root(doc), *kwargs = yyjson_obj_get(root, "kwargs");
    struct chat_request r = {.messages = yyjson_obj_get(root, "messages"),
                             .tools = yyjson_obj_get(root, "tools"),
                             .kwargs = yyjson_is_null(kwargs) ? NULL : kwargs,
                             .add_generation_prompt = true,
                             .template_source = source,
                             .bos_token = "<s>",
                             .eos_token = "</s>",
                             .clock = {1767323045, 0}};
    int rc = chat_render(chat, &r, &out, &err);
    if (rc == 0) {
        check_output(&out);
        render_unmarked(source, &r, &out);
    } else {
        check(out.text.data == NULL && out.runs == NULL);
        check(rc == IMP_ERR_TEMPLATE || rc == IMP_ERR_REQUEST);
    }
    jinja_output_free(&out);
    yyjson_doc_free(doc);
    return 0;
}
