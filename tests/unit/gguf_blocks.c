/* Every block format against tests/data/gguf/TYPE.bin, which scripts/make_gguf_fixtures.py wrote.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "load/gguf.h"

static uint32_t u32_at(const char *p) {
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

/* IEEE 754 leaves the payload of a NaN that an operation makes to the machine. */
static bool is_nan(uint32_t bits) {
    return (bits & 0x7FFFFFFFu) > 0x7F800000u;
}

static void assert_same_bits(const float *got, const char *want, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++) {
        uint32_t g = u32_at((const char *)&got[i]), w = u32_at(want + 4 * i);
        if (g == w || (is_nan(g) && is_nan(w))) continue;
        fail_msg("%s: element %zu is %08x, must be %08x", name, i, g, w);
    }
}

static void run_type(enum gguf_type type) {
    char path[512];
    const char *name = gguf_type_name((uint32_t)type);
    snprintf(path, sizeof path, "%s/tests/data/gguf/%s.bin", IMP_SOURCE_DIR, name);
    struct str file = {0};
    struct imp_error err;
    assert_int_equal(file_read(path, 1u << 20, &file, &err), 0);
    assert_true(file.size > 16);
    size_t count = u32_at(file.data + 4), bytes = u32_at(file.data + 8);
    size_t elements = u32_at(file.data + 12), n = count * elements;
    assert_int_equal(u32_at(file.data), type);
    assert_int_equal(bytes, gguf_block_bytes(type));
    assert_int_equal(elements, gguf_block_elements(type));
    assert_int_equal(file.size, 16 + count * bytes + 4 * n);

    struct gguf_tensor t = {.name = name,
                            .type = type,
                            .dims = 1,
                            .shape = {(int64_t)n},
                            .data = (const uint8_t *)file.data + 16,
                            .bytes = count * bytes};
    const char *want = file.data + 16 + count * bytes;
    float *got = malloc(n * sizeof *got);
    gguf_dequantize(&t, 0, (int64_t)n, got);
    assert_same_bits(got, want, n, name);
    /* From the middle: the last block alone. */
    gguf_dequantize(&t, (int64_t)(n - elements), (int64_t)elements, got);
    assert_same_bits(got, want + 4 * (n - elements), elements, name);
    free(got);
    str_free(&file);
}

#define TYPE_TEST(name)                                                                            \
    static void name(void **state) {                                                               \
        (void)state;                                                                               \
        run_type(GGUF_##name);                                                                     \
    }
TYPE_TEST(F32)
TYPE_TEST(F16)
TYPE_TEST(BF16)
TYPE_TEST(Q4_0)
TYPE_TEST(Q4_1)
TYPE_TEST(Q5_0)
TYPE_TEST(Q5_1)
TYPE_TEST(Q8_0)
TYPE_TEST(Q2_K)
TYPE_TEST(Q3_K)
TYPE_TEST(Q4_K)
TYPE_TEST(Q5_K)
TYPE_TEST(Q6_K)
TYPE_TEST(MXFP4)
TYPE_TEST(NVFP4)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(F32),  cmocka_unit_test(F16),   cmocka_unit_test(BF16),
        cmocka_unit_test(Q4_0), cmocka_unit_test(Q4_1),  cmocka_unit_test(Q5_0),
        cmocka_unit_test(Q5_1), cmocka_unit_test(Q8_0),  cmocka_unit_test(Q2_K),
        cmocka_unit_test(Q3_K), cmocka_unit_test(Q4_K),  cmocka_unit_test(Q5_K),
        cmocka_unit_test(Q6_K), cmocka_unit_test(MXFP4), cmocka_unit_test(NVFP4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
