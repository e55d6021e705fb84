/* Counter-based random numbers: a pure function of (seed, stream, counter), so that a draw depends
 * on nothing that happened before. Philox 4x32-10 (Salmon et al., SC 2011). Any thread. */
#ifndef IMP_BASE_RNG_H
#define IMP_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

void rng_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);
/* Uniform in [0, 1), 53 bits. */
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter);
/* Normal with mean 0 and variance 1 (Box-Muller over one block). */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t counter);

/* Normals by the million: quantiles of 16 bits each, eight of them from one block, so tails end at
 * 4.3. Value i of a stream is the same whichever range it is asked for in. */
enum { RNG_QUANTILES = 1 << 16 };
struct rng_table {
    float quantile[RNG_QUANTILES];
};
void rng_table_make(struct rng_table *out);
void rng_normals(const struct rng_table *table, uint64_t seed, uint64_t stream, uint64_t first,
                 size_t count, float *out);

#endif
