/* The attention kernels of every instruction set, one KV block at a time: the fp32 state of a query
 * is the same bits with any number of companions. The op's own test sees it only through BF16. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "backend/cpu/fast/fast.h"
#include "op/support.h"

enum { DIM = 72, QUERIES = ATTEND_ROWS, VALUES = 80, PARTS = 3 };

struct inputs {
    uint16_t q[QUERIES][DIM], k[PARTS][DIM * KV_BLOCK_TOKENS], v[PARTS][KV_BLOCK_TOKENS * VALUES];
};
struct state {
    float o[QUERIES][VALUES], m[QUERIES], l[QUERIES];
};

static void fill(uint16_t *out, size_t n, uint64_t stream) {
    for (size_t i = 0; i < n; i++) out[i] = bf16_encode(case_normal(stream, i) * 0.6f);
}

/* Queries first .. first + count - 1 together, over all parts. */
static void attend(const struct fast_kernels *kernels, struct inputs *in, int first, int count,
                   float softcap, struct state *out) {
    static const int span[PARTS][2] = {{5, 64}, {0, 64}, {0, 33}};
    struct attend_query query[QUERIES], *order[QUERIES];
    for (int i = 0; i < count; i++) {
        query[i] = (struct attend_query){.q = (const uint32_t *)(const void *)in->q[first + i],
                                         .o = out->o[first + i],
                                         .m = -INFINITY,
                                         .sink = -INFINITY};
        memset(query[i].o, 0, sizeof out->o[0]);
        order[i] = &query[i];
    }
    for (int p = 0; p < PARTS; p++) {
        struct attend_part part = {.k = (const uint32_t *)(const void *)in->k[p],
                                   .v = in->v[p],
                                   .head_dim = DIM,
                                   .lo = span[p][0],
                                   .hi = span[p][1],
                                   .softcap = softcap};
        kernels->attend(order, count, &part);
    }
    for (int i = 0; i < count; i++) {
        out->m[first + i] = query[i].m;
        out->l[first + i] = query[i].l;
    }
}

static void check_companions(const struct fast_kernels *kernels, struct inputs *in, float softcap) {
    struct state *alone = mem_zero(1, sizeof *alone), *together = mem_zero(1, sizeof *together);
    for (int i = 0; i < QUERIES; i++) attend(kernels, in, i, 1, softcap, alone);
    for (int i = 0; i < QUERIES; i++) assert_true(alone->l[i] >= 1);
    for (int count = 2; count <= QUERIES; count++) {
        for (int first = 0; first < QUERIES; first += count)
            attend(kernels, in, first, first + count > QUERIES ? QUERIES - first : count, softcap,
                   together);
        assert_memory_equal(together, alone, sizeof *alone);
    }
    free(alone);
    free(together);
}

static void test_companions(void **state) {
    (void)state;
    static const char *const isas[] = {"avx512", "avx2", "portable"};
    struct inputs *in = mem_zero(1, sizeof *in);
    fill(&in->q[0][0], sizeof in->q / 2, 1);
    fill(&in->k[0][0], sizeof in->k / 2, 2);
    fill(&in->v[0][0], sizeof in->v / 2, 3);
    for (int i = 0; i < 3; i++) {
        struct backend_options options = {.kind = BACKEND_CPU, .threads = 1, .isa = isas[i]};
        struct backend *be = NULL;
        if (backend_open(&options, &be, NULL) < 0) continue;
        check_companions(((struct fast_backend *)be)->kernels, in, 0);
        check_companions(((struct fast_backend *)be)->kernels, in, 30);
        backend_close(be);
    }
    free(in);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_companions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
