#include "base/rng.h"

#include <math.h>

double rng_normal(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint32_t r[4];
    rng_block(seed, stream, counter, r);
    double radius = sqrt(-2.0 * log(1.0 - rng_unit(r[0], r[1])));
    return radius * cos(6.283185307179586 * rng_unit(r[2], r[3]));
}

/* The quantile of probability p >= 1/2, by Newton's method from a smaller one: the distribution is
 * concave there, so steps never overshoot. */
static double next_quantile(double x, double p) {
    for (int i = 0; i < 60; i++) {
        double below = 0.5 * erfc(-x * M_SQRT1_2), density = exp(-0.5 * x * x) * 0.3989422804014327;
        double step = (p - below) / density;
        x += step;
        if (fabs(step) < 1e-13) break;
    }
    return x;
}

void rng_table_make(struct rng_table *out) {
    double x = 0;
    for (int i = RNG_QUANTILES / 2; i < RNG_QUANTILES; i++) {
        x = next_quantile(x, (i + 0.5) / RNG_QUANTILES);
        out->quantile[i] = (float)x;
        out->quantile[RNG_QUANTILES - 1 - i] = (float)-x;
    }
}

void rng_normals(const struct rng_table *table, uint64_t seed, uint64_t stream, uint64_t first,
                 size_t count, float *out) {
    const float *quantile = table->quantile;
    uint64_t at = first, end = first + count;
    while (at < end) {
        const unsigned from = (unsigned)(at % 8),
                       to = end - at < 8 - from ? from + (unsigned)(end - at) : 8;
        uint32_t block[4];
        float x[8];
        rng_block(seed, stream, at / 8, block);
        for (int i = 0; i < 4; i++) {
            x[2 * i] = quantile[block[i] & 0xffff];
            x[2 * i + 1] = quantile[block[i] >> 16];
        }
        for (unsigned i = from; i < to; i++) *out++ = x[i];
        at += to - from;
    }
}
