/* Finding a chat template and rendering a request with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "text/chat.h"

static char folder[64];

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/imp-chat-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static const char *const files[] = {"chat_template.jinja", "tokenizer_config.json",
                                    "special_tokens_map.json", "chat_template.json",
                                    "additional_chat_templates/tool_use.jinja"};

static int remove_folder(void **state) {
    (void)state;
    char path[128];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/additional_chat_templates", folder);
    rmdir(path);
    return rmdir(folder);
}

static void write_file(const char *name, const char *text) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Renders a request written as JSON; the caller frees the text. NULL: err says why. */
static char *render(const char *json, const char *template_source, struct imp_error *err) {
    struct chat *chat = NULL;
    struct jinja_output out = {0};
    char *text = NULL;
    yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
    assert_non_null(doc);
    yyjson_val *root = yyjson_doc_get_root(doc);
    struct chat_request r = {.messages = yyjson_obj_get(root, "messages"),
                             .tools = yyjson_obj_get(root, "tools"),
                             .kwargs = yyjson_obj_get(root, "kwargs"),
                             .add_generation_prompt = true,
                             .template_source = template_source,
                             .clock = {1767323045, 3600}};
    if (chat_load(folder, &chat, err) == 0 && chat_render(chat, &r, &out, err) == 0) {
        text = str_take(&out.text);
    }
    jinja_output_free(&out);
    chat_free(chat);
    yyjson_doc_free(doc);
    return text;
}

#define HELLO "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}"

static void expect(const char *json, const char *source, const char *want) {
    struct imp_error err = {0};
    char *text = render(json, source, &err);
    if (text == NULL) fail_msg("%s (%s)", err.message, err.where);
    assert_string_equal(text, want);
    free(text);
}

static void expect_error(const char *json, const char *source, int code, const char *part) {
    struct imp_error err = {0};
    char *text = render(json, source, &err);
    assert_null(text);
    assert_int_equal(err.code, code);
    if (strstr(err.message, part) == NULL) fail_msg("%s", err.message);
}

static void test_none(void **state) {
    (void)state;
    expect_error(HELLO, NULL, IMP_ERR_TEMPLATE, "no chat template");
    expect(HELLO, "{{ messages[0].content }}!", "hi!");
    struct chat *chat = NULL;
    assert_int_equal(chat_load(folder, &chat, NULL), 0);
    assert_false(chat_has_template(chat));
    chat_free(chat);
}

static void test_string(void **state) {
    (void)state;
    write_file(
        "tokenizer_config.json",
        "{\"chat_template\": \"{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
        "{{ tools is none }}{{ add_generation_prompt }}\","
        " \"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\", \"lstrip\": false}}");
    expect(HELLO, NULL, "<s>hi</s>TrueTrue");
    write_file("special_tokens_map.json", "{\"bos_token\": \"<other>\", \"pad_token\": \"<pad>\"}");
    expect(HELLO, "{{ bos_token }}{{ pad_token }}", "<s><pad>");
}

static void test_named_list(void **state) {
    (void)state;
    write_file("tokenizer_config.json",
               "{\"chat_template\": [{\"name\": \"default\", \"template\": \"D\"},"
               " {\"name\": \"rag\", \"template\": \"R\"},"
               " {\"name\": \"tool_use\", \"template\": \"T{{ tools|length }}\"}]}");
    expect(HELLO, NULL, "D");
    expect("{\"messages\": [], \"tools\": [{\"a\": 1}]}", NULL, "T1");
    expect("{\"messages\": [], \"tools\": []}", NULL, "D");
}

static void test_file_first(void **state) {
    (void)state;
    write_file("tokenizer_config.json", "{\"chat_template\": \"config\", \"bos_token\": \"<s>\"}");
    write_file("chat_template.json", "{\"chat_template\": \"processor\"}");
    expect(HELLO, NULL, "config");
    write_file("chat_template.jinja", "file{{ bos_token }}\n");
    expect(HELLO, NULL, "file<s>");
    write_file("tokenizer_config.json", "{\"bos_token\": \"<s>\"}");
    expect(HELLO, NULL, "file<s>");
}

static void test_processor_file(void **state) {
    (void)state;
    write_file("tokenizer_config.json", "{\"bos_token\": \"<s>\"}");
    write_file("chat_template.json", "{\"chat_template\": \"processor{{ bos_token }}\"}");
    expect(HELLO, NULL, "processor<s>");
}

static void test_additional_file(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/additional_chat_templates", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    write_file("chat_template.jinja", "D");
    write_file("additional_chat_templates/tool_use.jinja", "T{{ tools|length }}");
    expect(HELLO, NULL, "D");
    expect("{\"messages\": [], \"tools\": [{\"a\": 1}]}", NULL, "T1");
}

/* The usual roles count as the template's: "<|" + role + "|>" is one token. Others do not. */
static void test_roles(void **state) {
    (void)state;
    const char *json = "{\"messages\": [{\"role\": \"user\"}, {\"role\": \"end\"}]}";
    struct chat *chat = NULL;
    struct jinja_output out = {0};
    yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
    struct chat_request r = {.messages = yyjson_obj_get(yyjson_doc_get_root(doc), "messages"),
                             .template_source = "{% for m in messages %}<|{{ m.role }}|>"
                                                "{% endfor %}"};
    assert_int_equal(chat_load(folder, &chat, NULL), 0);
    assert_int_equal(chat_render(chat, &r, &out, NULL), 0);
    assert_string_equal(out.text.data, "<|user|><|end|>");
    assert_int_equal(out.run_count, 3);
    assert_int_equal(out.runs[0].bytes, 10);
    assert_true(!out.runs[0].message && out.runs[1].message);
    jinja_output_free(&out);
    chat_free(chat);
    yyjson_doc_free(doc);
}

static void test_broken_files(void **state) {
    (void)state;
    write_file("tokenizer_config.json", "{\"chat_template\": 5}");
    expect_error(HELLO, NULL, IMP_ERR_FILE, "neither a string");
    write_file("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\"}]}");
    expect_error(HELLO, NULL, IMP_ERR_FILE, "name and template");
    write_file("tokenizer_config.json", "{\"chat_template\": \"{% if\"}");
    expect_error(HELLO, NULL, IMP_ERR_TEMPLATE, "");
    write_file("tokenizer_config.json", "{}");
    write_file("chat_template.jinja", "{{ 1 + }}");
    expect_error(HELLO, NULL, IMP_ERR_TEMPLATE, "unexpected");
}

static void test_clock(void **state) {
    (void)state;
    expect(HELLO, "{{ strftime_now('%Y-%m-%d %H:%M') }}", "2026-01-02 04:04");
}

static void test_kwargs(void **state) {
    (void)state;
    expect("{\"messages\": [], \"kwargs\": {\"enable_thinking\": false, \"documents\": [1]}}",
           "{{ enable_thinking }}{{ documents }}", "False[1]");
}

static void test_JJ07_kwargs_replace_nothing(void **state) {
    (void)state;
    static const char *const names[] = {"messages", "tools", "add_generation_prompt", "bos_token",
                                        "eos_token"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char json[128];
        snprintf(json, sizeof json, "{\"messages\": [], \"kwargs\": {\"%s\": []}}", names[i]);
        expect_error(json, "x", IMP_ERR_REQUEST, names[i]);
    }
    expect("{\"messages\": [], \"kwargs\": {\"range\": 1, \"chat_template\": \"y\"}}", "x", "x");
}

static void test_bad_requests(void **state) {
    (void)state;
    expect_error("{\"messages\": {}}", "x", IMP_ERR_REQUEST, "not an array");
    expect_error("{}", "x", IMP_ERR_REQUEST, "not an array");
    expect_error("{\"messages\": [1]}", "x", IMP_ERR_REQUEST, "not an object");
    expect_error("{\"messages\": [], \"tools\": 5}", "x", IMP_ERR_REQUEST, "not an array");
    expect_error("{\"messages\": [], \"kwargs\": 5}", "x", IMP_ERR_REQUEST, "not an object");
}

/* Bytes of messages, tools and kwargs are marked; bos_token is the template's. */
static void test_origin(void **state) {
    (void)state;
    const char *json =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"<s>\"}], \"tools\": [\"<s>\"],"
        " \"kwargs\": {\"k\": \"<s>\"}}";
    struct chat *chat = NULL;
    struct jinja_output out = {0};
    yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    struct chat_request r = {.messages = yyjson_obj_get(root, "messages"),
                             .tools = yyjson_obj_get(root, "tools"),
                             .kwargs = yyjson_obj_get(root, "kwargs"),
                             .bos_token = "<s>",
                             .template_source = "{{ bos_token }}{{ messages[0].content }}"
                                                "{{ bos_token }}{{ tools[0] }}{{ k }}<s>"};
    assert_int_equal(chat_load(folder, &chat, NULL), 0);
    assert_int_equal(chat_render(chat, &r, &out, NULL), 0);
    assert_string_equal(out.text.data, "<s><s><s><s><s><s>");
    static const struct jinja_run want[] = {
        {3, false}, {3, true}, {3, false}, {6, true}, {3, false}};
    assert_int_equal(out.run_count, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(out.runs[i].bytes, want[i].bytes);
        assert_int_equal(out.runs[i].message, want[i].message);
    }
    jinja_output_free(&out);
    chat_free(chat);
    yyjson_doc_free(doc);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_none),           TEST(test_string),
        TEST(test_named_list),     TEST(test_file_first),
        TEST(test_broken_files),   TEST(test_clock),
        TEST(test_kwargs),         TEST(test_JJ07_kwargs_replace_nothing),
        TEST(test_bad_requests),   TEST(test_origin),
        TEST(test_processor_file), TEST(test_additional_file),
        TEST(test_roles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
