/* Drawing a row's token: two kernels after the scan.
 *
 * bins_kernel makes distances of the logits and sorts them into BINS by distance, with how many
 * candidates and how much mass each bin has; of rows without top-k and top-p it only sums the
 * masses of each part. draw_kernel, a block a row, then asks three or four times the same question:
 * which is the first candidate in order at which count or mass reaches so much? The bins say in
 * which of them it is; what is in there, most often a few hundred, is gathered, sorted and summed
 * in shared memory. If more fall into one bin than that holds, they are sorted into finer bins
 * first, by their orders, of which no two are equal.
 *
 * Top-k, top-p and min-p each keep a prefix of the order, so each is one such question, and so is
 * the draw from what is left. */
#include "backend/cuda/sample.cuh"

enum { DRAW_THREADS = 1024, DRAW_WARPS = DRAW_THREADS / WARP, LIST = 4 * DRAW_THREADS };
static_assert((int)PART <= (int)LIST, "a part is gathered whole");
static_assert((int)DRAW_WARPS == (int)WARP, "a warp sums what the warps have");

/* Adds to a sum in shared memory, by two adds of 32 bits: one of 64 is a loop there. */
__device__ __forceinline__ void add_shared(uint64_t *sum, uint64_t x) {
    uint32_t *half = (uint32_t *)sum; /* little-endian */
    const uint32_t low = (uint32_t)x, before = atomicAdd(&half[0], low);
    const uint32_t high = (uint32_t)(x >> 32) + (before + low < before);
    if (high) atomicAdd(&half[1], high);
}

/* ---- bins; a block a part ---- */

__device__ __forceinline__ void add_bins(const struct sample_round &r, const uint64_t *mass,
                                         const uint32_t *count) {
    const int64_t first = (int64_t)blockIdx.y * BINS;
    for (int b = threadIdx.x; b < BINS; b += PART_THREADS) {
        if (count[b] == 0) continue;
        atomicAdd((unsigned long long *)&r.bin_count[first + b], count[b]);
        if (mass[b]) atomicAdd((unsigned long long *)&r.bin_mass[first + b], mass[b]);
    }
}

__global__ void bins_kernel(struct sample_round r) {
    __shared__ uint64_t mass[BINS], warp_mass[PART_THREADS / WARP];
    __shared__ uint32_t count[BINS];
    const int slot = blockIdx.y;
    depend_release();
    depend_wait();
    const struct sample_args a = r.args[slot];
    if (!a.draws || !logits_are_sound(r.state[slot].largest)) return;
    const float most = logit_of_key((uint32_t)(r.state[slot].best >> 32));
    for (int b = threadIdx.x; a.ordered && b < BINS; b += PART_THREADS) mass[b] = count[b] = 0;
    float x[PART_EACH];
    load_part(r, a, x);
    penalise_part(r, a, x);
    __syncthreads();
    uint32_t tail = 0; /* of the last bin, where all would meet */
    uint64_t sum = 0;
    for (int j = 0; j < PART_EACH; j++) {
        if (part_column(j) >= r.usable) continue;
        const uint32_t distance = distance_bits(__fdiv_rn(__fsub_rn(x[j], most), a.temperature));
        const uint64_t w = mass_of(distance, r.mass_scale);
        const int b = bin_of(distance);
        r.distance[slot * r.distance_stride + part_column(j)] = distance;
        if (!a.ordered) {
            sum += distance <= a.floor_distance ? w : 0;
        } else if (b == BIN_TAIL) {
            tail++;
        } else {
            atomicAdd(&count[b], 1u);
            add_shared(&mass[b], w);
        }
    }
    if (a.ordered) {
        tail = __reduce_add_sync(~0u, tail);
        if (threadIdx.x % WARP == 0) atomicAdd(&count[BIN_TAIL], tail);
        __syncthreads();
        add_bins(r, mass, count);
        return;
    }
    sum = warp_sum_mass(sum);
    if (threadIdx.x % WARP == 0) warp_mass[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < PART_THREADS / WARP; i++) sum += warp_mass[i];
    r.part_mass[(int64_t)slot * r.parts + blockIdx.x] = sum;
}

/* ---- the draw; a block a row ---- */

struct draw_shared {
    uint64_t list[LIST];      /* orders of gathered candidates, ascending */
    uint64_t list_mass[LIST]; /* of all up to and with that one */
    /* Of a bin, and all before it within the same span: */
    uint64_t bin_mass[BINS], bin_count[BINS];
    uint64_t warp[DRAW_WARPS], before;
    uint32_t gathered;
    int part;
};

/* What a thread needs of its row. */
struct draw_row {
    const struct sample_round *r;
    const struct sample_args *a;
    const uint32_t *distance;
    int64_t slot;
};

/* Orders [from, to), and how many candidates and how much mass lie before and inside. */
struct draw_span {
    uint64_t from, to, mass, count, inside;
};

/* The first candidate at which something is reached, and the mass up to and with it. */
struct draw_place {
    uint64_t order, mass;
};
enum draw_by { BY_COUNT, BY_MASS, BY_ORDER };

/* The sum of x over the lanes up to and with this one. */
__device__ __forceinline__ uint64_t warp_sum_up(uint64_t x) {
    for (int step = 1; step < WARP; step *= 2) {
        const uint64_t other = __shfl_up_sync(~0u, x, step);
        if ((int)threadIdx.x % WARP >= step) x += other;
    }
    return x;
}

/* The sum of x over the threads before this one; of all of them into *total. */
__device__ __forceinline__ uint64_t block_before(uint64_t x, uint64_t *warp, uint64_t *total) {
    const int lane = threadIdx.x % WARP, own = threadIdx.x / WARP;
    const uint64_t sum = warp_sum_up(x);
    __syncthreads(); /* warp may still be read from the last time */
    if (lane == WARP - 1) warp[own] = sum;
    __syncthreads();
    const uint64_t warps = warp_sum_up(warp[lane]); /* as many warps as lanes */
    const uint64_t before = __shfl_sync(~0u, warps, own ? own - 1 : 0);
    *total = __shfl_sync(~0u, warps, WARP - 1);
    return (own ? before : 0) + sum - x;
}

/* Every sum[i] becomes the sum of all up to and with it. */
template <int N> __device__ void sum_up(uint64_t *sum, uint64_t *warp) {
    constexpr int EACH = N / DRAW_THREADS;
    uint64_t own[EACH], mine = 0, total;
    __syncthreads();
    for (int i = 0; i < EACH; i++) mine += own[i] = sum[threadIdx.x * EACH + i];
    uint64_t before = block_before(mine, warp, &total);
    for (int i = 0; i < EACH; i++) sum[threadIdx.x * EACH + i] = before += own[i];
    __syncthreads();
}

/* f(order) for every candidate inside a span; the next load is on its way meanwhile. */
template <class F>
__device__ __forceinline__ void each_inside(const struct draw_row &d, const struct draw_span &span,
                                            F f) {
    const uint4 *four = (const uint4 *)d.distance;
    const int usable = d.r->usable, n = (usable + 3) / 4, first = threadIdx.x;
    const uint32_t nearest = (uint32_t)(span.from >> ORDER_ID_BITS);
    const uint32_t width = (uint32_t)((span.to - 1) >> ORDER_ID_BITS) - nearest;
    uint4 next = {};
    if (first < n) next = four[first];
    for (int i = first; i < n; i += DRAW_THREADS) {
        const uint32_t distance[4] = {next.x, next.y, next.z, next.w};
        if (i + DRAW_THREADS < n) next = four[i + DRAW_THREADS];
        for (int j = 0; j < 4; j++) {
            if (distance[j] - nearest > width || 4 * i + j >= usable) continue;
            const uint64_t order = order_of(distance[j], (uint32_t)(4 * i + j));
            if (order >= span.from && order < span.to) f(order);
        }
    }
}

/* The bins of the whole row, as bins_kernel left them. */
__device__ void load_bins(struct draw_shared *s, const struct draw_row &d) {
    __syncthreads();
    for (int b = threadIdx.x; b < BINS; b += DRAW_THREADS) {
        s->bin_mass[b] = d.r->bin_mass[d.slot * BINS + b];
        s->bin_count[b] = d.r->bin_count[d.slot * BINS + b];
    }
    sum_up<BINS>(s->bin_mass, s->warp);
    sum_up<BINS>(s->bin_count, s->warp);
}

/* Finer bins of what is inside a span: 1 << shift orders each. */
__device__ void fill_bins(struct draw_shared *s, const struct draw_row &d,
                          const struct draw_span &span, int shift) {
    __syncthreads();
    for (int b = threadIdx.x; b < BINS; b += DRAW_THREADS) s->bin_mass[b] = s->bin_count[b] = 0;
    __syncthreads();
    each_inside(d, span, [&](uint64_t order) {
        const int b = (int)((order - span.from) >> shift);
        atomicAdd((uint32_t *)&s->bin_count[b], 1u); /* little-endian, and no carry */
        add_shared(&s->bin_mass[b], mass_of_order(order, d.r->mass_scale));
    });
    sum_up<BINS>(s->bin_mass, s->warp);
    sum_up<BINS>(s->bin_count, s->warp);
}

/* The bin of a span in which the target lies, by count or mass. */
__device__ int bin_reached(const struct draw_shared *s, const struct draw_span &span,
                           enum draw_by by, uint64_t target) {
    const int b = by == BY_COUNT ? first_at_least(s->bin_count, BINS, target - span.count)
                                 : first_at_least(s->bin_mass, BINS, target - span.mass);
    return b < BINS ? b : BINS - 1;
}

/* What lies before and inside the bins first .. last of a span. */
__device__ void narrow(const struct draw_shared *s, struct draw_span *span, int first, int last) {
    const uint64_t mass = first ? s->bin_mass[first - 1] : 0;
    const uint64_t count = first ? s->bin_count[first - 1] : 0;
    span->mass += mass;
    span->count += count;
    span->inside = s->bin_count[last] - count;
}

/* The span that holds the target and fits the list. */
__device__ struct draw_span find_span(struct draw_shared *s, const struct draw_row &d,
                                      enum draw_by by, uint64_t target) {
    struct draw_span span = {};
    load_bins(s, d);
    int b = by == BY_ORDER ? bin_of((uint32_t)(target >> ORDER_ID_BITS))
                           : bin_reached(s, span, by, target);
    /* With everything before it, if there is room: what is asked next is most often in there. */
    const int first = s->bin_count[b] <= LIST ? 0 : b;
    narrow(s, &span, first, b);
    span.from = bin_start(first);
    span.to = bin_start(b + 1);
    while (span.inside > LIST) {
        const int bits = 64 - __clzll((long long)(span.to - span.from - 1));
        const int shift = bits > BINS_BITS ? bits - BINS_BITS : 0;
        fill_bins(s, d, span, shift);
        b = by == BY_ORDER ? (int)((target - span.from) >> shift)
                           : bin_reached(s, span, by, target);
        narrow(s, &span, b, b);
        span.from += (uint64_t)b << shift;
        span.to = min(span.to, span.from + ((uint64_t)1 << shift));
    }
    return span;
}

/* Bitonic (Batcher 1968), ascending; entries from n up to the next power of two are overwritten. */
__device__ void sort_list(uint64_t *list, int n) {
    int size = 1;
    while (size < n) size *= 2;
    for (int i = n + threadIdx.x; i < size; i += DRAW_THREADS) list[i] = ~(uint64_t)0;
    for (int run = 2; run <= size; run *= 2) {
        for (int apart = run / 2; apart > 0; apart /= 2) {
            __syncthreads();
            for (int i = threadIdx.x; i < size / 2; i += DRAW_THREADS) {
                const int low = 2 * i - (i & (apart - 1)), high = low + apart;
                const uint64_t x = list[low], y = list[high];
                if ((x > y) != ((low & run) == 0)) continue;
                list[low] = y;
                list[high] = x;
            }
        }
    }
    __syncthreads();
}

/* The candidates of a span into the list, in order, with their sums. */
__device__ void gather(struct draw_shared *s, const struct draw_row &d,
                       const struct draw_span &span) {
    const int n = (int)span.inside;
    __syncthreads();
    if (threadIdx.x == 0) s->gathered = 0;
    __syncthreads();
    each_inside(d, span, [&](uint64_t order) { s->list[atomicAdd(&s->gathered, 1u)] = order; });
    __syncthreads();
    sort_list(s->list, n);
    for (int i = threadIdx.x; i < LIST; i += DRAW_THREADS)
        s->list_mass[i] =
            (i < n ? mass_of_order(s->list[i], d.r->mass_scale) : 0) + (i == 0 ? span.mass : 0);
    sum_up<LIST>(s->list_mass, s->warp);
}

__device__ bool holds(const struct draw_shared *s, const struct draw_span &span, enum draw_by by,
                      uint64_t target) {
    if (span.inside == 0) return false;
    if (by == BY_COUNT) return target > span.count && target <= span.count + span.inside;
    if (by == BY_MASS) return target > span.mass && target <= s->list_mass[span.inside - 1];
    return target >= span.from && target < span.to;
}

/* The first candidate at which the target is reached, which is within reach. BY_ORDER: the last one
 * up to that order. *span: what the list holds, kept from one call to the next. */
__device__ __noinline__ struct draw_place find(struct draw_shared *s, const struct draw_row &d,
                                               struct draw_span *span, enum draw_by by,
                                               uint64_t target) {
    if (!holds(s, *span, by, target)) {
        *span = find_span(s, d, by, target);
        gather(s, d, *span);
    }
    const int n = (int)span->inside;
    int i = by == BY_COUNT  ? (int)(target - span->count) - 1
            : by == BY_MASS ? first_at_least(s->list_mass, n, target)
                            : first_at_least(s->list, n, target + 1) - 1;
    if (i >= n) i = n - 1;
    struct draw_place place = {target, span->mass};
    if (i >= 0) place = {s->list[i], s->list_mass[i]};
    return place;
}

/* Top-k, top-p, min-p, and the draw in the order of candidates. The drawn id. */
__device__ uint32_t draw_ordered(struct draw_shared *s, const struct draw_row &d) {
    const struct sample_args a = *d.a;
    struct draw_span span = {};
    struct draw_place last = {~(uint64_t)0, 0};
    if (a.top_k > 0) {
        last = find(s, d, &span, BY_COUNT, (uint64_t)a.top_k);
    } else {
        load_bins(s, d);
        last.mass = s->bin_mass[BINS - 1];
    }
    if (a.top_p < 1 && last.mass > 0)
        last = find(s, d, &span, BY_MASS, mass_share(a.top_p, last.mass, true));
    const uint64_t floor = order_of(a.floor_distance, ORDER_ID_MASK);
    if (floor < last.order && a.floor_distance < DISTANCE_NEVER)
        last = find(s, d, &span, BY_ORDER, floor);
    if (last.mass == 0) return (uint32_t)best_id(d.r->state[d.slot].best);
    const double share = rng_uniform(a.seed, 0, a.position);
    const uint64_t target = mass_share(share, last.mass, false);
    return (uint32_t)find(s, d, &span, BY_MASS, target).order & ORDER_ID_MASK;
}

/* The draw in the order of ids, from all that min-p keeps. */
__device__ uint32_t draw_by_id(struct draw_shared *s, const struct draw_row &d) {
    const struct sample_args a = *d.a;
    const uint64_t *mass = d.r->part_mass + d.slot * d.r->parts;
    const int each = (d.r->parts + DRAW_THREADS - 1) / DRAW_THREADS;
    const int first = threadIdx.x * each, end = min(first + each, d.r->parts);
    uint64_t mine = 0, total;
    for (int i = first; i < end; i++) mine += mass[i];
    uint64_t before = block_before(mine, s->warp, &total);
    if (total == 0) return (uint32_t)best_id(d.r->state[d.slot].best);
    const uint64_t target = mass_share(rng_uniform(a.seed, 0, a.position), total, false);
    if (before < target && target <= before + mine) { /* true for one thread */
        int part = first;
        while (before + mass[part] < target) before += mass[part++];
        s->part = part;
        s->before = before;
    }
    __syncthreads();
    const int start = s->part * PART;
    for (int i = threadIdx.x; i < LIST; i += DRAW_THREADS) {
        const bool is = i < PART && start + i < d.r->usable;
        const uint32_t distance = is ? d.distance[start + i] : DISTANCE_NEVER;
        const uint64_t w = distance <= a.floor_distance ? mass_of(distance, d.r->mass_scale) : 0;
        s->list_mass[i] = w + (i == 0 ? s->before : 0);
    }
    sum_up<LIST>(s->list_mass, s->warp);
    return (uint32_t)min(start + first_at_least(s->list_mass, PART, target), d.r->usable - 1);
}

__global__ void __launch_bounds__(DRAW_THREADS) draw_kernel(struct sample_round r) {
    extern __shared__ uint64_t draw_memory[];
    struct draw_shared *s = (struct draw_shared *)draw_memory;
    const struct draw_row d = {&r, &r.args[blockIdx.x], r.distance + blockIdx.x * r.distance_stride,
                               blockIdx.x};
    depend_release();
    depend_wait();
    if (!d.a->draws || !logits_are_sound(r.state[d.slot].largest)) return;
    const uint32_t id = d.a->ordered ? draw_ordered(s, d) : draw_by_id(s, d);
    if (threadIdx.x == 0) r.state[d.slot].token = (int32_t)id;
}

void cuda_draw_reserve(struct cuda_backend *cuda) {
    gpu_allow_shared(cuda, draw_kernel, sizeof(struct draw_shared));
}

void cuda_draw(struct cuda_backend *cuda, const struct sample_round *round) {
    const dim3 parts((unsigned)round->parts, (unsigned)round->rows);
    gpu_launch(cuda, "bins", bins_kernel, parts, PART_THREADS, 0, *round);
    gpu_launch(cuda, "draw", draw_kernel, (unsigned)round->rows, DRAW_THREADS,
               sizeof(struct draw_shared), *round);
}
