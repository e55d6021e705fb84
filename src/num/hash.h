/* A hash of a row of floats that needs no order: the sum, modulo 2^64, of one word an element. So
 * any number of threads, on a CPU or a GPU, can each take a share and add what they have. It tells
 * whether two runs gave the same bits; it is no defence against somebody who looks for a collision.
 * Pure functions; any thread, any device. */
#ifndef IMP_NUM_HASH_H
#define IMP_NUM_HASH_H

#include "num/fp.h"

/* The word of element x at place i. One to one in (x, i), so that a change of one element always
 * changes the sum. The last shift keeps the sum from being linear: without it the multiplication
 * before would commute with adding. Constants of SplitMix64 (Steele, Lea, Flood 2014). */
INLINE_FN uint64_t hash_element(float x, uint32_t i) {
    uint64_t z = ((uint64_t)i << 32 | fp32_bits(x)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 32) * 0x94D049BB133111EBu;
    return z ^ z >> 29;
}

#endif
