/* The rules that look at several matrices: siblings of one part, copies, shards of one product. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "health/judge.h"

enum { FEW_SIBLINGS = 4 };

/* Median, and median absolute deviation from it, of log2 of some number of siblings. */
struct spread {
    double median, deviation;
    size_t count;
};

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, size_t n) {
    qsort(v, n, sizeof *v, by_value);
    return n ? (v[(n - 1) / 2] + v[n / 2]) / 2 : NAN;
}

static struct spread spread_of(double *v, size_t n) {
    struct spread s = {.count = n, .median = median(v, n)};
    for (size_t i = 0; i < n; i++) v[i] = fabs(v[i] - s.median);
    s.deviation = median(v, n);
    return s;
}

/* Sorted by part, then layer: neighbours are siblings. */
static int by_part(const void *a, const void *b) {
    const struct weights_matrix *x = *(struct weights_matrix *const *)a,
                                *y = *(struct weights_matrix *const *)b;
    const int order = strcmp(x->part, y->part);
    if (order) return order;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return (x->expert > y->expert) - (x->expert < y->expert);
}

static bool usable(const struct weights_matrix *m) {
    return m->rms > 0 && isfinite(m->rms);
}

/* ---- the scale of the whole tensor ---- */

static bool plausible(double largest) {
    return largest > 1 / judge_rule("global_range")->broken &&
           largest < judge_rule("global_range")->broken;
}

static double tensor_scale(const struct weights_matrix *m) {
    return m->multiplier;
}

static double input_scale(const struct weights_matrix *m) {
    return m->input_multiplier;
}

/* The median of log2 of the others' scales; NAN if there are none. */
static double median_of_others(struct weights_matrix *const *group, size_t n, size_t at,
                               double (*scale)(const struct weights_matrix *)) {
    double *others = mem_alloc(n * sizeof *others);
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (i == at || group[i]->problem || group[i]->format != WEIGHT_NVFP4) continue;
        const double other = scale(group[i]);
        if (other > 0 && isfinite(other)) others[count++] = log2(other);
    }
    const double middle = median(others, count);
    free(others);
    return middle;
}

static void judge_global(struct health_report *r, struct weights_matrix *const *group, size_t n,
                         size_t at) {
    const struct weights_matrix *m = group[at];
    const double g = m->multiplier;
    if (m->format != WEIGHT_NVFP4 || m->largest == 0) return;
    if (g > 0 && isfinite(g) && plausible(m->largest)) return;
    const double middle = median_of_others(group, n, at, tensor_scale);
    /* The scale without the units that all blocks share: were it 1/g, would it be plausible? */
    const bool inverted = g > 0 && isfinite(g) &&
                          (middle < 0 ? fabs(log2(g) + middle) < 5 : plausible(m->largest / g / g));
    judge_add(r, inverted ? "global_inverted" : "global_range", HEALTH_BROKEN,
              !isnan(middle) && inverted ? BASIS_SIBLINGS : BASIS_GAUSSIAN, m->name, NULL,
              m->largest, "the tensor's scale %.4g makes the largest weight %.4g%s", g, m->largest,
              inverted ? ": it is the inverse of what it should be" : "");
}

/* Over 1 the scale says that inputs reach 2688, which a layer with a few huge activations may have;
 * not if 1 over it is what its siblings have. */
static void judge_input(struct health_report *r, struct weights_matrix *const *group, size_t n,
                        size_t at) {
    const struct weights_matrix *m = group[at];
    const double g = m->input_multiplier;
    if (m->format != WEIGHT_NVFP4 || !(g > judge_rule("input_inverted")->broken)) return;
    const double middle = median_of_others(group, n, at, input_scale);
    if (!(middle < 0 && fabs(log2(g) + middle) < 5)) return;
    judge_add(r, "input_inverted", HEALTH_BROKEN, BASIS_SIBLINGS, m->name, NULL, g,
              "the input's scale is %.4g, that of its siblings %.4g: it is the inverse of what it "
              "should be",
              g, exp2(middle));
}

/* ---- norms ---- */

static struct spread norms(struct weights_matrix *const *group, size_t n) {
    double *v = mem_alloc(n * sizeof *v);
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (usable(group[i])) v[count++] = log2(group[i]->rms);
    }
    struct spread s = spread_of(v, count);
    free(v);
    return s;
}

/* One expert among those of its layer: a factor of a power of two is an exponent gone wrong. */
static void judge_expert(struct health_report *r, const struct weights_matrix *m,
                         const struct spread *s) {
    if (s->count < FEW_SIBLINGS || !usable(m)) return;
    const double off = log2(m->rms) - s->median, power = round(off);
    if (power == 0 || s->deviation > 0.1) return;
    if (fabs(off - power) > judge_rule("expert_factor")->broken) return;
    judge_add(r, "expert_factor", HEALTH_BROKEN, BASIS_SIBLINGS, m->name, NULL, exp2(off),
              "its RMS is %.3f times the median of the %zu experts of its layer, whose median "
              "deviation is %.1f %%",
              exp2(off), s->count, 100 * (exp2(s->deviation) - 1));
}

static void judge_norm(struct health_report *r, const struct weights_matrix *m,
                       const struct spread *s) {
    if (s->count < FEW_SIBLINGS || !usable(m)) return;
    const double off = log2(m->rms) - s->median, limit = log2(judge_rule("norm")->weak);
    if (fabs(off) < fmax(limit, 8 * s->deviation)) return;
    judge_add(r, "norm", HEALTH_WEAK, BASIS_SIBLINGS, m->name, NULL, exp2(fabs(off)),
              "its RMS is %.3g times the median of the same part in %zu layers", exp2(off),
              s->count);
}

/* One part: of all layers; of experts, layer by layer. */
static void judge_part(struct health_report *r, struct weights_matrix **part, size_t n) {
    const bool experts = part[0]->expert >= 0;
    struct spread s = {0};
    for (size_t i = 0, end = 0; i < n; i++) {
        if (i == end) {
            for (end = i + 1; end < n && (!experts || part[end]->layer == part[i]->layer);) end++;
            s = norms(part + i, end - i);
        }
        if (part[i]->problem) continue;
        judge_global(r, part, n, i);
        judge_input(r, part, n, i);
        if (experts)
            judge_expert(r, part[i], &s);
        else
            judge_norm(r, part[i], &s);
    }
}

static void judge_siblings(struct health_report *r, struct weights_matrix **sorted, size_t count) {
    for (size_t first = 0, end; first < count; first = end) {
        for (end = first + 1; end < count && strcmp(sorted[end]->part, sorted[first]->part) == 0;)
            end++;
        judge_part(r, sorted + first, end - first);
    }
}

/* ---- copies ---- */

static int by_hash(const void *a, const void *b) {
    const struct weights_matrix *x = *(struct weights_matrix *const *)a,
                                *y = *(struct weights_matrix *const *)b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool copies(const struct weights_matrix *a, const struct weights_matrix *b) {
    return a->hash == b->hash && a->format == b->format && a->rows == b->rows &&
           a->cols == b->cols && a->largest > 0 && a->layer >= 0 && b->layer >= 0;
}

/* Whether m has a copy in that layer, and as that expert where it is its own layer. */
static bool has_copy(struct weights_matrix *const *sorted, size_t count,
                     const struct weights_matrix *m, int layer, int expert) {
    size_t low = 0, high = count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (sorted[middle]->hash < m->hash)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < count && sorted[low]->hash == m->hash; low++) {
        const struct weights_matrix *other = sorted[low];
        if (other != m && other->layer == layer && copies(m, other) &&
            strcmp(m->part, other->part) == 0 && (m->layer != layer || other->expert == expert))
            return true;
    }
    return false;
}

/* A model made of another by repeating layers or experts has copies of all that they hold. */
static bool made_of_copies(const struct health_report *r, struct weights_matrix *const *sorted,
                           const struct weights_matrix *a, const struct weights_matrix *b) {
    size_t all = 0;
    if (strcmp(a->part, b->part) != 0) return false;
    for (size_t i = 0; i < r->count; i++) {
        const struct weights_matrix *m = &r->matrices[i];
        if (m->problem || m->layer != a->layer || (a->layer == b->layer && m->expert != a->expert))
            continue;
        if (!has_copy(sorted, r->count, m, b->layer, b->expert)) return false;
        all++;
    }
    return all > 1;
}

static void judge_copies(struct health_report *r, struct weights_matrix **sorted, size_t count) {
    qsort(sorted, count, sizeof *sorted, by_hash);
    for (size_t i = 1; i < count; i++) {
        const struct weights_matrix *a = sorted[i - 1], *b = sorted[i];
        if (a->problem || b->problem || !copies(a, b)) continue;
        const bool made = made_of_copies(r, sorted, b, a);
        judge_add(r, "copy", made ? HEALTH_NOTE : HEALTH_BROKEN, BASIS_SIBLINGS, b->name, a->name,
                  1, "the same bytes as %s%s", a->name,
                  made ? ", as all of its layer or expert" : "");
    }
}

/* ---- shards ---- */

/* The matrix beside r->matrices[at], in the same layer and module, whose name ends so; the report
 * is in the order of layers and names. */
static const struct weights_matrix *shard(const struct health_report *r, size_t at,
                                          const char *end) {
    const struct weights_matrix *of = &r->matrices[at];
    const size_t n = (size_t)(strrchr(of->name, '.') + 1 - of->name);
    while (at > 0 && strncmp(r->matrices[at - 1].name, of->name, n) == 0) at--;
    for (; at < r->count && strncmp(r->matrices[at].name, of->name, n) == 0; at++) {
        const struct weights_matrix *m = &r->matrices[at];
        if (strcmp(m->name + n, end) == 0)
            return m->problem || m->format != WEIGHT_NVFP4 ? NULL : m;
    }
    return NULL;
}

/* One note for all of them: this program keeps a scale for each, others take the largest. */
static void judge_shards(struct health_report *r) {
    static const char *const pairs[][2] = {
        {"q_proj", "k_proj"}, {"q_proj", "v_proj"}, {"gate_proj", "up_proj"}};
    const struct weights_matrix *worst = NULL, *beside = NULL;
    double worst_ratio = 1;
    size_t count = 0;
    for (size_t i = 0; i < r->count; i++) {
        const struct weights_matrix *m = &r->matrices[i];
        const char *leaf = strrchr(m->name, '.');
        if (m->problem || m->format != WEIGHT_NVFP4 || leaf == NULL) continue;
        for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
            if (strcmp(leaf + 1, pairs[p][0]) != 0) continue;
            const struct weights_matrix *other = shard(r, i, pairs[p][1]);
            if (other == NULL || other->multiplier == m->multiplier) continue;
            const double ratio = exp2(fabs(log2(m->multiplier / other->multiplier)));
            count++;
            if (!(ratio > worst_ratio)) continue;
            worst_ratio = ratio;
            worst = m;
            beside = other;
        }
    }
    if (worst)
        judge_add(r, "globals_of_shards", HEALTH_NOTE, BASIS_FORMAT, worst->name, beside->name,
                  worst_ratio,
                  "%zu pairs of linears that some runtimes fuse have scales of their own, up to "
                  "%.3gx apart: a runtime that keeps one of them loses range",
                  count, worst_ratio);
}

void judge_groups(struct health_report *r) {
    struct weights_matrix **sorted = mem_alloc(r->count * sizeof(struct weights_matrix *));
    for (size_t i = 0; i < r->count; i++) sorted[i] = &r->matrices[i];
    qsort(sorted, r->count, sizeof *sorted, by_part);
    judge_siblings(r, sorted, r->count);
    judge_copies(r, sorted, r->count);
    judge_shards(r);
    free(sorted);
}
