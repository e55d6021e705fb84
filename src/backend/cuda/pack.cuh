/* Weights as the matrix kernels read them.
 *
 * A stack is some rows of a matrix that share a kernel format: tiles of 16 rows, cut along K into
 * chunks, each chunk in the order in which the lanes of a warp take it as the A operand of a 16 x 8
 * x 16 instruction. All kernels read this one copy, for one row of x and for thousands.
 *
 * Order of K: K is cut into SEGMENTS parts, segment q = chunks floor(q n / 8) .. floor((q + 1) n /
 * 8) - 1 of the n chunks; a segment is one chain of fp32 accumulations by the tensor core, over its
 * chunks in ascending order and inside a chunk over groups of 64 k, four instructions each, in the
 * order of act_place; the segments' sums are added in fp32, ascending, from +0; row_info.multiplier
 * multiplies the total, then the multiplier of x's row if it has one, and the bias is added.
 * mma.sync and wgmma sum alike (tests/device/linear.c).
 *
 * In memory a tile's chunks stand as they are asked for: chunk t of every segment side by side, so
 * that a stage of eight is one copy: see stack_place. */
#ifndef IMP_BACKEND_CUDA_PACK_CUH
#define IMP_BACKEND_CUDA_PACK_CUH

#include "backend/cuda/cuda.cuh"
#include "backend/cuda/nvfp4_layout.h"
#include "backend/cuda/pack_layout.h"

template <enum pack_format F> struct pack;
template <> struct pack<PACK_FP4> {
    enum { CHUNK_K = 128, BYTES = 1152 };
};
template <> struct pack<PACK_FP8> {
    enum { CHUNK_K = 128, BYTES = 2048 };
};
template <> struct pack<PACK_BF16> {
    enum { CHUNK_K = 64, BYTES = 2048 };
};
template <> struct pack<PACK_NVFP4> {
    enum { CHUNK_K = NVFP4_STEPS * NVFP4_STEP_K, BYTES = NVFP4_CHUNK_BYTES };
};

/* What a stack does to its input before the product; see input.cuh. */
struct input_change {
    const float *pre_scale; /* [cols]: multiplies the columns; or NULL */
    float multiplier;       /* with nvfp4: the input's own; NAN: of each row, made of the row */
    bool nvfp4;             /* then it is rounded to NVFP4 */
    bool packed;            /* and stays codes and scales, for PACK_NVFP4 */
};

struct stack {
    enum pack_format format;
    int chunks;          /* of K: ceil(cols / pack_chunk_k) */
    int planes;          /* of PACK_BF16; else 1 */
    int tiles;           /* of 16 rows */
    bool paired;         /* rows l, l + 8 of a tile: gate, up of output 8 tile + l; see upload.cu */
    const uint8_t *data; /* [tiles, chunks * planes, pack_bytes] */
    const struct row_info *row;
    struct input_change input;
};

struct cuda_matrix {
    struct matrix base;
    int count;
    struct stack stack[MAX_PARTS];
    void *memory; /* all of it */
};

/* ---- device: one instruction's operands ---- */

static __device__ __forceinline__ uint32_t bf16x2_mul(uint32_t a, uint32_t b) {
    uint32_t r;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900 /* no mul: a b + -0, which is the same */
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(0x80008000u));
#else
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
#endif
    return r;
}

/* The scales of a lane as pairs of BF16, s * 2^118: low, high nibbles of the re-coded bytes. */
struct lane_scales {
    uint32_t low, high;
};
static __device__ __forceinline__ struct lane_scales lane_scales(uint32_t bytes) {
    uint32_t ones, high;
    asm("mov.b32 %0, 0x70707070;" : "=r"(ones)); /* opaque: one LOP3 does it */
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(high) : "r"(bytes), "r"(0x0F0F0F0Fu), "r"(ones));
    return {bytes & 0xF0F0F0F0u, high};
}
/* Of row l / 4 (+ 8 if lower) for the group of 64 k, twice in a register. */
template <int GROUP, int LOWER>
static __device__ __forceinline__ uint32_t scale_pair(const struct lane_scales &s) {
    return __byte_perm(s.low, s.high, 0x4040 + 0x2222 * GROUP + 0x1111 * LOWER);
}

/* One word of FP4 codes to the four registers of A, times 2^-8. In BF16 an E2M1 code is its sign at
 * bit 15 and e e m at bits 8:6, the value times 2^-126 (also of the subnormal 0.5). The codes of a
 * half word are laid out so that three of four registers need one shift and one mask. */
static __device__ __forceinline__ void expand_fp4(uint32_t w, uint32_t s0, uint32_t s1,
                                                  uint32_t a[4]) {
    a[0] = bf16x2_mul(w & 0x81C081C0u, s0);
    a[1] = bf16x2_mul(__funnelshift_r(w, w, 6) & 0x81C081C0u, s1);
    a[2] = bf16x2_mul((w << 4) & 0x81C081C0u, s0);
    a[3] = bf16x2_mul(((w << 6) & 0x80C080C0u) | ((w >> 2) & 0x01000100u), s1);
}
/* Two words of E4M3, each a pair in its even and a pair in its odd bytes, to four registers, times
 * 2^-8. As a BF16 with its exponent's bits the value is 2^-120 of itself (subnormals too). */
static __device__ __forceinline__ void expand_fp8(uint32_t even, uint32_t odd, uint32_t a[4]) {
    const uint32_t up = 0x77807780u; /* 2^112 twice */
    const uint32_t w[4] = {even << 8, even, odd << 8, odd};
    for (int i = 0; i < 4; i++)
        a[i] = bf16x2_mul((w[i] & 0x80008000u) | ((w[i] >> 4) & 0x07F007F0u), up);
}

template <int I> struct step_number {
    enum { value = I };
};
/* f(0), f(1) .. f(N - 1), each with a number that is a constant. */
template <int N, class Fn> static __device__ __forceinline__ void for_steps(Fn &&f) {
    if constexpr (N > 0) {
        for_steps<N - 1>(f);
        f(step_number<N - 1>());
    }
}

/* A lane's share of a chunk in registers, and its four A registers for instruction j. */
template <enum pack_format F> struct lane_chunk {
    enum { WORDS = pack<F>::BYTES / 128, STEPS = pack<F>::CHUNK_K / 16 };
    uint32_t w[WORDS];
    struct lane_scales scales;
    uint32_t zero; /* 0 that the compiler does not know */
    static __device__ __forceinline__ constexpr int word_of(int j) {
        return F == PACK_FP4 ? j : F == PACK_FP8 ? 2 * j : 4 * j;
    }
    /* from: chunk + lane * 16; shared or global memory */
    __device__ __forceinline__ void load(const uint8_t *from, int lane) {
        for (int i = 0; i < WORDS / 4; i++) {
            const uint4 v = *(const uint4 *)(from + i * 512);
            w[4 * i] = v.x, w[4 * i + 1] = v.y, w[4 * i + 2] = v.z, w[4 * i + 3] = v.w;
        }
        if (F == PACK_FP4) w[WORDS - 1] = *(const uint32_t *)(from - lane * 12 + 1024);
    }
    /* The same from shared memory; by its address, so that no pointer has to be converted. */
    __device__ __forceinline__ void load_shared(uint32_t from, int lane) {
        for (int i = 0; i < WORDS / 4; i++)
            asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                         : "=r"(w[4 * i]), "=r"(w[4 * i + 1]), "=r"(w[4 * i + 2]),
                           "=r"(w[4 * i + 3])
                         : "r"(from + i * 512)
                         : "memory");
        if (F == PACK_FP4)
            asm volatile("ld.shared.u32 %0, [%1];"
                         : "=r"(w[WORDS - 1])
                         : "r"(from - lane * 12 + 1024)
                         : "memory");
    }
    /* 0, known when all words have come. Who gives the memory back must wait for that: the next
     * copy into it is not ordered behind loads that are under way. */
    __device__ __forceinline__ uint32_t loaded(void) const {
        uint32_t all = w[WORDS - 1];
        for (int i = 0; i < WORDS / 4; i++) all |= w[4 * i];
        return all & zero;
    }
    __device__ __forceinline__ void ready(void) {
        if (F == PACK_FP4) scales = lane_scales(w[WORDS - 1]);
    }
    template <int J> __device__ __forceinline__ void fragment(uint32_t a[4]) const {
        if (F == PACK_FP4) {
            expand_fp4(w[J], scale_pair<J / 4, 0>(scales), scale_pair<J / 4, 1>(scales), a);
        } else if (F == PACK_FP8) {
            expand_fp8(w[2 * J], w[2 * J + 1], a);
        } else {
            /* Not the loaded registers themselves: wgmma reads its operands after the instruction,
             * when the next chunk is loaded into them. */
            for (int i = 0; i < 4; i++) a[i] = w[4 * J + i] | zero;
        }
    }
};

static __device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4], uint32_t b0,
                                                uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* ---- device: barriers and copies in shared memory (sm_90 and later) ---- */

static __device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
static __device__ __forceinline__ void barrier_init(uint32_t b, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(b), "r"(count));
}
static __device__ __forceinline__ void barrier_init_done(void) {
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::
                     : "memory");
}
static __device__ __forceinline__ void barrier_expect(uint32_t b, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(b), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void barrier_arrive(uint32_t b) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(b) : "memory");
}
static __device__ __forceinline__ void barrier_wait(uint32_t b, int parity) {
    asm volatile("{\n.reg .pred p;\nagain: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@!p bra again;\n}" ::"r"(b),
                 "r"(parity)
                 : "memory");
}
/* Weights to shared memory; they are read once, so L2 need not keep them. */
static __device__ __forceinline__ void copy_weights(uint32_t to, const void *from, int bytes,
                                                    uint32_t barrier) {
    asm volatile("{\n.reg .b64 pol;\ncreatepolicy.fractional.L2::evict_first.b64 pol, 1.0;\n"
                 "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1], %2, [%3], pol;\n}" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}
#endif

/* ---- the kernels, by file: y = or += sums of stack s; x act [rows, stride] ---- */

/* Where a paired stack's products go as glu(gate, up): an act. out NULL: to y, as they are. */
struct glu_out {
    uint16_t *out;
    int64_t stride; /* of its rows */
    enum glu_kind kind;
    float limit;
};
/* The multiplier of row r of x; 1, which changes no bit, where rows have none. */
static __device__ __forceinline__ float row_multiplier(const float *of, int64_t r, int64_t rows) {
    return of && r < rows ? of[r] : 1.0f;
}
/* A sum as an output; by: the multiplier of its row of x. */
static __device__ __forceinline__ float row_output(const struct row_info &row, float sum,
                                                   float by) {
    return __fadd_rn(__fmul_rn(__fmul_rn(sum, row.multiplier), by), row.bias);
}
/* Of output 8 tile + l: rows l and l + 8 of the tile. What is no output is 0 in the act. */
static __device__ __forceinline__ uint16_t glu_output(const struct glu_out &g,
                                                      const struct row_info &gate_row,
                                                      const struct row_info &up_row, float gate,
                                                      float up, float by) {
    if (gate_row.out < 0) return 0;
    gate = row_output(gate_row, gate, by);
    up = row_output(up_row, up, by);
    return bf16_encode(glu_value(g.kind, g.limit, gate, up));
}

struct linear_job {
    const struct stack *stack;
    const uint16_t *x;
    const float *row_multiplier; /* [rows] of x; a grouped job's: of slots; NULL: ones */
    int64_t x_stride, y_stride;
    float *y;
    int rows;
    bool add;
    struct glu_out glu;
};
/* Slots (row, choice of expert) sorted by expert. An item is at most 8 * columns slots of one. */
struct slot_item {
    int32_t expert, first, count;
};
struct expert_stack {
    const uint8_t *data;
    const struct row_info *row;
    int64_t kind; /* experts of a layer may differ in format: which of the layer's this has */
};
struct slot_groups {
    const struct slot_item *items;
    const int32_t *count; /* of items */
    const int32_t *slot;  /* in the order of the items */
    const struct expert_stack *weights;
    const int32_t *expert; /* where items is NULL: item i is slot i alone, of expert[i] */
    int kind;              /* experts of another are left out */
    int columns, x_share;  /* slot s reads row s / x_share of x, and writes row s of y */
};

/* linear_few.cu: few rows, near the memory's speed. False where it has no room for them. */
bool linear_few(struct cuda_backend *cuda, const struct linear_job *job);
void linear_few_reserve(struct cuda_backend *cuda);
/* linear_many.cu: wgmma; false where the device has none. */
bool linear_many(struct cuda_backend *cuda, const struct linear_job *job);
bool linear_many_gates(const struct stack *s); /* whether a job may have a glu */
size_t linear_many_bytes(void);
int linear_many_reserve(struct cuda_backend *cuda, struct imp_error *err);
/* linear_plain.cu: any. The stack of a grouped job says the shape alone. */
void linear_plain(struct cuda_backend *cuda, const struct linear_job *job);
void linear_groups(struct cuda_backend *cuda, const struct linear_job *job,
                   const struct slot_groups *groups, int most_items);

#endif
