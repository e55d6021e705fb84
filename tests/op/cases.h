/* The shapes that every backend's ops are tested on and timed on, as data: a case is a line. And
 * how near to the exact result they have to come. */
#ifndef IMP_TESTS_OP_CASES_H
#define IMP_TESTS_OP_CASES_H

#include "backend/backend.h"

/* What the fp32 work of an op may be off before its one rounding: parts of the result, or where a
 * sum may cancel of the sum of its magnitudes. A mistake (a value rounded on its way, a lost scale)
 * is hundreds of that. linear_k: more for each k of one of the LINEAR_SEGMENTS into which K is cut;
 * the tensor cores' fp32 sums drop bits of every product they add. */
struct bounds {
    double linear, linear_k, row, softcap, glu, head, score, value, delta, state, route;
};
enum { LINEAR_SEGMENTS = 8, SEGMENT_UNIT = 128 };
static const struct bounds CPU_BOUNDS = {.linear = 0x1p-20,
                                         .row = 0x1p-20,
                                         .softcap = 0x1p-21,
                                         .glu = 0x1p-21,
                                         .head = 0x1p-20,
                                         .score = 0x1p-21,
                                         .value = 0x1p-19,
                                         .delta = 0x1p-20,
                                         .state = 0x1p-17,
                                         .route = 0x1p-20};
static const struct bounds GPU_BOUNDS = {.linear = 0x1p-20,
                                         .linear_k = 1.1e-9,
                                         .row = 0x1p-20,
                                         .softcap = 0x1p-20,
                                         .glu = 0x1p-20,
                                         .head = 0x1p-20,
                                         .score = 0x1p-20,
                                         .value = 0x1p-8, /* weights are rounded to BF16 */
                                         .delta = 0x1p-19,
                                         .state = 0x1p-16,
                                         .route = 0x1p-20};
static inline double linear_bound(const struct bounds *b, int64_t cols) {
    return b->linear + b->linear_k * ((double)cols / LINEAR_SEGMENTS + SEGMENT_UNIT);
}

struct case_part {
    enum weight_format format;
    int64_t rows;
    int64_t scale_rows, scale_cols; /* FP8; 0: no scales */
};
enum linear_extra { NOTHING, BIAS, INPUT_SCALE };
struct linear_case {
    const char *name;
    int64_t cols;
    int count;
    struct case_part part[3];
    int has; /* of enum linear_extra */
};
static const struct linear_case LINEAR_CASES[] = {
    {"nvfp4 qkv",
     576,
     3,
     {{WEIGHT_NVFP4, 576, 0, 0}, {WEIGHT_NVFP4, 192, 0, 0}, {WEIGHT_NVFP4, 192, 0, 0}},
     NOTHING},
    {"nvfp4 down", 1536, 1, {{WEIGHT_NVFP4, 576, 0, 0}}, NOTHING},
    {"nvfp4 past a panel, odd rows", 2064, 1, {{WEIGHT_NVFP4, 37, 0, 0}}, BIAS},
    {"nvfp4 one block", 16, 1, {{WEIGHT_NVFP4, 1, 0, 0}}, NOTHING},
    {"mxfp4", 576, 1, {{WEIGHT_MXFP4, 100, 0, 0}}, BIAS},
    {"mxfp4 past a panel", 1056, 1, {{WEIGHT_MXFP4, 33, 0, 0}}, NOTHING},
    {"fp8 without scales", 320, 1, {{WEIGHT_FP8, 48, 0, 0}}, NOTHING},
    {"fp8 tensor", 576, 1, {{WEIGHT_FP8, 70, 70, 576}}, BIAS},
    {"fp8 channel", 576, 1, {{WEIGHT_FP8, 70, 1, 576}}, NOTHING},
    {"fp8 blocks", 1344, 1, {{WEIGHT_FP8, 300, 128, 128}}, NOTHING},
    {"fp8 blocks of an odd width", 70, 1, {{WEIGHT_FP8, 20, 8, 33}}, NOTHING},
    {"fp8 odd", 67, 1, {{WEIGHT_FP8, 5, 1, 67}}, BIAS},
    {"bf16", 576, 1, {{WEIGHT_BF16, 256, 0, 0}}, NOTHING},
    {"bf16 odd", 1101, 1, {{WEIGHT_BF16, 19, 0, 0}}, BIAS},
    {"bf16 one by one", 1, 1, {{WEIGHT_BF16, 1, 0, 0}}, NOTHING},
    {"f16", 300, 1, {{WEIGHT_F16, 40, 0, 0}}, NOTHING},
    {"f16 odd", 1031, 1, {{WEIGHT_F16, 17, 0, 0}}, BIAS},
    {"f32", 300, 1, {{WEIGHT_F32, 40, 0, 0}}, NOTHING},
    {"f32 odd", 1031, 1, {{WEIGHT_F32, 17, 0, 0}}, BIAS},
    {"three formats",
     192,
     3,
     {{WEIGHT_NVFP4, 24, 0, 0}, {WEIGHT_FP8, 7, 1, 192}, {WEIGHT_BF16, 40, 0, 0}},
     BIAS},
    {"nvfp4, input scaled",
     576,
     2,
     {{WEIGHT_NVFP4, 70, 0, 0}, {WEIGHT_NVFP4, 33, 0, 0}},
     BIAS | INPUT_SCALE},
    {"bf16 odd, input scaled", 131, 1, {{WEIGHT_BF16, 35, 0, 0}}, INPUT_SCALE},
};
/* As models have them, for the kernels that only such shapes reach: too slow for a CPU's tests. */
static const struct linear_case LARGE_LINEAR_CASES[] = {
    {"nvfp4 4096 x 4096", 4096, 1, {{WEIGHT_NVFP4, 4096, 0, 0}}, NOTHING},
    {"nvfp4 6144 x 2560", 2560, 1, {{WEIGHT_NVFP4, 6144, 0, 0}}, NOTHING},
    {"nvfp4 qkv of 2048",
     2048,
     3,
     {{WEIGHT_NVFP4, 4096, 0, 0}, {WEIGHT_NVFP4, 512, 0, 0}, {WEIGHT_NVFP4, 512, 0, 0}},
     NOTHING},
    {"nvfp4 down of 768", 768, 1, {{WEIGHT_NVFP4, 2048, 0, 0}}, NOTHING},
    {"nvfp4 5760 x 2880", 2880, 1, {{WEIGHT_NVFP4, 5760, 0, 0}}, BIAS},
    {"nvfp4 down of 11008", 11008, 1, {{WEIGHT_NVFP4, 4096, 0, 0}}, NOTHING},
    {"nvfp4 of uneven rows", 1040, 1, {{WEIGHT_NVFP4, 4099, 0, 0}}, BIAS},
    {"mxfp4 2880 x 2880", 2880, 1, {{WEIGHT_MXFP4, 2880, 0, 0}}, BIAS},
    {"fp8 blocks, 1536", 1536, 1, {{WEIGHT_FP8, 2048, 128, 128}}, NOTHING},
    {"fp8 blocks, uneven", 2112, 1, {{WEIGHT_FP8, 1500, 128, 128}}, BIAS},
    {"fp8 channel 4096", 4096, 1, {{WEIGHT_FP8, 3072, 1, 4096}}, NOTHING},
    {"bf16 head", 2048, 1, {{WEIGHT_BF16, 32000, 0, 0}}, NOTHING},
    {"bf16 gate_up, uneven", 2880, 2, {{WEIGHT_BF16, 1441, 0, 0}, {WEIGHT_BF16, 1441, 0, 0}}, BIAS},
    {"f16 2048", 2048, 1, {{WEIGHT_F16, 2048, 0, 0}}, NOTHING},
    {"three formats, large",
     2048,
     3,
     {{WEIGHT_NVFP4, 1024, 0, 0}, {WEIGHT_FP8, 512, 128, 128}, {WEIGHT_BF16, 520, 0, 0}},
     BIAS},
};

struct embed_case {
    struct case_part part;
    int64_t cols;
    float scale;
};
static const struct embed_case EMBED_CASES[] = {
    {{WEIGHT_BF16, 50, 0, 0}, 576, 1.0f},   {{WEIGHT_BF16, 3, 0, 0}, 17, 24.0f},
    {{WEIGHT_F16, 9, 0, 0}, 33, 1.0f},      {{WEIGHT_F32, 9, 0, 0}, 300, 0.5f},
    {{WEIGHT_FP8, 20, 1, 96}, 96, 1.0f},    {{WEIGHT_FP8, 300, 128, 128}, 257, 1.0f},
    {{WEIGHT_NVFP4, 20, 0, 0}, 2064, 3.0f}, {{WEIGHT_MXFP4, 7, 0, 0}, 96, 1.0f},
};

struct norm_case {
    int64_t cols;
    bool weight;
};
static const struct norm_case NORM_CASES[] = {{576, true}, {1, true}, {17, false}, {1000, true}};

struct post_norm_case {
    enum linear_mode mode;
    int64_t groups, cols;
    float scale;
    bool weight;
};
static const struct post_norm_case POST_NORM_CASES[] = {
    {LINEAR_STORE, 1, 576, 1.0f, true}, {LINEAR_ADD, 1, 577, 1.0f, true},
    {LINEAR_STORE, 5, 33, 0.7f, true},  {LINEAR_ADD, 3, 256, -0.25f, true},
    {LINEAR_ADD, 2, 1, 1.5f, true},     {LINEAR_STORE, 1, 70, 1.0f, false},
};

struct glu_case {
    enum glu_kind kind;
    int64_t cols;
    int step; /* 2: gate and up alternate */
    int tail; /* floats behind them in a row that are no part of it */
    float limit;
    bool row_gate;
};
static const struct glu_case GLU_CASES[] = {
    {GLU_SILU, 1536, 1, 0, 0, false},   {GLU_SILU, 13, 1, 5, 0, true},
    {GLU_SILU, 600, 2, 0, 0, false},    {GLU_GELU_TANH, 96, 1, 0, 0, false},
    {GLU_GELU_TANH, 3, 1, 2, 0, false}, {GLU_GELU_TANH, 257, 2, 1, 0, true},
    {GLU_CLAMPED, 320, 2, 0, 7, false}, {GLU_CLAMPED, 37, 1, 0, 1.5f, true},
    {GLU_SILU, 1, 1, 0, 0, true},
};

struct qkv_case {
    int heads, kv_heads, head_dim, pairs, pair_offset;
    bool norm;
    float q_scale;
    bool gate, v_from_k, v_norm, only_q; /* gate: one lies behind every q head */
    float growth, growth_tokens;
    enum kv_group group;
};
static const struct qkv_case QKV_CASES[] = {
    {9, 3, 64, 32, 32, false, 0.125f, false, false, false, false, 0, 0, KV_FULL},
    {4, 2, 128, 64, 64, true, 0.088f, false, false, false, false, 0, 0, KV_WINDOW},
    {3, 1, 80, 16, 40, false, 0.11f, true, false, false, false, 0, 0, KV_FULL},
    {2, 2, 8, 2, 4, true, 1.0f, false, true, true, false, 0, 0, KV_WINDOW},
    {2, 1, 512, 64, 256, true, 0.06f, false, true, false, false, 0, 0, KV_FULL},
    {4, 2, 256, 32, 32, true, 0.0625f, true, false, false, false, 0, 0, KV_FULL},
    {5, 1, 24, 12, 12, true, 0.2f, false, false, true, true, 0, 0, KV_WINDOW},
    {2, 2, 64, 32, 32, false, 0.125f, false, false, true, false, 0.1f, 16, KV_FULL},
    {3, 3, 6, 3, 3, true, 0.4f, true, false, true, false, -0.3f, 3, KV_WINDOW},
};

struct attention_case {
    int heads, kv_heads, head_dim, tokens, window;
    float softcap;
    bool sinks, gate;
    enum kv_group group;
};
static const struct attention_case ATTENTION_CASES[] = {
    {9, 3, 64, 200, 0, 0, false, false, KV_FULL},
    {4, 4, 128, 130, 0, 0, false, true, KV_FULL},
    {8, 1, 64, 150, 0, 0, true, false, KV_FULL},
    {10, 1, 16, 70, 0, 0, false, true, KV_FULL},
    {6, 2, 72, 140, 50, 0, false, false, KV_WINDOW},
    {2, 1, 256, 100, 64, 50, false, true, KV_FULL},
    {4, 2, 8, 193, 1, 0, true, false, KV_WINDOW},
    {5, 5, 24, 129, 65, 20, true, false, KV_WINDOW},
    {2, 2, 512, 66, 0, 0, false, false, KV_FULL},
    {8, 2, 64, 200, 128, 0, true, false, KV_WINDOW},
    {6, 3, 10, 200, 64, 3, true, true, KV_WINDOW},
    {2, 1, 32, 190, 63, 0, false, true, KV_WINDOW},
    {3, 1, 22, 90, 0, 5, true, true, KV_WINDOW},
};

static const struct attention_case LARGE_ATTENTION_CASES[] = {
    {32, 4, 128, 1100, 0, 0, false, false, KV_FULL},
    {64, 8, 64, 700, 128, 0, true, false, KV_WINDOW},
    {16, 2, 256, 900, 0, 0, false, true, KV_FULL},
    {8, 4, 256, 800, 512, 50, false, false, KV_WINDOW},
};

struct route_case {
    const char *name;
    int64_t cols;
    int experts, top_k;
    bool norm, bias, scale, renormalize;
};
static const struct route_case ROUTE_CASES[] = {
    {"route, renormalized", 96, 32, 4, true, false, false, true},
    {"route, softmax over all", 200, 60, 8, true, false, false, false},
    {"route with a bias", 96, 32, 4, true, true, false, true},
    {"route without a norm, scaled", 70, 128, 8, false, false, true, true},
    {"route to one", 33, 9, 1, true, true, true, false},
    {"route to all", 17, 5, 5, false, true, false, false},
    {"route past a piece of columns", 1025, 11, 2, true, false, true, true},
    {"route among many", 24, 512, 10, true, false, false, true},
};

struct moe_case {
    const char *name;
    enum weight_format format;
    int64_t hidden, width;
    int experts, top_k;
    enum linear_mode mode;
    enum glu_kind kind;
    float limit;
    bool interleaved, bias, alike; /* alike: every row has the same experts */
};
static const struct moe_case MOE_CASES[] = {
    {"moe nvfp4", WEIGHT_NVFP4, 96, 80, 8, 3, LINEAR_STORE, GLU_SILU, 0, false, false, false},
    {"moe nvfp4, added", WEIGHT_NVFP4, 48, 16, 12, 8, LINEAR_ADD, GLU_SILU, 0, false, false, false},
    {"moe nvfp4, all alike", WEIGHT_NVFP4, 80, 32, 4, 2, LINEAR_STORE, GLU_GELU_TANH, 0, false,
     false, true},
    {"moe mxfp4, interleaved", WEIGHT_MXFP4, 64, 32, 6, 4, LINEAR_ADD, GLU_CLAMPED, 7, true, true,
     false},
    {"moe mxfp4, biases", WEIGHT_MXFP4, 32, 64, 5, 2, LINEAR_STORE, GLU_CLAMPED, 1.5f, false, true,
     false},
    {"moe bf16, odd", WEIGHT_BF16, 37, 19, 7, 2, LINEAR_STORE, GLU_SILU, 0, false, true, false},
    {"moe bf16, interleaved", WEIGHT_BF16, 18, 21, 3, 1, LINEAR_ADD, GLU_GELU_TANH, 0, true, false,
     false},
};

static const struct moe_case LARGE_MOE_CASES[] = {
    {"moe nvfp4, 768 of 2048", WEIGHT_NVFP4, 2048, 768, 12, 8, LINEAR_ADD, GLU_SILU, 0, false,
     false, false},
    {"moe mxfp4, 2880 of 2880", WEIGHT_MXFP4, 2880, 2880, 7, 4, LINEAR_ADD, GLU_CLAMPED, 7, true,
     true, false},
    {"moe nvfp4, 512 of 1040", WEIGHT_NVFP4, 1040, 512, 12, 8, LINEAR_STORE, GLU_SILU, 0, false,
     false, true},
};

struct gdn_case {
    const char *name;
    struct gdn_shape shape; /* key heads, value heads, key_dim, value_dim */
    int tokens;
};
static const struct gdn_case GDN_CASES[] = {
    {"gdn, a head", {1, 1, 16, 16}, 130},
    {"gdn, odd dims", {2, 2, 7, 13}, 90},
    {"gdn, value heads share keys", {2, 6, 24, 20}, 140},
    {"gdn, of the size in use", {1, 2, 128, 128}, 70},
    {"gdn, one by one", {1, 3, 1, 1}, 66},
};
static const struct gdn_case LARGE_GDN_CASES[] = {{"gdn, all heads", {16, 32, 128, 128}, 150}};

#endif
