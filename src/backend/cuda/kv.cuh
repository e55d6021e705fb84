/* KV blocks on the device: where rows are, and their elements. A block is K then V, each
 * [kv_heads, KV_BLOCK_TOKENS, head_dim] of BF16 (uint16_t) or E4M3 (uint8_t). */
#ifndef IMP_BACKEND_CUDA_KV_CUH
#define IMP_BACKEND_CUDA_KV_CUH

#include "backend/cuda/cuda.cuh"
#include "backend/cuda/mma.cuh"

/* Of a sequence. No index into a parameter: that would put all of them on the stack. */
__device__ __forceinline__ const int32_t *block_table(const struct dev_batch &batch,
                                                      enum kv_group group, int seq) {
    return (group == KV_FULL ? batch.blocks[KV_FULL] : batch.blocks[KV_WINDOW]) +
           (int64_t)seq * batch.block_stride;
}

/* K (or V) of a head in a block: [KV_BLOCK_TOKENS, d]. */
template <class E>
__device__ __forceinline__ E *kv_rows(const void *kv, int64_t block, bool is_v, int kv_heads,
                                      int head, int d) {
    return (E *)kv + ((2 * block + is_v) * kv_heads + head) * KV_BLOCK_TOKENS * d;
}

/* Four E4M3 as BF16, exactly: their exponent and mantissa stand in BF16 as they are, 2^120 too
 * small (subnormals too). NaN is the one exception. */
__device__ __forceinline__ uint2 expand_e4m3(uint32_t x) {
    const uint32_t place[2] = {__byte_perm(x, 0, 0x1404), __byte_perm(x, 0, 0x3424)};
    const bool nan = (((x & 0x7F7F7F7Fu) + 0x01010101u) & 0x80808080u) != 0;
    uint32_t y[2];
    for (int i = 0; i < 2; i++) {
        y[i] = mul_bf16((place[i] & 0x80008000u) | (place[i] & 0x7F007F00u) >> 4, 0x7B807B80u);
        if (nan) {
            if ((place[i] & 0x7F00u) == 0x7F00u) y[i] |= 0x7FC0u;
            if ((place[i] & 0x7F000000u) == 0x7F000000u) y[i] |= 0x7FC00000u;
        }
    }
    return make_uint2(y[0], y[1]);
}

/* Eight elements of a row as BF16; those from `left` on are zeros. */
__device__ __forceinline__ uint4 load_eight(const uint16_t *from, int left) {
    uint32_t x[4];
    for (int i = 0; i < 4; i++) {
        const uint32_t low = 2 * i < left ? from[2 * i] : 0;
        x[i] = low | (2 * i + 1 < left ? (uint32_t)from[2 * i + 1] << 16 : 0);
    }
    return make_uint4(x[0], x[1], x[2], x[3]);
}
__device__ __forceinline__ uint4 load_eight(const uint8_t *from, int left) {
    uint32_t x[2] = {0, 0};
    for (int i = 0; i < 8; i++)
        if (i < left) x[i / 4] |= (uint32_t)from[i] << i % 4 * 8;
    const uint2 a = expand_e4m3(x[0]), b = expand_e4m3(x[1]);
    return make_uint4(a.x, a.y, b.x, b.y);
}

#endif
