/* Host memory, the batch of the step, and the ops whose one form serves both CPU backends. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"

int cpu_alloc(struct backend *be, size_t bytes, void **out, struct imp_error *err) {
    (void)be;
    check(bytes < SIZE_MAX - CPU_ALIGN);
    *out = aligned_alloc(CPU_ALIGN, cpu_round_up(bytes));
    return *out ? 0 : error_memory(err, bytes);
}

void cpu_free(struct backend *be, void *device) {
    (void)be;
    free(device);
}

void cpu_write(struct backend *be, void *device, const void *host, size_t bytes) {
    (void)be;
    memcpy(device, host, bytes);
}

void cpu_read(struct backend *be, void *host, const void *device, size_t bytes) {
    (void)be;
    memcpy(host, device, bytes);
}

size_t cpu_scratch_bytes(struct backend *be, const struct step_limits *max) {
    return (size_t)max->vocab * (sizeof(float) + sizeof(int32_t)) + cpu_moe_scratch_bytes(be, max) +
           cpu_input_scratch_bytes(be, max);
}

int cpu_reserve(struct cpu_backend *cpu, const struct step_limits *max, struct imp_error *err) {
    free(cpu->sample_logits);
    free(cpu->sample_ids);
    cpu->sample_logits = malloc((size_t)max->vocab * sizeof(float));
    cpu->sample_ids = malloc((size_t)max->vocab * sizeof(int32_t));
    cpu->sample_ids_count = max->vocab;
    if (cpu->sample_logits == NULL || cpu->sample_ids == NULL)
        return error_memory(err, cpu_scratch_bytes(&cpu->base, max));
    int rc = cpu_input_reserve(cpu, max, err);
    return rc < 0 ? rc : cpu_moe_reserve(cpu, max, err);
}

void cpu_close(struct cpu_backend *cpu) {
    pool_destroy(cpu->pool);
    cpu_moe_release(cpu);
    cpu_input_release(cpu);
    free(cpu->sample_logits);
    free(cpu->sample_ids);
}

int cpu_table_create(struct backend *be, const struct weight *weight, struct table **out,
                     struct imp_error *err) {
    (void)be;
    (void)err;
    struct cpu_table *table = mem_zero(1, sizeof *table);
    table->base =
        (struct table){weight->rows, weight->cols, 0}; /* borrowed: no memory of its own */
    table->weight = *weight;
    *out = &table->base;
    return 0;
}

void cpu_table_free(struct backend *be, struct table *table) {
    (void)be;
    free(table);
}

void cpu_step_begin(struct backend *be, const struct batch *batch) {
    ((struct cpu_backend *)be)->batch = *batch;
}

int cpu_step_end(struct backend *be, struct imp_error *err) {
    (void)err; /* nothing on the host can fail late */
    ((struct cpu_backend *)be)->batch = (struct batch){0};
    return 0;
}

void cpu_embed(struct backend *be, const struct op_embed *op) {
    const struct batch *batch = &((struct cpu_backend *)be)->batch;
    const struct weight *weight = &((const struct cpu_table *)op->table)->weight;
    for (int r = 0; r < batch->rows; r++) {
        check(batch->token[r] >= 0 && batch->token[r] < weight->rows);
        float *h = op->h + (int64_t)r * weight->cols;
        weight_dequantize_row(weight, batch->token[r], h);
        if (op->scale == 1.0f) continue;
        for (int64_t k = 0; k < weight->cols; k++) h[k] *= op->scale;
    }
}

void cpu_rope_angles(struct backend *be, const struct op_rope_angles *op) {
    const struct batch *batch = &((struct cpu_backend *)be)->batch;
    for (int r = 0; r < batch->rows; r++) {
        float *out = op->out + (int64_t)r * op->pairs * 2;
        for (int i = 0; i < op->pairs; i++) {
            float angle = (float)batch->position[r] * op->frequency[i];
            out[2 * i] = op->amplitude * cosf(angle);
            out[2 * i + 1] = op->amplitude * sinf(angle);
        }
    }
}

/* One op after the other: y stays in the caches. */
void cpu_linear_glu(struct backend *be, const struct op_linear_glu *op) {
    be->ops->linear(be, &(struct op_linear){ROWS_ALL, LINEAR_STORE, op->matrix, op->x, op->y});
    be->ops->glu(be, &op->glu);
}
