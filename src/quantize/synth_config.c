#include "quantize/synth_config.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

struct editor {
    const struct model_desc *desc;
    const struct synth_changes *changes;
    yyjson_mut_doc *doc;
    yyjson_mut_val *top, *text;
    int *chosen; /* [changes->layers] layers of the original, ascending; NULL: all of them */
};

/* ---- which layers ---- */

/* Layers of one class do the same with other weights. */
static bool same_class(const struct layer_desc *a, const struct layer_desc *b) {
    return a->mixer == b->mixer && a->attention.window == b->attention.window &&
           a->attention.shares_kv == b->attention.shares_kv && a->ffn.width == b->ffn.width &&
           a->moe.experts == b->moe.experts;
}

/* The last layer, the first of every other class, and what is lowest of the rest: shared KV then
 * still comes last, and after a layer that has it. */
static int choose_layers(struct editor *e, struct imp_error *err) {
    const struct model_desc *desc = e->desc;
    const int wanted = e->changes->layers;
    bool *taken = mem_zero((size_t)desc->layers, sizeof *taken);
    int count = 1, n = 0;
    taken[desc->layers - 1] = true;
    for (int i = 0; i < desc->layers; i++) {
        bool new_class = true;
        for (int k = 0; k < desc->layers; k++)
            new_class &= !(taken[k] && same_class(&desc->layer[k], &desc->layer[i]));
        if (!new_class) continue;
        taken[i] = true;
        count++;
    }
    for (int i = 0; i < desc->layers && count < wanted; i++) {
        count += !taken[i];
        taken[i] = true;
    }
    int rc = 0;
    if (count != wanted) {
        rc = wanted > desc->layers
                 ? error_set(err, IMP_ERR_USAGE, NULL, "%d layers are wanted, the model has %d",
                             wanted, desc->layers)
                 : error_set(err, IMP_ERR_USAGE, NULL,
                             "this model has %d kinds of layers: %d are too few", count, wanted);
    } else {
        e->chosen = mem_alloc((size_t)wanted * sizeof *e->chosen);
        for (int i = 0; i < desc->layers; i++) {
            if (taken[i]) e->chosen[n++] = i;
        }
    }
    free(taken);
    return rc;
}

static const struct layer_desc *layer_of(const struct editor *e, int i) {
    return &e->desc->layer[e->chosen[i]];
}

/* ---- fields ---- */

/* Sets it wherever it stands, else in the text model's object. */
static void set(struct editor *e, const char *key, yyjson_mut_val *value) {
    yyjson_mut_val *objects[] = {e->top, e->text};
    bool found = false;
    for (int i = e->top == e->text; i < 2; i++) {
        if (yyjson_mut_obj_get(objects[i], key) == NULL) continue;
        found = true;
        yyjson_mut_obj_put(objects[i], yyjson_mut_str(e->doc, key),
                           yyjson_mut_val_mut_copy(e->doc, value));
    }
    if (!found) yyjson_mut_obj_put(e->text, yyjson_mut_str(e->doc, key), value);
}

static bool has(const struct editor *e, const char *key) {
    return yyjson_mut_obj_get(e->text, key) || yyjson_mut_obj_get(e->top, key);
}

static void set_int(struct editor *e, const char *key, int64_t value) {
    set(e, key, yyjson_mut_sint(e->doc, value));
}

static void set_if_there(struct editor *e, const char *key, int64_t value) {
    if (has(e, key)) set_int(e, key, value);
}

static void erase(struct editor *e, const char *key) {
    yyjson_mut_obj_remove_key(e->top, key);
    yyjson_mut_obj_remove_key(e->text, key);
}

static void set_layer_types(struct editor *e) {
    bool plain = true;
    yyjson_mut_val *list = yyjson_mut_arr(e->doc);
    for (int i = 0; i < e->changes->layers; i++) {
        const struct layer_desc *layer = layer_of(e, i);
        const char *kind = layer->mixer == MIXER_GDN     ? "linear_attention"
                           : layer->attention.window > 0 ? "sliding_attention"
                                                         : "full_attention";
        plain &= strcmp(kind, "full_attention") == 0;
        yyjson_mut_arr_add_str(e->doc, list, kind);
    }
    if (!plain || has(e, "layer_types")) set(e, "layer_types", list);
}

/* Dense layers of a model of experts, by name: a step would count from the wrong layer. */
static void set_dense_layers(struct editor *e) {
    bool experts = false, dense = false;
    yyjson_mut_val *list = yyjson_mut_arr(e->doc);
    for (int i = 0; i < e->changes->layers; i++) {
        experts |= layer_of(e, i)->moe.experts > 0;
        if (layer_of(e, i)->moe.experts) continue;
        dense = true;
        yyjson_mut_arr_add_int(e->doc, list, i);
    }
    if (!experts || (!dense && !has(e, "mlp_only_layers"))) return;
    set(e, "mlp_only_layers", list);
    set_if_there(e, "decoder_sparse_step", 1);
}

static void set_layers(struct editor *e) {
    int shared = 0;
    for (int i = 0; i < e->changes->layers; i++) shared += layer_of(e, i)->attention.shares_kv;
    set_int(e, "num_hidden_layers", e->changes->layers);
    set_if_there(e, "num_kv_shared_layers", shared);
    set_layer_types(e);
    set_dense_layers(e);
}

static void set_vocab(struct editor *e) {
    static const char *const ids[] = {"bos_token_id", "pad_token_id", "decoder_start_token_id"};
    set_int(e, "vocab_size", e->changes->vocab);
    if (e->desc->ple_width) set_int(e, "vocab_size_per_layer_input", e->changes->vocab);
    set_int(e, "eos_token_id", e->changes->eos);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) erase(e, ids[i]);
}

static void describe_mxfp4(struct editor *e) {
    static const char *const plain[] = {"model.layers.*.self_attn", "model.layers.*.mlp.router",
                                        "model.embed_tokens", "lm_head"};
    yyjson_mut_val *object = yyjson_mut_obj_add_obj(e->doc, e->top, "quantization_config");
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(e->doc, object, "modules_to_not_convert");
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        yyjson_mut_arr_add_str(e->doc, list, plain[i]);
    yyjson_mut_obj_add_str(e->doc, object, "quant_method", "mxfp4");
}

int synth_config_make(const struct config *config, const struct model_desc *desc,
                      const struct synth_changes *changes, struct str *out, struct imp_error *err) {
    struct editor e = {.desc = desc, .changes = changes};
    int rc = changes->layers ? choose_layers(&e, err) : 0;
    if (rc < 0) return rc;
    e.doc = yyjson_doc_mut_copy(config->doc, NULL);
    e.top = yyjson_mut_doc_get_root(e.doc);
    e.text = config->text == config->top ? e.top : yyjson_mut_obj_get(e.top, "text_config");
    erase(&e, "quantization_config");
    erase(&e, "compression_config");
    set_if_there(&e, "mtp_num_hidden_layers", 0); /* none is written */
    if (e.chosen) set_layers(&e);
    if (changes->vocab) set_vocab(&e);
    if (changes->mxfp4) describe_mxfp4(&e);
    size_t bytes;
    char *json = yyjson_mut_write(e.doc, YYJSON_WRITE_PRETTY, &bytes);
    yyjson_mut_doc_free(e.doc);
    free(e.chosen);
    if (json == NULL) return error_memory(err, 0);
    str_add(out, json, bytes);
    free(json);
    return 0;
}
