/* imp inspect MODEL: the library's JSON as it is, or as tables. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/inspect_weights.h"
#include "cli/terminal.h"

static void print_value(const char *label, yyjson_val *value) {
    if (value == NULL) return;
    printf("%-22s ", label);
    if (yyjson_is_str(value))
        printf("%s\n", yyjson_get_str(value));
    else if (yyjson_is_bool(value))
        puts(yyjson_get_bool(value) ? "yes" : "no");
    else if (yyjson_is_real(value))
        printf("%.3f\n", yyjson_get_real(value));
    else if (yyjson_is_int(value))
        printf("%lld\n", (long long)yyjson_get_sint(value));
    else
        puts("");
}

static void print_bytes(const char *label, yyjson_val *value) {
    if (value == NULL) return;
    struct str text = {0};
    add_bytes_text(&text, yyjson_get_uint(value));
    printf("%-22s %12s\n", label, text.data);
    str_free(&text);
}

static long long number(yyjson_val *object, const char *key) {
    return (long long)yyjson_get_sint(yyjson_obj_get(object, key));
}

/* One line for each kind of mixer, where there are several. */
static void print_layer_kinds(yyjson_val *root) {
    yyjson_val *kinds = yyjson_obj_get(root, "layer_kinds"), *kind;
    size_t i, n;
    if (yyjson_arr_size(kinds) < 2) return;
    yyjson_arr_foreach(kinds, i, n, kind) {
        const bool gdn = yyjson_obj_get(kind, "value_heads") != NULL;
        printf("  %-20s %lld layers, ", gdn ? "gated delta net" : "attention",
               number(kind, "layers"));
        if (gdn) {
            printf("%lld key heads of %lld, %lld value heads of %lld\n", number(kind, "key_heads"),
                   number(kind, "key_dim"), number(kind, "value_heads"), number(kind, "value_dim"));
            continue;
        }
        printf("%lld heads, %lld of KV, of %lld", number(kind, "heads"), number(kind, "kv_heads"),
               number(kind, "head_dim"));
        if (number(kind, "window")) printf(", window of %lld tokens", number(kind, "window"));
        puts(yyjson_is_true(yyjson_obj_get(kind, "shares_kv")) ? ", KV of an earlier layer" : "");
    }
}

/* {"BF16": {"tensors": 3, "bytes": 100}, ...}: a line each. */
static void print_counts(yyjson_val *object) {
    yyjson_val *key, *entry;
    size_t i, n;
    yyjson_obj_foreach(object, i, n, key, entry) {
        struct str bytes = {0};
        add_bytes_text(&bytes, yyjson_get_uint(yyjson_obj_get(entry, "bytes")));
        printf("  %-20s %6llu tensors %12s\n", yyjson_get_str(key),
               (unsigned long long)yyjson_get_uint(yyjson_obj_get(entry, "tensors")), bytes.data);
        str_free(&bytes);
    }
}

static void print_summary(yyjson_val *root) {
    static const char *const rows[][2] = {
        {"path", "path"},
        {"model type", "model_type"},
        {"text model of", "wrapper"},
        {"runs here", "supported"},
        {"reason", "reason"},
        {"dialect", "dialect"},
        {"parameters", "parameters"},
        {"bits per weight", "bits_per_weight"},
        {"layers", "layers"},
        {"hidden size", "hidden_size"},
        {"heads", "heads"},
        {"KV heads", "kv_heads"},
        {"head size", "head_dim"},
        {"FFN width", "intermediate_size"},
        {"experts", "experts"},
        {"experts of a token", "experts_per_token"},
        {"expert width", "expert_intermediate_size"},
        {"shared expert width", "shared_expert_intermediate_size"},
        {"vocabulary", "vocab_size"},
        {"longest context", "max_context_tokens"},
        {"KV bytes per token", "kv_bytes_per_token"},
        {"files", "files"},
        {"tensors", "tensor_count"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        print_value(rows[i][0], yyjson_obj_get(root, rows[i][1]));
    print_layer_kinds(root);
    print_counts(yyjson_obj_get(root, "dtypes"));
    /* What they are for, where it is not the language model alone. */
    if (yyjson_obj_size(yyjson_obj_get(root, "roles")) > 1)
        print_counts(yyjson_obj_get(root, "roles"));
}

static void print_memory(yyjson_val *root) {
    yyjson_val *memory = yyjson_obj_get(root, "memory");
    if (memory == NULL) return;
    puts("\nmemory plan");
    print_value("  device", yyjson_obj_get(memory, "device"));
    print_value("  context tokens", yyjson_obj_get(memory, "context_tokens"));
    print_value("  sequences of a step", yyjson_obj_get(memory, "max_batch"));
    print_value("  prompt tokens of one", yyjson_obj_get(memory, "prefill_chunk"));
    printf("  %-20s %lld blocks of %lld tokens, %lld bytes each\n", "KV cache",
           number(memory, "kv_blocks"), number(memory, "kv_block_tokens"),
           number(memory, "kv_block_bytes"));
    if (number(memory, "window_bytes") + number(memory, "state_bytes") > 0)
        print_value("  kept sequences", yyjson_obj_get(memory, "sequences"));
    if (number(memory, "window_bytes") > 0)
        printf("  %-20s %lld tokens: %lld blocks a sequence, %lld bytes each\n", "window",
               number(memory, "window_tokens"), number(memory, "window_blocks_per_sequence"),
               number(memory, "window_block_bytes"));
    if (number(memory, "state_bytes") > 0)
        printf("  %-20s %lld bytes a sequence\n", "recurrent state",
               number(memory, "state_bytes_per_sequence"));
    print_bytes("  weights", yyjson_obj_get(memory, "weight_bytes"));
    print_bytes("+ KV cache", yyjson_obj_get(memory, "kv_bytes"));
    if (number(memory, "window_bytes") > 0)
        print_bytes("+ KV of windows", yyjson_obj_get(memory, "window_bytes"));
    if (number(memory, "state_bytes") > 0)
        print_bytes("+ recurrent state", yyjson_obj_get(memory, "state_bytes"));
    print_bytes("+ activations", yyjson_obj_get(memory, "activation_bytes"));
    print_bytes("+ scratch", yyjson_obj_get(memory, "scratch_bytes"));
    print_bytes("= total", yyjson_obj_get(memory, "total_bytes"));
    print_value("  fits this machine", yyjson_obj_get(memory, "fits"));
}

static void print_tensors(yyjson_val *root) {
    yyjson_val *tensors = yyjson_obj_get(root, "tensors"), *tensor, *size;
    size_t i, n, d, dims;
    if (yyjson_arr_size(tensors) == 0) return;
    printf("\n%-60s %-8s %-20s %12s\n", "tensor", "dtype", "shape", "bytes");
    yyjson_arr_foreach(tensors, i, n, tensor) {
        struct str shape = {0};
        str_add_char(&shape, '[');
        yyjson_arr_foreach(yyjson_obj_get(tensor, "shape"), d, dims, size)
            str_printf(&shape, "%s%lld", d ? ", " : "", (long long)yyjson_get_sint(size));
        str_add_char(&shape, ']');
        printf("%-60s %-8s %-20s %12llu\n", yyjson_get_str(yyjson_obj_get(tensor, "name")),
               yyjson_get_str(yyjson_obj_get(tensor, "dtype")), shape.data,
               (unsigned long long)yyjson_get_uint(yyjson_obj_get(tensor, "bytes")));
        str_free(&shape);
    }
}

static void print_tables(const struct options *options, yyjson_val *root) {
    bool tensors = options_flag(options, OPT_TENSORS), memory = options_flag(options, OPT_MEMORY);
    if (!tensors && !memory) print_summary(root);
    if (!tensors || memory) print_memory(root);
    if (!memory || tensors) print_tensors(root);
}

static int check_options(const struct options *options, imp_error *err) {
    static const enum option_id needy[] = {OPT_OTHER_MODEL, OPT_CSV};
    if (options_flag(options, OPT_WEIGHTS)) return 0;
    for (size_t i = 0; i < sizeof needy / sizeof *needy; i++) {
        if (options_given(options, needy[i]))
            return error_set(err, IMP_ERR_USAGE, NULL, "--%s needs --weights",
                             option_table[needy[i]].name);
    }
    return 0;
}

int command_inspect(struct options *options, imp_error *err) {
    struct str path = {0};
    char *json = NULL;
    yyjson_doc *doc = NULL;
    int rc = check_options(options, err);
    if (rc == 0) rc = model_path(options->arguments[0], &path, err);
    if (rc == 0 && options_flag(options, OPT_WEIGHTS)) {
        rc = inspect_weights(options, path.data, err);
        str_free(&path);
        return rc;
    }
    if (rc == 0) rc = imp_inspect(path.data, options->engine, &json, err);
    if (json && options_flag(options, OPT_JSON)) {
        puts(json);
    } else if (json && json_read(json, strlen(json), "inspection", &doc, NULL) == 0) {
        print_tables(options, yyjson_doc_get_root(doc));
        yyjson_doc_free(doc);
    }
    imp_free(json);
    str_free(&path);
    return rc;
}
