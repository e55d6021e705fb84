/* Four lanes in the vector extension of GCC and Clang: SSE2, NEON, or plain scalars, as the target
 * has it. Names and meaning as in simd_avx512.h; only kernels_portable.c includes this file. */
#ifndef IMP_CPU_FAST_SIMD_PORTABLE_H
#define IMP_CPU_FAST_SIMD_PORTABLE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "num/fp.h"

#define SIMD_LANES          4
#define LINEAR_TILE_VECTORS 1
#define LINEAR_TILE_ROWS    4
#define LINEAR_ROW_VECTORS  2
#define SCORE_VECTORS       2
#define SCORE_ROWS          2
#define VALUE_VECTORS       2
#define VALUE_ROWS          2
#define DELTA_VECTORS       4

typedef float vf __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));

static inline vf vf_zero(void) {
    return (vf){0};
}
static inline vf vf_set1(float x) {
    return (vf){x, x, x, x};
}
static inline vf vf_load(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void vf_store(float *p, vf x) {
    memcpy(p, &x, sizeof x);
}
static inline vf vf_add(vf a, vf b) {
    return a + b;
}
static inline vf vf_sub(vf a, vf b) {
    return a - b;
}
static inline vf vf_mul(vf a, vf b) {
    return a * b;
}
static inline vf vf_div(vf a, vf b) {
    return a / b;
}
static inline vf vf_fma(vf a, vf b, vf c) {
    return a * b + c; /* two roundings: one where the machine has none would cost a call */
}
static inline vf vf_choose(vi mask, vf x, vf y) {
    return (vf)(((vi)x & mask) | ((vi)y & ~mask));
}
static inline vf vf_max(vf a, vf b) {
    return vf_choose(a > b, a, b);
}
static inline vf vf_min(vf a, vf b) {
    return vf_choose(a < b, a, b);
}
/* Right below 2^22, which is all that vexp asks for. */
static inline vf vf_round(vf a) {
    const vf magic = vf_set1(0x1.8p23f);
    return (a + magic) - magic;
}
static inline vf vf_ldexp(vf x, vf n) {
    vi whole = __builtin_convertvector(n, vi), half = whole >> 1;
    return x * (vf)((vu)(half + 127) << 23) * (vf)((vu)(whole - half + 127) << 23);
}
static inline vf vf_abs(vf a) {
    return (vf)((vu)a & 0x7FFFFFFFu);
}
static inline vf vf_select_below(vf a, float limit, vf x, vf y) {
    return vf_choose(vf_abs(a) < vf_set1(limit), x, y);
}
static inline float vf_sum(vf a) {
    return (a[0] + a[2]) + (a[1] + a[3]);
}
static inline float vf_max_lane(vf a) {
    float x = a[0] > a[2] ? a[0] : a[2], y = a[1] > a[3] ? a[1] : a[3];
    return x > y ? x : y;
}

static inline vu vu_load(const void *p) {
    vu x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void vu_store(void *p, vu x) {
    memcpy(p, &x, sizeof x);
}
static inline vu vu_set1(uint32_t x) {
    return (vu){x, x, x, x};
}

static inline vf pair_dot(vf acc, vu w, vu x) {
    acc += (vf)(w & 0xFFFF0000u) * (vf)(x & 0xFFFF0000u);
    return acc + (vf)(w << 16) * (vf)(x << 16);
}

/* BF16 of the E2M1 code in bits 0-3: exponent and mantissa moved up and re-biased, which is right
 * from 1.0 on; 0.5 has its mantissa bit to lose, 0 everything. */
static inline vu fp4_bf16(vu code) {
    vu magnitude = code & 7;
    vu value = (magnitude << 6) + 0x3F00;
    value -= (vu)(magnitude == 1) & 0x40;
    return (value & ~(vu)(magnitude == 0)) | (code & 8) << 12;
}
static inline vu fp4_pair(vu codes, int j) {
    return fp4_bf16(codes >> (4 * j) & 15) | fp4_bf16(codes >> (16 + 4 * j) & 15) << 16;
}

static inline vu fp8_bf16(vu code) {
    vu magnitude = code & 0x7F;
    /* m 2^-9 from 2^-6 (1 + m/8) - 2^-6, exact */
    vf subnormal = (vf)((121u << 23) + (magnitude << 20)) - vf_set1(0x1p-6f);
    vu is_normal = (vu)(magnitude > 7);
    vu value = (((magnitude << 4) + (120 << 7)) & is_normal) | ((vu)subnormal >> 16 & ~is_normal);
    return value | (code & 0x80) << 8;
}
static inline vu fp8_pair(vu codes, int j) {
    return fp8_bf16(codes >> (8 * j) & 0xFF) | fp8_bf16(codes >> (16 + 8 * j) & 0xFF) << 16;
}

static inline vu byte_load(const uint8_t *p) {
    typedef uint8_t bytes __attribute__((vector_size(4)));
    bytes x;
    memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, vu);
}
/* As fp8_bf16, in fp32 and 2^8 smaller. */
static inline vf e4m3_scales(const uint8_t *p) {
    vu magnitude = byte_load(p);
    vf subnormal = (vf)((113u << 23) + (magnitude << 20)) - vf_set1(0x1p-14f);
    vf normal = (vf)((112u << 23) + (magnitude << 20));
    return vf_choose((vi)(magnitude > 7), normal, subnormal);
}
static inline vf e8m0_scales(const uint8_t *p) {
    vu code = byte_load(p);
    return vf_choose((vi)(code > 0), (vf)(code << 23), vf_set1(0x1p-127f));
}
static inline vf bf16_load(const uint16_t *p) {
    typedef uint16_t halves __attribute__((vector_size(8)));
    halves x;
    memcpy(&x, p, sizeof x);
    return (vf)(__builtin_convertvector(x, vu) << 16);
}
static inline vf fp16_load(const uint16_t *p) {
    vf out = {0};
    for (int i = 0; i < SIMD_LANES; i++) out[i] = fp16_decode(p[i]);
    return out;
}
static inline void bf16_store(uint16_t *p, vf x) {
    for (int i = 0; i < SIMD_LANES; i++) p[i] = bf16_encode(x[i]);
}

#endif
