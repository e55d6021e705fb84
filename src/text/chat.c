#include "text/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"

/* The names of special tokens that templates may read. */
static const char *const token_names[] = {"bos_token", "eos_token", "pad_token", "unk_token",
                                          "sep_token", "cls_token", "mask_token"};
enum { TOKEN_NAMES = sizeof token_names / sizeof *token_names, BOS = 0, EOS = 1 };

struct chat {
    struct jinja *normal, *tool_use; /* tool_use: NULL if there is one template for all */
    struct reply_style normal_style, tool_style;
    char *folder;
    char *tokens[TOKEN_NAMES]; /* NULL: not known */
};

static void join_path(char *out, size_t size, const char *folder, const char *file) {
    snprintf(out, size, "%s/%s", folder, file);
}

/* A token is written as a string, or as an object with its `content`. */
static void take_tokens(struct chat *chat, yyjson_val *object) {
    for (int i = 0; i < TOKEN_NAMES; i++) {
        yyjson_val *v = yyjson_obj_get(object, token_names[i]);
        if (yyjson_is_obj(v)) v = yyjson_obj_get(v, "content");
        if (!yyjson_is_str(v) || chat->tokens[i]) continue;
        chat->tokens[i] = mem_strndup(yyjson_get_str(v), yyjson_get_len(v));
    }
}

static int parse_template(struct chat *chat, struct slice text, const char *where,
                          struct jinja **out, struct imp_error *err) {
    struct reply_style *style = out == &chat->normal ? &chat->normal_style : &chat->tool_style;
    *style = reply_style_of(text);
    return jinja_parse(text.data, text.size, where, out, err);
}

static int parse_named_list(struct chat *chat, yyjson_val *list, const char *where,
                            struct imp_error *err) {
    size_t i, n;
    yyjson_val *item;
    int rc = 0;
    yyjson_arr_foreach(list, i, n, item) {
        yyjson_val *name = yyjson_obj_get(item, "name"), *text = yyjson_obj_get(item, "template");
        char place[200];
        snprintf(place, sizeof place, "%.150s: $.chat_template[%zu]", where, i);
        if (!yyjson_is_str(name) || !yyjson_is_str(text)) {
            return error_set(err, IMP_ERR_FILE, place, "not an object with name and template");
        }
        struct jinja **out = NULL;
        if (yyjson_equals_str(name, "default")) out = &chat->normal;
        if (yyjson_equals_str(name, "tool_use")) out = &chat->tool_use;
        if (out == NULL) continue; /* templates for other purposes ("rag") are never chosen */
        if (*out) return error_set(err, IMP_ERR_FILE, place, "the second template of that name");
        rc = parse_template(chat, json_slice(text), place, out, err);
        if (rc < 0) return rc;
    }
    return rc;
}

static int take_object(struct chat *chat, yyjson_val *root, const char *path,
                       struct imp_error *err) {
    yyjson_val *text = yyjson_obj_get(root, "chat_template");
    char place[200];
    int rc;
    snprintf(place, sizeof place, "%.150s: $.chat_template", path);
    take_tokens(chat, root);
    if (chat_has_template(chat) || text == NULL || yyjson_is_null(text)) {
        rc = 0;
    } else if (yyjson_is_str(text)) {
        rc = parse_template(chat, json_slice(text), place, &chat->normal, err);
    } else if (yyjson_is_arr(text)) {
        rc = parse_named_list(chat, text, path, err);
    } else {
        rc = error_set(err, IMP_ERR_FILE, place, "neither a string nor a list of named templates");
    }
    return rc;
}

static int take_config(struct chat *chat, const char *path, struct imp_error *err) {
    yyjson_doc *doc = NULL;
    if (!file_exists(path)) return 0;
    int rc = json_read_file(path, CAP_CONFIG_BYTES, &doc, err);
    if (rc < 0) return rc;
    rc = take_object(chat, yyjson_doc_get_root(doc), path, err);
    yyjson_doc_free(doc);
    return rc;
}

static int take_file(struct chat *chat, const char *path, struct jinja **out,
                     struct imp_error *err) {
    struct str text = {0};
    if (!file_exists(path)) return 0;
    int rc = file_read(path, CAP_TEMPLATE_BYTES, &text, err);
    struct slice source = {text.data ? text.data : "", text.size};
    if (rc == 0) rc = parse_template(chat, source, path, out, err);
    str_free(&text);
    return rc;
}

static int take_token_map(struct chat *chat, const char *path, struct imp_error *err) {
    yyjson_doc *doc = NULL;
    if (!file_exists(path)) return 0;
    int rc = json_read_file(path, CAP_CONFIG_BYTES, &doc, err);
    if (rc < 0) return rc;
    take_tokens(chat, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    return 0;
}

int chat_parse(const char *json, size_t size, const char *name, struct chat **out,
               struct imp_error *err) {
    yyjson_doc *doc = NULL;
    int rc = json_read(json, size, name, &doc, err);
    if (rc < 0) return rc;
    struct chat *chat = mem_zero(1, sizeof *chat);
    chat->folder = mem_strndup(name, strlen(name));
    rc = take_object(chat, yyjson_doc_get_root(doc), name, err);
    yyjson_doc_free(doc);
    if (rc < 0) {
        chat_free(chat);
        return rc;
    }
    *out = chat;
    return 0;
}

int chat_load(const char *folder, struct chat **out, struct imp_error *err) {
    char path[4096];
    struct chat *chat = mem_zero(1, sizeof *chat);
    chat->folder = mem_strndup(folder, strlen(folder));
    join_path(path, sizeof path, folder, "chat_template.jinja");
    int rc = take_file(chat, path, &chat->normal, err);
    join_path(path, sizeof path, folder, "additional_chat_templates/tool_use.jinja");
    if (rc == 0 && chat->normal) rc = take_file(chat, path, &chat->tool_use, err);
    join_path(path, sizeof path, folder, "tokenizer_config.json");
    if (rc == 0) rc = take_config(chat, path, err);
    join_path(path, sizeof path, folder, "chat_template.json"); /* beside a processor */
    if (rc == 0) rc = take_config(chat, path, err);
    join_path(path, sizeof path, folder, "special_tokens_map.json");
    if (rc == 0) rc = take_token_map(chat, path, err);
    if (rc < 0) {
        chat_free(chat);
        return rc;
    }
    *out = chat;
    return 0;
}

void chat_free(struct chat *chat) {
    if (chat == NULL) return;
    jinja_free(chat->normal);
    jinja_free(chat->tool_use);
    for (int i = 0; i < TOKEN_NAMES; i++) free(chat->tokens[i]);
    free(chat->folder);
    free(chat);
}

struct reply_style chat_reply_style(const struct chat *chat, bool tools) {
    bool second = chat->tool_use && (tools || chat->normal == NULL);
    return second ? chat->tool_style : chat->normal_style;
}

bool chat_has_template(const struct chat *chat) {
    return chat->normal != NULL || chat->tool_use != NULL;
}

/* ---- rendering ---- */

/* A client may send any role; only these can be part of a special token. */
static const char *const roles[] = {"system", "developer", "user", "assistant",
                                    "tool",   "function",  NULL};

/* Variables of one rendering; the document owns those that the request did not bring. */
struct variables {
    yyjson_mut_doc *made;
    yyjson_doc *doc;
    struct jinja_var *v;
    size_t count;
};

static int check_request(const struct chat_request *r, struct imp_error *err) {
    static const char *const fixed[] = {"messages", "tools", "add_generation_prompt", "bos_token",
                                        "eos_token"};
    size_t i, n;
    yyjson_val *key, *value;
    if (!yyjson_is_arr(r->messages)) {
        return error_set(err, IMP_ERR_REQUEST, "$.messages", "not an array");
    }
    yyjson_arr_foreach(r->messages, i, n, value) {
        char where[64];
        snprintf(where, sizeof where, "$.messages[%zu]", i);
        if (!yyjson_is_obj(value)) return error_set(err, IMP_ERR_REQUEST, where, "not an object");
    }
    if (r->tools && !yyjson_is_null(r->tools) && !yyjson_is_arr(r->tools)) {
        return error_set(err, IMP_ERR_REQUEST, "$.tools", "not an array");
    }
    if (r->kwargs == NULL || yyjson_is_null(r->kwargs)) return 0;
    if (!yyjson_is_obj(r->kwargs)) {
        return error_set(err, IMP_ERR_REQUEST, "$.kwargs", "not an object");
    }
    yyjson_obj_foreach(r->kwargs, i, n, key, value) {
        for (size_t k = 0; k < sizeof fixed / sizeof *fixed; k++) {
            if (!yyjson_equals_str(key, fixed[k])) continue;
            return error_set(err, IMP_ERR_REQUEST, "$.kwargs", "\"%s\" cannot be replaced",
                             fixed[k]);
        }
        struct slice name = json_slice(key);
        if (name.size > 0 && memchr(name.data, 0, name.size)) {
            return error_set(err, IMP_ERR_REQUEST, "$.kwargs", "a name with a zero byte");
        }
    }
    return 0;
}

static const char *token_text(const struct chat *chat, const struct chat_request *r, int i) {
    if (i == BOS && r->bos_token) return r->bos_token;
    if (i == EOS && r->eos_token) return r->eos_token;
    return chat->tokens[i];
}

/* The order decides nothing: check_request sees to it that no name comes twice, but for `documents`
 * and the rarer tokens, where the first found counts and kwargs come first. */
static void make_variables(const struct chat *chat, const struct chat_request *r,
                           struct variables *out) {
    size_t extra = r->kwargs ? yyjson_obj_size(r->kwargs) : 0, i, n;
    yyjson_val *key, *value;
    out->made = yyjson_mut_doc_new(NULL);
    check(out->made != NULL);
    yyjson_mut_val *root = yyjson_mut_obj(out->made);
    yyjson_mut_doc_set_root(out->made, root);
    yyjson_mut_obj_add_null(out->made, root, "tools");
    yyjson_mut_obj_add_null(out->made, root, "documents");
    yyjson_mut_obj_add_bool(out->made, root, "add_generation_prompt", r->add_generation_prompt);
    for (int t = 0; t < TOKEN_NAMES; t++) {
        const char *text = token_text(chat, r, t);
        if (text) yyjson_mut_obj_add_str(out->made, root, token_names[t], text);
    }
    out->doc = yyjson_mut_doc_imut_copy(out->made, NULL);
    check(out->doc != NULL);
    out->v = mem_zero(extra + TOKEN_NAMES + 8, sizeof *out->v);
    yyjson_val *made = yyjson_doc_get_root(out->doc);
    yyjson_obj_foreach(made, i, n, key, value) {
        const char *name = yyjson_get_str(key);
        bool tools = strcmp(name, "tools") == 0 && r->tools;
        out->v[out->count++] = (struct jinja_var){name, tools ? r->tools : value, tools, NULL};
    }
    out->v[out->count++] = (struct jinja_var){"messages", r->messages, true, roles};
    if (extra == 0) return;
    yyjson_obj_foreach(r->kwargs, i, n, key, value) {
        out->v[out->count++] = (struct jinja_var){yyjson_get_str(key), value, true, NULL};
    }
}

static void free_variables(struct variables *v) {
    yyjson_mut_doc_free(v->made);
    yyjson_doc_free(v->doc);
    free(v->v);
}

static const struct jinja *choose_template(const struct chat *chat, const struct chat_request *r) {
    bool tools = r->tools && yyjson_arr_size(r->tools) > 0;
    if (chat->tool_use && (tools || chat->normal == NULL)) return chat->tool_use;
    return chat->normal;
}

int chat_render(const struct chat *chat, const struct chat_request *request,
                struct jinja_output *out, struct imp_error *err) {
    struct jinja *own = NULL;
    int rc = check_request(request, err);
    if (rc < 0) return rc;
    const struct jinja *t = choose_template(chat, request);
    if (request->template_source) {
        const char *source = request->template_source;
        rc = jinja_parse(source, strlen(source), "chat template", &own, err);
        if (rc < 0) return rc;
        t = own;
    }
    if (t == NULL) {
        return error_set(err, IMP_ERR_TEMPLATE, chat->folder,
                         "the model has no chat template: neither chat_template.jinja nor "
                         "chat_template in tokenizer_config.json or chat_template.json");
    }
    struct variables v = {0};
    make_variables(chat, request, &v);
    rc = jinja_render(t, v.v, v.count, &request->clock, out, err);
    free_variables(&v);
    jinja_free(own);
    return rc;
}
