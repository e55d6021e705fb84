/* Attention of a few queries over one KV block; see linear_kernels.h and row_kernels.h.
 *
 * Scores: a lane is a position, K is read as pairs. Values: a lane is a dim, P stays fp32. What a
 * query gets from a part does not depend on its companions, nor on positions outside lo..hi. */

struct scores {
    float s[ATTEND_ROWS][KV_BLOCK_TOKENS] __attribute__((aligned(64)));
};

/* Scores of r queries at n vectors of positions from `first`; r and n are constants. */
INLINE void score_tile(int n, int r, struct attend_query *const *query,
                       const struct attend_part *part, int first, struct scores *out, int slot) {
    vf sum[SCORE_ROWS][SCORE_VECTORS];
    for (int j = 0; j < r; j++)
        for (int i = 0; i < n; i++) sum[j][i] = vf_zero();
    for (int d = 0; d < part->head_dim / 2; d++) {
        vu k[SCORE_VECTORS];
        for (int i = 0; i < n; i++)
            k[i] = vu_load(part->k + d * KV_BLOCK_TOKENS + first + i * SIMD_LANES);
        for (int j = 0; j < r; j++) {
            vu pair = vu_set1(query[j]->q[d]);
            for (int i = 0; i < n; i++) sum[j][i] = pair_dot(sum[j][i], k[i], pair);
        }
    }
    for (int j = 0; j < r; j++)
        for (int i = 0; i < n; i++) vf_store(&out->s[slot + j][first + i * SIMD_LANES], sum[j][i]);
}

static void score_queries(struct attend_query *const *query, int count,
                          const struct attend_part *part, struct scores *out) {
    enum { STEP = SCORE_VECTORS * SIMD_LANES };
    for (int first = part->lo / STEP * STEP; first < part->hi; first += STEP) {
        int j = 0;
        for (; j + SCORE_ROWS <= count; j += SCORE_ROWS)
            score_tile(SCORE_VECTORS, SCORE_ROWS, query + j, part, first, out, j);
        switch (count - j) {
        case 3:
            score_tile(SCORE_VECTORS, SCORE_ROWS < 3 ? 1 : 3, query + j, part, first, out, j);
            break;
        case 2:
            score_tile(SCORE_VECTORS, SCORE_ROWS < 2 ? 1 : 2, query + j, part, first, out, j);
            break;
        case 1:
            score_tile(SCORE_VECTORS, 1, query + j, part, first, out, j);
            break;
        }
    }
}

/* Scores to weights in place; updates m and l; returns what o is to be multiplied by. The sum of
 * weights has one tree over the block's 64 places, so it is a function of positions alone. */
static float softmax_part(struct attend_query *query, float *s, const struct attend_part *part) {
    if (part->softcap > 0) {
        vf cap = vf_set1(part->softcap);
        for (int i = 0; i < KV_BLOCK_TOKENS; i += SIMD_LANES)
            vf_store(s + i, vf_mul(cap, vtanh(vf_div(vf_load(s + i), cap))));
    }
    /* Outside lo..hi stand leavings of other positions, or nothing yet. */
    for (int i = 0; i < part->lo; i++) s[i] = -INFINITY;
    for (int i = part->hi; i < KV_BLOCK_TOKENS; i++) s[i] = -INFINITY;
    vf most = vf_load(s);
    for (int i = SIMD_LANES; i < KV_BLOCK_TOKENS; i += SIMD_LANES)
        most = vf_max(most, vf_load(s + i));
    float m = vf_max_lane(most);
    if (m < query->m) m = query->m;
    vf sum[2] = {vf_zero(), vf_zero()}, shift = vf_set1(m);
    for (int i = 0; i < KV_BLOCK_TOKENS; i += SIMD_LANES) {
        vf p = vexp(vf_sub(vf_load(s + i), shift));
        vf_store(s + i, p);
        sum[i / SIMD_LANES % 2] = vf_add(sum[i / SIMD_LANES % 2], p);
    }
    float lanes[SIMD_LANES];
    vf_store(lanes, vexp(vf_set1(query->m - m)));
    query->m = m;
    query->l = query->l * lanes[0] + vf_sum(vf_add(sum[0], sum[1]));
    return lanes[0];
}

/* o = o alpha + sum over positions of p v, for n vectors of dims from `first`, r queries. */
INLINE void value_tile(int n, int r, struct attend_query *const *query, const float *alpha,
                       const struct attend_part *part, int first, const struct scores *p,
                       int slot) {
    const int64_t stride = value_stride(part->head_dim);
    vf o[VALUE_ROWS][VALUE_VECTORS];
    for (int j = 0; j < r; j++) {
        vf a = vf_set1(alpha[j]);
        for (int i = 0; i < n; i++)
            o[j][i] = vf_mul(vf_load(query[j]->o + first + i * SIMD_LANES), a);
    }
    for (int pos = part->lo; pos < part->hi; pos++) {
        vf v[VALUE_VECTORS];
        for (int i = 0; i < n; i++)
            v[i] = bf16_load(part->v + pos * stride + first + i * SIMD_LANES);
        for (int j = 0; j < r; j++) {
            vf weight = vf_set1(p->s[slot + j][pos]);
            for (int i = 0; i < n; i++) o[j][i] = vf_fma(weight, v[i], o[j][i]);
        }
    }
    for (int j = 0; j < r; j++)
        for (int i = 0; i < n; i++) vf_store(query[j]->o + first + i * SIMD_LANES, o[j][i]);
}

INLINE void value_columns(int r, struct attend_query *const *query, const float *alpha,
                          const struct attend_part *part, const struct scores *p, int slot) {
    const int dims = (int)value_stride(part->head_dim);
    int first = 0;
    for (; first + VALUE_VECTORS * SIMD_LANES <= dims; first += VALUE_VECTORS * SIMD_LANES)
        value_tile(VALUE_VECTORS, r, query, alpha, part, first, p, slot);
    for (; first < dims; first += SIMD_LANES) value_tile(1, r, query, alpha, part, first, p, slot);
}

static void value_queries(struct attend_query *const *query, int count, const float *alpha,
                          const struct attend_part *part, const struct scores *p) {
    for (int j = 0; j < count;) {
        int left = count - j;
        if (VALUE_ROWS >= 8 && left >= 8) {
            value_columns(VALUE_ROWS < 8 ? 1 : 8, query + j, alpha + j, part, p, j);
            j += 8;
        } else if (VALUE_ROWS >= 6 && left >= 6) {
            value_columns(VALUE_ROWS < 6 ? 1 : 6, query + j, alpha + j, part, p, j);
            j += 6;
        } else if (VALUE_ROWS >= 4 && left >= 4) {
            value_columns(VALUE_ROWS < 4 ? 1 : 4, query + j, alpha + j, part, p, j);
            j += 4;
        } else if (VALUE_ROWS >= 3 && left >= 3) {
            value_columns(VALUE_ROWS < 3 ? 1 : 3, query + j, alpha + j, part, p, j);
            j += 3;
        } else if (left >= 2) {
            value_columns(2, query + j, alpha + j, part, p, j);
            j += 2;
        } else {
            value_columns(1, query + j, alpha + j, part, p, j);
            j += 1;
        }
    }
}

static void kernel_attend(struct attend_query *const *query, int count,
                          const struct attend_part *part) {
    struct scores scores;
    float alpha[ATTEND_ROWS];
    score_queries(query, count, part, &scores);
    for (int j = 0; j < count; j++) alpha[j] = softmax_part(query[j], scores.s[j], part);
    value_queries(query, count, alpha, part, &scores);
}

static void kernel_attend_finish(struct attend_query *query, int head_dim, uint16_t *out) {
    float scale = 1.0f, total = query->l;
    if (query->sink > -INFINITY) {
        float m = query->m > query->sink ? query->m : query->sink;
        scale = expf(query->m - m);
        total = total * scale + expf(query->sink - m);
    }
    vf factor = vf_set1(scale), divisor = vf_set1(total);
    const int whole = head_dim / SIMD_LANES * SIMD_LANES, left = head_dim - whole;
    for (int i = 0; i < whole; i += SIMD_LANES) {
        vf o = vf_div(vf_mul(vf_load(query->o + i), factor), divisor);
        if (query->gate) o = vf_mul(o, vsigmoid(vf_load(query->gate + i)));
        bf16_store(out + i, o);
    }
    if (left == 0) return;
    vf o = vf_div(vf_mul(vf_load(query->o + whole), factor), divisor);
    if (query->gate) o = vf_mul(o, vsigmoid(load_tail(query->gate + whole, left)));
    store_tail(out + whole, o, left);
}
