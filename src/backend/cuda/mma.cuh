/* Tensor cores as warps use them from sm_80 on: fragments, the product, copies to shared memory.
 *
 * mma: C[16, 8] += A[16, 16] B[16, 8], BF16 into fp32. Lane 4 g + c holds of C the elements (g,
 * 2c), (g, 2c + 1), (g + 8, 2c), (g + 8, 2c + 1); of A as four registers of two columns (g, 2c), (g
 * + 8, 2c), (g, 2c + 8), (g + 8, 2c + 8); of B as two registers of two rows (2c, g), (2c + 8, g).
 * So C of two neighbouring products is A of a third. */
#ifndef IMP_BACKEND_CUDA_MMA_CUH
#define IMP_BACKEND_CUDA_MMA_CUH

#include <stdint.h>

__device__ __forceinline__ uint32_t shared_at(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Four 8x8 matrices of 16-bit elements. Lane i gives the address of row i % 8 of matrix i / 8; lane
 * 4 g + c gets the elements 2c, 2c + 1 of row g of each. */
__device__ __forceinline__ void load_matrices(uint32_t out[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_at(row))
                 : "memory");
}
/* The same, each matrix transposed. */
__device__ __forceinline__ void load_transposed(uint32_t out[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_at(row))
                 : "memory");
}

__device__ __forceinline__ void mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 16 bytes to shared memory, or 16 zeros; nothing is read for zeros. */
__device__ __forceinline__ void copy_async(void *to, const void *from, bool zeros) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_at(to)), "l"(from),
                 "r"(zeros ? 0 : 16)
                 : "memory");
}
__device__ __forceinline__ void copy_commit(void) { /* ends a group of copies */
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int LEFT> __device__ __forceinline__ void copy_wait(void) { /* for all groups but LEFT */
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* Two numbers as BF16, `low` in the low half. NaN becomes 0x7FFF whatever it was. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    uint32_t x;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}

/* Two products of BF16. */
__device__ __forceinline__ uint32_t mul_bf16(uint32_t a, uint32_t b) {
    uint32_t x;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(x) : "r"(a), "r"(b), "r"(0x80008000u));
    return x;
}

/* 2^x within 2^-22 of it; 2^-Inf is 0. */
__device__ __forceinline__ float ex2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/* 1 / x within 2^-23 of it. */
__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
