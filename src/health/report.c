/* A report as JSON and as CSV. Numbers that are not finite are null. */
#include <math.h>
#include <string.h>

#include "health/health.h"
#include "num/fp.h"

static void key(struct str *out, const char *name) {
    const char last = out->data[out->size - 1];
    if (last != '{' && last != '[') str_add_text(out, ", ");
    if (name == NULL) return;
    str_add_json(out, name, strlen(name));
    str_add_text(out, ": ");
}

static void put_text(struct str *out, const char *name, const char *value) {
    key(out, name);
    if (value)
        str_add_json(out, value, strlen(value));
    else
        str_add_text(out, "null");
}

static void put_count(struct str *out, const char *name, uint64_t value) {
    key(out, name);
    str_printf(out, "%llu", (unsigned long long)value);
}

static void put_number(struct str *out, const char *name, double value) {
    key(out, name);
    if (isfinite(value))
        str_printf(out, "%.9g", value);
    else
        str_add_text(out, "null");
}

static void put_counts(struct str *out, const char *name, const uint64_t *values, int count) {
    key(out, name);
    str_add_char(out, '[');
    for (int i = 0; i < count; i++) put_count(out, NULL, values[i]);
    str_add_char(out, ']');
}

static void open(struct str *out, const char *name) {
    key(out, name);
    str_add_char(out, '{');
}

static void put_channels(struct str *out, const char *name, const struct weights_channels *c,
                         int64_t count) {
    open(out, name);
    put_number(out, "largest", c->largest);
    put_number(out, "median", c->median);
    put_number(out, "range", c->range);
    put_count(out, "outliers", (uint64_t)c->outliers);
    put_number(out, "outlier_share", (double)c->outliers / (double)count);
    str_add_char(out, '}');
}

static double scale_value(const struct weights_matrix *m, int byte) {
    if (byte < 0) return NAN;
    return m->format == WEIGHT_MXFP4 ? e8m0_decode((uint8_t)byte) : e4m3_decode((uint8_t)byte);
}

static void put_codes(struct str *out, const struct weights_matrix *m) {
    const struct weights_scales *s = &m->scales;
    put_counts(out, "codes", m->codes, WEIGHTS_CODES);
    put_count(out, "blocks", m->blocks);
    put_number(out, "dominated_share", (double)m->dominated / (double)m->blocks);
    put_number(out, "single_share", (double)m->single / (double)m->blocks);
    put_number(out, "estimated_error", m->error);
    open(out, "scales");
    put_number(out, "smallest", scale_value(m, s->smallest));
    put_number(out, "largest", scale_value(m, s->largest));
    put_count(out, "zero", s->zero);
    put_count(out, "saturated", s->saturated);
    put_count(out, "nan", s->nan);
    put_count(out, "negative", s->negative);
    put_counts(out, "bins", s->bins, WEIGHTS_SCALE_BINS);
    put_number(out, "sixes_at_largest", s->sixes_largest);
    put_number(out, "sixes_elsewhere", s->sixes_rest);
    str_add_char(out, '}');
}

static void put_matrix(struct str *out, const struct weights_matrix *m) {
    open(out, NULL);
    put_text(out, "name", m->name);
    put_text(out, "part", m->part);
    put_number(out, "layer", m->layer < 0 ? NAN : m->layer);
    put_number(out, "expert", m->expert < 0 ? NAN : m->expert);
    put_text(out, "problem", m->problem);
    if (m->problem == NULL) {
        put_text(out, "format", weight_format_name(m->format));
        put_count(out, "rows", (uint64_t)m->rows);
        put_count(out, "cols", (uint64_t)m->cols);
        put_count(out, "bytes", m->bytes);
        put_number(out, "multiplier", m->multiplier);
        put_number(out, "input_multiplier", m->input_multiplier);
        key(out, "hash");
        str_printf(out, "\"%016llx\"", (unsigned long long)m->hash);
        put_number(out, "rms", m->rms);
        put_number(out, "largest", m->largest);
        put_number(out, "zero_share", m->zero_share);
        put_count(out, "not_finite", m->not_finite);
        put_channels(out, "outputs", &m->outputs, m->rows);
        put_channels(out, "inputs", &m->inputs, m->cols);
        if (m->has_codes) put_codes(out, m);
    }
    if (m->has_reference) {
        open(out, "reference");
        put_number(out, "error", m->difference);
        put_number(out, "cosine", m->cosine);
        put_number(out, "norm_ratio", m->norm_ratio);
        put_number(out, "error_rescaled", m->rescaled);
        str_add_char(out, '}');
    }
    str_add_char(out, '}');
}

static void put_finding(struct str *out, const struct health_finding *f) {
    open(out, NULL);
    put_text(out, "rule", f->rule);
    put_text(out, "level", health_level_name(f->level));
    put_text(out, "judged_against", health_basis_name(f->basis));
    put_text(out, "tensor", f->tensor);
    put_text(out, "other", f->other);
    put_number(out, "value", f->value);
    put_number(out, "threshold", f->threshold);
    put_text(out, "text", f->text);
    str_add_char(out, '}');
}

void health_report_json(const struct health_report *r, struct str *out) {
    str_add_char(out, '{');
    put_text(out, "path", r->path);
    put_text(out, "reference", r->reference);
    put_text(out, "verdict", health_worst(r) == HEALTH_BROKEN ? "broken" : "healthy");
    put_count(out, "bytes", r->bytes);
    put_number(out, "seconds", r->seconds);
    put_count(out, "compared", r->compared);
    key(out, "findings");
    str_add_char(out, '[');
    for (size_t i = 0; i < r->finding_count; i++) put_finding(out, &r->findings[i]);
    str_add_char(out, ']');
    key(out, "matrices");
    str_add_char(out, '[');
    for (size_t i = 0; i < r->count; i++) put_matrix(out, &r->matrices[i]);
    str_add_text(out, "]}");
}

static void csv_number(struct str *out, double value) {
    str_add_char(out, ',');
    if (isfinite(value)) str_printf(out, "%.9g", value);
}

void health_report_csv(const struct health_report *r, struct str *out) {
    str_add_text(out, "name,format,rows,cols,multiplier,rms,largest,zero_share,output_range,"
                      "input_range,input_outliers,dominated_share,estimated_error,scales_zero,"
                      "scales_saturated,scales_nan,reference_error,cosine,norm_ratio\n");
    for (size_t i = 0; i < r->count; i++) {
        const struct weights_matrix *m = &r->matrices[i];
        if (m->problem) continue; /* a finding says why */
        const double blocks = m->has_codes ? (double)m->blocks : NAN;
        const double reference = m->has_reference ? 0 : NAN;
        str_printf(out, "%s,%s,%lld,%lld", m->name, weight_format_name(m->format),
                   (long long)m->rows, (long long)m->cols);
        const double values[] = {m->multiplier,
                                 m->rms,
                                 m->largest,
                                 m->zero_share,
                                 m->outputs.range,
                                 m->inputs.range,
                                 (double)m->inputs.outliers,
                                 (double)m->dominated / blocks,
                                 m->error + 0 * blocks,
                                 (double)m->scales.zero / blocks,
                                 (double)m->scales.saturated / blocks,
                                 (double)m->scales.nan / blocks,
                                 m->difference + reference,
                                 m->cosine + reference,
                                 m->norm_ratio + reference};
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) csv_number(out, values[k]);
        str_add_char(out, '\n');
    }
}
