#include "quantize/describe.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "load/checkpoint.h"
#include "quantize/policy.h"

/* Readers take the producer's name for the format's, and its version for that of the layout. */
static const char producer[] = "{\"name\": \"modelopt\", \"version\": \"0.47.0\"}";

static void add_name(struct str *out, const char *before, struct slice name) {
    struct str text = {0};
    str_add_text(&text, before);
    str_add(&text, name.data, name.size);
    str_add_char(out, ',');
    str_add_json(out, text.data, text.size);
    str_free(&text);
}

/* Modules that readers must not expect to be NVFP4: lm_head, tied or not, and every other linear
 * that stays high; ModelOpt names the embeddings too. */
static void add_ignored(const struct source *source, const struct layout *layout,
                        enum layout_dialect dialect, struct str *out) {
    str_add_text(out, "[\"lm_head\"");
    for (size_t i = 0; i < source->tensor_count; i++) {
        const struct source_tensor *t = &source->tensors[i];
        struct slice module = policy_module(t);
        bool embeddings = dialect == LAYOUT_MODELOPT && slice_ends(module, "embed_tokens");
        if (layout->tensors[i].quantized || slice_equal(module, slice_of("lm_head"))) continue;
        if (!policy_is_linear(t) && !embeddings) continue;
        add_name(out, "", module);
        /* Some files leave out what readers' own modules have in front. */
        enum tensor_role role = checkpoint_role(t->name);
        if ((role == TENSOR_VISION || role == TENSOR_AUDIO) && !slice_starts(module, "model."))
            add_name(out, "model.", module);
    }
    str_add_char(out, ']');
}

static void add_compressed_tensors(const struct source *source, const struct layout *layout,
                                   struct str *out) {
    str_add_text(out, "{\"config_groups\": {\"group_0\": {"
                      "\"format\": \"nvfp4-pack-quantized\", \"input_activations\": null, "
                      "\"output_activations\": null, \"targets\": [\"Linear\"], \"weights\": {"
                      "\"actorder\": null, \"block_structure\": null, \"dynamic\": false, "
                      "\"group_size\": 16, \"num_bits\": 4, \"observer\": \"memoryless_minmax\", "
                      "\"observer_kwargs\": {}, \"scale_dtype\": \"torch.float8_e4m3fn\", "
                      "\"strategy\": \"tensor_group\", \"symmetric\": true, \"type\": \"float\", "
                      "\"zp_dtype\": null}}}, \"format\": \"nvfp4-pack-quantized\", "
                      "\"global_compression_ratio\": null, \"ignore\": ");
    add_ignored(source, layout, LAYOUT_COMPRESSED_TENSORS, out);
    str_add_text(out, ", \"kv_cache_scheme\": null, \"quant_method\": \"compressed-tensors\", "
                      "\"quantization_status\": \"compressed\", \"sparsity_config\": {}, "
                      "\"transform_config\": {}, \"version\": \"0.19.0\"}");
}

static void add_modelopt(const struct source *source, const struct layout *layout,
                         struct str *out) {
    str_add_text(out, "{\"config_groups\": {\"group_0\": {\"weights\": {\"dynamic\": false, "
                      "\"num_bits\": 4, \"type\": \"float\", \"group_size\": 16}, "
                      "\"targets\": [\"Linear\"]}}, \"ignore\": ");
    add_ignored(source, layout, LAYOUT_MODELOPT, out);
    str_printf(out,
               ", \"quant_algo\": \"W4A16_NVFP4\", \"producer\": %s, "
               "\"quant_method\": \"modelopt\"}",
               producer);
}

void describe_hf_quant_config(const struct source *source, const struct layout *layout,
                              struct str *out) {
    str_printf(out,
               "{\n  \"producer\": %s,\n  \"quantization\": {\n"
               "    \"quant_algo\": \"W4A16_NVFP4\",\n    \"kv_cache_quant_algo\": null,\n"
               "    \"group_size\": 16,\n    \"exclude_modules\": ",
               producer);
    add_ignored(source, layout, LAYOUT_MODELOPT, out);
    str_add_text(out, "\n  }\n}\n");
}

/* Both spellings, where the file has them, in the wrapper and in the text model: they decide in
 * what type readers compute. */
static void set_element_type(yyjson_mut_val *object) {
    static const char *const keys[] = {"dtype", "torch_dtype"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        yyjson_mut_val *value = yyjson_mut_obj_get(object, keys[i]);
        if (value) yyjson_mut_set_str(value, "bfloat16");
    }
}

int describe_config(const struct source *source, const struct layout *layout,
                    enum layout_dialect dialect, struct str *out, struct imp_error *err) {
    yyjson_doc *config = NULL;
    int rc = json_read(source->config, strlen(source->config), "config.json", &config, err);
    if (rc < 0) return rc;
    yyjson_mut_doc *doc = yyjson_doc_mut_copy(config, NULL);
    yyjson_doc_free(config);
    yyjson_mut_val *root = yyjson_mut_doc_get_root(doc);
    if (!yyjson_mut_is_obj(root)) {
        yyjson_mut_doc_free(doc);
        return error_set(err, IMP_ERR_FILE, "config.json: $", "not an object");
    }
    set_element_type(root);
    yyjson_mut_val *text_config = yyjson_mut_obj_get(root, "text_config");
    if (yyjson_mut_is_obj(text_config)) set_element_type(text_config);
    yyjson_mut_obj_remove_key(root, "quantization_config"); /* gpt-oss's MXFP4 is gone */
    if (yyjson_mut_is_obj(text_config))
        yyjson_mut_obj_remove_key(text_config, "quantization_config");
    if (layout->quantized_count > 0) {
        struct str text = {0};
        if (dialect == LAYOUT_MODELOPT)
            add_modelopt(source, layout, &text);
        else
            add_compressed_tensors(source, layout, &text);
        yyjson_doc *quantization = yyjson_read(text.data, text.size, 0);
        check(quantization != NULL);
        yyjson_mut_val *value = yyjson_val_mut_copy(doc, yyjson_doc_get_root(quantization));
        yyjson_mut_obj_add_val(doc, root, "quantization_config", value);
        yyjson_doc_free(quantization);
        str_free(&text);
    }
    size_t bytes;
    char *json = yyjson_mut_write(doc, YYJSON_WRITE_PRETTY, &bytes);
    yyjson_mut_doc_free(doc);
    if (json == NULL) return error_memory(err, 0);
    str_add(out, json, bytes);
    str_add_char(out, '\n');
    free(json);
    return 0;
}
