/* Rounding rules: which scale byte every block of a matrix gets, and so which codes.
 *
 *   amax      E4M3(amax / (6 g)), as the makers' tools do it
 *   sweep     of the bytes b0-4 .. b0+8 around amax's b0, that of the least squared error
 *   weighted  the same with the error of column k counted h[k] = mean x_k^2 times, x being what the
 *             layer reads: half of amax's divergence from the original, where sweep gives 0.9 of it
 *
 * b0+5 is the byte that maps amax to 4 in place of 6, so a window that ends below it misses the
 * better half of its gains. A block's result depends on its own 16 values, h and g. Pure functions:
 * any thread, and the same bytes on every instruction set. */
#ifndef IMP_QUANTIZE_RULES_H
#define IMP_QUANTIZE_RULES_H

#include <stdint.h>

enum quantize_method { QUANTIZE_NONE, QUANTIZE_AMAX, QUANTIZE_SWEEP, QUANTIZE_WEIGHTED };

/* g of a matrix, or of matrices that share one, whose largest magnitude is amax (finite).
 * amax: amax / 2688, the makers' formula. Else the power of two that puts the largest b0 into
 * (128, 256]: room for the sweep above it, and code * scale * g is exact in BF16, so that readers
 * which expand to BF16 lose nothing. */
float rule_multiplier(enum quantize_method method, float amax);

/* One row of n values, n a multiple of 16, all finite: codes[n / 2], scales[n / 16]. h[n] is for
 * weighted alone, every value positive; NULL counts all columns alike. */
void rule_quantize_row(enum quantize_method method, const float *x, const float *h,
                       float multiplier, int64_t n, uint8_t *codes, uint8_t *scales);

#endif
