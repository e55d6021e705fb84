/* Which matrices a checkpoint has, and each as rows of a struct weight. Threads as checkpoint.h. */
#ifndef IMP_HEALTH_LIST_H
#define IMP_HEALTH_LIST_H

#include "load/experts.h"

/* One matrix, by the module that holds it. */
struct list_item {
    const char *name, *part; /* as in struct weights_matrix; in the arena of the list */
    int layer, expert;
    const char *module; /* of the linear; or of the experts, if `member` says which matrix */
    enum list_member { LIST_LINEAR, LIST_GATE, LIST_UP, LIST_DOWN } member;
    int experts; /* of a stack */
    int64_t width, hidden;
};

struct list {
    struct list_item *items;
    size_t count, room;
    struct map by_key; /* layer, expert and part -> index */
    struct arena *arena;
    struct checkpoint *ck;
    /* The expert of a stack that was looked at last: its matrices may be copies, made together. */
    struct expert last;
    const char *last_module; /* NULL: none */
    int last_index;
};

/* A matrix inside a weight: row i is the weight's row first + i * step. */
struct list_view {
    struct weight weight;
    int64_t first, step, rows;
};

/* Every linear of the language model, by layer, then name; names go to the arena. The checkpoint
 * stays the caller's and outlives the list. */
void list_linears(struct checkpoint *ck, struct arena *arena, struct list *out);
void list_free(struct list *list);
/* Views and copies live until list_drop_copies. */
int list_view(struct list *list, const struct list_item *item, struct list_view *out,
              struct imp_error *err);
void list_drop_copies(struct list *list);
/* The item of the same part, layer and expert, or NULL. */
const struct list_item *list_find(const struct list *list, const struct list_item *like);

#endif
