/* NVFP4 blocks: 16 E2M1 codes along K under one E4M3 scale byte, a whole tensor under one fp32.
 *
 *   w[k] = e2m1(code[k]) * e4m3(scale[k / 16]) * multiplier
 *
 * Two codes a byte, even k in the low nibble. The scale's sign bit is 0; byte 0 means that the
 * block is zero, never a division. e2m1 * e4m3 has at most 6 significant bits: exact in BF16, FP16.
 * Pure functions; any thread. Those of one block are the same lines for the host and for CUDA. */
#ifndef IMP_NUM_NVFP4_H
#define IMP_NUM_NVFP4_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/inline.h"
#include "num/fp.h"

enum { NVFP4_BLOCK = 16, NVFP4_BLOCK_BYTES = 8, MXFP4_BLOCK = 32 };

/* Largest value of a tensor is code 6 under scale 448. */
#define NVFP4_AMAX_TO_MULTIPLIER (1.0f / 2688.0f)

/* out[n], n a multiple of 16: code times block scale times multiplier, two roundings at most. */
void nvfp4_dequantize_row(const uint8_t *codes, const uint8_t *scales, float multiplier, int64_t n,
                          float *out);

/* The block scale of the makers' rule: E4M3 of amax/6 over the multiplier, at least 2^-9; a block
 * of zeros gets 1.0 (0x38) so that no reader divides by zero. */
uint8_t nvfp4_scale_byte(float block_amax, float multiplier);

/* Codes of one block under a given scale byte: nearest E2M1 of x / (scale * multiplier). */
INLINE_FN void nvfp4_encode_block(const float *x, uint8_t scale, float multiplier, uint8_t *codes) {
    const float step = e4m3_decode(scale & 0x7F) * multiplier;
    for (int i = 0; i < NVFP4_BLOCK_BYTES; i++) {
        const uint8_t even = step > 0 ? e2m1_encode(x[2 * i] / step) : 0;
        const uint8_t odd = step > 0 ? e2m1_encode(x[2 * i + 1] / step) : 0;
        codes[i] = (uint8_t)(even | odd << 4);
    }
}
INLINE_FN uint8_t nvfp4_code_at(const uint8_t *codes, int64_t k) {
    return k & 1 ? codes[k / 2] >> 4 : codes[k / 2] & 15;
}
/* NaN is passed over. */
INLINE_FN float nvfp4_block_amax(const float *x) {
    float amax = 0;
    for (int k = 0; k < NVFP4_BLOCK; k++) amax = fmaxf(amax, fabsf(x[k]));
    return amax;
}

/* amax/6 over a whole row of n, a multiple of 16. */
void nvfp4_quantize_row(const float *x, float multiplier, int64_t n, uint8_t *codes,
                        uint8_t *scales);

/* sum_k h[k] (x[k] - w[k])^2 over the block if coded under `scale`; h NULL counts every k as 1. */
float nvfp4_block_error(const float *x, const float *h, uint8_t scale, float multiplier);

/* ---- activations, for W4A4 ----
 *
 * A row under its multiplier a (the checkpoint's input scale), dynamically, 16 columns at a time:
 *
 *   f = e4m3(amax / (6 a)), saturating; code[k] = e2m1(x[k] / (f a)); a block with f = 0 is zeros
 *   x[k] ~ e2m1(code[k]) * f * a
 *
 * every operation rounded to fp32: what ModelOpt's own code does, bit for bit. compressed-tensors
 * divides by 1/a, so some codes at exact ties differ from its. A row depends on nothing but itself
 * and a. NaN becomes +6, as in the hardware's converter. */

INLINE_FN bool nvfp4_usable(float multiplier) {
    return multiplier > 0 && multiplier < INFINITY;
}
/* a, or where the file has none that can be used (NAN, 0, Inf) the row's own amax / 2688. Always
 * finite and above 0. */
INLINE_FN float nvfp4_choose_multiplier(float row_amax, float stored) {
    if (nvfp4_usable(stored)) return stored;
    const float own = row_amax / 2688.0f;
    return nvfp4_usable(own) ? own : 1.0f;
}
/* The same of a row. */
float nvfp4_activation_multiplier(const float *x, int64_t n, float stored);
/* One block: returns its scale byte. Where calibration saw smaller values the scale saturates and
 * the block is clipped. */
INLINE_FN uint8_t nvfp4_quantize_block(const float *x, float multiplier, uint8_t *codes) {
    const uint8_t scale = e4m3_encode(nvfp4_block_amax(x) / (6.0f * multiplier));
    nvfp4_encode_block(x, scale, multiplier, codes);
    return scale;
}
/* What a product sees of the block: out[k] = e2m1(code[k]) * f. out may be x. */
INLINE_FN void nvfp4_round_block(const float *x, float multiplier, float *out) {
    uint8_t codes[NVFP4_BLOCK_BYTES];
    const float scale = e4m3_decode(nvfp4_quantize_block(x, multiplier, codes));
    for (int k = 0; k < NVFP4_BLOCK; k++) out[k] = e2m1_decode(nvfp4_code_at(codes, k)) * scale;
}
/* codes [n/2], scales [n/16] of a row of n, a multiple of 16. */
void nvfp4_quantize_activation(const float *x, float multiplier, int64_t n, uint8_t *codes,
                               uint8_t *scales);
/* What a product sees of the row, block by block, exact in BF16 and FP16; returns a,
 * which multiplies the product's sum, after or together with the weight's own multiplier. out may
 * be x. The second is the same from and to BF16. */
float nvfp4_round_activation(const float *x, float stored, int64_t n, float *out);
float nvfp4_round_activation_bf16(const uint16_t *x, float stored, int64_t n, uint16_t *out);

#endif
