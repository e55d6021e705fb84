/* Routing and the experts. A slot is a row's choice of an expert: slots are sorted by expert, so
 * that an expert's weights meet all its slots at once, and every slot's sums are those of a linear
 * of one row, whatever other rows chose. */
#include <stdlib.h>

#include "backend/cuda/input.cuh"
extern "C" {
#include "base/caps.h"
}

enum { PLAN_THREADS = 512, GATE_UP_STACKS = 2, MOE_STACKS = GATE_UP_STACKS + 1, MAX_KINDS = 4 };

/* The stacks of all experts at one place: gate_up's first or second, or down. Most often all are of
 * one kind. (MXFP4's scales can have so wide a range that an expert is stored as BF16.) */
struct expert_stacks {
    int kinds;
    struct stack like[MAX_KINDS]; /* the shape of each kind */
};
struct cuda_experts {
    struct experts base;
    struct cuda_matrix **gate_up, **down; /* [count] host */
    struct expert_stacks stacks[MOE_STACKS];
    struct expert_stack *weights; /* device [MOE_STACKS, count] */
    struct input_change *input;   /* device, the same; or NULL: no input is changed */
    bool nvfp4;                   /* some are rounded */
};

/* ---- experts ---- */

static bool alike(const struct stack *s, const struct stack *t) {
    return s->format == t->format && s->planes == t->planes && s->chunks == t->chunks &&
           s->tiles == t->tiles;
}

/* The number of s's kind; -1: there are too many. */
static int kind_of(struct expert_stacks *all, const struct stack *s) {
    int k = 0;
    while (k < all->kinds && !alike(&all->like[k], s)) k++;
    if (k == MAX_KINDS) return -1;
    if (k == all->kinds) all->like[all->kinds++] = *s;
    return k;
}

/* Puts one expert's stacks into the host's copies of the tables. */
static bool list_stacks(struct cuda_experts *e, int i, struct expert_stack *weights,
                        struct input_change *input, bool *changed) {
    const struct cuda_matrix *matrices[2] = {e->gate_up[i], e->down[i]};
    if (matrices[0]->count > GATE_UP_STACKS || matrices[0]->count != e->gate_up[0]->count ||
        matrices[1]->count != 1)
        return false;
    for (int m = 0; m < 2; m++) {
        for (int k = 0; k < matrices[m]->count; k++) {
            const struct stack *s = &matrices[m]->stack[k];
            const int place = m ? (int)GATE_UP_STACKS : k, at = place * e->base.count + i;
            weights[at] = {s->data, s->row, kind_of(&e->stacks[place], s)};
            input[at] = s->input;
            e->nvfp4 |= s->input.nvfp4;
            *changed |= s->input.nvfp4 || s->input.pre_scale != NULL;
            if (weights[at].kind < 0) return false;
        }
    }
    return true;
}

static int upload_tables(struct backend *be, struct cuda_experts *e, struct imp_error *err) {
    const size_t entries = (size_t)e->base.count * MOE_STACKS;
    struct expert_stack *weights = (struct expert_stack *)mem_zero(entries, sizeof *weights);
    struct input_change *input = (struct input_change *)mem_zero(entries, sizeof *input);
    bool changed = false, sound = true;
    for (int i = 0; i < e->base.count && sound; i++)
        sound = list_stacks(e, i, weights, input, &changed);
    int rc = sound ? cuda_alloc(be, entries * sizeof *weights, (void **)&e->weights, err)
                   : error_set(err, IMP_ERR_UNSUPPORTED, be->name,
                               "experts of one layer that are stored in too many ways");
    if (rc == 0) be->ops->write(be, e->weights, weights, entries * sizeof *weights);
    if (rc == 0 && changed) rc = cuda_alloc(be, entries * sizeof *input, (void **)&e->input, err);
    if (rc == 0 && changed) be->ops->write(be, e->input, input, entries * sizeof *input);
    free(weights);
    free(input);
    return rc;
}

int cuda_experts_create(struct backend *be, struct matrix *const *gate_up,
                        struct matrix *const *down, int count, struct experts **out,
                        struct imp_error *err) {
    struct cuda_experts *e = (struct cuda_experts *)mem_zero(1, sizeof *e);
    e->gate_up = (struct cuda_matrix **)mem_zero((size_t)count, sizeof *e->gate_up);
    e->down = (struct cuda_matrix **)mem_zero((size_t)count, sizeof *e->down);
    e->base.count = count;
    e->base.width = down[0]->cols;
    e->base.hidden = down[0]->rows;
    for (int i = 0; i < count; i++) {
        e->gate_up[i] = (struct cuda_matrix *)gate_up[i];
        e->down[i] = (struct cuda_matrix *)down[i];
        e->base.bytes += gate_up[i]->bytes + down[i]->bytes;
    }
    int rc = upload_tables(be, e, err);
    if (rc < 0) {
        cuda_experts_free(be, &e->base);
        return rc;
    }
    *out = &e->base;
    return 0;
}

void cuda_experts_free(struct backend *be, struct experts *experts) {
    if (experts == NULL) return;
    struct cuda_experts *e = (struct cuda_experts *)experts;
    for (int i = 0; i < e->base.count; i++) {
        cuda_matrix_free(be, &e->gate_up[i]->base);
        cuda_matrix_free(be, &e->down[i]->base);
    }
    cuda_free(be, e->weights);
    cuda_free(be, e->input);
    free(e->gate_up);
    free(e->down);
    free(e);
}

/* ---- route ---- */

/* A block a row: the normed row and the logits in shared memory, a warp a logit, thread 0 picks. */
__global__ void route_kernel(struct op_route op) {
    extern __shared__ float shared[];
    float *n = shared, *logit = shared + op.cols;
    const float *h = op.h + blockIdx.x * op.cols;
    const int lane = threadIdx.x % WARP;
    depend_release();
    depend_wait();
    const float scale = row_scale(h, op.cols, op.eps);
    for (int64_t k = threadIdx.x; k < op.cols; k += ROW_THREADS)
        n[k] = h[k] * scale * (op.norm ? op.norm[k] : 1.0f);
    __syncthreads();
    for (int e = threadIdx.x / WARP; e < op.experts; e += ROW_THREADS / WARP) {
        const float *w = op.router + e * op.cols;
        float x = 0;
        for (int64_t k = lane; k < op.cols; k += WARP) x = __fmaf_rn(n[k], w[k], x);
        x = warp_sum(x);
        if (lane == 0) logit[e] = op.bias ? x + op.bias[e] : x;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    int32_t *expert = op.expert + (int64_t)blockIdx.x * op.top_k;
    float *weight = op.weight + (int64_t)blockIdx.x * op.top_k, total = 0;
    for (int i = 0; i < op.top_k; i++) {
        int best = -1;
        for (int e = 0; e < op.experts; e++) {
            bool taken = false;
            for (int j = 0; j < i; j++) taken |= expert[j] == e;
            if (!taken && (best < 0 || logit[e] > logit[best])) best = e;
        }
        expert[i] = best;
    }
    const float most = logit[expert[0]];
    for (int e = 0; !op.renormalize && e < op.experts; e++) total += expf(logit[e] - most);
    for (int i = 0; i < op.top_k; i++) {
        weight[i] = expf(logit[expert[i]] - most);
        if (op.renormalize) total += weight[i];
    }
    for (int i = 0; i < op.top_k; i++) {
        weight[i] /= total;
        if (op.expert_scale) weight[i] *= op.expert_scale[expert[i]];
    }
}

void cuda_route(struct backend *be, const struct op_route *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const size_t shared = (size_t)(op->cols + op->experts) * sizeof(float);
    check(op->experts <= CAP_EXPERTS && op->top_k <= op->experts);
    gpu_launch(cuda, "route", route_kernel, (unsigned)cuda->batch.rows, ROW_THREADS, shared, *op);
}

/* ---- scratch ---- */

static size_t slots_of(const struct step_limits *max) {
    return (size_t)max->rows * (size_t)max->moe_top_k;
}

/* The router keeps a row and its logits in shared memory: as much as the device gives. */
static void allow_route_memory(struct cuda_backend *cuda) {
    enum { OWN_BYTES = 1024 }; /* what the kernel has besides */
    int most = 0;
    gpu_call(cuda,
             cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, cuda->device));
    gpu_allow_shared(cuda, route_kernel, (size_t)(most - OWN_BYTES));
}

/* Items of at most one column of eight slots: no expert adds more than one that is not full. */
static size_t items_of(const struct step_limits *max) {
    return slots_of(max) / 8 + CAP_EXPERTS;
}
struct moe_sizes {
    size_t gate_up, slots, inner, changed, multiplier, items, order;
};
static struct moe_sizes moe_sizes(const struct step_limits *max) {
    const size_t slots = slots_of(max);
    const int64_t wide = max->moe_hidden > max->moe_width ? max->moe_hidden : max->moe_width;
    return {slots * (size_t)(2 * max->moe_width) * sizeof(float),
            slots * (size_t)max->moe_hidden * sizeof(float),
            slots * (size_t)act_stride(max->moe_width) * sizeof(uint16_t),
            slots * (size_t)act_stride(wide) * sizeof(uint16_t),
            slots * sizeof(float),
            (items_of(max) + 1) * sizeof(struct slot_item),
            slots * sizeof(int32_t)};
}

size_t cuda_moe_bytes(const struct step_limits *max) {
    if (slots_of(max) == 0) return 0;
    const struct moe_sizes s = moe_sizes(max);
    return s.gate_up + s.slots + s.inner + s.changed + s.multiplier + s.items + s.order;
}

int cuda_moe_reserve(struct cuda_backend *cuda, const struct step_limits *max,
                     struct imp_error *err) {
    if (slots_of(max) == 0) return 0;
    const struct moe_sizes s = moe_sizes(max);
    struct backend *be = &cuda->base;
    int rc;
    allow_route_memory(cuda);
    if ((rc = cuda_error(cuda, err)) < 0 ||
        (rc = cuda_alloc(be, s.gate_up, (void **)&cuda->moe_gate_up, err)) < 0 ||
        (rc = cuda_alloc(be, s.slots, (void **)&cuda->moe_slots, err)) < 0 ||
        (rc = cuda_alloc(be, s.inner, (void **)&cuda->moe_inner, err)) < 0 ||
        (rc = cuda_alloc(be, s.changed, (void **)&cuda->moe_changed, err)) < 0 ||
        (rc = cuda_alloc(be, s.multiplier, (void **)&cuda->moe_changed_multiplier, err)) < 0 ||
        (rc = cuda_alloc(be, s.order, (void **)&cuda->moe_order, err)) < 0)
        return rc;
    return cuda_alloc(be, s.items, (void **)&cuda->moe_items, err);
}

void cuda_moe_release(struct cuda_backend *cuda) {
    cuda_free(&cuda->base, cuda->moe_gate_up);
    cuda_free(&cuda->base, cuda->moe_slots);
    cuda_free(&cuda->base, cuda->moe_inner);
    cuda_free(&cuda->base, cuda->moe_changed);
    cuda_free(&cuda->base, cuda->moe_changed_multiplier);
    cuda_free(&cuda->base, cuda->moe_order);
    cuda_free(&cuda->base, cuda->moe_items);
}

/* ---- slots by expert ---- */

/* One block. items[0].first is their count, items from 1 on. In which order an expert's slots come
 * does not matter: each is a column of its own. */
__global__ void __launch_bounds__(PLAN_THREADS)
    plan_kernel(const int32_t *expert, int slots, int experts, int per_item, int32_t *order,
                struct slot_item *items) {
    __shared__ int count[CAP_EXPERTS], first[CAP_EXPERTS], first_item[CAP_EXPERTS];
    depend_release();
    depend_wait();
    for (int e = threadIdx.x; e < experts; e += PLAN_THREADS) count[e] = 0;
    __syncthreads();
    for (int s = threadIdx.x; s < slots; s += PLAN_THREADS) atomicAdd(&count[expert[s]], 1);
    __syncthreads();
    if (threadIdx.x == 0) {
        int at = 0, item = 0;
        for (int e = 0; e < experts; e++) {
            first[e] = at;
            first_item[e] = item;
            at += count[e];
            item += (count[e] + per_item - 1) / per_item;
        }
        items[0].first = item;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < experts; e += PLAN_THREADS) {
        for (int i = 0; i * per_item < count[e]; i++)
            items[1 + first_item[e] + i] = {e, first[e] + i * per_item,
                                            min(per_item, count[e] - i * per_item)};
    }
    __syncthreads(); /* from here on first[] moves */
    for (int s = threadIdx.x; s < slots; s += PLAN_THREADS)
        order[atomicAdd(&first[expert[s]], 1)] = s;
}

/* Returns the most items there can be. A single row's experts are all different. */
static int group_slots(struct cuda_backend *cuda, const struct op_moe *op, int experts,
                       struct slot_groups *groups) {
    const int slots = cuda->batch.rows * op->top_k;
    *groups = {};
    groups->expert = op->expert;
    groups->columns = 1;
    if (cuda->batch.rows == 1) return slots;
    groups->columns = slots > 16 * experts ? 4 : 1;
    groups->items = cuda->moe_items + 1;
    groups->count = &cuda->moe_items[0].first;
    groups->slot = cuda->moe_order;
    gpu_launch(cuda, "plan of experts", plan_kernel, 1, PLAN_THREADS, 0, op->expert, slots, experts,
               8 * groups->columns, cuda->moe_order, cuda->moe_items);
    const int most = slots / (8 * groups->columns) + experts;
    return most < slots ? most : slots;
}

/* ---- the products ---- */

/* out[slot] = x[slot / share] as the slot's expert changes its input; a block a slot. */
__global__ void __launch_bounds__(ROW_THREADS)
    input_slots_kernel(const uint16_t *x, int share, const struct input_change *change,
                       const int32_t *expert, int64_t cols, uint16_t *out, float *multiplier) {
    const int64_t stride = act_stride(cols), slot = blockIdx.x;
    depend_release();
    depend_wait();
    const struct input_change mine = change[expert[slot]];
    const float by = change_row(mine, x + slot / share * stride, cols, out + slot * stride);
    if (threadIdx.x == 0) multiplier[slot] = by;
}

/* y[slot] = the products of the experts' stacks at a place. */
static void expert_linear(struct cuda_backend *cuda, const struct cuda_experts *e, int place,
                          const struct linear_job *job, struct slot_groups groups, int slots,
                          int most_items) {
    struct linear_job mine = *job;
    groups.weights = e->weights + (int64_t)place * e->base.count;
    if (e->input) {
        const int64_t cols = place == GATE_UP_STACKS ? e->base.width : e->base.hidden;
        gpu_launch(cuda, "input of slots", input_slots_kernel, (unsigned)slots, ROW_THREADS, 0,
                   job->x, groups.x_share, e->input + (int64_t)place * e->base.count, groups.expert,
                   cols, cuda->moe_changed, cuda->moe_changed_multiplier);
        mine.x = cuda->moe_changed;
        if (e->nvfp4) mine.row_multiplier = cuda->moe_changed_multiplier;
        groups.x_share = 1;
    }
    for (groups.kind = 0; groups.kind < e->stacks[place].kinds; groups.kind++) {
        mine.stack = &e->stacks[place].like[groups.kind];
        linear_groups(cuda, &mine, &groups, most_items);
    }
}

__global__ void combine_kernel(const float *slots, const float *weight, int top_k, int64_t hidden,
                               int64_t n, bool add, float *y) {
    const int64_t i = (int64_t)blockIdx.x * ROW_THREADS + threadIdx.x;
    depend_release();
    depend_wait();
    if (i >= n) return;
    const int64_t r = i / hidden, k = i % hidden;
    float sum = 0;
    for (int s = 0; s < top_k; s++)
        sum = __fmaf_rn(weight[r * top_k + s], slots[(r * top_k + s) * hidden + k], sum);
    y[i] = add ? __fadd_rn(y[i], sum) : sum;
}

void cuda_moe(struct backend *be, const struct op_moe *op) {
    struct cuda_backend *cuda = cuda_of(be);
    const struct cuda_experts *e = (const struct cuda_experts *)op->experts;
    const int64_t width = e->base.width, hidden = e->base.hidden;
    const int slots = cuda->batch.rows * op->top_k;
    check(op->inner == NULL); /* calibration runs on a CPU */
    struct slot_groups groups;
    const int most = group_slots(cuda, op, e->base.count, &groups);
    groups.x_share = op->top_k;
    struct linear_job job = {};
    job.x = (const uint16_t *)op->x;
    job.x_stride = act_stride(hidden);
    job.y = cuda->moe_gate_up;
    job.y_stride = 2 * width;
    const bool fused = e->gate_up[0]->count == 1 && e->gate_up[0]->stack[0].paired;
    if (fused) job.glu = {cuda->moe_inner, act_stride(width), op->kind, op->limit};
    for (int i = 0; i < e->gate_up[0]->count; i++)
        expert_linear(cuda, e, i, &job, groups, slots, most);
    if (!fused) {
        struct op_glu glu = {};
        glu.kind = op->kind;
        glu.limit = op->limit;
        glu.gate = cuda->moe_gate_up;
        glu.up = cuda->moe_gate_up + (op->interleaved ? 1 : width);
        glu.gate_row = glu.up_row = 2 * width;
        glu.step = op->interleaved ? 2 : 1;
        glu.cols = width;
        glu.out = cuda->moe_inner;
        cuda_glu_rows(cuda, &glu, slots);
    }
    job.glu = {};
    groups.x_share = 1;
    job.x = cuda->moe_inner;
    job.x_stride = act_stride(width);
    job.y = cuda->moe_slots;
    job.y_stride = hidden;
    expert_linear(cuda, e, GATE_UP_STACKS, &job, groups, slots, most);
    const int64_t n = cuda->batch.rows * hidden;
    gpu_launch(cuda, "combine", combine_kernel, cuda_blocks(n), ROW_THREADS, 0, cuda->moe_slots,
               op->weight, op->top_k, hidden, n, op->mode == LINEAR_ADD, op->y);
}
