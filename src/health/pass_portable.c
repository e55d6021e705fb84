/* The loops of the pass. A block's sums come from one 64-bit table entry for each byte, and the
 * maxima from a pair of floats for each, so that all is loads, adds and 4-wide arithmetic. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "health/pass.h"
#include "num/fp.h"
#include "num/nvfp4.h"
#ifdef __SSE__
#include <xmmintrin.h>
#endif

enum { LANES = 16, CODE_BIG = 4, CODE_LARGEST = 7 };

/* The mean of (x - code)^2, in 1/48, if x is anywhere in the code's cell with equal chance: 1/12 of
 * the square of the width where it is symmetric. 6 is measured, for cells that end at the block's
 * largest weight: docs/weights.md. */
static const uint64_t CELL_ERROR[8] = {1, 1, 1, 1, 3, 4, 12, 4};

static uint64_t code_sums(unsigned code) {
    const unsigned m = code & 7;
    const float v = e2m1_decode((uint8_t)m);
    return (uint64_t)(4 * v * v) | CELL_ERROR[m] << PASS_ERROR | (uint64_t)(m == 0) << PASS_ZEROS |
           (uint64_t)(m >= CODE_BIG) << PASS_BIG | (uint64_t)(m == CODE_LARGEST) << PASS_SIXES;
}

void pass_tables_make(struct pass_tables *out) {
    for (unsigned b = 0; b < 256; b++) {
        out->magnitude[b][0] = e2m1_decode(b & 7);
        out->magnitude[b][1] = e2m1_decode(b >> 4 & 7);
        out->sums[b] = code_sums(b & 15) + code_sums(b >> 4);
        out->e4m3[b] = (b & 0x7F) == 0x7F ? 0 : e4m3_decode(b & 0x7F);
        out->e8m0[b] = b == 0xFF ? 0 : e8m0_decode((uint8_t)b);
    }
}

static inline float larger(float a, float b) {
    return a > b ? a : b;
}

/* a[k] = max(a[k], x[k]) for LANES. Compilers keep the order of floating-point traps and so leave a
 * comparison scalar; hence by hand where every machine of the kind can. */
static inline void raise_to(float *restrict a, const float *restrict x) {
#ifdef __SSE__
    for (int k = 0; k < LANES; k += 4)
        _mm_storeu_ps(a + k, _mm_max_ps(_mm_loadu_ps(a + k), _mm_loadu_ps(x + k)));
#else
    for (int k = 0; k < LANES; k++) a[k] = larger(a[k], x[k]);
#endif
}

/* Exactly one code of the block is 2 or more: is it at least 4 times the next? */
static bool stands_alone(const uint8_t *codes, int bytes) {
    unsigned first = 0, second = 0;
    for (int i = 0; i < 2 * bytes; i++) {
        unsigned m = codes[i / 2] >> (i & 1 ? 4 : 0) & 7;
        if (m > first) {
            second = first;
            first = m;
        } else if (m > second) {
            second = m;
        }
    }
    return e2m1_decode((uint8_t)first) >= 4 * e2m1_decode((uint8_t)second);
}

/* The magnitudes of 8 bytes of codes under a scale, into the maxima of their inputs. Halves of
 * registers are loaded from the table: pairs that go through memory would be waited for. */
static inline void raise_inputs(float *restrict input, const struct pass_tables *t,
                                const uint8_t *codes, float scale) {
#ifdef __SSE__
    const __m128 s = _mm_set1_ps(scale);
    for (int i = 0; i < 8; i += 2, input += 4) {
        __m128 v = _mm_loadl_pi(_mm_setzero_ps(), (const __m64 *)t->magnitude[codes[i]]);
        v = _mm_loadh_pi(v, (const __m64 *)t->magnitude[codes[i + 1]]);
        _mm_storeu_ps(input, _mm_max_ps(_mm_loadu_ps(input), _mm_mul_ps(v, s)));
    }
#else
    for (int k = 0; k < LANES; k++)
        input[k] = larger(t->magnitude[codes[k / 2]][k & 1] * scale, input[k]);
#endif
}

/* The sums of 8 bytes of codes, and the bytes counted. */
static inline uint64_t eight_bytes(const struct pass_tables *t, const uint8_t *codes,
                                   uint32_t count[4][256]) {
    uint64_t sums = 0, word;
    memcpy(&word, codes, sizeof word);
    for (int i = 0; i < 8; i++, word >>= 8) {
        count[i & 3][word & 0xFF]++; /* four counters: equal bytes in a row need not wait */
        sums += t->sums[word & 0xFF];
    }
    return sums;
}

/* The largest magnitude of a block, as a code. Nearly every block has a 6. */
static inline unsigned largest_code(const uint8_t *codes, int bytes, uint64_t sums) {
    unsigned largest = 0;
    if (sums >> PASS_SIXES) return CODE_LARGEST;
    for (int i = 0; i < bytes; i++) {
        const unsigned low = codes[i] & 7, high = codes[i] >> 4 & 7;
        largest = low > largest ? low : largest;
        largest = high > largest ? high : largest;
    }
    return largest;
}

static inline void end_block(struct pass *p, const uint8_t *codes, int bytes, uint8_t byte,
                             float scale, uint64_t sums) {
    const double square = (double)scale * scale;
    const uint64_t zeros = sums >> PASS_ZEROS & 0xFF;
    p->scales[byte]++;
    p->sixes[byte] += sums >> PASS_SIXES;
    p->square += square * (double)(int)(sums & 0xFFFF);
    p->error += square * (double)(int)(sums >> PASS_ERROR & 0xFFFF);
    p->dominated += zeros >= (uint64_t)bytes && zeros < 2 * (uint64_t)bytes;
    if ((sums >> PASS_BIG & 0xFF) == 1) p->single += stands_alone(codes, bytes);
}

/* `bytes` is a constant where this is called, so that each format has a loop of its own. */
static inline float code_row(struct pass *p, const struct weight *w, int64_t at, const int bytes,
                             const float *values, uint32_t count[4][256]) {
    const int64_t blocks = w->cols / (2 * bytes);
    const uint8_t *codes = (const uint8_t *)w->data + at * (w->cols / 2);
    const uint8_t *scales = w->block_scale + at * blocks;
    float largest = 0, *input = p->input_largest;
    for (int64_t b = 0; b < blocks; b++, codes += bytes) {
        const float scale = values[scales[b]];
        uint64_t sums = 0;
        for (int i = 0; i < bytes; i += 8, input += LANES) {
            raise_inputs(input, p->tables, codes + i, scale);
            sums += eight_bytes(p->tables, codes + i, count);
        }
        end_block(p, codes, bytes, scales[b], scale, sums);
        largest = larger(e2m1_decode((uint8_t)largest_code(codes, bytes, sums)) * scale, largest);
    }
    return largest;
}

static void code_rows(struct pass *p, const struct weight *w, int64_t first, int64_t step,
                      int64_t n, float *output) {
    enum { RUN = 1 << 20 }; /* bytes: far from what a counter of 32 bits can hold */
    uint32_t count[4][256];
    const int64_t run = RUN / w->cols + 1;
    for (int64_t done = 0; done < n; done += run) {
        memset(count, 0, sizeof count);
        for (int64_t r = done; r < n && r < done + run; r++) {
            const int64_t at = first + r * step;
            if (w->format == WEIGHT_NVFP4)
                output[r] = code_row(p, w, at, NVFP4_BLOCK / 2, p->tables->e4m3, count);
            else
                output[r] = code_row(p, w, at, MXFP4_BLOCK / 2, p->tables->e8m0, count);
        }
        for (int b = 0; b < 256; b++)
            p->bytes[b] += (uint64_t)count[0][b] + count[1][b] + count[2][b] + count[3][b];
    }
}

/* ---- formats without blocks ---- */

/* As weight_dequantize_row, without the multiplier: a table in place of arithmetic. */
static void fp8_row(const struct pass_tables *t, const struct weight *w, int64_t row, float *out) {
    const uint8_t *x = (const uint8_t *)w->data + row * w->cols;
    const int64_t width = w->scale ? w->scale_cols : w->cols;
    const float *scale = NULL;
    if (w->scale) scale = w->scale + row / w->scale_rows * ((w->cols + width - 1) / width);
    for (int64_t k = 0; k < w->cols;) {
        const int64_t end = k + width < w->cols ? k + width : w->cols;
        const float s = scale ? *scale++ : 1;
        for (; k < end; k++) out[k] = (x[k] & 0x7F) == 0x7F ? NAN : t->e4m3[x[k]] * s;
    }
}

/* Magnitudes in place of the values, 0 for NaN and Inf; as integers, whose comparisons compilers
 * make four at a time. */
static void take_magnitudes(struct pass *p, float *x, int64_t n) {
    int32_t zeros = 0, bad = 0;
    for (int64_t k = 0; k < n; k++) {
        int32_t u;
        memcpy(&u, x + k, sizeof u);
        u &= 0x7FFFFFFF;
        zeros += u == 0;
        bad += u > 0x7F7FFFFF;
        u = u > 0x7F7FFFFF ? 0 : u;
        memcpy(x + k, &u, sizeof u);
    }
    p->zeros += (uint64_t)zeros;
    p->not_finite += (uint64_t)bad;
}

static float plain_row(struct pass *p, float *restrict x, int64_t n) {
    double square[LANES] = {0};
    float largest[LANES] = {0};
    int64_t k = 0;
    take_magnitudes(p, x, n);
    for (; k + LANES <= n; k += LANES) {
        raise_to(p->input_largest + k, x + k);
        raise_to(largest, x + k);
        for (int i = 0; i < LANES; i++) square[i] += (double)x[k + i] * x[k + i];
    }
    for (; k < n; k++) {
        p->input_largest[k] = larger(x[k], p->input_largest[k]);
        largest[0] = larger(x[k], largest[0]);
        square[0] += (double)x[k] * x[k];
    }
    for (int i = 0; i < LANES; i++) p->square += square[i];
    for (int i = 1; i < LANES; i++) largest[0] = larger(largest[i], largest[0]);
    return largest[0];
}

void pass_rows(struct pass *p, const struct weight *w, int64_t first, int64_t step, int64_t count,
               float *output) {
    if (w->format == WEIGHT_NVFP4 || w->format == WEIGHT_MXFP4) {
        code_rows(p, w, first, step, count, output);
        return;
    }
    struct weight plain = *w;
    plain.multiplier = 1;
    for (int64_t r = 0; r < count; r++) {
        if (w->format == WEIGHT_FP8)
            fp8_row(p->tables, w, first + r * step, p->row);
        else
            weight_dequantize_row(&plain, first + r * step, p->row);
        output[r] = plain_row(p, p->row, w->cols);
    }
}
