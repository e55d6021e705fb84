#include "quantize/rules.h"

#include <math.h>
#include <stddef.h>

#include "base/error.h"
#include "num/nvfp4.h"
#include "quantize/rules_search.h"

static rules_search_fn pick_search(void) {
#if defined(__x86_64__)
    /* The AVX-512 file is compiled for all that its flags name, so all of it is asked for. */
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"))
        return rules_search_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        return rules_search_avx2;
#endif
    return rules_search_portable;
}

float rule_multiplier(enum quantize_method method, float amax) {
    check(amax >= 0 && isfinite(amax));
    if (amax == 0) return 1.0f;
    float g;
    if (method == QUANTIZE_AMAX) {
        g = amax / 2688.0f; /* 6 * 448 */
    } else {
        int exponent;
        float mantissa = frexpf(amax / 1536.0f, &exponent); /* 6 * 256 */
        g = ldexpf(1.0f, mantissa == 0.5f ? exponent - 1 : exponent);
    }
    /* Below this, 1 / g, which one dialect stores, and 1 / (scale * g) come near overflow. */
    return g < 0x1p-100f ? 0x1p-100f : g;
}

void rule_quantize_row(enum quantize_method method, const float *x, const float *h,
                       float multiplier, int64_t n, uint8_t *codes, uint8_t *scales) {
    static const float ones[NVFP4_BLOCK] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    check(method != QUANTIZE_NONE && n % NVFP4_BLOCK == 0);
    rules_search_fn search = pick_search();
    for (int64_t b = 0; b < n / NVFP4_BLOCK; b++) {
        const float *block = x + b * NVFP4_BLOCK;
        float a[NVFP4_BLOCK], amax = 0;
        for (int k = 0; k < NVFP4_BLOCK; k++) {
            a[k] = fabsf(block[k]);
            amax = a[k] > amax ? a[k] : amax;
        }
        scales[b] = nvfp4_scale_byte(amax, multiplier);
        if (method != QUANTIZE_AMAX && amax > 0) {
            const float *weights = method == QUANTIZE_WEIGHTED && h ? h + b * NVFP4_BLOCK : ones;
            scales[b] = search(a, weights, multiplier, scales[b]);
        }
        nvfp4_encode_block(block, scales[b], multiplier, codes + b * NVFP4_BLOCK_BYTES);
    }
}
