/* What the configuration says of the quantisation, against what the tensors are. This program goes
 * by the tensors; a runtime that goes by the configuration fails, or reads codes as numbers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "health/judge.h"
#include "load/quant.h"
#include "text/regex.h"

/* A name of a list, in the three ways that makers write one: exactly, as a shell's pattern
 * (ModelOpt), or "re:" and an expression that must match from the start (compressed-tensors). */
struct pattern {
    const char *text;
    struct regex *regex; /* of "re:", else NULL */
    bool shell, parent;  /* parent: also what lies under the name */
};

struct patterns {
    struct pattern *all;
    size_t count;
    struct regex_scratch scratch;
};

/* The name without what wrappers put before it: configuration and tensors often disagree there. */
static const char *bare(const char *name) {
    static const char *const fronts[] = {"model.", "language_model.", "thinker."};
    for (size_t i = 0; i < sizeof fronts / sizeof *fronts; i++) {
        const size_t n = strlen(fronts[i]);
        if (strncmp(name, fronts[i], n) != 0) continue;
        name += n;
        i = (size_t)-1;
    }
    return name;
}

static void add_pattern(struct patterns *p, const char *text, bool parent) {
    if (text == NULL || *text == 0) return;
    struct pattern one = {.text = text, .parent = parent};
    if (strncmp(text, "re:", 3) == 0 &&
        regex_compile(slice_of(text + 3), "ignore", &one.regex, NULL) < 0)
        return; /* not one that runs here: it says nothing */
    one.shell = one.regex == NULL && strpbrk(text, "*?") != NULL;
    p->all = mem_grow(p->all, (p->count + 1) * sizeof *p->all);
    p->all[p->count++] = one;
}

static void add_list(struct patterns *p, yyjson_val *list, bool parent) {
    size_t i, n;
    yyjson_val *name;
    yyjson_arr_foreach(list, i, n, name) add_pattern(p, yyjson_get_str(name), parent);
}

static void patterns_free(struct patterns *p) {
    for (size_t i = 0; i < p->count; i++) regex_free(p->all[i].regex);
    free(p->all);
    regex_scratch_free(&p->scratch);
}

static bool regex_matches(struct patterns *p, const struct regex *regex, const char *name) {
    struct regex_iter iter = {0};
    size_t start, end;
    return regex_next(regex, &p->scratch, name, strlen(name), &iter, &start, &end) && start == 0;
}

/* Stars and question marks alone. fnmatch takes exponential time on patterns made for it; here a
 * later star never needs an earlier one to be tried again. */
static bool shell_matches(const char *pattern, const char *name) {
    const char *star = NULL, *resume = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            resume = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star + 1;
            name = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == 0;
}

static bool matches(struct patterns *all, const struct pattern *p, const char *name) {
    const char *short_name = bare(name), *text = bare(p->text);
    if (p->regex)
        return regex_matches(all, p->regex, name) || regex_matches(all, p->regex, short_name);
    if (p->shell) return shell_matches(p->text, name) || shell_matches(text, short_name);
    const size_t n = strlen(text);
    if (strncmp(text, short_name, n) != 0) return false;
    return short_name[n] == 0 || (p->parent && short_name[n] == '.');
}

static bool any_matches(struct patterns *p, const char *name) {
    for (size_t i = 0; i < p->count; i++) {
        if (matches(p, &p->all[i], name)) return true;
    }
    return false;
}

/* ---- what the configuration says ---- */

struct declaration {
    struct patterns ignored, targets;
    bool all; /* every linear that is not ignored is to be quantised */
};

static void add_group(struct declaration *d, yyjson_val *group) {
    size_t i, n;
    yyjson_val *name;
    yyjson_val *list = yyjson_is_arr(group) ? group : yyjson_obj_get(group, "targets");
    yyjson_arr_foreach(list, i, n, name) {
        if (yyjson_equals_str(name, "Linear"))
            d->all = true;
        else
            add_pattern(&d->targets, yyjson_get_str(name), false);
    }
}

static void add_keys(struct patterns *p, yyjson_val *object) {
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter)) != NULL;)
        add_pattern(p, yyjson_get_str(key), true);
}

/* ModelOpt's names stand for all that lies under them, compressed-tensors' for one module. */
static void read_declaration(const struct checkpoint *ck, struct declaration *d) {
    yyjson_val *config = config_get(&ck->config, "quantization_config"), *modelopt = NULL;
    const bool modules = ck->dialect == QUANT_COMPRESSED_TENSORS;
    if (ck->config.quant)
        modelopt = yyjson_obj_get(yyjson_doc_get_root(ck->config.quant), "quantization");
    add_list(&d->ignored, yyjson_obj_get(config, "ignore"), !modules);
    add_list(&d->ignored, yyjson_obj_get(config, "modules_to_not_convert"), true);
    add_list(&d->ignored, yyjson_obj_get(config, "exclude_modules"), true);
    add_list(&d->ignored, yyjson_obj_get(modelopt, "exclude_modules"), true);
    yyjson_obj_iter groups = yyjson_obj_iter_with(yyjson_obj_get(config, "config_groups"));
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&groups)) != NULL;)
        add_group(d, yyjson_obj_iter_get_val(key));
    add_keys(&d->targets, yyjson_obj_get(config, "quantized_layers"));
    add_keys(&d->targets, yyjson_obj_get(modelopt, "quantized_layers"));
}

/* ---- the rules ---- */

static bool is_quantised(const struct weights_matrix *m) {
    return m->format == WEIGHT_FP8 || m->format == WEIGHT_NVFP4 || m->format == WEIGHT_MXFP4;
}

/* Modules that no class name "Linear" means, and rows that no block of 16 divides. */
static bool is_linear(const struct weights_matrix *m) {
    return strstr(m->part, "embed_tokens") == NULL && m->cols % 16 == 0;
}

static void judge_lists(struct health_report *r, struct declaration *d) {
    const struct weights_matrix *quantised = NULL, *plain = NULL;
    size_t quantised_count = 0, plain_count = 0;
    for (size_t i = 0; i < r->count; i++) {
        const struct weights_matrix *m = &r->matrices[i];
        if (m->problem) continue;
        const bool ignored = any_matches(&d->ignored, m->name);
        if (ignored && is_quantised(m) && !any_matches(&d->targets, m->name)) {
            if (quantised_count++ == 0) quantised = m;
        } else if (!ignored && !is_quantised(m) && is_linear(m) &&
                   (d->all || any_matches(&d->targets, m->name))) {
            if (plain_count++ == 0) plain = m;
        }
    }
    if (quantised)
        judge_add(r, "ignored_quantised", HEALTH_WEAK, BASIS_FILES, quantised->name, NULL,
                  (double)quantised_count,
                  "the configuration leaves it unquantised, and it is stored as %s; so with %zu "
                  "linears",
                  weight_format_name(quantised->format), quantised_count);
    if (plain)
        judge_add(r, "target_plain", HEALTH_WEAK, BASIS_FILES, plain->name, NULL,
                  (double)plain_count,
                  "the configuration has it quantised, and it is stored as %s; so with %zu linears",
                  weight_format_name(plain->format), plain_count);
}

/* Every module that a tensor lies under, at any depth, by its bare name. */
static void collect_modules(const struct checkpoint *ck, struct map *out) {
    map_create(out, ck->tensor_count);
    for (size_t i = 0; i < ck->tensor_count; i++) {
        const char *name = bare(ck->tensors[i]->name);
        for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.'))
            map_add(out, (struct slice){name, (size_t)(dot - name)}, 0);
    }
}

/* Of exact names only: patterns are written for whole families. Tied heads and embeddings have no
 * tensor of their own. */
static void judge_unmatched(struct health_report *r, const struct checkpoint *ck,
                            const struct patterns *ignored) {
    struct map modules = {0};
    const char *first = NULL;
    size_t count = 0;
    collect_modules(ck, &modules);
    for (size_t i = 0; i < ignored->count; i++) {
        const struct pattern *p = &ignored->all[i];
        const char *name = bare(p->text);
        if (p->regex || p->shell || strcmp(name, "lm_head") == 0) continue;
        if (map_find(&modules, slice_of(name))) continue;
        if (count++ == 0) first = p->text;
    }
    map_free(&modules);
    if (count)
        judge_add(r, "ignore_unmatched", HEALTH_NOTE, BASIS_FILES, NULL, NULL, (double)count,
                  "%zu of %zu names that the configuration leaves unquantised are no module of "
                  "the files, among them %s",
                  count, ignored->count, first);
}

static void judge_formats(struct health_report *r, const struct checkpoint *ck) {
    static const enum weight_format formats[] = {WEIGHT_FP8, WEIGHT_NVFP4, WEIGHT_MXFP4};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        const struct weights_matrix *first = NULL;
        const bool declared = ck->declared.formats >> formats[f] & 1;
        for (size_t i = 0; i < r->count && first == NULL; i++) {
            if (!r->matrices[i].problem && r->matrices[i].format == formats[f])
                first = &r->matrices[i];
        }
        if (declared == (first != NULL)) continue;
        judge_add(r, "format", HEALTH_WEAK, BASIS_FILES, first ? first->name : NULL, NULL, NAN,
                  first ? "it is stored as %s, of which the configuration says nothing"
                        : "the configuration announces %s, and no linear is",
                  weight_format_name(formats[f]));
    }
}

/* One stores the tensor's scale as a factor, the other as a divisor. */
static void judge_dialect(struct health_report *r, const struct checkpoint *ck) {
    static const char *const names[] = {"no dialect", "compressed-tensors", "ModelOpt"};
    static const char *const ends[] = {NULL, ".weight_global_scale", ".weight_scale_2"};
    const bool compressed = ck->dialect == QUANT_COMPRESSED_TENSORS;
    const int other = compressed ? QUANT_MODELOPT : QUANT_COMPRESSED_TENSORS;
    if (ck->dialect == QUANT_NONE) return;
    for (size_t i = 0; i < ck->tensor_count; i++) {
        const char *name = ck->tensors[i]->name;
        if (!slice_ends(slice_of(name), ends[other])) continue;
        judge_add(r, "dialect", HEALTH_WEAK, BASIS_FILES,
                  arena_strndup(&r->arena, name, strlen(name)), NULL, NAN,
                  "the configuration is %s's, the tensor is %s's", names[ck->dialect],
                  names[other]);
        return;
    }
}

/* Linears that say what range their input has, and such as should and do not. */
static void judge_inputs(struct health_report *r, const struct checkpoint *ck) {
    const struct weights_matrix *first = NULL;
    size_t without = 0, all = 0;
    if (!ck->declared.activations) return;
    for (size_t i = 0; i < r->count; i++) {
        const struct weights_matrix *m = &r->matrices[i];
        if (m->problem || m->format != WEIGHT_NVFP4) continue;
        all++;
        if (!isnan(m->input_multiplier)) continue;
        if (without++ == 0) first = m;
    }
    if (first)
        judge_add(r, "input_scale", without == all ? HEALTH_NOTE : HEALTH_WEAK, BASIS_FORMAT,
                  first->name, NULL, (double)without,
                  "%zu of %zu NVFP4 linears have no usable input scale: missing, 0 or not finite",
                  without, all);
}

void judge_declared(struct health_report *r, const struct checkpoint *ck) {
    struct declaration d = {0};
    regex_scratch_init(&d.ignored.scratch);
    regex_scratch_init(&d.targets.scratch);
    read_declaration(ck, &d);
    judge_lists(r, &d);
    judge_unmatched(r, ck, &d.ignored);
    judge_formats(r, ck);
    judge_dialect(r, ck);
    judge_inputs(r, ck);
    patterns_free(&d.ignored);
    patterns_free(&d.targets);
}
