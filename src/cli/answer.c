#include "cli/answer.h"

#include "cli/cli.h"

enum { INTERRUPT_LOOK_MS = 50 };

int prompt_from_conversation(const imp_engine *engine, const struct conversation *conversation,
                             const char *template_source, struct prompt *out, imp_error *err) {
    struct str json = {0};
    out->chat = true;
    out->template_source = template_source;
    conversation_add_request(conversation, &json);
    int rc = imp_render_chat(engine, json.data, json.size, template_source, NULL, NULL, &out->ids,
                             &out->count, err);
    str_free(&json);
    return rc;
}

int prompt_from_text(const imp_engine *engine, const char *text, size_t bytes, struct prompt *out,
                     imp_error *err) {
    return imp_tokenize(engine, text, bytes, IMP_TEXT_ADD_SPECIAL, &out->ids, &out->count, err);
}

void prompt_free(struct prompt *prompt) {
    imp_free(prompt->ids);
    *prompt = (struct prompt){0};
}

/* -n is an upper bound: where the context has less room, the context is the bound. A prompt that
 * leaves no room at all is refused by the engine, which says the sum. */
static void request_fill(imp_request *r, const imp_engine *engine, const struct options *options,
                         const struct prompt *prompt) {
    imp_info info;
    imp_info_get(engine, &info);
    imp_request_init(engine, r);
    r->prompt = prompt->ids;
    r->prompt_tokens = prompt->count;
    r->max_tokens = IMP_MAX_TOKENS_REST;
    r->reply_parts = prompt->chat;
    r->chat_template = prompt->template_source;
    if (options_given(options, OPT_MAX_TOKENS)) {
        uint64_t most = options_int(options, OPT_MAX_TOKENS);
        bool fits = prompt->count + most <= info.context_tokens;
        if (fits) r->max_tokens = (uint32_t)most;
    }
    if (options_given(options, OPT_TEMPERATURE)) {
        r->temperature = (float)options_real(options, OPT_TEMPERATURE);
    }
    if (options_given(options, OPT_TOP_P)) r->top_p = (float)options_real(options, OPT_TOP_P);
    if (options_given(options, OPT_TOP_K)) r->top_k = (int32_t)options_int(options, OPT_TOP_K);
    if (options_given(options, OPT_MIN_P)) r->min_p = (float)options_real(options, OPT_MIN_P);
    if (options_given(options, OPT_REPETITION_PENALTY)) {
        r->repetition_penalty = (float)options_real(options, OPT_REPETITION_PENALTY);
    }
    r->presence_penalty = (float)options_real(options, OPT_PRESENCE_PENALTY);
    r->frequency_penalty = (float)options_real(options, OPT_FREQUENCY_PENALTY);
    r->seed = options_int(options, OPT_SEED);
    r->stop = (const char *const *)options->values[OPT_STOP].texts;
    r->stop_count = options->values[OPT_STOP].count;
}

static int answer_done(struct answer *out, const imp_event *event, bool cancelled, bool bounded,
                       imp_error *err) {
    out->prompt_tokens = event->prompt_tokens;
    out->generated_tokens = event->generated_tokens;
    out->prefill_ms = event->prefill_ms;
    out->decode_ms = event->decode_ms;
    if (cancelled) {
        out->end = ANSWER_INTERRUPTED;
    } else if (event->finish == IMP_FINISH_ERROR) {
        *err = event->error;
        return event->error.code;
    } else if (event->finish == IMP_FINISH_LENGTH) {
        out->end = bounded ? ANSWER_AT_MAX_TOKENS : ANSWER_AT_CONTEXT;
    } else {
        out->end = ANSWER_WHOLE;
    }
    return 0;
}

/* ---- parts ---- */

static void add_string(struct str *out, const char *key, const char *text, size_t bytes) {
    str_printf(out, "\"%s\": ", key);
    str_add_json(out, text, bytes);
}

static void take_part(struct answer *a, const imp_event *event) {
    const char *text = event->text;
    size_t bytes = event->text_bytes;
    switch (event->part) {
    case IMP_PART_CONTENT:
        str_add(&a->text, text, bytes);
        break;
    case IMP_PART_REASONING:
        str_add(&a->reasoning, text, bytes);
        break;
    case IMP_PART_CALL:
        str_add_text(&a->calls, a->calls.size > 0 ? ", {" : "{");
        add_string(&a->calls, "name", text, bytes);
        break;
    case IMP_PART_CALL_ID:
        str_add_text(&a->calls, ", ");
        add_string(&a->calls, "id", text, bytes);
        break;
    case IMP_PART_ARGUMENTS:
        str_add(&a->arguments, text, bytes);
        break;
    case IMP_PART_CALL_END:
    case IMP_PART_CALL_CUT:
        str_add_text(&a->calls, ", ");
        add_string(&a->calls, "arguments", a->arguments.size ? a->arguments.data : "",
                   a->arguments.size);
        if (event->part == IMP_PART_CALL_CUT) str_add_text(&a->calls, ", \"broken\": true");
        str_add_char(&a->calls, '}');
        str_clear(&a->arguments);
        break;
    }
}

bool answer_is_empty(const struct answer *a) {
    return a->text.size == 0 && a->reasoning.size == 0 && a->calls.size == 0;
}

int answer_make(imp_engine *engine, const struct options *options, const struct prompt *prompt,
                answer_sink sink, void *ctx, struct answer *out, imp_error *err) {
    imp_request request;
    imp_stream *stream = NULL;
    request_fill(&request, engine, options, prompt);
    int rc = imp_submit(engine, &request, 1, &stream, err);
    if (rc < 0) return rc;
    bool cancelled = false;
    imp_event event = {0};
    do {
        bool got = imp_next(stream, INTERRUPT_LOOK_MS, &event) == 1;
        if (!cancelled && (interrupt_pending() || rc < 0)) {
            imp_cancel(stream);
            cancelled = true;
        }
        /* What was still queued when the user said stop is not shown, and so not remembered. */
        bool silent = event.text_bytes == 0 && event.part == IMP_PART_CONTENT;
        if (!got || cancelled || silent) continue;
        take_part(out, &event);
        rc = sink(ctx, &event, err);
    } while (event.kind != IMP_EVENT_DONE);
    if (rc == 0) {
        rc = answer_done(out, &event, cancelled, request.max_tokens != IMP_MAX_TOKENS_REST, err);
    }
    imp_release(stream);
    return rc;
}

void answer_free(struct answer *answer) {
    str_free(&answer->text);
    str_free(&answer->reasoning);
    str_free(&answer->calls);
    str_free(&answer->arguments);
    *answer = (struct answer){0};
}
