/* A mixture of experts on a CPU: the rows that chose an expert go through it together, so that its
 * weights are read once; then every row's slots are added in their order. Experts are taken in
 * groups, since a loop over one is too short for many threads.
 *
 * A row's result is the linears' own, which do not depend on the companions of a row. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/caps.h"
#include "base/error.h"
#include "base/str.h"

enum { LANES = 16, PIECE = 512 };
/* A group has enough rows to occupy the threads, few enough to stay in a second-level cache. */
enum { GROUP_ROWS = 64 };

struct cpu_experts {
    struct experts base;
    struct matrix **gate_up, **down; /* [count] */
};

/* Rows of experts stand in the order of the experts: `place` says where slot i of row r, number
 * r * top_k + i, stands, and `order` which number stands where. x, a and gate_up hold the rows of
 * one group of experts, which may be all. */
struct cpu_moe {
    uint8_t *x, *a; /* act [rows * top_k, hidden], [rows * top_k, width] */
    float *gate_up; /* [rows * top_k, 2 width] */
    float *slots;   /* [rows * top_k, hidden] what the experts give */
    int32_t *order, *place;
    int rows, top_k; /* that all this is for */
    int64_t width, hidden;
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
    size_t x, a, gate_up, slots, numbers;
};

static struct moe_sizes moe_sizes(struct backend *be, const struct step_limits *max) {
    const size_t slots = (size_t)max->rows * (size_t)max->moe_top_k;
    return (struct moe_sizes){
        .x = cpu_round_up(slots * be->ops->act_bytes(be, max->moe_hidden)),
        .a = cpu_round_up(slots * be->ops->act_bytes(be, max->moe_width)),
        .gate_up = cpu_round_up(slots * 2 * (size_t)max->moe_width * sizeof(float)),
        .slots = cpu_round_up(slots * (size_t)max->moe_hidden * sizeof(float)),
        .numbers = cpu_round_up(slots * sizeof(int32_t)),
    };
}

static size_t moe_bytes(const struct moe_sizes *s) {
    return s->x + s->a + s->gate_up + s->slots + 2 * s->numbers;
}

size_t cpu_moe_scratch_bytes(struct backend *be, const struct step_limits *max) {
    if (max->moe_top_k == 0) return 0;
    struct moe_sizes s = moe_sizes(be, max);
    return sizeof(struct cpu_moe) + moe_bytes(&s);
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
    uint8_t *p = aligned_alloc(CPU_ALIGN, moe_bytes(&s));
    if (p == NULL) return error_memory(err, cpu_moe_scratch_bytes(&cpu->base, max));
    cpu->moe = mem_zero(1, sizeof *cpu->moe);
    cpu->moe->x = p;
    cpu->moe->a = p += s.x;
    cpu->moe->gate_up = (float *)(void *)(p += s.a);
    cpu->moe->slots = (float *)(void *)(p += s.gate_up);
    cpu->moe->order = (int32_t *)(void *)(p += s.slots);
    cpu->moe->place = (int32_t *)(void *)(p + s.numbers);
    cpu->moe->rows = max->rows;
    cpu->moe->top_k = max->moe_top_k;
    cpu->moe->width = max->moe_width;
    cpu->moe->hidden = max->moe_hidden;
    return 0;
}

/* ---- the op ---- */

/* Experts first .. last - 1, those of them that have rows: at most LINEAR_GROUP. */
struct group {
    int count, rows;
    int32_t begin;                 /* the first of its rows in slots */
    int expert[LINEAR_GROUP];      /* which */
    int expert_rows[LINEAR_GROUP]; /* rows of each */
};

/* Fills order and place; begin[e]: where expert e's rows stand, begin[count] the end. */
static void sort_slots(const struct cpu_backend *cpu, const struct op_moe *op, int32_t *begin) {
    const int count = op->experts->count, slots = cpu->batch.rows * op->top_k;
    struct cpu_moe *m = cpu->moe;
    memset(begin, 0, (size_t)(count + 1) * sizeof *begin);
    for (int i = 0; i < slots; i++) {
        check(op->expert[i] >= 0 && op->expert[i] < count);
        begin[op->expert[i] + 1]++;
    }
    for (int e = 0; e < count; e++) begin[e + 1] += begin[e];
    for (int i = 0; i < slots; i++) {
        int32_t at = begin[op->expert[i]]++;
        m->order[at] = i;
        m->place[i] = at;
    }
    for (int e = count; e > 0; e--) begin[e] = begin[e - 1]; /* each had moved to the next one's */
    begin[0] = 0;
}

/* The rows of x that one expert is for, together; one row stays where it is. */
static const void *gather(const struct cpu_backend *cpu, const struct op_moe *op, int32_t begin,
                          int rows, uint8_t *to) {
    const size_t bytes =
        cpu->base.ops->act_bytes((struct backend *)(uintptr_t)&cpu->base, op->experts->hidden);
    const int32_t *order = cpu->moe->order + begin;
    if (rows == 1) return (const uint8_t *)op->x + (size_t)(order[0] / op->top_k) * bytes;
    for (int i = 0; i < rows; i++)
        memcpy(to + (size_t)i * bytes,
               (const uint8_t *)op->x + (size_t)(order[i] / op->top_k) * bytes, bytes);
    return to;
}

static void run_group(struct cpu_backend *cpu, const struct op_moe *op, const struct group *group) {
    struct cpu_moe *m = cpu->moe;
    struct backend *be = &cpu->base;
    const struct cpu_experts *experts = (const struct cpu_experts *)op->experts;
    const int64_t width = op->experts->width, hidden = op->experts->hidden;
    const size_t x_bytes = be->ops->act_bytes(be, hidden), a_bytes = be->ops->act_bytes(be, width);
    struct op_linear up[LINEAR_GROUP], down[LINEAR_GROUP];
    int32_t at = 0;
    for (int i = 0; i < group->count; at += group->expert_rows[i++]) {
        const int e = group->expert[i];
        up[i] = (struct op_linear){
            .matrix = experts->gate_up[e],
            .x = gather(cpu, op, group->begin + at, group->expert_rows[i],
                        m->x + (size_t)at * x_bytes),
            .y = m->gate_up + at * 2 * width,
        };
        down[i] = (struct op_linear){
            .matrix = experts->down[e],
            .x = m->a + (size_t)at * a_bytes,
            .y = m->slots + (group->begin + at) * hidden,
        };
    }
    const struct op_glu glu = {.kind = op->kind,
                               .limit = op->limit,
                               .gate = m->gate_up,
                               .up = m->gate_up + (op->interleaved ? 1 : width),
                               .gate_row = 2 * width,
                               .up_row = 2 * width,
                               .step = op->interleaved ? 2 : 1,
                               .cols = width,
                               .out = m->a};
    cpu->hooks->linears(cpu, up, group->expert_rows, group->count);
    cpu->hooks->glu(cpu, &glu, group->rows);
    cpu->hooks->linears(cpu, down, group->expert_rows, group->count);
    for (int i = 0; op->inner && i < group->rows; i++)
        memcpy((uint8_t *)op->inner + (size_t)m->order[group->begin + i] * a_bytes,
               m->a + (size_t)i * a_bytes, a_bytes);
}

struct combine_job {
    struct cpu_backend *cpu;
    const struct op_moe *op;
    int pieces; /* of a row */
};

/* sum[k] += w * x[k]; whole lanes apart, as cpu_dot has them. */
VECTOR_CLONES static void add_scaled(float *restrict sum, const float *restrict x, float w,
                                     int64_t n) {
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES) {
        for (int i = 0; i < LANES; i++) sum[k + i] += w * x[k + i];
    }
    for (; k < n; k++) sum[k] += w * x[k];
}

static void combine(void *ctx, int task, int thread) {
    (void)thread;
    const struct combine_job *job = ctx;
    const struct op_moe *op = job->op;
    const int64_t hidden = op->experts->hidden, row = task / job->pieces,
                  first = task % job->pieces * (int64_t)PIECE;
    const int64_t count = hidden - first < PIECE ? hidden - first : PIECE;
    const float *weight = op->weight + row * op->top_k;
    const int32_t *place = job->cpu->moe->place + row * op->top_k;
    float *y = op->y + row * hidden + first, sum[PIECE] = {0};
    for (int i = 0; i < op->top_k; i++)
        add_scaled(sum, job->cpu->moe->slots + place[i] * hidden + first, weight[i], count);
    for (int64_t k = 0; k < count; k++) y[k] = op->mode == LINEAR_ADD ? y[k] + sum[k] : sum[k];
}

void cpu_moe(struct backend *be, const struct op_moe *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    const struct cpu_moe *m = cpu->moe;
    const int count = op->experts->count;
    int32_t begin[CAP_EXPERTS + 1];
    struct combine_job job = {cpu, op, (int)((op->experts->hidden + PIECE - 1) / PIECE)};
    check(m != NULL && count <= CAP_EXPERTS && op->top_k <= m->top_k && cpu->batch.rows <= m->rows);
    check(op->experts->width <= m->width && op->experts->hidden <= m->hidden);
    sort_slots(cpu, op, begin);
    for (int e = 0; e < count;) {
        struct group group = {.begin = begin[e]};
        for (; e < count && group.count < LINEAR_GROUP && group.rows < GROUP_ROWS; e++) {
            int rows = begin[e + 1] - begin[e];
            if (rows == 0) continue;
            group.expert[group.count] = e;
            group.expert_rows[group.count++] = rows;
            group.rows += rows;
        }
        if (group.count > 0) run_group(cpu, op, &group);
    }
    pool_run(cpu->pool, combine, &job, cpu->batch.rows * job.pieces);
}
