#include "health/summary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { E4M3_NAN = 0x7F, E4M3_LARGEST = 0x7E, E8M0_NAN = 0xFF };

void summary_add(struct pass *to, const struct pass *more, int64_t cols) {
    for (int b = 0; b < 256; b++) {
        to->bytes[b] += more->bytes[b];
        to->scales[b] += more->scales[b];
        to->sixes[b] += more->sixes[b];
    }
    to->dominated += more->dominated;
    to->single += more->single;
    to->zeros += more->zeros;
    to->not_finite += more->not_finite;
    to->square += more->square;
    to->error += more->error;
    for (int64_t k = 0; k < cols; k++) {
        if (more->input_largest[k] > to->input_largest[k])
            to->input_largest[k] = more->input_largest[k];
    }
}

/* ---- channels ---- */

static int by_size(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static struct weights_channels channels(const float *largest, int64_t n, double multiplier) {
    struct weights_channels out = {0};
    float *sorted = mem_alloc((size_t)n * sizeof *sorted);
    memcpy(sorted, largest, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    const double median = ((double)sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
    const double top = sorted[n - 1];
    for (int64_t i = n - 1; i >= 0 && sorted[i] > WEIGHTS_OUTLIER * median; i--) out.outliers++;
    out.largest = top * multiplier;
    out.median = median * multiplier;
    out.range = top > 0 ? top / median : 1;
    free(sorted);
    return out;
}

/* ---- scales ---- */

/* Of two bytes for the same magnitude, which only a wrong file has, the sign is left out. */
static void count_scale(struct weights_scales *s, int byte, uint64_t n, bool e4m3) {
    const int magnitude = e4m3 ? byte & 0x7F : byte;
    if (e4m3 ? magnitude == E4M3_NAN : byte == E8M0_NAN) {
        s->nan += n;
        return;
    }
    s->bins[e4m3 ? magnitude >> 3 : byte >> 4] += n;
    if (e4m3) {
        if (byte & 0x80) s->negative += n;
        if (magnitude == 0) s->zero += n;
        if (magnitude == E4M3_LARGEST) s->saturated += n;
    }
    if (s->smallest < 0 || magnitude < s->smallest) s->smallest = magnitude;
    if (magnitude > s->largest) s->largest = magnitude;
}

static struct weights_scales scales(const struct pass *p, bool e4m3) {
    struct weights_scales s = {.smallest = -1, .largest = -1};
    uint64_t sixes = 0, blocks = 0;
    for (int b = 0; b < 256; b++) {
        if (p->scales[b]) count_scale(&s, b, p->scales[b], e4m3);
        if (e4m3 && (b & 0x7F) == 0) continue; /* codes under a scale of 0 say nothing */
        sixes += p->sixes[b];
        blocks += p->scales[b];
    }
    if (s.largest < 0) return s;
    const uint64_t top = p->scales[s.largest], top_sixes = p->sixes[s.largest];
    s.at_largest = top;
    if (s.largest > 0) s.below_largest = p->scales[s.largest - 1];
    if (top) s.sixes_largest = (double)top_sixes / (double)top;
    if (blocks > top) s.sixes_rest = (double)(sixes - top_sixes) / (double)(blocks - top);
    return s;
}

/* ---- all ---- */

static void finish_codes(const struct pass *p, double n, struct weights_matrix *out) {
    for (int b = 0; b < 256; b++) {
        out->codes[b & 15] += p->bytes[b];
        out->codes[b >> 4] += p->bytes[b];
        out->blocks += p->scales[b];
    }
    out->has_codes = true;
    out->dominated = p->dominated;
    out->single = p->single;
    out->zero_share = (double)(out->codes[0] + out->codes[8]) / n;
    out->scales = scales(p, out->format == WEIGHT_NVFP4);
    if (p->square > 0) out->error = sqrt(p->error / 48 / (p->square / 4));
}

void summary_finish(const struct list_view *view, const struct pass *p, const float *output_largest,
                    struct weights_matrix *out) {
    const struct weight *w = &view->weight;
    const double n = (double)view->rows * (double)w->cols, multiplier = fabs((double)w->multiplier);
    const bool codes = weight_block_row_bytes(w) > 0;
    struct weight part = *w;
    part.rows = view->rows;
    out->format = w->format;
    out->rows = view->rows;
    out->cols = w->cols;
    out->bytes = (uint64_t)weight_bytes(&part);
    out->multiplier = w->multiplier;
    out->input_multiplier = w->input_multiplier;
    out->not_finite = p->not_finite;
    out->rms = sqrt((codes ? p->square / 4 : p->square) / n) * multiplier;
    out->outputs = channels(output_largest, view->rows, multiplier);
    out->inputs = channels(p->input_largest, w->cols, multiplier);
    out->largest = out->outputs.largest;
    if (codes)
        finish_codes(p, n, out);
    else
        out->zero_share = (double)p->zeros / n;
}
