/* The KV pool: conservation, prefix cache, eviction, identity of recycled blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "engine/kv.h"

static void fill(int32_t *tokens, int blocks, int salt) {
    for (int i = 0; i < blocks * KV_BLOCK_TOKENS; i++) tokens[i] = i * 7 + salt;
}

static void takes_and_releases(void **state) {
    (void)state;
    struct kv kv;
    int32_t a[8], b[8];
    kv_create(&kv, 10, 0);
    assert_true(kv_take(&kv, a, 8));
    assert_int_equal(kv.unheld, 2);
    assert_false(kv_take(&kv, b, 3)); /* and nothing was taken */
    assert_int_equal(kv.unheld, 2);
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < i; j++) assert_int_not_equal(a[i], a[j]);
    }
    for (int i = 0; i < 8; i++) kv_release(&kv, a[i]);
    assert_int_equal(kv.unheld, 10);
    kv_destroy(&kv);
}

static void finds_a_published_prefix(void **state) {
    (void)state;
    struct kv kv;
    int32_t tokens[4 * KV_BLOCK_TOKENS], a[4], b[4];
    kv_create(&kv, 8, 0);
    fill(tokens, 4, 1);
    assert_true(kv_take(&kv, a, 4));
    assert_int_equal(kv_find_prefix(&kv, tokens, 4, b), 0);
    for (int i = 0; i < 3; i++)
        kv_publish(&kv, a[i], i ? a[i - 1] : -1, tokens + i * KV_BLOCK_TOKENS);
    assert_int_equal(kv_find_prefix(&kv, tokens, 4, b), 3);
    for (int i = 0; i < 3; i++) assert_int_equal(a[i], b[i]);
    assert_int_equal(kv.block[a[0]].refs, 2);
    tokens[KV_BLOCK_TOKENS + 5]++; /* the second block differs in one token */
    int32_t c[4];
    assert_int_equal(kv_find_prefix(&kv, tokens, 4, c), 1);
    kv_destroy(&kv);
}

static void forgets_what_was_handed_out_anew(void **state) {
    (void)state;
    struct kv kv;
    int32_t first[2 * KV_BLOCK_TOKENS], second[2 * KV_BLOCK_TOKENS], a[2], b[2], c[2];
    kv_create(&kv, 2, 0);
    fill(first, 2, 1);
    fill(second, 2, 900);
    assert_true(kv_take(&kv, a, 2));
    kv_publish(&kv, a[0], -1, first);
    kv_publish(&kv, a[1], a[0], first + KV_BLOCK_TOKENS);
    kv_release(&kv, a[1]);
    kv_release(&kv, a[0]);
    assert_int_equal(kv_find_prefix(&kv, first, 2, c), 2); /* nobody holds them, still known */
    kv_release(&kv, c[1]);
    kv_release(&kv, c[0]);
    assert_true(kv_take(&kv, b, 1)); /* takes the last of the chain first */
    assert_int_equal(b[0], a[1]);
    assert_int_equal(kv_find_prefix(&kv, first, 2, c), 1);
    kv_release(&kv, c[0]);
    kv_release(&kv, b[0]);
    /* a[0] gets other tokens: the old child must not be reachable through its number. */
    assert_true(kv_take(&kv, b, 2));
    kv_publish(&kv, b[0], -1, second);
    assert_int_equal(kv_find_prefix(&kv, first, 2, c), 0);
    kv_destroy(&kv);
}

static void shuffle_changes_only_the_order(void **state) {
    (void)state;
    struct kv kv;
    int32_t a[64];
    int moved = 0, seen[64] = {0};
    kv_create(&kv, 64, 5);
    assert_true(kv_take(&kv, a, 64));
    for (int i = 0; i < 64; i++) {
        moved += a[i] != i;
        seen[a[i]]++;
    }
    for (int i = 0; i < 64; i++) assert_int_equal(seen[i], 1);
    assert_true(moved > 32);
    kv_destroy(&kv);
}

/* Random traffic against the invariant: unheld + held == total, and a prefix hit holds our tokens.
 */
static void random_traffic_conserves_blocks(void **state) {
    (void)state;
    enum { TOTAL = 24, SEQS = 6, MOST = 4 };
    struct kv kv;
    int32_t tokens[3][MOST * KV_BLOCK_TOKENS], held[SEQS][MOST];
    int count[SEQS] = {0};
    kv_create(&kv, TOTAL, 3);
    for (int i = 0; i < 3; i++) fill(tokens[i], MOST, i < 2 ? 1 : 77);
    tokens[1][3 * KV_BLOCK_TOKENS] = -5; /* shares three blocks with the first */
    for (uint64_t turn = 0; turn < 20000; turn++) {
        uint32_t r[4];
        rng_block(9, 0, turn, r);
        int s = (int)(r[0] % SEQS), t = (int)(r[1] % 3);
        if (count[s]) {
            while (count[s]) kv_release(&kv, held[s][--count[s]]);
        } else {
            int found = kv_find_prefix(&kv, tokens[t], MOST, held[s]);
            for (int i = 0; i < found; i++)
                assert_memory_equal(kv.block[held[s][i]].token, tokens[t] + i * KV_BLOCK_TOKENS,
                                    sizeof kv.block[0].token);
            assert_true(kv_take(&kv, held[s] + found, MOST - found));
            count[s] = MOST;
            for (int i = found; i < MOST; i++)
                kv_publish(&kv, held[s][i], i ? held[s][i - 1] : -1,
                           tokens[t] + i * KV_BLOCK_TOKENS);
        }
        int refs = 0, unheld = 0;
        for (int i = 0; i < TOTAL; i++) {
            refs += kv.block[i].refs;
            unheld += kv.block[i].refs == 0;
        }
        int want = 0;
        for (int i = 0; i < SEQS; i++) want += count[i];
        assert_int_equal(refs, want);
        assert_int_equal(unheld, kv.unheld);
    }
    kv_destroy(&kv);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_and_releases),
        cmocka_unit_test(finds_a_published_prefix),
        cmocka_unit_test(forgets_what_was_handed_out_anew),
        cmocka_unit_test(shuffle_changes_only_the_order),
        cmocka_unit_test(random_traffic_conserves_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
