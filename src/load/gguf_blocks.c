/* The block formats of GGUF tensors, each as one function over one block, and the table of them.
 *
 * Layouts: ggml-common.h of ggml. The order of roundings is that of the PyPI package gguf, so every
 * product below is one fp32 operation and none may be fused or reordered. */
#include <string.h>

#include "base/error.h"
#include "load/gguf.h"
#include "num/fp.h"

static float half_at(const uint8_t *p) {
    return fp16_decode((uint16_t)(p[0] | p[1] << 8));
}

static void block_f32(const uint8_t *b, float *out) {
    *out = fp32_from_bits((uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 |
                          (uint32_t)b[3] << 24);
}

static void block_f16(const uint8_t *b, float *out) {
    *out = half_at(b);
}

static void block_bf16(const uint8_t *b, float *out) {
    *out = bf16_decode((uint16_t)(b[0] | b[1] << 8));
}

/* ---- blocks of 32: byte j holds elements j (low nibble) and j + 16 ---- */

/* d, qs[16] */
static void block_q4_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)((b[2 + j] & 15) - 8);
        out[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

/* d, m, qs[16] */
static void block_q4_1(const uint8_t *b, float *out) {
    float d = half_at(b), m = half_at(b + 2);
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)(b[4 + j] & 15) + m;
        out[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

/* Element i of a Q5 block: low four bits from qs, the fifth is bit i of qh. */
static int q5_code(const uint8_t *qh, const uint8_t *qs, int i) {
    int low = i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
    return low | (qh[i / 8] >> i % 8 & 1) << 4;
}

/* d, qh[4], qs[16] */
static void block_q5_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(q5_code(b + 2, b + 6, i) - 16);
}

/* d, m, qh[4], qs[16] */
static void block_q5_1(const uint8_t *b, float *out) {
    float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < 32; i++) out[i] = d * (float)q5_code(b + 4, b + 8, i) + m;
}

/* d, qs[32] signed */
static void block_q8_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    for (int i = 0; i < 32; i++) out[i] = (float)(int8_t)b[2 + i] * d;
}

/* ---- blocks of 256 ---- */

/* Two bits of element i: 32 bytes hold four runs of 32 elements, one at each shift. */
static int two_bits(const uint8_t *qs, int i) {
    return qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}

/* scales[16] (scale low, minimum high), qs[64], d, dmin */
static void block_q2_k(const uint8_t *b, float *out) {
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int s = 0; s < 16; s++) {
        float scale = d * (float)(b[s] & 15), minimum = dmin * (float)(b[s] >> 4);
        for (int i = 16 * s; i < 16 * s + 16; i++) {
            out[i] = scale * (float)two_bits(b + 16, i) - minimum;
        }
    }
}

/* hmask[32], qs[64], scales[12], d. Scale s has its low four bits in byte s % 8 and its high two in
 * byte 8 + s % 4; a mask bit that is clear takes 4 off the code. */
static void block_q3_k(const uint8_t *b, float *out) {
    const uint8_t *scales = b + 96;
    float d = half_at(b + 108);
    for (int s = 0; s < 16; s++) {
        int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
        int code = (low | (scales[8 + s % 4] >> s / 4 * 2 & 3) << 4) - 32;
        float scale = d * (float)code;
        for (int i = 16 * s; i < 16 * s + 16; i++) {
            int high = b[i % 32] >> i / 32 & 1;
            out[i] = scale * (float)(two_bits(b + 32, i) - (high ? 0 : 4));
        }
    }
}

/* Six-bit scale and minimum of sub-block s of Q4_K and Q5_K, from 12 bytes: the first four of each
 * lie whole in bytes 0-3 and 4-7, whose two top bits belong to the last four. */
static void six_bits(const uint8_t *p, int s, int *scale, int *minimum) {
    if (s < 4) {
        *scale = p[s] & 63;
        *minimum = p[s + 4] & 63;
    } else {
        *scale = (p[s + 4] & 15) | (p[s - 4] >> 6) << 4;
        *minimum = p[s + 4] >> 4 | (p[s] >> 6) << 4;
    }
}

/* d, dmin, scales[12], qs[128]: 32 bytes hold two runs of 32 elements */
static void block_q4_k(const uint8_t *b, float *out) {
    float d = half_at(b), dmin = half_at(b + 2);
    for (int s = 0; s < 8; s++) {
        int scale, minimum;
        six_bits(b + 4, s, &scale, &minimum);
        float ds = d * (float)scale, dm = dmin * (float)minimum;
        const uint8_t *qs = b + 16 + s / 2 * 32;
        for (int l = 0; l < 32; l++) out[32 * s + l] = ds * (float)(qs[l] >> s % 2 * 4 & 15) - dm;
    }
}

/* d, dmin, scales[12], qh[32], qs[128]: bit s of qh[l] is the fifth bit of sub-block s */
static void block_q5_k(const uint8_t *b, float *out) {
    float d = half_at(b), dmin = half_at(b + 2);
    for (int s = 0; s < 8; s++) {
        int scale, minimum;
        six_bits(b + 4, s, &scale, &minimum);
        float ds = d * (float)scale, dm = dmin * (float)minimum;
        const uint8_t *qh = b + 16, *qs = b + 48 + s / 2 * 32;
        for (int l = 0; l < 32; l++) {
            int code = (qs[l] >> s % 2 * 4 & 15) | (qh[l] >> s & 1) << 4;
            out[32 * s + l] = ds * (float)code - dm;
        }
    }
}

/* ql[128], qh[64], scales[16] signed, d */
static void block_q6_k(const uint8_t *b, float *out) {
    float d = half_at(b + 208);
    for (int s = 0; s < 16; s++) {
        float scale = d * (float)(int8_t)b[192 + s];
        for (int i = 16 * s; i < 16 * s + 16; i++) {
            int low = b[i / 128 * 64 + i % 64] >> i / 64 % 2 * 4 & 15;
            out[i] = scale * (float)((low | two_bits(b + 128, i) << 4) - 32);
        }
    }
}

/* ---- FP4: codes are doubled and scales halved, which keeps -0 out: code 8 gives +0 ---- */

static const int8_t twice_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* e, qs[16]; elements as Q4_0 */
static void block_mxfp4(const uint8_t *b, float *out) {
    uint32_t bits = b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23;
    float d = fp32_from_bits(bits); /* 2^(e - 128); byte 255 is no NaN here */
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)twice_e2m1[b[1 + j] & 15];
        out[j + 16] = d * (float)twice_e2m1[b[1 + j] >> 4];
    }
}

/* Half an E4M3 value without its sign; 0x7F counts as 0, and 0xFF as the 480 its bits would be. */
static float half_ue4m3(uint8_t byte) {
    if (byte == 0x7F) return 0;
    if (byte == 0xFF) return 240;
    return e4m3_decode(byte & 0x7F) * 0.5f;
}

/* d[4], qs[32]: four blocks of 16; byte j of a block holds elements j and j + 8 */
static void block_nvfp4(const uint8_t *b, float *out) {
    for (int s = 0; s < 4; s++) {
        float d = half_ue4m3(b[s]);
        const uint8_t *qs = b + 4 + 8 * s;
        for (int j = 0; j < 8; j++) {
            out[16 * s + j] = d * (float)twice_e2m1[qs[j] & 15];
            out[16 * s + 8 + j] = d * (float)twice_e2m1[qs[j] >> 4];
        }
    }
}

/* ---- the table ---- */

struct block_format {
    const char *name;
    int elements;
    size_t bytes;                             /* 0: known by name only */
    void (*decode)(const uint8_t *, float *); /* one block */
};

/* By the file's number. Numbers without a row were withdrawn or never given. */
static const struct block_format formats[] = {
    [GGUF_F32] = {"F32", 1, 4, block_f32},
    [GGUF_F16] = {"F16", 1, 2, block_f16},
    [GGUF_Q4_0] = {"Q4_0", 32, 18, block_q4_0},
    [GGUF_Q4_1] = {"Q4_1", 32, 20, block_q4_1},
    [GGUF_Q5_0] = {"Q5_0", 32, 22, block_q5_0},
    [GGUF_Q5_1] = {"Q5_1", 32, 24, block_q5_1},
    [GGUF_Q8_0] = {"Q8_0", 32, 34, block_q8_0},
    [9] = {"Q8_1", 0, 0, NULL},
    [GGUF_Q2_K] = {"Q2_K", 256, 84, block_q2_k},
    [GGUF_Q3_K] = {"Q3_K", 256, 110, block_q3_k},
    [GGUF_Q4_K] = {"Q4_K", 256, 144, block_q4_k},
    [GGUF_Q5_K] = {"Q5_K", 256, 176, block_q5_k},
    [GGUF_Q6_K] = {"Q6_K", 256, 210, block_q6_k},
    [15] = {"Q8_K", 0, 0, NULL},
    [16] = {"IQ2_XXS", 0, 0, NULL},
    [17] = {"IQ2_XS", 0, 0, NULL},
    [18] = {"IQ3_XXS", 0, 0, NULL},
    [19] = {"IQ1_S", 0, 0, NULL},
    [20] = {"IQ4_NL", 0, 0, NULL},
    [21] = {"IQ3_S", 0, 0, NULL},
    [22] = {"IQ2_S", 0, 0, NULL},
    [23] = {"IQ4_XS", 0, 0, NULL},
    [24] = {"I8", 0, 0, NULL},
    [25] = {"I16", 0, 0, NULL},
    [26] = {"I32", 0, 0, NULL},
    [27] = {"I64", 0, 0, NULL},
    [28] = {"F64", 0, 0, NULL},
    [29] = {"IQ1_M", 0, 0, NULL},
    [GGUF_BF16] = {"BF16", 1, 2, block_bf16},
    [34] = {"TQ1_0", 0, 0, NULL},
    [35] = {"TQ2_0", 0, 0, NULL},
    [GGUF_MXFP4] = {"MXFP4", 32, 17, block_mxfp4},
    [GGUF_NVFP4] = {"NVFP4", 64, 36, block_nvfp4},
    [41] = {"Q1_0", 0, 0, NULL},
};

static const struct block_format *format_of(uint32_t type) {
    static const struct block_format none = {0};
    return type < sizeof formats / sizeof *formats ? &formats[type] : &none;
}

const char *gguf_type_name(uint32_t type) {
    const char *name = format_of(type)->name;
    return name ? name : "unknown type";
}

int gguf_block_elements(enum gguf_type type) {
    return format_of((uint32_t)type)->elements;
}

size_t gguf_block_bytes(enum gguf_type type) {
    return format_of((uint32_t)type)->bytes;
}

void gguf_dequantize(const struct gguf_tensor *t, int64_t first, int64_t n, float *out) {
    const struct block_format *f = format_of((uint32_t)t->type);
    check(f->decode != NULL && first >= 0 && n >= 0);
    check(first % f->elements == 0 && n % f->elements == 0);
    size_t start = (size_t)(first / f->elements), count = (size_t)(n / f->elements);
    check(start + count <= t->bytes / f->bytes);
    const uint8_t *block = t->data + start * f->bytes;
    for (size_t i = 0; i < count; i++) {
        f->decode(block, out);
        block += f->bytes;
        out += f->elements;
    }
}
