/* The search for a block's scale byte, compiled once for each instruction set.
 *
 * Every lane's arithmetic is plain fp32 without contraction and the lanes are summed in one fixed
 * order, so all builds choose the same byte. Pure; any thread. */
#ifndef IMP_QUANTIZE_RULES_SEARCH_H
#define IMP_QUANTIZE_RULES_SEARCH_H

#include <stdint.h>

/* The byte of least loss among base-4 .. base+8 within 1 .. 126; ties go to base, then upwards.
 * a[16]: magnitudes; h[16]: weights of the squared errors. */
typedef uint8_t (*rules_search_fn)(const float *a, const float *h, float multiplier, uint8_t base);

uint8_t rules_search_portable(const float *a, const float *h, float multiplier, uint8_t base);
#if defined(__x86_64__)
uint8_t rules_search_avx2(const float *a, const float *h, float multiplier, uint8_t base);
uint8_t rules_search_avx512(const float *a, const float *h, float multiplier, uint8_t base);
#endif

#endif
