/* Attention over the KV blocks of a row, on tensor cores.
 *
 * The arithmetic of one row and one head, whatever kernel makes it. Positions are cut in parts of
 * PART and spans of SPAN, both absolute. A span is an online softmax over its parts in ascending
 * order, from m = -Inf, l = 0, o = 0; all in base 2, m being the largest score times log2 e:
 *     s = q k, 16 dims a product, ascending; softcap; what the row does not see is -Inf
 *     m' = max(m, max(s) log2 e);  p = BF16(2^(s log2 e - m'));  a = 2^(m - m')
 *     o = a o + p V,  l = a l + p 1, both 16 positions a product, ascending
 * l is one more column of o, so the sum of the weights is a sum of what was multiplied. Spans merge
 * in ascending order, from the same empty state (mix_in, mixed); then sink, division and gate.
 *
 * A tile is 16 WM pairs (token, head) of one sequence and kv head: WM rows of warps with 16 pairs
 * each, WN warps that share them: each makes 64 / WN scores of a part and a WNth of o's columns,
 * and they exchange p through shared memory. That changes who makes a number, never the number.
 * Wide tiles (WN = 1) are for prompts. Narrow ones (WM = 1) are for decode steps, which split spans
 * over thread blocks: each leaves (m, l, o) in scratch memory, and a second kernel merges.
 *
 * A tile of several tokens multiplies p = 0 with V that a row must not see. Where such a V is not
 * finite, the tile is made again token by token, with zeros in its place. */
#include "backend/cuda/attention_warp.cuh"

/* ---- which tile ---- */

/* Of the tile numbered `index`, all sequences' tiles counted in order; each warp finds it alone. */
__device__ __forceinline__ void seek_tile(struct tile *t, const struct dev_batch &batch, int index,
                                          int tile_pairs, int *seq) {
    const int lane = threadIdx.x % WARP;
    for (int base = 0, before = 0;; base += WARP) {
        const int s = base + lane;
        const int count = s < batch.seqs ? batch.seq_row[s + 1] - batch.seq_row[s] : 0;
        const int tiles = (count * t->group + tile_pairs - 1) / tile_pairs;
        int upto = tiles;
        for (int step = 1; step < WARP; step *= 2) {
            const int less = __shfl_up_sync(~0u, upto, step);
            if (lane >= step) upto += less;
        }
        const unsigned past = __ballot_sync(~0u, before + upto > index);
        if (past == 0) {
            before += __shfl_sync(~0u, upto, WARP - 1);
            continue;
        }
        const int owner = __ffs(past) - 1;
        *seq = base + owner;
        t->pair = (index - before - __shfl_sync(~0u, upto - tiles, owner)) * tile_pairs;
        t->pairs = __shfl_sync(~0u, count, owner) * t->group;
        t->row = batch.seq_row[*seq];
        return;
    }
}

__device__ __forceinline__ struct tile find_tile(const struct attend &a, int tile_pairs) {
    const int index = blockIdx.x / a.op.kv_heads, tiles = gridDim.x / a.op.kv_heads;
    struct tile t = {};
    int seq = 0;
    t.kv_head = blockIdx.x % a.op.kv_heads;
    t.group = a.op.heads / a.op.kv_heads;
    if (a.batch.rows == a.batch.seqs) { /* a row each */
        const int each = (t.group + tile_pairs - 1) / tile_pairs;
        seq = t.row = a.first_row + index / each;
        t.pair = index % each * tile_pairs;
        t.pairs = t.group;
    } else { /* the longest, which are a sequence's last, first */
        seek_tile(&t, a.batch, tiles - 1 - index, tile_pairs, &seq);
    }
    t.position = a.batch.position[t.row];
    t.blocks = block_table(a.batch, a.op.group, seq);
    return t;
}

/* ---- what a row leaves ---- */

template <int D, int WN>
__device__ __forceinline__ void store_partial(const struct attend &a, const struct sums<D, WN> &x,
                                              const struct pairs &own, int span) {
    const int d = a.op.head_dim, lane = threadIdx.x % WARP;
    const int first = threadIdx.x / WARP % WN * x.COLUMNS + lane % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int slot = span - own.see[h].first / SPAN;
        if (own.row[h] < 0 || slot < 0 || span > own.see[h].last / SPAN) continue;
        const int64_t at =
            ((int64_t)(own.row[h] - a.first_row) * a.op.heads + own.head[h]) * a.slots + slot;
        float *o = a.partial_o + at * partial_stride(d);
#pragma unroll
        for (int n = 0; n < x.COLUMNS / 8; n++)
            if (first + 8 * n < d)
                *(float2 *)(o + first + 8 * n) = make_float2(x.o[n][2 * h], x.o[n][2 * h + 1]);
        if (first == 0) *(float2 *)(a.partial_ml + 2 * at) = make_float2(x.m[h], x.l[2 * h]);
    }
}

__device__ __forceinline__ const float *gate_of(const struct op_attention &op, int row, int head) {
    return op.gate ? op.gate + row * op.gate_row + (int64_t)head * op.gate_step : NULL;
}

template <int D, int WN>
__device__ __forceinline__ void store_out(const struct op_attention &op,
                                          const struct sums<D, WN> &x, const struct pairs &own) {
    const int d = op.head_dim, lane = threadIdx.x % WARP, share = threadIdx.x / WARP % WN;
    const int64_t cols = (int64_t)op.heads * d, stride = act_stride(cols);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int head = own.head[h];
        if (own.row[h] < 0) continue;
        uint16_t *out = (uint16_t *)op.out + own.row[h] * stride;
        const float *gate = gate_of(op, own.row[h], head);
        const float factor = out_factor(x.m[h], x.l[2 * h], op.sinks, head);
#pragma unroll
        for (int n = 0; n < x.COLUMNS / 8; n++) {
            const int k = share * x.COLUMNS + 8 * n + lane % 4 * 2;
            if (k < d)
                *(uint32_t *)(out + act_place((int64_t)head * d + k)) =
                    pack_bf16(out_value(x.o[n][2 * h], factor, gate, k),
                              out_value(x.o[n][2 * h + 1], factor, gate, k + 1));
        }
        for (int64_t k = cols + share * 4 + lane % 4; head == 0 && k < stride; k += 4 * WN)
            out[act_place(k)] = 0;
    }
}

/* ---- kernels ---- */

template <int WN>
__device__ __forceinline__ struct pairs own_pairs(const struct tile &t, struct tokens which,
                                                  int window) {
    struct pairs own;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        const int pair = t.pair + warp / WN * TILE + lane / 4 + 8 * h, token = pair / t.group;
        const bool there = pair < t.pairs && token >= which.from && token <= which.to;
        own.row[h] = there ? t.row + token : -1;
        own.head[h] = t.kv_head * t.group + pair % t.group;
        own.see[h] = there ? visible_at(t.position + token, window) : (struct visible){0, -1};
    }
    return own;
}

/* The tile's pairs of these tokens; of one span, or of all (span < 0). True: V held what is not
 * finite where some of them do not look. */
template <int D, int WM, int WN, class E>
__device__ __forceinline__ bool attend_tokens(const struct attend &a, const struct tile &t,
                                              struct tokens which, int span,
                                              struct places<D, WM, WN> *shared, uint8_t *slots) {
    enum { SPAN_PARTS = SPAN / PART };
    const struct op_attention &op = a.op;
    const struct pairs own = own_pairs<WN>(t, which, op.window);
    const struct visible early = visible_at(t.position + which.from, op.window);
    const struct visible late = visible_at(t.position + which.to, op.window);
    int part = early.first / PART, last = late.last / PART;
    if (span >= 0) {
        part = max(part, span * SPAN_PARTS);
        last = min(last, span * SPAN_PARTS + SPAN_PARTS - 1);
    }
    const struct source from = {
        op.kv,       t.blocks, op.kv_heads,           t.kv_head,
        op.head_dim, part,     2 * (last - part + 1), {early.first, late.last}};
    for (int unit = 0; unit < ring<D, E>::SLOTS - 1; unit++) ask_unit<D, E>(slots, from, unit);
    struct sums<D, WN> all, x;
    clear(&all);
    clear(&x);
    load_q(shared, a, t);
    __syncthreads();
    const uint16_t *q = shared->q[threadIdx.x / WARP / WN * TILE];
    uint32_t kept[keeps_q(D) ? D / 16 : 1][4];
    if (keeps_q(D))
#pragma unroll
        for (int j = 0; j < D / 16; j++) load_a(kept[j], q, D + 8, 16 * j);
    bool infinite = false;
    for (; part <= last; part++) {
        const int unit = 2 * (part - from.part), start = part * PART;
        const bool all_seen = start >= late.first && start + PART - 1 <= early.last;
        float s[PART / WN / 8][4];
        scores<D, WN>(s, q, kept, take_unit<D, E>(slots, from, unit));
        if (op.softcap > 0) cap_scores<PART / WN / 8>(s, op.softcap);
        if (!all_seen)
            hide_scores<PART / WN / 8>(s, own, start + threadIdx.x / WARP % WN * (PART / WN));
        weigh(s, &x, shared);
        if (WN > 1) share_weights(shared, s);
        const uint16_t *v = take_unit<D, E>(slots, from, unit + 1);
        if (!all_seen && which.to > which.from) infinite |= has_infinite<D>(v);
        add_values(&x, shared, s, v);
        if (part % SPAN_PARTS != SPAN_PARTS - 1 && part != last) continue;
        if (span >= 0) {
            store_partial(a, x, own, span);
        } else {
            merge(&all, x);
            clear(&x);
        }
    }
    if (span < 0) store_out(op, all, own);
    return __syncthreads_or(infinite);
}

/* blockIdx: tile and, faster, kv head; span of those that the tile sees. */
template <int D, int WM, int WN, class E>
__global__ void __launch_bounds__(ATTEND_THREADS, D <= 64 ? 3 : 2)
    attention_kernel(struct attend a) {
    extern __shared__ uint4 memory[];
    struct places<D, WM, WN> *shared = (struct places<D, WM, WN> *)memory;
    uint8_t *slots = (uint8_t *)(shared + 1);
    depend_release();
    depend_wait();
    const struct tile t = find_tile(a, WM * TILE);
    const struct tokens tokens = {t.pair / t.group,
                                  (min(t.pair + WM * TILE, t.pairs) - 1) / t.group};
    int span = -1;
    if (a.slots > 0) {
        const int position = t.position + tokens.from;
        span = visible_at(position, a.op.window).first / SPAN + blockIdx.y;
        if (span > (t.position + tokens.to) / SPAN) return;
    }
    for (int token = tokens.from - 1; token <= tokens.to; token++) {
        const bool whole = token < tokens.from;
        const struct tokens which = whole ? tokens : (struct tokens){token, token};
        const bool infinite = attend_tokens<D, WM, WN, E>(a, t, which, span, shared, slots);
        if (whole && !infinite) return;
    }
}

/* Spans from scratch memory to the output: blockIdx row and head, four dims a thread. */
__global__ void merge_kernel(struct attend a) {
    const struct op_attention &op = a.op;
    const int row = a.first_row + blockIdx.x, head = blockIdx.y, d = op.head_dim;
    depend_release();
    depend_wait();
    const struct visible see = visible_at(a.batch.position[row], op.window);
    const int spans = see.last / SPAN - see.first / SPAN + 1, k = threadIdx.x * 4;
    const int64_t at = ((int64_t)blockIdx.x * op.heads + head) * a.slots;
    const float *ml = a.partial_ml + 2 * at, *o = a.partial_o + at * partial_stride(d) + k;
    const int64_t cols = (int64_t)op.heads * d, stride = act_stride(cols);
    uint16_t *out = (uint16_t *)op.out + row * stride;
    float m = -INFINITY, l = 0, sum[4] = {};
    for (int64_t i = cols + threadIdx.x; head == 0 && i < stride; i += blockDim.x)
        out[act_place(i)] = 0;
    if (k >= d) return;
#pragma unroll 8
    for (int s = 0; s < spans; s++) {
        const float2 more = *(const float2 *)(ml + 2 * s);
        const float4 add = *(const float4 *)(o + (int64_t)s * partial_stride(d));
        const struct mix x = mix_in(&m, more.x);
        l = mixed(l, more.y, x);
        sum[0] = mixed(sum[0], add.x, x);
        sum[1] = mixed(sum[1], add.y, x);
        sum[2] = mixed(sum[2], add.z, x);
        sum[3] = mixed(sum[3], add.w, x);
    }
    const float *gate = gate_of(op, row, head), factor = out_factor(m, l, op.sinks, head);
#pragma unroll
    for (int j = 0; j < 4 && k + j < d; j += 2)
        *(uint32_t *)(out + act_place((int64_t)head * d + k + j)) = pack_bf16(
            out_value(sum[j], factor, gate, k + j), out_value(sum[j + 1], factor, gate, k + j + 1));
}

/* ---- launch ---- */

typedef void (*attention_fn)(struct attend);
struct shape {
    attention_fn kernel[2]; /* BF16, E4M3 */
    size_t shared[2];
    int pairs; /* of a tile */
};
struct instance {
    int dims; /* heads of up to so many */
    struct shape narrow, wide;
};
template <int D, int WM, int WN> static struct shape shape_of(void) {
    static_assert(WM * WN * WARP == ATTEND_THREADS, "");
    const size_t own = sizeof(struct places<D, WM, WN>);
    return {{attention_kernel<D, WM, WN, uint16_t>, attention_kernel<D, WM, WN, uint8_t>},
            {own + ring<D, uint16_t>::BYTES, own + ring<D, uint8_t>::BYTES},
            WM * TILE};
}
template <int D, int WM, int WN> static struct instance instance_of(void) {
    return {D, shape_of<D, 1, 4>(), shape_of<D, WM, WN>()};
}

/* All instances. A warp's accumulators are at most 128 columns, twice. */
static const struct instance INSTANCES[] = {
    instance_of<32, 4, 1>(),  instance_of<64, 4, 1>(),  instance_of<80, 4, 1>(),
    instance_of<96, 4, 1>(),  instance_of<128, 4, 1>(), instance_of<256, 2, 2>(),
    instance_of<512, 1, 4>(),
};

/* Rows of heads that are not whole 16 bytes go to the instances that take any: 32 or 512. */
static const struct instance *instance_for(int d, bool fp8) {
    const struct instance *i = INSTANCES;
    const int least = d > 32 && d % (fp8 ? 16 : 8) != 0 ? 512 : d;
    while (i->dims < least) i++;
    return i;
}

/* Scratch for the spans of some rows: as many as SCRATCH_BYTES holds, or one row of all heads and
 * the longest context if that is more; a step with more rows takes several launches. */
static size_t partial_count(const struct step_limits *max) {
    enum { SCRATCH_BYTES = 32 << 20 };
    const size_t spans = ((size_t)max->max_blocks * PART + SPAN - 1) / SPAN;
    const size_t row = (size_t)max->max_heads * spans, all = row * (size_t)max->rows;
    const size_t fit =
        SCRATCH_BYTES / sizeof(float) / (size_t)(partial_stride(max->max_head_dim) + 2);
    const size_t most = row > fit ? row : fit;
    return all < most ? all : most;
}
static size_t partial_floats(const struct step_limits *max) {
    return partial_count(max) * (size_t)(partial_stride(max->max_head_dim) + 2);
}

size_t cuda_attention_bytes(const struct step_limits *max) {
    return partial_floats(max) * sizeof(float);
}

int cuda_attention_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                           struct imp_error *err) {
    for (size_t i = 0; i < sizeof INSTANCES / sizeof *INSTANCES; i++) {
        const struct shape *shapes[] = {&INSTANCES[i].narrow, &INSTANCES[i].wide};
        for (int k = 0; k < 2; k++)
            gpu_allow_shared(cuda, shapes[k]->kernel[cuda->kv_fp8],
                             shapes[k]->shared[cuda->kv_fp8]);
    }
    const int rc = cuda_error(cuda, err);
    if (rc < 0) return rc;
    return cuda_alloc(&cuda->base, cuda_attention_bytes(max), (void **)&cuda->attention_spans, err);
}

void cuda_attention_release(struct cuda_backend *cuda) {
    cuda_free(&cuda->base, cuda->attention_spans);
}

/* Of all sequences of the step. */
static int count_tiles(const struct cuda_backend *cuda, int group, int tile_pairs) {
    const struct dev_batch *b = &cuda->batch;
    const int32_t *seq_row = cuda->host_batch + (b->seq_row - cuda->dev_batch);
    int tiles = 0;
    if (b->rows == b->seqs) return b->rows * ((group + tile_pairs - 1) / tile_pairs);
    for (int s = 0; s < b->seqs; s++)
        tiles += ((seq_row[s + 1] - seq_row[s]) * group + tile_pairs - 1) / tile_pairs;
    return tiles;
}

/* Spans that a narrow tile of the step can see. */
static int tile_spans(const struct attend *a) {
    const int all = a->batch.most / SPAN + 1, reach = (a->op.window + TILE - 2) / SPAN + 2;
    return a->op.window > 0 && reach < all ? reach : all;
}

static void launch_tiles(struct cuda_backend *cuda, const struct attend *a, const struct shape *s,
                         int tiles) {
    const dim3 grid((unsigned)(tiles * a->op.kv_heads), (unsigned)(a->slots > 0 ? a->slots : 1));
    gpu_launch(cuda, "attention", s->kernel[cuda->kv_fp8], grid, ATTEND_THREADS,
               s->shared[cuda->kv_fp8], *a);
}

/* Spans over thread blocks, `rows` rows (all, unless they are of a sequence each) a launch. */
static void launch_split(struct cuda_backend *cuda, struct attend *a, const struct shape *s,
                         int rows, int tiles) {
    const int all = a->batch.rows, d = a->op.head_dim;
    for (a->first_row = 0; a->first_row < all; a->first_row += rows) {
        const int count = all - a->first_row < rows ? all - a->first_row : rows;
        const size_t partials = (size_t)count * a->op.heads * a->slots;
        a->partial_o = cuda->attention_spans;
        a->partial_ml = a->partial_o + partials * partial_stride(d);
        launch_tiles(cuda, a, s, (int)((int64_t)tiles * count / all));
        gpu_launch(cuda, "attention, spans", merge_kernel,
                   dim3((unsigned)count, (unsigned)a->op.heads),
                   (unsigned)(d + 4 * WARP - 1) / (4 * WARP) * WARP, 0, *a);
    }
}

void cuda_attention(struct backend *be, const struct op_attention *op) {
    enum { FEW_TILES = 512 }; /* wide ones would leave a GPU idle */
    struct cuda_backend *cuda = cuda_of(be);
    struct attend a = {*op, cuda->batch};
    const int d = op->head_dim, group = op->heads / op->kv_heads, rows = cuda->batch.rows;
    const struct instance *i = instance_for(d, cuda->kv_fp8);
    const bool one_each = rows == cuda->batch.seqs;
    const int tiles = count_tiles(cuda, group, TILE), spans = tile_spans(&a);
    check(d <= cuda->limits.max_head_dim && d % 2 == 0 && op->heads % op->kv_heads == 0 &&
          op->heads <= cuda->limits.max_heads);
    const size_t row_floats = (size_t)op->heads * spans * (partial_stride(d) + 2);
    const size_t fit = partial_floats(&cuda->limits) / row_floats;
    const int most = fit < (size_t)rows ? (int)fit : rows;
    const bool narrow = one_each || (tiles * op->kv_heads <= FEW_TILES && most == rows);
    if (!narrow) {
        launch_tiles(cuda, &a, &i->wide, count_tiles(cuda, group, i->wide.pairs));
    } else if (spans == 1) {
        launch_tiles(cuda, &a, &i->narrow, tiles);
    } else {
        a.slots = spans;
        launch_split(cuda, &a, &i->narrow, most, tiles);
    }
}
