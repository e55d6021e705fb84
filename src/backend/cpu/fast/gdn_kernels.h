/* The gated delta net's inner loops; see linear_kernels.h and row_kernels.h. */

/* silu(x) = x / (1 + e^-x) */
static inline vf vsilu(vf x) {
    return vf_div(x, vf_add(vf_set1(1.0f), vexp(vf_sub(vf_zero(), x))));
}

static inline vf load_some(const float *p, int64_t count) {
    return count >= SIMD_LANES ? vf_load(p) : load_tail(p, count);
}
static inline void store_some(float *p, vf x, int64_t count) {
    float lanes[SIMD_LANES];
    if (count >= SIMD_LANES) {
        vf_store(p, x);
    } else {
        vf_store(lanes, x);
        memcpy(p, lanes, (size_t)count * sizeof *p);
    }
}

static void kernel_gdn_conv(const struct gdn_conv *conv) {
    for (int c = 0; c < conv->count; c += SIMD_LANES) {
        const int left = conv->count - c;
        vf sum = vf_zero();
        for (int j = 0; j < GDN_CONV; j++)
            sum =
                vf_fma(load_some(conv->weight[j] + c, left), load_some(conv->in[j] + c, left), sum);
        store_some(conv->out + c, vsilu(sum), left);
    }
}

static void kernel_gdn_gate(float *o, const float *z, const float *norm, float scale, int64_t n) {
    for (int64_t k = 0; k < n; k += SIMD_LANES) {
        vf x = vf_mul(vf_mul(load_some(o + k, n - k), vf_set1(scale)), load_some(norm + k, n - k));
        store_some(o + k, vf_mul(x, vsilu(load_some(z + k, n - k))), n - k);
    }
}

/* One row by DELTA_VECTORS vectors of columns. S is read twice and written once; the sums over i
 * run in two chains, even and odd i, since one alone waits for the adder. */
INLINE void delta_row(float *state, const float *q, const float *k, float alpha, float beta,
                      int key_dim, vf *v) {
    vf sum[2][DELTA_VECTORS], change[DELTA_VECTORS], a = vf_set1(alpha);
    const int pairs = key_dim / 2 * 2;
    for (int n = 0; n < DELTA_VECTORS; n++) sum[0][n] = sum[1][n] = vf_zero();
    for (int i = 0; i < pairs; i += 2) {
        for (int h = 0; h < 2; h++) {
            const float *row = state + (i + h) * GDN_COLUMNS;
            vf weight = vf_set1(k[i + h]);
            for (int n = 0; n < DELTA_VECTORS; n++)
                sum[h][n] = vf_fma(weight, vf_load(row + n * SIMD_LANES), sum[h][n]);
        }
    }
    for (int n = 0; n < DELTA_VECTORS && pairs < key_dim; n++)
        sum[0][n] = vf_fma(vf_set1(k[pairs]), vf_load(state + pairs * GDN_COLUMNS + n * SIMD_LANES),
                           sum[0][n]);
    for (int n = 0; n < DELTA_VECTORS; n++) {
        vf held = vf_mul(a, vf_add(sum[0][n], sum[1][n]));
        change[n] = vf_mul(vf_set1(beta), vf_sub(v[n], held));
        sum[0][n] = sum[1][n] = vf_zero();
    }
    for (int i = 0; i < key_dim; i += 2) {
        for (int h = 0; h < 2 && i + h < key_dim; h++) {
            float *row = state + (i + h) * GDN_COLUMNS;
            vf weight = vf_set1(k[i + h]), query = vf_set1(q[i + h]);
            for (int n = 0; n < DELTA_VECTORS; n++) {
                vf s = vf_mul(a, vf_load(row + n * SIMD_LANES));
                s = vf_fma(weight, change[n], s);
                vf_store(row + n * SIMD_LANES, s);
                sum[h][n] = vf_fma(query, s, sum[h][n]);
            }
        }
    }
    for (int n = 0; n < DELTA_VECTORS; n++) v[n] = vf_add(sum[0][n], sum[1][n]);
}

static void kernel_gdn_delta(const struct gdn_tile *t) {
    for (int first = 0; first < t->columns; first += DELTA_VECTORS * SIMD_LANES) {
        for (int64_t r = 0, at = 0; r < t->rows; r++, at += t->stride) {
            float *out = t->v + at + first;
            vf v[DELTA_VECTORS];
            for (int n = 0; n < DELTA_VECTORS; n++) {
                int left = t->columns - first - n * SIMD_LANES;
                v[n] = left > 0 ? load_some(out + n * SIMD_LANES, left) : vf_zero();
            }
            delta_row(t->state + first, t->q + at, t->k + at, t->alpha[at], t->beta[at], t->key_dim,
                      v);
            for (int n = 0; n < DELTA_VECTORS; n++) {
                int left = t->columns - first - n * SIMD_LANES;
                if (left > 0) store_some(out + n * SIMD_LANES, v[n], left);
            }
        }
    }
}
