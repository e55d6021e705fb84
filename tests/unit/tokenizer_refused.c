/* tokenizer.json files that must be refused, and what is near them and must not be (tk01 to tk04).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/tokenizer_json.h"
#include "text/regex.h"

static void accepted(const char *json) {
    struct imp_error err;
    struct tokenizer *t = parse(json, &err);
    if (t == NULL) fail_msg("%.200s: %s: %s", json, err.where, err.message);
    tokenizer_free(t);
}

static void tk01_merges_of_nothing(void **state) {
    (void)state;
    accepted(FILE_WITH("", AB));
    refused(FILE_WITH("", MODEL("\"a\":0,\"b\":1", "\"a b\"")), IMP_ERR_FILE, "$.model.merges[0]");
    refused(FILE_WITH("", MODEL("\"a\":0,\"b\":1,\"ab\":2", "\"a b\",\"a c\"")), IMP_ERR_FILE,
            "$.model.merges[1]");
    refused(FILE_WITH("", MODEL("\"a\":0", "[\"a\",\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"]")),
            IMP_ERR_FILE, "$.model.merges[0]");
    refused(FILE_WITH("", MODEL("\"a\":0", "\"a\"")), IMP_ERR_FILE, "$.model.merges[0]");
    refused(FILE_WITH("", MODEL("\"a\":0", "\"a a a\"")), IMP_ERR_FILE, "$.model.merges[0]");
    refused(FILE_WITH("", MODEL("\"a\":0", "[\"a\"]")), IMP_ERR_FILE, "$.model.merges[0]");
    refused(FILE_WITH("", MODEL("\"a\":0", "7")), IMP_ERR_FILE, "$.model.merges[0]");
    refused("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"ab\":0},\"merges\":[],"
            "\"continuing_subword_prefix\":\"##aaaaaaaaaaaaa\"}}",
            IMP_ERR_UNSUPPORTED, "$.model.continuing_subword_prefix");
}

static void tk02_ids(void **state) {
    (void)state;
    accepted(FILE_WITH(ADDED("3", "<s>"), AB));
    accepted(FILE_WITH(ADDED("2", "ab"), AB));
    refused(FILE_WITH(ADDED("2147483648", "<s>"), AB), IMP_ERR_FILE, "$.added_tokens[0].id");
    refused(FILE_WITH(ADDED("-1", "<s>"), AB), IMP_ERR_FILE, "$.added_tokens[0].id");
    refused(FILE_WITH(ADDED("1.5", "<s>"), AB), IMP_ERR_FILE, "$.added_tokens[0].id");
    refused(FILE_WITH(ADDED("3", ""), AB), IMP_ERR_FILE, "$.added_tokens[0].content");
    refused(FILE_WITH(ADDED("3", "x") "," ADDED("3", "y"), AB), IMP_ERR_FILE, "$.added_tokens[1]");
    refused(FILE_WITH(ADDED("3", "x") "," ADDED("4", "x"), AB), IMP_ERR_FILE, "$.added_tokens[1]");
    refused(FILE_WITH(ADDED("1", "x"), AB), IMP_ERR_FILE, "$.added_tokens[0]");
    refused(FILE_WITH(ADDED("3", "ab"), AB), IMP_ERR_FILE, "$.added_tokens[0]");
    /* A few ids without a token are tolerated, a hole that costs memory is not. */
    accepted(FILE_WITH(ADDED("300", "<s>"), AB));
    refused(FILE_WITH(ADDED("16000000", "<s>"), AB), IMP_ERR_FILE, "$");
    refused(FILE_WITH("", MODEL("\"a\":0,\"b\":0", "")), IMP_ERR_FILE, "$.model.vocab.b");
    refused(FILE_WITH("", MODEL("\"a\":0,\"a\":1", "")), IMP_ERR_FILE, "t.json");
    refused(FILE_WITH("", MODEL("\"a\":-1", "")), IMP_ERR_FILE, "$.model.vocab.a");
    refused(FILE_WITH("", MODEL("\"a\":16777216", "")), IMP_ERR_FILE, "$.model.vocab.a");
    refused(FILE_WITH("", MODEL("\"a\":\"0\"", "")), IMP_ERR_FILE, "$.model.vocab.a");
    refused(FILE_WITH("", MODEL("", "")), IMP_ERR_FILE, "$.model.vocab");
}

static void refused_pattern(const char *pattern) {
    struct str json = {0};
    str_add_text(&json, "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":");
    str_add_json(&json, pattern, strlen(pattern));
    str_add_text(&json, "},\"behavior\":\"Isolated\",\"invert\":false},\"model\":" AB "}");
    refused(json.data, IMP_ERR_UNSUPPORTED, "$.pre_tokenizer.pattern.Regex");
    str_clear(&json);
    str_add_text(&json,
                 "{\"normalizer\":{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{\"Regex\":");
    str_add_json(&json, pattern, strlen(pattern));
    str_add_text(&json, "}},\"model\":" AB "}");
    refused(json.data, IMP_ERR_UNSUPPORTED, "$.normalizer.pattern.Regex");
    str_free(&json);
}

static void tk03_expressions(void **state) {
    (void)state;
    static const char *const bad[] = {
        "(a+)+$",
        "(a*)*",
        "((a+)b?)*",
        "(?:a|b+){2,}",
        "x{1000}{1000}",
        "x{1001}",
        "(?:x{1000}){1000}",
        "(",
        ")",
        "[",
        "a)",
        "(?<n>a)",
        "(a)\\1",
        "\\k<n>",
        "\\g<0>",
        "(?R)",
        "a**",
        "*a",
        "[]a]",
        "[a&&b]",
        "[[:alpha:]]",
        "[z-a]",
        "\\p{Foo}",
        "\\p",
        "\\pL",
        "\\h",
        "\\R",
        "\\X",
        "\\G",
        "\\b",
        "a(?i)b|c",
        "(?x) a",
        "\\",
        "[\\",
        "",
        "\\x{110000}",
        "\\ud800",
        "a{3,2}",
        "a{2}?",
        "(?i:\\p{Lu})",
        "[a-\\s]",
        "[\\P{L}]",
        "\\Q",
        "(*COMMIT)",
        "(?#c)",
        "\\p{Cn}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refused_pattern(bad[i]);
    struct str deep = {0};
    for (int i = 0; i < 100000; i++) str_add_char(&deep, '(');
    refused_pattern(deep.data);
    deep.size = 100;
    deep.data[100] = 0;
    refused_pattern(deep.data);
    str_free(&deep);
}

/* What the translation must keep of Oniguruma's meaning: pattern, text, its first match. */
static void expressions_mean_the_same(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text;
        int start, end; /* -1: none */
    } cases[] = {
        {"\\p{N}{1,3}+", "1234567a", 0, 7}, /* Ruby: repeated, not possessive */
        {"\\p{N}{1,3}", "1234567a", 0, 3},
        {"^b$", "a\nb\nc", 2, 3},
        {"a.c", "a\nc", -1, -1},
        {"\\s+", "\u180e", -1, -1},
        {"\\s+", "\xc2\x85\u00a0\u3000", 0, 7},
        {"(?i:'s)", "'\u017f", 0, 3},
        {"[^\\s\\p{L}\\p{N}]+", "!?x", 0, 2},
        {"a++a", "aaa", -1, -1},
        {"a{,2}", "aaa", 0, 2},
        {"a{x", "a{x", 0, 3},
        {"[\\-a-c]+", "a-c", 0, 3},
        {"[a-]+", "a-", 0, 2},
        {"\\s+(?!\\S)", "   x", 0, 2},
        {"(?<=x)y", "xy", 1, 2},
        {"\\p{L}+", "\U0002ebf0", 0, 4}, /* Unicode 15.1 */
        {"\\p{^L}+", "12a", 0, 2},
        {"\\P{L}+", "12a", 0, 2},
        {"\\x41\\u0042\\x{43}", "ABC", 0, 3},
        {"#", "#", 0, 1},
    };
    struct regex_scratch scratch;
    regex_scratch_init(&scratch);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct regex *regex = NULL;
        struct imp_error err = {0};
        struct regex_iter iter = {0};
        size_t start = 0, end = 0;
        if (regex_compile(slice_of(cases[i].pattern), "p", &regex, &err) < 0) {
            fail_msg("%s: %s", cases[i].pattern, err.message);
        }
        bool found =
            regex_next(regex, &scratch, cases[i].text, strlen(cases[i].text), &iter, &start, &end);
        if ((found ? (int)end : -1) != cases[i].end ||
            (found ? (int)start : -1) != cases[i].start) {
            fail_msg("%s: %zu to %zu", cases[i].pattern, start, end);
        }
        regex_free(regex);
    }
    regex_scratch_free(&scratch);
}

static void tk04_growth(void **state) {
    (void)state;
    struct str json = {0};
    str_add_text(
        &json,
        "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"");
    for (int i = 0; i < 1 << 20; i++) str_add_char(&json, 'x');
    str_add_text(&json, "\"},\"model\":" AB "}");
    refused(json.data, IMP_ERR_UNSUPPORTED, "$.normalizer.content");
    str_clear(&json); /* many that double */
    str_add_text(&json, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 20; i++) {
        str_add_text(&json,
                     "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aa\"},");
    }
    str_add_text(&json, "{\"type\":\"NFC\"}]},\"model\":" AB "}");
    refused(json.data, IMP_ERR_UNSUPPORTED, "$.normalizer.normalizers[8]");
    str_clear(&json); /* nested too deep */
    str_add_text(&json, "{\"normalizer\":");
    for (int i = 0; i < 100; i++) str_add_text(&json, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 100; i++) str_add_text(&json, "]}");
    str_add_text(&json, ",\"model\":" AB "}");
    refused(json.data, IMP_ERR_FILE, "$.normalizer");
    str_free(&json);
    refused(PART("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAA=\"}"),
            IMP_ERR_UNSUPPORTED, "$.normalizer.type");
}

static void unknown_fields_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *json, *where;
        int code;
    } cases[] = {
        {PART("\"extra\":1"), "$.extra", IMP_ERR_UNSUPPORTED},
        {PART("\"version\":\"2.0\""), "$.version", IMP_ERR_UNSUPPORTED},
        {PART("\"normalizer\":{\"type\":\"New\"}"), "$.normalizer.type", IMP_ERR_UNSUPPORTED},
        {PART("\"normalizer\":{\"type\":\"NFC\",\"x\":1}"), "$.normalizer.x", IMP_ERR_UNSUPPORTED},
        {PART("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x*\"},\"content\":"
              "\"\"}"),
         "$.normalizer.pattern", IMP_ERR_UNSUPPORTED},
        {PART("\"normalizer\":{}"), "$.normalizer.type", IMP_ERR_FILE},
        {PART("\"normalizer\":[]"), "$.normalizer", IMP_ERR_FILE},
        {PART("\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}"), "$.pre_tokenizer.type",
         IMP_ERR_UNSUPPORTED},
        {PART("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
              "\"individual_digits\":1}]}"),
         "$.pre_tokenizer.pretokenizers[0].individual_digits", IMP_ERR_FILE},
        {PART("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},"
              "\"behavior\":\"Sideways\"}"),
         "$.pre_tokenizer.behavior", IMP_ERR_UNSUPPORTED},
        {PART("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"),
         "$.pre_tokenizer.replacement", IMP_ERR_FILE},
        {PART("\"normalizer\":{\"type\":\"Nmt\"},\"pre_tokenizer\":{\"type\":\"Metaspace\","
              "\"replacement\":\"_\",\"prepend_scheme\":\"first\"}"),
         "$.pre_tokenizer.prepend_scheme", IMP_ERR_UNSUPPORTED},
        {PART("\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true},\"added_tokens\":[{\"id\":3,"
              "\"content\":\" \","
              "\"normalized\":true}]"),
         "$.added_tokens", IMP_ERR_UNSUPPORTED},
        {PART("\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}"),
         "$.pre_tokenizer.length", IMP_ERR_FILE},
        {PART("\"decoder\":{\"type\":\"WordPiece\"}"), "$.decoder.type", IMP_ERR_UNSUPPORTED},
        {PART("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},"
              "{\"type\":\"ByteFallback\"}]}"),
         "$.decoder.decoders[1]", IMP_ERR_UNSUPPORTED},
        {PART("\"post_processor\":{\"type\":\"BertProcessing\"}"), "$.post_processor.type",
         IMP_ERR_UNSUPPORTED},
        {PART("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
              "{\"id\":\"<s>\"}}],\"special_tokens\":{}}"),
         "$.post_processor.single[0]", IMP_ERR_FILE},
        {PART("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
              "{\"id\":\"s\"}}],\"special_tokens\":{\"s\":{\"ids\":[9]}}}"),
         "$.post_processor.single[0]", IMP_ERR_FILE},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "$.model.type", IMP_ERR_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}",
         "$.model.dropout", IMP_ERR_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\"}}",
         "$.model.unk_token", IMP_ERR_FILE},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"new\":null}}",
         "$.model.new", IMP_ERR_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "$.model.merges", IMP_ERR_FILE},
        {"{}", "$.model", IMP_ERR_FILE},
        {"[]", "$", IMP_ERR_FILE},
        {"{", "t.json: byte", IMP_ERR_FILE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        refused(cases[i].json, cases[i].code, cases[i].where);
    }
    accepted(PART("\"truncation\":{\"anything\":1},\"padding\":{\"x\":[]}"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tk01_merges_of_nothing),
        cmocka_unit_test(tk02_ids),
        cmocka_unit_test(tk03_expressions),
        cmocka_unit_test(expressions_mean_the_same),
        cmocka_unit_test(tk04_growth),
        cmocka_unit_test(unknown_fields_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
