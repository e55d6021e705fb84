/* Text calls of the public header: tokens and chat prompts. Any thread. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "engine/engine.h"

void imp_free(void *p) {
    free(p);
}

static void hand_over_ids(struct ids *ids, int32_t **out, size_t *count) {
    *count = ids->count;
    *out = ids->data ? ids->data : mem_alloc(sizeof **out);
}

int imp_tokenize(const struct imp_engine *e, const char *text, size_t bytes, unsigned flags,
                 int32_t **ids, size_t *count, struct imp_error *err) {
    (void)err;
    unsigned tokenizer_flags = (flags & IMP_TEXT_PLAIN ? TOKENIZE_PLAIN : 0) |
                               (flags & IMP_TEXT_ADD_SPECIAL ? TOKENIZE_ADD_SPECIAL : 0);
    struct ids encoded = {0};
    tokenizer_encode(e->tokenizer, text, bytes, NULL, 0, tokenizer_flags, &encoded);
    hand_over_ids(&encoded, ids, count);
    return 0;
}

int imp_detokenize(const struct imp_engine *e, const int32_t *ids, size_t count, int skip_special,
                   char **text, size_t *bytes, struct imp_error *err) {
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0)
            return error_set(err, IMP_ERR_REQUEST, NULL, "token id %d at place %zu is negative",
                             ids[i], i);
    }
    struct str out = {0};
    tokenizer_decode(e->tokenizer, ids, count, skip_special != 0, &out);
    *bytes = out.size;
    *text = str_take(&out);
    return 0;
}

/* ---- chat ---- */

static int member_error(struct imp_error *err, const char *key, const char *type) {
    return error_set(err, IMP_ERR_REQUEST, key, "$.%s must be %s", key, type);
}

static int optional_string(yyjson_val *root, const char *key, const char **out,
                           struct imp_error *err) {
    yyjson_val *v = yyjson_obj_get(root, key);
    if (v == NULL || yyjson_is_null(v)) return 0;
    if (!yyjson_is_str(v)) return member_error(err, key, "a string");
    *out = yyjson_get_str(v);
    return 0;
}

/* strftime_now: seconds since 1970, or "2026-01-31T12:00:00". */
static int conversation_clock(const struct imp_engine *e, yyjson_val *root,
                              struct jinja_clock *clock, struct imp_error *err) {
    struct imp_options moment = e->options;
    yyjson_val *v = yyjson_obj_get(root, "strftime_now");
    if (yyjson_is_int(v)) {
        clock->now = yyjson_get_sint(v);
        return 0;
    }
    if (yyjson_is_str(v)) {
        if (imp_options_set(&moment, "text.now", yyjson_get_str(v), NULL) < 0)
            return member_error(err, "strftime_now", "a time as 2026-01-31T12:00:00");
    } else if (v && !yyjson_is_null(v)) {
        return member_error(err, "strftime_now", "a time as 2026-01-31T12:00:00");
    }
    int64_t now = moment.value[SETTING_NOW];
    if (now != INT64_MIN) {
        clock->now = now;
        return 0;
    }
    time_t t = time(NULL);
    struct tm local;
    localtime_r(&t, &local);
    clock->now = (int64_t)t;
    clock->utc_offset = (int32_t)local.tm_gmtoff;
    return 0;
}

static int read_conversation(const struct imp_engine *e, yyjson_val *root, struct chat_request *out,
                             struct imp_error *err) {
    if (!yyjson_is_obj(root)) return member_error(err, "", "an object");
    out->messages = yyjson_obj_get(root, "messages");
    out->tools = yyjson_obj_get(root, "tools");
    out->kwargs = yyjson_obj_get(root, "kwargs");
    yyjson_val *prompt = yyjson_obj_get(root, "add_generation_prompt");
    if (!yyjson_is_arr(out->messages)) return member_error(err, "messages", "an array");
    if (yyjson_is_null(out->tools)) out->tools = NULL;
    if (yyjson_is_null(out->kwargs)) out->kwargs = NULL;
    if (out->tools && !yyjson_is_arr(out->tools)) return member_error(err, "tools", "an array");
    if (out->kwargs && !yyjson_is_obj(out->kwargs)) return member_error(err, "kwargs", "an object");
    if (prompt && !yyjson_is_bool(prompt) && !yyjson_is_null(prompt))
        return member_error(err, "add_generation_prompt", "true or false");
    out->add_generation_prompt = yyjson_get_bool(prompt);
    int rc;
    if ((rc = optional_string(root, "bos_token", &out->bos_token, err)) < 0 ||
        (rc = optional_string(root, "eos_token", &out->eos_token, err)) < 0)
        return rc;
    return conversation_clock(e, root, &out->clock, err);
}

int imp_render_chat(const struct imp_engine *e, const char *json, size_t json_bytes,
                    const char *template_source, char **text, size_t *bytes, int32_t **ids,
                    size_t *count, struct imp_error *err) {
    yyjson_doc *doc = NULL;
    struct chat_request request = {.template_source = template_source};
    struct jinja_output rendered = {0};
    int rc = json_read_exact(json, json_bytes, "conversation", &doc, err);
    if (rc < 0) return err ? (err->code = IMP_ERR_REQUEST) : IMP_ERR_REQUEST;
    rc = read_conversation(e, yyjson_doc_get_root(doc), &request, err);
    if (rc == 0) rc = chat_render(e->chat, &request, &rendered, err);
    if (rc == 0 && ids) {
        struct ids encoded = {0};
        chat_encode(e->tokenizer, &rendered, e->options.value[SETTING_SPECIAL_IN_MESSAGES] != 0,
                    &encoded);
        hand_over_ids(&encoded, ids, count);
    }
    if (rc == 0 && text) {
        *bytes = rendered.text.size;
        *text = str_take(&rendered.text);
    }
    jinja_output_free(&rendered);
    yyjson_doc_free(doc);
    return rc;
}
