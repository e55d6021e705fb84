/* The body of rules_search_*; included by one file for each instruction set, never elsewhere. */
#ifndef IMP_QUANTIZE_RULES_SEARCH_INNER_H
#define IMP_QUANTIZE_RULES_SEARCH_INNER_H

#include "num/fp.h"
#include "num/nvfp4.h"
#include "quantize/rules_search.h"

enum { BYTES_BELOW = 4, BYTES_ABOVE = 8, BYTE_LARGEST = 0x7E };

/* sum_k h_k (a_k - step * q_k)^2 with q_k the nearest E2M1 magnitude of a_k / step. E2M1's spacing
 * is 1/2 below 2, 1 below 4, then 2: adding and taking away a power of two with that last place
 * rounds to it, ties to even, as e2m1_encode does. The inverse in place of 16 divisions can take
 * the other side of a tie, where both codes cost the same. */
static inline float block_loss(const float *restrict a, const float *restrict h, float step) {
    float loss[NVFP4_BLOCK], inverse = 1.0f / step;
    for (int k = 0; k < NVFP4_BLOCK; k++) {
        float t = a[k] * inverse;
        float magic = t < 2.0f ? 0x1p22f : t < 4.0f ? 0x1p23f : 0x1p24f;
        float q = (t + magic) - magic;
        q = q < 6.0f ? q : 6.0f;
        float d = a[k] - q * step;
        loss[k] = h[k] * (d * d);
    }
    /* Loops of known length, so that the compiler keeps them in registers. */
    for (int k = 0; k < 8; k++) loss[k] += loss[k + 8];
    for (int k = 0; k < 4; k++) loss[k] += loss[k + 4];
    return (loss[0] + loss[2]) + (loss[1] + loss[3]);
}

static inline uint8_t search(const float *a, const float *h, float multiplier, uint8_t base) {
    uint8_t best = base;
    float best_loss = block_loss(a, h, e4m3_decode(base) * multiplier);
    int low = base - BYTES_BELOW, high = base + BYTES_ABOVE;
    if (low < 1) low = 1;
    if (high > BYTE_LARGEST) high = BYTE_LARGEST;
    for (int byte = low; byte <= high; byte++) {
        float loss = block_loss(a, h, e4m3_decode((uint8_t)byte) * multiplier);
        if (loss < best_loss) {
            best_loss = loss;
            best = (uint8_t)byte;
        }
    }
    return best;
}

#endif
