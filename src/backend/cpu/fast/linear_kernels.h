/* Linear, written against simd_*.h: included once by every kernels_*.c.
 *
 * Codes are expanded in registers, and up to LINEAR_TILE_ROWS rows of x share the expansion: from
 * four rows on it hides behind the products, so nothing is expanded to memory. (Panels of expanded
 * weights in the cache were tried: slower below 12 rows, no faster above.) Every form does the same
 * operations on an output in the same order:
 *     for each segment: sum = +0; for each pair of K: sum = pair_dot(sum, w, x)
 *                       acc = fma(sum, scale, acc)
 *     y = fma(acc, multiplier, bias)
 * PACK_F32 and PACK_F16 have fma(w, x, sum) for each k in place of pairs. */
#include <string.h>

#include "backend/cpu/fast/fast.h"
#include "num/fp.h"

#define INLINE        static inline __attribute__((always_inline))
#define BLOCK_VECTORS (BLOCK_ROWS / SIMD_LANES)

/* Blocks that n vectors fill, and the vectors of one call in a single block. */
#define GROUP_BLOCKS(n) ((n) > BLOCK_VECTORS ? (n) / BLOCK_VECTORS : 1)
#define BLOCK_PART(n)   ((n) > BLOCK_VECTORS ? BLOCK_VECTORS : (n))

INLINE uint32_t load_pair(const uint16_t *x) {
    uint32_t pair;
    memcpy(&pair, x, sizeof pair);
    return pair;
}

/* y of one block and row from its 16 accumulators. */
static void finish_block(const struct linear_task *task, int64_t block, int row, const float *acc) {
    const struct fast_part *part = task->part;
    const int64_t first = block * BLOCK_ROWS, left = part->rows - first;
    const size_t tail_bytes = left < BLOCK_ROWS ? (size_t)left * sizeof(float) : 0;
    float *y = task->y + row * task->y_stride + part->first_row + first, tail[BLOCK_ROWS] = {0};
    float *out = tail_bytes ? tail : y;
    if (tail_bytes && task->mode == LINEAR_ADD) memcpy(tail, y, tail_bytes);
    for (int i = 0; i < BLOCK_ROWS; i += SIMD_LANES) {
        vf sum = vf_fma(vf_load(acc + i), vf_load(part->multiplier + first + i),
                        vf_load(part->bias + first + i));
        if (task->mode == LINEAR_ADD) sum = vf_add(vf_load(out + i), sum);
        vf_store(out + i, sum);
    }
    if (tail_bytes) memcpy(y, tail, tail_bytes);
}

/* How a kind is laid out: a word, 16 of which lie together, holds `steps` steps of K; a step is a
 * pair of k, or one k of plain weights. */
struct layout {
    int word_bytes, steps, step_cols, segment_cols; /* segment_cols 0: the part says */
};
INLINE struct layout kind_layout(enum pack_kind kind) {
    switch (kind) {
    case PACK_NVFP4:
        return (struct layout){4, 4, 2, 16};
    case PACK_MXFP4:
        return (struct layout){4, 4, 2, 32};
    case PACK_FP8:
        return (struct layout){4, 2, 2, 0};
    case PACK_BF16:
        return (struct layout){4, 1, 2, 0};
    case PACK_F16:
        return (struct layout){2, 1, 1, 0};
    case PACK_F32:
        break;
    }
    return (struct layout){4, 1, 1, 0};
}

INLINE vu word_load(enum pack_kind kind, const uint8_t *p) {
    if (kind == PACK_F16) return (vu)fp16_load((const uint16_t *)(const void *)p);
    return vu_load(p);
}
INLINE vu word_step(enum pack_kind kind, vu word, int step) {
    if (kind == PACK_NVFP4 || kind == PACK_MXFP4) return fp4_pair(word, step);
    return kind == PACK_FP8 ? fp8_pair(word, step) : word;
}
INLINE vf step_product(enum pack_kind kind, vf sum, vu w, const uint16_t *x) {
    if (kind == PACK_F16 || kind == PACK_F32) return vf_fma((vf)w, vf_set1(bf16_decode(*x)), sum);
    return pair_dot(sum, w, vu_set1(load_pair(x)));
}
INLINE vf segment_scale(enum pack_kind kind, const uint8_t *scales, int64_t stride, int64_t s) {
    if (kind == PACK_NVFP4) return e4m3_scales(scales + s * BLOCK_ROWS);
    if (kind == PACK_MXFP4) return e8m0_scales(scales + s * BLOCK_ROWS);
    if (kind == PACK_FP8) return vf_load((const float *)(const void *)scales + s * stride);
    return vf_set1(1.0f);
}

/* Accumulators of r rows from `row` by n vectors from `first`, counted from the part's start;
 * out[r, out_stride]. kind, n and r are constants where this is expanded. */
INLINE void tile(enum pack_kind kind, int n, int r, const struct linear_task *task, int64_t first,
                 int row, float *out, int out_stride) {
    const struct fast_part *part = task->part;
    const struct layout lay = kind_layout(kind);
    const int word_cols = lay.steps * lay.step_cols;
    const uint8_t *codes[LINEAR_ROW_VECTORS], *scales[LINEAR_ROW_VECTORS];
    vf acc[LINEAR_TILE_ROWS][LINEAR_ROW_VECTORS], sum[LINEAR_TILE_ROWS][LINEAR_ROW_VECTORS];
    for (int i = 0; i < n; i++) {
        int64_t block = (first + i) / BLOCK_VECTORS,
                lane = (first + i) % BLOCK_VECTORS * SIMD_LANES;
        const uint8_t *data = part->data + (size_t)block * part->block_bytes;
        codes[i] = data + lane * lay.word_bytes;
        scales[i] = data + part->scale_offset + (kind == PACK_FP8 ? lane * 4 : lane);
        for (int j = 0; j < r; j++) acc[j][i] = vf_zero();
    }
    const int64_t words = part->cols / word_cols;
    const int64_t per_segment =
        (lay.segment_cols ? lay.segment_cols : part->segment_cols) / word_cols;
    const uint16_t *x = task->x + row * task->x_stride;
    /* Few rows are as fast as memory: what the next call reads is fetched meanwhile. (For four
     * rows it takes a sixth off a mixture's experts, whose weights no cache holds.) */
    const size_t ahead = part->block_bytes * GROUP_BLOCKS(n);
    int64_t word = 0;
    for (int64_t s = 0; s < part->segments; s++) {
        int64_t end = word + per_segment;
        if (lay.segment_cols == 0 && end > words) end = words;
        for (int j = 0; j < r; j++)
            for (int i = 0; i < n; i++) sum[j][i] = vf_zero();
        for (; word < end; word++) {
            vu w[LINEAR_ROW_VECTORS];
            for (int i = 0; i < n; i++) {
                const uint8_t *p = codes[i] + word * BLOCK_ROWS * lay.word_bytes;
                w[i] = word_load(kind, p);
                if (r <= 4) __builtin_prefetch(p + ahead, 0, 2);
            }
            for (int step = 0; step < lay.steps; step++, x += lay.step_cols) {
                vu v[LINEAR_ROW_VECTORS];
                for (int i = 0; i < n; i++) v[i] = word_step(kind, w[i], step);
                for (int j = 0; j < r; j++) {
                    for (int i = 0; i < n; i++)
                        sum[j][i] = step_product(kind, sum[j][i], v[i], x + j * task->x_stride);
                }
            }
        }
        for (int i = 0; i < n; i++) {
            vf scale = segment_scale(kind, scales[i], part->scale_stride, s);
            if (kind == PACK_NVFP4 && r == 1 && s % 4 == 0)
                __builtin_prefetch(scales[i] + s * BLOCK_ROWS + ahead, 0, 2);
            for (int j = 0; j < r; j++) acc[j][i] = vf_fma(sum[j][i], scale, acc[j][i]);
        }
    }
    for (int j = 0; j < r; j++)
        for (int i = 0; i < n; i++) vf_store(out + j * out_stride + i * SIMD_LANES, acc[j][i]);
}

/* r rows by `blocks` blocks, n vectors at a time; either of n and the blocks' vectors divides the
 * other. */
INLINE void tile_blocks(enum pack_kind kind, int n, int r, const struct linear_task *task,
                        int64_t block, int blocks, int row) {
    float acc[LINEAR_TILE_ROWS * LINEAR_ROW_VECTORS * BLOCK_ROWS] __attribute__((aligned(64)));
    const int stride = blocks * BLOCK_ROWS;
    for (int i = 0; i < blocks * BLOCK_VECTORS; i += n)
        tile(kind, n, r, task, block * BLOCK_VECTORS + i, row, acc + i * SIMD_LANES, stride);
    for (int j = 0; j < r; j++) {
        for (int i = 0; i < blocks; i++)
            finish_block(task, block + i, row + j, acc + j * stride + i * BLOCK_ROWS);
    }
}

/* Some blocks by all rows of the task: tiles of LINEAR_TILE_ROWS, and what is left as one. */
INLINE void tile_rows(enum pack_kind kind, int n, const struct linear_task *task, int64_t block,
                      int blocks) {
    enum { R = LINEAR_TILE_ROWS };
    int row = 0;
    for (; row + R <= task->rows; row += R) tile_blocks(kind, n, R, task, block, blocks, row);
    switch (task->rows - row) {
    case 5:
        tile_blocks(kind, n, R < 5 ? 1 : 5, task, block, blocks, row);
        break;
    case 4:
        tile_blocks(kind, n, R < 4 ? 1 : 4, task, block, blocks, row);
        break;
    case 3:
        tile_blocks(kind, n, R < 3 ? 1 : 3, task, block, blocks, row);
        break;
    case 2:
        tile_blocks(kind, n, R < 2 ? 1 : 2, task, block, blocks, row);
        break;
    case 1:
        tile_blocks(kind, n, 1, task, block, blocks, row);
        break;
    }
}

INLINE void linear_kind(enum pack_kind kind, const struct linear_task *task) {
    enum { ONE = LINEAR_ROW_VECTORS, MANY = LINEAR_TILE_VECTORS };
    int64_t block = task->block_first, end = block + task->block_count;
    if (task->rows == 1) {
        for (; block + GROUP_BLOCKS(ONE) <= end; block += GROUP_BLOCKS(ONE))
            tile_blocks(kind, ONE, 1, task, block, GROUP_BLOCKS(ONE), 0);
        for (; block < end; block++) tile_blocks(kind, BLOCK_PART(ONE), 1, task, block, 1, 0);
        return;
    }
    for (; block + GROUP_BLOCKS(MANY) <= end; block += GROUP_BLOCKS(MANY))
        tile_rows(kind, MANY, task, block, GROUP_BLOCKS(MANY));
    for (; block < end; block++) tile_rows(kind, BLOCK_PART(MANY), task, block, 1);
}

static void kernel_linear(const struct linear_task *task) {
    switch (task->part->kind) {
    case PACK_NVFP4:
        linear_kind(PACK_NVFP4, task);
        break;
    case PACK_MXFP4:
        linear_kind(PACK_MXFP4, task);
        break;
    case PACK_FP8:
        linear_kind(PACK_FP8, task);
        break;
    case PACK_BF16:
        linear_kind(PACK_BF16, task);
        break;
    case PACK_F16:
        linear_kind(PACK_F16, task);
        break;
    case PACK_F32:
        linear_kind(PACK_F32, task);
        break;
    }
}
