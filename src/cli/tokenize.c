/* imp tokenize MODEL: text to ids, ids to text, conversations to prompts. */
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"

static void print_ids(const int32_t *ids, size_t count) {
    putchar('[');
    for (size_t i = 0; i < count; i++) printf("%s%d", i ? ", " : "", ids[i]);
    putchar(']');
}

static unsigned text_flags(const struct options *options) {
    return (options_flag(options, OPT_PLAIN) ? IMP_TEXT_PLAIN : 0) |
           (options_flag(options, OPT_ADD_SPECIAL) ? IMP_TEXT_ADD_SPECIAL : 0);
}

static int encode_one(const struct options *options, imp_engine *engine, const char *text,
                      size_t bytes, imp_error *err) {
    int32_t *ids;
    size_t count;
    int rc = imp_tokenize(engine, text, bytes, text_flags(options), &ids, &count, err);
    if (rc < 0) return rc;
    print_ids(ids, count);
    imp_free(ids);
    return 0;
}

static int encode_argument(const struct options *options, imp_engine *engine, imp_error *err) {
    const char *text = options->arguments[1];
    struct str input = {0};
    int rc = 0;
    if (strcmp(text, "-") == 0) {
        rc = read_stdin(&input, err);
    } else {
        str_add_text(&input, text);
    }
    if (rc == 0) rc = encode_one(options, engine, input.data ? input.data : "", input.size, err);
    if (rc == 0) putchar('\n');
    str_free(&input);
    return rc;
}

static int encode_file(const struct options *options, imp_engine *engine, imp_error *err) {
    const char *path = options_text(options, OPT_TEXTS);
    yyjson_doc *doc;
    int rc = json_read_file(path, CAP_TOKENIZER_BYTES, &doc, err);
    if (rc < 0) return rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *text;
    if (!yyjson_is_arr(root)) {
        yyjson_doc_free(doc);
        return error_set(err, IMP_ERR_FILE, path, "must be a JSON array of texts");
    }
    size_t i, n;
    yyjson_arr_foreach(root, i, n, text) { /* all of them first: no half a result */
        if (yyjson_is_str(text)) continue;
        rc = error_set(err, IMP_ERR_FILE, path, "$[%zu] is not a string", i);
        yyjson_doc_free(doc);
        return rc;
    }
    putchar('[');
    yyjson_arr_foreach(root, i, n, text) {
        if (i) fputs(", ", stdout);
        rc = encode_one(options, engine, yyjson_get_str(text), yyjson_get_len(text), err);
        if (rc < 0) break;
    }
    if (rc == 0) puts("]");
    yyjson_doc_free(doc);
    return rc;
}

static int decode(const struct options *options, imp_engine *engine, imp_error *err) {
    const char *json = options_text(options, OPT_DECODE);
    int32_t *ids;
    char *text;
    size_t count, bytes;
    int rc = parse_ids(json, strlen(json), "--decode", &ids, &count, err);
    if (rc < 0) return rc == IMP_ERR_FILE ? (err->code = IMP_ERR_USAGE) : rc;
    rc = imp_detokenize(engine, ids, count, 0, &text, &bytes, err);
    free(ids);
    if (rc < 0) return rc;
    fwrite(text, 1, bytes, stdout);
    putchar('\n');
    imp_free(text);
    return 0;
}

/* ---- conversations ---- */

struct chat_file {
    imp_engine *engine;
    struct str template_source;
    bool own_template, render;
    yyjson_val *root; /* of the whole file: holds what cases have in common */
};

/* One conversation with what the file says for all of them. */
static char *merged_case(const struct chat_file *chat, yyjson_val *conversation, size_t *bytes) {
    static const char *const common[] = {"bos_token", "eos_token", "strftime_now"};
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *object = yyjson_val_mut_copy(doc, conversation);
    yyjson_mut_doc_set_root(doc, object);
    for (size_t i = 0; i < sizeof common / sizeof *common && yyjson_is_obj(conversation); i++) {
        yyjson_val *value = yyjson_obj_get(chat->root, common[i]);
        if (value == NULL || yyjson_obj_get(conversation, common[i])) continue;
        yyjson_mut_obj_add_val(doc, object, common[i], yyjson_val_mut_copy(doc, value));
    }
    char *json = yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE, bytes);
    yyjson_mut_doc_free(doc);
    return json;
}

static int render_case(const struct chat_file *chat, yyjson_val *conversation, bool raw,
                       imp_error *err) {
    char *text = NULL;
    int32_t *ids = NULL;
    size_t json_bytes, bytes = 0, count = 0;
    char *json = merged_case(chat, conversation, &json_bytes);
    if (json == NULL) return error_memory(err, 0);
    int rc = imp_render_chat(
        chat->engine, json, json_bytes, chat->own_template ? chat->template_source.data : NULL,
        chat->render ? &text : NULL, &bytes, chat->render ? NULL : &ids, &count, err);
    free(json);
    if (rc < 0) return rc;
    if (text && raw) {
        fwrite(text, 1, bytes, stdout);
    } else if (text) {
        struct str quoted = {0};
        str_add_json(&quoted, text, bytes);
        fwrite(quoted.data, 1, quoted.size, stdout);
        str_free(&quoted);
    } else if (ids) {
        print_ids(ids, count);
    }
    imp_free(text);
    imp_free(ids);
    return 0;
}

static void render_cases(const struct chat_file *chat, yyjson_val *cases) {
    size_t i, n;
    yyjson_val *item;
    putchar('[');
    yyjson_arr_foreach(cases, i, n, item) {
        imp_error err = {0};
        if (i) fputs(",\n ", stdout);
        if (render_case(chat, item, false, &err) == 0) continue;
        struct str message = {0};
        str_add_json(&message, err.message, strlen(err.message));
        printf("{\"error\": %s}", message.data);
        str_free(&message);
    }
    puts("]");
}

static int convert_chat(const struct options *options, imp_engine *engine, imp_error *err) {
    const char *path = options_text(options, OPT_CHAT);
    const char *template_path = options_text(options, OPT_CHAT_TEMPLATE);
    struct chat_file chat = {.engine = engine,
                             .render = options_flag(options, OPT_RENDER),
                             .own_template = template_path != NULL};
    yyjson_doc *doc = NULL;
    struct str text = {0};
    int rc = file_read(path, CAP_TOKENIZER_BYTES, &text, err);
    if (rc == 0) rc = json_read_exact(text.data ? text.data : "", text.size, path, &doc, err);
    str_free(&text);
    if (rc == 0 && template_path)
        rc = file_read(template_path, CAP_TEMPLATE_BYTES, &chat.template_source, err);
    if (rc == 0) {
        chat.root = yyjson_doc_get_root(doc);
        yyjson_val *cases = yyjson_obj_get(chat.root, "cases");
        if (yyjson_is_arr(cases)) {
            render_cases(&chat, cases);
        } else {
            rc = render_case(&chat, chat.root, true, err);
            if (rc == 0 && !chat.render) putchar('\n');
        }
    }
    yyjson_doc_free(doc);
    str_free(&chat.template_source);
    return rc;
}

int command_tokenize(struct options *options, imp_error *err) {
    imp_engine *engine;
    bool text = options->argument_count > 1, texts = options_given(options, OPT_TEXTS);
    bool ids = options_given(options, OPT_DECODE), chat = options_given(options, OPT_CHAT);
    if (text + texts + ids + chat != 1)
        return error_set(err, IMP_ERR_USAGE, NULL,
                         "give one of TEXT, -, --texts FILE, --decode IDS, --chat FILE");
    if (!chat && (options_flag(options, OPT_RENDER) || options_given(options, OPT_CHAT_TEMPLATE)))
        return error_set(err, IMP_ERR_USAGE, NULL, "--render and --chat-template go with --chat");
    int rc = open_model(options, options->arguments[0], true, &engine, err);
    if (rc < 0) return rc;
    if (text) rc = encode_argument(options, engine, err);
    if (texts) rc = encode_file(options, engine, err);
    if (ids) rc = decode(options, engine, err);
    if (chat) rc = convert_chat(options, engine, err);
    imp_close(engine);
    return rc;
}
