/* Linear, written against simd_*.h: included once by every kernels_*.c.
 *
 * Few rows of x: codes are expanded in registers, some vectors of outputs at a time, and the
 * weights stream from memory. More rows: a panel of K is expanded to pair vectors in the thread's
 * scratch, then taken by tiles of rows by vectors; accumulators wait in scratch between panels.
 * Both do the same operations on an output in the same order: for each segment: sum = +0; for each
 * pair of K: sum = pair_dot(sum, w, x) acc = fma(sum, scale, acc) y = fma(acc, multiplier, bias)
 * PACK_F32 and PACK_F16 have fma(w, x, sum) for each k in place of pairs. */
#include <string.h>

#include "backend/cpu/fast/fast.h"
#include "num/fp.h"

#define INLINE        static inline __attribute__((always_inline))
#define BLOCK_VECTORS (BLOCK_ROWS / SIMD_LANES)

/* Rows of x that share codes expanded in registers, and the most rows done that way. */
enum { FEW_ROWS = SIMD_LANES == 16 ? 4 : 2, FEW_ROWS_LIMIT = 2 * FEW_ROWS };

static const float ONES[BLOCK_ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

INLINE uint32_t load_pair(const uint16_t *x) {
    uint32_t pair;
    memcpy(&pair, x, sizeof pair);
    return pair;
}

INLINE const uint8_t *block_data(const struct fast_part *part, int64_t block) {
    return part->data + (size_t)block * part->block_bytes;
}

INLINE int pairs_per_word(enum pack_kind kind) {
    return kind == PACK_BF16 ? 1 : kind == PACK_FP8 ? 2 : 4;
}

INLINE vu word_pair(enum pack_kind kind, vu word, int p) {
    if (kind == PACK_BF16) return word;
    return kind == PACK_FP8 ? fp8_pair(word, p) : fp4_pair(word, p);
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

/* ---- few rows ---- */

/* Accumulators of r rows from `row` by n vectors from `first`, counted from the part's start;
 * out[r, out_stride]. kind, n and r are constants where this is expanded. */
INLINE void few_vectors(enum pack_kind kind, int n, int r, const struct linear_task *task,
                        int64_t first, int row, float *out, int out_stride) {
    const struct fast_part *part = task->part;
    const int per_word = pairs_per_word(kind);
    const uint8_t *codes[LINEAR_ROW_VECTORS], *scales[LINEAR_ROW_VECTORS];
    vf acc[FEW_ROWS][LINEAR_ROW_VECTORS], sum[FEW_ROWS][LINEAR_ROW_VECTORS];
    for (int i = 0; i < n; i++) {
        const uint8_t *data = block_data(part, (first + i) / BLOCK_VECTORS);
        int64_t lane = (first + i) % BLOCK_VECTORS * SIMD_LANES;
        codes[i] = data + lane * 4;
        scales[i] = data + part->scale_offset + (kind == PACK_FP8 ? lane * 4 : lane);
        for (int j = 0; j < r; j++) acc[j][i] = vf_zero();
    }
    const int64_t words = part->cols / (2 * per_word);
    int64_t per_segment = part->segment_cols / (2 * per_word), word = 0;
    if (kind == PACK_NVFP4) per_segment = 2;
    if (kind == PACK_MXFP4) per_segment = 4;
    const uint16_t *x = task->x + row * task->x_stride;
    for (int64_t s = 0; s < part->segments; s++) {
        int64_t end = word + per_segment;
        if ((kind == PACK_FP8 || kind == PACK_BF16) && end > words) end = words;
        for (int j = 0; j < r; j++)
            for (int i = 0; i < n; i++) sum[j][i] = vf_zero();
        for (; word < end; word++) {
            vu w[LINEAR_ROW_VECTORS];
            for (int i = 0; i < n; i++) w[i] = vu_load(codes[i] + word * BLOCK_ROWS * 4);
            for (int p = 0; p < per_word; p++, x += 2) {
                vu v[LINEAR_ROW_VECTORS];
                for (int i = 0; i < n; i++) v[i] = word_pair(kind, w[i], p);
                for (int j = 0; j < r; j++) {
                    vu pair = vu_set1(load_pair(x + j * task->x_stride));
                    for (int i = 0; i < n; i++) sum[j][i] = pair_dot(sum[j][i], v[i], pair);
                }
            }
        }
        for (int i = 0; i < n; i++) {
            vf scale = vf_set1(1.0f);
            if (kind == PACK_NVFP4) scale = e4m3_scales(scales[i] + s * BLOCK_ROWS);
            if (kind == PACK_MXFP4) scale = e8m0_scales(scales[i] + s * BLOCK_ROWS);
            if (kind == PACK_FP8)
                scale = vf_load((const float *)(const void *)scales[i] + s * part->scale_stride);
            for (int j = 0; j < r; j++) acc[j][i] = vf_fma(sum[j][i], scale, acc[j][i]);
        }
    }
    for (int j = 0; j < r; j++)
        for (int i = 0; i < n; i++) vf_store(out + j * out_stride + i * SIMD_LANES, acc[j][i]);
}

INLINE void few_blocks(enum pack_kind kind, int n, int r, const struct linear_task *task,
                       int64_t block, int blocks, int row) {
    float *acc = (float *)(void *)task->scratch;
    const int stride = blocks * BLOCK_ROWS;
    for (int i = 0; i < blocks * BLOCK_VECTORS; i += n) {
        few_vectors(kind, n, r, task, block * BLOCK_VECTORS + i, row, acc + i * SIMD_LANES, stride);
    }
    for (int j = 0; j < r; j++) {
        for (int i = 0; i < blocks; i++)
            finish_block(task, block + i, row + j, acc + j * stride + i * BLOCK_ROWS);
    }
}

/* All blocks of the task for r rows, n vectors at a time: whole blocks of them, or part of one. */
INLINE void few_rows(enum pack_kind kind, int n, int r, const struct linear_task *task, int row) {
    const int group = n > BLOCK_VECTORS ? n / BLOCK_VECTORS : 1;
    int64_t block = task->block_first, end = block + task->block_count;
    for (; block + group <= end; block += group) few_blocks(kind, n, r, task, block, group, row);
    for (; block < end; block++)
        few_blocks(kind, n > BLOCK_VECTORS ? BLOCK_VECTORS : n, r, task, block, 1, row);
}

INLINE void linear_few(enum pack_kind kind, const struct linear_task *task) {
    int row = 0;
    for (; row + FEW_ROWS <= task->rows; row += FEW_ROWS)
        few_rows(kind, LINEAR_TILE_VECTORS, FEW_ROWS, task, row);
    switch (task->rows - row) {
    case 3:
        few_rows(kind, LINEAR_TILE_VECTORS, FEW_ROWS < 3 ? 1 : 3, task, row);
        break;
    case 2:
        few_rows(kind, LINEAR_TILE_VECTORS, FEW_ROWS < 2 ? 1 : 2, task, row);
        break;
    case 1:
        few_rows(kind, LINEAR_ROW_VECTORS, 1, task, row);
        break;
    }
}

static void few_nvfp4(const struct linear_task *task) {
    linear_few(PACK_NVFP4, task);
}
static void few_mxfp4(const struct linear_task *task) {
    linear_few(PACK_MXFP4, task);
}
static void few_fp8(const struct linear_task *task) {
    linear_few(PACK_FP8, task);
}
/* More rows of BF16 have nothing to expand: the tiles below read the packed weights. */
static void one_bf16(const struct linear_task *task) {
    few_rows(PACK_BF16, LINEAR_ROW_VECTORS, 1, task, 0);
}

/* ---- more rows ---- */

/* A panel of K of up to LINEAR_WIDE_BLOCKS blocks, expanded. A step is a pair, or one k where the
 * weights are fp32: 16 words of it lie together. */
struct panel {
    const uint8_t *w[LINEAR_WIDE_BLOCKS];   /* [steps, 16] */
    const float *scale[LINEAR_WIDE_BLOCKS]; /* [segments, scale_stride] */
    int64_t scale_stride, steps, segment_steps;
    const uint16_t *x; /* first row, first column of the panel */
    int64_t x_stride;
    float *acc; /* [rows, LINEAR_WIDE_BLOCKS * 16] */
};

/* Vectors first .. first + n - 1 of the panel's outputs for r rows; n, r, pairs are constants. */
INLINE void tile(int pairs, int n, int r, const struct panel *panel, int first, int row) {
    vf acc[LINEAR_TILE_ROWS][LINEAR_TILE_VECTORS], sum[LINEAR_TILE_ROWS][LINEAR_TILE_VECTORS];
    const uint8_t *w[LINEAR_TILE_VECTORS];
    const float *scale[LINEAR_TILE_VECTORS];
    const uint16_t *x = panel->x + row * panel->x_stride;
    float *out = panel->acc + row * LINEAR_WIDE_BLOCKS * BLOCK_ROWS + first * SIMD_LANES;
    for (int i = 0; i < n; i++) {
        int block = (first + i) / BLOCK_VECTORS, lane = (first + i) % BLOCK_VECTORS * SIMD_LANES;
        w[i] = panel->w[block] + lane * 4;
        scale[i] = panel->scale[block] + lane;
    }
    for (int j = 0; j < r; j++) {
        for (int i = 0; i < n; i++)
            acc[j][i] = vf_load(out + j * LINEAR_WIDE_BLOCKS * BLOCK_ROWS + i * SIMD_LANES);
    }
    for (int64_t step = 0; step < panel->steps;) {
        int64_t end = step + panel->segment_steps;
        if (end > panel->steps) end = panel->steps;
        for (int j = 0; j < r; j++)
            for (int i = 0; i < n; i++) sum[j][i] = vf_zero();
        for (; step < end; step++) {
            vu v[LINEAR_TILE_VECTORS];
            for (int i = 0; i < n; i++) v[i] = vu_load(w[i] + step * BLOCK_ROWS * 4);
            for (int j = 0; j < r; j++) {
                if (pairs) {
                    vu pair = vu_set1(load_pair(x + j * panel->x_stride + 2 * step));
                    for (int i = 0; i < n; i++) sum[j][i] = pair_dot(sum[j][i], v[i], pair);
                } else {
                    vf one = vf_set1(bf16_decode(x[j * panel->x_stride + step]));
                    for (int i = 0; i < n; i++) sum[j][i] = vf_fma((vf)v[i], one, sum[j][i]);
                }
            }
        }
        for (int i = 0; i < n; i++) {
            vf s = vf_load(scale[i]);
            scale[i] += panel->scale_stride;
            for (int j = 0; j < r; j++) acc[j][i] = vf_fma(sum[j][i], s, acc[j][i]);
        }
    }
    for (int j = 0; j < r; j++) {
        for (int i = 0; i < n; i++)
            vf_store(out + j * LINEAR_WIDE_BLOCKS * BLOCK_ROWS + i * SIMD_LANES, acc[j][i]);
    }
}

/* All rows of the task by one column of vectors. */
INLINE void tile_column(int pairs, int n, const struct panel *panel, int first, int rows) {
    int row = 0;
    for (; row + LINEAR_TILE_ROWS <= rows; row += LINEAR_TILE_ROWS)
        tile(pairs, n, LINEAR_TILE_ROWS, panel, first, row);
    switch (rows - row) {
    case 5:
        tile(pairs, n, LINEAR_TILE_ROWS < 5 ? 1 : 5, panel, first, row);
        break;
    case 4:
        tile(pairs, n, LINEAR_TILE_ROWS < 4 ? 1 : 4, panel, first, row);
        break;
    case 3:
        tile(pairs, n, LINEAR_TILE_ROWS < 3 ? 1 : 3, panel, first, row);
        break;
    case 2:
        tile(pairs, n, LINEAR_TILE_ROWS < 2 ? 1 : 2, panel, first, row);
        break;
    case 1:
        tile(pairs, n, 1, panel, first, row);
        break;
    }
}

static void pair_columns(const struct panel *panel, int blocks, int rows) {
    int i = 0;
    for (; i + LINEAR_TILE_VECTORS <= blocks * BLOCK_VECTORS; i += LINEAR_TILE_VECTORS)
        tile_column(1, LINEAR_TILE_VECTORS, panel, i, rows);
    for (; i < blocks * BLOCK_VECTORS; i++) tile_column(1, 1, panel, i, rows);
}

static void plain_columns(const struct panel *panel, int blocks, int rows) {
    for (int i = 0; i < blocks * BLOCK_VECTORS; i++) tile_column(0, 1, panel, i, rows);
}

/* Columns first .. first + cols - 1 of one block as the tiles want them. */
INLINE void expand_words(enum pack_kind kind, const uint8_t *codes, int64_t cols, uint8_t *out) {
    const int per_word = pairs_per_word(kind);
    for (int64_t word = 0; word < cols / (2 * per_word); word++, codes += BLOCK_ROWS * 4) {
        for (int lane = 0; lane < BLOCK_ROWS; lane += SIMD_LANES) {
            vu w = vu_load(codes + lane * 4);
            for (int p = 0; p < per_word; p++)
                vu_store(out + (p * BLOCK_ROWS + lane) * 4, word_pair(kind, w, p));
        }
        out += per_word * BLOCK_ROWS * 4;
    }
}

static void expand_block(const struct fast_part *part, int64_t block, int64_t first, int64_t cols,
                         struct panel *panel, int slot, uint8_t *w, float *scale) {
    const uint8_t *data = block_data(part, block), *scales = data + part->scale_offset;
    const int64_t segment = first / part->segment_cols;
    const int64_t segments = (cols + part->segment_cols - 1) / part->segment_cols;
    panel->w[slot] = w;
    panel->scale[slot] = scale;
    switch (part->kind) {
    case PACK_NVFP4:
        expand_words(PACK_NVFP4, data + first * BLOCK_ROWS / 2, cols, w);
        for (int64_t i = 0; i < segments * BLOCK_ROWS; i += SIMD_LANES)
            vf_store(scale + i, e4m3_scales(scales + segment * BLOCK_ROWS + i));
        break;
    case PACK_MXFP4:
        expand_words(PACK_MXFP4, data + first * BLOCK_ROWS / 2, cols, w);
        for (int64_t i = 0; i < segments * BLOCK_ROWS; i += SIMD_LANES)
            vf_store(scale + i, e8m0_scales(scales + segment * BLOCK_ROWS + i));
        break;
    case PACK_FP8:
        expand_words(PACK_FP8, data + first * BLOCK_ROWS, cols, w);
        panel->scale[slot] = (const float *)(const void *)scales + segment * part->scale_stride;
        break;
    case PACK_BF16:
        panel->w[slot] = data + first * BLOCK_ROWS * 2;
        panel->scale[slot] = ONES;
        break;
    case PACK_F16:
        for (int64_t i = 0; i < cols * BLOCK_ROWS; i += SIMD_LANES) {
            const uint16_t *half = (const uint16_t *)(const void *)data + first * BLOCK_ROWS + i;
            vf_store((float *)(void *)w + i, fp16_load(half));
        }
        panel->scale[slot] = ONES;
        break;
    case PACK_F32:
        panel->w[slot] = data + first * BLOCK_ROWS * 4;
        panel->scale[slot] = ONES;
        break;
    }
}

static void linear_rows(const struct linear_task *task, int64_t block, int blocks) {
    const struct fast_part *part = task->part;
    const int plain = part->kind == PACK_F32 || part->kind == PACK_F16;
    const int64_t panel_cols = PANEL_COLS / part->segment_cols * part->segment_cols;
    float *acc = (float *)(void *)task->scratch;
    const size_t acc_bytes = (size_t)task->rows * LINEAR_WIDE_BLOCKS * BLOCK_ROWS * sizeof(float);
    uint8_t *w =
        task->scratch + (size_t)TILE_ROWS * LINEAR_WIDE_BLOCKS * BLOCK_ROWS * sizeof(float);
    uint8_t *scale = w + LINEAR_WIDE_BLOCKS * LINEAR_PANEL_BYTES;
    struct panel panel = {.x_stride = task->x_stride, .acc = acc};
    panel.scale_stride = part->kind == PACK_FP8             ? part->scale_stride
                         : plain || part->kind == PACK_BF16 ? 0
                                                            : BLOCK_ROWS;
    panel.segment_steps = plain ? part->segment_cols : part->segment_cols / 2;
    memset(acc, 0, acc_bytes);
    for (int64_t first = 0; first < part->cols; first += panel_cols) {
        int64_t cols = part->cols - first < panel_cols ? part->cols - first : panel_cols;
        for (int i = 0; i < blocks; i++) {
            expand_block(part, block + i, first, cols, &panel, i,
                         w + (size_t)i * LINEAR_PANEL_BYTES,
                         (float *)(void *)(scale + (size_t)i * LINEAR_SCALE_BYTES));
        }
        panel.x = task->x + first;
        panel.steps = plain ? cols : cols / 2;
        (plain ? plain_columns : pair_columns)(&panel, blocks, task->rows);
    }
    for (int row = 0; row < task->rows; row++) {
        for (int i = 0; i < blocks; i++)
            finish_block(task, block + i, row, acc + (row * LINEAR_WIDE_BLOCKS + i) * BLOCK_ROWS);
    }
}

static bool linear_by_few(const struct linear_task *task) {
    if (task->rows > (task->part->kind == PACK_BF16 ? 1 : FEW_ROWS_LIMIT)) return false;
    switch (task->part->kind) {
    case PACK_NVFP4:
        few_nvfp4(task);
        return true;
    case PACK_MXFP4:
        few_mxfp4(task);
        return true;
    case PACK_FP8:
        few_fp8(task);
        return true;
    case PACK_BF16:
        one_bf16(task);
        return true;
    case PACK_F16:
    case PACK_F32:
        break;
    }
    return false;
}

static void kernel_linear(const struct linear_task *task) {
    if (linear_by_few(task)) return;
    int64_t end = task->block_first + task->block_count;
    for (int64_t block = task->block_first; block < end; block += LINEAR_WIDE_BLOCKS) {
        int64_t blocks = end - block < LINEAR_WIDE_BLOCKS ? end - block : LINEAR_WIDE_BLOCKS;
        linear_rows(task, block, (int)blocks);
    }
}
