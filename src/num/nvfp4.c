#include "num/nvfp4.h"

void nvfp4_dequantize_row(const uint8_t *codes, const uint8_t *scales, float multiplier, int64_t n,
                          float *out) {
    float value[16];
    for (uint8_t code = 0; code < 16; code++) value[code] = e2m1_decode(code);
    for (int64_t b = 0; b < n / NVFP4_BLOCK; b++) {
        float scale = e4m3_decode(scales[b] & 0x7F);
        for (int64_t k = b * NVFP4_BLOCK; k < (b + 1) * NVFP4_BLOCK; k++)
            out[k] = value[nvfp4_code_at(codes, k)] * scale * multiplier;
    }
}

uint8_t nvfp4_scale_byte(float block_amax, float multiplier) {
    if (!(block_amax > 0)) return 0x38;
    uint8_t byte = e4m3_encode(block_amax / (6.0f * multiplier));
    return byte ? byte : 1;
}

void nvfp4_quantize_row(const float *x, float multiplier, int64_t n, uint8_t *codes,
                        uint8_t *scales) {
    for (int64_t b = 0; b < n / NVFP4_BLOCK; b++) {
        const float *block = x + b * NVFP4_BLOCK;
        scales[b] = nvfp4_scale_byte(nvfp4_block_amax(block), multiplier);
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

float nvfp4_activation_multiplier(const float *x, int64_t n, float stored) {
    float amax = 0;
    for (int64_t k = 0; k < n && !nvfp4_usable(stored); k++) amax = fmaxf(amax, fabsf(x[k]));
    return nvfp4_choose_multiplier(amax, stored);
}

void nvfp4_quantize_activation(const float *x, float multiplier, int64_t n, uint8_t *codes,
                               uint8_t *scales) {
    for (int64_t b = 0; b < n / NVFP4_BLOCK; b++)
        scales[b] =
            nvfp4_quantize_block(x + b * NVFP4_BLOCK, multiplier, codes + b * NVFP4_BLOCK_BYTES);
}

float nvfp4_round_activation(const float *x, float stored, int64_t n, float *out) {
    float multiplier = nvfp4_activation_multiplier(x, n, stored);
    for (int64_t k = 0; k < n; k += NVFP4_BLOCK) nvfp4_round_block(x + k, multiplier, out + k);
    return multiplier;
}

float nvfp4_round_activation_bf16(const uint16_t *x, float stored, int64_t n, uint16_t *out) {
    float amax = 0, block[NVFP4_BLOCK];
    for (int64_t k = 0; k < n && !nvfp4_usable(stored); k++)
        amax = fmaxf(amax, fabsf(bf16_decode(x[k])));
    float multiplier = nvfp4_choose_multiplier(amax, stored);
    for (int64_t at = 0; at < n; at += NVFP4_BLOCK) {
        for (int k = 0; k < NVFP4_BLOCK; k++) block[k] = bf16_decode(x[at + k]);
        nvfp4_round_block(block, multiplier, block);
        for (int k = 0; k < NVFP4_BLOCK; k++) out[at + k] = bf16_encode(block[k]);
    }
    return multiplier;
}
