/* K and V on their way from KV blocks to the tensor cores: a ring of slots in shared memory. */
#ifndef IMP_BACKEND_CUDA_RING_CUH
#define IMP_BACKEND_CUDA_RING_CUH

#include "backend/cuda/kv.cuh"

enum { PART = KV_BLOCK_TOKENS, ATTEND_THREADS = 128 };

struct visible { /* positions; none: last < first */
    int first, last;
};

/* The K and V of a tile as units: K and V of its first part, of the next, and so on. */
struct source {
    const void *kv;
    const int32_t *blocks;
    int kv_heads, head, d;
    int part, units; /* first part; units of all parts */
    struct visible see;
};

/* SLOTS units are on their way or in use. E4M3 rows come as they are into slots without gaps and
 * are expanded to `wide` when their turn comes. STRIDE keeps eight neighbouring rows in different
 * banks. At most 99 KB with q, which every GPU has. */
template <int D, class E> struct ring {
    static constexpr int STRIDE = D + 8; /* elements of a row in shared memory */
    static constexpr bool FP8 = sizeof(E) == 1, RAW = FP8 && D <= 256;
    static constexpr int SLOTS = D <= 128 ? 4 : D <= 256 ? 2 : 1;
    static constexpr int LEFT = SLOTS > 1 ? SLOTS - 2 : 0; /* copies that a wait leaves going */
    static constexpr bool RAGGED = D == 32 || D == 512; /* takes rows that 16 bytes do not divide */
    static constexpr int UNIT_BYTES = PART * STRIDE * 2;
    static constexpr int SLOT_BYTES = !FP8 ? UNIT_BYTES : RAW ? PART * D : 0;
    static constexpr int BYTES = SLOTS * SLOT_BYTES + (FP8 ? UNIT_BYTES : 0);
};

template <class E> __device__ __forceinline__ const E *unit_rows(const struct source &s, int unit) {
    return kv_rows<E>(s.kv, s.blocks[s.part + unit / 2], unit & 1, s.kv_heads, s.head, s.d);
}
/* Rows of a unit that the tile sees. The others become 0: they may be NaN, and 0 NaN is NaN. */
__device__ __forceinline__ struct visible unit_see(const struct source &s, int unit) {
    const int start = (s.part + unit / 2) * PART;
    return {s.see.first - start, s.see.last - start};
}

/* The rows of a unit expanded, eight dims at a time; waits for its own loads. */
template <int D, class E>
__device__ void load_unit(uint16_t *to, const struct source &s, int unit) {
    const E *rows = unit_rows<E>(s, unit);
    const struct visible see = unit_see(s, unit);
    for (int i = threadIdx.x; i < PART * (D / 8); i += ATTEND_THREADS) {
        const int row = i / (D / 8), k = i % (D / 8) * 8;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (k < s.d && row >= see.first && row <= see.last)
            x = load_eight(rows + row * s.d + k, s.d - k);
        *(uint4 *)(to + row * ring<D, E>::STRIDE + k) = x;
    }
}

/* Copies a unit to a slot; eight threads take 128 bytes of a row. */
template <int D, class E>
__device__ __forceinline__ void copy_unit(E *to, const struct source &s, int unit) {
    enum { EACH = 16 / sizeof(E), LINE = 8 * EACH, ROWS = ATTEND_THREADS / 8 };
    const int pitch = ring<D, E>::FP8 ? D : ring<D, E>::STRIDE;
    const int first = threadIdx.x / 8, column = threadIdx.x % 8 * EACH;
    const E *rows = unit_rows<E>(s, unit);
    const struct visible see = unit_see(s, unit);
    to += first * pitch + column;
    const E *from = rows + first * s.d + column;
#pragma unroll
    for (int row = 0; row < PART; row += ROWS) {
        const bool seen = first + row >= see.first && first + row <= see.last;
#pragma unroll
        for (int k = 0; k < D; k += LINE) {
            if (D % LINE != 0 && column + k >= D) continue;
            const bool there = seen && column + k < s.d;
            copy_async(to + row * pitch + k, there ? from + row * s.d + k : rows, !there);
        }
    }
}

/* Starts the copy of a unit to its slot, if there is such a unit. */
template <int D, class E>
__device__ __forceinline__ void ask_unit(uint8_t *slots, const struct source &s, int unit) {
    typedef struct ring<D, E> ring;
    E *to = (E *)(slots + unit % ring::SLOTS * ring::SLOT_BYTES);
    if (unit < s.units && ring::SLOT_BYTES > 0) {
        if (!ring::RAGGED || s.d * sizeof(E) % 16 == 0) {
            copy_unit<D, E>(to, s, unit);
        } else if (!ring::FP8) {
            load_unit<D, E>((uint16_t *)to, s, unit);
        }
    }
    copy_commit();
}

/* Waits for a unit, asks for the one that takes the place of the one before, and returns its rows.
 * All threads are done with the unit before when they come here. */
template <int D, class E>
__device__ __forceinline__ const uint16_t *take_unit(uint8_t *slots, const struct source &s,
                                                     int unit) {
    typedef struct ring<D, E> ring;
    if (ring::SLOTS == 1) {
        __syncthreads();
        ask_unit<D, E>(slots, s, unit);
        copy_wait<ring::LEFT>();
        __syncthreads();
    } else {
        copy_wait<ring::LEFT>();
        __syncthreads();
        ask_unit<D, E>(slots, s, unit + ring::SLOTS - 1);
    }
    const uint8_t *slot = slots + unit % ring::SLOTS * ring::SLOT_BYTES;
    if (!ring::FP8) return (const uint16_t *)slot;
    uint16_t *wide = (uint16_t *)(slots + ring::SLOTS * ring::SLOT_BYTES);
    if (!ring::RAW || (ring::RAGGED && s.d % 16 != 0)) {
        load_unit<D, E>(wide, s, unit);
    } else {
        for (int i = threadIdx.x; i < PART * (D / 8); i += ATTEND_THREADS) {
            const uint2 x = *(const uint2 *)(slot + i * 8);
            const uint2 a = expand_e4m3(x.x), b = expand_e4m3(x.y);
            *(uint4 *)(wide + i / (D / 8) * ring::STRIDE + i % (D / 8) * 8) =
                make_uint4(a.x, a.y, b.x, b.y);
        }
    }
    __syncthreads();
    return wide;
}

#endif
