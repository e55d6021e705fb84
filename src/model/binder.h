/* Finding tensors by a description, checking and uploading them: shared by weights.c and layers.c.
 *
 * The first error stays in rc; later calls do nothing and return NULL, so that a list of binds
 * reads as a list. */
#ifndef IMP_MODEL_BINDER_H
#define IMP_MODEL_BINDER_H

#include "model/model.h"

struct binder {
    struct model *model;
    struct checkpoint *ck;
    struct imp_error *err;
    int rc;
};

/* count floats to the device. */
float *binder_upload(struct binder *b, const float *host, int64_t count);
/* The plain tensor `name` of count elements, `offset` added to each. */
float *binder_vector(struct binder *b, const char *name, int64_t count, float offset);
/* Parts as one matrix; bias as in matrix_create. used: the share of it that one step reads. */
struct matrix *binder_matrix(struct binder *b, const struct weight *parts, int count,
                             const float *const *bias);

/* layers.c */
void binder_layer(struct binder *b, int i);
void binder_release_layer(struct backend *be, struct layer_weights *w);

#endif
