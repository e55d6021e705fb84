/* Conversations to prompts: finding a model's chat template and rendering it.
 *
 * Template: chat_template.jinja beside the config, with additional_chat_templates/tool_use.jinja
 * for requests with tools; else `chat_template` of tokenizer_config.json, else that of
 * chat_template.json (a string, or a named list: `default`, and `tool_use` for tools). Special
 * tokens (bos_token, eos_token, ...) come from tokenizer_config.json, then special_tokens_map.json.
 * Immutable after loading; any thread. */
#ifndef IMP_TEXT_CHAT_H
#define IMP_TEXT_CHAT_H

#include "text/jinja.h"
#include "text/reply.h"
#include "text/tokenizer.h"

struct chat;

/* A folder without a template loads; rendering then is IMP_ERR_TEMPLATE and says where one is
 * looked for. A template that does not parse is an error here. */
int chat_load(const char *folder, struct chat **out, struct imp_error *err);
/* The same of the text of one tokenizer_config.json; `name` stands in messages for the file. */
int chat_parse(const char *json, size_t size, const char *name, struct chat **out,
               struct imp_error *err);
void chat_free(struct chat *chat); /* NULL is fine */
bool chat_has_template(const struct chat *chat);
/* How the model talks, by the template that a request with or without tools is rendered with. */
struct reply_style chat_reply_style(const struct chat *chat, bool tools);

struct chat_request {
    yyjson_val *messages; /* array of objects; anything else is IMP_ERR_REQUEST */
    yyjson_val *tools;    /* array, or NULL */
    yyjson_val *kwargs;   /* object: further template variables, or NULL */
    bool add_generation_prompt;
    const char *template_source;       /* in place of the model's own, or NULL */
    const char *bos_token, *eos_token; /* in place of the model's own, or NULL */
    struct jinja_clock clock;
};

/* kwargs may not replace messages, tools, add_generation_prompt, bos_token, eos_token:
 * IMP_ERR_REQUEST. Origin `message`: everything under messages, tools and
 * kwargs, but for the usual roles. */
int chat_render(const struct chat *chat, const struct chat_request *request,
                struct jinja_output *out, struct imp_error *err);

/* Encodes a rendering: special tokens count only where the template wrote them, or everywhere with
 * special_in_messages. Adds no BOS of its own. */
void chat_encode(const struct tokenizer *t, const struct jinja_output *rendered,
                 bool special_in_messages, struct ids *out);

#endif
