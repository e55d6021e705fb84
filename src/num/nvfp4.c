#include "num/nvfp4.h"

#include <math.h>
#include <stdbool.h>

#include "num/fp.h"

static inline uint8_t code_at(const uint8_t *codes, int64_t k) {
    return k & 1 ? codes[k / 2] >> 4 : codes[k / 2] & 15;
}

void nvfp4_dequantize_row(const uint8_t *codes, const uint8_t *scales, float multiplier, int64_t n,
                          float *out) {
    float value[16];
    for (uint8_t code = 0; code < 16; code++) value[code] = e2m1_decode(code);
    for (int64_t b = 0; b < n / NVFP4_BLOCK; b++) {
        float scale = e4m3_decode(scales[b] & 0x7F);
        for (int64_t k = b * NVFP4_BLOCK; k < (b + 1) * NVFP4_BLOCK; k++)
            out[k] = value[code_at(codes, k)] * scale * multiplier;
    }
}

uint8_t nvfp4_scale_byte(float block_amax, float multiplier) {
    if (!(block_amax > 0)) return 0x38;
    uint8_t byte = e4m3_encode(block_amax / (6.0f * multiplier));
    return byte ? byte : 1;
}

void nvfp4_encode_block(const float *x, uint8_t scale, float multiplier, uint8_t *codes) {
    float step = e4m3_decode(scale & 0x7F) * multiplier;
    for (int i = 0; i < NVFP4_BLOCK_BYTES; i++) {
        uint8_t even = step > 0 ? e2m1_encode(x[2 * i] / step) : 0;
        uint8_t odd = step > 0 ? e2m1_encode(x[2 * i + 1] / step) : 0;
        codes[i] = (uint8_t)(even | odd << 4);
    }
}

static float block_amax(const float *x) {
    float amax = 0;
    for (int k = 0; k < NVFP4_BLOCK; k++) amax = fmaxf(amax, fabsf(x[k]));
    return amax;
}

void nvfp4_quantize_row(const float *x, float multiplier, int64_t n, uint8_t *codes,
                        uint8_t *scales) {
    for (int64_t b = 0; b < n / NVFP4_BLOCK; b++) {
        const float *block = x + b * NVFP4_BLOCK;
        scales[b] = nvfp4_scale_byte(block_amax(block), multiplier);
        nvfp4_encode_block(block, scales[b], multiplier, codes + b * NVFP4_BLOCK_BYTES);
    }
}

float nvfp4_block_error(const float *x, const float *h, uint8_t scale, float multiplier) {
    float step = e4m3_decode(scale & 0x7F) * multiplier, error = 0;
    for (int k = 0; k < NVFP4_BLOCK; k++) {
        float d = x[k] - (step > 0 ? e2m1_decode(e2m1_encode(x[k] / step)) * step : 0);
        error += (h ? h[k] : 1.0f) * d * d;
    }
    return error;
}

/* ---- activations ---- */

static bool usable(float multiplier) {
    return multiplier > 0 && isfinite(multiplier);
}

static float multiplier_of(float amax, float stored) {
    if (usable(stored)) return stored;
    float own = amax / 2688.0f;
    return usable(own) ? own : 1.0f;
}

float nvfp4_activation_multiplier(const float *x, int64_t n, float stored) {
    float amax = 0;
    for (int64_t k = 0; k < n && !usable(stored); k++) amax = fmaxf(amax, fabsf(x[k]));
    return multiplier_of(amax, stored);
}

/* Where calibration saw smaller values the scale saturates and the block is clipped. */
static uint8_t quantize_block(const float *x, float multiplier, uint8_t *codes) {
    uint8_t scale = e4m3_encode(block_amax(x) / (6.0f * multiplier));
    nvfp4_encode_block(x, scale, multiplier, codes);
    return scale;
}

void nvfp4_quantize_activation(const float *x, float multiplier, int64_t n, uint8_t *codes,
                               uint8_t *scales) {
    for (int64_t b = 0; b < n / NVFP4_BLOCK; b++)
        scales[b] = quantize_block(x + b * NVFP4_BLOCK, multiplier, codes + b * NVFP4_BLOCK_BYTES);
}

/* One block, x and out of NVFP4_BLOCK. */
static void round_block(const float *x, float multiplier, float *out) {
    uint8_t codes[NVFP4_BLOCK_BYTES];
    float scale = e4m3_decode(quantize_block(x, multiplier, codes));
    for (int k = 0; k < NVFP4_BLOCK; k++) out[k] = e2m1_decode(code_at(codes, k)) * scale;
}

float nvfp4_round_activation(const float *x, float stored, int64_t n, float *out) {
    float multiplier = nvfp4_activation_multiplier(x, n, stored);
    for (int64_t k = 0; k < n; k += NVFP4_BLOCK) round_block(x + k, multiplier, out + k);
    return multiplier;
}

float nvfp4_round_activation_bf16(const uint16_t *x, float stored, int64_t n, uint16_t *out) {
    float amax = 0, block[NVFP4_BLOCK];
    for (int64_t k = 0; k < n && !usable(stored); k++) amax = fmaxf(amax, fabsf(bf16_decode(x[k])));
    float multiplier = multiplier_of(amax, stored);
    for (int64_t at = 0; at < n; at += NVFP4_BLOCK) {
        for (int k = 0; k < NVFP4_BLOCK; k++) block[k] = bf16_decode(x[at + k]);
        round_block(block, multiplier, block);
        for (int k = 0; k < NVFP4_BLOCK; k++) out[at + k] = bf16_encode(block[k]);
    }
    return multiplier;
}
