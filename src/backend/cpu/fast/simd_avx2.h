/* Eight lanes: AVX2 with FMA and F16C. Names and meaning as in simd_avx512.h; only kernels_avx2.c
 * includes this file. */
#ifndef IMP_CPU_FAST_SIMD_AVX2_H
#define IMP_CPU_FAST_SIMD_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define SIMD_LANES          8
#define LINEAR_TILE_VECTORS 1
#define LINEAR_TILE_ROWS    4
#define LINEAR_ROW_VECTORS  2
#define SCORE_VECTORS       2
#define SCORE_ROWS          2
#define VALUE_VECTORS       2
#define VALUE_ROWS          4
#define DELTA_VECTORS       4

typedef __m256 vf;
typedef __m256i vu;

static inline vf vf_zero(void) {
    return _mm256_setzero_ps();
}
static inline vf vf_set1(float x) {
    return _mm256_set1_ps(x);
}
static inline vf vf_load(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf x) {
    _mm256_storeu_ps(p, x);
}
static inline vf vf_add(vf a, vf b) {
    return _mm256_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b) {
    return _mm256_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b) {
    return _mm256_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b) {
    return _mm256_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}
static inline vf vf_round(vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* Two factors, so that neither leaves the range of a float's exponent. */
static inline vf vf_ldexp(vf x, vf n) {
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(x, a), b);
}
static inline vf vf_abs(vf a) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf vf_select_below(vf a, float limit, vf x, vf y) {
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(vf_abs(a), _mm256_set1_ps(limit), _CMP_LT_OQ));
}
static inline float vf_sum(vf a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline float vf_max_lane(vf a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

static inline vu vu_load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline void vu_store(void *p, vu x) {
    _mm256_storeu_si256((__m256i *)p, x);
}
static inline vu vu_set1(uint32_t x) {
    return _mm256_set1_epi32((int)x);
}

static inline vf pair_even(vu a) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(a, 16));
}
static inline vf pair_odd(vu a) {
    return _mm256_castsi256_ps(_mm256_and_si256(a, _mm256_set1_epi32((int)0xFFFF0000)));
}
/* The odd product first, as the AVX-512 unit does it. */
static inline vf pair_dot(vf acc, vu w, vu x) {
    acc = _mm256_fmadd_ps(pair_odd(w), pair_odd(x), acc);
    return _mm256_fmadd_ps(pair_even(w), pair_even(x), acc);
}

/* Bytes of a BF16 by a table of 16 each: `low` and `high`, indexed by the low byte of every 16-bit
 * lane, which is below 16. Entry 0 of both tables is 0. */
static inline vu bf16_lookup(vu index, __m128i low, __m128i high) {
    vu a = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(low), index);
    vu b = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(high), _mm256_slli_epi16(index, 8));
    return _mm256_or_si256(a, b);
}

static inline vu fp4_pair(vu codes, int j) {
    /* Code 8 is -0: its sign makes no difference to a sum that began at +0. */
    const __m128i low =
        _mm_setr_epi8(0, 0, (char)0x80, (char)0xC0, 0, 0x40, (char)0x80, (char)0xC0, 0, 0,
                      (char)0x80, (char)0xC0, 0, 0x40, (char)0x80, (char)0xC0);
    const __m128i high =
        _mm_setr_epi8(0, 0x3F, 0x3F, 0x3F, 0x40, 0x40, 0x40, 0x40, (char)0x80, (char)0xBF,
                      (char)0xBF, (char)0xBF, (char)0xC0, (char)0xC0, (char)0xC0, (char)0xC0);
    vu index = _mm256_and_si256(_mm256_srli_epi16(codes, 4 * j), _mm256_set1_epi16(15));
    return bf16_lookup(index, low, high);
}

static inline vu fp8_pair(vu codes, int j) {
    const __m128i low =
        _mm_setr_epi8(0, 0, (char)0x80, (char)0xC0, 0, 0x20, 0x40, 0x60, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128i high =
        _mm_setr_epi8(0, 0x3B, 0x3B, 0x3B, 0x3C, 0x3C, 0x3C, 0x3C, 0, 0, 0, 0, 0, 0, 0, 0);
    vu byte = _mm256_and_si256(_mm256_srli_epi16(codes, 8 * j), _mm256_set1_epi16(0xFF));
    vu magnitude = _mm256_and_si256(byte, _mm256_set1_epi16(0x7F));
    vu sign = _mm256_slli_epi16(_mm256_and_si256(byte, _mm256_set1_epi16(0x80)), 8);
    vu normal = _mm256_add_epi16(_mm256_slli_epi16(magnitude, 4), _mm256_set1_epi16(120 << 7));
    vu subnormal = bf16_lookup(_mm256_and_si256(magnitude, _mm256_set1_epi16(7)), low, high);
    vu is_normal = _mm256_cmpgt_epi16(magnitude, _mm256_set1_epi16(7));
    return _mm256_or_si256(_mm256_blendv_epi8(subnormal, normal, is_normal), sign);
}

static inline vf e4m3_scales(const uint8_t *p) {
    __m128i half = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_cvtph_ps(_mm_slli_epi16(half, 7));
}
static inline vf e8m0_scales(const uint8_t *p) {
    vu bits = _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)), 23);
    return _mm256_castsi256_ps(_mm256_max_epu32(bits, _mm256_set1_epi32(0x00400000)));
}
static inline vf bf16_load(const uint16_t *p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
static inline vf fp16_load(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline void bf16_store(uint16_t *p, vf x) {
    vu bits = _mm256_castps_si256(x);
    vu odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    vu rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    vu quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
    vu nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    rounded = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    vu packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(packed));
}

#endif
