/* The pass over the bytes of some rows of a matrix: what can be counted without knowing the rest.
 *
 * Counts and maxima do not depend on the order; sums do, so whoever adds the sums of several calls
 * keeps to one order. Any thread, one struct pass each. */
#ifndef IMP_HEALTH_PASS_H
#define IMP_HEALTH_PASS_H

#include "load/weight.h"

/* Tables over one byte of two codes; made once by pass_tables_make, then shared. */
struct pass_tables {
    float magnitude[256][2]; /* of the low and the high code */
    /* Sums of both codes, in fields that hold a block's total: squares, in quarters, from bit 0;
     * expected squared errors of rounding, in units of 1/48, from 16; zeros from 32; magnitudes of
     * 2 and more from 40; of 6 from 48. */
    uint64_t sums[256];
    float e4m3[256]; /* magnitudes; NaN counts as 0 */
    float e8m0[256];
};
enum { PASS_ERROR = 16, PASS_ZEROS = 32, PASS_BIG = 40, PASS_SIXES = 48 };
void pass_tables_make(struct pass_tables *out);

struct pass {
    const struct pass_tables *tables;
    uint64_t bytes[256];  /* of codes */
    uint64_t scales[256]; /* block scales by byte */
    uint64_t sixes[256];  /* codes of magnitude 6 under each */
    uint64_t dominated, single;
    uint64_t zeros, not_finite; /* of formats without codes */
    double square, error;       /* sums, in units of the multiplier squared */
    float *input_largest;       /* [cols], maxima so far, in units of the multiplier */
    float *row;                 /* room for [cols] */
};

/* Rows first, first + step, ... `count` of them; their maxima to output_largest[count]. */
void pass_rows(struct pass *pass, const struct weight *w, int64_t first, int64_t step,
               int64_t count, float *output_largest);

#endif
