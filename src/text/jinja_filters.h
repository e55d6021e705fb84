/* The filters over containers, for the table in jinja_filters.c. */
#ifndef IMP_TEXT_JINJA_FILTERS_H
#define IMP_TEXT_JINJA_FILTERS_H

#include "text/jinja_internal.h"

struct jv f_attr(struct jx *x, struct jcall *c);
struct jv f_batch(struct jx *x, struct jcall *c);
struct jv f_default(struct jx *x, struct jcall *c);
struct jv f_dictsort(struct jx *x, struct jcall *c);
struct jv f_first(struct jx *x, struct jcall *c);
struct jv f_groupby(struct jx *x, struct jcall *c);
struct jv f_items(struct jx *x, struct jcall *c);
struct jv f_join(struct jx *x, struct jcall *c);
struct jv f_last(struct jx *x, struct jcall *c);
struct jv f_length(struct jx *x, struct jcall *c);
struct jv f_list(struct jx *x, struct jcall *c);
struct jv f_map(struct jx *x, struct jcall *c);
struct jv f_max(struct jx *x, struct jcall *c);
struct jv f_min(struct jx *x, struct jcall *c);
struct jv f_reject(struct jx *x, struct jcall *c);
struct jv f_rejectattr(struct jx *x, struct jcall *c);
struct jv f_reverse(struct jx *x, struct jcall *c);
struct jv f_select(struct jx *x, struct jcall *c);
struct jv f_selectattr(struct jx *x, struct jcall *c);
struct jv f_slice(struct jx *x, struct jcall *c);
struct jv f_sort(struct jx *x, struct jcall *c);
struct jv f_sum(struct jx *x, struct jcall *c);
struct jv f_unique(struct jx *x, struct jcall *c);

/* The value with the keys of every dict in it in ascending order. */
struct jv sorted_dicts(struct jx *x, struct jv v, int depth);

/* One line broken at blanks into lines of at most `width` characters. */
void wrap_line(struct jbuf *b, struct jstr *line, size_t width, bool split_long, bool hyphens,
               const struct jstr *newline);

#endif
