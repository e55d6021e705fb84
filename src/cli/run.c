#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/answer.h"
#include "cli/chat.h"
#include "cli/cli.h"
#include "cli/reply_view.h"
#include "cli/terminal.h"

/* ---- one answer ----------------------------------------------------------------------------- */

static const char *const end_names[] = {
    [ANSWER_WHOLE] = "stop",
    [ANSWER_AT_MAX_TOKENS] = "length",
    [ANSWER_AT_CONTEXT] = "context",
    [ANSWER_INTERRUPTED] = "interrupted",
};

static void add_answer_json(struct str *out, const struct answer *answer) {
    str_add_text(out, "{\"text\": ");
    str_add_json(out, answer->text.size ? answer->text.data : "", answer->text.size);
    if (answer->reasoning.size > 0) {
        str_add_text(out, ", \"reasoning\": ");
        str_add_json(out, answer->reasoning.data, answer->reasoning.size);
    }
    if (answer->calls.size > 0) str_printf(out, ", \"tool_calls\": [%s]", answer->calls.data);
    str_printf(out,
               ", \"finish\": \"%s\", \"prompt_tokens\": %u, \"generated_tokens\": %u, "
               "\"prefill_ms\": %.3f, \"decode_ms\": %.3f}\n",
               end_names[answer->end], answer->prompt_tokens, answer->generated_tokens,
               answer->prefill_ms, answer->decode_ms);
}

static int one_prompt(imp_engine *engine, const struct options *options, const struct str *text,
                      const char *template_source, struct prompt *out, imp_error *err) {
    const char *bytes = text->size ? text->data : "";
    if (options_flag(options, OPT_RAW)) {
        return prompt_from_text(engine, bytes, text->size, out, err);
    }
    struct conversation conversation = {0};
    const char *system = options_text(options, OPT_SYSTEM);
    if (system != NULL) str_add_text(&conversation.system, system);
    conversation_add(&conversation, true, bytes, text->size);
    int rc = prompt_from_conversation(engine, &conversation, template_source, out, err);
    conversation_free(&conversation);
    return rc;
}

static int print_answer(imp_engine *engine, const struct options *options,
                        const struct prompt *prompt, imp_error *err) {
    struct answer answer = {0};
    bool json = options_flag(options, OPT_JSON);
    struct reply_view view;
    reply_view_start(&view, options_flag(options, OPT_RAW), json);
    view.show = options_flag(options, OPT_SHOW_REASONING);
    view.quiet = options_flag(options, OPT_QUIET);
    int rc = answer_make(engine, options, prompt, reply_view_take, &view, &answer, err);
    if (json && rc == 0) {
        add_answer_json(&view.printer.ready, &answer);
        rc = printer_flush(&view.printer, err);
    } else if (rc == 0 || !answer_is_empty(&answer)) {
        int ended = reply_view_end(&view, rc < 0 ? NULL : err);
        if (rc == 0) rc = ended;
    }
    if (rc == 0 && answer.text.size == 0 && answer.reasoning.size > 0 && !answer.calls.size) {
        note(options, "the model ended before it came to an answer");
    }
    if (rc == 0 && answer.end == ANSWER_AT_CONTEXT) note(options, "the context is full");
    if (rc == 0 && answer.end == ANSWER_INTERRUPTED) {
        rc = error_set(err, IMP_ERR_CANCELLED, NULL, "interrupted");
    }
    reply_view_free(&view);
    answer_free(&answer);
    return rc;
}

static int run_once(imp_engine *engine, const struct options *options, const struct str *text,
                    const char *template_source, imp_error *err) {
    struct prompt prompt = {0};
    int rc = one_prompt(engine, options, text, template_source, &prompt, err);
    if (rc == 0) rc = print_answer(engine, options, &prompt, err);
    prompt_free(&prompt);
    return rc;
}

/* ---- the command ---------------------------------------------------------------------------- */

/* The text of -p; else standard input, without the newline that ends its last line. */
static int read_text(const struct options *options, struct str *out, imp_error *err) {
    const char *given = options_text(options, OPT_PROMPT);
    if (given != NULL && strcmp(given, "-") != 0) {
        str_add_text(out, given);
        return 0;
    }
    int rc = read_stdin(out, err);
    if (rc < 0) return rc;
    if (out->size > 0 && out->data[out->size - 1] == '\n') out->data[--out->size] = 0;
    if (out->size == 0) return error_set(err, IMP_ERR_USAGE, "standard input", "holds no prompt");
    return 0;
}

static int read_template(const struct options *options, struct str *out, imp_error *err) {
    const char *path = options_text(options, OPT_CHAT_TEMPLATE);
    if (path == NULL) return 0;
    int rc = file_read(path, CAP_TEMPLATE_BYTES, out, err);
    if (rc < 0) return rc;
    if (out->size == 0) return error_set(err, IMP_ERR_FILE, path, "is empty");
    if (strlen(out->data) == out->size) return 0;
    return error_set(err, IMP_ERR_FILE, path, "holds a zero byte");
}

int command_run(struct options *options, imp_error *err) {
    struct str text = {0}, template = {0}, trace = {0};
    imp_engine *engine = NULL;
    bool chat = !options_given(options, OPT_PROMPT) && terminal_is(stdin) && terminal_is(stdout);
    int rc = 0;
    if (chat && options_flag(options, OPT_JSON)) {
        rc = error_set(err, IMP_ERR_USAGE, "--json", "needs -p or a text on standard input");
    }
    if (rc == 0) rc = read_template(options, &template, err);
    if (rc == 0 && !chat) rc = read_text(options, &text, err);
    if (rc == 0) rc = trace_table_begin(options, &trace, err);
    if (rc == 0) rc = open_model(options, options->arguments[0], false, &engine, err);
    if (rc == 0) {
        interrupt_catch(); /* not before: opening cannot be cancelled, so there it ends imp */
        const char *source = template.size > 0 ? template.data : NULL;
        rc = chat ? chat_run(engine, options, source, err)
                  : run_once(engine, options, &text, source, err);
    }
    imp_close(engine);
    rc = trace_table_end(&trace, rc, err);
    str_free(&text);
    str_free(&template);
    return rc;
}
