/* Frequency tables of the rope variants. Equations: transformers modeling_rope_utils (its fp32
 * inv_freq is 1 / theta^(2i/d); computed here in double and rounded once). */
#include <math.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "model/families/families.h"

static const double PI = 3.14159265358979323846;

struct rope_source {
    const struct config *config;
    yyjson_val *object; /* rope_scaling or rope_parameters; NULL: none */
    const char *path;   /* "$.rope_scaling" */
    double theta;
};

static int member(const struct rope_source *s, const char *key, double min, double max,
                  double absent, double *out, struct imp_error *err) {
    return config_member_float(s->object, s->path, key, min, max, absent, out, err);
}

/* The length the model was trained at before its context was stretched. */
static int original_context(const struct rope_source *s, int64_t *out, struct imp_error *err) {
    int64_t context;
    int rc = config_int(s->config, "max_position_embeddings", 1, CAP_CONTEXT, 2048, &context, err);
    if (rc < 0) return rc;
    return config_member_int(s->object, s->path, "original_max_position_embeddings", 1, CAP_CONTEXT,
                             context, out, err);
}

static int scale_llama3(const struct rope_source *s, double *f, int pairs, struct imp_error *err) {
    double factor, low, high;
    int64_t original;
    int rc;
    if ((rc = member(s, "factor", 1, 1e6, 8, &factor, err)) < 0 ||
        (rc = member(s, "low_freq_factor", 1e-3, 1e6, 1, &low, err)) < 0 ||
        (rc = member(s, "high_freq_factor", 1e-3, 1e6, 4, &high, err)) < 0 ||
        (rc = original_context(s, &original, err)) < 0)
        return rc;
    if (high <= low)
        return error_set(err, IMP_ERR_FILE, s->config->path,
                         "%s: high_freq_factor must exceed low_freq_factor", s->path);
    for (int i = 0; i < pairs; i++) {
        double wavelength = 2 * PI / f[i];
        if (wavelength < (double)original / high) continue;
        if (wavelength > (double)original / low) {
            f[i] /= factor;
        } else {
            double t = ((double)original / wavelength - low) / (high - low);
            f[i] = (1 - t) * f[i] / factor + t * f[i];
        }
    }
    return 0;
}

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

/* Without a factor: how far max_position_embeddings reaches past the original context. */
static int yarn_factor(const struct rope_source *s, double *out, struct imp_error *err) {
    int64_t original, context;
    int rc;
    if ((rc = original_context(s, &original, err)) < 0 ||
        (rc = config_int(s->config, "max_position_embeddings", 1, CAP_CONTEXT, original, &context,
                         err)) < 0)
        return rc;
    return member(s, "factor", 1e-3, 1e6, (double)context / (double)original, out, err);
}

static int scale_yarn(const struct rope_source *s, double *f, int pairs, float *amplitude,
                      struct imp_error *err) {
    double factor, fast, slow, attention, mscale, mscale_all;
    int64_t original;
    int rc;
    if ((rc = yarn_factor(s, &factor, err)) < 0 ||
        (rc = member(s, "beta_fast", 1e-3, 1e6, 32, &fast, err)) < 0 ||
        (rc = member(s, "beta_slow", 1e-3, 1e6, 1, &slow, err)) < 0 ||
        (rc = member(s, "attention_factor", 0, 1e3, 0, &attention, err)) < 0 ||
        (rc = member(s, "mscale", 0, 1e3, 0, &mscale, err)) < 0 ||
        (rc = member(s, "mscale_all_dim", 0, 1e3, 0, &mscale_all, err)) < 0 ||
        (rc = original_context(s, &original, err)) < 0)
        return rc;
    const double dims = 2.0 * pairs, log_theta = log(s->theta);
    double low = dims * log((double)original / (fast * 2 * PI)) / (2 * log_theta);
    double high = dims * log((double)original / (slow * 2 * PI)) / (2 * log_theta);
    yyjson_val *truncate = yyjson_obj_get(s->object, "truncate");
    if (!yyjson_is_false(truncate)) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, dims - 1);
    if (low == high) high += 0.001;
    for (int i = 0; i < pairs; i++) {
        double ramp = fmin(fmax((i - low) / (high - low), 0), 1);
        f[i] = f[i] / factor * ramp + f[i] * (1 - ramp);
    }
    if (attention > 0) {
        *amplitude = (float)attention;
    } else if (mscale > 0 && mscale_all > 0) {
        *amplitude = (float)(yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all));
    } else {
        *amplitude = (float)yarn_mscale(factor, 1);
    }
    return 0;
}

/* Dispatches on rope_type ("type" is its old name). */
static int scale(const struct rope_source *s, double *f, int pairs, float *amplitude,
                 struct imp_error *err) {
    yyjson_val *type = yyjson_obj_get(s->object, "rope_type");
    if (type == NULL) type = yyjson_obj_get(s->object, "type");
    const char *name = type ? yyjson_get_str(type) : "default";
    if (name && strcmp(name, "default") == 0) return 0;
    if (name && strcmp(name, "llama3") == 0) return scale_llama3(s, f, pairs, err);
    if (name && strcmp(name, "yarn") == 0) return scale_yarn(s, f, pairs, amplitude, err);
    if (name && strcmp(name, "linear") == 0) {
        double factor;
        int rc = member(s, "factor", 1e-3, 1e6, 1, &factor, err);
        if (rc < 0) return rc;
        for (int i = 0; i < pairs; i++) f[i] /= factor;
        return 0;
    }
    return error_set(err, IMP_ERR_UNSUPPORTED, s->config->path,
                     "%s.rope_type \"%s\" is not one that imp has", s->path, name ? name : "?");
}

/* "proportional" (Gemma 4): the first share of the pairs of a whole head turn, the rest stand
 * still; the exponents are of the whole head. */
static int scale_proportional(const struct rope_source *s, double *f, int pairs, double partial,
                              struct imp_error *err) {
    double factor;
    int rc = member(s, "factor", 1e-3, 1e6, 1, &factor, err);
    if (rc < 0) return rc;
    int live = (int)(partial * 2 * pairs) / 2;
    for (int i = 0; i < pairs; i++) f[i] = i < live ? f[i] / factor : 0;
    return 0;
}

static bool is_proportional(yyjson_val *object) {
    yyjson_val *type = yyjson_obj_get(object, "rope_type");
    return yyjson_equals_str(type, "proportional");
}

int family_rope_of(const struct config *config, yyjson_val *object, const char *path,
                   struct arena *arena, int head_dim, double default_theta, double partial,
                   struct rope_desc *out, struct imp_error *err) {
    struct rope_source s = {config, object, path, default_theta};
    int rc;
    if (object && !yyjson_is_obj(object))
        return error_set(err, IMP_ERR_FILE, config->path, "%s must be an object", path);
    if (object && ((rc = member(&s, "rope_theta", 1, 1e12, s.theta, &s.theta, err)) < 0 ||
                   (rc = member(&s, "partial_rotary_factor", 1e-3, 1, partial, &partial, err)) < 0))
        return rc;
    const bool proportional = is_proportional(object);
    const int dims = proportional ? head_dim : (int)(head_dim * partial), pairs = dims / 2;
    if (pairs == 0)
        return error_set(err, IMP_ERR_FILE, config->path,
                         "%s: partial_rotary_factor %g leaves nothing of a head of %d", path,
                         partial, head_dim);
    double *f = arena_array(arena, (size_t)pairs, sizeof *f);
    for (int i = 0; i < pairs; i++) f[i] = pow(s.theta, -2.0 * i / dims);
    *out = (struct rope_desc){.pairs = pairs, .pair_offset = pairs, .amplitude = 1.0f};
    rc = 0;
    if (proportional) {
        rc = scale_proportional(&s, f, pairs, partial, err);
    } else if (object) {
        rc = scale(&s, f, pairs, &out->amplitude, err);
    }
    if (rc < 0) return rc;
    out->frequency = arena_array(arena, (size_t)pairs, sizeof *out->frequency);
    for (int i = 0; i < pairs; i++) out->frequency[i] = (float)f[i];
    return 0;
}

int family_rope(const struct config *config, struct arena *arena, int head_dim,
                double default_theta, double partial, struct rope_desc *out,
                struct imp_error *err) {
    yyjson_val *object = config_get(config, "rope_parameters");
    const char *path = "$.rope_parameters";
    double theta;
    int rc;
    if (object == NULL) {
        object = config_get(config, "rope_scaling");
        path = "$.rope_scaling";
    }
    if ((rc = config_float(config, "rope_theta", 1, 1e12, default_theta, &theta, err)) < 0 ||
        (rc = config_float(config, "partial_rotary_factor", 1e-3, 1, partial, &partial, err)) < 0)
        return rc;
    return family_rope_of(config, object, path, arena, head_dim, theta, partial, out, err);
}

int family_rope_default(const struct config *config, const char *json, struct arena *arena,
                        int head_dim, double default_theta, struct rope_desc *out,
                        struct imp_error *err) {
    yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
    check(doc != NULL);
    int rc = family_rope_of(config, yyjson_doc_get_root(doc), "$.rope_parameters", arena, head_dim,
                            default_theta, 1, out, err);
    yyjson_doc_free(doc);
    return rc;
}
