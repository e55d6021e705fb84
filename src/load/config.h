/* config.json and its neighbours, read once, with getters that check range and name the field.
 *
 * Owns the JSON documents until config_close. A wrapped multimodal model keeps its text model's
 * fields under `text_config`: getters look there first, then at the top. Immutable; any thread. */
#ifndef IMP_LOAD_CONFIG_H
#define IMP_LOAD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"

struct config {
    char *path;             /* of config.json, for messages */
    yyjson_doc *doc;        /* config.json */
    yyjson_doc *generation; /* generation_config.json, or NULL */
    yyjson_doc *quant;      /* hf_quant_config.json, or NULL */
    yyjson_val *top, *text; /* objects; text == top where there is no text_config */
    const char *model_type; /* of the text model */
    const char *top_type;   /* of the wrapper; equal to model_type where there is none */
};

int config_open(const char *folder, struct config *out, struct imp_error *err);
/* config.json from memory alone: what tests and the fuzzer call. */
int config_parse(const char *json, size_t size, const char *name, struct config *out,
                 struct imp_error *err);
void config_close(struct config *config); /* zeroed is fine */

/* The field as found (text_config first), or NULL if absent or null. */
yyjson_val *config_get(const struct config *config, const char *key);

/* Whether the field is there and null, where that differs from absent. */
bool config_is_null(const struct config *config, const char *key);

/* Each returns 0 and the value, the default if the field is absent or null, or IMP_ERR_FILE with
 * "config.json: $.key" and the range. Integers are exact: 1.5, 1e3 and "4" are errors. */
int config_int(const struct config *config, const char *key, int64_t min, int64_t max,
               int64_t absent, int64_t *out, struct imp_error *err);
int config_required_int(const struct config *config, const char *key, int64_t min, int64_t max,
                        int64_t *out, struct imp_error *err);
int config_float(const struct config *config, const char *key, double min, double max,
                 double absent, double *out, struct imp_error *err); /* finite */
int config_bool(const struct config *config, const char *key, bool absent, bool *out,
                struct imp_error *err);
/* *out borrows from the document. */
int config_string(const struct config *config, const char *key, const char *absent,
                  const char **out, struct imp_error *err);
/* The same two for a member of any object, `path` naming it for the message ("$.rope_scaling"). */
int config_member_int(yyjson_val *object, const char *path, const char *key, int64_t min,
                      int64_t max, int64_t absent, int64_t *out, struct imp_error *err);
int config_member_float(yyjson_val *object, const char *path, const char *key, double min,
                        double max, double absent, double *out, struct imp_error *err);

/* Refuses (IMP_ERR_UNSUPPORTED) a field whose value is set and is not `only`; absent is fine. */
int config_only_bool(const struct config *config, const char *key, bool only,
                     struct imp_error *err);
int config_only_string(const struct config *config, const char *key, const char *only,
                       struct imp_error *err);

/* eos_token_id of config.json and generation_config.json, united: out[cap], *count. Also a nested
 * list. Each in [0, vocab). */
int config_eos_ids(const struct config *config, int64_t vocab, int32_t *out, size_t cap,
                   size_t *count, struct imp_error *err);

#endif
