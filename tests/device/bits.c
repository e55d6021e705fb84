/* The same request gives the same bytes: one model, one request, every way of running it.
 *
 *     device_bits MODEL [--device cuda] [--set KEY=VALUE ...] [--repeats 32] [--batch 256]
 *                 [--hash-only] [--expect-differs]
 *
 * The request is two: one greedy, with the logits of its prompt, and one that draws with a seed and
 * may find its prefix in the cache. What is compared is the hash of every row of logits and every
 * token. A line a variant, "N/N equal"; then the hash of it all, which other processes must print
 * too (--hash-only runs only what that takes). With kv.dtype=fp8 the bytes are others and must be
 * equal among themselves. --expect-differs turns the verdict round: for a build that is known to
 * break the promise, to see that this program would notice. */
#include <stdlib.h>

#include <yyjson.h>

#include "support/requests.h"

enum { ANSWER = 16, GREEDY_PROMPT = 150, PROMPT = 640, CONTEXT = 1024, MAX_BATCH = 256 };
enum { OTHER_ANSWER = 56, OTHER_PROMPT = 100, MAX_SETTINGS = 24 };

struct bits {
    const char *model;
    const char *settings[MAX_SETTINGS + 1]; /* of every variant; NULL at the end */
    int setting_count, repeats, largest;
    bool hash_only, expect_differs;
    char kv_memory[64];
    int prompt; /* tokens of the drawn request: PROMPT or what the model's context allows */
    int32_t ids[PROMPT], other_ids[MAX_BATCH][OTHER_PROMPT];
    struct trace greedy, drawn;  /* the first run, which all others are held against */
    const char *dtype;           /* kv.dtype of the variants */
    int equal, total, differing; /* of the variant; of all, variants that differ */
    char parting[80];
};

static void fail(const char *what, const struct imp_error *err) {
    fprintf(stderr, "device_bits: %s: %s %s\n", what, err->where, err->message);
    exit(2);
}

/* ---- opening ---- */

/* What every sequence of the largest batch keeps, so that none has to wait. */
static void plan_memory(struct bits *b) {
    struct imp_options *options = imp_options_new();
    struct imp_error err = {0};
    char *json = NULL;
    for (const char *const *s = b->settings; *s; s++)
        if (options_add(options, *s, &err) < 0) fail(*s, &err);
    if (imp_inspect(b->model, options, &json, &err) < 0) fail(b->model, &err);
    yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
    yyjson_val *top = yyjson_doc_get_root(doc), *memory = yyjson_obj_get(top, "memory");
    const int64_t context = yyjson_get_sint(yyjson_obj_get(top, "max_context_tokens"));
    const uint64_t block = yyjson_get_uint(yyjson_obj_get(memory, "kv_block_tokens"));
    const uint64_t each = (CONTEXT / (block ? block : 1) + 1) *
                              yyjson_get_uint(yyjson_obj_get(memory, "kv_block_bytes")) +
                          yyjson_get_uint(yyjson_obj_get(memory, "window_blocks_per_sequence")) *
                              yyjson_get_uint(yyjson_obj_get(memory, "window_block_bytes")) +
                          yyjson_get_uint(yyjson_obj_get(memory, "state_bytes_per_sequence"));
    snprintf(b->kv_memory, sizeof b->kv_memory, "kv.memory=%llu",
             (unsigned long long)each * (unsigned)b->largest);
    b->prompt = context < CONTEXT ? (int)context - OTHER_ANSWER : PROMPT;
    yyjson_doc_free(doc);
    imp_free(json);
    imp_options_free(options);
}

/* more: settings with a space between them. NULL with *err filled if it does not open. */
static struct imp_engine *open_engine(const struct bits *b, const char *more, int batch,
                                      struct imp_error *err) {
    struct imp_options *options = imp_options_new();
    struct imp_engine *engine = NULL;
    char text[300], context[40], dtype[40], *rest = text;
    snprintf(text, sizeof text, "runtime.max_batch=%d %s", batch, more);
    snprintf(context, sizeof context, "runtime.context=%d", b->prompt + OTHER_ANSWER);
    snprintf(dtype, sizeof dtype, "kv.dtype=%s", b->dtype);
    int rc = options_add(options, context, err);
    if (rc == 0) rc = options_add(options, b->kv_memory, err);
    if (rc == 0) rc = options_add(options, dtype, err);
    for (const char *const *s = b->settings; *s && rc == 0; s++) rc = options_add(options, *s, err);
    for (char *s; (s = strtok_r(rest, " ", &rest)) && rc == 0;) rc = options_add(options, s, err);
    if (rc == 0) rc = imp_open(b->model, options, &engine, err);
    imp_options_free(options);
    return engine;
}

/* ---- running ---- */

static struct imp_request greedy_request(const struct bits *b, const struct imp_engine *engine) {
    const int n = b->prompt < GREEDY_PROMPT ? b->prompt : GREEDY_PROMPT;
    struct imp_request r = drawn_request(engine, b->ids, n, ANSWER);
    r.temperature = 0;
    r.repetition_penalty = 1;
    r.prompt_logits = 1;
    return r;
}

/* Others answer for longer, so that they are still there when the request ends; a few have a prompt
 * of some length. */
static struct imp_request other_request(const struct bits *b, const struct imp_engine *engine,
                                        int i) {
    const int n = i % 8 == 7 ? OTHER_PROMPT : 1 + i % 12;
    struct imp_request r = drawn_request(engine, b->other_ids[i], n, OTHER_ANSWER);
    r.seed = (uint64_t)i;
    r.temperature = i % 2 ? 0.9f : 0;
    return r;
}

/* The request at `place` of a batch. */
static void run(const struct bits *b, struct imp_engine *engine, const struct imp_request *request,
                int batch, int place, struct trace *t) {
    static struct imp_request requests[MAX_BATCH];
    static struct imp_stream *streams[MAX_BATCH];
    static struct trace other;
    struct imp_error err = {0};
    struct imp_info info;
    imp_info_get(engine, &info);
    for (int i = 0; i < batch; i++)
        requests[i] = i == place ? *request : other_request(b, engine, i);
    if (imp_submit(engine, requests, (size_t)batch, streams, &err) < 0) fail("submit", &err);
    bool came = trace_read(streams[place], info.vocab_size, t);
    for (int i = 0; i < batch; i++) {
        if (i != place && came) came = trace_read(streams[i], info.vocab_size, &other);
        imp_release(streams[i]);
    }
    if (t->done.error.code) fail("the request", &t->done.error);
    if (!came) fail("nothing came for a minute", &err);
}

static void compare(struct bits *b, const struct trace *want, const struct trace *got,
                    const char *which) {
    b->total++;
    if (trace_same(want, got)) {
        b->equal++;
        return;
    }
    const int at = trace_parting(want, got);
    if (b->parting[0]) return;
    if (at < 0)
        snprintf(b->parting, sizeof b->parting, "  first: logits of the prompt");
    else
        snprintf(b->parting, sizeof b->parting, "  first: %s, token %d", which, at);
}

static void run_both(struct bits *b, struct imp_engine *engine, int batch, int place) {
    static struct trace t;
    const struct imp_request greedy = greedy_request(b, engine);
    const struct imp_request drawn = drawn_request(engine, b->ids, b->prompt, ANSWER);
    run(b, engine, &greedy, batch, place, &t);
    compare(b, &b->greedy, &t, "greedy");
    run(b, engine, &drawn, batch, place, &t);
    compare(b, &b->drawn, &t, "drawn");
}

static void report(struct bits *b, const char *name) {
    b->differing += b->equal < b->total;
    printf("%-52s %d/%d equal%s\n", name, b->equal, b->total, b->parting);
    fflush(stdout);
    b->equal = b->total = 0;
    b->parting[0] = 0;
}

/* ---- variants ---- */

/* Alone so often, then beside seven in three places. */
static const struct variant {
    const char *settings;
    int share; /* of the repeats, one in so many: steps of one token take their time */
} VARIANTS[] = {
    {"", 1},
    {"runtime.prefill_chunk=1", 16},
    {"runtime.prefill_chunk=7", 8},
    {"runtime.prefill_chunk=64", 4},
    {"runtime.prefill_chunk=512", 4},
    {"runtime.prefill_chunk=4096", 4},
    {"runtime.graphs=never", 1},
    {"runtime.pdl=false", 4},
    {"runtime.graphs=never runtime.pdl=false", 4},
    {"runtime.warmup=false", 4},
    {"runtime.prefix_cache=false", 4},
    {"runtime.preempt_every=3", 8},
    {"kv.shuffle=99", 4},
    {"kv.shuffle=7 runtime.graphs=never", 4},
};

static const struct variant FP8_VARIANTS[] = {
    {"", 4}, {"runtime.prefill_chunk=7", 8}, {"runtime.graphs=never", 4}, {"kv.shuffle=99", 4}};

static void run_variant(struct bits *b, const struct variant *v) {
    enum { BESIDE = 8 };
    struct imp_error err = {0};
    char name[100];
    struct imp_engine *engine = open_engine(b, v->settings, BESIDE, &err);
    if (engine == NULL) fail(v->settings, &err);
    const int repeats = b->repeats / v->share > 0 ? b->repeats / v->share : 1;
    for (int i = 0; i < repeats; i++) run_both(b, engine, 1, 0);
    for (int i = 0; i < 3; i++) run_both(b, engine, BESIDE, i * (BESIDE - 1) / 2);
    imp_close(engine);
    snprintf(name, sizeof name, "%s, %s", b->dtype, v->settings[0] ? v->settings : "again");
    report(b, name);
}

static void run_batches(struct bits *b, const char *settings) {
    struct imp_error err = {0};
    struct imp_info info;
    char name[100];
    struct imp_engine *engine = open_engine(b, settings, b->largest, &err);
    if (engine == NULL) fail(settings, &err);
    for (int batch = 2; batch <= b->largest; batch *= 2) {
        for (int i = 0; i < 3; i++) run_both(b, engine, batch, i * (batch - 1) / 2);
        snprintf(name, sizeof name, "%s, one of %d%s", b->dtype, batch,
                 settings[0] ? ", chunks of 4096, no graphs" : "");
        report(b, name);
    }
    imp_info_get(engine, &info);
    if (info.preemptions > 0) {
        snprintf(err.message, sizeof err.message, "memory was short: %llu times a sequence waited",
                 (unsigned long long)info.preemptions);
        fail("batches", &err);
    }
    imp_close(engine);
}

/* The run that all others are held against. False if this kv.dtype is not there. */
static bool run_first(struct bits *b, const char *dtype) {
    struct imp_error err = {0};
    b->dtype = dtype;
    struct imp_engine *engine = open_engine(b, "", 1, &err);
    if (engine == NULL && err.code == IMP_ERR_UNSUPPORTED) {
        printf("kv.dtype=%s is not there: %s\n", dtype, err.message);
        return false;
    }
    if (engine == NULL) fail(b->model, &err);
    random_prompt(engine, 1, b->ids, b->prompt);
    for (int i = 0; i < MAX_BATCH; i++)
        random_prompt(engine, (uint64_t)i + 50, b->other_ids[i], OTHER_PROMPT);
    const struct imp_request greedy = greedy_request(b, engine);
    const struct imp_request drawn = drawn_request(engine, b->ids, b->prompt, ANSWER);
    run(b, engine, &greedy, 1, 0, &b->greedy);
    run(b, engine, &drawn, 1, 0, &b->drawn);
    imp_close(engine);
    return true;
}

static uint64_t hash_of(const struct bits *b) {
    uint64_t h = b->greedy.prompt_hash;
    const struct trace *both[] = {&b->greedy, &b->drawn};
    for (int i = 0; i < 2; i++) {
        h = XXH64(both[i]->token, (size_t)both[i]->count * sizeof(int32_t), h);
        h = XXH64(both[i]->hash, (size_t)both[i]->count * sizeof(uint64_t), h);
    }
    return h;
}

/* ---- the command ---- */

static const char USAGE[] = "device_bits MODEL [--device D] [--set KEY=VALUE] [--repeats N] "
                            "[--batch N] [--hash-only] [--expect-differs]";

static void add_setting(struct bits *b, const char *setting) {
    if (b->setting_count < MAX_SETTINGS) b->settings[b->setting_count++] = setting;
}

static bool parse(struct bits *b, char **argument) {
    static char device[64] = "runtime.device=cuda";
    add_setting(b, device);
    for (; *argument; argument++) {
        const char *name = *argument;
        if (name[0] != '-')
            b->model = name;
        else if (strcmp(name, "--hash-only") == 0)
            b->hash_only = true;
        else if (strcmp(name, "--expect-differs") == 0)
            b->expect_differs = true;
        else if (*++argument == NULL)
            return false;
        else if (strcmp(name, "--set") == 0)
            add_setting(b, *argument);
        else if (strcmp(name, "--repeats") == 0)
            b->repeats = atoi(*argument);
        else if (strcmp(name, "--batch") == 0)
            b->largest = atoi(*argument);
        else if (strcmp(name, "--device") == 0)
            snprintf(device, sizeof device, "runtime.device=%s", *argument);
        else
            return false;
    }
    return b->model && b->largest >= 1 && b->largest <= MAX_BATCH;
}

/* Everything with one element type of the cache; the hash of its first run, 0 if it is not there.
 */
static uint64_t run_dtype(struct bits *b, const char *dtype) {
    const bool fp8 = strcmp(dtype, "fp8") == 0;
    const struct variant *v = fp8 ? FP8_VARIANTS : VARIANTS;
    const size_t count = fp8 ? sizeof FP8_VARIANTS / sizeof *v : sizeof VARIANTS / sizeof *v;
    if (!run_first(b, dtype)) return 0;
    if (b->hash_only) return hash_of(b);
    for (size_t i = 0; i < count; i++) run_variant(b, &v[i]);
    run_batches(b, "");
    if (!fp8) run_batches(b, "runtime.graphs=never runtime.prefill_chunk=4096");
    return hash_of(b);
}

int main(int argc, char **argv) {
    static struct bits b = {.repeats = 32, .largest = MAX_BATCH};
    if (argc < 2 || !parse(&b, argv + 1)) {
        fprintf(stderr, "%s\n", USAGE);
        return 2;
    }
    plan_memory(&b);
    const uint64_t bf16 = run_dtype(&b, "bf16"), fp8 = run_dtype(&b, "fp8");
    printf("hash %016llx %016llx\n", (unsigned long long)bf16, (unsigned long long)fp8);
    return b.expect_differs ? b.differing == 0 : b.differing > 0;
}
