/* The small floating-point formats: one encoder and one decoder each, the same lines for the host
 * and for CUDA. Every other place that needs a format calls these.
 *
 *   BF16   s eeeeeeee mmmmmmm      bias 127; the upper half of an FP32
 *   FP16   s eeeee mmmmmmmmmm      IEEE 754 binary16, bias 15
 *   E4M3FN s eeee mmm              bias 7; no Inf; 0x7F and 0xFF are NaN; largest 0x7E = 448.
 *                                  Exponent field 15 with m = 0..6 is an ordinary value (256..448).
 *   E2M1   s ee m                  bias 1; no Inf, no NaN; 0 .5 1 1.5 2 3 4 6
 *   E8M0   eeeeeeee                2^(e-127); 0xFF is NaN; no sign, no zero
 *
 * Encoders round to nearest, ties to even. BF16 and FP16 overflow to Inf; E4M3, E2M1 saturate.
 * NaN becomes the format's NaN; E2M1 has none and gives +6, as NVIDIA's header does.
 * Sources: OCP 8-bit Floating Point Specification 1.0, OCP Microscaling Formats 1.0, IEEE 754.
 * Pure functions; any thread, any device. */
#ifndef IMP_NUM_FP_H
#define IMP_NUM_FP_H

#include <stdint.h>
#include <string.h>

#include "base/inline.h"

INLINE_FN uint32_t fp32_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

INLINE_FN float fp32_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* ---- BF16 ---- */

INLINE_FN float bf16_decode(uint16_t b) {
    return fp32_from_bits((uint32_t)b << 16);
}

INLINE_FN uint16_t bf16_encode(float x) {
    uint32_t u = fp32_bits(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(u >> 16 | 0x40u); /* quiet NaN */
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1u)) >> 16);
}

INLINE_FN float bf16_round(float x) {
    return bf16_decode(bf16_encode(x));
}

/* ---- FP16 ---- */

INLINE_FN float fp16_decode(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7FFFu;
    if (magnitude >= 0x7C00u)
        return fp32_from_bits(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);
    if (magnitude >= 0x0400u) return fp32_from_bits(sign | ((magnitude << 13) + 0x38000000u));
    float subnormal = (float)magnitude * 0x1p-24f;
    return fp32_from_bits(sign | fp32_bits(subnormal));
}

INLINE_FN uint16_t fp16_encode(float x) {
    uint32_t u = fp32_bits(x), sign = u >> 16 & 0x8000u;
    u &= 0x7FFFFFFFu;
    if (u > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (u >> 13 & 0x3FFu));
    if (u >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* 65520 and above, Inf */
    if (u < 0x38800000u) {                                   /* below 2^-14: subnormal */
        /* Adding 0.5 puts the unit of the last place at 2^-24, so the sum is rounded right. */
        uint32_t sum = fp32_bits(fp32_from_bits(u) + 0.5f);
        return (uint16_t)(sign | (sum - 0x3F000000u));
    }
    uint32_t rounded = u + 0xFFFu + (u >> 13 & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

/* ---- E4M3FN ---- */

INLINE_FN float e4m3_decode(uint8_t b) {
    /* As FP16 the same bits are the value times 2^-8, subnormals included. */
    if ((b & 0x7Fu) == 0x7Fu) return fp32_from_bits(0x7FC00000u | (uint32_t)(b & 0x80u) << 24);
    return fp16_decode((uint16_t)((b & 0x80u) << 8 | (b & 0x7Fu) << 7)) * 256.0f;
}

INLINE_FN uint8_t e4m3_encode(float x) {
    uint32_t u = fp32_bits(x), sign = u >> 24 & 0x80u;
    u &= 0x7FFFFFFFu;
    if (u > 0x7F800000u) return (uint8_t)(sign | 0x7Fu);
    if (u >= 0x43E00000u) return (uint8_t)(sign | 0x7Eu); /* 448 and above, Inf: saturate */
    if (u < 0x3C800000u) {                                /* below 2^-6: subnormal, step 2^-9 */
        /* 2^14 has its last place at 2^-9. */
        uint32_t sum = fp32_bits(fp32_from_bits(u) + 16384.0f);
        return (uint8_t)(sign | (sum - 0x46800000u));
    }
    uint32_t rounded = u + 0x7FFFFu + (u >> 20 & 1u);
    uint32_t code = (rounded >> 20) - 960u; /* 960 = (127 - 7) << 3 */
    return (uint8_t)(sign | (code > 0x7Eu ? 0x7Eu : code));
}

/* ---- E2M1 ---- */

INLINE_FN float e2m1_decode(uint8_t code) {
    uint32_t e = code >> 1 & 3u, m = code & 1u, sign = (uint32_t)(code & 8u) << 28;
    uint32_t magnitude = e ? (e + 126u) << 23 | m << 22 : (m ? 0x3F000000u : 0u);
    return fp32_from_bits(sign | magnitude);
}

/* A negative value that rounds to zero keeps its sign: code 8, as the hardware's converter. */
INLINE_FN uint8_t e2m1_encode(float x) {
    uint32_t u = fp32_bits(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return 7;
    float a = fp32_from_bits(u & 0x7FFFFFFFu);
    uint32_t code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
                    (a >= 3.5f) + (a > 5.0f);
    return (uint8_t)(u >> 28 & 8u) | (uint8_t)code;
}

/* ---- E8M0 ---- */

INLINE_FN float e8m0_decode(uint8_t b) {
    if (b == 0xFFu) return fp32_from_bits(0x7FC00000u);
    return fp32_from_bits(b ? (uint32_t)b << 23 : 0x00400000u); /* 2^-127 is subnormal */
}

/* Nearest power of two in value, ties to the even code; zero and below give the smallest. */
INLINE_FN uint8_t e8m0_encode(float x) {
    uint32_t u = fp32_bits(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return 0xFFu;
    if (u >> 31 || u == 0) return 0;
    if (u < 0x00800000u) return u > 0x00600000u ? 1 : 0; /* between 2^-127 and 2^-126 */
    uint32_t e = u >> 23, m = u & 0x7FFFFFu;
    if (m > 0x400000u || (m == 0x400000u && (e & 1u))) e++;
    return (uint8_t)(e > 0xFEu ? 0xFEu : e);
}

#endif
