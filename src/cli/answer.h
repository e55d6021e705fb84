/* One answer of the model: a prompt turned into ids, submitted, and its text handed on as it comes.
 *
 * An interrupt (cli.h) cancels the answer; what was handed on until then stays in answer.text.
 * A zeroed struct answer is empty; answer_free frees it. One thread. */
#ifndef IMP_CLI_ANSWER_H
#define IMP_CLI_ANSWER_H

#include <stdbool.h>

#include "base/str.h"
#include "cli/conversation.h"
#include "cli/options.h"
#include "imp/imp.h"

struct prompt {
    int32_t *ids; /* from the library: prompt_free */
    size_t count;
    bool chat;                   /* made by a chat template: the reply has parts */
    const char *template_source; /* borrowed; NULL: the model's own */
};

/* template_source NULL: the model's own. */
int prompt_from_conversation(const imp_engine *engine, const struct conversation *conversation,
                             const char *template_source, struct prompt *out, imp_error *err);
int prompt_from_text(const imp_engine *engine, const char *text, size_t bytes, struct prompt *out,
                     imp_error *err);
void prompt_free(struct prompt *prompt);

enum answer_end { ANSWER_WHOLE, ANSWER_AT_MAX_TOKENS, ANSWER_AT_CONTEXT, ANSWER_INTERRUPTED };

struct answer {
    struct str text;      /* the content: what is said to the user */
    struct str reasoning; /* what the model thought before it */
    struct str calls;     /* its tool calls, objects of JSON with commas between */
    struct str arguments; /* of the call that is coming; id and name stand in calls already */
    enum answer_end end;
    uint32_t prompt_tokens, generated_tokens;
    double prefill_ms, decode_ms;
};

/* Takes events with a part of the reply as they come; a negative status ends the answer. */
typedef int (*answer_sink)(void *ctx, const imp_event *event, imp_error *err);

/* Sampling comes from the options where given, else from the model's generation_config.json. */
int answer_make(imp_engine *engine, const struct options *options, const struct prompt *prompt,
                answer_sink sink, void *ctx, struct answer *out, imp_error *err);
bool answer_is_empty(const struct answer *answer); /* nothing was said, thought or called */
void answer_free(struct answer *answer);

#endif
