/* Keys of a GGUF file, read with a range and a name for the error. */
#include <stdio.h>

#include "base/error.h"
#include "load/gguf_import_internal.h"

int gguf_key_error(const struct gguf *g, const char *key, int code, struct imp_error *err,
                   const char *fmt, ...) {
    char place[sizeof err->where], message[sizeof err->message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    error_place(place, g->path, "key %s", key);
    return error_set(err, code, place, "%s", message);
}

int gguf_key_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t absent,
                 int64_t *out, struct imp_error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (v == NULL) {
        if (absent < min) return gguf_key_error(g, key, IMP_ERR_FILE, err, "is missing");
        *out = absent;
        return 0;
    }
    if (v->kind == GGUF_KIND_ARRAY)
        return gguf_key_error(g, key, IMP_ERR_UNSUPPORTED, err, "one number per layer");
    if (v->kind != GGUF_KIND_UINT && v->kind != GGUF_KIND_INT)
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "must be a whole number");
    bool fits = v->kind == GGUF_KIND_INT ? v->i >= min && v->i <= max
                                         : v->u <= (uint64_t)max && (int64_t)v->u >= min;
    if (!fits)
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "must be from %lld to %lld",
                              (long long)min, (long long)max);
    *out = v->kind == GGUF_KIND_INT ? v->i : (int64_t)v->u;
    return 0;
}

int gguf_key_float(const struct gguf *g, const char *key, double min, double max, double absent,
                   double *out, struct imp_error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (v == NULL) {
        if (absent < min) return gguf_key_error(g, key, IMP_ERR_FILE, err, "is missing");
        *out = absent;
        return 0;
    }
    if (v->kind != GGUF_KIND_FLOAT || !(v->f >= min && v->f <= max))
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "must be a number from %g to %g", min,
                              max);
    *out = v->f;
    return 0;
}

int gguf_key_bool(const struct gguf *g, const char *key, bool absent, bool *out,
                  struct imp_error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    *out = absent;
    if (v == NULL) return 0;
    if (v->kind != GGUF_KIND_BOOL)
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "must be true or false");
    *out = v->b;
    return 0;
}

int gguf_key_string(const struct gguf *g, const char *key, struct slice *out,
                    struct imp_error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    *out = (struct slice){0};
    if (v == NULL) return 0;
    if (v->kind != GGUF_KIND_STRING)
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "must be a string");
    if (!utf8_valid(v->s.data, v->s.size))
        return gguf_key_error(g, key, IMP_ERR_FILE, err, "is not UTF-8");
    *out = v->s;
    return 0;
}
