/* imp bench MODEL --tokenizer --text FILE: how fast text becomes ids and ids text, on one thread.
 */
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/bench.h"
#include "cli/cli.h"

enum { LEAST_MS = 200 }; /* a measurement repeats the text until that much time is gone */

struct speeds {
    double load_ms, encode, decode; /* bytes of text a second */
    size_t text_bytes, tokens;
};

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, size_t count) {
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

static int time_load(const struct options *options, double *ms, imp_error *err) {
    imp_engine *engine;
    double from = clock_ms();
    int rc = open_model(options, options->arguments[0], true, &engine, err);
    if (rc < 0) return rc;
    *ms = clock_ms() - from;
    imp_close(engine);
    return 0;
}

/* ids of the last time stay: free them with imp_free. */
static int time_encode(imp_engine *engine, const struct str *text, double *per_s, int32_t **ids,
                       size_t *count, imp_error *err) {
    double from = clock_ms(), spent;
    uint64_t bytes = 0;
    *ids = NULL;
    do {
        imp_free(*ids);
        int rc = imp_tokenize(engine, text->data, text->size, 0, ids, count, err);
        if (rc < 0) return rc;
        bytes += text->size;
        spent = clock_ms() - from;
    } while (spent < LEAST_MS);
    *per_s = (double)bytes / spent * 1e3;
    return 0;
}

static int time_decode(imp_engine *engine, const int32_t *ids, size_t count, double *per_s,
                       imp_error *err) {
    double from = clock_ms(), spent;
    uint64_t bytes = 0;
    do {
        char *text;
        size_t size;
        int rc = imp_detokenize(engine, ids, count, 0, &text, &size, err);
        if (rc < 0) return rc;
        imp_free(text);
        bytes += size;
        spent = clock_ms() - from;
    } while (spent < LEAST_MS);
    *per_s = (double)bytes / spent * 1e3;
    return 0;
}

static int measure(const struct options *options, imp_engine *engine, const struct str *text,
                   struct speeds *out, imp_error *err) {
    size_t repeats = options_int(options, OPT_REPEATS);
    double *load = mem_zero(repeats, sizeof *load), *encode = mem_zero(repeats, sizeof *encode),
           *decode = mem_zero(repeats, sizeof *decode);
    int rc = 0;
    for (size_t i = 0; i < repeats && rc == 0; i++) {
        int32_t *ids = NULL;
        if (interrupt_pending()) rc = error_set(err, IMP_ERR_CANCELLED, NULL, "interrupted");
        if (rc == 0) rc = time_load(options, &load[i], err);
        if (rc == 0) rc = time_encode(engine, text, &encode[i], &ids, &out->tokens, err);
        if (rc == 0) rc = time_decode(engine, ids, out->tokens, &decode[i], err);
        imp_free(ids);
    }
    out->load_ms = median(load, repeats);
    out->encode = median(encode, repeats);
    out->decode = median(decode, repeats);
    free(load);
    free(encode);
    free(decode);
    return rc;
}

static void print_speeds(const struct options *options, const struct speeds *s) {
    if (options_flag(options, OPT_JSON)) {
        printf("{\"text_bytes\": %zu, \"tokens\": %zu, \"load_ms\": %.1f, "
               "\"encode_bytes_per_s\": %.0f, \"decode_bytes_per_s\": %.0f}\n",
               s->text_bytes, s->tokens, s->load_ms, s->encode, s->decode);
    } else if (options_flag(options, OPT_CSV)) {
        puts("text_bytes,tokens,load_ms,encode_bytes_per_s,decode_bytes_per_s");
        printf("%zu,%zu,%.1f,%.0f,%.0f\n", s->text_bytes, s->tokens, s->load_ms, s->encode,
               s->decode);
    } else {
        puts("   bytes   tokens  load ms  encode MB/s  decode MB/s");
        printf("%8zu %8zu %8.1f %12.2f %12.2f\n", s->text_bytes, s->tokens, s->load_ms,
               s->encode / 1e6, s->decode / 1e6);
    }
}

int bench_tokenizer(const struct options *options, imp_error *err) {
    const char *path = options_text(options, OPT_TEXT);
    struct str text = {0};
    struct speeds speeds = {0};
    imp_engine *engine = NULL;
    if (path == NULL) return error_set(err, IMP_ERR_USAGE, NULL, "--tokenizer needs --text FILE");
    int rc = file_read(path, CAP_TOKENIZER_BYTES, &text, err);
    if (rc == 0 && text.size == 0) rc = error_set(err, IMP_ERR_REQUEST, path, "is empty");
    if (rc == 0) rc = open_model(options, options->arguments[0], true, &engine, err);
    speeds.text_bytes = text.size;
    if (rc == 0) rc = measure(options, engine, &text, &speeds, err);
    if (rc == 0) print_speeds(options, &speeds);
    imp_close(engine);
    str_free(&text);
    return rc;
}
