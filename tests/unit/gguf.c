/* Reading GGUF files: what is refused (gg01 .. gg19, each file made here), with what place, and
 * what a valid file cut or spoiled at any point does. The rows that only the import can see are
 * here too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "load/gguf_import.h"
#include "support/gguf_model.h"

static const struct model_options LLAMA = {
    .architecture = "llama", .tokenizer = "gpt2", .pre = "smollm"};
static const struct model_options SPM = {.architecture = "llama", .tokenizer = "llama"};

/* ---- helpers ---- */

static int parse(const struct str *file, struct imp_error *err) {
    struct gguf g;
    /* A copy of the exact size, so that the address sanitizer sees a read past the end. */
    uint8_t *copy = malloc(file->size ? file->size : 1);
    if (file->size) memcpy(copy, file->data, file->size);
    int rc = gguf_parse(copy, file->size, "m.gguf", &g, err);
    if (rc == 0) gguf_close(&g);
    free(copy);
    return rc;
}

static void expect(const struct imp_error *err, int rc, int code, const char *place,
                   const char *message) {
    if (rc != code || strstr(err->where, place) == NULL || strstr(err->message, message) == NULL)
        fail_msg("%d \"%s\" at \"%s\", expected %d \"%s\" at \"%s\"", rc, err->message, err->where,
                 code, message, place);
}

/* Finishes, parses, expects a refusal, frees. `place` as in "m.gguf: byte 24". */
static void refused(struct gguf_maker *m, const char *place, const char *message) {
    struct str file = gguf_finish(m);
    struct imp_error err = {0};
    int rc = parse(&file, &err);
    str_free(&file);
    gguf_maker_free(m);
    expect(&err, rc, IMP_ERR_FILE, place, message);
}

static int import(const struct gguf_maker *m, struct imp_error *err) {
    struct str file = gguf_finish(m);
    struct gguf g;
    struct gguf_import in;
    int rc = gguf_parse((const uint8_t *)file.data, file.size, "m.gguf", &g, err);
    if (rc < 0) fail_msg("%s: %s", err->where, err->message);
    rc = gguf_import_open(&g, &in, err);
    if (rc == 0) gguf_import_close(&in);
    gguf_close(&g);
    str_free(&file);
    return rc;
}

static void import_refused(struct gguf_maker *m, int code, const char *place, const char *message) {
    struct imp_error err = {0};
    int rc = import(m, &err);
    gguf_maker_free(m);
    expect(&err, rc, code, place, message);
}

/* The value of a key of the maker, to be overwritten. */
static char *value_of(struct gguf_maker *m, const char *key) {
    char *found = memmem(m->keys.data, m->keys.size, key, strlen(key));
    assert_non_null(found);
    return found + strlen(key) + 4;
}

static struct gguf_maker with_u32(const char *key, uint32_t value) {
    struct gguf_maker m = model_make(&LLAMA);
    for (int i = 0; i < 4; i++) value_of(&m, key)[i] = (char)(value >> 8 * i);
    return m;
}

static struct gguf_maker one_tensor(uint32_t dims, const uint64_t *shape, uint32_t type,
                                    uint64_t offset, size_t data_bytes) {
    struct gguf_maker m = {0};
    put_info(&m, "t", dims, shape, type, offset);
    for (size_t i = 0; i < data_bytes; i++) str_add_char(&m.data, 0);
    return m;
}

/* ---- the rows ---- */

static void gg01_start(void **state) {
    (void)state;
    static const uint32_t versions[] = {1, 4, 0xFFFFFFFF};
    for (size_t i = 0; i < 3; i++) {
        struct gguf_maker m = {.version = versions[i]};
        refused(&m, "m.gguf: byte 4", "GGUF version");
    }
    struct gguf_maker big = {.version = 0x03000000};
    refused(&big, "byte 4", "big-endian");
    struct gguf_maker m = {0};
    struct str file = gguf_finish(&m);
    struct imp_error err = {0};
    file.data[7] = 0, file.data[4] = 0;
    expect(&err, parse(&file, &err), IMP_ERR_FILE, "byte 4", "version 0");
    file.data[0] = 'g';
    expect(&err, parse(&file, &err), IMP_ERR_FILE, "byte 0", "not a GGUF file");
    str_free(&file);
    expect(&err, parse(&file, &err), IMP_ERR_FILE, "byte 0", "not a GGUF file");
}

static void gg02_counts(void **state) {
    (void)state;
    static const uint64_t counts[] = {1ull << 60, UINT64_MAX, 1000};
    for (size_t i = 0; i < 3; i++) {
        struct gguf_maker m = {.tensor_count = counts[i]};
        refused(&m, "byte 8", "the number of tensors is");
        m = (struct gguf_maker){.key_count = counts[i]};
        refused(&m, "byte 16", "the number of keys is");
    }
    /* Enough bytes for the count at first, gone when the tensors' turn comes. */
    struct gguf_maker m = {.tensor_count = 4};
    char text[200] = {0};
    memset(text, 'x', sizeof text - 1);
    put_text_key(&m, "k", text);
    m.alignment = 1;
    refused(&m, "byte", "do not fit");
}

static void gg03_string_length(void **state) {
    (void)state;
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 65};
    for (size_t i = 0; i < 4; i++) {
        struct gguf_maker m = {0};
        put_le(put_key(&m, "k", PUT_STRING), lengths[i], 8);
        refused(&m, "byte 37", "but only");
        m = (struct gguf_maker){.key_count = 1};
        put_le(&m.keys, lengths[i], 8);
        for (int j = 0; j < 8; j++) str_add_char(&m.keys, 'k');
        refused(&m, "byte 24", "a key of");
    }
}

static void gg04_keys(void **state) {
    (void)state;
    struct gguf_maker m = {0};
    put_u32(&m, "", 1);
    refused(&m, "byte 24", "a key is empty");
    put_u32(&m, "twice", 1);
    put_u32(&m, "twice", 1);
    refused(&m, "byte 45", "\"twice\" occurs twice");
    char *key = calloc(1, (64 << 10) + 1);
    memset(key, 'k', 64 << 10);
    put_u32(&m, key, 1);
    refused(&m, "byte 24", "a key of 65536 bytes");
    key[65535] = 0;
    put_u32(&m, key, 1);
    struct str file = gguf_finish(&m);
    assert_int_equal(parse(&file, NULL), 0);
    str_free(&file);
    gguf_maker_free(&m);
    free(key);
    put_u32(&m, "\xFF\xFE", 1);
    refused(&m, "byte 24", "not text: \\xFF");
}

static void gg05_value_type(void **state) {
    (void)state;
    struct gguf_maker m = {0};
    put_le(put_key(&m, "k", 99), 0, 8);
    refused(&m, "byte 33", "\"k\": value of type 99");
    put_array(&m, "k", 99, 1ull << 60);
    refused(&m, "byte 37", "\"k\": array of values of type 99");
    put_le(put_key(&m, "k", PUT_BOOL), 2, 1);
    refused(&m, "byte 37", "boolean");
}

static void gg06_nested_array(void **state) {
    (void)state;
    struct gguf_maker m = {0};
    put_array(&m, "k", PUT_ARRAY, 1);
    for (int i = 0; i < 100000; i++) {
        put_le(&m.keys, PUT_ARRAY, 4);
        put_le(&m.keys, 1, 8);
    }
    refused(&m, "byte 37", "\"k\": array in an array");
}

static void gg07_overflow(void **state) {
    (void)state;
    struct gguf_maker m = {0};
    put_array(&m, "k", PUT_U64, (1ull << 61) + 1); /* times 8 it is 8 */
    put_le(&m.keys, 0, 8);
    refused(&m, "byte 37", "array of 2305843009213693953 values");
    put_info(&m, "a", 1, (uint64_t[]){(1ull << 61) - 16}, GGUF_F32, 0);
    put_info(&m, "b", 1, (uint64_t[]){(1ull << 61) - 16}, GGUF_F32, (1ull << 63) - 64);
    refused(&m, "byte", "tensor \"a\" needs");
    m = one_tensor(1, (uint64_t[]){8}, GGUF_F32, UINT64_MAX - 31, 64);
    refused(&m, "byte", "cut off");
}

static void gg08_alignment(void **state) {
    (void)state;
    static const uint32_t wrong[] = {0, 4, 13, 1u << 31};
    struct gguf_maker m = {0};
    for (size_t i = 0; i < 4; i++) {
        put_u32(&m, "general.alignment", wrong[i]);
        refused(&m, "byte", "general.alignment is");
    }
    put_text_key(&m, "general.alignment", "32");
    refused(&m, "byte", "general.alignment must be");
    put_le(put_key(&m, "general.alignment", PUT_U64), 32, 8);
    refused(&m, "byte", "general.alignment must be");
    m.alignment = 64;
    put_u32(&m, "general.alignment", 64);
    put_tensor(&m, "a", 1, 0, GGUF_F32, "abc", 4);
    put_tensor(&m, "b", 1, 0, GGUF_F32, "abc", 4);
    struct str file = gguf_finish(&m);
    assert_int_equal(parse(&file, NULL), 0);
    str_free(&file);
    gguf_maker_free(&m);
}

static void gg09_dimensions(void **state) {
    (void)state;
    static const uint32_t wrong[] = {0, 5, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        struct gguf_maker m =
            one_tensor(wrong[i], (uint64_t[8]){1, 1, 1, 1, 1, 1, 1, 1}, GGUF_F32, 0, 64);
        refused(&m, "byte 33", "tensor \"t\" has");
    }
}

static void gg10_shape(void **state) {
    (void)state;
    static const struct {
        uint64_t shape[2];
        uint32_t type;
        const char *place, *message;
    } cases[] = {
        {{0, 1}, GGUF_F32, "byte 37", "dimension 0 is 0"},
        {{1, 0}, GGUF_F32, "byte 45", "dimension 1 is 0"},
        {{UINT64_MAX, 1}, GGUF_F32, "byte 37", "dimension 0"},
        {{1ull << 32, 1ull << 31}, GGUF_F32, "byte 45", "dimension 1"},
        {{33, 32}, GGUF_Q8_0, "byte 53", "no multiple"},
        {{128, 2}, GGUF_Q4_K, "byte 53", "no multiple"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_maker m = one_tensor(2, cases[i].shape, cases[i].type, 0, 4096);
        refused(&m, cases[i].place, cases[i].message);
    }
}

static void gg11_type(void **state) {
    (void)state;
    static const uint32_t wrong[] = {UINT32_MAX, 4, 9, 9999, 31, 38};
    for (size_t i = 0; i < 6; i++) {
        struct gguf_maker m = one_tensor(1, (uint64_t[]){256}, wrong[i], 0, 4096);
        refused(&m, "byte 45", "tensor \"t\" has type");
    }
}

static void gg12_offset(void **state) {
    (void)state;
    struct gguf_maker m = one_tensor(1, (uint64_t[]){4}, GGUF_F32, 8, 64);
    refused(&m, "byte 57", "offset 8 is no multiple of 32");
    m = one_tensor(1, (uint64_t[]){16}, GGUF_F32, 0, 64);
    put_info(&m, "u", 1, (uint64_t[]){4}, GGUF_F32, 32);
    refused(&m, "byte 128", "\"t\" and \"u\" overlap");
    m = one_tensor(1, (uint64_t[]){4}, GGUF_F32, 1ull << 40, 64);
    refused(&m, "byte 128", "cut off: tensor \"t\"");
}

static void gg13_truncated(void **state) {
    (void)state;
    struct gguf_maker m = model_make(&LLAMA);
    struct str file = gguf_finish(&m), part;
    struct imp_error err;
    for (size_t i = 0; i < 64; i++) {
        err = (struct imp_error){0};
        part = (struct str){.data = file.data, .size = file.size * i / 64};
        expect(&err, parse(&part, &err), IMP_ERR_FILE, "m.gguf: byte", "");
        assert_true(err.message[0] != 0);
    }
    part.size = file.size - 1;
    expect(&err, parse(&part, &err), IMP_ERR_FILE, "byte", "cut off");
    assert_int_equal(parse(&file, NULL), 0);
    str_free(&file);
    gguf_maker_free(&m);
}

static void gg14_equal_names(void **state) {
    (void)state;
    struct gguf_maker m = one_tensor(1, (uint64_t[]){4}, GGUF_F32, 0, 64);
    put_info(&m, "t", 1, (uint64_t[]){4}, GGUF_F32, 32);
    refused(&m, "byte 57", "\"t\" occurs twice");
    static const char *const strays[] = {"blk.0.attention.wq.weight", "blk.9.ffn_up.weight",
                                         "stray.scale", "blk.0.attn_qkv.weight"};
    for (size_t i = 0; i < 4; i++) {
        m = model_make(&LLAMA);
        model_tensor(&m, strays[i], 8, 8);
        import_refused(&m, IMP_ERR_UNSUPPORTED, strays[i], "no place");
    }
}

static void gg15_numbers(void **state) {
    (void)state;
    static const struct {
        const char *key;
        uint32_t value;
        int code;
        const char *place;
    } cases[] = {
        {"llama.block_count", 513, IMP_ERR_FILE, "blk.0"},
        {"llama.block_count", 1000000000, IMP_ERR_FILE, "key llama.block_count"},
        {"llama.block_count", 3, IMP_ERR_FILE, "blk.2.attn_norm.weight"},
        {"llama.block_count", 1, IMP_ERR_UNSUPPORTED, "blk.1."},
        {"llama.attention.head_count", 0, IMP_ERR_FILE, "key llama.attention.head_count"},
        {"llama.attention.head_count_kv", 0, IMP_ERR_FILE, "key llama.attention.head_count_kv"},
        {"llama.attention.head_count_kv", 3, IMP_ERR_FILE, "key llama.attention.head_count_kv"},
        {"llama.attention.head_count_kv", 2, IMP_ERR_FILE, "blk.0.attn_k.weight"},
        {"llama.embedding_length", 16, IMP_ERR_FILE, "tensor token_embd.weight"},
        {"llama.feed_forward_length", 8, IMP_ERR_FILE, "blk.0.ffn_down.weight"},
        {"llama.rope.freq_base", 0x7FC00000, IMP_ERR_FILE, "key llama.rope.freq_base"},
        {"+llama.rope.dimension_count", 6, IMP_ERR_FILE, "key llama.rope.dimension_count"},
        {"+llama.rope.dimension_count", 2, IMP_ERR_UNSUPPORTED, "key llama.rope.dimension_count"},
        {"+llama.expert_count", 4, IMP_ERR_UNSUPPORTED, "key llama.expert_count"},
        {"+llama.attention.sliding_window", 4, IMP_ERR_UNSUPPORTED,
         "key llama.attention.sliding_window"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_maker m = model_make(&LLAMA);
        if (cases[i].key[0] == '+') {
            put_u32(&m, cases[i].key + 1, cases[i].value);
        } else {
            gguf_maker_free(&m);
            m = with_u32(cases[i].key, cases[i].value);
        }
        import_refused(&m, cases[i].code, cases[i].place, "");
    }
}

static void gg16_vocabulary(void **state) {
    (void)state;
    static const char *const texts[] = {"\xE2\x96\x81"
                                        "ab",
                                        "<0x0A>"};
    static const char *const spoiled[] = {"\xE2\x96\xFF"
                                          "ab",
                                          "<0x-1>"};
    static const char *const messages[] = {"token 4 is not UTF-8", "token 3 stands for a byte"};
    struct gguf_maker m;
    for (int i = 0; i < 2; i++) {
        m = model_make(&SPM);
        memcpy(memmem(m.keys.data, m.keys.size, texts[i], strlen(texts[i])), spoiled[i],
               strlen(texts[i]));
        import_refused(&m, IMP_ERR_FILE, "key tokenizer.ggml.token", messages[i]);
    }
    m = model_make(&SPM); /* floats called integers, then as many bytes as values called bytes */
    value_of(&m, "tokenizer.ggml.scores")[0] = PUT_U32;
    import_refused(&m, IMP_ERR_FILE, "key tokenizer.ggml.scores", "array it must be");
    m = model_make(&SPM);
    value_of(&m, "tokenizer.ggml.token_type")[-12 + 12] = PUT_F32;
    import_refused(&m, IMP_ERR_FILE, "key tokenizer.ggml.token_type", "array it must be");
    m = model_make(&SPM);
    value_of(&m, "tokenizer.ggml.token_type")[12] = 7;
    import_refused(&m, IMP_ERR_FILE, "key tokenizer.ggml.token_type", "token 0 has a type");
    m = model_make(&LLAMA); /* no scores there so far: 15 for 16 tokens */
    struct str *s = put_array(&m, "tokenizer.ggml.scores", PUT_F32, 15);
    for (int i = 0; i < 15; i++) put_le(s, 0, 4);
    import_refused(&m, IMP_ERR_FILE, "key tokenizer.ggml.scores", "15 entries for 16 tokens");
}

static void gg17_ids(void **state) {
    (void)state;
    static const char *const keys[] = {"bos", "eos", "eot", "eom", "padding", "unknown"};
    for (size_t i = 0; i < 6; i++) {
        char key[64], place[80];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", keys[i]);
        snprintf(place, sizeof place, "key %s", key);
        struct gguf_maker m = model_make(&LLAMA);
        if (i == 1) {
            gguf_maker_free(&m);
            m = with_u32(key, 16);
        } else {
            put_u32(&m, key, i == 0 ? UINT32_MAX : 16);
        }
        import_refused(&m, IMP_ERR_FILE, place, "must be from 0 to 15");
    }
}

static void gg18_split(void **state) {
    (void)state;
    struct gguf_maker m = model_make(&LLAMA);
    put_le(put_key(&m, "split.count", PUT_U16), 65535, 2);
    import_refused(&m, IMP_ERR_UNSUPPORTED, "key split.count", "split over 65535 files");
    m = model_make(&LLAMA);
    put_le(put_key(&m, "split.count", PUT_U16), 1, 2);
    assert_int_equal(import(&m, NULL), 0);
    gguf_maker_free(&m);
}

static void gg19_scales(void **state) {
    (void)state;
    static const uint16_t halves[] = {0x7C00, 0xFC00, 0x7E00};
    for (size_t i = 0; i < 3; i++) {
        uint8_t block[34];
        struct gguf_tensor t = {.name = "q",
                                .type = GGUF_Q8_0,
                                .dims = 2,
                                .shape = {32, 1},
                                .data = block,
                                .bytes = 34,
                                .file_offset = 160};
        struct gguf g = {.path = (char *)"m.gguf"};
        struct gguf_import_tensor row = {
            .name = "q", .source = &t, .dims = 2, .rows = 1, .cols = 32, .multiplier = 1};
        struct gguf_import in = {.source = &g, .tensors = &row, .tensor_count = 1};
        struct imp_error err = {0};
        float out[32];
        memset(block, 1, sizeof block);
        assert_int_equal(gguf_import_row(&in, 0, 0, out, &err), 0);
        block[0] = (uint8_t)halves[i], block[1] = (uint8_t)(halves[i] >> 8);
        expect(&err, gguf_import_row(&in, 0, 0, out, &err), IMP_ERR_FILE, "m.gguf: tensor q",
               "not finite (data at byte 160)");
    }
}

/* ---- anything ---- */

/* Every byte of the head changed in turn: refused or read, never a crash. Half of it is names and
 * texts, which may change; the fixed fields may not. */
static void flips(void **state) {
    (void)state;
    struct gguf_maker m = model_make(&LLAMA);
    struct str file = gguf_finish(&m);
    size_t head = file.size - m.data.size;
    for (size_t i = 0; i < head; i++) {
        static const uint8_t masks[] = {0x01, 0x80, 0xFF};
        for (int k = 0; k < 3; k++) {
            struct gguf g;
            struct gguf_import in;
            struct imp_error err = {0};
            file.data[i] = (char)(file.data[i] ^ masks[k]);
            int rc = gguf_parse((uint8_t *)file.data, file.size, "m.gguf", &g, &err);
            if (rc < 0) assert_non_null(strstr(err.where, "m.gguf: byte "));
            bool version_2 = i == 4 && masks[k] == 1;
            if (i < 24 && !version_2) assert_int_equal(rc, IMP_ERR_FILE);
            if (rc == 0) {
                if (gguf_import_open(&g, &in, &err) == 0) gguf_import_close(&in);
                gguf_close(&g);
            }
            file.data[i] = (char)(file.data[i] ^ masks[k]);
        }
    }
    str_free(&file);
    gguf_maker_free(&m);
}

/* A long path may not hide where the fault is. */
static void long_path(void **state) {
    (void)state;
    char path[500];
    struct gguf g;
    struct imp_error err = {0};
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = 0;
    assert_int_equal(gguf_parse((const uint8_t *)"GGUF\1\0\0\0", 8, path, &g, &err), IMP_ERR_FILE);
    assert_non_null(strstr(err.where, ": byte 4"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gg01_start),         cmocka_unit_test(gg02_counts),
        cmocka_unit_test(gg03_string_length), cmocka_unit_test(gg04_keys),
        cmocka_unit_test(gg05_value_type),    cmocka_unit_test(gg06_nested_array),
        cmocka_unit_test(gg07_overflow),      cmocka_unit_test(gg08_alignment),
        cmocka_unit_test(gg09_dimensions),    cmocka_unit_test(gg10_shape),
        cmocka_unit_test(gg11_type),          cmocka_unit_test(gg12_offset),
        cmocka_unit_test(gg13_truncated),     cmocka_unit_test(gg14_equal_names),
        cmocka_unit_test(gg15_numbers),       cmocka_unit_test(gg16_vocabulary),
        cmocka_unit_test(gg17_ids),           cmocka_unit_test(gg18_split),
        cmocka_unit_test(gg19_scales),        cmocka_unit_test(flips),
        cmocka_unit_test(long_path),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
