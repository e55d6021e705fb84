/* A mixture of experts on a CPU: expert by expert, over the rows that chose it, so that each
 * expert's weights are read once; then every row's slots are added in their order.
 *
 * A row's result is the linears' own, which do not depend on the companions of a row. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/error.h"
#include "base/str.h"

enum { ALIGN = 64 };

struct cpu_experts {
    struct experts base;
    struct matrix **gate_up, **down; /* [count] */
};

struct cpu_moe {
    uint8_t *x, *a;  /* act [rows, hidden], [rows, width]: the rows of one expert */
    float *gate_up;  /* [rows, 2 width] */
    float *y;        /* [rows, hidden] */
    float *slots;    /* [rows, top_k, hidden] */
    int32_t *chosen; /* [rows] index into slots of each row of x */
};

int cpu_experts_create(struct backend *be, struct matrix *const *gate_up,
                       struct matrix *const *down, int count, struct experts **out,
                       struct imp_error *err) {
    (void)be;
    (void)err;
    struct cpu_experts *e = mem_zero(1, sizeof *e);
    e->base = (struct experts){.count = count, .width = down[0]->cols, .hidden = down[0]->rows};
    e->gate_up = mem_zero((size_t)count, sizeof *e->gate_up);
    e->down = mem_zero((size_t)count, sizeof *e->down);
    for (int i = 0; i < count; i++) {
        check(down[i]->cols == e->base.width && down[i]->rows == e->base.hidden);
        check(gate_up[i]->cols == e->base.hidden && gate_up[i]->rows == 2 * e->base.width);
        e->gate_up[i] = gate_up[i];
        e->down[i] = down[i];
        e->base.bytes += gate_up[i]->bytes + down[i]->bytes;
    }
    *out = &e->base;
    return 0;
}

void cpu_experts_free(struct backend *be, struct experts *experts) {
    if (experts == NULL) return;
    struct cpu_experts *e = (struct cpu_experts *)experts;
    for (int i = 0; i < e->base.count; i++) {
        be->ops->matrix_free(be, e->gate_up[i]);
        be->ops->matrix_free(be, e->down[i]);
    }
    free(e->gate_up);
    free(e->down);
    free(e);
}

/* ---- scratch ---- */

struct moe_sizes {
    size_t x, a, gate_up, y, slots, chosen;
};

static size_t round_up(size_t bytes) {
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static struct moe_sizes moe_sizes(struct backend *be, const struct step_limits *max) {
    const size_t rows = (size_t)max->rows, hidden = (size_t)max->moe_hidden;
    return (struct moe_sizes){
        .x = round_up(rows * be->ops->act_bytes(be, max->moe_hidden)),
        .a = round_up(rows * be->ops->act_bytes(be, max->moe_width)),
        .gate_up = round_up(rows * 2 * (size_t)max->moe_width * sizeof(float)),
        .y = round_up(rows * hidden * sizeof(float)),
        .slots = round_up(rows * (size_t)max->moe_top_k * hidden * sizeof(float)),
        .chosen = round_up(rows * sizeof(int32_t)),
    };
}

size_t cpu_moe_scratch_bytes(struct backend *be, const struct step_limits *max) {
    if (max->moe_top_k == 0) return 0;
    struct moe_sizes s = moe_sizes(be, max);
    return sizeof(struct cpu_moe) + s.x + s.a + s.gate_up + s.y + s.slots + s.chosen;
}

void cpu_moe_release(struct cpu_backend *cpu) {
    if (cpu->moe == NULL) return;
    free(cpu->moe->x);
    free(cpu->moe);
    cpu->moe = NULL;
}

int cpu_moe_reserve(struct cpu_backend *cpu, const struct step_limits *max, struct imp_error *err) {
    cpu_moe_release(cpu);
    if (max->moe_top_k == 0) return 0;
    struct moe_sizes s = moe_sizes(&cpu->base, max);
    cpu->moe = mem_zero(1, sizeof *cpu->moe);
    uint8_t *p = aligned_alloc(ALIGN, s.x + s.a + s.gate_up + s.y + s.slots + s.chosen);
    if (p == NULL) return error_memory(err, cpu_moe_scratch_bytes(&cpu->base, max));
    cpu->moe->x = p;
    cpu->moe->a = p += s.x;
    cpu->moe->gate_up = (float *)(void *)(p += s.a);
    cpu->moe->y = (float *)(void *)(p += s.gate_up);
    cpu->moe->slots = (float *)(void *)(p += s.y);
    cpu->moe->chosen = (int32_t *)(void *)(p + s.slots);
    return 0;
}

/* ---- the op ---- */

/* The rows that chose expert e, to x; how many. */
static int gather(const struct cpu_backend *cpu, const struct op_moe *op, int e) {
    struct cpu_moe *m = cpu->moe;
    const size_t row_bytes =
        cpu->base.ops->act_bytes((struct backend *)(uintptr_t)&cpu->base, op->experts->hidden);
    int rows = 0;
    for (int32_t i = 0; i < cpu->batch.rows * op->top_k; i++) {
        if (op->expert[i] != e) continue;
        memcpy(m->x + (size_t)rows * row_bytes,
               (const uint8_t *)op->x + (size_t)(i / op->top_k) * row_bytes, row_bytes);
        m->chosen[rows++] = i;
    }
    return rows;
}

static void run_expert(struct cpu_backend *cpu, const struct op_moe *op, int e, int rows) {
    struct cpu_moe *m = cpu->moe;
    const struct cpu_experts *experts = (const struct cpu_experts *)op->experts;
    const int64_t width = op->experts->width, hidden = op->experts->hidden;
    cpu->hooks->linear(
        cpu,
        &(struct op_linear){
            .mode = LINEAR_STORE, .matrix = experts->gate_up[e], .x = m->x, .y = m->gate_up},
        rows);
    cpu->hooks->glu(cpu,
                    &(struct op_glu){.kind = op->kind,
                                     .limit = op->limit,
                                     .gate = m->gate_up,
                                     .up = m->gate_up + (op->interleaved ? 1 : width),
                                     .gate_row = 2 * width,
                                     .up_row = 2 * width,
                                     .step = op->interleaved ? 2 : 1,
                                     .cols = width,
                                     .out = m->a},
                    rows);
    cpu->hooks->linear(
        cpu,
        &(struct op_linear){.mode = LINEAR_STORE, .matrix = experts->down[e], .x = m->a, .y = m->y},
        rows);
    for (int i = 0; i < rows; i++)
        memcpy(m->slots + m->chosen[i] * hidden, m->y + i * hidden, (size_t)hidden * sizeof(float));
    const size_t inner_bytes = cpu->base.ops->act_bytes(&cpu->base, width);
    for (int i = 0; op->inner && i < rows; i++)
        memcpy((uint8_t *)op->inner + (size_t)m->chosen[i] * inner_bytes,
               m->a + (size_t)i * inner_bytes, inner_bytes);
}

struct combine_job {
    struct cpu_backend *cpu;
    const struct op_moe *op;
};

static void combine_row(void *ctx, int row, int thread) {
    (void)thread;
    const struct combine_job *job = ctx;
    const struct op_moe *op = job->op;
    const int64_t hidden = op->experts->hidden;
    const float *slots = job->cpu->moe->slots + row * op->top_k * hidden;
    const float *weight = op->weight + (int64_t)row * op->top_k;
    float *y = op->y + row * hidden;
    for (int64_t k = 0; k < hidden; k++) {
        float sum = 0;
        for (int i = 0; i < op->top_k; i++) sum += weight[i] * slots[i * hidden + k];
        y[k] = op->mode == LINEAR_ADD ? y[k] + sum : sum;
    }
}

void cpu_moe(struct backend *be, const struct op_moe *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    check(cpu->moe != NULL);
    for (int e = 0; e < op->experts->count; e++) {
        int rows = gather(cpu, op, e);
        if (rows > 0) run_expert(cpu, op, e, rows);
    }
    pool_run(cpu->pool, combine_row, &(struct combine_job){cpu, op}, cpu->batch.rows);
}
