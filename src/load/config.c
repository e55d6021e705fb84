#include "load/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"
#include "load/consolidated.h"
#include "load/folder.h"

/* A field and how to name it: the object may be the text model's, the wrapper's, or a member. */
struct field {
    yyjson_val *value; /* NULL: absent or null */
    char place[sizeof(((struct imp_error *)0)->where)];
};

static yyjson_val *member(yyjson_val *object, const char *key) {
    yyjson_val *value = yyjson_obj_get(object, key);
    return yyjson_is_null(value) ? NULL : value;
}

bool config_is_null(const struct config *config, const char *key) {
    yyjson_val *value = yyjson_obj_get(config->text, key);
    if (value == NULL) value = yyjson_obj_get(config->top, key);
    return yyjson_is_null(value);
}

/* A null in text_config counts as absent: transformers writes it for every field left unset. */
static struct field find(const struct config *config, const char *key) {
    struct field f = {.value = member(config->text, key)};
    bool inner = f.value != NULL && config->text != config->top;
    if (f.value == NULL) f.value = member(config->top, key);
    error_place(f.place, config->path, "$.%s%s", inner ? "text_config." : "", key);
    return f;
}

static int to_int(const struct field *f, int64_t min, int64_t max, int64_t *out,
                  struct imp_error *err) {
    bool huge = yyjson_is_uint(f->value) && yyjson_get_uint(f->value) > INT64_MAX;
    if (!yyjson_is_int(f->value))
        return error_set(err, IMP_ERR_FILE, f->place, "is not an integer; %lld to %lld is allowed",
                         (long long)min, (long long)max);
    int64_t value = yyjson_get_sint(f->value);
    if (huge || value < min || value > max)
        return error_set(err, IMP_ERR_FILE, f->place, "is out of range; %lld to %lld is allowed",
                         (long long)min, (long long)max);
    *out = value;
    return 0;
}

static int to_float(const struct field *f, double min, double max, double *out,
                    struct imp_error *err) {
    if (!yyjson_is_num(f->value)) return error_set(err, IMP_ERR_FILE, f->place, "is not a number");
    double value = yyjson_get_num(f->value);
    if (!isfinite(value) || value < min || value > max)
        return error_set(err, IMP_ERR_FILE, f->place, "is out of range; %g to %g is allowed", min,
                         max);
    *out = value;
    return 0;
}

static int to_string(const struct field *f, const char **out, struct imp_error *err) {
    if (!yyjson_is_str(f->value)) return error_set(err, IMP_ERR_FILE, f->place, "is not a string");
    if (strlen(yyjson_get_str(f->value)) != yyjson_get_len(f->value))
        return error_set(err, IMP_ERR_FILE, f->place, "is a string with a zero byte inside");
    *out = yyjson_get_str(f->value);
    return 0;
}

static int to_bool(const struct field *f, bool *out, struct imp_error *err) {
    if (!yyjson_is_bool(f->value))
        return error_set(err, IMP_ERR_FILE, f->place, "is neither true nor false");
    *out = yyjson_get_bool(f->value);
    return 0;
}

yyjson_val *config_get(const struct config *config, const char *key) {
    return find(config, key).value;
}

int config_int(const struct config *config, const char *key, int64_t min, int64_t max,
               int64_t absent, int64_t *out, struct imp_error *err) {
    struct field f = find(config, key);
    if (f.value) return to_int(&f, min, max, out, err);
    *out = absent;
    return 0;
}

int config_required_int(const struct config *config, const char *key, int64_t min, int64_t max,
                        int64_t *out, struct imp_error *err) {
    struct field f = find(config, key);
    if (f.value) return to_int(&f, min, max, out, err);
    return error_set(err, IMP_ERR_FILE, f.place,
                     "is missing; an integer from %lld to %lld is "
                     "needed",
                     (long long)min, (long long)max);
}

int config_float(const struct config *config, const char *key, double min, double max,
                 double absent, double *out, struct imp_error *err) {
    struct field f = find(config, key);
    if (f.value) return to_float(&f, min, max, out, err);
    *out = absent;
    return 0;
}

int config_bool(const struct config *config, const char *key, bool absent, bool *out,
                struct imp_error *err) {
    struct field f = find(config, key);
    if (f.value) return to_bool(&f, out, err);
    *out = absent;
    return 0;
}

int config_string(const struct config *config, const char *key, const char *absent,
                  const char **out, struct imp_error *err) {
    struct field f = find(config, key);
    if (f.value) return to_string(&f, out, err);
    *out = absent;
    return 0;
}

int config_member_int(yyjson_val *object, const char *path, const char *key, int64_t min,
                      int64_t max, int64_t absent, int64_t *out, struct imp_error *err) {
    struct field f = {.value = member(object, key)};
    snprintf(f.place, sizeof f.place, "config.json: %s.%s", path, key);
    if (f.value) return to_int(&f, min, max, out, err);
    *out = absent;
    return 0;
}

int config_member_float(yyjson_val *object, const char *path, const char *key, double min,
                        double max, double absent, double *out, struct imp_error *err) {
    struct field f = {.value = member(object, key)};
    snprintf(f.place, sizeof f.place, "config.json: %s.%s", path, key);
    if (f.value) return to_float(&f, min, max, out, err);
    *out = absent;
    return 0;
}

int config_only_bool(const struct config *config, const char *key, bool only,
                     struct imp_error *err) {
    struct field f = find(config, key);
    bool value = only;
    int rc = f.value ? to_bool(&f, &value, err) : 0;
    if (rc < 0 || value == only) return rc;
    return error_set(err, IMP_ERR_UNSUPPORTED, f.place, "is %s; only %s is supported",
                     value ? "true" : "false", only ? "true" : "false");
}

int config_only_string(const struct config *config, const char *key, const char *only,
                       struct imp_error *err) {
    struct field f = find(config, key);
    const char *value = only;
    int rc = f.value ? to_string(&f, &value, err) : 0;
    if (rc < 0 || strcmp(value, only) == 0) return rc;
    return error_set(err, IMP_ERR_UNSUPPORTED, f.place, "is \"%.100s\"; only \"%s\" is supported",
                     value, only);
}

struct ids {
    int32_t *out;
    size_t cap, *count;
    int64_t vocab;
};

static int add_id(struct ids *ids, yyjson_val *value, const char *place, struct imp_error *err) {
    struct field f = {.value = value};
    int64_t id;
    snprintf(f.place, sizeof f.place, "%s", place);
    int rc = to_int(&f, 0, ids->vocab - 1, &id, err);
    if (rc < 0) return rc;
    for (size_t i = 0; i < *ids->count; i++) {
        if (ids->out[i] == id) return 0;
    }
    if (*ids->count == ids->cap)
        return error_set(err, IMP_ERR_FILE, place, "more than %zu end tokens", ids->cap);
    ids->out[(*ids->count)++] = (int32_t)id;
    return 0;
}

/* An id, a list of ids, or a list of lists. */
static int add_ids(struct ids *ids, yyjson_val *object, const char *place, struct imp_error *err) {
    yyjson_val *value = member(object, "eos_token_id"), *item, *inner;
    if (value == NULL) return 0;
    if (!yyjson_is_arr(value)) return add_id(ids, value, place, err);
    size_t i, n, j, m;
    yyjson_arr_foreach(value, i, n, item) {
        int rc = 0;
        if (yyjson_is_arr(item)) {
            yyjson_arr_foreach(item, j, m, inner) {
                if (rc == 0) rc = add_id(ids, inner, place, err);
            }
        } else {
            rc = add_id(ids, item, place, err);
        }
        if (rc < 0) return rc;
    }
    return 0;
}

int config_eos_ids(const struct config *config, int64_t vocab, int32_t *out, size_t cap,
                   size_t *count, struct imp_error *err) {
    struct ids ids = {out, cap, count, vocab};
    char place[sizeof err->where];
    *count = 0;
    error_place(place, config->path, "$.eos_token_id");
    int rc = add_ids(&ids, config->top, place, err);
    if (rc == 0 && config->text != config->top) {
        error_place(place, config->path, "$.text_config.eos_token_id");
        rc = add_ids(&ids, config->text, place, err);
    }
    if (rc == 0 && config->generation) {
        yyjson_val *root = yyjson_doc_get_root(config->generation);
        rc = add_ids(&ids, root, "generation_config.json: $.eos_token_id", err);
    }
    return rc;
}

/* The root object of a checked document. */
static int root_object(yyjson_doc *doc, const char *name, yyjson_val **out, struct imp_error *err) {
    *out = yyjson_doc_get_root(doc);
    if (yyjson_is_obj(*out)) return 0;
    return error_set(err, IMP_ERR_FILE, name, "is not a JSON object");
}

static int find_types(struct config *config, struct imp_error *err) {
    struct field type = find(config, "model_type");
    if (type.value == NULL) return error_set(err, IMP_ERR_FILE, type.place, "is missing");
    int rc = to_string(&type, &config->model_type, err);
    if (rc < 0) return rc;
    struct field top = {.value = member(config->top, "model_type")};
    config->top_type = config->model_type;
    error_place(top.place, config->path, "$.model_type");
    return top.value ? to_string(&top, &config->top_type, err) : 0;
}

static int bind(struct config *config, struct imp_error *err) {
    int rc = root_object(config->doc, config->path, &config->top, err);
    if (rc < 0) return rc;
    config->text = config->top;
    yyjson_val *text = member(config->top, "text_config");
    if (text != NULL && !yyjson_is_obj(text)) {
        char place[sizeof err->where];
        error_place(place, config->path, "$.text_config");
        return error_set(err, IMP_ERR_FILE, place, "is not an object");
    }
    if (text != NULL) config->text = text;
    return find_types(config, err);
}

int config_parse(const char *json, size_t size, const char *name, struct config *out,
                 struct imp_error *err) {
    *out = (struct config){.path = mem_strndup(name, strlen(name))};
    int rc = json_read(json, size, name, &out->doc, err);
    if (rc == 0) rc = bind(out, err);
    if (rc < 0) config_close(out);
    return rc;
}

/* A neighbour of config.json that may be missing. */
static int read_neighbour(const char *folder, const char *name, yyjson_doc **doc,
                          struct imp_error *err) {
    if (!folder_has(folder, name)) return 0;
    char *path = NULL;
    yyjson_val *root;
    int rc = folder_path(folder, name, &path, err);
    if (rc == 0) rc = json_read_file(path, CAP_CONFIG_BYTES, doc, err);
    if (rc == 0) rc = root_object(*doc, path, &root, err);
    free(path);
    return rc;
}

/* Mistral's own folders: their params.json is made into the text of a config.json. */
static int read_params(const char *folder, struct config *out, struct imp_error *err) {
    struct str params = {0}, config = {0};
    int rc = folder_path(folder, "params.json", &out->path, err);
    if (rc == 0) rc = file_read(out->path, CAP_CONFIG_BYTES, &params, err);
    if (rc == 0) rc = consolidated_config(params.data, params.size, out->path, &config, err);
    if (rc == 0) rc = json_read(config.data, config.size, out->path, &out->doc, err);
    str_free(&params);
    str_free(&config);
    return rc;
}

static int read_main(const char *folder, struct config *out, struct imp_error *err) {
    if (!folder_has(folder, "config.json") && folder_has(folder, "params.json"))
        return read_params(folder, out, err);
    int rc = folder_path(folder, "config.json", &out->path, err);
    return rc < 0 ? rc : json_read_file(out->path, CAP_CONFIG_BYTES, &out->doc, err);
}

int config_open(const char *folder, struct config *out, struct imp_error *err) {
    *out = (struct config){0};
    int rc = read_main(folder, out, err);
    if (rc == 0) rc = bind(out, err);
    if (rc == 0) rc = read_neighbour(folder, "generation_config.json", &out->generation, err);
    if (rc == 0) rc = read_neighbour(folder, "hf_quant_config.json", &out->quant, err);
    if (rc < 0) config_close(out);
    return rc;
}

void config_close(struct config *config) {
    yyjson_doc_free(config->doc);
    yyjson_doc_free(config->generation);
    yyjson_doc_free(config->quant);
    free(config->path);
    *config = (struct config){0};
}
