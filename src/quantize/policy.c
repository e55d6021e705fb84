#include "quantize/policy.h"

#include <string.h>

#include "load/checkpoint.h"
#include "num/nvfp4.h"

struct slice policy_module(const struct source_tensor *t) {
    struct slice name = slice_of(t->name);
    if (slice_ends(name, ".weight")) name.size -= strlen(".weight");
    return name;
}

static struct slice leaf_of(struct slice module) {
    for (size_t i = module.size; i > 0; i--)
        if (module.data[i - 1] == '.') return (struct slice){module.data + i, module.size - i};
    return module;
}

static bool slice_has(struct slice s, const char *part) {
    return memmem(s.data, s.size, part, strlen(part)) != NULL;
}

static bool is_one_of(struct slice leaf, const char *const *names) {
    for (; *names; names++)
        if (slice_equal(leaf, slice_of(*names))) return true;
    return false;
}

bool policy_is_linear(const struct source_tensor *t) {
    if (t->dims != 2 || !source_is_float(t->dtype) || !slice_ends(slice_of(t->name), ".weight"))
        return false;
    struct slice leaf = leaf_of(policy_module(t));
    if (slice_has(leaf, "norm")) return false;
    return !slice_has(leaf, "embed") || slice_has(leaf, "proj"); /* embedding_projection is one */
}

/* A delta net carries its errors on from token to token; a recipe of the makers leaves it high. */
bool policy_quantizes(const struct source_tensor *t) {
    static const char *const others[] = {"w1", "w2", "w3", "kv_a_proj_with_mqa", NULL};
    if (!policy_is_linear(t) || t->rows == 0 || t->cols == 0 || t->cols % NVFP4_BLOCK) return false;
    if (strstr(t->name, "layers.") == NULL || strstr(t->name, ".linear_attn.") != NULL ||
        checkpoint_role(t->name) != TENSOR_TEXT)
        return false;
    struct slice leaf = leaf_of(policy_module(t));
    return slice_ends(leaf, "_proj") || is_one_of(leaf, others);
}

void policy_input(const struct source_tensor *t, struct str *out) {
    static const char *const downs[] = {"down_proj", "w2", NULL};
    struct slice module = policy_module(t), leaf = leaf_of(module);
    struct slice owner = {module.data, module.size > leaf.size ? module.size - leaf.size - 1 : 0};
    struct slice number = leaf_of(owner);
    struct slice experts = {owner.data, owner.size - number.size};
    str_clear(out);
    bool is_expert = slice_ends(experts, ".experts.") && number.size > 0;
    str_add(out, module.data, is_expert ? owner.size : module.size);
    if (is_expert) str_add_text(out, is_one_of(leaf, downs) ? ".out" : ".in");
}

void policy_group(const struct source_tensor *t, struct str *out) {
    static const char *const groups[][4] = {{"q_proj", "k_proj", "v_proj", NULL},
                                            {"gate_proj", "up_proj", NULL},
                                            {"w1", "w3", NULL},
                                            {"q_a_proj", "kv_a_proj_with_mqa", NULL}};
    struct slice module = policy_module(t), leaf = leaf_of(module);
    str_clear(out);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (!is_one_of(leaf, groups[i])) continue;
        str_add(out, module.data, module.size - leaf.size);
        str_printf(out, "*%zu", i); /* no module's name has a star */
        return;
    }
    str_add(out, module.data, module.size);
}
