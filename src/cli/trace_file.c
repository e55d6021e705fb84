#include "cli/trace_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"

static const char HEADER[] = "seq,position,token,layer,stage,type,cols,max,l2,probe,nan,inf,hash";

/* ---- stages ---- */

static uint32_t stage_number(struct trace_stages *s, int layer, const char *name) {
    char text[TRACE_NAME + 16];
    snprintf(text, sizeof text, "%d,%s", layer, name);
    const int64_t *known = map_find(&s->map, slice_of(text));
    if (known) return (uint32_t)*known;
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 256;
        s->list = mem_grow(s->list, s->capacity * sizeof *s->list);
        if (s->count == 0) map_create(&s->map, s->capacity);
    }
    struct trace_stage *stage = &s->list[s->count];
    *stage = (struct trace_stage){.layer = layer, .key = mem_strndup(text, strlen(text))};
    snprintf(stage->name, sizeof stage->name, "%s", name);
    map_add(&s->map, slice_of(stage->key), (int64_t)s->count);
    return (uint32_t)s->count++;
}

void trace_stages_free(struct trace_stages *stages) {
    for (size_t i = 0; i < stages->count; i++) free(stages->list[i].key);
    free(stages->list);
    map_free(&stages->map);
    *stages = (struct trace_stages){0};
}

/* ---- one line: each function takes a column and moves over its comma ---- */

static bool column_ends(char **at, char *end) {
    if (end == *at || (*end != ',' && *end != 0)) return false;
    *at = end + (*end == ',');
    return true;
}

static bool take_int(char **at, int64_t low, int64_t high, int64_t *out) {
    char *end;
    if (strchr("-0123456789", **at) == NULL) return false;
    *out = strtoll(*at, &end, 10);
    return *out >= low && *out <= high && column_ends(at, end);
}

static bool take_real(char **at, double *out) {
    char *end;
    if (strchr("-0123456789", **at) == NULL) return false;
    *out = strtod(*at, &end);
    return isfinite(*out) && column_ends(at, end);
}

static bool take_hash(char **at, uint32_t *out) {
    char *end = *at + strspn(*at, "0123456789abcdef");
    if (end != *at + 8) return false;
    *out = (uint32_t)strtoul(*at, NULL, 16);
    return column_ends(at, end);
}

static bool take_word(char **at, char out[TRACE_NAME]) {
    const size_t n = strspn(*at, "abcdefghijklmnopqrstuvwxyz0123456789_");
    if (n == 0 || n >= TRACE_NAME) return false;
    memcpy(out, *at, n);
    out[n] = 0;
    return column_ends(at, *at + n);
}

/* NULL, or the name of the column that is wrong. */
static const char *take_row(char *at, struct trace_stages *stages, struct trace_row *row) {
    int64_t seq, position, token, layer, nan, inf;
    char name[TRACE_NAME], type[TRACE_NAME];
    if (!take_int(&at, 0, INT32_MAX, &seq)) return "seq";
    if (!take_int(&at, 0, INT32_MAX, &position)) return "position";
    if (!take_int(&at, 0, INT32_MAX, &token)) return "token";
    if (!take_int(&at, -1, CAP_LAYERS, &layer)) return "layer";
    if (!take_word(&at, name)) return "stage";
    if (!take_word(&at, type)) return "type";
    row->exact = strcmp(type, "i32") == 0;
    if (!row->exact && strcmp(type, "f32") != 0 && strcmp(type, "act") != 0) return "type";
    if (!take_int(&at, 1, INT32_MAX, &row->cols)) return "cols";
    if (!take_real(&at, &row->max) || row->max < 0) return "max";
    if (!take_real(&at, &row->l2) || row->l2 < 0) return "l2";
    if (!take_real(&at, &row->probe)) return "probe";
    if (!take_int(&at, 0, row->cols, &nan)) return "nan";
    if (!take_int(&at, 0, row->cols, &inf)) return "inf";
    if (!take_hash(&at, &row->hash) || *at != 0) return "hash";
    row->seq = (int32_t)seq;
    row->position = (int32_t)position;
    row->token = (int32_t)token;
    row->nan = (uint32_t)nan;
    row->inf = (uint32_t)inf;
    row->stage = stage_number(stages, (int)layer, name);
    return NULL;
}

/* ---- the file ---- */

static int by_place(const void *pa, const void *pb) {
    const struct trace_row *a = pa, *b = pb;
    if (a->stage != b->stage) return a->stage < b->stage ? -1 : 1;
    if (a->seq != b->seq) return a->seq < b->seq ? -1 : 1;
    if (a->position != b->position) return a->position < b->position ? -1 : 1;
    return (a->order > b->order) - (a->order < b->order);
}

static void sort_rows(struct trace_rows *rows) {
    qsort(rows->list, rows->count, sizeof *rows->list, by_place);
    size_t kept = 0;
    for (size_t i = 0; i < rows->count; i++) {
        const struct trace_row *row = &rows->list[i], *last = kept ? &rows->list[kept - 1] : NULL;
        const bool again = last && row->stage == last->stage && row->seq == last->seq &&
                           row->position == last->position && row->hash == last->hash;
        rows->list[again ? kept - 1 : kept++] = *row;
    }
    rows->count = kept;
}

static int read_lines(const char *path, char *at, char *end, struct trace_stages *stages,
                      struct trace_rows *out, imp_error *err) {
    size_t capacity = 0;
    for (size_t line = 1; at < end; line++) {
        char where[200], *newline = memchr(at, '\n', (size_t)(end - at));
        error_place(where, path, "line %zu", line);
        if (newline == NULL) return error_set(err, IMP_ERR_FILE, where, "is cut off");
        *newline = 0;
        if (line == 1 && strcmp(at, HEADER) != 0)
            return error_set(err, IMP_ERR_FILE, path, "not a trace: its first line is not \"%s\"",
                             HEADER);
        if (line > 1) {
            if (out->count == capacity) {
                capacity = capacity ? 2 * capacity : 4096;
                out->list = mem_grow(out->list, capacity * sizeof *out->list);
            }
            struct trace_row row = {.order = (uint32_t)line};
            const char *wrong = take_row(at, stages, &row);
            if (wrong == NULL && strlen(at) != (size_t)(newline - at)) wrong = "hash";
            if (wrong)
                return error_set(err, IMP_ERR_FILE, where, "column %s is missing or broken", wrong);
            out->list[out->count++] = row;
        }
        at = newline + 1;
    }
    if (out->count == 0) return error_set(err, IMP_ERR_FILE, path, "holds no rows of a trace");
    return 0;
}

int trace_rows_read(const char *path, struct trace_stages *stages, struct trace_rows *out,
                    imp_error *err) {
    struct str text = {0};
    int rc = file_read(path, CAP_TRACE_BYTES, &text, err);
    if (rc == 0) rc = read_lines(path, text.data, text.data + text.size, stages, out, err);
    str_free(&text);
    if (rc == 0) sort_rows(out);
    return rc;
}

void trace_rows_free(struct trace_rows *rows) {
    free(rows->list);
    *rows = (struct trace_rows){0};
}
