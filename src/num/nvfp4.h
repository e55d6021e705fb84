/* NVFP4 blocks: 16 E2M1 codes along K under one E4M3 scale byte, a whole tensor under one fp32.
 *
 *   w[k] = e2m1(code[k]) * e4m3(scale[k / 16]) * multiplier
 *
 * Two codes a byte, even k in the low nibble. The scale's sign bit is 0; byte 0 means that the
 * block is zero, never a division. e2m1 * e4m3 has at most 6 significant bits: exact in BF16, FP16.
 * Pure functions; any thread. */
#ifndef IMP_NUM_NVFP4_H
#define IMP_NUM_NVFP4_H

#include <stdint.h>

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
void nvfp4_encode_block(const float *x, uint8_t scale, float multiplier, uint8_t *codes);

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

/* a, or where the file has none that can be used (NAN, 0, Inf) the row's own amax / 2688. Always
 * finite and above 0. */
float nvfp4_activation_multiplier(const float *x, int64_t n, float stored);
/* codes [n/2], scales [n/16] of a row of n, a multiple of 16. */
void nvfp4_quantize_activation(const float *x, float multiplier, int64_t n, uint8_t *codes,
                               uint8_t *scales);
/* What a product sees of the row: out[k] = e2m1(code[k]) * f, exact in BF16 and FP16; returns a,
 * which multiplies the product's sum, after or together with the weight's own multiplier. out may
 * be x. The second is the same from and to BF16. */
float nvfp4_round_activation(const float *x, float stored, int64_t n, float *out);
float nvfp4_round_activation_bf16(const uint16_t *x, float stored, int64_t n, uint16_t *out);

#endif
