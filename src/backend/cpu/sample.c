/* Drawing tokens from logits on the host.
 *
 * Candidates are ordered by descending logit, ties to the lower id, so nothing depends on a sort's
 * whims. A heap of candidate ids gives them in that order: bounded to k for top-k, over the whole
 * row only for top-p without top-k. Scratch (one row of logits, one of ids) comes from the plan.
 * Order of filters as transformers has it: penalties, temperature, top-k, top-p, min-p. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/caps.h"
#include "base/error.h"
#include "base/rng.h"
#include "num/hash.h"

/* True if candidate a comes before b in the order of the draw. */
static inline bool before(const float *logits, int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

/* Restores the heap whose root may be out of place. sign > 0: the first in order at the root. */
static void sift_down(const float *logits, int32_t *heap, int64_t count, int64_t at, int sign) {
    int32_t id = heap[at];
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count) {
            bool right = before(logits, heap[child + 1], heap[child]);
            if (right == (sign > 0)) child++;
        }
        if (before(logits, heap[child], id) != (sign > 0)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = id;
}

static void heapify(const float *logits, int32_t *heap, int64_t count, int sign) {
    for (int64_t i = count / 2; i-- > 0;) sift_down(logits, heap, count, i, sign);
}

/* The k first candidates of [0, n) into ids, in order. k <= n. */
static void select_top(const float *logits, int64_t n, int32_t *ids, int64_t k) {
    for (int64_t i = 0; i < k; i++) ids[i] = (int32_t)i;
    heapify(logits, ids, k, -1); /* the last of the kept ones at the root */
    for (int64_t i = k; i < n; i++) {
        if (!before(logits, (int32_t)i, ids[0])) continue;
        ids[0] = (int32_t)i;
        sift_down(logits, ids, k, 0, -1);
    }
    for (int64_t left = k; left > 1; left--) { /* heap sort: the root is the last of those left */
        int32_t last = ids[0];
        ids[0] = ids[left - 1];
        ids[left - 1] = last;
        sift_down(logits, ids, left - 1, 0, -1);
    }
}

static void apply_penalties(const struct sample_row *row, int64_t usable, float *logits) {
    for (int i = 0; i < row->seen_count; i++) {
        int32_t id = row->seen[i];
        if (id < 0 || id >= usable) continue;
        float x = logits[id];
        x = x > 0 ? x / row->repetition_penalty : x * row->repetition_penalty;
        if (row->generated[i] > 0)
            x -= row->presence_penalty + row->frequency_penalty * (float)row->generated[i];
        logits[id] = x;
    }
}

static int32_t arg_max(const float *logits, int64_t n) {
    int32_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) best = (int32_t)i;
    }
    return best;
}

/* How many of ids[0..count) top-p keeps: the shortest prefix whose mass reaches top_p. The ids are
 * ordered on demand from a heap if `heap`, else already in order; on return that prefix is in order
 * at the end of the array if `heap`, at its start otherwise. */
static int64_t top_p_prefix(const float *logits, int32_t *ids, int64_t count, float max,
                            double total, float top_p, bool heap) {
    double mass = 0;
    int64_t kept = 0;
    for (int64_t left = count; left > 0;) {
        int32_t id = heap ? ids[0] : ids[kept];
        if (heap) {
            ids[0] = ids[left - 1];
            ids[left - 1] = id;
            if (left > 1) sift_down(logits, ids, left - 1, 0, 1);
        }
        left--;
        kept++;
        mass += (double)expf(logits[id] - max);
        if (mass >= (double)top_p * total) break;
    }
    return kept;
}

static double mass_of(const float *logits, const int32_t *ids, int64_t count, float max) {
    double total = 0;
    for (int64_t i = 0; i < count; i++) total += (double)expf(logits[ids[i]] - max);
    return total;
}

/* logits: after penalties, changed here. Returns the drawn id. */
static int32_t draw(const struct sample_row *row, float *logits, int64_t n, int32_t *ids) {
    float max = logits[arg_max(logits, n)];
    for (int64_t i = 0; i < n; i++) logits[i] = (logits[i] - max) / row->temperature;
    int64_t count = n, step = 1;
    int32_t *first = ids;
    bool top_k = row->top_k > 0 && row->top_k < n;
    if (top_k) {
        count = row->top_k;
        select_top(logits, n, ids, count);
    } else {
        for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)i;
    }
    if (row->top_p < 1.0f) {
        double total = mass_of(logits, ids, count, 0);
        if (!top_k) heapify(logits, ids, count, 1);
        int64_t kept = top_p_prefix(logits, ids, count, 0, total, row->top_p, !top_k);
        if (!top_k) { /* popped from the heap: best at the very end, next one before it */
            first = ids + count - 1;
            step = -1;
        }
        count = kept;
    }
    float floor = row->min_p > 0 ? logf(row->min_p) : -INFINITY; /* the best has logit 0 here */
    double total = 0;
    for (int64_t i = 0; i < count; i++) {
        float x = logits[first[i * step]];
        if (x >= floor) total += (double)expf(x);
    }
    double target = rng_uniform(row->seed, 0, row->position) * total, sum = 0;
    int32_t chosen = -1;
    for (int64_t i = 0; i < count; i++) {
        int32_t id = first[i * step];
        if (logits[id] < floor) continue;
        chosen = id; /* rounding may leave the target past the last sum */
        sum += (double)expf(logits[id]);
        if (sum > target) break;
    }
    return chosen;
}

static void fill_logprobs(const struct sample_row *row, const float *raw, int64_t n, int32_t *ids,
                          struct sample_result *out) {
    float max = raw[arg_max(raw, n)];
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += exp((double)(raw[i] - max));
    double norm = log(total) + (double)max;
    out->logprob = (float)((double)raw[out->token] - norm);
    int64_t top = row->top_count < n ? row->top_count : n;
    if (top == 0) return;
    select_top(raw, n, ids, top);
    for (int64_t i = 0; i < top; i++) {
        out->top_ids[i] = ids[i];
        out->top_logprobs[i] = (float)((double)raw[ids[i]] - norm);
    }
}

/* NaN and +Inf make a row unusable; -Inf is a legal "never". */
static bool row_is_sound(const float *logits, int64_t n) {
    bool sound = true, any = false;
    for (int64_t i = 0; i < n; i++) {
        sound &= logits[i] < INFINITY;
        any |= logits[i] > -INFINITY;
    }
    return sound && any;
}

/* Sums side by side, so that the compiler makes vectors of them. */
VECTOR_CLONES static uint64_t hash_row(const float *row, int64_t n) {
    enum { LANES = 16 };
    uint64_t lane[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] += hash_element(row[i + j], (uint32_t)(i + j));
    for (; i < n; i++) sum += hash_element(row[i], (uint32_t)i);
    for (int j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

void cpu_sample(struct backend *be, const struct op_sample *op) {
    struct cpu_backend *cpu = (struct cpu_backend *)be;
    check(op->usable <= op->vocab && op->usable <= cpu->sample_ids_count);
    for (int i = 0; i < op->count; i++) {
        const float *raw = op->logits + (int64_t)op->row[i] * op->vocab;
        const struct sample_row *row = &op->params[i];
        struct sample_result *out = &op->results[i];
        check(row->top_count >= 0 && row->top_count <= CAP_LOGPROBS);
        *out = (struct sample_result){0};
        out->logits_hash = hash_row(raw, op->vocab);
        out->finite = row_is_sound(raw, op->usable);
        if (!out->finite) continue;
        float *logits = cpu->sample_logits;
        memcpy(logits, raw, (size_t)op->usable * sizeof *logits);
        apply_penalties(row, op->usable, logits);
        out->token = row->temperature > 0 ? draw(row, logits, op->usable, cpu->sample_ids)
                                          : arg_max(logits, op->usable);
        if (row->want_logprob) fill_logprobs(row, raw, op->usable, cpu->sample_ids, out);
    }
}
