/* Cuts a linear into tasks: runs of row blocks by tiles of rows of x. The cut never shows in the
 * result, since a task holds whole outputs. */
#include "backend/cpu/fast/fast.h"
#include "base/error.h"

/* Blocks of one task: enough to be worth handing out, few enough that the threads end together. */
enum { ROW_TASK_MIN = 4, ROW_TASK_MAX = 16, TILE_TASK_BLOCKS = 8 };
/* Rows are cut in multiples of every LINEAR_TILE_ROWS there is. */
enum { TILE_STEP = 12 };

struct linear_job {
    const struct op_linear *op;
    int rows, tile_rows;
    int64_t first_task, task_blocks, block_tasks; /* block_tasks: of one tile */
};
/* Several linears as one loop. */
struct linear_jobs {
    struct fast_backend *fast;
    int count;
    struct linear_job job[LINEAR_GROUP];
};

/* Blocks first .. last - 1 of the matrix, part by part. */
static void linear_run(void *ctx, int index, int thread) {
    (void)thread;
    const struct linear_jobs *jobs = ctx;
    const struct linear_job *job = jobs->job;
    while (job + 1 < jobs->job + jobs->count && job[1].first_task <= index) job++;
    index -= (int)job->first_task;
    const struct fast_matrix *m = (const struct fast_matrix *)job->op->matrix;
    const int64_t x_stride = act_stride(m->base.cols),
                  row = index / job->block_tasks * job->tile_rows;
    int64_t first = index % job->block_tasks * job->task_blocks, last = first + job->task_blocks;
    if (last > m->blocks) last = m->blocks;
    struct linear_task task = {
        .x = (const uint16_t *)job->op->x + row * x_stride,
        .x_stride = x_stride,
        .y = job->op->y + row * m->base.rows,
        .y_stride = m->base.rows,
        .rows = job->rows - row < job->tile_rows ? (int)(job->rows - row) : job->tile_rows,
        .mode = job->op->mode,
    };
    for (int i = 0; i < m->count && first < last; i++) {
        task.part = &m->part[i];
        int64_t end = task.part->first_block + task.part->blocks;
        if (first >= end) continue;
        task.block_first = first - task.part->first_block;
        task.block_count = (last < end ? last : end) - first;
        jobs->fast->kernels->linear(&task);
        first += task.block_count;
    }
}

/* How one linear is cut; returns the number of its tasks. */
static int64_t linear_cut(struct linear_job *job) {
    const struct fast_matrix *m = (const struct fast_matrix *)job->op->matrix;
    int64_t tiles = (job->rows + TILE_ROWS - 1) / TILE_ROWS;
    if (job->rows == 0) return 0;
    job->tile_rows = (int)((job->rows + tiles - 1) / tiles + TILE_STEP - 1) / TILE_STEP * TILE_STEP;
    if (job->tile_rows > TILE_ROWS) job->tile_rows = TILE_ROWS;
    tiles = (job->rows + job->tile_rows - 1) / job->tile_rows;
    job->task_blocks = TILE_TASK_BLOCKS;
    if (job->rows <= 8) {
        job->task_blocks = m->blocks / 16 / 4 * 4;
        if (job->task_blocks < ROW_TASK_MIN) job->task_blocks = ROW_TASK_MIN;
        if (job->task_blocks > ROW_TASK_MAX) job->task_blocks = ROW_TASK_MAX;
    }
    job->block_tasks = (m->blocks + job->task_blocks - 1) / job->task_blocks;
    return tiles * job->block_tasks;
}

void fast_linears(struct cpu_backend *cpu, const struct op_linear *op, const int *rows, int count) {
    struct linear_jobs jobs;
    int64_t tasks = 0;
    check(count <= LINEAR_GROUP);
    jobs.fast = (struct fast_backend *)cpu;
    jobs.count = count;
    for (int i = 0; i < count; i++) {
        jobs.job[i] = (struct linear_job){.op = &op[i], .rows = rows[i], .first_task = tasks};
        tasks += linear_cut(&jobs.job[i]);
    }
    check(tasks <= INT32_MAX);
    pool_run(cpu->pool, linear_run, &jobs, (int)tasks);
}

void fast_linear(struct backend *be, const struct op_linear *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    const int rows = cpu_rows(cpu, op->rows);
    fast_linears(cpu, op, &rows, 1);
}
