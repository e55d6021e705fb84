#include "cli/conversation.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "cli/cli.h"

enum { SAVED_CAP_BYTES = 64 << 20 };

void conversation_add(struct conversation *c, bool from_user, const char *text, size_t bytes) {
    if (c->count == c->capacity) {
        c->capacity = c->capacity ? 2 * c->capacity : 16;
        c->turns = mem_grow(c->turns, c->capacity * sizeof *c->turns);
    }
    c->turns[c->count] = (struct turn){.from_user = from_user};
    str_add(&c->turns[c->count++].text, text, bytes);
}

void conversation_add_reasoning(struct conversation *c, const char *text, size_t bytes) {
    check(c->count > 0);
    str_add(&c->turns[c->count - 1].reasoning, text, bytes);
}

void conversation_drop_last(struct conversation *c) {
    check(c->count > 0);
    str_free(&c->turns[c->count - 1].reasoning);
    str_free(&c->turns[--c->count].text);
}

void conversation_clear(struct conversation *c) {
    while (c->count > 0) conversation_drop_last(c);
}

void conversation_free(struct conversation *c) {
    conversation_clear(c);
    free(c->turns);
    str_free(&c->system);
    *c = (struct conversation){0};
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static void add_message(struct str *out, const char *role, const struct str *text,
                        const struct str *reasoning) {
    str_printf(out, "\n  {\"role\": \"%s\", \"content\": ", role);
    str_add_json(out, text->size ? text->data : "", text->size);
    if (reasoning && reasoning->size > 0) {
        str_add_text(out, ", \"reasoning_content\": ");
        str_add_json(out, reasoning->data, reasoning->size);
    }
    str_add_char(out, '}');
}

static void add_turns(const struct conversation *c, struct str *out, bool first) {
    for (size_t i = 0; i < c->count; i++) {
        if (!first || i > 0) str_add_char(out, ',');
        const struct turn *t = &c->turns[i];
        add_message(out, t->from_user ? "user" : "assistant", &t->text, &t->reasoning);
    }
}

void conversation_add_request(const struct conversation *c, struct str *out) {
    str_add_text(out, "{\"messages\": [");
    if (c->system.size > 0) add_message(out, "system", &c->system, NULL);
    add_turns(c, out, c->system.size == 0);
    str_add_text(out, "], \"add_generation_prompt\": true}");
}

int conversation_save(const struct conversation *c, const char *path, imp_error *err) {
    struct str text = {0};
    str_add_text(&text, "{\"system\": ");
    str_add_json(&text, c->system.size ? c->system.data : "", c->system.size);
    str_add_text(&text, ",\n \"messages\": [");
    add_turns(c, &text, true);
    str_add_text(&text, "\n ]}\n");
    struct out_file file;
    int rc = out_file_open(&file, path, err);
    if (rc == 0) {
        fwrite(text.data, 1, text.size, file.stream);
        rc = out_file_close(&file, err);
    }
    out_file_drop(&file);
    str_free(&text);
    return rc;
}

static int read_message(struct conversation *c, size_t i, yyjson_val *item, const char *path,
                        imp_error *err) {
    yyjson_val *content = yyjson_obj_get(item, "content");
    yyjson_val *role = yyjson_obj_get(item, "role");
    if (!yyjson_is_str(content)) {
        return error_set(err, IMP_ERR_FILE, path, "$.messages[%zu].content must be a string", i);
    }
    struct slice text = json_slice(content);
    if (yyjson_equals_str(role, "system") && i == 0 && c->system.size == 0) {
        str_add(&c->system, text.data, text.size);
        return 0;
    }
    bool from_user = yyjson_equals_str(role, "user");
    if (!from_user && !yyjson_equals_str(role, "assistant")) {
        return error_set(err, IMP_ERR_FILE, path,
                         "$.messages[%zu].role must be \"user\" or \"assistant\"", i);
    }
    conversation_add(c, from_user, text.data, text.size);
    yyjson_val *reasoning = yyjson_obj_get(item, "reasoning_content");
    if (!from_user && yyjson_is_str(reasoning)) {
        struct slice thought = json_slice(reasoning);
        conversation_add_reasoning(c, thought.data, thought.size);
    }
    return 0;
}

static int read_saved(struct conversation *c, yyjson_val *root, const char *path, imp_error *err) {
    yyjson_val *system = yyjson_obj_get(root, "system"), *item;
    yyjson_val *messages = yyjson_obj_get(root, "messages");
    if (system != NULL && !yyjson_is_null(system) && !yyjson_is_str(system)) {
        return error_set(err, IMP_ERR_FILE, path, "$.system must be a string");
    }
    if (!yyjson_is_arr(messages)) {
        return error_set(err, IMP_ERR_FILE, path, "$.messages must be an array");
    }
    if (yyjson_is_str(system)) {
        struct slice text = json_slice(system);
        str_add(&c->system, text.data, text.size);
    }
    size_t i, n;
    yyjson_arr_foreach(messages, i, n, item) {
        int rc = read_message(c, i, item, path, err);
        if (rc < 0) return rc;
    }
    return 0;
}

int conversation_load(struct conversation *c, const char *path, imp_error *err) {
    yyjson_doc *doc;
    struct conversation loaded = {0};
    int rc = json_read_file(path, SAVED_CAP_BYTES, &doc, err);
    if (rc < 0) return rc;
    rc = read_saved(&loaded, yyjson_doc_get_root(doc), path, err);
    yyjson_doc_free(doc);
    if (rc < 0) {
        conversation_free(&loaded);
        return rc;
    }
    conversation_free(c);
    *c = loaded;
    return 0;
}
