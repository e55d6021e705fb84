/* Tokenizer, chat template and end tokens: whether they are there, can be read, and fit the model
 * and each other. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "health/judge.h"
#include "load/folder.h"
#include "model/desc.h"
#include "text/chat.h"

struct text_files {
    struct health_report *report;
    const struct checkpoint *ck;
    struct tokenizer *tokenizer;
    struct chat *chat;
    int64_t vocab; /* of the model; 0: not known */
    int32_t eos[MODEL_MAX_EOS];
    size_t eos_count;
};

static void add(const struct text_files *x, const char *rule, enum health_level level, double value,
                const char *text) {
    judge_add(x->report, rule, level, BASIS_FILES, NULL, NULL, value, "%s", text);
}

static void add_error(const struct text_files *x, const char *rule, const struct imp_error *err) {
    judge_add(x->report, rule, HEALTH_BROKEN, BASIS_FORMAT, NULL, NULL, NAN, "%s%s%s", err->where,
              err->where[0] ? ": " : "", err->message);
}

/* ---- the tokenizer ---- */

static void judge_size(const struct text_files *x) {
    const int64_t known = tokenizer_size(x->tokenizer);
    const double share = x->vocab ? (double)known / (double)x->vocab : 1;
    if (share > 1)
        judge_add(x->report, "tokenizer_size", HEALTH_BROKEN, BASIS_FILES, NULL, NULL, share,
                  "the tokenizer has ids up to %lld, the model %lld rows: of another model, or a "
                  "vocabulary that was not extended",
                  (long long)known - 1, (long long)x->vocab);
    else if (share < judge_rule("tokenizer_size")->weak)
        judge_add(x->report, "tokenizer_size", HEALTH_WEAK, BASIS_FILES, NULL, NULL, share,
                  "the tokenizer has %lld ids, the model %lld rows: of another model?",
                  (long long)known, (long long)x->vocab);
}

/* The expression of a Split, Llama 3's: letters in one class, digits in threes. */
static bool is_llama3_split(yyjson_val *pretokenizer) {
    yyjson_val *pattern = yyjson_obj_get(pretokenizer, "pattern");
    const char *regex = yyjson_get_str(yyjson_obj_get(pattern, "Regex"));
    return regex && strstr(regex, "\\p{N}{1,3}") && strstr(regex, "\\p{Lu}") == NULL;
}

static bool has_llama3_split(yyjson_val *root) {
    yyjson_val *pretokenizer = yyjson_obj_get(root, "pre_tokenizer"), *item;
    size_t i, n;
    if (is_llama3_split(pretokenizer)) return true;
    yyjson_arr_foreach(yyjson_obj_get(pretokenizer, "pretokenizers"), i, n, item) {
        if (is_llama3_split(item)) return true;
    }
    return false;
}

/* Converters wrote Llama 3's expression into files of Mistral's Tekken vocabulary. Digits are then
 * cut in threes and words at other places than in training; transformers warns, and repairs it with
 * fix_mistral_regex. A Mistral model with another maker's vocabulary has no [INST]. */
static void judge_regex(const struct text_files *x) {
    static const char inst[] = "[INST]";
    const char *type = x->ck->config.top_type;
    struct str path = {0};
    yyjson_doc *doc = NULL;
    if (strstr(type, "stral") == NULL && strstr(type, "xtral") == NULL) return;
    if (tokenizer_find(x->tokenizer, inst, sizeof inst - 1) < 0) return;
    str_printf(&path, "%s/tokenizer.json", x->ck->path);
    if (json_read_file(path.data, CAP_TOKENIZER_BYTES, &doc, NULL) == 0 &&
        has_llama3_split(yyjson_doc_get_root(doc)))
        add(x, "tokenizer_regex", HEALTH_BROKEN, NAN,
            "tokenizer.json cuts text by Llama 3's expression, the vocabulary is Mistral's: "
            "numbers and words come out in other tokens than in training");
    yyjson_doc_free(doc);
    str_free(&path);
}

static void judge_tokenizer(struct text_files *x) {
    static const struct log silent;
    struct imp_error err = {0};
    if (!folder_has(x->ck->path, "tokenizer.json") && !folder_has(x->ck->path, "tekken.json")) {
        add(x, "tokenizer", HEALTH_WEAK, NAN, "there is no tokenizer.json and no tekken.json");
        return;
    }
    if (tokenizer_load(x->ck->path, &silent, &x->tokenizer, &err) < 0) {
        add_error(x, "tokenizer", &err);
        return;
    }
    judge_size(x);
    judge_regex(x);
}

/* ---- the chat template ---- */

#define REPLY "rrr" /* nothing that a template writes */

static bool is_end(const struct text_files *x, int32_t id) {
    for (size_t i = 0; i < x->eos_count; i++) {
        if (x->eos[i] == id) return true;
    }
    return false;
}

/* The first special token of the text, or -1. */
static int32_t first_special(const struct tokenizer *t, const char *text) {
    struct ids ids = {0};
    int32_t found = -1;
    tokenizer_encode(t, text, strlen(text), NULL, 0, 0, &ids);
    for (size_t i = 0; i < ids.count && found < 0; i++) {
        if (tokenizer_is_special(t, ids.data[i])) found = ids.data[i];
    }
    ids_free(&ids);
    return found;
}

/* Behind a reply the template writes the token with which the model was taught to end one. Where
 * that is no end token, a chat never stops. Harmony closes a reply in another way than the model.
 */
static void judge_turn_end(const struct text_files *x, const char *rendered) {
    const char *reply = NULL;
    for (const char *at = rendered; (at = strstr(at, REPLY)) != NULL; at++) reply = at;
    if (reply == NULL) return;
    const int32_t id = first_special(x->tokenizer, reply + sizeof REPLY - 1);
    if (id < 0 || is_end(x, id)) return;
    const struct slice name = tokenizer_content(x->tokenizer, id);
    judge_add(x->report, "eos_of_turn", HEALTH_BROKEN, BASIS_FILES, NULL, NULL, id,
              "the chat template ends a reply with %.*s (%d), which neither config.json nor "
              "generation_config.json has as an end token: a chat would not stop",
              (int)name.size, name.data, id);
}

/* "<|word|>" in what the template wrote must be a token: else the model sees it in pieces. */
static void judge_markers(const struct text_files *x, const char *rendered) {
    for (const char *at = rendered; (at = strstr(at, "<|")) != NULL; at += 2) {
        const size_t n = strcspn(at, " >\n") + 1;
        if (n < 4 || at[n - 1] != '>' || n > 64) continue;
        if (tokenizer_find(x->tokenizer, at, n) >= 0) continue;
        judge_add(x->report, "template_tokens", HEALTH_WEAK, BASIS_FILES, NULL, NULL, NAN,
                  "the chat template writes %.*s, which is no token of the tokenizer: a template "
                  "of another model?",
                  (int)n, at);
        return;
    }
}

static void judge_rendering(const struct text_files *x) {
    static const char json[] = "[{\"role\": \"user\", \"content\": \"u\"},"
                               " {\"role\": \"assistant\", \"content\": \"" REPLY "\"}]";
    struct imp_error err = {0};
    struct jinja_output out = {0};
    yyjson_doc *doc = NULL;
    if (json_read(json, sizeof json - 1, "messages", &doc, &err) < 0) return;
    const struct chat_request request = {.messages = yyjson_doc_get_root(doc)};
    if (chat_render(x->chat, &request, &out, &err) < 0) {
        judge_add(x->report, "template", HEALTH_WEAK, BASIS_FORMAT, NULL, NULL, NAN,
                  "the chat template refuses a question and its answer: %s", err.message);
    } else if (x->tokenizer && out.text.data) {
        judge_turn_end(x, out.text.data);
        judge_markers(x, out.text.data);
    }
    jinja_output_free(&out);
    yyjson_doc_free(doc);
}

static void judge_template(struct text_files *x) {
    struct imp_error err = {0};
    if (chat_load(x->ck->path, &x->chat, &err) < 0)
        add_error(x, "template", &err);
    else if (!chat_has_template(x->chat))
        add(x, "template", HEALTH_NOTE, NAN, "there is no chat template: a base model?");
    else
        judge_rendering(x);
}

/* ---- end tokens ---- */

static void judge_ends(struct text_files *x) {
    struct imp_error err = {0};
    const int64_t vocab = x->vocab ? x->vocab : INT32_MAX;
    if (config_eos_ids(&x->ck->config, vocab, x->eos, MODEL_MAX_EOS, &x->eos_count, &err) < 0)
        add_error(x, "eos", &err);
    else if (x->eos_count == 0)
        add(x, "eos", HEALTH_WEAK, NAN,
            "neither config.json nor generation_config.json has an end token");
    for (size_t i = 0; i < x->eos_count && x->tokenizer; i++) {
        if (tokenizer_content(x->tokenizer, x->eos[i]).data) continue;
        judge_add(x->report, "eos", HEALTH_WEAK, BASIS_FILES, NULL, NULL, x->eos[i],
                  "the end token %d is no token of the tokenizer", x->eos[i]);
    }
}

/* ---- all ---- */

void judge_text(struct health_report *r, const struct checkpoint *ck) {
    struct text_files x = {.report = r, .ck = ck};
    config_int(&ck->config, "vocab_size", 1, INT32_MAX, 0, &x.vocab, NULL);
    judge_tokenizer(&x);
    judge_ends(&x);
    judge_template(&x);
    chat_free(x.chat);
    tokenizer_free(x.tokenizer);
}
