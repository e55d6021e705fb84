/* imp bench MODEL: prefill and decode speed against the memory's own. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/probe.h"

enum { MAX_SIZES = 64 };

struct row {
    uint64_t batch, prompt_tokens, decode_tokens;
    double prefill_per_s, decode_per_s; /* tokens */
    double bytes_per_step, probe_before, probe_after, share;
    uint64_t hash;
};

struct bench {
    imp_engine *engine;
    imp_info info;
    uint64_t prompt_tokens, decode_tokens, seed;
    struct row rows[MAX_SIZES];
    size_t count;
};

static int parse_sizes(const char *text, struct bench *bench, imp_error *err) {
    while (*text) {
        char part[24];
        size_t n = strcspn(text, ",");
        uint64_t size = 0;
        snprintf(part, sizeof part, "%.*s", (int)(n < 23 ? n : 23), text);
        if (!parse_uint(part, &size) || size == 0 || size > 4096 || bench->count == MAX_SIZES)
            return error_set(err, IMP_ERR_USAGE, "--batch",
                             "takes up to %d numbers from 1 to 4096, as 1,8,32", MAX_SIZES);
        bench->rows[bench->count++].batch = size;
        text += n + (text[n] == ',');
    }
    return bench->count ? 0 : error_set(err, IMP_ERR_USAGE, "--batch", "names no size");
}

/* A setting of ours, unless the user has one. */
static int set_default(struct options *options, const char *key, uint64_t value, imp_error *err) {
    char text[32];
    if (options_key_given(options, key)) return 0;
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return imp_options_set(options->engine, key, text, err);
}

static int inspect_model(const struct options *options, yyjson_doc **out, imp_error *err) {
    struct str path = {0};
    char *json = NULL;
    int rc = model_path(options->arguments[0], &path, err);
    if (rc == 0) rc = imp_inspect(path.data, options->engine, &json, err);
    if (rc == 0) rc = json_read(json, strlen(json), path.data, out, err);
    imp_free(json);
    str_free(&path);
    return rc;
}

/* Of the plan for the context that is set: what one sequence of `tokens` keeps, in whole blocks. */
static int sequence_bytes(const struct options *options, uint64_t tokens, uint64_t *out,
                          imp_error *err) {
    yyjson_doc *doc;
    int rc = inspect_model(options, &doc, err);
    if (rc < 0) return rc;
    yyjson_val *memory = yyjson_obj_get(yyjson_doc_get_root(doc), "memory");
    uint64_t block_tokens = yyjson_get_uint(yyjson_obj_get(memory, "kv_block_tokens"));
    uint64_t blocks = (tokens + block_tokens - 1) / block_tokens;
    *out = blocks * yyjson_get_uint(yyjson_obj_get(memory, "kv_block_bytes")) +
           yyjson_get_uint(yyjson_obj_get(memory, "window_blocks_per_sequence")) *
               yyjson_get_uint(yyjson_obj_get(memory, "window_block_bytes")) +
           yyjson_get_uint(yyjson_obj_get(memory, "state_bytes_per_sequence"));
    yyjson_doc_free(doc);
    return 0;
}

/* What has to fit: the context of a row, and what the largest batch keeps. */
static int size_engine(struct options *options, const struct bench *bench, imp_error *err) {
    uint64_t most = 1, tokens = bench->prompt_tokens + bench->decode_tokens;
    yyjson_doc *doc;
    for (size_t i = 0; i < bench->count; i++) {
        if (bench->rows[i].batch > most) most = bench->rows[i].batch;
    }
    int rc = set_default(options, "runtime.max_batch", most, err);
    if (rc == 0) rc = set_default(options, "runtime.prefix_cache", 0, err);
    if (rc == 0) rc = inspect_model(options, &doc, err);
    if (rc < 0) return rc;
    yyjson_val *root = yyjson_doc_get_root(doc);
    uint64_t limit = yyjson_get_uint(yyjson_obj_get(root, "max_context_tokens")), bytes = 0;
    yyjson_doc_free(doc);
    if (tokens > limit)
        return error_set(err, IMP_ERR_USAGE, "--prompt-tokens",
                         "with --decode-tokens %llu, more than the model's %llu",
                         (unsigned long long)tokens, (unsigned long long)limit);
    /* A longer context of the user's own keeps the engine's default, where that is larger. */
    if (options_key_given(options, "runtime.context")) return 0;
    rc = set_default(options, "runtime.context", tokens, err);
    if (rc == 0) rc = sequence_bytes(options, tokens, &bytes, err);
    return rc < 0 ? rc : set_default(options, "kv.memory", most * bytes, err);
}

struct timing {
    double prefill_s, decode_s;
    uint64_t decoded, hash; /* decoded: tokens that came while nobody was still in its prompt */
};

/* One sequence of a running batch. */
struct lane {
    imp_stream *stream;
    uint64_t hash;
    bool started, done;
};

/* Takes what a lane has; waits for its first event at most wait_ms. */
static int drain_lane(struct lane *lane, int wait_ms, size_t *in_prompt, struct timing *t,
                      imp_error *err) {
    imp_event event;
    for (; !lane->done && imp_next(lane->stream, wait_ms, &event); wait_ms = 0) {
        if (event.kind == IMP_EVENT_TOKEN) {
            lane->hash = (lane->hash ^ event.logits_hash) * 0x9E3779B97F4A7C15u;
            if (*in_prompt == 0) t->decoded++;
            if (!lane->started) (*in_prompt)--;
            lane->started = true;
        }
        if (event.kind != IMP_EVENT_DONE) continue;
        lane->done = true;
        if (event.finish == IMP_FINISH_ERROR) {
            *err = event.error;
            return event.error.code;
        }
        double first_s = (event.queue_ms + event.prefill_ms) / 1e3;
        double last_s = first_s + event.decode_ms / 1e3;
        if (first_s > t->prefill_s) t->prefill_s = first_s;
        if (last_s > t->decode_s) t->decode_s = last_s;
    }
    return 0;
}

/* All lanes in turn: a stream whose events are not taken is not stepped. Prefill ends with the last
 * first token, decoding with the last token. */
static int drain(struct lane *lanes, size_t count, struct timing *t, imp_error *err) {
    size_t in_prompt = count, live = 0;
    while (live < count) {
        if (interrupt_pending()) return error_set(err, IMP_ERR_CANCELLED, NULL, "interrupted");
        for (size_t i = live; i < count; i++) {
            int rc = drain_lane(&lanes[i], i == live ? 200 : 0, &in_prompt, t, err);
            if (rc < 0) return rc;
        }
        while (live < count && lanes[live].done) live++;
    }
    t->decode_s -= t->prefill_s;
    for (size_t i = 0; i < count; i++) t->hash = (t->hash ^ lanes[i].hash) * 0x9E3779B97F4A7C15u;
    return 0;
}

static int run_batch(struct bench *bench, uint64_t batch, struct timing *t, imp_error *err) {
    imp_request *requests = mem_zero(batch, sizeof *requests);
    imp_stream **streams = mem_zero(batch, sizeof *streams);
    struct lane *lanes = mem_zero(batch, sizeof *lanes);
    int32_t *ids = mem_zero(batch * bench->prompt_tokens, sizeof *ids);
    *t = (struct timing){0};
    for (uint64_t i = 0; i < batch * bench->prompt_tokens; i++)
        ids[i] = (int32_t)(rng_uniform(bench->seed, 1, i) * bench->info.vocab_size);
    for (uint64_t i = 0; i < batch; i++) {
        imp_request_init(bench->engine, &requests[i]);
        requests[i].prompt = ids + i * bench->prompt_tokens;
        requests[i].prompt_tokens = bench->prompt_tokens;
        requests[i].max_tokens = (uint32_t)bench->decode_tokens;
        requests[i].temperature = 0;
        requests[i].repetition_penalty = 1;
        requests[i].ignore_eos = 1;
    }
    int rc = imp_submit(bench->engine, requests, batch, streams, err);
    if (rc == 0) {
        for (uint64_t i = 0; i < batch; i++) lanes[i].stream = streams[i];
        rc = drain(lanes, batch, t, err);
        for (uint64_t i = 0; i < batch; i++) imp_release(streams[i]);
    }
    free(requests);
    free(streams);
    free(lanes);
    free(ids);
    return rc;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int measure(struct bench *bench, struct row *row, uint64_t repeats, imp_error *err) {
    double *prefill = mem_zero(repeats, sizeof *prefill),
           *decode = mem_zero(repeats, sizeof *decode);
    /* The probe is of the host's memory: nothing to hold a GPU against, and 0 then. */
    const bool host = strncmp(bench->info.device, "cpu", 3) == 0;
    int threads = (int)bench->info.threads, rc = 0;
    if (host) rc = probe_bandwidth(threads, &row->probe_before, err);
    for (uint64_t i = 0; i < repeats && rc == 0; i++) {
        struct timing t;
        rc = run_batch(bench, row->batch, &t, err);
        prefill[i] = (double)(row->batch * bench->prompt_tokens) / t.prefill_s;
        decode[i] = t.decode_s > 0 ? (double)t.decoded / t.decode_s : 0;
        row->hash = t.hash;
    }
    if (rc == 0 && host) rc = probe_bandwidth(threads, &row->probe_after, err);
    qsort(prefill, repeats, sizeof *prefill, by_value);
    qsort(decode, repeats, sizeof *decode, by_value);
    row->prompt_tokens = bench->prompt_tokens;
    row->decode_tokens = bench->decode_tokens;
    row->prefill_per_s = prefill[repeats / 2];
    row->decode_per_s = decode[repeats / 2];
    /* A step reads every weight once and the KV of every sequence, on average half way through. */
    double context = (double)bench->prompt_tokens + (double)bench->decode_tokens / 2;
    row->bytes_per_step = (double)bench->info.bytes_per_step +
                          (double)row->batch * context * (double)bench->info.kv_bytes_per_token;
    if (host)
        row->share = row->bytes_per_step * row->decode_per_s / (double)row->batch /
                     ((row->probe_before + row->probe_after) / 2);
    free(prefill);
    free(decode);
    return rc;
}

static void print_row(const struct options *options, const struct row *r, bool first) {
    if (options_flag(options, OPT_JSON)) {
        printf("{\"batch\": %llu, \"prompt_tokens\": %llu, \"decode_tokens\": %llu, "
               "\"prefill_tokens_per_s\": %.2f, \"decode_tokens_per_s\": %.2f, "
               "\"bytes_per_step\": %.0f, \"bandwidth_probe_before\": %.0f, "
               "\"bandwidth_probe_after\": %.0f, \"share_of_bandwidth\": %.4f, "
               "\"logits_hash\": \"%016llx\"}\n",
               (unsigned long long)r->batch, (unsigned long long)r->prompt_tokens,
               (unsigned long long)r->decode_tokens, r->prefill_per_s, r->decode_per_s,
               r->bytes_per_step, r->probe_before, r->probe_after, r->share,
               (unsigned long long)r->hash);
    } else if (options_flag(options, OPT_CSV)) {
        if (first)
            puts("batch,prompt_tokens,decode_tokens,prefill_tokens_per_s,decode_tokens_per_s,"
                 "bytes_per_step,bandwidth_probe_before,bandwidth_probe_after,share_of_bandwidth,"
                 "logits_hash");
        printf("%llu,%llu,%llu,%.2f,%.2f,%.0f,%.0f,%.0f,%.4f,%016llx\n",
               (unsigned long long)r->batch, (unsigned long long)r->prompt_tokens,
               (unsigned long long)r->decode_tokens, r->prefill_per_s, r->decode_per_s,
               r->bytes_per_step, r->probe_before, r->probe_after, r->share,
               (unsigned long long)r->hash);
    } else {
        if (first)
            puts(" batch  prompt  decode  prefill tok/s  decode tok/s  MB/step  GB/s before after"
                 "  share  logits");
        printf("%6llu %7llu %7llu %14.1f %13.1f %8.1f %12.1f %5.1f %5.0f%%  %016llx\n",
               (unsigned long long)r->batch, (unsigned long long)r->prompt_tokens,
               (unsigned long long)r->decode_tokens, r->prefill_per_s, r->decode_per_s,
               r->bytes_per_step / 1e6, r->probe_before / 1e9, r->probe_after / 1e9, r->share * 100,
               (unsigned long long)r->hash);
    }
    fflush(stdout);
}

int command_bench(struct options *options, imp_error *err) {
    struct bench bench = {.prompt_tokens = options_int(options, OPT_PROMPT_TOKENS),
                          .decode_tokens = options_int(options, OPT_DECODE_TOKENS),
                          .seed = options_int(options, OPT_BENCH_SEED)};
    struct timing warm;
    if (options_flag(options, OPT_TOKENIZER)) return bench_tokenizer(options, err);
    if (options_given(options, OPT_TEXT))
        return error_set(err, IMP_ERR_USAGE, NULL, "--text goes with --tokenizer");
    int rc = parse_sizes(options_text(options, OPT_BATCH), &bench, err);
    if (rc == 0) rc = size_engine(options, &bench, err);
    interrupt_catch();
    if (rc == 0) rc = open_model(options, options->arguments[0], false, &bench.engine, err);
    if (rc < 0) return rc;
    imp_info_get(bench.engine, &bench.info);
    rc = run_batch(&bench, 1, &warm, err);
    for (size_t i = 0; i < bench.count && rc == 0; i++) {
        rc = measure(&bench, &bench.rows[i], options_int(options, OPT_REPEATS), err);
        if (rc == 0) print_row(options, &bench.rows[i], i == 0);
    }
    imp_close(bench.engine);
    return rc;
}
