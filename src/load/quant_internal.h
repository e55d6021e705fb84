/* What the files of quant share: the tensors of one linear, gathered by role. */
#ifndef IMP_LOAD_QUANT_INTERNAL_H
#define IMP_LOAD_QUANT_INTERNAL_H

#include "load/quant.h"

enum quant_part {
    PART_WEIGHT,
    PART_PACKED,
    PART_SCALE,
    PART_SCALE_INV,
    PART_SCALE_2,
    PART_GLOBAL,
    PART_INPUT_SCALE,
    PART_ACTIVATION_SCALE,
    PART_INPUT_GLOBAL,
    PART_PRE_SCALE,
    PART_COUNT
};

/* "weight_scale_2": a linear's tensor is its module's name, a dot and this. */
extern const char *const quant_part_names[PART_COUNT];

enum quant_remark {
    SAID_FORMAT = 1,
    SAID_IGNORED = 2,
    SAID_INPUT = 4,
    SAID_RANGE = 8,
    SAID_COPY = 16,
    SAID_KV = 32,
};

struct quant_module {
    struct checkpoint *ck;
    const char *name; /* as in the files */
    /* NULL where there is none. Read during quant_module_load only: may be views on a stack. */
    const struct tensor *part[PART_COUNT];
    int64_t want_rows, want_cols; /* -1: any */
    struct imp_error *err;
};

/* The weight that the parts make; out->name is a copy of m->name. */
int quant_module_load(const struct quant_module *m, struct weight *out);
/* Its matrix alone: format, rows, cols, data, scales, multiplier. */
int quant_module_format(const struct quant_module *m, struct weight *w);

/* An error at tensor t, or at the module where t is NULL. */
int quant_fail(const struct quant_module *m, int code, const struct tensor *t, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Lists what there is under the module, for a combination that means nothing. */
int quant_fail_combination(const struct quant_module *m, const char *why);
/* True once per checkpoint and kind of remark, so that a fault of every layer is one line. */
bool quant_first_time(const struct quant_module *m, enum quant_remark what);

void quant_mark_read(struct checkpoint *ck, const struct tensor *t); /* for checkpoint_unread */

/* One number, stored with shape [] or [1]: compressed-tensors writes the second, ModelOpt the
 * first. False if t is NULL or anything else. */
bool quant_scalar(const struct tensor *t, float *out);
/* Refuses E4M3 block scales that are negative or not a number. */
int quant_check_e4m3_scales(const struct quant_module *m, const struct tensor *scale);

#endif
