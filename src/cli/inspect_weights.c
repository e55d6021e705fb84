#include "cli/inspect_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "cli/terminal.h"
#include "health/health.h"

/* One line of the table: a matrix, or a part of all experts of a layer. */
struct line {
    const struct weights_matrix *first;
    size_t experts; /* 0: no expert */
    double zero, dominated, error, range, outliers, reference;
    bool codes, compared;
};

static bool same_line(const struct weights_matrix *a, const struct weights_matrix *b) {
    return a->expert >= 0 && b->expert >= 0 && a->layer == b->layer &&
           strcmp(a->part, b->part) == 0;
}

/* Of experts: means, but the worst channel range and error against the reference. */
static struct line make_line(const struct health_report *r, size_t at) {
    const struct weights_matrix *first = &r->matrices[at];
    struct line l = {.first = first, .codes = first->has_codes};
    size_t n = 0;
    for (size_t i = at; i < r->count; i++) {
        const struct weights_matrix *m = &r->matrices[i];
        if (m != first && !same_line(first, m)) {
            if (first->expert < 0 || m->layer != first->layer) break;
            continue;
        }
        if (m->problem) continue;
        n++;
        l.zero += m->zero_share;
        l.dominated += m->blocks ? (double)m->dominated / (double)m->blocks : 0;
        l.error += m->error;
        l.outliers += (double)m->inputs.outliers / (double)m->cols;
        l.range = fmax(l.range, m->inputs.range);
        l.compared |= m->has_reference;
        if (m->has_reference) l.reference = fmax(l.reference, m->difference);
    }
    l.experts = first->expert >= 0 ? n : 0;
    const double count = n ? (double)n : 1;
    l.zero /= count;
    l.dominated /= count;
    l.error /= count;
    l.outliers /= count;
    return l;
}

static bool begins_line(const struct health_report *r, size_t at) {
    const struct weights_matrix *m = &r->matrices[at];
    for (size_t i = at; m->expert >= 0 && i-- > 0 && r->matrices[i].layer == m->layer;) {
        if (same_line(&r->matrices[i], m)) return false;
    }
    return true;
}

static void print_line(const struct line *l, bool reference) {
    const struct weights_matrix *m = l->first;
    char name[96], shape[48];
    snprintf(name, sizeof name, "%.60s", m->layer < 0 ? m->name : m->part);
    if (l->experts) snprintf(name, sizeof name, "%.60s (%zu)", m->part, l->experts);
    snprintf(shape, sizeof shape, "%lldx%lld", (long long)m->rows, (long long)m->cols);
    if (m->layer >= 0)
        printf("%5d ", m->layer);
    else
        printf("%5s ", "");
    if (m->problem) {
        printf("%-36s cannot be read\n", name);
        return;
    }
    printf("%-36s %-5s %13s %6.2f", name, weight_format_name(m->format), shape, 100 * l->zero);
    if (l->codes)
        printf(" %7.2f %6.3f", 100 * l->dominated, l->error);
    else
        printf(" %7s %6s", "", "");
    printf(" %7.1f %6.2f", l->range, 100 * l->outliers);
    if (reference && l->compared) printf(" %7.4f", l->reference);
    puts("");
}

static void print_table(const struct health_report *r) {
    printf("%5s %-36s %-5s %13s %6s %7s %6s %7s %6s%s\n", "layer", "linear", "", "shape", "zero%",
           "blocks%", "error", "range", "outl%", r->reference ? " against" : "");
    for (size_t i = 0; i < r->count; i++) {
        if (!begins_line(r, i)) continue;
        const struct line l = make_line(r, i);
        print_line(&l, r->reference != NULL);
    }
}

/* ---- heat maps ---- */

enum { MAX_PARTS = 64 };

struct grid {
    const char *parts[MAX_PARTS];
    size_t part_count;
    int layers;
};

static size_t part_index(struct grid *g, const char *part) {
    for (size_t i = 0; i < g->part_count; i++) {
        if (strcmp(g->parts[i], part) == 0) return i;
    }
    if (g->part_count < MAX_PARTS) g->parts[g->part_count++] = part;
    return g->part_count - 1;
}

/* Steps of a factor: what a healthy layer has is a space, the last is where it is broken. */
static char shade(double value, double healthy, double broken) {
    static const char shades[] = " .:-=+*#@";
    const int last = (int)sizeof shades - 2;
    if (!(value > healthy)) return shades[0];
    const int at = 1 + (int)((last - 1) * log(value / healthy) / log(broken / healthy));
    return shades[at > last ? last : at];
}

static double worst_of(const struct health_report *r, const char *part, int layer, bool zeros) {
    double worst = -1;
    for (size_t i = 0; i < r->count; i++) {
        const struct weights_matrix *m = &r->matrices[i];
        if (!m->has_codes || m->layer != layer || strcmp(m->part, part) != 0) continue;
        worst = fmax(worst, zeros ? m->zero_share : (double)m->dominated / (double)m->blocks);
    }
    return worst;
}

/* A row for each part, a column for each layer. */
static void print_map(const struct health_report *r, const struct grid *g, bool zeros) {
    if (zeros)
        puts("\nzero codes by layer (worst expert): blank up to 9 %, @ from 25 %, _ no codes");
    else
        puts("\nblocks that outliers dominate: blank up to 0.3 %, @ from 50 %, _ no codes");
    for (size_t p = 0; p < g->part_count; p++) {
        printf("%-36.36s |", g->parts[p]);
        for (int layer = 0; layer < g->layers; layer++) {
            const double v = worst_of(r, g->parts[p], layer, zeros);
            putchar(v < 0 ? '_' : zeros ? shade(v, 0.09, 0.25) : shade(v, 0.003, 0.5));
        }
        puts("|");
    }
}

static void print_maps(const struct health_report *r) {
    struct grid g = {0};
    for (size_t i = 0; i < r->count; i++) {
        const struct weights_matrix *m = &r->matrices[i];
        if (!m->has_codes || m->layer < 0) continue;
        part_index(&g, m->part);
        if (m->layer >= g.layers) g.layers = m->layer + 1;
    }
    if (g.part_count == 0) return;
    print_map(r, &g, true);
    print_map(r, &g, false);
}

static const char *judged(enum health_basis basis) {
    static const char *const words[] = {"by the format", "against a normal distribution alone",
                                        "against its siblings", "against the reference",
                                        "against other files"};
    return words[basis];
}

static void print_findings(const struct health_report *r) {
    size_t count[HEALTH_LEVELS] = {0};
    if (r->finding_count) puts("");
    for (size_t i = 0; i < r->finding_count; i++) {
        const struct health_finding *f = &r->findings[i];
        count[f->level]++;
        printf("%s: %s: %s [%s, judged %s]\n", health_level_name(f->level),
               f->tensor ? f->tensor : "checkpoint", f->text, f->rule, judged(f->basis));
    }
    printf("\n%s: %zu broken, %zu weak, %zu notes in %zu matrices\n",
           count[HEALTH_BROKEN] ? "broken" : "healthy", count[HEALTH_BROKEN], count[HEALTH_WEAK],
           count[HEALTH_NOTE], r->count);
}

static void print_worst(const struct health_report *r) {
    const struct weights_matrix *worst = NULL;
    if (r->reference == NULL) return;
    for (size_t i = 0; i < r->count; i++) {
        const struct weights_matrix *m = &r->matrices[i];
        if (m->has_reference && (worst == NULL || !(m->difference <= worst->difference))) worst = m;
    }
    printf("\n%zu of %zu matrices compared with %s", r->compared, r->count, r->reference);
    if (worst)
        printf("; the worst is %s: error %.4f, cosine %.5f, norms %.4f", worst->name,
               worst->difference, worst->cosine, worst->norm_ratio);
    puts("");
}

/* ---- the command ---- */

static void print(const struct options *options, const struct health_report *r) {
    struct str text = {0};
    if (options_flag(options, OPT_JSON)) {
        health_report_json(r, &text);
        puts(text.data);
    } else if (options_flag(options, OPT_CSV)) {
        health_report_csv(r, &text);
        fputs(text.data, stdout);
    } else {
        print_table(r);
        print_maps(r);
        print_worst(r);
        print_findings(r);
    }
    str_free(&text);
}

int inspect_weights(const struct options *options, const char *path, imp_error *err) {
    const char *name = options_text(options, OPT_OTHER_MODEL);
    struct health_report report = {0};
    struct str other = {0};
    const int threads =
        options_given(options, OPT_THREADS) ? (int)options_int(options, OPT_THREADS) : cpu_count();
    int rc = name ? model_path(name, &other, err) : 0;
    if (rc == 0) rc = health_examine(path, other.data, threads, &report, err);
    if (rc == 0) {
        print(options, &report);
        note(options, "%.2f GB in %.2f s: %.2f GB/s with %d threads", (double)report.bytes / 1e9,
             report.seconds, (double)report.bytes / 1e9 / report.seconds, threads);
        rc = health_worst(&report) == HEALTH_BROKEN ? 2 : 0;
    }
    health_report_free(&report);
    str_free(&other);
    return rc;
}
