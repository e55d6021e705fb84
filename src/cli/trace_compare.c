/* Where two traces part.
 *
 * Rows are matched by stage, sequence and position, so chunks and neighbours may differ. What a
 * stage holds depends on stages before it in the pass, of the same and of earlier positions: so the
 * first row that differs is looked for stage by stage, and only then by position. Tokens are the
 * one way back from the end of the pass to its start: where the two runs read different tokens,
 * nothing can be learnt from there on, and that sequence is compared up to there. */
#include <math.h>
#include <stdlib.h>

#include "base/str.h"
#include "cli/trace_file.h"

struct pair {
    const struct trace_row *a, *b; /* NULL, NULL: none */
    double apart;
};

/* Stages that stand together and have one layer. */
struct group {
    int layer;
    size_t rows, differ;
    struct pair first, worst;
};

/* From this position on a sequence's tokens are not the same. */
struct cut {
    int32_t seq, position;
};

struct comparison {
    const struct trace_stages *stages;
    double tolerance;
    struct cut *cuts;
    size_t cut_count;
    size_t rows, differ, beyond, only_a, only_b, behind;
    struct pair first, first_beyond;
    struct group *groups;
    size_t group_count;
};

/* ---- two rows ---- */

static double relative(double a, double b, double size) {
    return a == b ? 0 : fabs(a - b) / size;
}

static bool same_bits(const struct trace_row *a, const struct trace_row *b) {
    return a->hash == b->hash && a->cols == b->cols && a->exact == b->exact;
}

/* The largest of three relative differences; infinite where no number can say it: other experts,
 * other columns, a NaN on one side. */
static double distance(const struct trace_row *a, const struct trace_row *b) {
    if (same_bits(a, b)) return 0;
    if (a->exact || b->exact || a->cols != b->cols || a->nan != b->nan || a->inf != b->inf)
        return INFINITY;
    const double l2 = fmax(a->l2, b->l2);
    const double size =
        fmax(relative(a->max, b->max, fmax(a->max, b->max)), relative(a->l2, b->l2, l2));
    return fmax(size, relative(a->probe, b->probe, l2));
}

/* ---- matching ---- */

typedef void (*pair_fn)(struct comparison *c, const struct trace_row *a, const struct trace_row *b);
/* Of a row that one file has alone; only: that file's count in *c. */
typedef void (*single_fn)(struct comparison *c, const struct trace_row *row, size_t *only);

static int by_key(const struct trace_row *a, const struct trace_row *b) {
    if (a->stage != b->stage) return a->stage < b->stage ? -1 : 1;
    if (a->seq != b->seq) return a->seq < b->seq ? -1 : 1;
    return (a->position > b->position) - (a->position < b->position);
}

static void match(struct comparison *c, const struct trace_rows *a, const struct trace_rows *b,
                  pair_fn both, single_fn single) {
    size_t i = 0, j = 0;
    while (i < a->count && j < b->count) {
        const int order = by_key(&a->list[i], &b->list[j]);
        if (order == 0)
            both(c, &a->list[i++], &b->list[j++]);
        else if (order < 0)
            single(c, &a->list[i++], &c->only_a);
        else
            single(c, &b->list[j++], &c->only_b);
    }
    while (i < a->count) single(c, &a->list[i++], &c->only_a);
    while (j < b->count) single(c, &b->list[j++], &c->only_b);
}

static struct cut *find_cut(const struct comparison *c, int32_t seq) {
    for (size_t i = 0; i < c->cut_count; i++) {
        if (c->cuts[i].seq == seq) return &c->cuts[i];
    }
    return NULL;
}

static void note_token(struct comparison *c, const struct trace_row *a, const struct trace_row *b) {
    if (a->token == b->token) return;
    struct cut *cut = find_cut(c, a->seq);
    if (cut == NULL) {
        c->cuts = mem_grow(c->cuts, (c->cut_count + 1) * sizeof *c->cuts);
        cut = &c->cuts[c->cut_count++];
        *cut = (struct cut){a->seq, a->position};
    }
    if (a->position < cut->position) cut->position = a->position;
}

static void note_nothing(struct comparison *c, const struct trace_row *row, size_t *only) {
    (void)c, (void)row, (void)only;
}

static bool is_behind(struct comparison *c, const struct trace_row *row) {
    const struct cut *cut = find_cut(c, row->seq);
    const bool behind = cut && row->position >= cut->position;
    c->behind += behind;
    return behind;
}

static struct group *group_of(struct comparison *c, const struct trace_row *row) {
    const int layer = c->stages->list[row->stage].layer;
    struct group *last = c->group_count ? &c->groups[c->group_count - 1] : NULL;
    if (last && last->layer == layer) return last;
    c->groups = mem_grow(c->groups, (c->group_count + 1) * sizeof *c->groups);
    c->groups[c->group_count] = (struct group){.layer = layer};
    return &c->groups[c->group_count++];
}

static void count_single(struct comparison *c, const struct trace_row *row, size_t *only) {
    if (!is_behind(c, row)) ++*only;
}

static void compare_pair(struct comparison *c, const struct trace_row *a,
                         const struct trace_row *b) {
    if (is_behind(c, a)) return;
    struct group *group = group_of(c, a);
    c->rows++;
    group->rows++;
    if (same_bits(a, b)) return;
    const struct pair pair = {a, b, distance(a, b)};
    c->differ++;
    group->differ++;
    if (group->first.a == NULL) group->first = pair;
    if (group->worst.a == NULL || pair.apart > group->worst.apart) group->worst = pair;
    if (c->first.a == NULL) c->first = pair;
    if (pair.apart <= c->tolerance) return;
    c->beyond++;
    if (c->first_beyond.a == NULL) c->first_beyond = pair;
}

/* ---- text ---- */

static void layer_text(int layer, const char *none, char out[16]) {
    if (layer < 0)
        snprintf(out, 16, "%s", none);
    else
        snprintf(out, 16, "%d", layer);
}

static void print_pair(FILE *out, const struct comparison *c, const char *title,
                       const struct pair *p) {
    if (p->a == NULL) return;
    const struct trace_stage *stage = &c->stages->list[p->a->stage];
    char layer[16];
    layer_text(stage->layer, "-", layer);
    fprintf(out, "%s: layer %s, stage %s, sequence %d, position %d: %.3g apart\n", title, layer,
            stage->name, p->a->seq, p->a->position, p->apart);
    const struct trace_row *rows[] = {p->a, p->b};
    for (int i = 0; i < 2; i++)
        fprintf(out, "  %c  max %.9g, L2 %.9g, probe %.9g, NaN %u, Inf %u, hash %08x\n", "AB"[i],
                rows[i] -> max, rows[i] -> l2, rows[i] -> probe, rows[i] -> nan, rows[i] -> inf,
                rows[i] -> hash);
}

static void print_groups(FILE *out, const struct comparison *c) {
    fprintf(out, "\n%5s  %9s %9s  %-15s  %10s  %-15s %4s %6s\n", "layer", "rows", "differ",
            "from stage", "at most", "at stage", "seq", "pos");
    for (size_t i = 0; i < c->group_count; i++) {
        const struct group *g = &c->groups[i];
        char layer[16];
        layer_text(g->layer, "-", layer);
        fprintf(out, "%5s  %9zu %9zu", layer, g->rows, g->differ);
        if (g->differ)
            fprintf(out, "  %-15s  %10.3g  %-15s %4d %6d", c->stages->list[g->first.a->stage].name,
                    g->worst.apart, c->stages->list[g->worst.a->stage].name, g->worst.a->seq,
                    g->worst.a->position);
        fputc('\n', out);
    }
}

static void print_text(FILE *out, const struct comparison *c, bool equal) {
    fprintf(out, "%s: %zu rows compared, %zu differ in their bits", equal ? "equal" : "different",
            c->rows, c->differ);
    if (c->tolerance > 0) fprintf(out, ", %zu by more than %g", c->beyond, c->tolerance);
    fputc('\n', out);
    if (c->only_a + c->only_b)
        fprintf(out, "not in both: %zu rows of A, %zu of B\n", c->only_a, c->only_b);
    for (size_t i = 0; i < c->cut_count; i++)
        fprintf(out,
                "sequence %d reads other tokens from position %d on: not compared from there\n",
                c->cuts[i].seq, c->cuts[i].position);
    print_pair(out, c, "first difference", &c->first);
    if (c->tolerance > 0) print_pair(out, c, "first beyond the tolerance", &c->first_beyond);
    if (c->differ) print_groups(out, c);
}

/* ---- JSON ---- */

static void put_number(FILE *out, double x) {
    if (isfinite(x))
        fprintf(out, "%.9g", x);
    else
        fputs("null", out);
}

static void put_pair(FILE *out, const struct comparison *c, const char *name,
                     const struct pair *p) {
    fprintf(out, ", \"%s\": ", name);
    if (p->a == NULL) {
        fputs("null", out);
        return;
    }
    const struct trace_stage *stage = &c->stages->list[p->a->stage];
    char layer[16];
    layer_text(stage->layer, "null", layer);
    fprintf(out,
            "{\"layer\": %s, \"stage\": \"%s\", \"sequence\": %d, \"position\": %d, "
            "\"apart\": ",
            layer, stage->name, p->a->seq, p->a->position);
    put_number(out, p->apart);
    fprintf(out,
            ", \"max\": [%.9g, %.9g], \"l2\": [%.9g, %.9g], \"nan\": [%u, %u], "
            "\"inf\": [%u, %u]}",
            p->a->max, p->b->max, p->a->l2, p->b->l2, p->a->nan, p->b->nan, p->a->inf, p->b->inf);
}

static void print_json(FILE *out, const struct comparison *c, bool equal) {
    fprintf(out,
            "{\"equal\": %s, \"rows\": %zu, \"differ\": %zu, \"beyond\": %zu, \"only_a\": %zu, "
            "\"only_b\": %zu, \"not_compared\": %zu",
            equal ? "true" : "false", c->rows, c->differ, c->beyond, c->only_a, c->only_b,
            c->behind);
    put_pair(out, c, "first", &c->first);
    put_pair(out, c, "first_beyond", &c->first_beyond);
    fputs(", \"cuts\": [", out);
    for (size_t i = 0; i < c->cut_count; i++)
        fprintf(out, "%s{\"sequence\": %d, \"position\": %d}", i ? ", " : "", c->cuts[i].seq,
                c->cuts[i].position);
    fputs("], \"layers\": [", out);
    for (size_t i = 0; i < c->group_count; i++) {
        const struct group *g = &c->groups[i];
        char layer[16];
        layer_text(g->layer, "null", layer);
        fprintf(out, "%s{\"layer\": %s, \"rows\": %zu, \"differ\": %zu", i ? ", " : "", layer,
                g->rows, g->differ);
        put_pair(out, c, "first", &g->first);
        put_pair(out, c, "worst", &g->worst);
        fputc('}', out);
    }
    fputs("]}\n", out);
}

bool trace_compare(FILE *out, const struct trace_stages *stages, const struct trace_rows *a,
                   const struct trace_rows *b, double tolerance, bool json) {
    struct comparison c = {.stages = stages, .tolerance = tolerance};
    match(&c, a, b, note_token, note_nothing);
    match(&c, a, b, compare_pair, count_single);
    const bool equal = c.beyond == 0 && c.only_a + c.only_b == 0 && c.cut_count == 0;
    (json ? print_json : print_text)(out, &c, equal);
    free(c.cuts);
    free(c.groups);
    return equal;
}
