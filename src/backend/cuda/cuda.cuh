/* The CUDA backend: private structures and the helpers that every kernel file uses.
 *
 * A module of its own (libimp_cuda.so) that the program opens at run time. All work of a step goes
 * to one stream; nothing waits but read, sample and step_end. Every call of the CUDA runtime goes
 * through gpu_call, cuda_alloc or gpu_launch: they keep the first error for step_end, and any one
 * of them can be made to fail (runtime.fail_call).
 *
 * act: BF16 [rows, act_stride(cols)], columns in the order of act_place, zeros past cols. KV of a
 * block: K then V, each [kv_heads, 64, head_dim], BF16 or E4M3. Every sum is made by a fixed number
 * of threads in a fixed order and ends in a fixed tree, so a row's result does not depend on its
 * companions.
 *
 * Programmatic dependent launch: a kernel may start while the one before it still runs. So every
 * kernel calls depend_wait() before it reads or writes what others write or read, in every thread
 * block, even one that has nothing to do; what it reads of weights it may ask for earlier. It calls
 * depend_release() as early as it can: at its start, or where its own first loads are on their way
 * (gdn.cu later, and says why). What runs in a decode step takes at most 112 KB a block of shared
 * memory, so that linear_few finds room beside it; linear_few itself takes more than half. */
#ifndef IMP_BACKEND_CUDA_CUDA_CUH
#define IMP_BACKEND_CUDA_CUDA_CUH

#include <cuda.h>
#include <cuda_runtime.h>

extern "C" {
#include "backend/backend.h"
#include "base/error.h"
#include "base/str.h"
}
#include "backend/cuda/act.h"
#include "num/fp.h"

enum { ROW_THREADS = 256, HEAD_THREADS = 128, WARP = 32, MAX_PARTS = 4 };
/* Bytes of shared memory that linear_few asks for: so many that no two of its blocks share a
 * multiprocessor. With less, 25 to 55 of 132 blocks of a launch that began early did, other
 * multiprocessors had none, and the kernel took as long as two blocks one after the other. */
enum { LINEAR_FEW_SHARED = 115 << 10 };
enum { KNOWN_KERNELS = 256 }; /* kernels of the module, at most */

/* A table's rows on the device, as stored. */
struct dev_weight {
    enum weight_format format;
    int64_t rows, cols;
    const void *data;
    const uint8_t *block_scale;
    const float *scale;
    int64_t scale_rows, scale_cols;
    float multiplier;
};
struct cuda_table {
    struct table base;
    struct dev_weight weight;
    void *memory;
};

/* The way of weights to the device: two halves that take turns. */
struct cuda_stage {
    uint8_t *host[2], *device[2];
    cudaEvent_t free[2]; /* when the half may be written again */
    int next;
};

/* Device memory that many share; see memory.cu. */
enum { MAX_SLABS = 4096 };
struct cuda_slab {
    uint8_t *base;
    size_t size, used;
    int live; /* allocations in it */
};

/* A decode step, captured; see graph.cu. */
enum { MAX_GRAPHS = 64, GRAPH_LEAST_CONTEXT = 1024 };
struct graph_shape {
    int rows, out_rows, most;
};
struct cuda_graph {
    struct graph_shape shape;
    int64_t uses, last_step;
    cudaGraphExec_t exec;
};

/* The running step on the device. */
struct dev_batch {
    int rows, seqs, out_rows;
    int most; /* no position of the step is past it; the same for all steps that share a graph */
    const int32_t *token, *position, *seq, *seq_row, *out_row, *slot;
    const int32_t *blocks[KV_GROUPS]; /* sequence s's at + s * block_stride */
    int block_stride;
};

/* cuTensorMapEncodeTiled, found at run time: the module links no driver */
typedef CUresult (*PFN_encode_map)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                   const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                   const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                   CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

struct slot_item; /* pack.cuh */
struct cuda_backend {
    struct backend base;
    cudaStream_t stream;
    cudaError_t failed; /* the first error, or cudaSuccess */
    const char *failed_at;
    int64_t calls, fail_call;  /* wrapped calls so far; the one that is made to fail, 0: none */
    int device;                /* its number */
    int processors;            /* multiprocessors of the device */
    bool bulk_copies, wgmma;   /* instructions it has: sm_90 and later, sm_90a alone */
    bool pdl;                  /* launch kernels before the one before has ended */
    bool kv_fp8;               /* K and V are E4M3, else BF16 */
    bool nvfp4_activations;    /* the inputs of NVFP4 stacks are rounded to NVFP4 */
    bool nvfp4_units;          /* and multiplied as they are: sm_120a alone */
    bool graphs;               /* decode steps become graphs */
    bool capturing, replaying; /* the running step: launches are recorded; are left to a graph */
    struct cuda_graph graph[MAX_GRAPHS], *current; /* current: of the running step, or NULL */
    int64_t steps;
    const void *known[KNOWN_KERNELS]; /* see gpu_know */
    struct step_limits limits;
    struct dev_batch batch;
    int32_t *host_batch, *dev_batch; /* pinned and device: all arrays of a step */
    struct cuda_slab slab[MAX_SLABS];
    int slabs;
    struct cuda_stage stage;
    float4 *sums; /* linear_many's, of segments */
    PFN_encode_map encode_map;
    uint16_t *changed;         /* act [rows, max_cols]: inputs as struct input_change has them */
    float *changed_multiplier; /* [rows] of them */
    /* scratch of the experts, by slots */
    float *moe_gate_up, *moe_slots;
    uint16_t *moe_inner, *moe_changed;
    float *moe_changed_multiplier;
    int32_t *moe_order;
    struct slot_item *moe_items;
    float *attention_spans;         /* scratch of attention */
    float *gdn_rows;                /* scratch of the gated delta nets */
    char *host_sample, *dev_sample; /* pinned and device: what the sampler is given, and scratch */
};

/* Keeps the first error and where it came from. */
static inline bool gpu_keep(struct cuda_backend *cuda, cudaError_t rc, const char *at) {
    if (rc == cudaSuccess) return true;
    if (cuda->failed == cudaSuccess) {
        cuda->failed = rc;
        cuda->failed_at = at;
    }
    return false;
}
/* Counts a wrapped call. True if it is the one that is made to fail. */
static inline bool gpu_fails(struct cuda_backend *cuda) {
    return ++cuda->calls == cuda->fail_call;
}
#define CUDA_STRING_(x) #x
#define CUDA_STRING(x)  CUDA_STRING_(x)
/* One call of the runtime; true if it worked. */
#define gpu_call(cuda, call)                                                                       \
    gpu_keep(cuda, gpu_fails(cuda) ? cudaErrorUnknown : (call),                                    \
             #call " (" __FILE__ ":" CUDA_STRING(__LINE__) ")")

/* Each kernel once: all take the largest share of shared memory. The split between it and L1 is the
 * multiprocessor's; a kernel with another one starts when the one before has left, and nothing
 * overlaps. */
static inline bool gpu_know(struct cuda_backend *cuda, const void *kernel) {
    size_t at = (size_t)kernel / 16 % KNOWN_KERNELS;
    for (int i = 0; i < KNOWN_KERNELS && cuda->known[at]; i++, at = (at + 1) % KNOWN_KERNELS)
        if (cuda->known[at] == kernel) return true;
    check(cuda->known[at] == NULL);
    cuda->known[at] = kernel;
    return gpu_call(cuda,
                    cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                         cudaSharedmemCarveoutMaxShared));
}

/* Launches kernel<<<grid, threads, shared>>>(args...) on the backend's stream. After a failure
 * nothing more is launched in a step: a kernel whose inputs were not made could leave its bounds,
 * and that would cost the device. */
template <class... P, class... A>
static void gpu_launch(struct cuda_backend *cuda, const char *name, void (*kernel)(P...), dim3 grid,
                       unsigned threads, size_t shared, A... args) {
    if (cuda->replaying || cuda->failed != cudaSuccess) return;
    if (!gpu_know(cuda, (const void *)kernel)) return;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = cuda->stream;
    config.attrs = &attribute;
    config.numAttrs = cuda->pdl;
    cudaError_t rc = gpu_fails(cuda) ? cudaErrorLaunchOutOfResources
                                     : cudaLaunchKernelEx(&config, kernel, P(args)...);
    gpu_keep(cuda, rc, name);
}
/* Allows a kernel that much dynamic shared memory; once, when memory is reserved. */
template <class K> static void gpu_allow_shared(struct cuda_backend *cuda, K kernel, size_t bytes) {
    gpu_call(cuda,
             cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
}

static inline struct cuda_backend *cuda_of(struct backend *be) {
    return (struct cuda_backend *)be;
}
static inline int cuda_rows(const struct cuda_backend *cuda, enum op_rows rows) {
    return rows == ROWS_OUT ? cuda->batch.out_rows : cuda->batch.rows;
}

static inline unsigned cuda_blocks(int64_t elements) { /* of ROW_THREADS threads */
    return (unsigned)((elements + ROW_THREADS - 1) / ROW_THREADS);
}

/* ---- device helpers ---- */

/* See the head of this file. */
__device__ __forceinline__ void depend_wait(void) {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void depend_release(void) {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ float warp_sum(float x) {
    for (int width = WARP / 2; width > 0; width /= 2) x += __shfl_xor_sync(~0u, x, width);
    return x;
}

/* The sum over a block of ROW_THREADS threads, to all of them. */
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float part[ROW_THREADS / WARP];
    x = warp_sum(x);
    __syncthreads(); /* part may still be read from the last time */
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = x;
    __syncthreads();
    float total = 0;
    for (int i = 0; i < ROW_THREADS / WARP; i++) total += part[i];
    return total;
}

/* 1 / sqrt(mean(x^2) + eps) of a row, by a block of ROW_THREADS threads, to all of them. */
__device__ __forceinline__ float row_scale(const float *x, int64_t cols, float eps) {
    float sum = 0;
    for (int64_t k = threadIdx.x; k < cols; k += ROW_THREADS) sum = __fmaf_rn(x[k], x[k], sum);
    return 1.0f / sqrtf(block_sum(sum) / (float)cols + eps);
}

__device__ __forceinline__ float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

/* f(gate) * up, as op_glu has it */
__device__ __forceinline__ float glu_value(enum glu_kind kind, float limit, float gate, float up) {
    switch (kind) {
    case GLU_SILU:
        return gate * sigmoid(gate) * up;
    case GLU_GELU_TANH: /* (1 + tanh u) / 2 is the sigmoid of 2u, and does not cancel */
        return gate * sigmoid(1.5957691216057308f * (gate + 0.044715f * gate * gate * gate)) * up;
    case GLU_CLAMPED:
        break;
    }
    gate = gate > limit ? limit : gate; /* a NaN stays one */
    up = up > limit ? limit : up < -limit ? -limit : up;
    return gate * sigmoid(1.702f * gate) * (up + 1.0f);
}

/* Element (row, k) without the multiplier: exact in fp32. */
__device__ __forceinline__ float weight_value(const struct dev_weight *w, int64_t row, int64_t k) {
    const int64_t i = row * w->cols + k;
    switch (w->format) {
    case WEIGHT_F32:
        return ((const float *)w->data)[i];
    case WEIGHT_F16:
        return fp16_decode(((const uint16_t *)w->data)[i]);
    case WEIGHT_BF16:
        return bf16_decode(((const uint16_t *)w->data)[i]);
    case WEIGHT_FP8: {
        float x = e4m3_decode(((const uint8_t *)w->data)[i]);
        if (w->scale)
            x *= w->scale[row / w->scale_rows * ((w->cols + w->scale_cols - 1) / w->scale_cols) +
                          k / w->scale_cols];
        return x;
    }
    case WEIGHT_NVFP4:
    case WEIGHT_MXFP4:
        break;
    }
    const uint8_t byte = ((const uint8_t *)w->data)[i / 2];
    const float code = e2m1_decode(k & 1 ? byte >> 4 : byte & 15);
    if (w->format == WEIGHT_NVFP4) return code * e4m3_decode(w->block_scale[i / 16]);
    return code * e8m0_decode(w->block_scale[i / 32]);
}

/* ---- entries of the op table, by file ---- */
/* upload.cu */
int cuda_matrix_create(struct backend *be, const struct weight *parts, int count,
                       const float *const *bias, struct matrix **out, struct imp_error *err);
void cuda_matrix_free(struct backend *be, struct matrix *matrix);
size_t cuda_matrix_bytes(struct backend *be, const struct weight *parts, int count);
int cuda_table_create(struct backend *be, const struct weight *weight, struct table **out,
                      struct imp_error *err);
void cuda_table_free(struct backend *be, struct table *table);
int cuda_experts_create(struct backend *be, struct matrix *const *gate_up,
                        struct matrix *const *down, int count, struct experts **out,
                        struct imp_error *err);
void cuda_experts_free(struct backend *be, struct experts *experts);
void stage_close(struct cuda_backend *cuda);
/* linear.cu */
size_t cuda_linear_bytes(const struct cuda_backend *cuda, const struct step_limits *max);
int cuda_linear_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                        struct imp_error *err);
void cuda_linear_release(struct cuda_backend *cuda);
void cuda_linear(struct backend *be, const struct op_linear *op);
void cuda_linear_glu(struct backend *be, const struct op_linear_glu *op);
/* rows.cu */
void cuda_embed(struct backend *be, const struct op_embed *op);
void cuda_norm(struct backend *be, const struct op_norm *op);
void cuda_convert(struct backend *be, const struct op_convert *op);
void cuda_post_norm(struct backend *be, const struct op_post_norm *op);
void cuda_rope_angles(struct backend *be, const struct op_rope_angles *op);
void cuda_glu(struct backend *be, const struct op_glu *op);
void cuda_glu_rows(struct cuda_backend *cuda, const struct op_glu *op, int64_t rows);
void cuda_softcap(struct backend *be, const struct op_softcap *op);
/* kv.cu */
void cuda_qkv(struct backend *be, const struct op_qkv *op);
/* attention.cu */
size_t cuda_attention_bytes(const struct step_limits *max);
int cuda_attention_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                           struct imp_error *err);
void cuda_attention_release(struct cuda_backend *cuda);
void cuda_attention(struct backend *be, const struct op_attention *op);
/* moe.cu */
size_t cuda_moe_bytes(const struct step_limits *max);
int cuda_moe_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                     struct imp_error *err);
void cuda_moe_release(struct cuda_backend *cuda);
void cuda_route(struct backend *be, const struct op_route *op);
void cuda_moe(struct backend *be, const struct op_moe *op);
/* sample.cu */
size_t cuda_sample_bytes(const struct step_limits *max);
int cuda_sample_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                        struct imp_error *err);
void cuda_sample_release(struct cuda_backend *cuda);
void cuda_sample(struct backend *be, const struct op_sample *op);
/* gdn.cu */
size_t cuda_gdn_state_bytes(struct backend *be, const struct gdn_shape *shape);
size_t cuda_gdn_bytes(const struct step_limits *max);
int cuda_gdn_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                     struct imp_error *err);
void cuda_gdn_release(struct cuda_backend *cuda);
void cuda_gdn(struct backend *be, const struct op_gdn *op);
/* graph.cu */
void graph_begin(struct cuda_backend *cuda, const struct batch *batch);
void graph_flush(struct cuda_backend *cuda);
void graph_drop(struct cuda_backend *cuda);
/* memory.cu */
void memory_close(struct cuda_backend *cuda);
int cuda_alloc(struct backend *be, size_t bytes, void **out, struct imp_error *err);
void cuda_free(struct backend *be, void *device);
/* device.cu */
int cuda_error(struct cuda_backend *cuda, struct imp_error *err); /* of what is kept */

#endif
