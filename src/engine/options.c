#include "engine/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/str.h"

enum kind { KIND_INT, KIND_BOOL, KIND_SIZE, KIND_CHOICE, KIND_TIME, KIND_DEVICE, KIND_TEXT };

static const struct row {
    const char *key;
    enum kind kind;
    int64_t min, max;
    const char *type, *default_value, *help; /* type of a choice: its values in order */
} TABLE[SETTING_COUNT] = {
    [SETTING_DEVICE] = {"runtime.device", KIND_DEVICE, 0, 64, "auto|cpu|cuda[:N]", "auto",
                        "where the model runs"},
    [SETTING_THREADS] = {"runtime.threads", KIND_INT, 0, 1024, "int", "0",
                         "threads of the CPU backend; 0: one per core"},
    [SETTING_CONTEXT] = {"runtime.context", KIND_INT, 0, CAP_CONTEXT, "int", "0",
                         "most tokens of one sequence; 0: what the model allows, at most 8192"},
    [SETTING_MAX_BATCH] = {"runtime.max_batch", KIND_INT, 1, 4096, "int", "64",
                           "most sequences of one step"},
    [SETTING_PREFILL_CHUNK] = {"runtime.prefill_chunk", KIND_INT, 1, 65536, "int", "512",
                               "most prompt tokens of one step"},
    [SETTING_REFERENCE] = {"runtime.reference", KIND_CHOICE, 0, 2, "false|true|rounded", "false",
                           "run the plain reference (rounded: with the contract's roundings)"},
    [SETTING_ISA] = {"runtime.isa", KIND_CHOICE, 0, 3, "auto|avx512|avx2|portable", "auto",
                     "instruction set of the CPU backend"},
    [SETTING_WARMUP] = {"runtime.warmup", KIND_BOOL, 0, 1, "bool", "true",
                        "run one step before the first request"},
    [SETTING_GRAPHS] = {"runtime.graphs", KIND_CHOICE, 0, 1, "auto|never", "auto",
                        "CUDA graphs; without effect on a CPU"},
    [SETTING_PDL] = {"runtime.pdl", KIND_BOOL, 0, 1, "bool", "true",
                     "programmatic dependent launch: kernels start before those before them have "
                     "ended; without effect on a CPU"},
    [SETTING_FAIL_CALL] = {"runtime.fail_call", KIND_INT, 0, INT64_MAX, "int", "0",
                           "have this call of the CUDA runtime fail, counted from 1, to test what "
                           "follows; 0: none"},
    [SETTING_PREFIX_CACHE] = {"runtime.prefix_cache", KIND_BOOL, 0, 1, "bool", "true",
                              "keep the KV blocks of finished prompts for later ones"},
    [SETTING_PREEMPT_EVERY] = {"runtime.preempt_every", KIND_INT, 0, INT32_MAX, "int", "0",
                               "have the last sequence give its KV back every so many steps, to "
                               "test that nothing changes; 0: only where memory runs out"},
    [SETTING_KV_DTYPE] = {"kv.dtype", KIND_CHOICE, 0, 1, "bf16|fp8", "bf16",
                          "element type of the KV cache; fp8 (E4M3): on a GPU only"},
    [SETTING_KV_MEMORY] = {"kv.memory", KIND_SIZE, 0, INT64_MAX, "size", "0",
                           "bytes for the KV cache, as 2G or 512M; 0: four contexts, at most 4G"},
    [SETTING_KV_SHUFFLE] = {"kv.shuffle", KIND_INT, 0, INT64_MAX, "int", "0",
                            "hand out KV blocks in an order drawn from this seed; 0: in order"},
    [SETTING_ACTIVATIONS] = {"numerics.activations", KIND_CHOICE, 0, 1, "bf16|nvfp4", "bf16",
                             "what activations are rounded to before a matrix product"},
    [SETTING_SPECIAL_IN_MESSAGES] = {"text.special_in_messages", KIND_BOOL, 0, 1, "bool", "false",
                                     "special tokens written in a message count as such"},
    [SETTING_NOW] = {"text.now", KIND_TIME, INT64_MIN, INT64_MAX, "time", "now",
                     "the clock that chat templates see: now, seconds since 1970, or "
                     "2026-01-31T12:00:00"},
    [SETTING_REPLY_FORMAT] = {"text.reply_format", KIND_CHOICE, 0, 7,
                              "auto|none|hermes|qwen_xml|mistral|llama3|gemma4|harmony", "auto",
                              "how the model marks reasoning and tool calls; auto: as its chat "
                              "template does"},
    [SETTING_TRACE] = {"debug.trace", KIND_TEXT, 0, SETTING_TEXT_BYTES - 1, "text", "",
                       "write what each stage of each step leaves to this file, for imp trace; "
                       "steps become slow, results stay the same"},
};

static int choice_index(const char *choices, const char *value) {
    size_t n = strlen(value);
    for (int i = 0; *choices; i++) {
        size_t len = strcspn(choices, "|");
        if (len == n && memcmp(choices, value, n) == 0) return i;
        choices += len + (choices[len] == '|');
    }
    return -1;
}

static bool parse_bool(const char *value, int64_t *out) {
    static const char *const yes[] = {"true", "1", "yes", "on"}, *const no[] = {"false", "0", "no",
                                                                                "off"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
            *out = strcmp(value, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

/* A whole number; with `suffixes` also K, M, G, T (powers of 1024, an "iB" or "B" may follow). */
static bool parse_number(const char *value, bool suffixes, int64_t *out) {
    char *end;
    errno = 0;
    long long n = strtoll(value, &end, 10);
    if (errno || end == value || isspace((unsigned char)value[0])) return false;
    int shift = 0;
    if (suffixes && *end) {
        const char *units = "KMGT", *unit = strchr(units, toupper((unsigned char)*end));
        if (unit == NULL) return false;
        shift = 10 * (int)(unit - units + 1);
        end++;
        if (strcmp(end, "iB") == 0 || strcmp(end, "B") == 0) end = "";
    }
    if (*end || (shift && (n < 0 || n > INT64_MAX >> shift))) return false;
    *out = n * ((int64_t)1 << shift);
    return true;
}

/* INT64_MIN stands for the running clock. Times are UTC. */
static bool parse_time(const char *value, int64_t *out) {
    if (strcmp(value, "now") == 0) {
        *out = INT64_MIN;
        return true;
    }
    int y, mo, d, h = 0, mi = 0, s = 0, used = 0;
    if (sscanf(value, "%4d-%2d-%2d%n", &y, &mo, &d, &used) == 3 && used > 0) {
        const char *rest = value + used;
        if (*rest == 'T' || *rest == ' ') {
            used = 0;
            if (sscanf(rest + 1, "%2d:%2d:%2d%n", &h, &mi, &s, &used) != 3) return false;
            rest += 1 + used;
        }
        if (strcmp(rest, "Z") == 0) rest++;
        if (*rest || mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 || mi > 59 || s > 60)
            return false;
        /* Days from civil date: years begin in March, so the leap day is a year's last. */
        int64_t year = mo <= 2 ? y - 1 : y, era = year / 400, of_era = year % 400;
        int64_t day = (153 * (mo + (mo > 2 ? -3 : 9)) + 2) / 5 + d - 1;
        int64_t days = era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + day - 719468;
        *out = days * 86400 + h * 3600 + mi * 60 + s;
        return true;
    }
    return parse_number(value, false, out);
}

/* "cuda" is the first GPU, "cuda:N" another: DEVICE_GPU + N. */
static bool parse_device(const struct row *row, const char *value, int64_t *out) {
    *out = choice_index("auto|cpu|cuda", value);
    if (*out >= 0) return true;
    if (strncmp(value, "cuda:", 5) != 0 || !parse_number(value + 5, false, out)) return false;
    *out += DEVICE_GPU;
    return *out >= DEVICE_GPU && *out <= row->max;
}

static bool parse_value(const struct row *row, const char *value, int64_t *out) {
    switch (row->kind) {
    case KIND_INT:
        return parse_number(value, false, out) && *out >= row->min && *out <= row->max;
    case KIND_SIZE:
        return parse_number(value, true, out) && *out >= row->min;
    case KIND_BOOL:
        return parse_bool(value, out);
    case KIND_TIME:
        return parse_time(value, out);
    case KIND_DEVICE:
        return parse_device(row, value, out);
    case KIND_TEXT:
        *out = (int64_t)strlen(value);
        return *out <= row->max;
    case KIND_CHOICE:
        break;
    }
    *out = choice_index(row->type, value);
    return *out >= 0;
}

static int unknown_key(const char *key, struct imp_error *err) {
    size_t best = 0, least = SIZE_MAX;
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        size_t d = text_distance(key, TABLE[i].key);
        if (d < least) {
            least = d;
            best = i;
        }
    }
    return error_set(err, IMP_ERR_USAGE, NULL, "no setting \"%s\"; the nearest is \"%s\"", key,
                     TABLE[best].key);
}

void options_default(struct imp_options *options) {
    *options = (struct imp_options){0};
    for (size_t i = 0; i < SETTING_COUNT; i++)
        check(parse_value(&TABLE[i], TABLE[i].default_value, &options->value[i]));
}

const char *options_setting_text(const struct imp_options *options, enum setting setting) {
    return options->value[setting] ? options->text[setting - SETTING_FIRST_TEXT] : NULL;
}

const char *options_isa(const struct imp_options *options) {
    static const char *const names[] = {NULL, "avx512", "avx2", "portable"};
    return names[options->value[SETTING_ISA]];
}

struct imp_options *imp_options_new(void) {
    struct imp_options *options = mem_alloc(sizeof *options);
    options_default(options);
    return options;
}

void imp_options_free(struct imp_options *options) {
    free(options);
}

int imp_options_set(struct imp_options *options, const char *key, const char *value,
                    struct imp_error *err) {
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const struct row *row = &TABLE[i];
        if (strcmp(key, row->key) != 0) continue;
        int64_t parsed;
        if (parse_value(row, value, &parsed)) {
            options->value[i] = parsed;
            if (row->kind == KIND_TEXT) strcpy(options->text[i - SETTING_FIRST_TEXT], value);
            return 0;
        }
        if (row->kind == KIND_INT)
            return error_set(err, IMP_ERR_USAGE, NULL,
                             "%s must be a whole number from %lld to %lld, not \"%s\"", key,
                             (long long)row->min, (long long)row->max, value);
        if (row->kind == KIND_TEXT)
            return error_set(err, IMP_ERR_USAGE, NULL, "%s takes at most %lld bytes", key,
                             (long long)row->max);
        return error_set(err, IMP_ERR_USAGE, NULL, "%s takes %s, not \"%s\"", key, row->type,
                         value);
    }
    return unknown_key(key, err);
}

int imp_options_describe(size_t i, struct imp_option_info *out) {
    if (i >= SETTING_COUNT) return -1;
    *out = (struct imp_option_info){TABLE[i].key, TABLE[i].type, TABLE[i].default_value,
                                    TABLE[i].help};
    return 0;
}

void imp_options_set_log(struct imp_options *options, imp_log_fn fn, void *ctx) {
    options->log = (struct log){fn, ctx};
}
