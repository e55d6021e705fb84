/* What the configuration says about quantisation. It is compared with the tensors, never obeyed. */
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "load/quant.h"

static void declare(struct quant_declared *d, enum weight_format format) {
    d->formats |= 1u << format;
}

/* "NVFP4", "W4A8_NVFP4_FP8", "FP8_PB_WO", "fp8_pb_wo", "mxfp4", "FP8_DYNAMIC", ... */
static void declare_algorithm(struct quant_declared *d, const char *name) {
    if (name == NULL) return;
    if (strcasestr(name, "NVFP4")) {
        declare(d, WEIGHT_NVFP4);
        if (strcasestr(name, "A16") == NULL) d->activations = true;
        if (strcasestr(name, "A8")) d->fp8_inputs = true;
    } else if (strcasestr(name, "MXFP4")) {
        declare(d, WEIGHT_MXFP4);
    } else if (strncasecmp(name, "FP8", 3) == 0) {
        declare(d, WEIGHT_FP8);
    }
}

static void declare_block(struct quant_declared *d, yyjson_val *shape) {
    yyjson_val *rows = yyjson_arr_get(shape, 0), *cols = yyjson_arr_get(shape, 1);
    if (yyjson_arr_size(shape) != 2 || !yyjson_is_int(rows) || !yyjson_is_int(cols)) return;
    int64_t r = yyjson_get_sint(rows), c = yyjson_get_sint(cols);
    if (r < 1 || c < 1 || r > CAP_HIDDEN || c > CAP_HIDDEN) return;
    d->block_rows = r;
    d->block_cols = c;
}

static void declare_group(struct quant_declared *d, const char *name, yyjson_val *group) {
    if (yyjson_is_arr(group)) { /* the key is a preset's name, the list its targets */
        declare_algorithm(d, name);
        return;
    }
    declare_algorithm(d, yyjson_get_str(yyjson_obj_get(group, "quant_algo")));
    yyjson_val *weights = yyjson_obj_get(group, "weights");
    int64_t bits = yyjson_get_sint(yyjson_obj_get(weights, "num_bits"));
    if (yyjson_equals_str(yyjson_obj_get(weights, "type"), "float")) {
        bool mx = yyjson_get_sint(yyjson_obj_get(weights, "group_size")) == 32;
        if (bits == 4) declare(d, mx ? WEIGHT_MXFP4 : WEIGHT_NVFP4);
        if (bits == 8) declare(d, WEIGHT_FP8);
    }
    declare_block(d, yyjson_obj_get(weights, "block_structure"));
    if (yyjson_is_obj(yyjson_obj_get(group, "input_activations"))) d->activations = true;
}

/* {"num_bits": 8, "type": "float"}, or a name: "FP8", "NVFP4", "NVFP4_AFFINE", "INT8". */
static void declare_kv(struct quant_declared *d, yyjson_val *scheme) {
    const char *name = yyjson_get_str(scheme);
    int64_t bits = yyjson_get_sint(yyjson_obj_get(scheme, "num_bits"));
    if (name) bits = strcasestr(name, "FP4") ? 4 : strchr(name, '8') ? 8 : 0;
    if (bits == 4 || bits == 8) d->kv_bits = (int)bits;
}

static void declare_all(struct quant_declared *d, yyjson_val *config) {
    yyjson_val *key;
    declare_algorithm(d, yyjson_get_str(yyjson_obj_get(config, "quant_algo")));
    yyjson_obj_iter groups = yyjson_obj_iter_with(yyjson_obj_get(config, "config_groups"));
    while ((key = yyjson_obj_iter_next(&groups)) != NULL)
        declare_group(d, yyjson_get_str(key), yyjson_obj_iter_get_val(key));
    yyjson_obj_iter layers = yyjson_obj_iter_with(yyjson_obj_get(config, "quantized_layers"));
    while ((key = yyjson_obj_iter_next(&layers)) != NULL) {
        yyjson_val *layer = yyjson_obj_iter_get_val(key);
        declare_algorithm(d, yyjson_get_str(yyjson_obj_get(layer, "quant_algo")));
    }
    declare_block(d, yyjson_obj_get(config, "weight_block_size"));
    declare_kv(d, yyjson_obj_get(config, "kv_cache_scheme"));
    declare_kv(d, yyjson_obj_get(config, "kv_cache_quant_algo"));
}

void quant_read_config(struct checkpoint *ck) {
    yyjson_val *config = config_get(&ck->config, "quantization_config");
    yyjson_val *modelopt = NULL;
    if (ck->config.quant)
        modelopt = yyjson_obj_get(yyjson_doc_get_root(ck->config.quant), "quantization");
    const char *method = yyjson_get_str(yyjson_obj_get(config, "quant_method"));
    if (method == NULL) method = "";
    if (modelopt || strncmp(method, "modelopt", 8) == 0) {
        ck->dialect = QUANT_MODELOPT;
    } else if (strcmp(method, "compressed-tensors") == 0) {
        ck->dialect = QUANT_COMPRESSED_TENSORS;
    } else {
        declare_algorithm(&ck->declared, method); /* "fp8", "mxfp4" */
    }
    declare_all(&ck->declared, config);
    declare_all(&ck->declared, modelopt);
}

/* A transform at weight_input or weight_output is baked into the stored weights; any other place
 * (input, output, q_attn, k_cache) is work for the engine. */
static const char *online_location(yyjson_val *group) {
    yyjson_val *apply = yyjson_obj_get(group, "apply"), *item;
    size_t i, n;
    if (yyjson_arr_size(apply) == 0) return "unknown";
    yyjson_arr_foreach(apply, i, n, item) {
        const char *location = yyjson_get_str(yyjson_obj_get(item, "location"));
        if (location == NULL) return "unknown";
        if (strncmp(location, "weight_", 7) != 0) return location;
    }
    return NULL;
}

static int check_transforms(const struct checkpoint *ck, yyjson_val *config,
                            struct imp_error *err) {
    yyjson_val *key, *group;
    yyjson_val *groups =
        yyjson_obj_get(yyjson_obj_get(config, "transform_config"), "config_groups");
    yyjson_obj_iter iter = yyjson_obj_iter_with(groups);
    while ((key = yyjson_obj_iter_next(&iter)) != NULL) {
        group = yyjson_obj_iter_get_val(key);
        const char *location = online_location(group);
        if (location == NULL) continue;
        const char *type = yyjson_get_str(yyjson_obj_get(group, "type"));
        const char *name = yyjson_get_str(key);
        char place[sizeof err->where];
        error_place(place, ck->config.path, "$.quantization_config.transform_config.%s",
                    name ? name : "");
        return error_set(err, IMP_ERR_UNSUPPORTED, place,
                         "transform \"%.40s\" of activations at run time (location \"%.40s\") is "
                         "not supported",
                         type ? type : "unknown", location);
    }
    return 0;
}

/* What imp can read, whoever wrote it. GPTQ, AWQ, bitsandbytes, AQLM, HQQ, Quark and others have
 * formats of their own; FP-Quant and QuIP rotate activations, which no tensor shows. */
static bool known_method(const char *method) {
    static const char *const names[] = {"compressed-tensors", "fp8", "fbgemm_fp8", "mxfp4"};
    if (strncmp(method, "modelopt", 8) == 0) return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(method, names[i]) == 0) return true;
    }
    return false;
}

int quant_check_config(const struct checkpoint *ck, struct imp_error *err) {
    yyjson_val *config = config_get(&ck->config, "quantization_config");
    const char *method = yyjson_get_str(yyjson_obj_get(config, "quant_method"));
    if (method && !known_method(method)) {
        char place[sizeof err->where];
        error_place(place, ck->config.path, "$.quantization_config.quant_method");
        return error_set(err, IMP_ERR_UNSUPPORTED, place,
                         "weights quantised by \"%.60s\" are not supported", method);
    }
    return check_transforms(ck, config, err);
}
