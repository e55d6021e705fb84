/* Counter-based random numbers: a pure function of (seed, stream, counter), so that a draw depends
 * on nothing that happened before. Philox 4x32-10 (Salmon et al., SC 2011). Any thread; blocks and
 * uniforms on any device too. */
#ifndef IMP_BASE_RNG_H
#define IMP_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

#include "base/inline.h"

INLINE_FN void rng_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]) {
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ key[0], (uint32_t)p1,
                            (uint32_t)(p0 >> 32) ^ c[3] ^ key[1], (uint32_t)p0};
        for (int i = 0; i < 4; i++) c[i] = next[i];
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

/* Two words of a block as a number in [0, 1), 53 bits. */
INLINE_FN double rng_unit(uint32_t high, uint32_t low) {
    return (double)((uint64_t)high << 21 ^ (uint64_t)(low >> 11)) * 0x1p-53;
}

/* Uniform in [0, 1), 53 bits. */
INLINE_FN double rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint32_t r[4];
    rng_block(seed, stream, counter, r);
    return rng_unit(r[0], r[1]);
}

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
