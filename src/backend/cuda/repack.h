/* A stack's bytes, made of rows as they are stored: which row comes where, how weights are coded,
 * and what each lane of a chunk holds. The kernel that packs is pack_lane in every thread;
 * tests/unit/pack_layout.c reads back on the host what it leaves. */
#ifndef IMP_BACKEND_CUDA_REPACK_H
#define IMP_BACKEND_CUDA_REPACK_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/cuda/act.h"
#include "backend/cuda/nvfp4_layout.h"
#include "backend/cuda/pack_layout.h"
#include "load/weight.h"
#include "num/fp.h"

/* ---- rows ---- */

/* Which row of which of the stack's parts a packed row is; index -1: padding. */
struct packed_row {
    int index;
    int64_t row;
};
/* Tiles of parts with so many rows each. Paired: both have as many, and the tiles cover the padding
 * of an act of them too. */
INLINE_FN int64_t packed_tiles(const int64_t *rows, int count, bool paired) {
    int64_t tiles = 0;
    if (paired) return act_stride(rows[0]) / 8;
    for (int i = 0; i < count; i++) tiles += (rows[i] + TILE_ROWS - 1) / TILE_ROWS;
    return tiles;
}
INLINE_FN struct packed_row packed_row_at(const int64_t *rows, int count, bool paired,
                                          int64_t row) {
    struct packed_row r = {-1, 0};
    if (paired) {
        const int64_t k = act_column(row / TILE_ROWS * 8 + row % 8);
        if (k < rows[0]) r.index = (int)(row % TILE_ROWS / 8), r.row = k;
        return r;
    }
    for (int i = 0; i < count; i++) {
        const int64_t padded = (rows[i] + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
        if (row < rows[i]) r.index = i, r.row = row;
        if (row < padded) break;
        row -= padded;
    }
    return r;
}

/* ---- values ---- */

/* Plane `plane` of a value: its leading eight bits, the next eight, the last. Their sum is exact
 * where the value has no bit below 2^-133, which is BF16's last. */
INLINE_FN uint16_t value_plane(float x, int plane) {
    for (;; plane--) {
        const uint32_t head = fp32_bits(x) & 0xFFFF0000u;
        if (x != x) return 0x7FC0; /* its payload may lie in the bits that are cut off */
        if (plane == 0) return (uint16_t)(head >> 16);
        if (!(fabsf(x) < INFINITY)) return 0;
        x -= fp32_from_bits(head);
    }
}

/* E4M3's magnitude as five bits of exponent and three of mantissa: its value is 2^(e - 21) (1 + m /
 * 8), and 0 is said by the codes alone. */
INLINE_FN uint32_t scale_of_e4m3(int b) {
    int e = (b >> 3) - 7, m = b & 7;
    if (b == 0) return 0;
    if (b >> 3 == 0) { /* a subnormal made normal */
        e = m >= 4 ? -7 : m >= 2 ? -8 : -9;
        m = m >= 4 ? (m & 3) * 2 : m >= 2 ? (m & 1) * 4 : 0;
    }
    return (uint32_t)(e + 21) << 3 | (uint32_t)m;
}
/* MXFP4's scales are powers of two, here relative to the largest of the matrix. They fit if none is
 * smaller by more than 2^MX_SPAN; the rows' multiplier then has 2^mx_exponent besides. */
enum { MX_SPAN = 30 };
INLINE_FN uint32_t scale_of_e8m0(int e, int top) {
    return (uint32_t)(MX_SPAN - (top - e)) << 3;
}
INLINE_FN int mx_exponent(int top) {
    return top - 127 - 9 + 8;
}

/* Where bit b of code a of a half word goes: see expand_fp4. */
INLINE_FN uint32_t place_code(uint32_t code, int a, int half) {
    const int at[4][4] = {{6, 7, 8, 15}, {12, 13, 14, 21}, {2, 3, 4, 11}, {0, 1, 10, 9}};
    uint32_t v = 0;
    for (int b = 0; b < 4; b++) v |= (code >> b & 1) << ((at[a][b] + 16 * half) & 31);
    return v;
}

/* ---- packing ---- */

struct pack_job {
    const uint8_t *raw, *scales; /* rows as stored, in packed order */
    size_t raw_row, scales_row;  /* bytes from one to the next */
    enum weight_format format;
    int64_t cols;
    int mx_top, chunks, planes;
    int fp8_cols; /* columns of one scale, where FP8 has them along K */
    uint8_t *to;  /* the first tile */
    struct row_info *row;
};

INLINE_FN float raw_value(const struct pack_job *j, int64_t row, int64_t k) {
    const uint8_t *raw = j->raw + (size_t)row * j->raw_row;
    const uint8_t *scales = j->scales + (size_t)row * j->scales_row;
    if (k >= j->cols) return 0;
    switch (j->format) {
    case WEIGHT_F32:
        return ((const float *)raw)[k];
    case WEIGHT_F16:
        return fp16_decode(((const uint16_t *)raw)[k]);
    case WEIGHT_BF16:
        return bf16_decode(((const uint16_t *)raw)[k]);
    case WEIGHT_FP8:
        return e4m3_decode(raw[k]) * ((const float *)scales)[k / j->fp8_cols];
    case WEIGHT_NVFP4:
    case WEIGHT_MXFP4:
        break;
    }
    const uint8_t byte = raw[k / 2];
    return e2m1_decode(k & 1 ? byte >> 4 : byte & 15) * e8m0_decode(scales[k / 32]);
}

/* The code of (row, k) with the sign of its scale, or 0 where the scale is. */
INLINE_FN uint32_t fp4_code(const struct pack_job *j, int64_t row, int64_t k) {
    if (k >= j->cols) return 0;
    const uint8_t byte = j->raw[(size_t)row * j->raw_row + (size_t)k / 2];
    const uint32_t code = k & 1 ? byte >> 4 : byte & 15;
    if (j->format == WEIGHT_MXFP4) return code;
    const uint8_t scale = j->scales[(size_t)row * j->scales_row + (size_t)k / 16];
    if ((scale & 0x7F) == 0) return 0;
    return code ^ (scale >> 4 & 8);
}

/* The scale of k's block, re-coded. A NaN spoils its row. */
INLINE_FN uint32_t fp4_scale(const struct pack_job *j, int64_t row, int64_t k) {
    const uint8_t *scales = j->scales + (size_t)row * j->scales_row;
    if (k >= j->cols) return 0;
    if (j->format == WEIGHT_MXFP4) {
        const int e = scales[k / 32];
        if (e == 255) j->row[row].multiplier = NAN;
        return e == 255 ? 0 : scale_of_e8m0(e, j->mx_top);
    }
    const int b = scales[k / 16] & 0x7F;
    if (b == 0x7F) j->row[row].multiplier = NAN;
    return scale_of_e4m3(b);
}

/* The first of the four columns that a lane has of instruction `step`. */
INLINE_FN int64_t lane_column(int64_t k0, int step, int lane) {
    return k0 + step / 4 * 64 + lane % 4 * 16 + step % 4 * 4;
}

INLINE_FN void pack_fp4(const struct pack_job *j, int64_t row, int64_t k0, int lane, uint8_t *to) {
    for (int step = 0; step < 8; step++) {
        const int64_t k = lane_column(k0, step, lane);
        uint32_t v = 0;
        for (int h = 0; h < 2; h++) {
            v |= place_code(fp4_code(j, row, k + h), 0, h);
            v |= place_code(fp4_code(j, row + 8, k + h), 1, h);
            v |= place_code(fp4_code(j, row, k + 2 + h), 2, h);
            v |= place_code(fp4_code(j, row + 8, k + 2 + h), 3, h);
        }
        *(uint32_t *)(to + step / 4 * 512 + lane * 16 + step % 4 * 4) = v;
        for (int q = 0; step % 4 == 0 && q < 2; q++) {
            const uint32_t s = fp4_scale(j, row + 8 * q, k);
            to[1024 + lane * 4 + step / 4 * 2 + q] = (uint8_t)((s & 15) << 4 | s >> 4);
        }
    }
}

INLINE_FN void pack_fp8(const struct pack_job *j, int64_t row, int64_t k0, int lane, uint8_t *to) {
    for (int step = 0; step < 8; step++) {
        const int64_t k = lane_column(k0, step, lane);
        for (int i = 0; i < 8; i++) { /* word i / 4; bytes: row k, row + 8 k, row k + 1, ... */
            const int64_t r = row + 8 * (i & 1), at = k + i / 4 * 2 + (i >> 1 & 1);
            const uint8_t code = at < j->cols ? j->raw[(size_t)r * j->raw_row + (size_t)at] : 0;
            if ((code & 0x7F) == 0x7F) j->row[r].multiplier = NAN;
            to[step / 2 * 512 + lane * 16 + step % 2 * 8 + i] = code;
        }
    }
}

INLINE_FN void pack_bf16(const struct pack_job *j, int64_t row, int64_t k0, int plane, int lane,
                         uint8_t *to) {
    for (int step = 0; step < 4; step++) {
        const int64_t k = lane_column(k0, step, lane);
        uint16_t *q = (uint16_t *)(to + step * 512 + lane * 16);
        for (int a = 0; a < 4; a++)
            for (int h = 0; h < 2; h++)
                q[a * 2 + h] =
                    value_plane(raw_value(j, row + (a & 1) * 8, k + h + (a >> 1) * 2), plane);
    }
}

INLINE_FN void pack_nvfp4(const struct pack_job *j, int64_t tile_row, int64_t k0, int lane,
                          uint8_t *to) {
    const struct nvfp4_rows from = {j->raw + tile_row * j->raw_row,
                                    j->scales + tile_row * j->scales_row, j->raw_row, j->scales_row,
                                    j->cols};
    if (nvfp4_pack_lane(&from, k0, lane, to))
        j->row[tile_row + nvfp4_a_scale_row(lane)].multiplier = NAN;
}

/* What lane `lane` has of chunk `chunk`, all tiles' chunks and their planes counted in order. */
INLINE_FN void pack_lane(enum pack_format f, const struct pack_job *j, int64_t chunk, int lane) {
    const int per_tile = j->chunks * j->planes, of_tile = (int)(chunk % per_tile);
    const int c = of_tile / j->planes, plane = of_tile % j->planes;
    const int64_t tile = chunk / per_tile, row = tile * TILE_ROWS + lane / 4;
    const int64_t k0 = (int64_t)c * pack_chunk_k(f);
    int q = 0;
    while (segment_begin(q + 1, j->chunks) <= c) q++;
    const int t = (c - segment_begin(q, j->chunks)) * j->planes + plane;
    uint8_t *to =
        j->to + (tile * per_tile + stack_place(q, t, j->chunks, j->planes)) * pack_bytes(f);
    if (f == PACK_FP4) pack_fp4(j, row, k0, lane, to);
    if (f == PACK_FP8) pack_fp8(j, row, k0, lane, to);
    if (f == PACK_BF16) pack_bf16(j, row, k0, plane, lane, to);
    if (f == PACK_NVFP4) pack_nvfp4(j, tile * TILE_ROWS, k0, lane, to);
}

#endif
