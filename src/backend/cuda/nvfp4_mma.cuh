/* The products of PACK_NVFP4: NVFP4 times NVFP4 by the block-scaled tensor cores of sm_120a. A mode
 * with bits of its own: how the instruction rounds inside its 64 columns is not documented, so they
 * need not be those of the emulation, which expands both to BF16. (tcgen05 of sm_100a is another
 * instruction, with operands in shared and tensor memory: there W4A4 is emulated.) */
#ifndef IMP_BACKEND_CUDA_NVFP4_MMA_CUH
#define IMP_BACKEND_CUDA_NVFP4_MMA_CUH

#include "backend/cuda/nvfp4_layout.h"
#include "backend/cuda/pack.cuh"

static __device__ __forceinline__ void mma_nvfp4(float d[4], const uint4 &a, uint32_t a_scales,
                                                 uint32_t b0, uint32_t b1, uint32_t b_scales) {
#ifdef __CUDA_ARCH_FEAT_SM120_ALL
    asm("mma.sync.aligned.kind::mxf4nvf4.block_scale.scale_vec::4X.m16n8k64.row.col.f32.e2m1.e2m1."
        "f32.ue4m3 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3},{%10},{0,0},{%11},{0,0};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1), "r"(a_scales), "r"(b_scales));
#else
    __trap(); /* no stack has this format: see imp_cuda_open */
#endif
}

/* Adds the products of a chunk at column k0. x: the row of lane's nvfp4_b_row in each column of
 * eight, or NULL. */
template <int COLUMNS>
static __device__ __forceinline__ void
add_nvfp4_chunk(const uint8_t *chunk, const uint16_t *const x[COLUMNS], int64_t stride, int64_t k0,
                int lane, float d[COLUMNS][4]) {
    for (int step = 0; step < NVFP4_STEPS; step++) {
        const int64_t k = k0 + step * NVFP4_STEP_K;
        const uint4 a = *(const uint4 *)(chunk + nvfp4_words_at(step, lane));
        const uint32_t a_scales =
            *(const uint32_t *)(chunk + nvfp4_scales_at(step, nvfp4_a_scale_row(lane)));
        for (int c = 0; c < COLUMNS; c++) {
            const uint8_t *row = (const uint8_t *)x[c];
            uint32_t b[2] = {}, b_scales = 0;
            for (int r = 0; r < 2 && row; r++)
                b[r] = *(const uint32_t *)(row + nvfp4_x_codes_at(k + nvfp4_b_k(lane, r)));
            if (row) b_scales = *(const uint32_t *)(row + nvfp4_x_scales_at(stride, k));
            mma_nvfp4(d[c], a, a_scales, b[0], b[1], b_scales);
        }
    }
}

#endif
