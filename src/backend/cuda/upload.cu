/* Weights to the device: rows through pinned memory, re-packed there into stacks (pack.cuh).
 *
 * The parts of a matrix that share a format become one stack. Two parts of equally many rows (gate
 * and up) are paired: tile t holds the gate rows of the outputs whose place in an act is 8 t .. 8 t
 * + 7, then their up rows, so that both sums of an output end in one lane and the eight outputs of
 * a tile are neighbours in the act; tiles cover the act's padding too. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/pack.cuh"
#include "backend/cuda/repack.h"

enum { STAGE_BYTES = 8 << 20 }; /* of each half */

/* ---- what a part becomes ---- */

struct part_plan {
    enum pack_format format;
    int planes;
    int mx_top;       /* MXFP4 as PACK_FP4: the largest scale byte */
    float multiplier; /* of every row, FP8's scales aside */
};

static bool row_scaled(const struct weight *w) {
    return w->scale == NULL || w->scale_cols >= w->cols;
}

/* MXFP4's scales are powers of two over a range that five bits of exponent may not hold. All such
 * parts of a matrix are judged together, so that they stay one stack. */
struct mx_range {
    int low, high;
};
static struct mx_range mx_range(const struct weight *parts, int count) {
    struct mx_range r = {255, 0};
    for (int p = 0; p < count; p++) {
        const struct weight *w = &parts[p];
        for (int64_t i = 0; w->format == WEIGHT_MXFP4 && i < w->rows * w->cols / 32; i++) {
            const int e = w->block_scale[i];
            if (e == 255) continue; /* NaN */
            if (e < r.low) r.low = e;
            if (e > r.high) r.high = e;
        }
    }
    return r;
}

/* units: the device multiplies NVFP4 itself, and is asked to. */
static struct part_plan plan_part(const struct weight *w, struct mx_range mx, bool units) {
    struct part_plan p = {PACK_BF16, 1, 0, w->multiplier};
    switch (w->format) {
    case WEIGHT_NVFP4:
        p.format = units ? PACK_NVFP4 : PACK_FP4;
        p.multiplier *= units ? 1 : 256;
        break;
    case WEIGHT_MXFP4:
        if (mx.high - mx.low <= MX_SPAN) {
            p.format = PACK_FP4;
            p.mx_top = mx.high;
            p.multiplier = ldexpf(p.multiplier, mx_exponent(mx.high));
        }
        break;
    case WEIGHT_FP8:
        if (row_scaled(w)) {
            p.format = PACK_FP8;
            p.multiplier *= 256;
        } else {
            p.planes = 3; /* value times scale, rounded to fp32 */
        }
        break;
    case WEIGHT_BF16:
        break;
    case WEIGHT_F16:
        p.planes = 2;
        break;
    case WEIGHT_F32:
        p.planes = 3;
        break;
    }
    return p;
}

/* ---- stacks ---- */

struct stack_plan {
    struct part_plan like; /* what all parts share */
    int part[MAX_PARTS], count;
    float multiplier[MAX_PARTS];
    int64_t rows[MAX_PARTS], first[MAX_PARTS]; /* of a part; the first one in y */
    bool paired;
    int64_t cols, tiles;
};

static bool same_stack(const struct stack_plan *s, const struct weight *first,
                       const struct weight *w, const struct part_plan *plan) {
    return first->format == w->format && s->like.format == plan->format &&
           s->like.planes == plan->planes && first->pre_scale == w->pre_scale &&
           first->scale_cols == w->scale_cols;
}

/* Returns how many stacks there are. */
static int plan_stacks(const struct weight *parts, int count, bool units,
                       struct stack_plan out[MAX_PARTS]) {
    const struct mx_range mx = mx_range(parts, count);
    int stacks = 0;
    int64_t row = 0;
    for (int i = 0; i < count; i++) {
        const struct part_plan plan = plan_part(&parts[i], mx, units);
        int s = 0;
        while (s < stacks && !same_stack(&out[s], &parts[out[s].part[0]], &parts[i], &plan)) s++;
        if (s == stacks) {
            out[stacks++] = {};
            out[s].like = plan;
            out[s].cols = parts[i].cols;
        }
        struct stack_plan *p = &out[s];
        p->multiplier[p->count] = plan.multiplier;
        p->rows[p->count] = parts[i].rows;
        p->first[p->count] = row;
        p->part[p->count++] = i;
        row += parts[i].rows;
    }
    for (int s = 0; s < stacks; s++) {
        struct stack_plan *p = &out[s];
        p->paired = p->count == 2 && p->rows[0] == p->rows[1];
        p->tiles = packed_tiles(p->rows, p->count, p->paired);
    }
    return stacks;
}

static size_t aligned(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}
static int stack_chunks(const struct stack_plan *p) {
    const int k = pack_chunk_k(p->like.format);
    return (int)((p->cols + k - 1) / k);
}
static size_t stack_tile_bytes(const struct stack_plan *p) {
    return (size_t)stack_chunks(p) * p->like.planes * pack_bytes(p->like.format);
}
static size_t stack_bytes(const struct stack_plan *p, bool pre_scale) {
    return aligned(p->tiles * stack_tile_bytes(p)) +
           aligned(p->tiles * TILE_ROWS * sizeof(struct row_info)) +
           (pre_scale ? aligned((size_t)p->cols * sizeof(float)) : 0);
}

/* ---- re-packing on the device ---- */

/* A thread a lane of a chunk. */
template <enum pack_format F> __global__ void pack_kernel(struct pack_job j, int tiles) {
    const int64_t i = (int64_t)blockIdx.x * ROW_THREADS + threadIdx.x;
    const int64_t chunk = i / WARP;
    depend_wait();
    if (chunk / (j.chunks * j.planes) < tiles) pack_lane(F, &j, chunk, (int)(i % WARP));
}

/* ---- streaming ---- */

static int fp8_scales_row(const struct weight *w) {
    return (int)((w->cols + w->scale_cols - 1) / w->scale_cols);
}
static size_t scales_row_bytes(const struct weight *w) {
    if (w->format == WEIGHT_FP8 && !row_scaled(w)) return (size_t)fp8_scales_row(w) * sizeof(float);
    return weight_block_row_bytes(w);
}
static const void *scales_of_row(const struct weight *w, int64_t row, size_t bytes) {
    if (w->format == WEIGHT_FP8) return w->scale + row / w->scale_rows * fp8_scales_row(w);
    return w->block_scale + row * bytes;
}

/* Pinned and device memory for the way, from the first use to stage_close. */
static bool stage_open(struct cuda_backend *cuda) {
    struct cuda_stage *stage = &cuda->stage;
    for (int i = 0; i < 2 && stage->device[i] == NULL; i++) {
        gpu_call(cuda, cudaMallocHost((void **)&stage->host[i], STAGE_BYTES));
        gpu_call(cuda, cudaEventCreateWithFlags(&stage->free[i], cudaEventDisableTiming));
        gpu_call(cuda, cudaMalloc((void **)&stage->device[i], STAGE_BYTES));
    }
    return cuda->failed == cudaSuccess;
}

void stage_close(struct cuda_backend *cuda) {
    struct cuda_stage *stage = &cuda->stage;
    for (int i = 0; i < 2; i++) {
        if (stage->device[i]) cudaFree(stage->device[i]);
        if (stage->free[i]) cudaEventDestroy(stage->free[i]);
        if (stage->host[i]) cudaFreeHost(stage->host[i]);
    }
    *stage = {};
}

/* Rows of the batch in packed order to the pinned half; padding is zeros. */
static void gather_rows(const struct stack_plan *p, const struct weight *parts, int64_t first,
                        int64_t count, uint8_t *raw, uint8_t *scales) {
    const size_t row_bytes = weight_row_bytes(&parts[p->part[0]]);
    const size_t scale_bytes = scales_row_bytes(&parts[p->part[0]]);
    for (int64_t i = 0; i < count; i++) {
        const struct packed_row r = packed_row_at(p->rows, p->count, p->paired, first + i);
        if (r.index < 0) {
            memset(raw + i * row_bytes, 0, row_bytes);
            memset(scales + i * scale_bytes, 0, scale_bytes);
            continue;
        }
        const struct weight *w = &parts[p->part[r.index]];
        memcpy(raw + i * row_bytes, (const uint8_t *)w->data + r.row * row_bytes, row_bytes);
        if (scale_bytes)
            memcpy(scales + i * scale_bytes, scales_of_row(w, r.row, scale_bytes), scale_bytes);
    }
}

static void launch_pack(struct cuda_backend *cuda, enum pack_format f, const struct pack_job *j,
                        int tiles) {
    const unsigned blocks = cuda_blocks((int64_t)tiles * j->chunks * j->planes * WARP);
    if (f == PACK_FP4)
        gpu_launch(cuda, "pack", pack_kernel<PACK_FP4>, blocks, ROW_THREADS, 0, *j, tiles);
    else if (f == PACK_NVFP4)
        gpu_launch(cuda, "pack", pack_kernel<PACK_NVFP4>, blocks, ROW_THREADS, 0, *j, tiles);
    else if (f == PACK_FP8)
        gpu_launch(cuda, "pack", pack_kernel<PACK_FP8>, blocks, ROW_THREADS, 0, *j, tiles);
    else
        gpu_launch(cuda, "pack", pack_kernel<PACK_BF16>, blocks, ROW_THREADS, 0, *j, tiles);
}

/* Tiles of a stack, as many at a time as half of the stage holds; the halves take turns. */
static void stream_tiles(struct cuda_backend *cuda, const struct stack_plan *p,
                         const struct weight *parts, uint8_t *data, struct row_info *row) {
    const struct weight *w = &parts[p->part[0]];
    const size_t raw_row = weight_row_bytes(w), scales_row = scales_row_bytes(w);
    const size_t tile_raw = TILE_ROWS * (raw_row + scales_row);
    struct cuda_stage *stage = &cuda->stage;
    if (!stage_open(cuda)) return;
    const int64_t batch = (int64_t)((STAGE_BYTES - 512) / tile_raw);
    check(batch > 0);
    for (int64_t t = 0; t < p->tiles; t += batch) {
        const int64_t tiles = p->tiles - t < batch ? p->tiles - t : batch, rows = tiles * TILE_ROWS;
        const int half = stage->next;
        uint8_t *host = stage->host[half], *device = stage->device[half];
        const size_t scales_at = aligned(rows * raw_row);
        gpu_call(cuda, cudaEventSynchronize(stage->free[half]));
        gather_rows(p, parts, t * TILE_ROWS, rows, host, host + scales_at);
        gpu_call(cuda, cudaMemcpyAsync(device, host, scales_at + rows * scales_row,
                                       cudaMemcpyHostToDevice, cuda->stream));
        struct pack_job j = {};
        j.raw = device;
        j.scales = device + scales_at;
        j.raw_row = raw_row;
        j.scales_row = scales_row;
        j.format = w->format;
        j.cols = w->cols;
        j.mx_top = p->like.mx_top;
        j.chunks = stack_chunks(p);
        j.planes = p->like.planes;
        j.fp8_cols = w->format == WEIGHT_FP8 && scales_row ? (int)w->scale_cols : 1;
        j.to = data + t * stack_tile_bytes(p);
        j.row = row + t * TILE_ROWS;
        launch_pack(cuda, p->like.format, &j, (int)tiles);
        gpu_call(cuda, cudaEventRecord(stage->free[half], cuda->stream));
        stage->next = !half;
    }
}

/* Multipliers, biases and places of the rows; waits, since the array is made here. */
static void upload_rows(struct backend *be, const struct stack_plan *p, const struct weight *parts,
                        const float *const *bias, struct row_info *to) {
    const int64_t rows = p->tiles * TILE_ROWS;
    struct row_info *info = (struct row_info *)mem_alloc((size_t)rows * sizeof *info);
    for (int64_t i = 0; i < rows; i++) {
        const struct packed_row r = packed_row_at(p->rows, p->count, p->paired, i);
        info[i] = {0, 0, -1, 0};
        if (r.index < 0) continue;
        info[i].out = (int32_t)(p->first[r.index] + r.row);
        const int part = p->part[r.index];
        const struct weight *w = &parts[part];
        info[i].multiplier = p->multiplier[r.index];
        if (w->format == WEIGHT_FP8 && w->scale && row_scaled(w))
            info[i].multiplier *= w->scale[r.row / w->scale_rows * fp8_scales_row(w)];
        if (bias && bias[part]) info[i].bias = bias[part][r.row];
    }
    be->ops->write(be, to, info, (size_t)rows * sizeof *info);
    free(info);
}

/* ---- entries of the op table ---- */

/* Parts with one input that were calibrated apart share the largest multiplier, as on a CPU: the
 * input is really rounded under it. */
static float shared_input_multiplier(const struct weight *parts, int count) {
    float most = NAN;
    for (int i = 0; i < count; i++) {
        const float m = parts[i].input_multiplier;
        if (parts[i].format == WEIGHT_NVFP4 && (isnan(most) || m > most)) most = m;
    }
    return most;
}

static struct stack upload_stack(struct backend *be, const struct stack_plan *p,
                                 const struct weight *parts, const float *const *bias,
                                 float input_multiplier, uint8_t **at) {
    const struct weight *w = &parts[p->part[0]];
    const size_t rows_bytes = p->tiles * TILE_ROWS * sizeof(struct row_info);
    struct stack s = {};
    s.format = p->like.format;
    s.chunks = stack_chunks(p);
    s.planes = p->like.planes;
    s.tiles = (int)p->tiles;
    s.paired = p->paired;
    struct row_info *row = (struct row_info *)*at;
    uint8_t *data = *at + aligned(rows_bytes);
    *at = data + aligned(p->tiles * stack_tile_bytes(p));
    upload_rows(be, p, parts, bias, row);
    stream_tiles(cuda_of(be), p, parts, data, row);
    s.row = row;
    s.data = data;
    if (w->pre_scale) {
        be->ops->write(be, *at, w->pre_scale, (size_t)w->cols * sizeof(float));
        s.input.pre_scale = (const float *)*at;
        *at += aligned((size_t)w->cols * sizeof(float));
    }
    s.input.nvfp4 = cuda_of(be)->nvfp4_activations && w->format == WEIGHT_NVFP4;
    s.input.packed = s.format == PACK_NVFP4;
    s.input.multiplier = input_multiplier;
    return s;
}

static size_t stacks_bytes(const struct stack_plan *stacks, int count, const struct weight *parts) {
    size_t total = 0;
    for (int s = 0; s < count; s++)
        total += stack_bytes(&stacks[s], parts[stacks[s].part[0]].pre_scale != NULL);
    return total;
}

size_t cuda_matrix_bytes(struct backend *be, const struct weight *parts, int count) {
    struct stack_plan stacks[MAX_PARTS];
    const int stack_count = plan_stacks(parts, count, cuda_of(be)->nvfp4_units, stacks);
    return stacks_bytes(stacks, stack_count, parts);
}

int cuda_matrix_create(struct backend *be, const struct weight *parts, int count,
                       const float *const *bias, struct matrix **out, struct imp_error *err) {
    check(count <= MAX_PARTS);
    struct stack_plan stacks[MAX_PARTS];
    struct cuda_matrix *m = (struct cuda_matrix *)mem_zero(1, sizeof *m);
    m->count = plan_stacks(parts, count, cuda_of(be)->nvfp4_units, stacks);
    m->base.cols = parts[0].cols;
    m->base.bytes = stacks_bytes(stacks, m->count, parts);
    for (int i = 0; i < count; i++) {
        check(parts[i].cols == m->base.cols);
        m->base.rows += parts[i].rows;
    }
    int rc = cuda_alloc(be, m->base.bytes, &m->memory, err);
    if (rc == 0) {
        uint8_t *at = (uint8_t *)m->memory;
        const float input_multiplier = shared_input_multiplier(parts, count);
        for (int s = 0; s < m->count; s++)
            m->stack[s] = upload_stack(be, &stacks[s], parts, bias, input_multiplier, &at);
        rc = cuda_error(cuda_of(be), err);
    }
    *out = &m->base;
    if (rc < 0) {
        cuda_matrix_free(be, &m->base);
        *out = NULL;
    }
    return rc;
}

void cuda_matrix_free(struct backend *be, struct matrix *matrix) {
    if (matrix == NULL) return;
    cuda_free(be, ((struct cuda_matrix *)matrix)->memory);
    free(matrix);
}

/* A table stays as stored: its rows are gathered, not multiplied. */
static size_t table_bytes(const struct weight *w) {
    const bool fp8 = w->format == WEIGHT_FP8 && w->scale;
    const int64_t scale_rows = fp8 ? (w->rows + w->scale_rows - 1) / w->scale_rows : 0;
    return aligned((size_t)w->rows * weight_row_bytes(w)) +
           aligned(w->block_scale ? (size_t)w->rows * scales_row_bytes(w) : 0) +
           aligned(fp8 ? (size_t)scale_rows * fp8_scales_row(w) * sizeof(float) : 0);
}

int cuda_table_create(struct backend *be, const struct weight *weight, struct table **out,
                      struct imp_error *err) {
    struct cuda_table *t = (struct cuda_table *)mem_zero(1, sizeof *t);
    const struct weight *w = weight;
    const size_t bytes = table_bytes(w), raw = (size_t)w->rows * weight_row_bytes(w);
    int rc = cuda_alloc(be, bytes, &t->memory, err);
    if (rc < 0) {
        free(t);
        return rc;
    }
    uint8_t *at = (uint8_t *)t->memory;
    t->weight = {w->format, w->rows,       w->cols,       at,           NULL,
                 NULL,      w->scale_rows, w->scale_cols, w->multiplier};
    be->ops->write(be, at, w->data, raw);
    at += aligned(raw);
    if (w->block_scale) {
        t->weight.block_scale = at;
        be->ops->write(be, at, w->block_scale, (size_t)w->rows * scales_row_bytes(w));
    }
    if (w->format == WEIGHT_FP8 && w->scale) {
        const int64_t scale_rows = (w->rows + w->scale_rows - 1) / w->scale_rows;
        t->weight.scale = (const float *)at;
        be->ops->write(be, at, w->scale, (size_t)scale_rows * fp8_scales_row(w) * sizeof(float));
    }
    t->base.rows = w->rows;
    t->base.cols = w->cols;
    t->base.bytes = bytes;
    *out = &t->base;
    return 0;
}

void cuda_table_free(struct backend *be, struct table *table) {
    if (table == NULL) return;
    cuda_free(be, ((struct cuda_table *)table)->memory);
    free(table);
}
