/* The sampler: packing, the scan that every row gets, and logprobs. sample_draw.cu draws.
 *
 * Greedy rows need the scan alone. Against the CPU's sampler on the same logits: finite, the hash,
 * arg max, ties, and which ids top-k keeps are equal. Masses differ in the last place, where the
 * two libraries' expf do and because the CPU's sums are rounded: a draw or the end of top-p that
 * falls that close to a boundary may take the neighbour. */
#include "backend/cuda/sample.cuh"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- kernels; a block a part: grid (parts, rows) ---- */

enum { PART_WARPS = PART_THREADS / WARP };

/* Hash, largest and best of a row, and zeros for the bins of one that is drawn. */
__global__ void scan_kernel(struct sample_round r) {
    __shared__ uint64_t warp_hash[PART_WARPS], warp_most[PART_WARPS];
    __shared__ uint32_t warp_largest[PART_WARPS];
    const int warp = threadIdx.x / WARP, slot = blockIdx.y;
    depend_release();
    depend_wait();
    const struct sample_args a = r.args[slot];
    struct sample_state *state = &r.state[slot];
    float x[PART_EACH];
    uint64_t hash = 0;
    uint32_t largest = 0, most = 0;
    int at = 0;
    load_part(r, a, x);
    for (int j = 0; j < PART_EACH; j++)
        if (part_column(j) < r.vocab) hash += hash_element(x[j], (uint32_t)part_column(j));
    for (int j = 0; a.seen_count > 0 && j < PART_EACH; j++)
        if (part_column(j) < r.usable) largest = max(largest, logit_key(x[j]));
    penalise_part(r, a, x);
    for (int j = 0; j < PART_EACH; j++) {
        const uint32_t key = logit_key(x[j]);
        if (part_column(j) >= r.usable || key <= most) continue;
        most = key;
        at = part_column(j);
    }
    if (a.seen_count == 0) largest = most;
    uint64_t best = best_of(most, (uint32_t)at);
    hash = warp_sum_mass(hash);
    best = warp_best(best);
    largest = __reduce_max_sync(~0u, largest);
    if (threadIdx.x % WARP == 0) {
        warp_hash[warp] = hash;
        warp_most[warp] = best;
        warp_largest[warp] = largest;
    }
    for (int i = blockIdx.x * PART_THREADS + threadIdx.x; a.ordered && i < BINS;
         i += r.parts * PART_THREADS)
        r.bin_mass[(int64_t)slot * BINS + i] = r.bin_count[(int64_t)slot * BINS + i] = 0;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < PART_WARPS; i++) {
        hash += warp_hash[i];
        best = max(best, warp_most[i]);
        largest = max(largest, warp_largest[i]);
    }
    atomicAdd((unsigned long long *)&state->hash, hash);
    atomicMax((unsigned long long *)&state->best, best);
    atomicMax(&state->largest, largest);
}

/* The largest of a block's values below `limit`; each thread has `count` of them. */
__device__ __forceinline__ uint64_t block_best_below(const uint64_t *x, int count, uint64_t limit) {
    __shared__ uint64_t warp_most[PART_WARPS];
    uint64_t best = 0;
    for (int i = 0; i < count; i++)
        if (x[i] < limit) best = max(best, x[i]);
    best = warp_best(best);
    __syncthreads(); /* warp_most may still be read from the last time */
    if (threadIdx.x % WARP == 0) warp_most[threadIdx.x / WARP] = best;
    __syncthreads();
    for (int i = 0; i < PART_WARPS; i++) best = max(best, warp_most[i]);
    return best;
}

/* A fixed tree over a block's doubles, to all threads. */
__device__ __forceinline__ double block_total(double x) {
    __shared__ double warp_total[PART_WARPS];
    for (int width = WARP / 2; width > 0; width /= 2) x += __shfl_xor_sync(~0u, x, width);
    if (threadIdx.x % WARP == 0) warp_total[threadIdx.x / WARP] = x;
    __syncthreads();
    double total = 0;
    for (int i = 0; i < PART_WARPS; i++) total += warp_total[i];
    return total;
}

/* Of one part: the sum of e^(logit - largest), and the first candidates. */
__global__ void part_logprob_kernel(struct sample_round r) {
    const int slot = blockIdx.y;
    const int64_t part = (int64_t)slot * r.parts + blockIdx.x;
    depend_release();
    depend_wait();
    const struct sample_args a = r.args[slot];
    const uint32_t largest = r.state[slot].largest;
    if (!a.want_logprob || !logits_are_sound(largest)) return;
    const float most = logit_of_key(largest);
    float x[PART_EACH];
    uint64_t candidate[PART_EACH];
    double sum = 0;
    load_part(r, a, x);
    for (int j = 0; j < PART_EACH; j++) {
        const int id = part_column(j);
        const bool is = id < r.usable;
        if (is) sum += exp((double)__fsub_rn(x[j], most));
        candidate[j] = is ? best_of(logit_key(x[j]), (uint32_t)id) : 0;
    }
    sum = block_total(sum);
    if (threadIdx.x == 0) r.part_total[part] = sum;
    uint64_t last = ~(uint64_t)0;
    for (int i = 0; i < a.top_count; i++) {
        last = block_best_below(candidate, PART_EACH, last);
        if (threadIdx.x == 0) r.part_top[part * CAP_LOGPROBS + i] = last;
    }
}

/* Of a row; a block each. */
__global__ void row_logprob_kernel(struct sample_round r) {
    const int slot = blockIdx.x;
    depend_release();
    depend_wait();
    const struct sample_args a = r.args[slot];
    struct sample_state *state = &r.state[slot];
    if (!a.want_logprob || !logits_are_sound(state->largest)) return;
    const uint64_t *top = r.part_top + (int64_t)slot * r.parts * CAP_LOGPROBS;
    double sum = 0;
    for (int i = threadIdx.x; i < r.parts; i += PART_THREADS)
        sum += r.part_total[(int64_t)slot * r.parts + i];
    const double norm = log(block_total(sum)) + (double)logit_of_key(state->largest);
    if (threadIdx.x == 0) {
        const int32_t token = a.draws ? state->token : best_id(state->best);
        state->logprob = (float)((double)r.logits[(int64_t)a.row * r.vocab + token] - norm);
    }
    uint64_t last = ~(uint64_t)0;
    for (int i = 0; i < a.top_count && i < r.usable; i++) {
        uint64_t best = 0;
        for (int j = threadIdx.x; j < r.parts * CAP_LOGPROBS; j += PART_THREADS) {
            if (j % CAP_LOGPROBS < a.top_count && top[j] < last) best = max(best, top[j]);
        }
        last = block_best_below(&best, 1, last);
        if (threadIdx.x != 0) continue;
        state->top_ids[i] = best_id(last);
        state->top_logprobs[i] = (float)((double)logit_of_key((uint32_t)(last >> 32)) - norm);
    }
}

/* ---- memory ---- */

enum { SEEN_ROUND = 1 << 20, SEEN_LEAST = 4096 };

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static int parts_of(int64_t vocab) {
    return (int)((vocab + PART - 1) / PART);
}
/* Ids that a row may have seen: those of its context, all of them different. */
static int64_t seen_of_row(const struct step_limits *max) {
    const int64_t context = (int64_t)max->max_blocks * KV_BLOCK_TOKENS;
    return min64(max64(context, SEEN_LEAST), max->vocab);
}
/* Ids that a round may have seen, all rows together. */
static int64_t seen_of_round(const struct step_limits *max) {
    const int64_t row = seen_of_row(max);
    return min64(row * max->seqs, max64(row, SEEN_ROUND));
}

/* Where the arrays stand, in bytes. What is copied comes first. */
struct sample_places {
    size_t copied, distance, part_mass, bin_mass, bin_count, part_total, part_top, end;
    int64_t distance_stride;
};
static struct sample_places sample_places(const struct step_limits *max) {
    const size_t rows = (size_t)max->seqs, parts = rows * (size_t)parts_of(max->vocab);
    struct sample_places p = {};
    p.distance_stride = (max->vocab + 3) / 4 * 4; /* 16 bytes are read at once */
    p.copied = rows * (sizeof(struct sample_state) + sizeof(struct sample_args)) +
               (size_t)seen_of_round(max) * sizeof(struct sample_seen);
    p.distance = (p.copied + 15) / 16 * 16;
    p.part_mass = p.distance + rows * (size_t)p.distance_stride * sizeof(uint32_t);
    p.bin_mass = p.part_mass + parts * sizeof(uint64_t);
    p.bin_count = p.bin_mass + rows * BINS * sizeof(uint64_t);
    p.part_total = p.bin_count + rows * BINS * sizeof(uint64_t);
    p.part_top = p.part_total + parts * sizeof(double);
    p.end = p.part_top + parts * CAP_LOGPROBS * sizeof(uint64_t);
    return p;
}

size_t cuda_sample_bytes(const struct step_limits *max) {
    return sample_places(max).end;
}

int cuda_sample_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                        struct imp_error *err) {
    const struct sample_places p = sample_places(max);
    check(max->vocab <= CAP_VOCAB); /* ids fit ORDER_ID_BITS */
    gpu_call(cuda, cudaMallocHost((void **)&cuda->host_sample, p.copied));
    cuda_draw_reserve(cuda);
    const int rc = cuda_error(cuda, err);
    return rc < 0 ? rc : cuda_alloc(&cuda->base, p.end, (void **)&cuda->dev_sample, err);
}

void cuda_sample_release(struct cuda_backend *cuda) {
    cuda_free(&cuda->base, cuda->dev_sample);
    cudaFreeHost(cuda->host_sample);
}

/* ---- the call ---- */

/* How many rows from the first on a round can hold. */
static int round_rows(const struct cuda_backend *cuda, const struct sample_row *rows, int count) {
    const int64_t most = seen_of_round(&cuda->limits), row = seen_of_row(&cuda->limits);
    int64_t seen = 0;
    int n = 0;
    for (; n < count && n < cuda->limits.seqs; n++) {
        check(rows[n].seen_count <= row);
        seen += rows[n].seen_count;
        if (seen > most) break;
    }
    return n;
}

static struct sample_args args_of(const struct op_sample *op, int i, int seen_first) {
    const struct sample_row *row = &op->params[i];
    struct sample_args a = {};
    check(row->top_count >= 0 && row->top_count <= CAP_LOGPROBS);
    a.row = op->row[i];
    a.seen_first = seen_first;
    a.seen_count = row->seen_count;
    a.repetition_penalty = row->repetition_penalty;
    a.presence_penalty = row->presence_penalty;
    a.frequency_penalty = row->frequency_penalty;
    a.temperature = row->temperature;
    a.top_p = row->top_p;
    a.top_k = row->top_k > 0 && row->top_k < op->usable ? row->top_k : 0;
    a.floor_distance = row->min_p > 0 ? distance_bits(logf(row->min_p)) : DISTANCE_NEVER;
    a.draws = row->temperature > 0;
    a.ordered = a.draws && (a.top_k > 0 || a.top_p < 1);
    a.want_logprob = row->want_logprob;
    a.top_count = row->top_count;
    a.seed = row->seed;
    a.position = row->position;
    return a;
}

/* Fills the pinned buffer. Returns the bytes to copy. */
static size_t pack(char *host, const struct op_sample *op, int first, int rows) {
    struct sample_state *state = (struct sample_state *)host;
    struct sample_args *args = (struct sample_args *)(state + rows);
    struct sample_seen *seen = (struct sample_seen *)(args + rows);
    int count = 0;
    memset(state, 0, (size_t)rows * sizeof *state);
    for (int i = 0; i < rows; i++) {
        const struct sample_row *row = &op->params[first + i];
        args[i] = args_of(op, first + i, count);
        for (int j = 0; j < row->seen_count; j++, count++) {
            seen[count].id = row->seen[j];
            seen[count].generated = row->generated[j];
        }
    }
    return (size_t)((char *)(seen + count) - host);
}

static struct sample_round round_of(struct cuda_backend *cuda, const struct op_sample *op,
                                    int rows) {
    const struct sample_places p = sample_places(&cuda->limits);
    struct sample_round r = {};
    r.logits = op->logits;
    r.vocab = (int)op->vocab;
    r.usable = (int)op->usable;
    r.rows = rows;
    r.parts = parts_of(op->vocab);
    r.mass_scale = mass_scale(op->usable);
    r.state = (struct sample_state *)cuda->dev_sample;
    r.args = (const struct sample_args *)(r.state + rows);
    r.seen = (const struct sample_seen *)(r.args + rows);
    r.distance = (uint32_t *)(cuda->dev_sample + p.distance);
    r.distance_stride = p.distance_stride;
    r.part_mass = (uint64_t *)(cuda->dev_sample + p.part_mass);
    r.bin_mass = (uint64_t *)(cuda->dev_sample + p.bin_mass);
    r.bin_count = (uint64_t *)(cuda->dev_sample + p.bin_count);
    r.part_total = (double *)(cuda->dev_sample + p.part_total);
    r.part_top = (uint64_t *)(cuda->dev_sample + p.part_top);
    return r;
}

static void unpack(const struct sample_state *state, const struct sample_row *row,
                   struct sample_result *out) {
    *out = (struct sample_result){};
    out->logits_hash = state->hash;
    out->finite = logits_are_sound(state->largest);
    if (!out->finite) return;
    out->token = row->temperature > 0 ? state->token : best_id(state->best);
    out->logprob = state->logprob;
    memcpy(out->top_ids, state->top_ids, sizeof out->top_ids);
    memcpy(out->top_logprobs, state->top_logprobs, sizeof out->top_logprobs);
}

static void launch_round(struct cuda_backend *cuda, const struct op_sample *op, int first,
                         const struct sample_round *r) {
    const dim3 grid((unsigned)r->parts, (unsigned)r->rows);
    bool draws = false, logprobs = false;
    for (int i = first; i < first + r->rows; i++) {
        draws |= op->params[i].temperature > 0;
        logprobs |= op->params[i].want_logprob;
    }
    gpu_launch(cuda, "sample", scan_kernel, grid, PART_THREADS, 0, *r);
    if (draws) cuda_draw(cuda, r);
    if (!logprobs) return;
    gpu_launch(cuda, "logprobs", part_logprob_kernel, grid, PART_THREADS, 0, *r);
    gpu_launch(cuda, "logprobs", row_logprob_kernel, (unsigned)r->rows, PART_THREADS, 0, *r);
}

void cuda_sample(struct backend *be, const struct op_sample *op) {
    struct cuda_backend *cuda = cuda_of(be);
    check(op->usable <= op->vocab && op->vocab <= cuda->limits.vocab);
    graph_flush(cuda);
    for (int first = 0, rows; first < op->count; first += rows) {
        rows = round_rows(cuda, op->params + first, op->count - first);
        const struct sample_round r = round_of(cuda, op, rows);
        const size_t bytes = pack(cuda->host_sample, op, first, rows);
        gpu_call(cuda, cudaMemcpyAsync(cuda->dev_sample, cuda->host_sample, bytes,
                                       cudaMemcpyHostToDevice, cuda->stream));
        launch_round(cuda, op, first, &r);
        gpu_call(cuda, cudaMemcpyAsync(cuda->host_sample, r.state, (size_t)rows * sizeof *r.state,
                                       cudaMemcpyDeviceToHost, cuda->stream));
        gpu_call(cuda, cudaStreamSynchronize(cuda->stream));
        const struct sample_state *state = (const struct sample_state *)cuda->host_sample;
        for (int i = 0; i < rows; i++)
            unpack(&state[i], &op->params[first + i], &op->results[first + i]);
    }
}
