/* Attention's tasks: a tile of rows by a kv head. The query heads of a kv head, and rows of one
 * sequence that see the same positions of a KV block, share the reading of it; where a row's own
 * edge runs through the block it goes alone. */
#include <math.h>
#include <string.h>

#include "backend/cpu/fast/fast.h"
#include "base/error.h"

/* Below this many positions one row is not worth waking the pool for. */
enum { ALONE_POSITIONS = 2 * KV_BLOCK_TOKENS };

struct attend_job {
    struct fast_backend *fast;
    const struct op_attention *op;
    int tile_rows, tiles;
};

/* Rows first .. first + rows - 1, of one sequence, by query heads head .. head + heads - 1 of one
 * kv head; rows * heads <= ATTEND_ROWS. */
struct attend_run {
    int first, rows, head, heads, kv_head;
};

size_t fast_attention_scratch(int max_head_dim) {
    return ATTEND_ROWS * (size_t)value_stride(max_head_dim) * sizeof(float);
}

/* Positions lo <= i < hi of a block that the row sees. */
struct span {
    int lo, hi;
};
static struct span visible(const struct op_attention *op, int position, int block) {
    int64_t start = (int64_t)block * KV_BLOCK_TOKENS, lo = -start, hi = position + 1 - start;
    if (op->window > 0 && position >= op->window) lo = position - op->window + 1 - start;
    if (lo < 0) lo = 0;
    if (hi > KV_BLOCK_TOKENS) hi = KV_BLOCK_TOKENS;
    if (lo > KV_BLOCK_TOKENS) lo = KV_BLOCK_TOKENS;
    return (struct span){(int)lo, hi < lo ? (int)lo : (int)hi};
}

static void attend_block(const struct attend_job *job, const struct attend_run *run, int block,
                         struct attend_query *const *query, struct attend_part *part) {
    const int32_t *position = job->fast->cpu.batch.position + run->first;
    for (int row = 0; row < run->rows;) {
        struct span span = visible(job->op, position[row], block);
        int end = row + 1;
        for (; end < run->rows; end++) {
            struct span next = visible(job->op, position[end], block);
            if (next.lo != span.lo || next.hi != span.hi) break;
        }
        part->lo = span.lo;
        part->hi = span.hi;
        if (span.lo < span.hi)
            job->fast->kernels->attend(query + row * run->heads, (end - row) * run->heads, part);
        row = end;
    }
}

static void attend_rows(const struct attend_job *job, const struct attend_run *run, float *o) {
    const struct op_attention *op = job->op;
    const struct batch *batch = &job->fast->cpu.batch;
    const int d = op->head_dim, count = run->rows * run->heads;
    const int64_t stride = act_stride((int64_t)op->heads * d);
    struct attend_query query[ATTEND_ROWS], *order[ATTEND_ROWS];
    for (int i = 0; i < count; i++) {
        int64_t row = run->first + i / run->heads, head = run->head + i % run->heads;
        const uint16_t *q = (const uint16_t *)op->q + row * stride + head * d;
        query[i] = (struct attend_query){.q = (const uint32_t *)(const void *)q,
                                         .o = o + i * value_stride(d),
                                         .m = -INFINITY,
                                         .sink = op->sinks ? op->sinks[head] : -INFINITY};
        if (op->gate) query[i].gate = op->gate + row * op->gate_row + head * op->gate_step;
        order[i] = &query[i];
    }
    memset(o, 0, (size_t)(count * value_stride(d)) * sizeof *o);
    const int first = batch->position[run->first];
    const int last = batch->position[run->first + run->rows - 1];
    int block =
        op->window > 0 && first >= op->window ? (first - op->window + 1) / KV_BLOCK_TOKENS : 0;
    for (; block <= last / KV_BLOCK_TOKENS; block++) {
        int32_t physical =
            batch->blocks[op->group][(int64_t)batch->seq[run->first] * batch->max_blocks + block];
        const uint16_t *kv = kv_head_at(op->kv, physical, op->kv_heads, run->kv_head, d);
        struct attend_part part = {.k = (const uint32_t *)(const void *)kv,
                                   .v = kv + d * KV_BLOCK_TOKENS,
                                   .head_dim = d,
                                   .softcap = op->softcap};
        attend_block(job, run, block, order, &part);
    }
    for (int i = 0; i < count; i++) {
        int64_t row = run->first + i / run->heads, head = run->head + i % run->heads;
        job->fast->kernels->attend_finish(&query[i], d,
                                          (uint16_t *)op->out + row * stride + head * d);
    }
}

/* The longest tiles come last in a prompt, so they are handed out first. */
static void attend_task(void *ctx, int task, int thread) {
    const struct attend_job *job = ctx;
    const struct op_attention *op = job->op;
    const struct batch *batch = &job->fast->cpu.batch;
    const int group = op->heads / op->kv_heads, tile = job->tiles - 1 - task / op->kv_heads;
    struct attend_run run = {.first = tile * job->tile_rows, .kv_head = task % op->kv_heads};
    int end = run.first + job->tile_rows < batch->rows ? run.first + job->tile_rows : batch->rows;
    uint8_t *scratch = job->fast->scratch + (size_t)thread * job->fast->scratch_stride;
    for (; run.first < end; run.first += run.rows) {
        run.rows = 1;
        while (run.first + run.rows < end &&
               batch->seq[run.first + run.rows] == batch->seq[run.first])
            run.rows++;
        for (int head = 0; head < group; head += ATTEND_ROWS) {
            run.head = run.kv_head * group + head;
            run.heads = group - head < ATTEND_ROWS ? group - head : ATTEND_ROWS;
            attend_rows(job, &run, (float *)(void *)scratch);
        }
    }
}

static void clear_padding(const struct op_attention *op, int rows) {
    const int64_t cols = (int64_t)op->heads * op->head_dim, stride = act_stride(cols);
    for (int64_t row = 0; row < rows; row++) {
        memset((uint16_t *)op->out + row * stride + cols, 0,
               (size_t)(stride - cols) * sizeof(uint16_t));
    }
}

void fast_attention(struct backend *be, const struct op_attention *op) {
    struct attend_job job = {.fast = (struct fast_backend *)be, .op = op};
    const struct batch *batch = &job.fast->cpu.batch;
    const int group = op->heads / op->kv_heads;
    check(op->heads % op->kv_heads == 0);
    check(fast_attention_scratch(op->head_dim) <= job.fast->scratch_stride);
    job.tile_rows = group >= ATTEND_ROWS ? 1 : ATTEND_ROWS / group;
    job.tiles = (batch->rows + job.tile_rows - 1) / job.tile_rows;
    clear_padding(op, batch->rows);
    if (batch->rows == 1 && batch->position[0] < ALONE_POSITIONS) {
        for (int i = 0; i < op->kv_heads; i++) attend_task(&job, i, 0);
        return;
    }
    pool_run(job.fast->cpu.pool, attend_task, &job, job.tiles * op->kv_heads);
}
