/* The tensors against what the model of config.json asks for: missing, of another shape, of no use.
 * It reads them as model_open does, with the same functions, but for a backend. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "health/judge.h"
#include "model/model.h"
#include "model/tensors.h"

enum { SHOWN = 8 }; /* a lost shard is one fault, not a thousand */

struct expectation {
    struct health_report *report;
    struct checkpoint *ck;
    const struct model_desc *desc;
    size_t missing, misshapen;
    int bad_experts; /* the layer whose experts have been complained of; -1: none yet */
};

static const char *keep(struct expectation *x, const char *name) {
    return arena_strndup(&x->report->arena, name, strlen(name));
}

static void say_missing(struct expectation *x, const char *name) {
    if (x->missing++ < SHOWN)
        judge_add(x->report, "tensor_missing", HEALTH_BROKEN, BASIS_FILES, keep(x, name), NULL, NAN,
                  "config.json asks for it, and no file has it");
}

static void say_misshapen(struct expectation *x, const char *name, const struct imp_error *err) {
    if (x->misshapen++ < SHOWN)
        judge_add(x->report, "tensor_shape", HEALTH_BROKEN, BASIS_FILES, keep(x, name), NULL, NAN,
                  "%s", err->message);
}

/* True if there was nothing to say. */
static bool expect_module(struct expectation *x, const char *module, int64_t rows, int64_t cols) {
    struct imp_error err = {0}, unreadable = {0};
    struct weight w;
    if (!checkpoint_has(x->ck, module)) {
        say_missing(x, module);
        return false;
    }
    if (checkpoint_weight(x->ck, module, rows, cols, &w, &err) == 0) return true;
    /* What cannot be read at all, a matrix says. */
    if (checkpoint_weight(x->ck, module, -1, -1, &w, &unreadable) == 0)
        say_misshapen(x, module, &err);
    return false;
}

/* "....up_proj.weight" is a linear, in whatever format. */
static void expect_linear(struct expectation *x, const struct model_tensor *t) {
    char module[192];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(t->name) - strlen(".weight")), t->name);
    if (t->kind != TENSOR_HEAD || checkpoint_has(x->ck, module))
        expect_module(x, module, t->shape[0], t->shape[1]);
    else
        judge_add(x->report, "tensor_missing", HEALTH_WEAK, BASIS_FILES, NULL, NULL, NAN,
                  "config.json asks for an lm_head of its own, and no file has it: the embedding "
                  "serves, here");
}

static void expect_vector(struct expectation *x, const struct model_tensor *t) {
    struct imp_error err = {0}, unreadable = {0};
    const float *values;
    int64_t count = 1;
    for (int i = 0; i < t->dims; i++) count *= t->shape[i];
    if (checkpoint_find(x->ck, t->name) == NULL)
        say_missing(x, t->name);
    else if (checkpoint_vector(x->ck, t->name, count, &values, &err) == 0)
        return;
    else if (checkpoint_vector(x->ck, t->name, -1, &values, &unreadable) == 0)
        say_misshapen(x, t->name, &err);
    else
        judge_add(x->report, "unreadable", HEALTH_BROKEN, BASIS_FORMAT, keep(x, t->name), NULL, NAN,
                  "%s", unreadable.message);
}

static const char *const parts[] = {"gate_proj", "up_proj", "down_proj"};
static const char *const others[] = {"w1", "gate_up_proj"}; /* names for gate */
enum { PARTS = sizeof parts / sizeof *parts, OTHERS = sizeof others / sizeof *others };

static bool has_any(const struct checkpoint *ck, const char *module, int expert,
                    const char *const *names, int count) {
    char name[192];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s.%d.%s", module, expert, names[i]);
        if (checkpoint_has(ck, name)) return true;
    }
    return false;
}

static bool expect_parts(struct expectation *x, const struct moe_desc *m, const char *module,
                         int expert) {
    const int64_t width = m->width, hidden = x->desc->hidden;
    bool well = true;
    char name[192];
    for (int i = 0; i < PARTS; i++) {
        snprintf(name, sizeof name, "%s.%d.%s", module, expert, parts[i]);
        const bool down = i == PARTS - 1;
        if (!expect_module(x, name, down ? hidden : width, down ? width : hidden)) well = false;
    }
    return well;
}

/* All of an expert when its gate comes. What is wrong with the experts as such, their number or a
 * stack, is said once for a layer. */
static void expect_expert(struct expectation *x, const struct model_tensor *t) {
    const struct moe_desc *m = &x->desc->layer[t->layer].moe;
    struct imp_error err = {0};
    struct expert e;
    char module[128];
    if (t->part != EXPERT_GATE || t->kind == TENSOR_BIAS) return;
    module_name(x->desc, MODULE_EXPERTS, t->layer, module);
    const bool apart =
        has_any(x->ck, module, t->expert, parts, PARTS) || has_any(x->ck, module, 0, parts, PARTS);
    if (!apart && t->expert > 0 && !has_any(x->ck, module, 0, others, OTHERS))
        return; /* a stack, or nothing: looked at once */
    const int rc = checkpoint_expert(x->ck, module, m->layout, m->experts, t->expert, m->width,
                                     x->desc->hidden, &e, &err);
    checkpoint_drop_copies(x->ck);
    if (rc == 0 || (apart && !expect_parts(x, m, module, t->expert))) return;
    if (x->bad_experts == t->layer) return;
    x->bad_experts = t->layer;
    if (apart || checkpoint_has_experts(x->ck, module))
        say_misshapen(x, module, &err);
    else
        say_missing(x, module);
}

static void expect(void *ctx, const struct model_tensor *t) {
    struct expectation *x = ctx;
    if (t->expert >= 0)
        expect_expert(x, t);
    else if (t->dims == 2 && slice_ends(slice_of(t->name), ".weight"))
        expect_linear(x, t);
    else
        expect_vector(x, t);
}

/* ---- what the model has no use for ---- */

/* Files as they are published hold these: a head beside an embedding that is one, and keys and
 * values of layers that use another's. */
static bool is_usual(const struct model_desc *desc, const struct checkpoint *ck, const char *name) {
    static const enum module kv[] = {MODULE_K, MODULE_V, MODULE_K_NORM};
    const struct slice all = slice_of(name);
    if (slice_starts(all, ck->head)) return desc->tied_head;
    for (int i = 0; i < desc->layers; i++) {
        const struct attention_desc *a = &desc->layer[i].attention;
        if (desc->layer[i].mixer != MIXER_ATTENTION || !a->shares_kv) continue;
        for (size_t k = 0; k < sizeof kv / sizeof *kv; k++) {
            char module[128];
            module_name(desc, kv[k], i, module);
            const char *tail = strchr(module, '.'); /* behind "model" */
            if (tail && strstr(name, tail)) return true;
        }
    }
    return false;
}

static void judge_extra(struct health_report *r, const struct checkpoint *ck,
                        const struct model_desc *desc) {
    const struct tensor *first[2] = {NULL, NULL};
    size_t count[2] = {0};
    for (size_t i = 0; i < ck->tensor_count; i++) {
        const struct tensor *t = ck->tensors[i];
        if (ck->read[i] || checkpoint_role(t->name) != TENSOR_TEXT) continue;
        const bool usual = is_usual(desc, ck, t->name);
        if (count[usual]++ == 0) first[usual] = t;
    }
    for (int usual = 0; usual < 2; usual++) {
        if (count[usual] == 0) continue;
        judge_add(r, "tensor_extra", usual ? HEALTH_NOTE : HEALTH_WEAK, BASIS_FILES,
                  arena_strndup(&r->arena, first[usual]->name, strlen(first[usual]->name)), NULL,
                  (double)count[usual], "the model of config.json has no use for %zu tensors%s",
                  count[usual], usual ? ", which is usual" : ", the first of them this one");
    }
}

/* ---- all ---- */

static void say_rest(struct health_report *r, const char *rule, size_t count, const char *what) {
    if (count <= SHOWN) return;
    judge_add(r, rule, HEALTH_BROKEN, BASIS_FILES, NULL, NULL, (double)count,
              "%zu %s in all, %d of them named", count, what, SHOWN);
}

void judge_tensors(struct health_report *r, struct checkpoint *ck) {
    struct arena arena = {0};
    struct model_desc desc;
    struct imp_error err = {0};
    const int rc = model_describe(&ck->config, &arena, &desc, &err);
    if (rc == 0) {
        struct expectation x = {.report = r, .ck = ck, .desc = &desc, .bad_experts = -1};
        model_desc_tensors(&desc, EXPERT_ONE_BY_ONE, expect, &x);
        say_rest(r, "tensor_missing", x.missing, "tensors are missing");
        say_rest(r, "tensor_shape", x.misshapen, "tensors have a wrong shape");
        judge_extra(r, ck, &desc);
    } else {
        judge_add(r, "config", rc == IMP_ERR_UNSUPPORTED ? HEALTH_NOTE : HEALTH_BROKEN, BASIS_FILES,
                  NULL, NULL, NAN, "the tensors are not held against it: %s: %s", err.where,
                  err.message);
    }
    arena_free(&arena);
}
