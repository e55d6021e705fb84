#include "health/compare.h"

#include <math.h>

size_t compare_room(int64_t cols) {
    return (size_t)cols * 3;
}

void compare_place(struct compare_sums *sums, int64_t cols, double *room) {
    *sums = (struct compare_sums){
        .a_column = room, .b_column = room + cols, .ab_column = room + 2 * cols};
}

/* What is left of the square of a when the best multiple of b is taken away. */
static double left_over(double a, double b, double ab) {
    return b > 0 ? fmax(a - ab * ab / b, 0) : a;
}

void compare_rows(struct compare_sums *sums, const struct list_view *a, const struct list_view *b,
                  int64_t from, int64_t count, float *row) {
    const int64_t n = a->weight.cols;
    float *x = row, *y = row + n;
    for (int64_t r = from; r < from + count; r++) {
        double xx = 0, yy = 0, xy = 0;
        weight_dequantize_row(&a->weight, a->first + r * a->step, x);
        weight_dequantize_row(&b->weight, b->first + r * b->step, y);
        for (int64_t k = 0; k < n; k++) {
            const double p = x[k], q = y[k];
            xx += p * p;
            yy += q * q;
            xy += p * q;
            sums->a_column[k] += p * p;
            sums->b_column[k] += q * q;
            sums->ab_column[k] += p * q;
        }
        sums->a += xx;
        sums->b += yy;
        sums->ab += xy;
        sums->row_left += left_over(xx, yy, xy);
    }
}

void compare_add(struct compare_sums *sums, const struct compare_sums *more, int64_t cols) {
    sums->a += more->a;
    sums->b += more->b;
    sums->ab += more->ab;
    sums->row_left += more->row_left;
    for (int64_t k = 0; k < cols; k++) {
        sums->a_column[k] += more->a_column[k];
        sums->b_column[k] += more->b_column[k];
        sums->ab_column[k] += more->ab_column[k];
    }
}

void compare_finish(const struct compare_sums *s, int64_t cols, struct weights_matrix *out) {
    double column_left = 0;
    for (int64_t k = 0; k < cols; k++)
        column_left += left_over(s->a_column[k], s->b_column[k], s->ab_column[k]);
    out->has_reference = true;
    out->norm_ratio = sqrt(s->a / s->b);
    out->cosine = s->ab / sqrt(s->a) / sqrt(s->b);
    out->difference = sqrt(fmax(s->a + s->b - 2 * s->ab, 0) / s->b);
    out->rescaled = sqrt(fmin(column_left, s->row_left) / s->a);
    /* Two matrices of zeros are equal; one alone is not. */
    if (s->a == 0 && s->b == 0) {
        out->norm_ratio = out->cosine = 1;
        out->difference = out->rescaled = 0;
    }
}
