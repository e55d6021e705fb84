#include "quantize/policy.h"

#include <string.h>

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

static bool is_one_of(struct slice leaf, const char *const *names) {
    for (; *names; names++)
        if (slice_equal(leaf, slice_of(*names))) return true;
    return false;
}

/* Outside the text model, or a part of it that no maker quantises. */
static bool is_foreign(const char *name) {
    static const char *const parts[] = {"visual.", "vision", "audio", "multi_modal_projector.",
                                        "mtp.",    NULL};
    for (const char *const *p = parts; *p; p++)
        if (strstr(name, *p)) return true;
    return false;
}

bool policy_is_linear(const struct source_tensor *t) {
    return t->dims == 2 && source_is_float(t->dtype) && slice_ends(slice_of(t->name), ".weight") &&
           strstr(t->name, "embed") == NULL && strstr(t->name, "norm") == NULL;
}

bool policy_quantizes(const struct source_tensor *t) {
    static const char *const others[] = {
        "w1", "w2", "w3", "in_proj_qkv", "in_proj_qkvz", "in_proj_z", "kv_a_proj_with_mqa", NULL};
    if (!policy_is_linear(t) || t->rows == 0 || t->cols == 0 || t->cols % NVFP4_BLOCK) return false;
    if (strstr(t->name, "layers.") == NULL || is_foreign(t->name)) return false;
    struct slice leaf = leaf_of(policy_module(t));
    return slice_ends(leaf, "_proj") || is_one_of(leaf, others);
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
