/* A message that a chat template wrote as the model would have said it, read back: the same
 * message, and the same text when the template writes it once more. Every template of
 * tests/data/chat-templates (and of $IMP_MORE_TEMPLATES, for those that may not be kept here) with
 * every message of tests/data/reply/round_trip.json. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "support/reply_print.h"
#include "text/jinja.h"
#include "text/json_scan.h"

/* What a template does not keep, and so cannot come back. Names end at a '*'. */
static const struct exception {
    const char *template_name, *case_id, *why;
} exceptions[] = {
    {"gpt-oss-*", "content and *", "content beside a call is written as reasoning"},
    {"gpt-oss-*", "reasoning, content and call", "refuses both beside a call"},
    {"gpt-oss-*", "two calls", "writes the first call only"},
    {"DeepSeek-V3*", "*",
     "closes a <think> in the message that its prompt closed or opened already"},
    {"DeepSeek-R1-Distill-Qwen-32B.llama.cpp-2026-03.jinja", "*",
     "writes no <think> but in a prompt"},
    {"Apertus-8B-Instruct.jinja", "*", "asks tools for what ours do not have"},
    {"rwkv-world.jinja", "*", "a blank in the message that is not in the prompt"},
    {"mistral-common-v3.jinja", "*", "escapes a call's quotes as HTML"},
    {"mistral-common-v7.jinja", "*", "escapes a call's quotes as HTML"},
    {"Llama-3*", "two calls", "refuses more than one call"},
    {"Llama-3*", "content and three calls", "refuses more than one call"},
    {"Llama-3*", "content and call", "leaves out content beside a call"},
    {"Hermes-3*", "*", "calls itself without end on these tools"},
    {"Nemotron-Nano-v2.jinja", "*", "opens <think> in the prompt, never in a message"},
    {"functionary*", "*", "names a recipient before the text"},
    {NULL, NULL, NULL},
};

struct message {
    struct str content, reasoning, tool_calls; /* tool_calls: objects of JSON, commas between */
    size_t calls;
};

static yyjson_doc *data;
static int tried, kept, refused, excused;

static void message_free(struct message *m) {
    str_free(&m->content);
    str_free(&m->reasoning);
    str_free(&m->tool_calls);
    *m = (struct message){0};
}

static void add_call(struct message *m, struct slice name, struct slice arguments) {
    str_printf(&m->tool_calls,
               "%s{\"id\": \"call%05zu\", \"type\": \"function\", \"function\": "
               "{\"name\": ",
               m->calls ? ", " : "", m->calls + 1);
    m->calls++;
    str_add_json(&m->tool_calls, name.data, name.size);
    str_add_text(&m->tool_calls, ", \"arguments\": ");
    str_add(&m->tool_calls, arguments.data, arguments.size);
    str_add_text(&m->tool_calls, "}}");
}

static void message_of_case(yyjson_val *c, struct message *m) {
    yyjson_val *content = yyjson_obj_get(c, "content"), *reasoning = yyjson_obj_get(c, "reasoning");
    yyjson_val *calls = yyjson_obj_get(c, "calls"), *call;
    size_t i, n;
    if (content) str_add(&m->content, yyjson_get_str(content), yyjson_get_len(content));
    if (reasoning) str_add(&m->reasoning, yyjson_get_str(reasoning), yyjson_get_len(reasoning));
    if (calls == NULL) return;
    yyjson_arr_foreach(calls, i, n, call) {
        size_t bytes;
        char *text = yyjson_val_write(yyjson_obj_get(call, "arguments"), 0, &bytes);
        add_call(m, json_slice(yyjson_obj_get(call, "name")), (struct slice){text, bytes});
        free(text);
    }
}

static bool parts_to_message(const struct reply_parts *p, struct message *m) {
    struct slice name = {"", 0}, arguments = {"", 0};
    const char *at = p->text.data;
    for (size_t i = 0; i < p->count; at += p->part[i++].bytes) {
        struct slice text = {at, p->part[i].bytes};
        switch (p->part[i].kind) {
        case IMP_PART_CONTENT:
            str_add(&m->content, text.data, text.size);
            break;
        case IMP_PART_REASONING:
            str_add(&m->reasoning, text.data, text.size);
            break;
        case IMP_PART_CALL:
            name = text;
            break;
        case IMP_PART_ARGUMENTS:
            arguments = text;
            break;
        case IMP_PART_CALL_END:
            add_call(m, name, arguments);
            break;
        case IMP_PART_CALL_ID:
            break;
        case IMP_PART_CALL_CUT:
            return false;
        }
    }
    return true;
}

/* ---- rendering ---- */

/* The conversation with the message at its end, or without it (NULL) and with a generation prompt.
 */
static bool render(const struct jinja *t, const struct message *m, bool thinks, struct str *out) {
    struct str json = {0};
    str_add_text(&json, "{\"messages\": [{\"role\": \"user\", \"content\": \"Go on.\"}");
    if (m) {
        str_add_text(&json, ", {\"role\": \"assistant\", \"content\": ");
        str_add_json(&json, m->content.data, m->content.size);
        for (int i = 0; i < 2 && m->reasoning.size > 0; i++) {
            str_printf(&json, ", \"%s\": ", i ? "thinking" : "reasoning_content");
            str_add_json(&json, m->reasoning.data, m->reasoning.size);
        }
        if (m->calls) str_printf(&json, ", \"tool_calls\": [%s]", m->tool_calls.data);
        str_add_char(&json, '}');
    }
    str_printf(&json,
               "], \"add_generation_prompt\": %s, \"enable_thinking\": %s, \"eos_token\": "
               "\"<EOS>\", \"bos_token\": \"<BOS>\"}",
               m ? "false" : "true", thinks ? "true" : "false");
    yyjson_doc *doc = yyjson_read(json.data, json.size, 0);
    assert_non_null(doc);
    struct jinja_var vars[8];
    size_t count = 0, i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach(yyjson_doc_get_root(doc), i, n, key, value) {
        vars[count++] = (struct jinja_var){yyjson_get_str(key), value, false, NULL};
    }
    vars[count++] = (struct jinja_var){"tools", yyjson_obj_get(yyjson_doc_get_root(data), "tools"),
                                       false, NULL};
    const struct jinja_clock clock = {1767323045, 0};
    struct jinja_output rendered = {0};
    bool ok = jinja_render(t, vars, count, &clock, &rendered, NULL) == 0;
    if (ok) str_add(out, rendered.text.data, rendered.text.size);
    jinja_output_free(&rendered);
    yyjson_doc_free(doc);
    str_free(&json);
    return ok;
}

/* What the model itself would have said: without the tokens that end its turn, and what follows. */
static struct slice without_end(struct slice s) {
    static const char *const ends[] = {
        "<|im_end|>",
        "<EOS>",
        "<|end_of_text|>",
        "<turn|>",
        "<|eot_id|>",
        "<|call|>",
        "<|return|>",
        "<|end|>",
        "<|eom_id|>",
        "<|tool_response>",
        "[e~[",
        "<end_of_turn>",
        "<SPECIAL_12>",
        "<\xEF\xBD\x9C"
        "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
    };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct slice text = s;
        while (text.size > 0 && json_is_blank(text.data[text.size - 1])) text.size--;
        if (!slice_ends(text, ends[i])) continue;
        s = (struct slice){text.data, text.size - strlen(ends[i])};
        i = (size_t)-1; /* some write two */
    }
    return s;
}

/* ---- the test ---- */

static bool fits(const char *pattern, const char *name) {
    size_t n = strcspn(pattern, "*");
    return pattern[n] == '*' ? strncmp(pattern, name, n) == 0 : strcmp(pattern, name) == 0;
}

static bool is_excused(const char *name, const char *id) {
    for (const struct exception *e = exceptions; e->why; e++) {
        if (fits(e->template_name, name) && fits(e->case_id, id)) return true;
    }
    return false;
}

static bool same_json(const struct str *a, const struct str *b) {
    struct str text[2] = {{0}, {0}};
    const struct str *from[2] = {a, b};
    yyjson_doc *doc[2];
    for (int i = 0; i < 2; i++) {
        str_printf(&text[i], "[%s]", from[i]->size ? from[i]->data : "");
        doc[i] = yyjson_read(text[i].data, text[i].size, 0);
    }
    bool same =
        doc[0] && doc[1] && yyjson_equals(yyjson_doc_get_root(doc[0]), yyjson_doc_get_root(doc[1]));
    for (int i = 0; i < 2; i++) {
        yyjson_doc_free(doc[i]);
        str_free(&text[i]);
    }
    return same;
}

static bool same_text(const struct str *a, const struct str *b) {
    return a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

static void read_back(struct reply_style style, struct slice prompt, struct slice said,
                      struct message *m) {
    yyjson_val *tools = yyjson_obj_get(yyjson_doc_get_root(data), "tools");
    size_t bytes;
    char *text = yyjson_val_write(tools, 0, &bytes);
    struct reply_parts parts = {0};
    reply_collect_parts(style, prompt, (struct slice){text, bytes}, said, 0, &parts);
    if (!parts_to_message(&parts, m)) str_add_text(&m->content, "[a broken call]");
    reply_parts_free(&parts);
    free(text);
}

static void complain(const char *name, const char *id, struct slice said,
                     const struct message *got) {
    print_error("%s, %s: the model's \"%.*s\" came back as\n  content %s\n  reasoning %s\n  calls "
                "%s\n",
                name, id, (int)said.size, said.data, got->content.size ? got->content.data : "-",
                got->reasoning.size ? got->reasoning.data : "-",
                got->calls ? got->tool_calls.data : "-");
}

static bool contains(struct slice text, const struct str *word) {
    return word->size == 0 || memmem(text.data, text.size, word->data, word->size) != NULL;
}

/* What a template does not write cannot come back: most leave the reasoning out. */
static void forget_unwritten(struct slice said, struct message *m) {
    if (!contains(said, &m->reasoning)) str_clear(&m->reasoning);
    if (!contains(said, &m->content)) str_clear(&m->content);
}

/* The prompt is the beginning of the conversation, but for a tag that only a prompt opens. */
static bool begins_with(const struct str *full, struct str *prompt) {
    static const char *const opens[] = {"", "\n", "<think>", "<|channel>thought\n<channel|>"};
    for (int i = 0; i < 4; i++) {
        size_t n = strlen(opens[i]);
        if (slice_ends((struct slice){prompt->data, prompt->size}, opens[i])) prompt->size -= n;
        if (full->size >= prompt->size && memcmp(full->data, prompt->data, prompt->size) == 0)
            return true;
    }
    return false;
}

/* True if all is well, or excused. */
static bool check_message(const char *name, const struct jinja *t, struct reply_style style,
                          const char *id, struct message *m) {
    struct str prompt = {0}, full = {0}, again = {0};
    struct message got = {0};
    bool thinks = m->reasoning.size > 0, ok = true;
    tried++;
    if (!render(t, NULL, thinks, &prompt) || !render(t, m, thinks, &full) ||
        !begins_with(&full, &prompt)) {
        refused++;
        ok = is_excused(name, id);
        if (!ok) print_error("%s, %s: is not rendered after its prompt\n", name, id);
    } else {
        struct slice said =
            without_end((struct slice){full.data + prompt.size, full.size - prompt.size});
        forget_unwritten(said, m);
        read_back(style, (struct slice){prompt.data, prompt.size}, said, &got);
        ok = same_text(&got.content, &m->content) && same_text(&got.reasoning, &m->reasoning) &&
             same_json(&got.tool_calls, &m->tool_calls) && render(t, &got, thinks, &again) &&
             same_text(&again, &full);
        kept += ok;
        if (!ok && is_excused(name, id)) {
            excused++;
            ok = true;
        } else if (!ok) {
            complain(name, id, said, &got);
        }
    }
    message_free(&got);
    str_free(&prompt);
    str_free(&full);
    str_free(&again);
    return ok;
}

static int check_template(const char *folder, const char *name) {
    char path[4096];
    struct str source = {0};
    struct jinja *t = NULL;
    yyjson_val *cases = yyjson_obj_get(yyjson_doc_get_root(data), "cases"), *c;
    size_t i, n;
    int failures = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(file_read(path, 1 << 20, &source, NULL), 0);
    assert_int_equal(jinja_parse(source.data, source.size, name, &t, NULL), 0);
    struct reply_style style = reply_style_of((struct slice){source.data, source.size});
    yyjson_arr_foreach(cases, i, n, c) {
        struct message m = {0};
        message_of_case(c, &m);
        bool known = (m.calls == 0 || style.format != REPLY_NONE) &&
                     (m.reasoning.size == 0 || style.think || style.format >= REPLY_MISTRAL);
        const char *id = yyjson_get_str(yyjson_obj_get(c, "id"));
        if (known && !check_message(name, t, style, id, &m)) failures++;
        message_free(&m);
    }
    jinja_free(t);
    str_free(&source);
    return failures;
}

static int check_folder(const char *folder) {
    DIR *dir = opendir(folder);
    int failures = 0;
    if (dir == NULL) return 0;
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        if (slice_ends(slice_of(d->d_name), ".jinja"))
            failures += check_template(folder, d->d_name);
    }
    closedir(dir);
    return failures;
}

static void every_message_comes_back(void **state) {
    (void)state;
    const char *more = getenv("IMP_MORE_TEMPLATES");
    int failures = check_folder(IMP_SOURCE_DIR "/tests/data/chat-templates");
    if (more) failures += check_folder(more);
    print_message("%d messages: %d came back, %d not rendered, %d excused, %d wrong\n", tried, kept,
                  refused, excused, failures);
    assert_int_equal(failures, 0);
}

static int read_data(void **state) {
    (void)state;
    return json_read_file(IMP_SOURCE_DIR "/tests/data/reply/round_trip.json", 1 << 20, &data, NULL);
}

static int free_data(void **state) {
    (void)state;
    yyjson_doc_free(data);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_message_comes_back)};
    return cmocka_run_group_tests(tests, read_data, free_data);
}
