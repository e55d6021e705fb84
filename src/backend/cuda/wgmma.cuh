/* wgmma.mma_async m64 nN k16: A (BF16) in registers, B (BF16) in shared memory, sums in fp32 that
 * start from zero where `add` is 0. PTX wants each register of the sums by name, so the lists are
 * built by macros, ten names at a time. sm_90a alone. */
#ifndef IMP_BACKEND_CUDA_WGMMA_CUH
#define IMP_BACKEND_CUDA_WGMMA_CUH

#include <stdint.h>

static __device__ __forceinline__ void wgmma_fence(void) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void wgmma_commit(void) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> static __device__ __forceinline__ void wgmma_wait(void) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* Descriptor of B at a shared address: K-major, 128-byte swizzle, eight tokens every 1024 bytes. A
 * step of 16 k is 32 bytes further: 2 more in the descriptor. */
static __device__ __forceinline__ uint64_t wgmma_operand(uint32_t shared) {
    return (uint64_t)((shared & 0x3FFFF) >> 4) | (uint64_t)1 << 16 | (uint64_t)64 << 32 |
           (uint64_t)1 << 62;
}

#define NAMES_(t)                                                                                  \
    "%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7,%" #t "8,%" #t "9,"
#define SUMS8(o)                                                                                   \
    "+f"(d[o]), "+f"(d[o + 1]), "+f"(d[o + 2]), "+f"(d[o + 3]), "+f"(d[o + 4]), "+f"(d[o + 5]),    \
        "+f"(d[o + 6]), "+f"(d[o + 7])
#define SUMS32(o) SUMS8(o), SUMS8(o + 8), SUMS8(o + 16), SUMS8(o + 24)
#define COMMA     ,
#define WGMMA(n, names, sums, a0, a1, a2, a3, de, pr)                                              \
    static __device__ __forceinline__ void wgmma(float(&d)[n / 2], const uint32_t a[4],            \
                                                 uint64_t b, int add) {                            \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #pr ", 0;\n"                             \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" names            \
                     "}, {%" #a0 ",%" #a1 ",%" #a2 ",%" #a3 "}, %" #de ", p, 1, 1, 0;\n}"          \
                     : sums                                                                        \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));              \
    }
#define NAMES10 NAMES_()
#define NAMES60 NAMES_() NAMES_(1) NAMES_(2) NAMES_(3) NAMES_(4) NAMES_(5)
WGMMA(16, "%0,%1,%2,%3,%4,%5,%6,%7", SUMS8(0), 8, 9, 10, 11, 12, 13)
WGMMA(32, NAMES10 "%10,%11,%12,%13,%14,%15", SUMS8(0) COMMA SUMS8(8), 16, 17, 18, 19, 20, 21)
WGMMA(64, NAMES10 NAMES_(1) NAMES_(2) "%30,%31", SUMS32(0), 32, 33, 34, 35, 36, 37)
WGMMA(128, NAMES60 "%60,%61,%62,%63", SUMS32(0) COMMA SUMS32(32), 64, 65, 66, 67, 68, 69)
WGMMA(176, NAMES60 NAMES_(6) NAMES_(7) "%80,%81,%82,%83,%84,%85,%86,%87",
      SUMS32(0) COMMA SUMS32(32) COMMA SUMS8(64) COMMA SUMS8(72) COMMA SUMS8(80), 88, 89, 90, 91,
      92, 93)
WGMMA(192, NAMES60 NAMES_(6) NAMES_(7) NAMES_(8) "%90,%91,%92,%93,%94,%95",
      SUMS32(0) COMMA SUMS32(32) COMMA SUMS32(64), 96, 97, 98, 99, 100, 101)

#endif
