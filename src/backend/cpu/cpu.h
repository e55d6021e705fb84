/* What the two CPU backends share: the head of the object, host memory, the batch, the sampler.
 *
 * reference/ is plain loops in fp32, one obvious way to write each op; fast/ is written for the
 * machine. fast/ may not call reference/ nor the other way round; both may call what is here. */
#ifndef IMP_BACKEND_CPU_CPU_H
#define IMP_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "base/thread.h"

struct cpu_backend {
    struct backend base;
    struct pool *pool;
    struct batch batch; /* of the running step; arrays live in the caller's memory until step_end */
    bool round_bf16;
    float *sample_logits; /* [sample_ids_count] scratch of the sampler */
    int32_t *sample_ids;
    int64_t sample_ids_count;
};

int cpu_reference_open(const struct backend_options *options, struct backend **out,
                       struct imp_error *err);
int cpu_fast_open(const struct backend_options *options, struct backend **out,
                  struct imp_error *err);

/* What every CPU backend reserves: the sampler's scratch. */
size_t cpu_scratch_bytes(const struct step_limits *max);
int cpu_reserve(struct cpu_backend *cpu, const struct step_limits *max, struct imp_error *err);
/* Ends the pool and frees what is above; the caller frees the object itself. */
void cpu_close(struct cpu_backend *cpu);

/* Shared entries of the op table. */
int cpu_alloc(struct backend *be, size_t bytes, void **out, struct imp_error *err);
void cpu_free(struct backend *be, void *device);
void cpu_write(struct backend *be, void *device, const void *host, size_t bytes);
void cpu_read(struct backend *be, void *host, const void *device, size_t bytes);
int cpu_table_create(struct backend *be, const struct weight *weight, struct table **out,
                     struct imp_error *err);
void cpu_table_free(struct backend *be, struct table *table);
void cpu_step_begin(struct backend *be, const struct batch *batch);
int cpu_step_end(struct backend *be, struct imp_error *err);
void cpu_embed(struct backend *be, const struct op_embed *op);
void cpu_rope_angles(struct backend *be, const struct op_rope_angles *op);
void cpu_sample(struct backend *be, const struct op_sample *op);

/* Rows that an op works on. */
static inline int cpu_rows(const struct cpu_backend *cpu, enum op_rows rows) {
    return rows == ROWS_OUT ? cpu->batch.out_rows : cpu->batch.rows;
}

struct cpu_table {
    struct table base;
    struct weight weight;
};

#endif
