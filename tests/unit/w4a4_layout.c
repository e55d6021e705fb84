/* The layout of NVFP4 for the tensor cores of sm_120a, without one: a matrix and rows of x are
 * packed as the backend packs them, loaded as a warp loads them, and the instruction is run lane by
 * lane from the fragments that PTX ISA documents, in double. Scales are so near each other that
 * every sum is exact there, so the result must equal the plain product to the bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cuda/nvfp4_layout.h"
#include "base/rng.h"
#include "base/str.h"
#include "num/fp.h"

enum { LANES = 32, TILE = 16, TOKENS = 8, STEP = 64 };

static uint32_t bits(uint64_t stream, uint64_t i) {
    uint32_t out[4];
    rng_block(5, stream, i, out);
    return out[0];
}

/* Codes and scales as files have them. */
struct stored {
    int rows, cols;
    uint8_t *codes, *scales;
};

static struct stored make_stored(int rows, int cols, uint64_t stream, bool negative) {
    struct stored s = {rows, cols, mem_alloc((size_t)(rows * cols / 2)),
                       mem_alloc((size_t)(rows * cols / 16))};
    for (int i = 0; i < rows * cols / 2; i++) s.codes[i] = (uint8_t)bits(stream, (uint64_t)i);
    for (int i = 0; i < rows * cols / 16; i++) {
        const uint32_t u = bits(stream + 1, (uint64_t)i);
        s.scales[i] = u % 11 == 0 ? 0 : (uint8_t)(0x28 + u % 0x30);
        if (negative && u >> 8 & 1) s.scales[i] |= 0x80;
    }
    return s;
}
static void free_stored(struct stored *s) {
    free(s->codes);
    free(s->scales);
}
static double stored_value(const struct stored *s, int row, int k) {
    const uint8_t byte = s->codes[(row * s->cols + k) / 2];
    return (double)e2m1_decode(k & 1 ? byte >> 4 : byte & 15) *
           (double)e4m3_decode(s->scales[(row * s->cols + k) / 16]);
}

/* ---- the instruction, as documented ---- */

/* What the lanes of a warp bring. */
struct operands {
    uint32_t a[LANES][4], b[LANES][2], a_scales[LANES], b_scales[LANES];
};

/* With groupID = lane / 4 and threadID_in_group = lane % 4, element i of 32 of a lane's A is of row
 * groupID for i in 0..7 and 16..23, else groupID + 8, and of column threadID_in_group * 8 + (i &
 * 7), 32 more from i = 16 on. Element i of 16 of its B is of column groupID, and of row
 * threadID_in_group * 8 + (i & 7), 32 more from i = 8 on. */
static int group_id(int lane) {
    return lane >> 2;
}
static int in_group(int lane) {
    return lane & 3;
}
static float nibble(uint32_t word, int i) {
    return e2m1_decode(word >> (4 * i) & 15);
}

/* d [16][8] += A * B, every block of 16 under its scales; the times each element was met. */
static void run_instruction(const struct operands *o, double d[TILE][TOKENS], int met_a[TILE][STEP],
                            int met_b[TOKENS][STEP]) {
    double a[TILE][STEP], b[TOKENS][STEP], a_scale[TILE][4], b_scale[TOKENS][4];
    for (int lane = 0; lane < LANES; lane++) {
        for (int i = 0; i < 32; i++) {
            const int row = i % 16 < 8 ? group_id(lane) : group_id(lane) + 8;
            const int k = in_group(lane) * 8 + (i & 7) + (i >= 16 ? 32 : 0);
            a[row][k] = (double)nibble(o->a[lane][i / 8], i % 8);
            met_a[row][k]++;
        }
        for (int i = 0; i < 16; i++) {
            const int k = in_group(lane) * 8 + (i & 7) + (i >= 8 ? 32 : 0);
            b[group_id(lane)][k] = (double)nibble(o->b[lane][i / 8], i % 8);
            met_b[group_id(lane)][k]++;
        }
        /* selectors 0: lanes 0 and 1 of a group give rows groupID and groupID + 8; lane 0 column */
        for (int j = 0; j < 4; j++) {
            const uint8_t sa = o->a_scales[lane] >> (8 * j) & 0xFF;
            const uint8_t sb = o->b_scales[lane] >> (8 * j) & 0xFF;
            if (in_group(lane) < 2)
                a_scale[group_id(lane) + 8 * in_group(lane)][j] = (double)e4m3_decode(sa);
            if (in_group(lane) == 0) b_scale[group_id(lane)][j] = (double)e4m3_decode(sb);
        }
    }
    for (int row = 0; row < TILE; row++)
        for (int n = 0; n < TOKENS; n++)
            for (int k = 0; k < STEP; k++)
                d[row][n] += a[row][k] * b[n][k] * a_scale[row][k / 16] * b_scale[n][k / 16];
}

/* ---- as the backend packs and loads ---- */

static uint32_t load(const uint8_t *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

static void load_operands(const uint8_t *chunk, const uint8_t *x, int64_t stride, int64_t k,
                          int step, struct operands *o) {
    for (int lane = 0; lane < LANES; lane++) {
        const uint8_t *row = x + nvfp4_b_row(lane) * 2 * stride;
        for (int r = 0; r < 4; r++)
            o->a[lane][r] = load(chunk + nvfp4_words_at(step, lane) + 4 * r);
        for (int r = 0; r < 2; r++)
            o->b[lane][r] = load(row + nvfp4_x_codes_at(k + nvfp4_b_k(lane, r)));
        o->a_scales[lane] = load(chunk + nvfp4_scales_at(step, nvfp4_a_scale_row(lane)));
        o->b_scales[lane] = load(row + nvfp4_x_scales_at(stride, k));
    }
}

/* [TOKENS] rows of an act's size, zeros past the columns. */
static uint8_t *pack_x(const struct stored *x, int64_t stride) {
    uint8_t *out = mem_alloc((size_t)(TOKENS * stride * 2));
    memset(out, 0xA5, (size_t)(TOKENS * stride * 2)); /* nothing else may be read */
    for (int r = 0; r < TOKENS; r++) {
        for (int64_t k = 0; k < stride; k += 16) {
            static const uint8_t zeros[8];
            const int64_t block = (r * x->cols + k) / 16;
            const bool in = k < x->cols;
            nvfp4_put_block(out + r * stride * 2, stride, k, in ? x->codes + block * 8 : zeros,
                            in ? x->scales[block] : 0);
        }
    }
    return out;
}

static void check_product(int cols, uint64_t stream) {
    struct stored w = make_stored(TILE, cols, stream, true);
    struct stored x = make_stored(TOKENS, cols, stream + 10, false);
    const int64_t chunk_k = NVFP4_STEPS * NVFP4_STEP_K;
    const int64_t stride = (cols + chunk_k - 1) / chunk_k * chunk_k;
    const struct nvfp4_rows from = {w.codes, w.scales, (size_t)cols / 2, (size_t)cols / 16, cols};
    uint8_t *packed_x = pack_x(&x, stride), chunk[NVFP4_CHUNK_BYTES];
    double d[TILE][TOKENS] = {{0}};
    for (int64_t k0 = 0; k0 < stride; k0 += chunk_k) {
        memset(chunk, 0xA5, sizeof chunk);
        for (int lane = 0; lane < LANES; lane++)
            assert_false(nvfp4_pack_lane(&from, k0, lane, chunk));
        for (int step = 0; step < NVFP4_STEPS; step++) {
            int met_a[TILE][STEP] = {{0}}, met_b[TOKENS][STEP] = {{0}};
            struct operands o;
            load_operands(chunk, packed_x, stride, k0 + step * NVFP4_STEP_K, step, &o);
            run_instruction(&o, d, met_a, met_b);
            for (int i = 0; i < TILE * STEP; i++) assert_int_equal(met_a[i / STEP][i % STEP], 1);
            for (int i = 0; i < TOKENS * STEP; i++) assert_int_equal(met_b[i / STEP][i % STEP], 1);
        }
    }
    for (int row = 0; row < TILE; row++) {
        for (int n = 0; n < TOKENS; n++) {
            double want = 0;
            for (int k = 0; k < cols; k++)
                want += stored_value(&w, row, k) * stored_value(&x, n, k);
            if (d[row][n] != want)
                fail_msg("%d columns, [%d, %d]: %.17g, not %.17g", cols, row, n, d[row][n], want);
        }
    }
    free(packed_x);
    free_stored(&w);
    free_stored(&x);
}

static void products(void **state) {
    (void)state;
    const int cols[] = {16, 48, 64, 80, 128, 144, 576, 2064};
    for (size_t i = 0; i < sizeof cols / sizeof cols[0]; i++) check_product(cols[i], 100 * i + 3);
}

/* Every byte of a chunk is written, by one lane alone. */
static void every_byte_once(void **state) {
    (void)state;
    struct stored w = make_stored(TILE, 128, 77, false);
    const struct nvfp4_rows from = {w.codes, w.scales, 64, 8, 128};
    int written[NVFP4_CHUNK_BYTES] = {0};
    for (int lane = 0; lane < LANES; lane++) {
        uint8_t a[NVFP4_CHUNK_BYTES], b[NVFP4_CHUNK_BYTES];
        memset(a, 0, sizeof a);
        memset(b, 0xFF, sizeof b);
        nvfp4_pack_lane(&from, 0, lane, a);
        nvfp4_pack_lane(&from, 0, lane, b);
        for (int i = 0; i < NVFP4_CHUNK_BYTES; i++) written[i] += a[i] == b[i];
    }
    for (int i = 0; i < NVFP4_CHUNK_BYTES; i++) assert_int_equal(written[i], 1);
    free_stored(&w);
}

/* A NaN scale is told by a lane that packs its row's scales, and by no other. */
static void nan_scales(void **state) {
    (void)state;
    for (int row = 0; row < TILE; row++) {
        for (int nan = 0; nan < 2; nan++) {
            struct stored w = make_stored(TILE, 128, 88, false);
            const struct nvfp4_rows from = {w.codes, w.scales, 64, 8, 128};
            uint8_t chunk[NVFP4_CHUNK_BYTES];
            w.scales[row * 8 + 5] = nan ? 0xFF : 0x7F;
            int told = 0;
            for (int lane = 0; lane < LANES; lane++) {
                if (!nvfp4_pack_lane(&from, 0, lane, chunk)) continue;
                assert_int_equal(nvfp4_a_scale_row(lane), row);
                told++;
            }
            assert_int_equal(told, 1);
            free_stored(&w);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(every_byte_once),
        cmocka_unit_test(nan_scales),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
