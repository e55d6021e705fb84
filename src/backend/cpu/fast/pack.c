/* Packs weights for the kernels; the layouts stand at enum pack_kind.
 *
 * What a kernel cannot express is moved to where it can: a negative block scale turns the signs of
 * its codes, a NaN among FP8 codes or block scales (the whole output is NaN then) becomes a NaN
 * multiplier of its row. FP8 scales that do not cover whole groups of columns make the weight fp32.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/cpu/fast/fast.h"
#include "base/error.h"
#include "base/str.h"
#include "num/fp.h"
#include "num/nvfp4.h"

enum { HUGE_PAGE = 2 << 20, TASK_BLOCKS = 16 };

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

/* Columns of a segment of FP8: as many whole groups of four as divide the columns of one scale; 0
 * where there are none. */
static int64_t fp8_segment(const struct weight *w) {
    if (w->scale == NULL || w->scale_cols >= w->cols) return PLAIN_SEGMENT;
    for (int64_t n = PLAIN_SEGMENT; n >= 4; n -= 4) {
        if (w->scale_cols % n == 0) return n;
    }
    return 0;
}

static enum pack_kind pack_kind(const struct weight *w) {
    switch (w->format) {
    case WEIGHT_F32:
        return PACK_F32;
    case WEIGHT_F16:
        return PACK_F16;
    case WEIGHT_BF16:
        return PACK_BF16;
    case WEIGHT_FP8:
        return fp8_segment(w) ? PACK_FP8 : PACK_F32;
    case WEIGHT_NVFP4:
        return PACK_NVFP4;
    case WEIGHT_MXFP4:
        return PACK_MXFP4;
    }
    check(!"unknown weight format");
    return PACK_F32;
}

/* Everything of a part but where it lies. */
static struct fast_part plan_part(const struct weight *w) {
    struct fast_part p = {.kind = pack_kind(w), .rows = w->rows, .cols = w->cols};
    int64_t scale_bytes = 0, code_bytes = 0;
    p.blocks = (w->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    p.segment_cols = PLAIN_SEGMENT;
    switch (p.kind) {
    case PACK_NVFP4:
    case PACK_MXFP4:
        p.segment_cols = p.kind == PACK_NVFP4 ? NVFP4_BLOCK : MXFP4_BLOCK;
        check(p.cols % p.segment_cols == 0);
        code_bytes = p.cols / 2 * BLOCK_ROWS;
        scale_bytes = p.cols / p.segment_cols * BLOCK_ROWS;
        break;
    case PACK_FP8:
        p.segment_cols = fp8_segment(w);
        p.scale_stride = w->scale && w->scale_cols < w->cols ? BLOCK_ROWS : 0;
        p.cols = round_up(p.cols, 4);
        code_bytes = p.cols * BLOCK_ROWS;
        scale_bytes = (p.scale_stride ? round_up(p.cols, p.segment_cols) / p.segment_cols : 1) *
                      BLOCK_ROWS * (int64_t)sizeof(float);
        break;
    case PACK_BF16:
        p.cols = round_up(p.cols, 2);
        code_bytes = p.cols * 2 * BLOCK_ROWS;
        break;
    case PACK_F16:
        code_bytes = p.cols * 2 * BLOCK_ROWS;
        break;
    case PACK_F32:
        code_bytes = p.cols * 4 * BLOCK_ROWS;
        break;
    }
    p.segments = (p.cols + p.segment_cols - 1) / p.segment_cols;
    p.scale_offset = (size_t)round_up(code_bytes, ALIGN_BYTES);
    p.block_bytes = p.scale_offset + (size_t)round_up(scale_bytes, ALIGN_BYTES);
    return p;
}

static size_t part_bytes(const struct fast_part *p) {
    return (size_t)p->blocks * (p->block_bytes + 2 * BLOCK_ROWS * sizeof(float));
}

size_t fast_matrix_bytes(struct backend *be, const struct weight *parts, int count) {
    (void)be;
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        struct fast_part p = plan_part(&parts[i]);
        total += part_bytes(&p);
    }
    return total;
}

/* ---- one block ---- */

struct pack_job {
    struct fast_matrix *matrix;
    const struct weight *weights;
    const float *const *bias;
};

/* Eight codes of one row: four bytes, even k low, to the even k's in the low half, ascending. */
static inline uint32_t interleave_fp4(uint32_t u) {
    uint32_t even = u & 0x0F0F0F0Fu, odd = u >> 4 & 0x0F0F0F0Fu;
    even = (even | even >> 4) & 0x00FF00FFu;
    odd = (odd | odd >> 4) & 0x00FF00FFu;
    return ((even | even >> 8) & 0xFFFFu) | (odd | odd >> 8) << 16;
}

static void pack_fp4(const struct fast_part *p, const struct weight *w, int64_t first, int rows,
                     uint8_t *out, float *multiplier) {
    const int64_t groups = p->segments, words = p->segment_cols / 8, row_bytes = p->cols / 2;
    const uint8_t *codes = (const uint8_t *)w->data + first * row_bytes;
    const uint8_t *scales = w->block_scale + first * groups;
    for (int64_t c = 0; c < groups * words; c++) {
        for (int r = 0; r < rows; r++) {
            uint32_t word;
            memcpy(&word, codes + r * row_bytes + c * 4, sizeof word);
            word = interleave_fp4(word);
            memcpy(out + (c * BLOCK_ROWS + r) * 4, &word, sizeof word);
        }
    }
    uint8_t *out_scale = out + p->scale_offset;
    for (int64_t g = 0; g < groups; g++) {
        for (int r = 0; r < rows; r++) {
            uint8_t s = scales[r * groups + g], nan = p->kind == PACK_NVFP4 ? 0x7F : 0xFF;
            bool negative = p->kind == PACK_NVFP4 && s & 0x80;
            if (negative) s &= 0x7F;
            if (s == nan) multiplier[r] = NAN;
            out_scale[g * BLOCK_ROWS + r] = s == nan ? 0 : s;
            for (int64_t c = g * words; negative && c < (g + 1) * words; c++) {
                for (int i = 0; i < 4; i++) out[(c * BLOCK_ROWS + r) * 4 + i] ^= 0x88;
            }
        }
    }
}

static void pack_fp8(const struct fast_part *p, const struct weight *w, int64_t first, int rows,
                     uint8_t *out, float *multiplier) {
    for (int r = 0; r < rows; r++) {
        const uint8_t *codes = (const uint8_t *)w->data + (first + r) * w->cols;
        for (int64_t k = 0; k < w->cols; k++) {
            uint8_t code = codes[k];
            if ((code & 0x7F) == 0x7F) {
                multiplier[r] = NAN;
                code = 0;
            }
            /* half k & 1, byte k / 2 & 1 of the word */
            out[(k / 4 * BLOCK_ROWS + r) * 4 + (k & 1) * 2 + (k >> 1 & 1)] = code;
        }
    }
    float *scale = (float *)(void *)(out + p->scale_offset);
    int64_t per_row = w->scale ? (w->cols + w->scale_cols - 1) / w->scale_cols : 0;
    for (int64_t s = 0; s < (p->scale_stride ? p->segments : 1); s++) {
        for (int r = 0; r < rows; r++) {
            float x = 1.0f;
            if (w->scale)
                x = w->scale[(first + r) / w->scale_rows * per_row +
                             s * p->segment_cols / w->scale_cols];
            scale[s * BLOCK_ROWS + r] = x;
        }
    }
}

static void pack_bf16(const struct weight *w, int64_t first, int rows, uint8_t *out) {
    const int64_t whole = w->cols / 2;
    const uint16_t *data = (const uint16_t *)w->data + first * w->cols;
    for (int64_t c = 0; c < whole; c++) {
        for (int r = 0; r < rows; r++)
            memcpy(out + (c * BLOCK_ROWS + r) * 4, data + r * w->cols + 2 * c, 4);
    }
    if (w->cols % 2 == 0) return;
    for (int r = 0; r < rows; r++)
        memcpy(out + (whole * BLOCK_ROWS + r) * 4, data + r * w->cols + 2 * whole, 2);
}

static void pack_f16(const struct weight *w, int64_t first, int rows, uint8_t *out) {
    const uint16_t *data = (const uint16_t *)w->data + first * w->cols;
    for (int64_t k = 0; k < w->cols; k++) {
        for (int r = 0; r < rows; r++)
            memcpy(out + (k * BLOCK_ROWS + r) * 2, data + r * w->cols + k, 2);
    }
}

/* Also FP8 whose scales fit no segment. */
static void pack_f32(const struct weight *w, int64_t first, int rows, uint8_t *out) {
    float *row = mem_alloc((size_t)w->cols * sizeof *row);
    for (int r = 0; r < rows; r++) {
        weight_dequantize_row(w, first + r, row);
        for (int64_t k = 0; k < w->cols; k++)
            memcpy(out + (k * BLOCK_ROWS + r) * 4, &row[k], sizeof *row);
    }
    free(row);
}

static void pack_block(const struct fast_part *p, const struct weight *w, const float *bias,
                       int64_t block) {
    const int64_t first = block * BLOCK_ROWS;
    const int rows = w->rows - first < BLOCK_ROWS ? (int)(w->rows - first) : BLOCK_ROWS;
    uint8_t *out = p->data + (size_t)block * p->block_bytes;
    float *multiplier = p->multiplier + first;
    /* 2^8 is what the kernels leave out of an E4M3 scale; fp32 rows have everything in them. */
    float last = p->kind == PACK_NVFP4 ? w->multiplier * 256.0f : w->multiplier;
    if (p->kind == PACK_F32) last = 1.0f;
    memset(out, 0, p->block_bytes);
    for (int r = 0; r < BLOCK_ROWS; r++) {
        multiplier[r] = last;
        p->bias[first + r] = bias && r < rows ? bias[first + r] : 0.0f;
    }
    switch (p->kind) {
    case PACK_NVFP4:
    case PACK_MXFP4:
        pack_fp4(p, w, first, rows, out, multiplier);
        break;
    case PACK_FP8:
        pack_fp8(p, w, first, rows, out, multiplier);
        break;
    case PACK_BF16:
        pack_bf16(w, first, rows, out);
        break;
    case PACK_F16:
        pack_f16(w, first, rows, out);
        break;
    case PACK_F32:
        pack_f32(w, first, rows, out);
        break;
    }
}

static void pack_task(void *ctx, int task, int thread) {
    (void)thread;
    const struct pack_job *job = ctx;
    const struct fast_matrix *m = job->matrix;
    int64_t block = (int64_t)task * TASK_BLOCKS, end = block + TASK_BLOCKS;
    if (end > m->blocks) end = m->blocks;
    for (int i = 0; block < end; block++) {
        while (block >= m->part[i].first_block + m->part[i].blocks) i++;
        pack_block(&m->part[i], &job->weights[i], job->bias ? job->bias[i] : NULL,
                   block - m->part[i].first_block);
    }
}

/* ---- the matrix ---- */

/* Large weights in huge pages where the system gives them: fewer page faults now, fewer misses of
 * the address cache later. */
static void *packed_memory(size_t bytes) {
    size_t align = bytes >= 2 * (size_t)HUGE_PAGE ? HUGE_PAGE : ALIGN_BYTES;
    size_t size = (bytes + align - 1) / align * align;
    void *memory = aligned_alloc(align, size);
#ifdef MADV_HUGEPAGE
    if (memory && align == HUGE_PAGE) madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
}

int fast_matrix_create(struct backend *be, const struct weight *parts, int count,
                       const float *const *bias, struct matrix **out, struct imp_error *err) {
    struct fast_backend *fast = (struct fast_backend *)be;
    const size_t bytes = fast_matrix_bytes(be, parts, count);
    struct fast_matrix *m = mem_zero(1, sizeof *m + (size_t)count * sizeof m->part[0]);
    int rc = cpu_input_make(&fast->cpu, parts, count, &m->input, err);
    if (rc == 0) {
        m->memory = packed_memory(bytes);
        if (m->memory == NULL) rc = error_memory(err, bytes);
    }
    if (rc < 0) {
        fast_matrix_free(be, &m->base);
        return rc;
    }
    m->base = (struct matrix){.cols = parts[0].cols, .bytes = bytes};
    m->count = count;
    uint8_t *next = m->memory;
    for (int i = 0; i < count; i++) {
        struct fast_part *p = &m->part[i];
        *p = plan_part(&parts[i]);
        check(parts[i].cols == m->base.cols);
        p->first_row = m->base.rows;
        p->first_block = m->blocks;
        p->data = next;
        p->multiplier = (float *)(void *)(next + (size_t)p->blocks * p->block_bytes);
        p->bias = p->multiplier + p->blocks * BLOCK_ROWS;
        next += part_bytes(p);
        m->base.rows += p->rows;
        m->blocks += p->blocks;
    }
    struct pack_job job = {m, parts, bias};
    pool_run(fast->cpu.pool, pack_task, &job, (int)((m->blocks + TASK_BLOCKS - 1) / TASK_BLOCKS));
    *out = &m->base;
    return 0;
}

void fast_matrix_free(struct backend *be, struct matrix *matrix) {
    (void)be;
    if (matrix == NULL) return;
    free(((struct fast_matrix *)matrix)->memory);
    free(matrix);
}
