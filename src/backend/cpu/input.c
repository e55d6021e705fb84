/* What some matrices do to their input before the product: a factor per column (AWQ), and the
 * rounding of activations to NVFP4. Both make a row of the row alone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/error.h"
#include "base/str.h"
#include "num/nvfp4.h"

struct cpu_input_scratch {
    uint8_t *scaled, *rounded; /* act [rows, max_cols]; scaled owns all four */
    float *row;                /* [threads, max_cols] */
    float *multiplier;         /* [rows] */
    int64_t cols;
    int rows;
};

static bool same_scales(const struct weight *a, const struct weight *b) {
    if (a->pre_scale == NULL || b->pre_scale == NULL) return a->pre_scale == b->pre_scale;
    return memcmp(a->pre_scale, b->pre_scale, (size_t)a->cols * sizeof *a->pre_scale) == 0;
}

/* Parts that share an input but were calibrated apart share the largest multiplier: the input is
 * really rounded under it, so nothing becomes wrong. */
int cpu_input_make(struct cpu_backend *cpu, const struct weight *parts, int count,
                   struct cpu_input *out, struct imp_error *err) {
    *out = (struct cpu_input){.pre_scale = parts[0].pre_scale, .multiplier = NAN};
    for (int i = 0; i < count; i++) {
        if (!same_scales(&parts[0], &parts[i]))
            return error_set(err, IMP_ERR_UNSUPPORTED, parts[i].name,
                             "its pre_quant_scale is not that of %s, which has the same input",
                             parts[0].name);
        if (!cpu->nvfp4_activations || parts[i].format != WEIGHT_NVFP4) continue;
        out->nvfp4 = true;
        const float m = parts[i].input_multiplier;
        if (isnan(out->multiplier) || m > out->multiplier) out->multiplier = m;
    }
    if (out->nvfp4 || out->pre_scale) cpu->changes_input = true;
    return 0;
}

/* ---- scratch ---- */

struct input_sizes {
    int rows;
    size_t act, row, multiplier; /* bytes; act twice */
};

static struct input_sizes input_sizes(struct backend *be, const struct step_limits *max) {
    const int threads = pool_threads(((struct cpu_backend *)be)->pool);
    struct input_sizes s = {.rows = max->rows > max->out_rows ? max->rows : max->out_rows};
    s.act = cpu_round_up((size_t)s.rows * be->ops->act_bytes(be, max->max_cols));
    s.row = cpu_round_up((size_t)threads * (size_t)max->max_cols * sizeof(float));
    s.multiplier = cpu_round_up((size_t)s.rows * sizeof(float));
    return s;
}

size_t cpu_input_scratch_bytes(struct backend *be, const struct step_limits *max) {
    if (!((struct cpu_backend *)be)->changes_input) return 0;
    struct input_sizes s = input_sizes(be, max);
    return 2 * s.act + s.row + s.multiplier;
}

void cpu_input_release(struct cpu_backend *cpu) {
    if (cpu->input == NULL) return;
    free(cpu->input->scaled);
    free(cpu->input);
    cpu->input = NULL;
}

int cpu_input_reserve(struct cpu_backend *cpu, const struct step_limits *max,
                      struct imp_error *err) {
    cpu_input_release(cpu);
    if (!cpu->changes_input) return 0;
    struct input_sizes s = input_sizes(&cpu->base, max);
    cpu->input = mem_zero(1, sizeof *cpu->input);
    cpu->input->rows = s.rows;
    cpu->input->cols = max->max_cols;
    uint8_t *p = aligned_alloc(CPU_ALIGN, 2 * s.act + s.row + s.multiplier);
    if (p == NULL) return error_memory(err, cpu_input_scratch_bytes(&cpu->base, max));
    cpu->input->scaled = p;
    cpu->input->rounded = p += s.act;
    cpu->input->row = (float *)(void *)(p += s.act);
    cpu->input->multiplier = (float *)(void *)(p + s.row);
    return 0;
}

/* ---- the rows ---- */

struct input_job {
    struct cpu_backend *cpu;
    const struct cpu_input *input;
    const void *x;
    int64_t cols;
};

static void change_row(void *ctx, int r, int thread) {
    const struct input_job *job = ctx;
    struct cpu_backend *cpu = job->cpu;
    struct cpu_input_scratch *s = cpu->input;
    float *row = s->row + thread * s->cols;
    cpu->hooks->load_row(job->x, job->cols, r, row);
    if (job->input->pre_scale) {
        for (int64_t k = 0; k < job->cols; k++) row[k] *= job->input->pre_scale[k];
        cpu->hooks->store_row(cpu, row, job->cols, s->scaled, r);
        cpu->hooks->load_row(s->scaled, job->cols, r, row);
    }
    if (!job->input->nvfp4) return;
    s->multiplier[r] = nvfp4_round_activation(row, job->input->multiplier, job->cols, row);
    cpu->hooks->store_row(cpu, row, job->cols, s->rounded, r);
}

struct cpu_inputs cpu_change_input(struct cpu_backend *cpu, const struct cpu_input *input,
                                   const void *x, int64_t cols, int rows) {
    struct cpu_inputs out = {x, NULL, NULL};
    if (!input->nvfp4 && input->pre_scale == NULL) return out;
    struct cpu_input_scratch *s = cpu->input;
    check(s != NULL && rows <= s->rows && cols <= s->cols);
    pool_run(cpu->pool, change_row, &(struct input_job){cpu, input, x, cols}, rows);
    if (input->pre_scale) out.x = s->scaled;
    if (input->nvfp4) {
        out.rounded = s->rounded;
        out.multiplier = s->multiplier;
    }
    return out;
}
