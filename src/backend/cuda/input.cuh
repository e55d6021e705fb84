/* What some stacks do to their input before the product: a factor per column (AWQ), and W4A4's
 * rounding. Both make a row of the row alone; a thread block makes a row, a thread a block of 16.
 */
#ifndef IMP_BACKEND_CUDA_INPUT_CUH
#define IMP_BACKEND_CUDA_INPUT_CUH

#include "backend/cuda/pack.cuh"
#include "num/nvfp4.h"

/* The largest over a block of ROW_THREADS threads, to all of them; once in a kernel. */
static __device__ __forceinline__ float block_most(float x) {
    __shared__ float part[ROW_THREADS / WARP];
    for (int width = WARP / 2; width > 0; width /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, width));
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = x;
    __syncthreads();
    for (int i = 0; i < ROW_THREADS / WARP; i++) x = fmaxf(x, part[i]);
    return x;
}

/* Columns k .. k + 15 of a row of an act, times pre_scale and rounded as an act is. In the order of
 * an act they stand in pairs. */
static __device__ __forceinline__ void load_block(const struct input_change &c, const uint16_t *x,
                                                  int64_t cols, int64_t k, float v[NVFP4_BLOCK]) {
    for (int i = 0; i < NVFP4_BLOCK; i += 2) {
        const uint32_t pair = *(const uint32_t *)(x + act_place(k + i));
        v[i] = bf16_decode((uint16_t)pair);
        v[i + 1] = bf16_decode((uint16_t)(pair >> 16));
    }
    for (int i = 0; c.pre_scale && i < NVFP4_BLOCK; i++)
        if (k + i < cols) v[i] = bf16_round(v[i] * c.pre_scale[k + i]);
}
static __device__ __forceinline__ void store_block(uint16_t *out, int64_t k,
                                                   const float v[NVFP4_BLOCK]) {
    for (int i = 0; i < NVFP4_BLOCK; i += 2)
        *(uint32_t *)(out + act_place(k + i)) =
            (uint32_t)bf16_encode(v[i + 1]) << 16 | bf16_encode(v[i]);
}

/* One row of an act, as c says; out may not be x. Returns the row's multiplier, to all threads. */
static __device__ __forceinline__ float change_row(const struct input_change &c, const uint16_t *x,
                                                   int64_t cols, uint16_t *out) {
    const int64_t stride = act_stride(cols), first = threadIdx.x * NVFP4_BLOCK;
    enum { STEP = ROW_THREADS * NVFP4_BLOCK };
    float v[NVFP4_BLOCK], multiplier = 1.0f;
    if (c.nvfp4) {
        const bool own = !nvfp4_usable(c.multiplier);
        float amax = 0;
        for (int64_t k = first; k < stride && own; k += STEP) {
            load_block(c, x, cols, k, v);
            amax = fmaxf(amax, nvfp4_block_amax(v));
        }
        multiplier = nvfp4_choose_multiplier(own ? block_most(amax) : 0, c.multiplier);
    }
    for (int64_t k = first; k < stride; k += STEP) {
        load_block(c, x, cols, k, v);
        if (c.packed) {
            uint8_t codes[NVFP4_BLOCK_BYTES];
            const uint8_t scale = nvfp4_quantize_block(v, multiplier, codes);
            nvfp4_put_block((uint8_t *)out, stride, k, codes, scale);
            continue;
        }
        if (c.nvfp4) nvfp4_round_block(v, multiplier, v);
        store_block(out, k, v);
    }
    return multiplier;
}

#endif
