/* tekken.json: what is refused and where, what a folder with one gives. That its ids and texts are
 * those of `mistral-common` is with all tokenizers in tokenizer.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "support/files.h"
#include "text/tokenizer.h"

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Every member as JSON text; NULL: as a sound file has it, "": left out. */
struct file {
    const char *pattern, *declared, *vocab_size, *specials, *version; /* of config */
    const char *config_more, *more, *special_tokens;
    const char *tokens; /* behind the 256 bytes, each with a comma before it */
    const char *byte;   /* in place of the entry of byte 65 */
};

#define TOKEN(rank, bytes) ",{\"rank\":" rank ",\"token_bytes\":\"" bytes "\",\"token_str\":null}"
#define AB                 TOKEN("256", "YWI=") /* "ab" */

static const char *or_else(const char *given, const char *usual) {
    return given ? given : usual;
}

static char *written(const struct file *f) {
    struct str s = {0};
    str_printf(&s, "{\"config\":{\"pattern\":%s,\"num_vocab_tokens\":%s,\"default_vocab_size\":%s,",
               or_else(f->pattern, "\"a+|[^a]+\""), or_else(f->declared, "257"),
               or_else(f->vocab_size, "260"));
    str_printf(&s, "\"default_num_special_tokens\":%s,\"version\":%s%s},\"vocab\":[",
               or_else(f->specials, "3"), or_else(f->version, "\"v3\""),
               or_else(f->config_more, ""));
    for (unsigned b = 0; b < 256; b++) {
        if (b > 0) str_add_char(&s, ',');
        if (b == 65 && f->byte) {
            str_add_text(&s, f->byte);
            continue;
        }
        str_printf(&s, "{\"rank\":%u,\"token_bytes\":\"%c%c==\",\"token_str\":null}", b,
                   base64[b >> 2], base64[(b & 3) << 4]);
    }
    str_printf(&s, "%s]", or_else(f->tokens, AB));
    if (f->special_tokens) str_printf(&s, ",\"special_tokens\":%s", f->special_tokens);
    str_printf(&s, "%s}", or_else(f->more, ""));
    return str_take(&s);
}

static struct tokenizer *parse(const struct file *f, struct imp_error *err) {
    struct tokenizer *t = NULL;
    char *json = written(f);
    *err = (struct imp_error){0};
    int rc = tokenizer_parse_tekken(json, strlen(json), "t.json", NULL, &t, err);
    assert_int_equal(rc, err->code);
    assert_true((rc == 0) == (t != NULL));
    free(json);
    return t;
}

static struct ids encode(const struct tokenizer *t, const char *text, unsigned flags) {
    struct ids ids = {0};
    tokenizer_encode(t, text, strlen(text), NULL, 0, flags, &ids);
    return ids;
}

static void check_ids(const struct tokenizer *t, const char *text, unsigned flags,
                      const int32_t *want, size_t count) {
    struct ids ids = encode(t, text, flags);
    assert_int_equal(ids.count, count);
    assert_memory_equal(ids.data, want, count * sizeof *want);
    ids_free(&ids);
}

/* What is wrong, and where that is said. */
static const struct {
    struct file file;
    const char *where;
    int code;
} broken[] = {
    {{.version = "\"v99\""}, "$.config.version", IMP_ERR_UNSUPPORTED},
    {{.version = "3"}, "$.config.version", IMP_ERR_FILE},
    {{.version = "null"}, "$.config.version", IMP_ERR_UNSUPPORTED},
    {{.config_more = ",\"new\":1"}, "$.config.new", IMP_ERR_UNSUPPORTED},
    {{.more = ",\"new\":1"}, "$.new", IMP_ERR_UNSUPPORTED},
    {{.pattern = "\"(a+)+\""}, "$.config.pattern", IMP_ERR_UNSUPPORTED},
    {{.pattern = "\"a{1,3}+\""}, "$.config.pattern", IMP_ERR_UNSUPPORTED},
    {{.pattern = "\"\""}, "$.config.pattern", IMP_ERR_UNSUPPORTED},
    {{.pattern = "7"}, "$.config.pattern", IMP_ERR_FILE},
    {{.declared = "258"}, "$.config.num_vocab_tokens", IMP_ERR_FILE},
    {{.declared = "-1"}, "$.config.num_vocab_tokens", IMP_ERR_FILE},
    {{.vocab_size = "261"}, "$.config.default_vocab_size", IMP_ERR_FILE},
    {{.vocab_size = "258"}, "$.config.default_vocab_size", IMP_ERR_FILE},
    {{.vocab_size = "2"}, "$.config.default_vocab_size", IMP_ERR_FILE},
    {{.vocab_size = "4294967295", .specials = "4294967038"},
     "$.config.default_num_special_tokens",
     IMP_ERR_FILE},
    {{.vocab_size = "99999999999"}, "$.config.default_vocab_size", IMP_ERR_FILE},
    {{.specials = "100001"}, "$.config.default_num_special_tokens", IMP_ERR_FILE},
    {{.specials = "\"3\""}, "$.config.default_num_special_tokens", IMP_ERR_FILE},
    {{.tokens = TOKEN("257", "YWI=")}, "$.vocab[256].rank", IMP_ERR_FILE},
    {{.tokens = TOKEN("\"256\"", "YWI=")}, "$.vocab[256].rank", IMP_ERR_FILE},
    {{.tokens = TOKEN("256", "YWI")}, "$.vocab[256].token_bytes", IMP_ERR_FILE},
    {{.tokens = TOKEN("256", "YW=I")}, "$.vocab[256].token_bytes", IMP_ERR_FILE},
    {{.tokens = TOKEN("256", "=WIx")}, "$.vocab[256].token_bytes", IMP_ERR_FILE},
    {{.tokens = TOKEN("256", "YW I")}, "$.vocab[256].token_bytes", IMP_ERR_FILE},
    {{.tokens = TOKEN("256", "")}, "$.vocab[256].token_bytes", IMP_ERR_FILE},
    {{.tokens = TOKEN("256", "YQ==")}, "$.vocab[256].token_bytes", IMP_ERR_FILE},
    {{.tokens = ",{\"rank\":256,\"token_bytes\":5}"}, "$.vocab[256].token_bytes", IMP_ERR_FILE},
    {{.tokens = ",{\"rank\":256,\"token_bytes\":\"YWI=\",\"x\":1}"},
     "$.vocab[256].x",
     IMP_ERR_UNSUPPORTED},
    {{.tokens = ",7"}, "$.vocab[256]", IMP_ERR_FILE},
    {{.byte = "{\"rank\":65,\"token_bytes\":\"Qg==\"}"}, "$.vocab[65].token_bytes", IMP_ERR_FILE},
    {{.byte = "{\"rank\":65,\"token_bytes\":\"QUE=\"}"}, "$.vocab[65].token_bytes", IMP_ERR_FILE},
    {{.version = "\"v13\""}, "$.special_tokens", IMP_ERR_FILE},
    {{.special_tokens = "7"}, "$.special_tokens", IMP_ERR_FILE},
    {{.special_tokens = "[1,2,3,4]"}, "$.special_tokens", IMP_ERR_FILE},
    {{.special_tokens = "[1]"}, "$.special_tokens[0]", IMP_ERR_FILE},
    {{.special_tokens = "[{\"rank\":1,\"token_str\":\"<s>\"}]"},
     "$.special_tokens[0].rank",
     IMP_ERR_FILE},
    {{.special_tokens = "[{\"rank\":0,\"token_str\":\"\"}]"},
     "$.special_tokens[0].token_str",
     IMP_ERR_FILE},
    {{.special_tokens = "[{\"rank\":0}]"}, "$.special_tokens[0].token_str", IMP_ERR_FILE},
    {{.special_tokens = "[{\"rank\":0,\"token_str\":\"x\"},{\"rank\":1,\"token_str\":\"x\"}]"},
     "$.special_tokens[1].token_str",
     IMP_ERR_FILE},
    {{.special_tokens = "[{\"rank\":0,\"token_str\":\"<SPECIAL_2>\"}]"},
     "$.special_tokens",
     IMP_ERR_FILE},
    {{.special_tokens = "[{\"rank\":0,\"token_str\":\"x\",\"is_control\":1}]"},
     "$.special_tokens[0].is_control",
     IMP_ERR_FILE},
    {{.special_tokens = "[{\"rank\":0,\"token_str\":\"x\",\"lstrip\":true}]"},
     "$.special_tokens[0].lstrip",
     IMP_ERR_UNSUPPORTED},
};

static void broken_files_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct imp_error err;
        struct tokenizer *t = parse(&broken[i].file, &err);
        if (t != NULL) fail_msg("case %zu is not refused", i);
        if (err.code != broken[i].code || strstr(err.where, broken[i].where) == NULL) {
            fail_msg("case %zu: %d, \"%s\", %s", i, err.code, err.where, err.message);
        }
    }
    static const char *const whole[] = {"", "[]", "{}", "{\"config\":[]}", "{\"config\":{}}", "7"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        struct tokenizer *t = NULL;
        struct imp_error err = {0};
        assert_true(tokenizer_parse_tekken(whole[i], strlen(whole[i]), "t", NULL, &t, &err) < 0);
    }
}

/* Tokens so long that finding every cut of them would take for ever. */
static void long_tokens_are_refused(void **state) {
    (void)state;
    struct str tokens = {0};
    for (int i = 0; i < 2000; i++) {
        str_printf(&tokens, ",{\"rank\":%d,\"token_bytes\":\"", 256 + i);
        for (int k = 0; k < 1000; k++) str_add_text(&tokens, "aaaa");
        str_printf(&tokens, "%c%c%c%c\"}", base64[i & 63], base64[i >> 6], 'A', 'A');
    }
    struct imp_error err;
    struct file file = {.declared = "2256", .vocab_size = "2259", .tokens = tokens.data};
    struct tokenizer *t = parse(&file, &err);
    str_free(&tokens);
    assert_null(t);
    assert_int_equal(err.code, IMP_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.where, "$.vocab["));
}

static void sound_files(void **state) {
    (void)state;
    struct imp_error err;
    struct tokenizer *t = parse(&(struct file){.config_more = ""}, &err);
    if (t == NULL) fail_msg("%s: %s", err.where, err.message);
    assert_int_equal(tokenizer_size(t), 260);
    assert_int_equal(tokenizer_find(t, "<s>", 3), 1);
    assert_int_equal(tokenizer_find(t, "ab", 2), 259);
    assert_true(tokenizer_is_special(t, 2));
    assert_false(tokenizer_is_special(t, 3));
    check_ids(t, "ba</s>", 0, (int32_t[]){3 + 'b', 3 + 'a', 2}, 3);
    check_ids(t, "bb", TOKENIZE_ADD_SPECIAL, (int32_t[]){1, 3 + 'b', 3 + 'b'}, 3);
    check_ids(t, "<s>", TOKENIZE_PLAIN, (int32_t[]){3 + '<', 3 + 's', 3 + '>'}, 3);
    tokenizer_free(t);
    /* No merge is listed, so every way to "abc" counts; a whole piece is taken as it is. */
    t = parse(&(struct file){.pattern = "\"\\\\p{L}+|x{2}\"",
                             .declared = "259",
                             .vocab_size = "262",
                             .tokens = TOKEN("256", "YmM=") TOKEN("257", "YWJj")
                                 TOKEN("258", "YWJjYWI=")},
              &err);
    assert_non_null(t);
    check_ids(t, "abc", 0, (int32_t[]){260}, 1);
    check_ids(t, "abcab", 0, (int32_t[]){261}, 1);
    check_ids(t, "aabcab", 0, (int32_t[]){3 + 'a', 260, 3 + 'a', 3 + 'b'}, 4);
    tokenizer_free(t);
    /* Later versions name their special tokens; sound and pictures are passed over. */
    t = parse(&(struct file){.version = "\"v15\"",
                             .special_tokens = "[{\"rank\":0,\"token_str\":\"<s>\"},"
                                               "{\"rank\":1,\"token_str\":\"ab\"}]",
                             .more = ",\"type\":\"Tekken\",\"version\":1,\"image\":{\"x\":1},"
                                     "\"audio\":{},\"model_settings_builder\":{}"},
              &err);
    if (t == NULL) fail_msg("%s: %s", err.where, err.message);
    assert_int_equal(tokenizer_find(t, "<SPECIAL_2>", 11), 2);
    check_ids(t, "abb", 0, (int32_t[]){1, 3 + 'b'}, 2);
    check_ids(t, "ab", TOKENIZE_PLAIN, (int32_t[]){3 + 'a', 3 + 'b'}, 2);
    tokenizer_free(t);
}

/* A special token that is left out still ends the character that was open. */
static void skipped_tokens_cut(void **state) {
    (void)state;
    struct imp_error err;
    struct tokenizer *t = parse(&(struct file){.more = ""}, &err);
    assert_non_null(t);
    const int32_t ids[] = {3 + 0xe4, 3 + 0xb8, 2, 3 + 0xad, 3 + 0xe4, 3 + 0xb8, 3 + 0xad};
    struct str skipped = {0}, kept = {0};
    tokenizer_decode(t, ids, 7, true, &skipped);
    tokenizer_decode(t, ids, 7, false, &kept);
    assert_string_equal(skipped.data, "\ufffd\ufffd\u4e2d");
    assert_string_equal(kept.data, "\ufffd</s>\ufffd\u4e2d");
    str_free(&skipped);
    str_free(&kept);
    tokenizer_free(t);
}

static void a_folder_takes_tokenizer_json_first(void **state) {
    (void)state;
    char folder[] = "/tmp/imp-tekken-XXXXXX";
    struct imp_error err = {0};
    struct tokenizer *t = NULL;
    assert_non_null(mkdtemp(folder));
    char *json = written(&(struct file){.more = ""});
    put_text(folder, "tekken.json", json);
    free(json);
    assert_int_equal(tokenizer_load(folder, NULL, &t, &err), 0);
    assert_int_equal(tokenizer_size(t), 260);
    tokenizer_free(t);
    put_text(folder, "tokenizer.json",
             "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    assert_int_equal(tokenizer_load(folder, NULL, &t, &err), 0);
    assert_int_equal(tokenizer_size(t), 1);
    tokenizer_free(t);
    remove_file(folder, "tokenizer.json");
    put_text(folder, "tekken.json", "{}");
    assert_int_equal(tokenizer_load(folder, NULL, &t, &err), IMP_ERR_FILE);
    assert_non_null(strstr(err.where, "tekken.json: $.config"));
    remove_file(folder, "tekken.json");
    rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_files_are_refused),
        cmocka_unit_test(long_tokens_are_refused),
        cmocka_unit_test(sound_files),
        cmocka_unit_test(skipped_tokens_cut),
        cmocka_unit_test(a_folder_takes_tokenizer_json_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
