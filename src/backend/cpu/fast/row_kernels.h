/* Norm and GLU of one row, and the functions they and attention share; see linear_kernels.h. */
#include <math.h>

/* e^x to within 2 units of the last place; 0 below -104, Inf above 89, NaN stays. */
static inline vf vexp(vf x) {
    x = vf_min(vf_set1(89.0f), vf_max(vf_set1(-105.0f), x));
    vf n = vf_round(vf_mul(x, vf_set1(1.44269504088896341f)));
    /* ln 2 in two parts, the first short enough for n times it to be exact */
    vf r = vf_fma(n, vf_set1(-0.693359375f), x);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf p = vf_set1(1.0f / 5040);
    p = vf_fma(p, r, vf_set1(1.0f / 720));
    p = vf_fma(p, r, vf_set1(1.0f / 120));
    p = vf_fma(p, r, vf_set1(1.0f / 24));
    p = vf_fma(p, r, vf_set1(1.0f / 6));
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_add(vf_fma(p, vf_mul(r, r), r), vf_set1(1.0f));
    return vf_ldexp(p, n);
}

/* tanh: an odd polynomial near 0 (minimax, from the Cephes library), else by e^2x. */
static inline vf vtanh(vf x) {
    vf one = vf_set1(1.0f), z = vf_mul(x, x), p = vf_set1(-5.70498872745e-3f);
    p = vf_fma(p, z, vf_set1(2.06390887954e-2f));
    p = vf_fma(p, z, vf_set1(-5.37397155531e-2f));
    p = vf_fma(p, z, vf_set1(1.33314422036e-1f));
    p = vf_fma(p, z, vf_set1(-3.33332819422e-1f));
    p = vf_fma(vf_mul(p, z), x, x);
    vf far = vf_sub(one, vf_div(vf_set1(2.0f), vf_add(vexp(vf_add(x, x)), one)));
    return vf_select_below(x, 0.625f, p, far);
}

/* The last cols % SIMD_LANES elements, zeros behind them. */
static inline vf load_tail(const float *p, int64_t count) {
    float lanes[SIMD_LANES] = {0};
    memcpy(lanes, p, (size_t)count * sizeof *p);
    return vf_load(lanes);
}
static inline void store_tail(uint16_t *p, vf x, int64_t count) {
    uint16_t lanes[SIMD_LANES];
    bf16_store(lanes, x);
    memcpy(p, lanes, (size_t)count * sizeof *p);
}

static void kernel_norm_row(const float *h, const float *weight, float eps, int64_t cols,
                            uint16_t *out) {
    const int64_t whole = cols / SIMD_LANES * SIMD_LANES, left = cols - whole;
    vf sum[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    for (int64_t k = 0; k < whole; k += SIMD_LANES) {
        vf x = vf_load(h + k);
        vf *s = &sum[k / SIMD_LANES % 4];
        *s = vf_fma(x, x, *s);
    }
    if (left) {
        vf x = load_tail(h + whole, left);
        sum[0] = vf_fma(x, x, sum[0]);
    }
    float total = vf_sum(vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3])));
    vf scale = vf_set1(1.0f / sqrtf(total / (float)cols + eps)), one = vf_set1(1.0f);
    for (int64_t k = 0; k < whole; k += SIMD_LANES) {
        vf w = weight ? vf_load(weight + k) : one;
        bf16_store(out + k, vf_mul(vf_mul(vf_load(h + k), scale), w));
    }
    if (left == 0) return;
    vf w = weight ? load_tail(weight + whole, left) : one;
    store_tail(out + whole, vf_mul(vf_mul(load_tail(h + whole, left), scale), w), left);
}

/* 1 / (1 + e^-x) */
static inline vf vsigmoid(vf x) {
    return vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), vexp(vf_sub(vf_zero(), x))));
}

/* Every kind has a factor x / (1 + e^-z): z = x, 1.702 x, or twice the argument of GELU's tanh,
 * since (1 + tanh u) / 2 = 1 / (1 + e^-2u) and the left side cancels where u is far below 0. The
 * limits stand first in min and max, so that a NaN stays one. */
static inline vf glu_value(const struct op_glu *op, vf x, vf up) {
    vf z = x, limit = vf_set1(op->limit);
    switch (op->kind) {
    case GLU_SILU:
        break;
    case GLU_GELU_TANH: {
        vf cube = vf_mul(vf_mul(x, x), x);
        z = vf_mul(vf_set1(1.5957691216057308f), vf_fma(vf_set1(0.044715f), cube, x));
        break;
    }
    case GLU_CLAMPED:
        x = vf_min(limit, x);
        z = vf_mul(vf_set1(1.702f), x);
        up = vf_add(vf_max(vf_sub(vf_zero(), limit), vf_min(limit, up)), vf_set1(1.0f));
        break;
    }
    vf gate = vf_div(x, vf_add(vf_set1(1.0f), vexp(vf_sub(vf_zero(), z))));
    return vf_mul(gate, up);
}

static void kernel_glu_row(const struct op_glu *op, const float *gate, const float *up,
                           float factor, int64_t cols, uint16_t *out) {
    const int64_t whole = cols / SIMD_LANES * SIMD_LANES, left = cols - whole;
    const vf f = vf_set1(factor);
    for (int64_t k = 0; k < whole; k += SIMD_LANES)
        bf16_store(out + k, vf_mul(glu_value(op, vf_load(gate + k), vf_load(up + k)), f));
    if (left == 0) return;
    vf x = glu_value(op, load_tail(gate + whole, left), load_tail(up + whole, left));
    store_tail(out + whole, vf_mul(x, f), left);
}

static void kernel_store_row(const float *x, int64_t cols, uint16_t *out) {
    const int64_t whole = cols / SIMD_LANES * SIMD_LANES;
    for (int64_t k = 0; k < whole; k += SIMD_LANES) bf16_store(out + k, vf_load(x + k));
    if (whole < cols) store_tail(out + whole, load_tail(x + whole, cols - whole), cols - whole);
}

static void kernel_softcap(float *y, int64_t n, float cap) {
    const int64_t whole = n / SIMD_LANES * SIMD_LANES;
    const vf c = vf_set1(cap);
    for (int64_t k = 0; k < whole; k += SIMD_LANES)
        vf_store(y + k, vf_mul(c, vtanh(vf_div(vf_load(y + k), c))));
    if (whole == n) return;
    float lanes[SIMD_LANES];
    vf_store(lanes, vf_mul(c, vtanh(vf_div(load_tail(y + whole, n - whole), c))));
    memcpy(y + whole, lanes, (size_t)(n - whole) * sizeof *y);
}
