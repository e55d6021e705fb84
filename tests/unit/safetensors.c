/* SafeTensors files, good and bad. st01 .. st13 and st18 name rows of the list of bad
 * files that a loader must survive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "load/safetensors.h"
#include "support/files.h"

/* Parses an exact-size heap copy, so that AddressSanitizer sees one byte too many. */
static int parse(const void *data, size_t size, struct safetensors *st, uint8_t **copy,
                 struct imp_error *err) {
    *copy = malloc(size ? size : 1);
    if (size > 0) memcpy(*copy, data, size);
    *err = (struct imp_error){0};
    return safetensors_parse(*copy, size, "bad.safetensors", st, err);
}

static void expect_image(const struct str *image, int code, const char *words) {
    struct safetensors st;
    struct imp_error err;
    uint8_t *copy;
    int rc = parse(image->data, image->size, &st, &copy, &err);
    if (rc != code ||
        (code < 0 && strstr(err.message, words) == NULL && strstr(err.where, words) == NULL))
        fail_msg("rc %d, message \"%s\" at \"%s\"; expected %d with \"%s\"", rc, err.message,
                 err.where, code, words);
    if (rc < 0) {
        assert_non_null(strstr(err.where, "bad.safetensors"));
        assert_int_equal(st.count, 0);
        assert_null(st.tensors);
    }
    safetensors_close(&st);
    free(copy);
}

static void expect_bytes(const void *data, size_t size, const char *words) {
    struct str image = {0};
    str_add(&image, data, size);
    expect_image(&image, IMP_ERR_FILE, words);
    str_free(&image);
}

/* header as given; data_bytes zero bytes behind it. */
static void expect_sized(const char *header, size_t header_bytes, size_t data_bytes, int code,
                         const char *words) {
    struct str image = {0};
    void *zeros = mem_zero(data_bytes, 1);
    file_image(&image, header, header_bytes, zeros, data_bytes);
    expect_image(&image, code, words);
    free(zeros);
    str_free(&image);
}

static void refuse(const char *header, size_t data_bytes, const char *words) {
    expect_sized(header, strlen(header), data_bytes, IMP_ERR_FILE, words);
}

static void accept(const char *header, size_t data_bytes) {
    expect_sized(header, strlen(header), data_bytes, 0, "");
}

#define ENTRY(dtype, shape, offsets)                                                               \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(dtype, shape, offsets) "{\"t\":" ENTRY(dtype, shape, offsets) "}"

static void good_tensors(void **state) {
    (void)state;
    struct maker m = {0};
    const float x[6] = {1, 2, 3, 4, 5, 6};
    const uint8_t y[3] = {7, 8, 9};
    maker_add(&m, "matrix", "F32", "[2,3]", x, sizeof x);
    maker_add(&m, "bytes", "U8", "[3]", y, sizeof y);
    struct str image = {0};
    maker_finish(&m, 0, &image);
    struct safetensors st;
    struct imp_error err;
    uint8_t *copy;
    assert_int_equal(parse(image.data, image.size, &st, &copy, &err), 0);
    assert_int_equal(st.count, 2);
    const struct tensor *t = &st.tensors[0];
    char shape[128];
    tensor_shape_text(t, shape);
    assert_string_equal(t->name, "matrix");
    assert_string_equal(shape, "[2, 3]");
    assert_int_equal(t->dtype, DTYPE_F32);
    assert_int_equal(tensor_elements(t), 6);
    assert_memory_equal(t->data, x, sizeof x);
    assert_ptr_equal(t->data, copy + t->file_offset);
    assert_string_equal(t->file, "bad.safetensors");
    assert_memory_equal(st.tensors[1].data, y, sizeof y);
    safetensors_close(&st);
    free(copy);
    str_free(&image);
}

static void st01_short_files(void **state) {
    (void)state;
    expect_bytes("", 0, "too short");
    expect_bytes("\0", 1, "too short");
    expect_bytes("\0\0\0\0\0\0\0", 7, "too short");
    expect_bytes("\0\0\0\0\0\0\0\0", 8, "not valid JSON");
    refuse("{", 0, "not valid JSON");
}

static void with_length(uint64_t length, const char *words) {
    struct str image = {0};
    for (int i = 0; i < 8; i++) str_add_char(&image, (char)(length >> 8 * i));
    str_add_text(&image, "{}");
    expect_image(&image, IMP_ERR_FILE, words);
    str_free(&image);
}

static void st02_header_length_wraps(void **state) {
    (void)state;
    with_length(UINT64_MAX, "18446744073709551615 bytes");
    with_length(UINT64_MAX - 7, "18446744073709551608 bytes");
    with_length(UINT64_MAX - 5, "the header has");
    with_length((uint64_t)1 << 63, "the header has");
}

static void st03_header_too_long(void **state) {
    (void)state;
    with_length(100000001, "more than the 100000000 allowed");
    with_length(100000000, "the file only 2");
    with_length(3, "the file only 2");
}

static void st04_not_a_json_object(void **state) {
    (void)state;
    refuse("{\"\xff\":1}", 0, "not valid JSON");
    refuse("{\"a\xc3\":1}", 0, "not valid JSON");
    refuse("tensors", 0, "not valid JSON");
    refuse("[]", 0, "not an object");
    refuse("4", 0, "not an object");
    refuse("null", 0, "not an object");
    refuse("{} x", 0, "not valid JSON");
    refuse("{}{}", 0, "not valid JSON");
    refuse("\xef\xbb\xbf{}", 0, "not valid JSON");
    refuse("{'a':1}", 0, "not valid JSON");
    refuse("{}//", 0, "not valid JSON");
    refuse("{\"a\":NaN}", 0, "not valid JSON");
    expect_sized("{}\0\0", 4, 0, IMP_ERR_FILE, "not valid JSON");
}

static void st05_white_space_around(void **state) {
    (void)state;
    accept("{}", 0);
    accept("{}      ", 0);
    accept("  \n{}", 0);
    accept(" " ONE("F32", "[1]", "[0,4]") "\t\r\n ", 4);
    accept("{ \"t\" : { \"data_offsets\" : [ 0 , 4 ] , \"shape\" : [ 1 ] , \"dtype\" : \"F32\" } }",
           4);
}

static void st06_deep_nesting(void **state) {
    (void)state;
    enum { DEEP = 10000000 };
    char *text = mem_alloc(DEEP);
    memset(text, '[', DEEP);
    expect_sized(text, DEEP, 0, IMP_ERR_FILE, "nested too deep");
    for (size_t i = 0; i + 5 <= DEEP; i += 5) memcpy(text + i, "{\"a\":", 5);
    expect_sized(text, DEEP, 0, IMP_ERR_FILE, "nested too deep");
    free(text);
    /* Brackets inside a string are no nesting. */
    struct str header = {0};
    str_add_text(&header, "{\"__metadata__\":{\"a\":\"\\\"");
    for (int i = 0; i < 1000; i++) str_add_char(&header, '[');
    str_add_text(&header, "\"}}");
    accept(header.data, 0);
    str_free(&header);
}

static void st07_twice(void **state) {
    (void)state;
    refuse("{\"a\":" ENTRY("U8", "[1]", "[0,1]") ",\"a\":" ENTRY("U8", "[1]", "[1,2]") "}", 2,
           "\"a\" occurs twice");
    refuse("{\"a\":" ENTRY("U8", "[1]", "[0,1]") ",\"\\u0061\":" ENTRY("U8", "[1]", "[1,2]") "}", 2,
           "\"a\" occurs twice");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[2],\"data_offsets\":[0,1]}}", 1,
           "\"shape\" occurs twice");
    refuse("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "\"__metadata__\" occurs twice");
    refuse("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "\"a\" occurs twice");
    refuse("{\"__metadata__\":{\"a\":1}}", 0, "$.__metadata__");
    refuse("{\"__metadata__\":{\"a\":{}}}", 0, "$.__metadata__");
    refuse("{\"__metadata__\":[\"a\"]}", 0, "$.__metadata__");
    refuse("{\"__metadata__\":\"a\"}", 0, "$.__metadata__");
    accept("{\"__metadata__\":{\"format\":\"pt\"}}", 0);
}

static void st08_unknown_dtype(void **state) {
    (void)state;
    refuse(ONE("F37", "[1]", "[0,4]"), 4, "unknown dtype \"F37\"");
    refuse(ONE("f32", "[1]", "[0,4]"), 4, "unknown dtype");
    refuse(ONE("", "[1]", "[0,4]"), 4, "unknown dtype");
    refuse(ONE("?", "[1]", "[0,4]"), 4, "unknown dtype");
    refuse(ONE("F32\\u0000", "[1]", "[0,4]"), 4, "unknown dtype");
    refuse("{\"t\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor t");
    refuse("{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"dtype\"");
    refuse("{\"t\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", 4, "\"shape\"");
    refuse("{\"t\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, "\"data_offsets\"");
    refuse("{\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"codec\":\"z\"}}", 4,
           "keys besides");
    refuse("{\"t\":[]}", 0, "not an object");
    refuse("{\"t\":null}", 0, "not an object");
}

static void st09_impossible_shapes(void **state) {
    (void)state;
    refuse(ONE("U8", "[2,9223372036854775807]", "[0,4]"), 4, "more elements");
    refuse(ONE("U8", "[4294967296,4294967296]", "[0,4]"), 4, "more elements");
    refuse(ONE("F64", "[4611686018427387904]", "[0,4]"), 4, "more bits");
    refuse(ONE("U8", "[18446744073709551615]", "[0,4]"), 4, "not a size");
    refuse(ONE("U8", "[18446744073709551616]", "[0,4]"), 4, "not a size");
    refuse(ONE("U8", "[-1]", "[0,4]"), 4, "not a size");
    refuse(ONE("U8", "[-0]", "[0,0]"), 0, "not a size");
    refuse(ONE("U8", "[1.5]", "[0,4]"), 4, "not a size");
    refuse(ONE("U8", "[4.0]", "[0,4]"), 4, "not a size");
    refuse(ONE("U8", "[1e30]", "[0,4]"), 4, "not a size");
    refuse(ONE("U8", "[1e400]", "[0,4]"), 4, "not valid JSON");
    refuse(ONE("U8", "[\"4\"]", "[0,4]"), 4, "not a size");
    refuse(ONE("U8", "[true]", "[0,1]"), 1, "not a size");
    refuse(ONE("U8", "[[4]]", "[0,4]"), 4, "not a size");
    refuse(ONE("U8", "4", "[0,4]"), 4, "not an array");
    refuse(ONE("U8", "{}", "[0,4]"), 4, "not an array");
    struct str header = {0};
    str_add_text(&header, "{\"t\":{\"dtype\":\"U8\",\"shape\":[1");
    for (int i = 1; i < 65; i++) str_add_text(&header, ",1");
    str_add_text(&header, "],\"data_offsets\":[0,1]}}");
    refuse(header.data, 1, "too many dimensions");
    str_free(&header);
    accept(ONE("U8", "[1,1,1,1,1,1,1,4]", "[0,4]"), 4);
}

static void st10_offsets(void **state) {
    (void)state;
    refuse(ONE("U8", "[4]", "[4,0]"), 4, "ends before it begins");
    refuse(ONE("U8", "[4]", "[0,5]"), 4, "behind the file's end");
    refuse(ONE("U8", "[4]", "[18446744073709551612,18446744073709551615]"), 4, "behind the file");
    refuse(ONE("U8", "[4]", "[0,18446744073709551616]"), 4, "not two offsets");
    refuse(ONE("U8", "[4]", "[0]"), 4, "not two offsets");
    refuse(ONE("U8", "[4]", "[0,4,8]"), 4, "not two offsets");
    refuse(ONE("U8", "[4]", "[-4,0]"), 4, "not two offsets");
    refuse(ONE("U8", "[4]", "[0,4.0]"), 4, "not two offsets");
    refuse(ONE("U8", "[4]", "[\"0\",\"4\"]"), 4, "not two offsets");
    refuse(ONE("U8", "[4]", "{\"0\":0,\"1\":4}"), 4, "not two offsets");
    refuse(ONE("U8", "[4]", "[1,5]"), 5, "bytes before its data");
    refuse("{\"a\":" ENTRY("U8", "[2]", "[0,2]") ",\"b\":" ENTRY("U8", "[2]", "[3,5]") "}", 5,
           "tensor b");
    refuse("{\"a\":" ENTRY("U8", "[3]", "[0,3]") ",\"b\":" ENTRY("U8", "[2]", "[2,4]") "}", 4,
           "overlaps that of a");
    struct str header = {0};
    for (int i = 0; i < 10; i++)
        str_printf(&header, "%c\"t%d\":" ENTRY("U8", "[4]", "[0,4]"), i ? ',' : '{', i);
    str_add_char(&header, '}');
    refuse(header.data, 4, "overlaps");
    str_free(&header);
    refuse(ONE("U8", "[4]", "[0,4]"), 5, "behind the last tensor");
    refuse("{}", 1, "behind the last tensor");
    /* The order of the header is free. */
    accept("{\"b\":" ENTRY("U8", "[2]", "[2,4]") ",\"a\":" ENTRY("U8", "[2]", "[0,2]") "}", 4);
}

static void st11_span_is_not_shape_times_dtype(void **state) {
    (void)state;
    refuse(ONE("F32", "[2]", "[0,4]"), 4, "F32 [2] takes 8 bytes, \"data_offsets\" gives it 4");
    refuse(ONE("BF16", "[2]", "[0,8]"), 8, "takes 4 bytes");
    refuse(ONE("F32", "[]", "[0,0]"), 0, "takes 4 bytes");
    refuse(ONE("F4", "[3]", "[0,1]"), 1, "whole bytes");
    refuse(ONE("F4", "[3]", "[0,2]"), 2, "whole bytes");
    refuse(ONE("F6_E2M3", "[3]", "[0,3]"), 3, "whole bytes");
    accept(ONE("F4", "[4]", "[0,2]"), 2);
    accept(ONE("F6_E3M2", "[4]", "[0,3]"), 3);
    accept(ONE("C64", "[1]", "[0,8]"), 8);
}

static void st12_no_elements(void **state) {
    (void)state;
    accept(ONE("F32", "[]", "[0,4]"), 4);
    accept(ONE("F32", "[2,0]", "[0,0]"), 0);
    /* Empty tensors anywhere between others. */
    accept("{\"z\":" ENTRY("F32", "[0]", "[2,2]") ",\"a\":" ENTRY(
               "U8", "[2]", "[0,2]") ",\"b\":" ENTRY("U8", "[2]",
                                                     "[2,4]") ",\"y\":" ENTRY("F32", "[0]",
                                                                              "[4,4]") "}",
           4);
    refuse("{\"z\":" ENTRY("F32", "[0]", "[1,1]") ",\"a\":" ENTRY("U8", "[2]", "[0,2]") "}", 2,
           "overlaps");
}

static void st13_too_many_and_strange_names(void **state) {
    (void)state;
    struct str header = {0};
    str_add_char(&header, '{');
    for (unsigned i = 0; i <= CAP_TENSORS + 2; i++)
        str_printf(&header, "%s\"%x\":{}", i ? "," : "", i);
    str_add_char(&header, '}');
    refuse(header.data, 0, "more than the 1000000 tensors");
    str_clear(&header);
    str_add_text(&header, "{\"");
    for (int i = 0; i < 65536; i++) str_add_char(&header, 'n');
    str_add_text(&header, "\":" ENTRY("U8", "[0]", "[0,0]") "}");
    refuse(header.data, 0, "65536 bytes");
    str_free(&header);
    refuse("{\"a\\u0000b\":" ENTRY("U8", "[0]", "[0,0]") "}", 0, "control characters");
    refuse("{\"a\\u0085b\":" ENTRY("U8", "[0]", "[0,0]") "}", 0, "control characters");
    refuse("{\"a\x7f"
           "b\":" ENTRY("U8", "[0]", "[0,0]") "}",
           0, "\\x7F");
    /* The escape sequence arrives in the message, but not as one. */
    refuse("{\"\\u001b[31mred\":" ENTRY("U8", "[0]", "[0,0]") "}", 0, "\\x1B[31mred");
    /* Names are never paths. */
    accept("{\"../../etc/passwd\":" ENTRY("U8", "[0]", "[0,0]") "}", 0);
}

static void tiny_file(struct str *image) {
    struct maker m = {0};
    uint8_t bytes[96] = {0};
    maker_add(&m, "model.layers.0.mlp.up_proj.weight_packed", "U8", "[4,8]", bytes, 32);
    maker_add(&m, "model.layers.0.mlp.up_proj.weight_scale", "F8_E4M3", "[4,1]", bytes, 4);
    maker_add(&m, "model.layers.0.mlp.up_proj.weight_global_scale", "F32", "[1]", bytes, 4);
    maker_add(&m, "model.norm.weight", "BF16", "[16]", bytes, 32);
    maker_finish(&m, 0, image);
}

/* Whatever is accepted must be readable to the last byte. */
static unsigned touch(const struct safetensors *st) {
    unsigned sum = 0;
    for (size_t i = 0; i < st->count; i++) {
        for (size_t j = 0; j < st->tensors[i].bytes; j++) sum += st->tensors[i].data[j];
    }
    return sum;
}

static void st18_truncated_and_flipped(void **state) {
    (void)state;
    struct str image = {0};
    tiny_file(&image);
    struct safetensors st;
    struct imp_error err;
    uint8_t *copy;
    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(parse(image.data, image.size * i / 64, &st, &copy, &err), IMP_ERR_FILE);
        free(copy);
    }
    size_t header = (uint8_t)image.data[0] | (size_t)(uint8_t)image.data[1] << 8, accepted = 0;
    for (size_t at = 0; at < 8 + header; at++) {
        for (unsigned flip = 1; flip < 256; flip++) {
            image.data[at] = (char)(image.data[at] ^ flip);
            int rc = parse(image.data, image.size, &st, &copy, &err);
            assert_true(rc == 0 || rc == IMP_ERR_FILE);
            accepted += rc == 0;
            if (rc == 0) assert_int_equal(touch(&st), 0);
            safetensors_close(&st);
            free(copy);
            image.data[at] = (char)(image.data[at] ^ flip);
        }
    }
    assert_true(accepted > 1000 && accepted < 255 * header); /* changed names are fine */
    str_free(&image);
}

static void file_on_disk(void **state) {
    (void)state;
    char *folder = temp_folder(), path[512];
    struct str image = {0};
    struct safetensors st;
    struct imp_error err;
    tiny_file(&image);
    put_file(folder, "a.safetensors", image.data, image.size);
    put_file(folder, "empty.safetensors", "", 0);
    snprintf(path, sizeof path, "%s/a.safetensors", folder);
    assert_int_equal(safetensors_open(path, &st, &err), 0);
    assert_int_equal(st.count, 4);
    assert_string_equal(st.tensors[0].file, path);
    safetensors_close(&st);
    safetensors_close(&st);
    snprintf(path, sizeof path, "%s/empty.safetensors", folder);
    assert_int_equal(safetensors_open(path, &st, &err), IMP_ERR_FILE);
    assert_string_equal(err.where, path);
    snprintf(path, sizeof path, "%s/none.safetensors", folder);
    assert_int_equal(safetensors_open(path, &st, &err), IMP_ERR_IO);
    assert_int_equal(safetensors_open(folder, &st, &err), IMP_ERR_FILE);
    str_free(&image);
    temp_remove(folder);
}

/* A long path may not push the tensor's name out of the message. */
static void long_path_keeps_tensor(void **state) {
    (void)state;
    char name[400] = {0};
    memset(name, 'p', sizeof name - 1);
    memcpy(name + sizeof name - 1 - 13, "/x.safetensor", 13);
    const char header[] = ONE("F37", "[1]", "[0,4]");
    struct str image = {0};
    file_image(&image, header, strlen(header), "\0\0\0", 4);
    struct safetensors st;
    struct imp_error err;
    assert_int_equal(safetensors_parse((uint8_t *)image.data, image.size, name, &st, &err),
                     IMP_ERR_FILE);
    assert_non_null(strstr(err.where, "/x.safetensor: tensor t"));
    str_free(&image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_tensors),
        cmocka_unit_test(st01_short_files),
        cmocka_unit_test(st02_header_length_wraps),
        cmocka_unit_test(st03_header_too_long),
        cmocka_unit_test(st04_not_a_json_object),
        cmocka_unit_test(st05_white_space_around),
        cmocka_unit_test(st06_deep_nesting),
        cmocka_unit_test(st07_twice),
        cmocka_unit_test(st08_unknown_dtype),
        cmocka_unit_test(st09_impossible_shapes),
        cmocka_unit_test(st10_offsets),
        cmocka_unit_test(st11_span_is_not_shape_times_dtype),
        cmocka_unit_test(st12_no_elements),
        cmocka_unit_test(st13_too_many_and_strange_names),
        cmocka_unit_test(st18_truncated_and_flipped),
        cmocka_unit_test(file_on_disk),
        cmocka_unit_test(long_path_keeps_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
