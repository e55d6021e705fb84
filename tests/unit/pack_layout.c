/* The weights of the CUDA backend as it packs them, read back on the host the way its kernels read
 * them: backend/cuda/pack_layout.h and repack.h. Every comparison is exact. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cuda/repack.h"
#include "base/rng.h"
#include "base/str.h"

enum { LANES = 32 };

static uint32_t random_bits(uint64_t *at) {
    return (uint32_t)(rng_uniform(7, 1, (*at)++) * 4294967296.0);
}

/* ---- the kernels' instructions, in plain C ---- */

static uint32_t bf16x2_mul(uint32_t a, uint32_t b) {
    const uint16_t low = bf16_encode(bf16_decode((uint16_t)a) * bf16_decode((uint16_t)b));
    const uint16_t high =
        bf16_encode(bf16_decode((uint16_t)(a >> 16)) * bf16_decode((uint16_t)(b >> 16)));
    return (uint32_t)high << 16 | low;
}

static void expand_fp4(uint32_t w, uint32_t s0, uint32_t s1, uint32_t a[4]) {
    a[0] = bf16x2_mul(w & 0x81C081C0u, s0);
    a[1] = bf16x2_mul((w >> 6 | w << 26) & 0x81C081C0u, s1);
    a[2] = bf16x2_mul((w << 4) & 0x81C081C0u, s0);
    a[3] = bf16x2_mul(((w << 6) & 0x80C080C0u) | ((w >> 2) & 0x01000100u), s1);
}

static void expand_fp8(uint32_t even, uint32_t odd, uint32_t a[4]) {
    const uint32_t w[4] = {even << 8, even, odd << 8, odd};
    for (int i = 0; i < 4; i++)
        a[i] = bf16x2_mul((w[i] & 0x80008000u) | ((w[i] >> 4) & 0x07F007F0u), 0x77807780u);
}

static uint32_t word_at(const uint8_t *p) {
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

/* A lane's four registers for instruction `step` of a chunk, as lane_chunk::fragment has them. */
static void fragment(enum pack_format f, const uint8_t *chunk, int lane, int step, uint32_t a[4]) {
    const uint8_t *mine = chunk + lane * 16;
    if (f == PACK_FP4) {
        const uint8_t *scales = chunk + 1024 + lane * 4 + step / 4 * 2;
        uint32_t s[2];
        for (int i = 0; i < 2; i++)
            s[i] = ((0x70u | (scales[i] & 15u)) << 8 | (scales[i] & 0xF0u)) * 0x10001u;
        expand_fp4(word_at(mine + step / 4 * 512 + step % 4 * 4), s[0], s[1], a);
    } else if (f == PACK_FP8) {
        const uint8_t *words = mine + step / 2 * 512 + step % 2 * 8;
        expand_fp8(word_at(words), word_at(words + 4), a);
    } else {
        for (int i = 0; i < 4; i++) a[i] = word_at(mine + step * 512 + i * 4);
    }
}

/* ---- a stack, made and read back ---- */

struct packed {
    enum pack_format format;
    struct pack_job job;
    int64_t rows, cols; /* rows: a multiple of TILE_ROWS */
    uint8_t *raw, *scales, *bytes;
    double *value; /* [rows, cols] */
    uint8_t *seen; /* [rows, cols] how often, planes together */
};

static void packed_new(struct packed *p, enum pack_format f, enum weight_format w, int planes,
                       int64_t rows, int64_t cols, size_t raw_row, size_t scales_row) {
    memset(p, 0, sizeof *p);
    p->format = f;
    p->rows = rows;
    p->cols = cols;
    struct pack_job *j = &p->job;
    j->format = w;
    j->cols = cols;
    j->raw_row = raw_row;
    j->scales_row = scales_row;
    j->planes = planes;
    j->fp8_cols = 1;
    j->chunks = (int)((cols + pack_chunk_k(f) - 1) / pack_chunk_k(f));
    p->raw = mem_zero((size_t)rows, raw_row);
    p->scales = mem_zero((size_t)rows, scales_row + 1);
    p->bytes =
        mem_zero((size_t)rows / TILE_ROWS * (size_t)(j->chunks * planes), (size_t)pack_bytes(f));
    p->value = mem_zero((size_t)(rows * cols), sizeof *p->value);
    p->seen = mem_zero((size_t)(rows * cols), 1);
    j->raw = p->raw;
    j->scales = p->scales;
    j->to = p->bytes;
    j->row = mem_zero((size_t)rows, sizeof *j->row);
    for (int64_t r = 0; r < rows; r++) j->row[r].multiplier = 1;
}

static void packed_free(struct packed *p) {
    free(p->raw);
    free(p->scales);
    free(p->bytes);
    free(p->value);
    free(p->seen);
    free(p->job.row);
}

/* Adds what the fragments of one chunk hold to the values. k0: of its first column of the act. */
static void read_chunk(struct packed *p, const uint8_t *chunk, int64_t tile, int64_t k0) {
    for (int lane = 0; lane < LANES; lane++) {
        for (int step = 0; step < pack_chunk_k(p->format) / 16; step++) {
            uint32_t a[4];
            fragment(p->format, chunk, lane, step, a);
            for (int i = 0; i < 8; i++) { /* register i / 2, its half i % 2: m16n8k16 of mma.sync */
                const int64_t row = tile * TILE_ROWS + lane / 4 + i / 2 % 2 * 8;
                const int64_t place = k0 + 16 * step + lane % 4 * 2 + i % 2 + i / 4 * 8;
                const int64_t k = act_column(place);
                const float x = bf16_decode((uint16_t)(a[i / 2] >> i % 2 * 16));
                if (k >= p->cols) {
                    assert_true(x == 0);
                    continue;
                }
                p->value[row * p->cols + k] += x;
                p->seen[row * p->cols + k]++;
            }
        }
    }
}

/* Packs as pack_kernel does, and reads as the kernels do: segment by segment, each in its order. */
static void pack_and_read(struct packed *p) {
    const struct pack_job *j = &p->job;
    const int64_t per_tile = j->chunks * j->planes, tiles = p->rows / TILE_ROWS;
    for (int64_t chunk = 0; chunk < tiles * per_tile; chunk++)
        for (int lane = 0; lane < LANES; lane++) pack_lane(p->format, j, chunk, lane);
    for (int64_t tile = 0; tile < tiles; tile++) {
        for (int q = 0; q < SEGMENTS; q++) {
            const int first = segment_begin(q, j->chunks);
            const int count = (segment_begin(q + 1, j->chunks) - first) * j->planes;
            for (int t = 0; t < count; t++) {
                const int64_t at = tile * per_tile + stack_place(q, t, j->chunks, j->planes);
                read_chunk(p, p->bytes + at * pack_bytes(p->format), tile,
                           (int64_t)(first + t / j->planes) * pack_chunk_k(p->format));
            }
        }
    }
    for (int64_t i = 0; i < p->rows * p->cols; i++) assert_int_equal(p->seen[i], j->planes);
}

static void fill(uint8_t *p, size_t bytes, uint64_t *at) {
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)random_bits(at);
}

static uint8_t code_at(const struct packed *p, int64_t row, int64_t k) {
    const uint8_t byte = p->raw[row * (int64_t)p->job.raw_row + k / 2];
    return k & 1 ? byte >> 4 : byte & 15;
}

/* ---- tests ---- */

static void an_act_has_every_column_once(void **state) {
    (void)state;
    for (int64_t k = 0; k < 1024; k++) {
        assert_int_equal(act_column(act_place(k)), k);
        assert_int_equal(act_place(act_column(k)), k);
        assert_int_equal(act_place(k) / 64, k / 64);
    }
    assert_int_equal(act_stride(1), 128);
    assert_int_equal(act_stride(128), 128);
    assert_int_equal(act_stride(129), 256);
}

/* All chunks in ascending order; in memory each place once, and a full stage is eight neighbours.
 */
static void segments_cover_all_chunks(void **state) {
    (void)state;
    for (int n = 1; n <= 200; n++) {
        for (int planes = 1; planes <= 3; planes++) {
            uint8_t taken[600] = {0};
            int next = 0;
            for (int q = 0; q < SEGMENTS; q++) {
                assert_int_equal(segment_begin(q, n), q * n / SEGMENTS);
                assert_int_equal(segment_begin(q, n), next);
                const int count = (segment_begin(q + 1, n) - next) * planes;
                for (int t = 0; t < count; t++) {
                    const int at = stack_place(q, t, n, planes);
                    assert_in_range(at, 0, n * planes - 1);
                    assert_int_equal(taken[at]++, 0);
                    if (t < n / SEGMENTS * planes) assert_int_equal(at, t * SEGMENTS + q);
                }
                next += count / planes;
            }
            assert_int_equal(next, n);
        }
    }
}

/* Codes and scales of every kind, in a matrix whose last chunk is not full. */
static void nvfp4_is_exact(void **state) {
    (void)state;
    uint64_t at = 0;
    struct packed p;
    packed_new(&p, PACK_FP4, WEIGHT_NVFP4, 1, 48, 1296, 648, 81);
    fill(p.raw, 48 * 648, &at);
    for (int i = 0; i < 48 * 81; i++) p.scales[i] = (uint8_t)i; /* 15 times each */
    pack_and_read(&p);
    for (int64_t r = 0; r < p.rows; r++) {
        bool spoilt = false;
        for (int64_t k = 0; k < p.cols; k++) {
            const uint8_t scale = p.scales[r * 81 + k / 16];
            const double want = (double)e2m1_decode(code_at(&p, r, k)) * e4m3_decode(scale);
            spoilt |= (scale & 0x7F) == 0x7F;
            if ((scale & 0x7F) != 0x7F) assert_true(p.value[r * p.cols + k] * 256 == want);
        }
        assert_int_equal(isnan(p.job.row[r].multiplier) != 0, spoilt);
    }
    packed_free(&p);
}

static void every_e4m3_scale_is_exact(void **state) {
    (void)state;
    for (int b = 1; b < 0x7F; b++) {
        const uint32_t s = scale_of_e4m3(b);
        assert_true(s < 256);
        assert_true(ldexp(1 + (s & 7) / 8.0, (int)(s >> 3) - 21) == e4m3_decode((uint8_t)b));
    }
}

/* Blocks of zeros under every sign of scale are zeros, and no code of theirs shows. */
static void zero_blocks_are_zeros(void **state) {
    (void)state;
    struct packed p;
    packed_new(&p, PACK_FP4, WEIGHT_NVFP4, 1, 16, 128, 64, 8);
    memset(p.raw, 0x7F, 16 * 64);
    for (int i = 0; i < 16 * 8; i++) p.scales[i] = i % 2 ? 0x80 : 0x00;
    pack_and_read(&p);
    for (int i = 0; i < 16 * 128; i++) assert_true(p.value[i] == 0);
    packed_free(&p);
}

/* The largest scale of a matrix and all that are up to 2^30 smaller, for largest ones of all sizes.
 */
static void mxfp4_is_exact(void **state) {
    (void)state;
    uint64_t at = 0;
    for (int top = MX_SPAN; top < 255; top += 8) {
        struct packed p;
        packed_new(&p, PACK_FP4, WEIGHT_MXFP4, 1, 16, 32 * 31, 16 * 31, 31);
        p.job.mx_top = top;
        fill(p.raw, 16 * 16 * 31, &at);
        for (int i = 0; i < 16 * 31; i++) p.scales[i] = (uint8_t)(top - i % 31);
        pack_and_read(&p);
        for (int64_t r = 0; r < 16; r++) {
            for (int64_t k = 0; k < p.cols; k++) {
                const uint8_t scale = p.scales[r * 31 + k / 32];
                assert_true(ldexp(p.value[r * p.cols + k], mx_exponent(top)) ==
                            (double)e2m1_decode(code_at(&p, r, k)) * e8m0_decode(scale));
            }
        }
        packed_free(&p);
    }
}

static void fp8_is_exact(void **state) {
    (void)state;
    struct packed p;
    packed_new(&p, PACK_FP8, WEIGHT_FP8, 1, 32, 197, 197, 0);
    for (int i = 0; i < 32 * 197; i++) p.raw[i] = (uint8_t)(i % 251 < 127 ? i % 251 : i % 251 + 1);
    p.raw[5 * 197 + 77] = 0x7F;
    p.raw[21 * 197 + 3] = 0xFF;
    pack_and_read(&p);
    for (int64_t i = 0; i < p.rows * p.cols; i++)
        if ((p.raw[i] & 0x7F) != 0x7F) assert_true(p.value[i] * 256 == e4m3_decode(p.raw[i]));
    for (int r = 0; r < 32; r++)
        assert_int_equal(isnan(p.job.row[r].multiplier) != 0, r == 5 || r == 21);
    packed_free(&p);
}

/* FP8 under scales of their own along K: the product, rounded to fp32, in three planes. */
static void fp8_with_scales_along_k_is_exact(void **state) {
    (void)state;
    uint64_t at = 0;
    struct packed p;
    packed_new(&p, PACK_BF16, WEIGHT_FP8, 3, 16, 150, 150, 2 * sizeof(float));
    p.job.fp8_cols = 128;
    float *scales = (float *)p.scales;
    for (int i = 0; i < 16 * 150; i++) p.raw[i] = (uint8_t)(random_bits(&at) & 0xBF);
    for (int i = 0; i < 32; i++) scales[i] = (float)rng_uniform(7, 2, (uint64_t)i);
    pack_and_read(&p);
    for (int64_t r = 0; r < 16; r++)
        for (int64_t k = 0; k < 150; k++)
            assert_true(p.value[r * 150 + k] ==
                        e4m3_decode(p.raw[r * 150 + k]) * scales[r * 2 + k / 128]);
    packed_free(&p);
}

/* MXFP4 whose scales do not fit becomes BF16, which holds every product. */
static void wide_mxfp4_is_exact(void **state) {
    (void)state;
    uint64_t at = 0;
    struct packed p;
    packed_new(&p, PACK_BF16, WEIGHT_MXFP4, 1, 16, 96, 48, 3);
    fill(p.raw, 16 * 48, &at);
    for (int i = 0; i < 16 * 3; i++) p.scales[i] = (uint8_t)(i * 5);
    pack_and_read(&p);
    for (int64_t r = 0; r < 16; r++)
        for (int64_t k = 0; k < 96; k++)
            assert_true(p.value[r * 96 + k] == (double)e2m1_decode(code_at(&p, r, k)) *
                                                   e8m0_decode(p.scales[r * 3 + k / 32]));
    packed_free(&p);
}

static void planes_of_floats_are_exact(void **state) {
    (void)state;
    uint64_t at = 0;
    struct packed p;
    packed_new(&p, PACK_BF16, WEIGHT_F32, 3, 16, 135, 135 * sizeof(float), 0);
    float *x = (float *)p.raw;
    for (int i = 0; i < 16 * 135; i++) { /* from 2^-110: no bit is below BF16's last */
        const uint32_t bits = random_bits(&at), exponent = 17 + (bits >> 8 & 0x7FFF) % 238;
        x[i] = fp32_from_bits((bits & 0x807FFFFFu) | exponent << 23);
    }
    x[17] = 0;
    pack_and_read(&p);
    for (int i = 0; i < 16 * 135; i++) assert_true(p.value[i] == x[i]);
    packed_free(&p);
}

static void planes_of_halves_are_exact(void **state) {
    (void)state;
    for (int h = 0; h < 0x10000; h++) {
        const float x = fp16_decode((uint16_t)h);
        if (!isfinite(x)) continue;
        assert_true(bf16_decode(value_plane(x, 0)) + bf16_decode(value_plane(x, 1)) == x);
    }
    uint64_t at = 0;
    struct packed p;
    packed_new(&p, PACK_BF16, WEIGHT_F16, 2, 16, 77, 77 * sizeof(uint16_t), 0);
    uint16_t *x = (uint16_t *)p.raw;
    for (int i = 0; i < 16 * 77; i++) x[i] = (uint16_t)(random_bits(&at) & 0xBBFF);
    pack_and_read(&p);
    for (int i = 0; i < 16 * 77; i++) assert_true(p.value[i] == fp16_decode(x[i]));
    packed_free(&p);
}

/* Parts one after the other, each filled up to a tile. */
static void rows_of_parts_come_once(void **state) {
    (void)state;
    const int64_t rows[3] = {37, 16, 5};
    int64_t next[3] = {0};
    assert_int_equal(packed_tiles(rows, 3, false), 3 + 1 + 1);
    for (int64_t i = 0; i < 5 * TILE_ROWS; i++) {
        const struct packed_row r = packed_row_at(rows, 3, false, i);
        if (r.index >= 0) assert_int_equal(r.row, next[r.index]++);
    }
    for (int i = 0; i < 3; i++) assert_int_equal(next[i], rows[i]);
}

/* Gate and up: output o is in the tile that its place in an act says, eight rows apart. */
static void paired_rows_come_once(void **state) {
    (void)state;
    for (int64_t n = 1; n < 400; n += 13) {
        const int64_t rows[2] = {n, n}, tiles = packed_tiles(rows, 2, true);
        int64_t found = 0;
        for (int64_t i = 0; i < tiles * TILE_ROWS; i++)
            found += packed_row_at(rows, 2, true, i).index >= 0;
        assert_int_equal(found, 2 * n);
        assert_int_equal(tiles * 8, act_stride(n));
        for (int64_t o = 0; o < n; o++) {
            for (int half = 0; half < 2; half++) {
                const int64_t at = act_place(o) / 8 * TILE_ROWS + half * 8 + act_place(o) % 8;
                const struct packed_row r = packed_row_at(rows, 2, true, at);
                assert_int_equal(r.index, half);
                assert_int_equal(r.row, o);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_act_has_every_column_once),
        cmocka_unit_test(segments_cover_all_chunks),
        cmocka_unit_test(nvfp4_is_exact),
        cmocka_unit_test(every_e4m3_scale_is_exact),
        cmocka_unit_test(zero_blocks_are_zeros),
        cmocka_unit_test(mxfp4_is_exact),
        cmocka_unit_test(fp8_is_exact),
        cmocka_unit_test(fp8_with_scales_along_k_is_exact),
        cmocka_unit_test(wide_mxfp4_is_exact),
        cmocka_unit_test(planes_of_floats_are_exact),
        cmocka_unit_test(planes_of_halves_are_exact),
        cmocka_unit_test(rows_of_parts_come_once),
        cmocka_unit_test(paired_rows_come_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
