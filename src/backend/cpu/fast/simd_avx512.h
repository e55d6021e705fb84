/* Sixteen lanes: AVX-512 F/BW/DQ/VL with BF16 and VBMI (Zen 4, Sapphire Rapids and later).
 *
 * The same names in every simd_*.h; the kernel templates are written against them alone. `vf` holds
 * SIMD_LANES floats, `vu` as many 32-bit words; a word of a "pair vector" is two BF16, even k low.
 * Only kernels_avx512.c includes this file. */
#ifndef IMP_CPU_FAST_SIMD_AVX512_H
#define IMP_CPU_FAST_SIMD_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define SIMD_LANES 16
/* Register blocking that fits 32 registers; see linear_kernels.h and attention_kernels.h. */
#define LINEAR_TILE_VECTORS 2
#define LINEAR_TILE_ROWS    6
#define LINEAR_ROW_VECTORS  4
#define SCORE_VECTORS       4
#define SCORE_ROWS          4
#define VALUE_VECTORS       2
#define VALUE_ROWS          8
#define DELTA_VECTORS       2

typedef __m512 vf;
typedef __m512i vu;

static inline vf vf_zero(void) {
    return _mm512_setzero_ps();
}
static inline vf vf_set1(float x) {
    return _mm512_set1_ps(x);
}
static inline vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf x) {
    _mm512_storeu_ps(p, x);
}
static inline vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
/* b where either is NaN: vf_max(limit, x) lets a NaN of x through. */
static inline vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
static inline vf vf_round(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* x 2^n for an integer n */
static inline vf vf_ldexp(vf x, vf n) {
    return _mm512_scalef_ps(x, n);
}
static inline vf vf_abs(vf a) {
    return _mm512_abs_ps(a);
}
/* |a| < limit ? x : y */
static inline vf vf_select_below(vf a, float limit, vf x, vf y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(vf_abs(a), _mm512_set1_ps(limit), _CMP_LT_OQ), y,
                                x);
}
static inline float vf_sum(vf a) {
    return _mm512_reduce_add_ps(a); /* a fixed tree of halves */
}
static inline float vf_max_lane(vf a) {
    return _mm512_reduce_max_ps(a);
}

static inline vu vu_load(const void *p) {
    return _mm512_loadu_si512(p);
}
static inline void vu_store(void *p, vu x) {
    _mm512_storeu_si512(p, x);
}
static inline vu vu_set1(uint32_t x) {
    return _mm512_set1_epi32((int)x);
}

/* acc + w.odd x.odd + w.even x.even in fp32. The unit takes denormals as zero. */
static inline vf pair_dot(vf acc, vu w, vu x) {
    return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)x);
}

/* Pair j (0..3) of eight interleaved E2M1 codes a word: nibble j of each 16-bit half. The index of
 * vpermw is five bits, the fifth the low bit of the next nibble, so the table's halves are equal.
 */
static inline vu fp4_pair(vu codes, int j) {
    const vu table = _mm512_set_epi16(
        (short)0xC0C0, (short)0xC080, (short)0xC040, (short)0xC000, (short)0xBFC0, (short)0xBF80,
        (short)0xBF00, (short)0x8000, 0x40C0, 0x4080, 0x4040, 0x4000, 0x3FC0, 0x3F80, 0x3F00, 0,
        (short)0xC0C0, (short)0xC080, (short)0xC040, (short)0xC000, (short)0xBFC0, (short)0xBF80,
        (short)0xBF00, (short)0x8000, 0x40C0, 0x4080, 0x4040, 0x4000, 0x3FC0, 0x3F80, 0x3F00, 0);
    return _mm512_permutexvar_epi16(j ? _mm512_srli_epi16(codes, 4 * j) : codes, table);
}

/* Pair j (0..1) of four E4M3 codes a word: byte j of each 16-bit half; NaN codes do not occur. */
static inline vu fp8_pair(vu codes, int j) {
    vu low = j ? _mm512_srli_epi16(codes, 8) : _mm512_and_si512(codes, _mm512_set1_epi16(0xFF));
    vu magnitude = _mm512_slli_epi16(_mm512_and_si512(low, _mm512_set1_epi16(0x7F)), 4);
    vu sign = _mm512_slli_epi16(_mm512_and_si512(low, _mm512_set1_epi16(0x80)), 8);
    /* m 2^-9 for the eight subnormals, elsewhere the exponent re-biased by 127 - 7 */
    const vu table =
        _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                         0x3C60, 0x3C40, 0x3C20, 0x3C00, 0x3BC0, 0x3B80, 0x3B00, 0);
    __mmask32 subnormal = _mm512_cmplt_epu16_mask(magnitude, _mm512_set1_epi16(0x80));
    vu value = _mm512_add_epi16(magnitude, _mm512_set1_epi16(120 << 7));
    value = _mm512_mask_permutexvar_epi16(value, subnormal, low, table);
    return _mm512_or_si512(value, sign);
}

/* E4M3 bytes without sign and NaN as FP16 patterns: the value times 2^-8, subnormals included. */
static inline vf e4m3_scales(const uint8_t *p) {
    __m256i half = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
    return _mm512_cvtph_ps(_mm256_slli_epi16(half, 7));
}
static inline vf e8m0_scales(const uint8_t *p) {
    vu bits = _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)), 23);
    return _mm512_castsi512_ps(_mm512_max_epu32(bits, _mm512_set1_epi32(0x00400000)));
}
static inline vf bf16_load(const uint16_t *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline vf fp16_load(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
/* Rounded to nearest even; denormals become zero. */
static inline void bf16_store(uint16_t *p, vf x) {
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(x));
}

#endif
