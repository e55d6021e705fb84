/* The object of the fast CPU backend, and the choice of an instruction set. */
#include "backend/cpu/fast/fast.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "num/fp.h"

static size_t fast_act_bytes(struct backend *be, int64_t cols) {
    (void)be;
    return (size_t)act_stride(cols) * sizeof(uint16_t);
}

static void fast_act_read(struct backend *be, const void *act, int rows, int64_t cols,
                          float *host) {
    (void)be;
    for (int64_t r = 0; r < rows; r++) {
        const uint16_t *row = (const uint16_t *)act + r * act_stride(cols);
        for (int64_t k = 0; k < cols; k++) host[r * cols + k] = bf16_decode(row[k]);
    }
}

static size_t fast_kv_block_bytes(struct backend *be, int kv_heads, int head_dim) {
    (void)be;
    return (size_t)kv_heads * (size_t)kv_head_stride(head_dim) * sizeof(uint16_t);
}

/* Of one thread: attention's accumulators. */
static size_t scratch_stride(const struct step_limits *max) {
    return (fast_attention_scratch(max->max_head_dim) + ALIGN_BYTES - 1) / ALIGN_BYTES *
           ALIGN_BYTES;
}

static size_t fast_scratch_bytes(struct backend *be, const struct step_limits *max) {
    size_t threads = (size_t)pool_threads(((struct cpu_backend *)be)->pool);
    return cpu_scratch_bytes(be, max) + threads * scratch_stride(max);
}

static int fast_reserve(struct backend *be, const struct step_limits *max, struct imp_error *err) {
    struct fast_backend *fast = (struct fast_backend *)be;
    size_t threads = (size_t)pool_threads(fast->cpu.pool);
    free(fast->scratch);
    fast->scratch_stride = scratch_stride(max);
    fast->scratch = aligned_alloc(ALIGN_BYTES, threads * fast->scratch_stride);
    if (fast->scratch == NULL) return error_memory(err, fast_scratch_bytes(be, max));
    return cpu_reserve(&fast->cpu, max, err);
}

static void fast_destroy(struct backend *be) {
    struct fast_backend *fast = (struct fast_backend *)be;
    free(fast->scratch);
    cpu_close(&fast->cpu);
    free(fast);
}

static const struct backend_ops FAST_OPS = {
    .destroy = fast_destroy,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .write = cpu_write,
    .read = cpu_read,
    .matrix_create = fast_matrix_create,
    .matrix_free = fast_matrix_free,
    .matrix_bytes = fast_matrix_bytes,
    .table_create = cpu_table_create,
    .table_free = cpu_table_free,
    .experts_create = cpu_experts_create,
    .experts_free = cpu_experts_free,
    .act_bytes = fast_act_bytes,
    .act_read = fast_act_read,
    .kv_block_bytes = fast_kv_block_bytes,
    .gdn_state_bytes = cpu_gdn_state_bytes,
    .scratch_bytes = fast_scratch_bytes,
    .reserve = fast_reserve,
    .step_begin = cpu_step_begin,
    .step_end = cpu_step_end,
    .embed = cpu_embed,
    .norm = fast_norm,
    .convert = cpu_convert,
    .post_norm = cpu_post_norm,
    .linear = fast_linear,
    .linear_glu = cpu_linear_glu,
    .rope_angles = cpu_rope_angles,
    .qkv = fast_qkv,
    .attention = fast_attention,
    .glu = fast_glu,
    .route = cpu_route,
    .moe = cpu_moe,
    .gdn = cpu_gdn,
    .softcap = cpu_softcap,
    .sample = cpu_sample,
};

/* Instruction sets, the best first. The processor and the system must both have it: the compiler's
 * run-time asks XCR0 too. Clang 14 cannot ask for F16C; every processor with AVX2 has it. */
static const struct fast_kernels *find_kernels(const char *isa, bool *known) {
    const struct fast_kernels *found = NULL;
    struct {
        const struct fast_kernels *kernels;
        bool usable;
    } all[] = {
#if defined(__x86_64__)
        {&fast_kernels_avx512,
         __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512bf16")},
        {&fast_kernels_avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                                 __builtin_cpu_supports("bmi2")},
#endif
        {&fast_kernels_portable, true},
    };
    *known = isa == NULL;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        bool asked = isa == NULL || strcmp(isa, all[i].kernels->name) == 0;
        *known |= asked;
        if (asked && all[i].usable && found == NULL) found = all[i].kernels;
    }
    return found;
}

int cpu_fast_open(const struct backend_options *options, struct backend **out,
                  struct imp_error *err) {
    bool known;
    const struct fast_kernels *kernels = find_kernels(options->isa, &known);
    if (!known)
        return error_set(err, IMP_ERR_USAGE, NULL,
                         "no instruction set \"%s\": avx512, avx2 or portable", options->isa);
    if (kernels == NULL)
        return error_set(err, IMP_ERR_UNSUPPORTED, NULL,
                         "this processor or system does not have what \"%s\" needs", options->isa);
    struct fast_backend *fast = mem_zero(1, sizeof *fast);
    fast->cpu.base.ops = &FAST_OPS;
    fast->cpu.hooks = &kernels->hooks;
    fast->cpu.round_bf16 = true;
    fast->cpu.nvfp4_activations = options->nvfp4_activations;
    fast->kernels = kernels;
    int rc = pool_create(options->threads, &fast->cpu.pool, err);
    if (rc < 0) {
        free(fast);
        return rc;
    }
    snprintf(fast->cpu.base.name, sizeof fast->cpu.base.name, "cpu, %s, %d thread%s",
             kernels->title, options->threads, options->threads == 1 ? "" : "s");
    *out = &fast->cpu.base;
    return 0;
}
