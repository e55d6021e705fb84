#include "health/list.h"

#include <stdlib.h>
#include <string.h>

#include "load/quant.h"

static struct list_item *add(struct list *list) {
    if (list->count == list->room) {
        list->room = list->room ? 2 * list->room : 256;
        list->items = mem_grow(list->items, list->room * sizeof *list->items);
    }
    struct list_item *item = &list->items[list->count++];
    *item = (struct list_item){.layer = -1, .expert = -1};
    return item;
}

/* The number behind "WORD." in the name, and what follows it; NULL if there is none. */
static const char *numbered(const char *name, const char *word, int *number) {
    const size_t n = strlen(word);
    for (const char *at = strstr(name, word); at; at = strstr(at + 1, word)) {
        char *end;
        if (at != name && at[-1] != '.') continue;
        if (at[n] < '0' || at[n] > '9') continue;
        const long value = strtol(at + n, &end, 10);
        if (*end != '.' || value > 1 << 20) continue;
        *number = (int)value;
        return end + 1;
    }
    return NULL;
}

/* Layer, expert and part of a name. Without a layer the part is the last word: wrappers put
 * different things before "lm_head". */
static void take_apart(struct list *list, struct list_item *item) {
    const char *rest = numbered(item->name, "layers.", &item->layer);
    if (rest == NULL) {
        const char *dot = strrchr(item->name, '.');
        item->part = dot ? dot + 1 : item->name;
        return;
    }
    const char *leaf = numbered(rest, "experts.", &item->expert);
    item->part = rest;
    if (leaf == NULL) return;
    const char *end = leaf - 1; /* the dot behind the number */
    while (end[-1] != '.') end--;
    item->part = arena_printf(list->arena, "%.*s%s", (int)(end - rest), rest, leaf);
}

static void add_linear(struct list *list, const char *name, size_t n) {
    struct list_item *item = add(list);
    item->name = item->module = arena_strndup(list->arena, name, n);
    take_apart(list, item);
}

/* ---- stacks of experts ---- */

/* The length of "....experts" in the name of a tensor of a stack, else 0. */
static size_t stack_module(const char *name) {
    static const char word[] = ".experts.";
    const char *at = strstr(name, word);
    if (at == NULL) return 0;
    const char next = at[sizeof word - 1];
    return next >= '0' && next <= '9' ? 0 : (size_t)(at - name) + sizeof word - 2;
}

static int64_t elements(const struct tensor *t) {
    return tensor_elements(t) * (t->dtype == DTYPE_U8 ? 2 : 1);
}

static bool is_member(const char *member, const char *word) {
    return strncmp(member, word, strlen(word)) == 0 && strstr(member, "scale") == NULL &&
           strstr(member, "bias") == NULL;
}

/* Every expert of the stacks under the module, at its tensor of `down`: that one gives the sizes.
 */
static void add_stack(struct list *list, const struct checkpoint *ck, const struct tensor *down,
                      size_t module) {
    static const char *const members[] = {"", "gate_proj", "up_proj", "down_proj"};
    const int64_t experts = down->shape[0];
    int64_t hidden;
    if (config_int(&ck->config, "hidden_size", 1, 1 << 24, 0, &hidden, NULL) < 0 || hidden < 1)
        return;
    const int64_t width = elements(down) / experts / hidden;
    if (experts > CAP_EXPERTS || width < 1) return;
    const char *path = arena_strndup(list->arena, down->name, module);
    for (int e = 0; e < experts; e++) {
        for (int m = LIST_GATE; m <= LIST_DOWN; m++) {
            struct list_item *item = add(list);
            item->name = arena_printf(list->arena, "%s.%d.%s", path, e, members[m]);
            take_apart(list, item);
            item->module = path;
            item->member = (enum list_member)m;
            item->experts = (int)experts;
            item->width = width;
            item->hidden = hidden;
        }
    }
}

/* ---- all ---- */

/* The length of the module's path where t is the parameter by which a linear is known, else 0. */
static size_t linear_module(const struct tensor *t) {
    const char *dot = strrchr(t->name, '.');
    if (dot == NULL || t->dims != 2) return 0;
    for (int i = 0; quant_parameters[i]; i++) {
        if (strcmp(dot + 1, quant_parameters[i]) == 0) return (size_t)(dot - t->name);
    }
    return 0;
}

static void add_key(struct str *key, const struct list_item *item) {
    str_printf(key, "%d %d %s", item->layer, item->expert, item->part);
}

static void make_keys(struct list *list) {
    map_create(&list->by_key, list->count);
    for (size_t i = 0; i < list->count; i++) {
        struct str key = {0};
        add_key(&key, &list->items[i]);
        const char *kept = arena_strndup(list->arena, key.data, key.size);
        map_add(&list->by_key, (struct slice){kept, key.size}, (int64_t)i);
        str_free(&key);
    }
}

/* Layers by number, what is in one by name. */
static int by_layer(const void *a, const void *b) {
    const struct list_item *x = a, *y = b;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return strcmp(x->name, y->name);
}

void list_linears(struct checkpoint *ck, struct arena *arena, struct list *out) {
    *out = (struct list){.arena = arena, .ck = ck};
    for (size_t i = 0; i < ck->tensor_count; i++) {
        const struct tensor *t = ck->tensors[i];
        if (checkpoint_role(t->name) != TENSOR_TEXT || t->bytes == 0) continue;
        const size_t stack = stack_module(t->name), module = linear_module(t);
        if (stack && t->dims >= 3 && is_member(t->name + stack + 1, "down_proj"))
            add_stack(out, ck, t, stack);
        else if (module && !stack)
            add_linear(out, t->name, module);
    }
    if (out->count) qsort(out->items, out->count, sizeof *out->items, by_layer);
    make_keys(out);
}

void list_free(struct list *list) {
    free(list->items);
    map_free(&list->by_key);
    *list = (struct list){0};
}

/* Its matrices stand one behind the other in the list. */
static int load_expert(struct list *list, const struct list_item *item, struct imp_error *err) {
    const bool gpt_oss = strcmp(list->ck->config.model_type, "gpt_oss") == 0;
    if (list->last_module == item->module && list->last_index == item->expert) return 0;
    list->last_module = NULL;
    int rc =
        checkpoint_expert(list->ck, item->module, gpt_oss ? EXPERTS_GPT_OSS : EXPERTS_PLAIN,
                          item->experts, item->expert, item->width, item->hidden, &list->last, err);
    if (rc < 0) return rc;
    list->last_module = item->module;
    list->last_index = item->expert;
    return 0;
}

static int expert_view(struct list *list, const struct list_item *item, struct list_view *out,
                       struct imp_error *err) {
    const struct expert *e = &list->last;
    int rc = load_expert(list, item, err);
    if (rc < 0) return rc;
    const int up = item->member == LIST_UP;
    *out = (struct list_view){.step = 1, .rows = item->width};
    if (item->member == LIST_DOWN) {
        out->weight = e->down;
        out->rows = item->hidden;
    } else if (e->gate_up_count == 2) {
        out->weight = e->gate_up[up];
    } else {
        out->weight = e->gate_up[0];
        out->first = e->interleaved ? up : up * item->width;
        out->step = e->interleaved ? 2 : 1;
    }
    return 0;
}

int list_view(struct list *list, const struct list_item *item, struct list_view *out,
              struct imp_error *err) {
    if (item->member != LIST_LINEAR) return expert_view(list, item, out, err);
    *out = (struct list_view){.step = 1};
    int rc = checkpoint_weight(list->ck, item->module, -1, -1, &out->weight, err);
    out->rows = out->weight.rows;
    return rc;
}

void list_drop_copies(struct list *list) {
    list->last_module = NULL;
    if (list->ck) checkpoint_drop_copies(list->ck);
}

const struct list_item *list_find(const struct list *list, const struct list_item *like) {
    struct str key = {0};
    add_key(&key, like);
    const int64_t *at = map_find(&list->by_key, (struct slice){key.data, key.size});
    str_free(&key);
    return at ? &list->items[*at] : NULL;
}
