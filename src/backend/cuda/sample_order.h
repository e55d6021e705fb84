/* The order of candidates and what each weighs, as integers: the same lines for the device and for
 * a test on the host.
 *
 * A candidate's distance is how far its scaled logit lies below the largest one: 0 and up. Its
 * order is the bits of the distance, which rise with it, above its id: ascending orders are
 * descending logits, ties to the lower id, and no two are equal. Every filter keeps a prefix of
 * that order.
 *
 * Its mass is e^-distance in fixed point. Sums of masses are exact, so they may be made in any
 * order and by atomics, and still a draw is a function of its row alone. */
#ifndef IMP_BACKEND_CUDA_SAMPLE_ORDER_H
#define IMP_BACKEND_CUDA_SAMPLE_ORDER_H

#include <math.h>
#include <stdbool.h>

#include "num/fp.h"

/* BIN_TAIL takes all from distance 64 on, where a mass is 0 for any scale. */
enum { ORDER_ID_BITS = 24, BINS_BITS = 11, BINS = 1 << BINS_BITS, BIN_TAIL = BINS - 1 };
#define BINS_PER_UNIT  32.0f
#define ORDER_ID_MASK  ((1u << ORDER_ID_BITS) - 1)
#define DISTANCE_NEVER 0x7F800000u /* of a logit of -Inf; NaN, made of overflows, lies past it */

/* Bits that rise with the logit; all NaN above +Inf, both zeros alike. */
INLINE_FN uint32_t logit_key(float x) {
    const uint32_t u = x == 0 ? 0 : fp32_bits(x);
    if (x != x) return 0xFFFFFFFFu;
    return u >> 31 ? ~u : u | 0x80000000u;
}
INLINE_FN float logit_of_key(uint32_t key) {
    return fp32_from_bits(key >> 31 ? key ^ 0x80000000u : ~key);
}
/* From the largest key of a row: no NaN, no +Inf, and something above -Inf. */
INLINE_FN bool logits_are_sound(uint32_t largest) {
    return largest > ~0xFF800000u && largest < 0xFF800000u;
}

/* The distance of a scaled logit x <= 0. */
INLINE_FN uint32_t distance_bits(float x) {
    return fp32_bits(0.0f - x) & 0x7FFFFFFFu;
}
INLINE_FN uint64_t order_of(uint32_t distance, uint32_t id) {
    return (uint64_t)distance << ORDER_ID_BITS | id;
}

/* The bin of a distance, and the first order of a bin; that of BINS is past every order. */
INLINE_FN int bin_of(uint32_t distance) {
    const float d = fp32_from_bits(distance);
    return d < BIN_TAIL / BINS_PER_UNIT ? (int)(d * BINS_PER_UNIT) : BIN_TAIL;
}
INLINE_FN uint64_t bin_start(int bin) {
    return order_of(bin < BINS ? fp32_bits((float)bin / BINS_PER_UNIT) : 0x80000000u, 0);
}

/* `scale` is a power of two: see mass_scale. */
INLINE_FN uint64_t mass_of(uint32_t distance, float scale) {
    const float d = fp32_from_bits(distance);
    if (!(d < BIN_TAIL / BINS_PER_UNIT)) return 0;
    return (uint64_t)rintf(expf(-d) * scale);
}
INLINE_FN uint64_t mass_of_order(uint64_t order, float scale) {
    return mass_of((uint32_t)(order >> ORDER_ID_BITS), scale);
}
/* The largest scale under which the masses of so many candidates stay below 2^63. */
INLINE_FN float mass_scale(int64_t candidates) {
    float scale = 0x1p62f;
    for (int64_t n = 1; n < candidates; n *= 2) scale *= 0.5f;
    return scale;
}

/* The part `share` of a sum, from 1 up to all of it: where a prefix has to reach. */
INLINE_FN uint64_t mass_share(double share, uint64_t total, bool round_up) {
    const double x = share * (double)total;
    const uint64_t mass = (uint64_t)x, want = round_up ? mass + (x > (double)mass) : mass + 1;
    return want > total ? total : want < 1 ? 1 : want;
}

/* The first i of [0, n) with ascending[i] >= value; n if there is none. */
INLINE_FN int first_at_least(const uint64_t *ascending, int n, uint64_t value) {
    int low = 0;
    while (n > 0) {
        const int half = n / 2;
        if (ascending[low + half] < value) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

#endif
