/* A matrix against another model's: sums over rows, then what they mean. Threads as pass.h. */
#ifndef IMP_HEALTH_COMPARE_H
#define IMP_HEALTH_COMPARE_H

#include "health/health.h"
#include "health/list.h"

struct compare_sums {
    double a, b, ab;                         /* squares and products over all weights */
    double row_left;                         /* of a, after the best factor for each row of b */
    double *a_column, *b_column, *ab_column; /* [cols] */
};

/* Doubles that the columns of one struct need, and floats for two rows. */
size_t compare_room(int64_t cols);
void compare_place(struct compare_sums *sums, int64_t cols, double *room);
/* Rows from .. from + count - 1 of both views; row: room for 2 * cols floats. */
void compare_rows(struct compare_sums *sums, const struct list_view *a, const struct list_view *b,
                  int64_t from, int64_t count, float *row);
void compare_add(struct compare_sums *sums, const struct compare_sums *more, int64_t cols);
void compare_finish(const struct compare_sums *sums, int64_t cols, struct weights_matrix *out);

#endif
