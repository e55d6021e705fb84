/* Special tokens in messages stay text: every template, against messages that hold every special
 * token of its model, with a tokenizer that knows them. The expected ids come from a scanner of
 * this file: cut the prompt at the special tokens that the template wrote, encode what lies between
 * as plain text. IMP_CHAT_TEMPLATES: further folders of templates, between colons. */
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
#include "text/chat.h"

#define DATA IMP_SOURCE_DIR "/tests/data/"

static yyjson_doc *read_json(const char *path) {
    struct str text = {0};
    struct imp_error err = {0};
    if (file_read(path, 64u << 20, &text, &err) < 0) fail_msg("%s: %s", path, err.message);
    yyjson_doc *doc = yyjson_read(text.data, text.size, 0);
    assert_non_null(doc);
    str_free(&text);
    return doc;
}

/* Qwen2's settings and merges with another model's added tokens. */
static struct tokenizer *make_tokenizer(yyjson_val *tokens) {
    yyjson_doc *base = read_json(DATA "tokenizer/qwen2/tokenizer.json");
    yyjson_mut_doc *doc = yyjson_doc_mut_copy(base, NULL);
    yyjson_mut_val *root = yyjson_mut_doc_get_root(doc), *added = yyjson_mut_arr(doc);
    size_t i, n, id = 1200;
    yyjson_val *token;
    yyjson_arr_foreach(tokens, i, n, token) {
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, added);
        yyjson_mut_obj_add_uint(doc, o, "id", id++);
        yyjson_mut_obj_add_str(doc, o, "content", yyjson_get_str(token));
        yyjson_mut_obj_add_bool(doc, o, "single_word", false);
        yyjson_mut_obj_add_bool(doc, o, "lstrip", false);
        yyjson_mut_obj_add_bool(doc, o, "rstrip", false);
        yyjson_mut_obj_add_bool(doc, o, "normalized", false);
        yyjson_mut_obj_add_bool(doc, o, "special", i % 2 == 0);
    }
    yyjson_mut_obj_replace(root, yyjson_mut_str(doc, "added_tokens"), added);
    size_t size;
    char *json = yyjson_mut_write(doc, 0, &size);
    struct tokenizer *t = NULL;
    struct imp_error err = {0};
    if (tokenizer_parse(json, size, "made", NULL, &t, &err) < 0) fail_msg("%s", err.message);
    free(json);
    yyjson_mut_doc_free(doc);
    yyjson_doc_free(base);
    return t;
}

/* ---- the oracle ---- */

struct oracle {
    const struct tokenizer *tokenizer;
    yyjson_val *tokens;
    const struct jinja_output *prompt;
    size_t from_template, in_messages; /* special tokens seen */
};

/* The longest token that begins at s; 0 if none does. */
static size_t token_at(yyjson_val *tokens, const char *s, size_t n) {
    size_t best = 0, i, max;
    yyjson_val *t;
    yyjson_arr_foreach(tokens, i, max, t) {
        size_t size = yyjson_get_len(t);
        if (size <= n && size > best && memcmp(yyjson_get_str(t), s, size) == 0) best = size;
    }
    return best;
}

static void expected_ids(struct oracle *o, struct ids *out) {
    const char *text = o->prompt->text.data;
    size_t plain = 0, at = 0;
    for (size_t i = 0; i < o->prompt->run_count; i++) {
        size_t end = at + o->prompt->runs[i].bytes;
        while (at < end) {
            size_t n = token_at(o->tokens, text + at, end - at);
            if (n == 0) {
                at++;
            } else if (o->prompt->runs[i].message) {
                o->in_messages++;
                at += n;
            } else {
                tokenizer_encode(o->tokenizer, text + plain, at - plain, NULL, 0, TOKENIZE_PLAIN,
                                 out);
                ids_add(out, tokenizer_find(o->tokenizer, text + at, n));
                o->from_template++;
                plain = at += n;
            }
        }
    }
    tokenizer_encode(o->tokenizer, text + plain, at - plain, NULL, 0, TOKENIZE_PLAIN, out);
}

static bool same_ids(const struct ids *a, const struct ids *b) {
    return a->count == b->count && memcmp(a->data, b->data, a->count * sizeof *a->data) == 0;
}

/* ---- the messages ---- */

/* In no template: what follows it came from a message, whatever the marks say. */
#define SENTINEL "QZ"

static char *hostile_text(yyjson_val *tokens, int kind) {
    struct str text = {0}, json = {0};
    size_t i, n;
    yyjson_val *t;
    yyjson_arr_foreach(tokens, i, n, t) {
        if (kind == 1) str_add_text(&text, SENTINEL);
        str_add(&text, yyjson_get_str(t), yyjson_get_len(t));
        if (kind == 1) str_add_text(&text, "\n é");
    }
    str_add_json(&json, text.data, text.size);
    str_free(&text);
    return str_take(&json);
}

/* T stands for the text in the three: a plain talk, one with tools, one with odd fields. */
static const char *const talks[] = {
    "{\"messages\": [{\"role\": \"system\", \"content\": T}, {\"role\": \"user\", \"content\": T},"
    "{\"role\": \"assistant\", \"content\": T}, {\"role\": \"user\", \"content\": T}]}",

    "{\"messages\": [{\"role\": \"user\", \"content\": T}, {\"role\": \"assistant\", \"content\": "
    "T},"
    "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": T}]}]}",

    "{\"messages\": [{\"role\": \"user\", \"content\": T}, {\"role\": \"assistant\", \"content\": "
    "\"\", \"reasoning_content\": T, \"tool_calls\": [{\"id\": \"abcDEF123\", \"type\": "
    "\"function\", \"function\": {\"name\": T, \"arguments\": {T: [T, {\"k\": T}]}}}]},"
    "{\"role\": \"tool\", \"tool_call_id\": \"abcDEF123\", \"name\": T, \"content\": T},"
    "{\"role\": \"assistant\", \"content\": T, \"reasoning_content\": T},"
    "{\"role\": \"user\", \"content\": T}], \"tools\": [{\"type\": \"function\", \"function\": "
    "{\"name\": T, \"description\": T, \"parameters\": {\"type\": \"object\", \"properties\": "
    "{T: {\"type\": \"string\", \"description\": T, \"enum\": [T]}}, \"required\": [T]}}}],"
    "\"kwargs\": {\"documents\": [{\"title\": T, \"text\": T}], \"model_identity\": T,"
    "\"date_string\": T, \"system_message\": T, \"custom_tools\": T}}",

    "{\"messages\": [{\"role\": \"user\", \"content\": T, \"name\": T}, {\"role\": \"assistant\", "
    "\"content\": null, \"tool_calls\": [{\"id\": \"abcDEF123\", \"type\": \"function\", "
    "\"function\": {\"name\": \"f\", \"arguments\": T}}]},"
    "{\"role\": \"tool\", \"tool_call_id\": \"abcDEF123\", \"name\": \"f\", \"content\": T}]}",

    "{\"messages\": [{\"role\": T, \"content\": T}, {\"role\": \"user\", \"content\": T},"
    "{\"role\": \"developer\", \"content\": T}]}",
};
enum { TALKS = sizeof talks / sizeof *talks };

static yyjson_doc *make_talk(const char *pattern, const char *text) {
    struct str json = {0};
    for (const char *p = pattern; *p; p++) {
        bool slot = *p == 'T' && p[-1] != '"';
        if (slot) {
            str_add_text(&json, text);
        } else {
            str_add_char(&json, *p);
        }
    }
    yyjson_doc *doc = yyjson_read(json.data, json.size, 0);
    assert_non_null(doc);
    str_free(&json);
    return doc;
}

/* ---- the proof ---- */

struct tally {
    yyjson_val *root;
    struct chat *chat;
    size_t templates, prompts, from_template, in_messages;
    size_t prompts_here, in_messages_here;
};

/* A sentinel and the token behind it lie in a run of message bytes. */
static void check_marks(const struct oracle *o, const char *name) {
    const char *text = o->prompt->text.data, *p = text;
    size_t run = 0, end = o->prompt->run_count ? o->prompt->runs[0].bytes : 0;
    for (; (p = strstr(p, SENTINEL)) != NULL; p++) {
        size_t at = (size_t)(p - text), token = at + strlen(SENTINEL);
        size_t n = token_at(o->tokens, text + token, o->prompt->text.size - token);
        while (end <= at) end += o->prompt->runs[++run].bytes;
        if (!o->prompt->runs[run].message || token + n > end) {
            fail_msg("%s: \"%.40s\" passes for template text", name, p);
        }
    }
}

static void check_prompt(struct tally *all, struct oracle *o, const char *name) {
    struct ids want = {0}, got = {0}, ordinary = {0}, unsafe = {0};
    check_marks(o, name);
    expected_ids(o, &want);
    chat_encode(o->tokenizer, o->prompt, false, &got);
    if (!same_ids(&want, &got)) fail_msg("%s: other ids than expected", name);
    tokenizer_encode(o->tokenizer, o->prompt->text.data, o->prompt->text.size, NULL, 0, 0,
                     &ordinary);
    chat_encode(o->tokenizer, o->prompt, true, &unsafe);
    if (!same_ids(&ordinary, &unsafe)) fail_msg("%s: special_in_messages is not ordinary", name);
    if (o->in_messages > 0 && same_ids(&got, &ordinary)) fail_msg("%s: nothing to tell", name);
    if (o->in_messages == 0 && !same_ids(&got, &ordinary)) fail_msg("%s: not ordinary", name);
    all->prompts_here++;
    all->from_template += o->from_template;
    all->in_messages_here += o->in_messages;
    ids_free(&want);
    ids_free(&got);
    ids_free(&ordinary);
    ids_free(&unsafe);
}

static void check_talk(struct tally *all, struct oracle *o, const char *name, const char *source,
                       const char *pattern, const char *text) {
    yyjson_doc *doc = make_talk(pattern, text);
    yyjson_val *root = yyjson_doc_get_root(doc);
    struct jinja_output prompt = {0};
    struct chat_request r = {.messages = yyjson_obj_get(root, "messages"),
                             .tools = yyjson_obj_get(root, "tools"),
                             .kwargs = yyjson_obj_get(root, "kwargs"),
                             .add_generation_prompt = true,
                             .template_source = source,
                             .bos_token = yyjson_get_str(yyjson_arr_get(o->tokens, 0)),
                             .eos_token = yyjson_get_str(yyjson_arr_get(o->tokens, 1)),
                             .clock = {1767323045, 0}};
    if (chat_render(all->chat, &r, &prompt, NULL) == 0) { /* some templates refuse some talks */
        o->prompt = &prompt;
        o->from_template = o->in_messages = 0;
        check_prompt(all, o, name);
    }
    jinja_output_free(&prompt);
    yyjson_doc_free(doc);
}

static yyjson_val *tokens_of(yyjson_val *root, const char *name) {
    size_t i, n;
    yyjson_val *row;
    yyjson_arr_foreach(yyjson_obj_get(root, "templates"), i, n, row) {
        const char *prefix = yyjson_get_str(yyjson_arr_get(row, 0));
        if (strncmp(name, prefix, strlen(prefix)) != 0) continue;
        const char *family = yyjson_get_str(yyjson_arr_get(row, 1));
        return yyjson_obj_get(yyjson_obj_get(root, "families"), family);
    }
    fail_msg("%s: special_tokens.json does not know its model", name);
    return NULL;
}

static void check_template(struct tally *all, const char *path, const char *name) {
    struct str source = {0};
    struct imp_error err = {0};
    if (file_read(path, 4u << 20, &source, &err) < 0) fail_msg("%s: %s", path, err.message);
    struct oracle o = {.tokens = tokens_of(all->root, name)};
    struct tokenizer *t = make_tokenizer(o.tokens);
    o.tokenizer = t;
    all->prompts_here = all->in_messages_here = 0;
    for (int k = 0; k < 3; k++) { /* tokens side by side, behind sentinels, and none at all */
        char *text = k < 2 ? hostile_text(o.tokens, k) : mem_strndup("\"Hello, é!\"", 12);
        for (int i = 0; i < TALKS; i++) check_talk(all, &o, name, source.data, talks[i], text);
        free(text);
    }
    if (all->prompts_here < 3) fail_msg("%s: refuses all but %zu", name, all->prompts_here);
    if (all->in_messages_here < 2 * yyjson_arr_size(o.tokens)) fail_msg("%s: hides them", name);
    all->templates++;
    all->prompts += all->prompts_here;
    all->in_messages += all->in_messages_here;
    tokenizer_free(t);
    str_free(&source);
}

static void check_folder(struct tally *all, const char *folder) {
    DIR *dir = opendir(folder);
    if (dir == NULL) fail_msg("%s: no such folder", folder);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        size_t n = strlen(e->d_name);
        char path[1024], name[256];
        if (n < 7 || strcmp(e->d_name + n - 6, ".jinja") != 0) continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        snprintf(name, sizeof name, "%.*s", (int)(n - 6), e->d_name);
        check_template(all, path, name);
    }
    closedir(dir);
}

static void test_TK07_special_tokens_in_messages(void **state) {
    (void)state;
    yyjson_doc *doc = read_json(DATA "chat-templates/special_tokens.json");
    struct tally all = {.root = yyjson_doc_get_root(doc)};
    assert_int_equal(chat_load(DATA "chat-templates", &all.chat, NULL), 0); /* has no template */
    check_folder(&all, DATA "chat-templates");
    const char *more = getenv("IMP_CHAT_TEMPLATES");
    for (const char *p = more; p && *p;) {
        size_t n = strcspn(p, ":");
        char *folder = mem_strndup(p, n);
        check_folder(&all, folder);
        free(folder);
        p += n + (p[n] == ':');
    }
    print_message("%zu templates, %zu prompts: %zu special tokens of templates, %zu in messages\n",
                  all.templates, all.prompts, all.from_template, all.in_messages);
    assert_true(all.templates >= 44 && all.from_template > 1000 && all.in_messages > 10000);
    chat_free(all.chat);
    yyjson_doc_free(doc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_TK07_special_tokens_in_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
