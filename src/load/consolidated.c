#include "load/consolidated.h"

#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "num/nvfp4.h"

/* ---- params.json ---- */

enum kind { COUNT, NUMBER, FLAG, ONLY_FALSE, ONLY_TRUE, OTHER };

/* NULL: nothing to write. OTHER: read below, or of no effect on text. */
static const struct key {
    const char *name, *config;
    enum kind kind;
    bool required;
} KEYS[] = {
    {"dim", "hidden_size", COUNT, true},
    {"n_layers", "num_hidden_layers", COUNT, true},
    {"n_heads", "num_attention_heads", COUNT, true},
    {"n_kv_heads", "num_key_value_heads", COUNT, true},
    {"head_dim", "head_dim", COUNT, true},
    {"hidden_dim", "intermediate_size", COUNT, true},
    {"vocab_size", "vocab_size", COUNT, true},
    {"norm_eps", "rms_norm_eps", NUMBER, true},
    {"rope_theta", "rope_theta", NUMBER, true},
    {"max_position_embeddings", "max_position_embeddings", COUNT, false},
    {"max_seq_len", "max_position_embeddings", COUNT, false},
    {"tied_embeddings", "tie_word_embeddings", FLAG, false},
    {"use_biases", NULL, ONLY_FALSE, false},
    {"causal", NULL, ONLY_TRUE, false},
    {"model_type", NULL, OTHER, false},
    {"max_batch_size", NULL, OTHER, false},
    {"vision_encoder", NULL, OTHER, false}, /* images are not read */
    {"multimodal", NULL, OTHER, false},
    {"sliding_window", NULL, OTHER, false},
    {"quantization", NULL, OTHER, false},
    {"quantization_config", NULL, OTHER, false},
};
enum { KEY_COUNT = sizeof KEYS / sizeof *KEYS };

static int fail_key(const char *file, const char *key, int code, const char *what,
                    struct imp_error *err) {
    char place[sizeof err->where];
    error_place(place, file, "$.%.80s", key);
    return error_set(err, code, place, "%s", what);
}

static int write_key(struct str *out, const struct key *key, yyjson_val *value, const char *file,
                     struct imp_error *err) {
    switch (key->kind) {
    case COUNT:
        if (!yyjson_is_uint(value) || yyjson_get_uint(value) > INT32_MAX)
            return fail_key(file, key->name, IMP_ERR_FILE, "is not a count", err);
        str_printf(out, ",\"%s\":%llu", key->config, (unsigned long long)yyjson_get_uint(value));
        return 0;
    case NUMBER:
        if (!yyjson_is_num(value))
            return fail_key(file, key->name, IMP_ERR_FILE, "is not a number", err);
        str_printf(out, ",\"%s\":%.17g", key->config, yyjson_get_num(value));
        return 0;
    case FLAG:
        if (!yyjson_is_bool(value))
            return fail_key(file, key->name, IMP_ERR_FILE, "is neither true nor false", err);
        str_printf(out, ",\"%s\":%s", key->config, yyjson_get_bool(value) ? "true" : "false");
        return 0;
    case ONLY_FALSE:
    case ONLY_TRUE:
        if (yyjson_is_bool(value) && yyjson_get_bool(value) == (key->kind == ONLY_TRUE)) return 0;
        return fail_key(
            file, key->name, IMP_ERR_UNSUPPORTED,
            key->kind == ONLY_TRUE ? "only true is supported" : "only false is supported", err);
    case OTHER:
        break;
    }
    return 0;
}

/* Absent means none here, where config.json's own default is a window. */
static int write_window(struct str *out, yyjson_val *value, const char *file,
                        struct imp_error *err) {
    if (value == NULL || yyjson_is_null(value)) {
        str_add_text(out, ",\"sliding_window\":null");
        return 0;
    }
    static const struct key key = {"sliding_window", "sliding_window", COUNT, false};
    return write_key(out, &key, value, file, err);
}

/* The tensors decide how weights are stored; this only repeats what is declared. */
static void write_quantization(struct str *out, yyjson_val *root) {
    yyjson_val *config = yyjson_obj_get(root, "quantization_config");
    const char *format =
        yyjson_get_str(yyjson_obj_get(yyjson_obj_get(root, "quantization"), "qformat_weight"));
    char *text = yyjson_is_obj(config) ? yyjson_val_write(config, 0, NULL) : NULL;
    if (text)
        str_printf(out, ",\"quantization_config\":%s", text);
    else if (format && strcmp(format, "fp8_e4m3") == 0)
        str_add_text(out, ",\"quantization_config\":{\"quant_method\":\"fp8\"}");
    free(text);
}

static const struct key *find_key(yyjson_val *name) {
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (yyjson_equals_str(name, KEYS[i].name)) return &KEYS[i];
    }
    return NULL;
}

static int write_all(yyjson_val *root, const char *file, struct str *out, struct imp_error *err) {
    bool context = false;
    int rc = 0;
    yyjson_val *name;
    yyjson_obj_iter iter = yyjson_obj_iter_with(root);
    str_add_text(out, "{\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\"");
    while (rc == 0 && (name = yyjson_obj_iter_next(&iter)) != NULL) {
        yyjson_val *value = yyjson_obj_iter_get_val(name);
        const struct key *key = find_key(name);
        if (yyjson_is_null(value)) continue;
        if (key == NULL)
            return fail_key(file, yyjson_get_str(name), IMP_ERR_UNSUPPORTED,
                            "is not known, and may change what the model computes", err);
        bool length = key->config && strcmp(key->config, "max_position_embeddings") == 0;
        if (length && context) continue; /* both spellings */
        context |= length;
        rc = write_key(out, key, value, file, err);
    }
    for (size_t i = 0; rc == 0 && i < KEY_COUNT; i++) {
        yyjson_val *value = yyjson_obj_get(root, KEYS[i].name);
        if (KEYS[i].required && (value == NULL || yyjson_is_null(value)))
            rc = fail_key(file, KEYS[i].name, IMP_ERR_FILE, "is missing", err);
    }
    if (rc == 0) rc = write_window(out, yyjson_obj_get(root, "sliding_window"), file, err);
    if (rc == 0) write_quantization(out, root);
    str_add_text(out, "}");
    return rc;
}

int consolidated_config(const char *json, size_t size, const char *name, struct str *out,
                        struct imp_error *err) {
    yyjson_doc *doc;
    int rc = json_read(json, size, name, &doc, err);
    if (rc < 0) return rc;
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (yyjson_is_obj(root))
        rc = write_all(root, name, out, err);
    else
        rc = error_set(err, IMP_ERR_FILE, name, "is not a JSON object");
    yyjson_doc_free(doc);
    if (rc < 0) str_clear(out);
    return rc;
}

/* ---- names ---- */

struct rename {
    const char *from, *to;
};

static const struct rename OUTER[] = {
    {"tok_embeddings.", "model.embed_tokens."},
    {"norm.", "model.norm."},
    {"output.", "lm_head."},
};

static const struct rename INNER[] = {
    {"attention.wq.", "self_attn.q_proj."},  {"attention.wk.", "self_attn.k_proj."},
    {"attention.wv.", "self_attn.v_proj."},  {"attention.wo.", "self_attn.o_proj."},
    {"attention_norm.", "input_layernorm."}, {"ffn_norm.", "post_attention_layernorm."},
    {"feed_forward.w1.", "mlp.gate_proj."},  {"feed_forward.w2.", "mlp.down_proj."},
    {"feed_forward.w3.", "mlp.up_proj."},
};

/* Both are multipliers. */
static const struct rename ENDS[] = {{"qscale_weight", "weight_scale"},
                                     {"qscale_act", "input_scale"}};

#define COUNT_OF(list) (sizeof(list) / sizeof *(list))

static const struct rename *match(const struct rename *list, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++) {
        if (strncmp(name, list[i].from, strlen(list[i].from)) == 0) return &list[i];
    }
    return NULL;
}

static const char *usual_end(const char *end) {
    for (size_t i = 0; i < COUNT_OF(ENDS); i++) {
        if (strcmp(end, ENDS[i].from) == 0) return ENDS[i].to;
    }
    return end;
}

static const char *usual_name(struct arena *arena, const char *name) {
    static const char layers[] = "layers.";
    const struct rename *r = match(OUTER, COUNT_OF(OUTER), name);
    if (r) return arena_printf(arena, "%s%s", r->to, usual_end(name + strlen(r->from)));
    if (strncmp(name, layers, sizeof layers - 1) != 0) return name;
    const char *number = name + sizeof layers - 1;
    size_t digits = strspn(number, "0123456789");
    if (digits == 0 || number[digits] != '.') return name;
    const char *rest = number + digits + 1;
    r = match(INNER, COUNT_OF(INNER), rest);
    if (r == NULL) return name;
    return arena_printf(arena, "model.layers.%.*s.%s%s", (int)digits, number, r->to,
                        usual_end(rest + strlen(r->from)));
}

void consolidated_rename(struct checkpoint *ck) {
    for (size_t i = 0; i < ck->tensor_count; i++)
        ck->tensors[i]->name = usual_name(&ck->arena, ck->tensors[i]->name);
}

/* ---- the order of rows ---- */

bool consolidated_is_rotated(const char *module) {
    struct slice name = slice_of(module);
    return slice_ends(name, ".self_attn.q_proj") || slice_ends(name, ".self_attn.k_proj");
}

int consolidated_head_rows(const struct config *config, int64_t *out, struct imp_error *err) {
    int64_t hidden, heads;
    int rc = config_required_int(config, "hidden_size", 1, CAP_HIDDEN, &hidden, err);
    if (rc == 0) rc = config_required_int(config, "num_attention_heads", 1, CAP_HEADS, &heads, err);
    if (rc < 0) return rc;
    return config_int(config, "head_dim", 1, CAP_HIDDEN, hidden / heads, out, err);
}

static void reorder(const uint8_t *in, int64_t rows, size_t row_bytes, int64_t head, uint8_t *out) {
    for (int64_t r = 0; r < rows; r++) {
        int64_t in_head = r % head, half = head / 2;
        int64_t from = r - in_head + (in_head < half ? 2 * in_head : 2 * (in_head - half) + 1);
        memcpy(out + (size_t)r * row_bytes, in + (size_t)from * row_bytes, row_bytes);
    }
}

static const void *reordered(struct checkpoint *ck, const void *in, const struct weight *w,
                             int64_t row_bytes) {
    uint8_t *copy = arena_alloc(&ck->arena, (size_t)(w->rows * row_bytes));
    reorder(in, w->rows, (size_t)row_bytes, ck->head_rows, copy);
    return copy;
}

static int64_t row_bytes(const struct weight *w) {
    switch (w->format) {
    case WEIGHT_F32:
        return w->cols * 4;
    case WEIGHT_F16:
    case WEIGHT_BF16:
        return w->cols * 2;
    case WEIGHT_FP8:
        return w->cols;
    case WEIGHT_NVFP4:
    case WEIGHT_MXFP4:
        break;
    }
    return w->cols / 2;
}

int consolidated_rotate(struct checkpoint *ck, struct weight *w, struct imp_error *err) {
    char place[sizeof err->where];
    error_place(place, ck->path, "module %s", w->name);
    if (ck->head_rows % 2 != 0 || w->rows % ck->head_rows != 0)
        return error_set(err, IMP_ERR_FILE, place, "%lld rows are not whole heads of %lld",
                         (long long)w->rows, (long long)ck->head_rows);
    if (w->scale && w->scale_rows > 1 && w->scale_rows % ck->head_rows != 0)
        return error_set(err, IMP_ERR_UNSUPPORTED, place,
                         "scales of %lld rows across heads of %lld are not supported",
                         (long long)w->scale_rows, (long long)ck->head_rows);
    w->data = reordered(ck, w->data, w, row_bytes(w));
    if (w->block_scale)
        w->block_scale =
            reordered(ck, w->block_scale, w,
                      w->cols / (w->format == WEIGHT_NVFP4 ? NVFP4_BLOCK : MXFP4_BLOCK));
    if (w->scale && w->scale_rows == 1) {
        int64_t per_row = (w->cols + w->scale_cols - 1) / w->scale_cols;
        w->scale = reordered(ck, w->scale, w, per_row * (int64_t)sizeof *w->scale);
    }
    return 0;
}
