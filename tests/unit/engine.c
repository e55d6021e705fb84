/* The engine over every small checkpoint of tests/data/models: one arithmetic, and good manners.
 *
 * The same request must give the same tokens and the same logits, bit for bit, however it is cut
 * into chunks, whoever runs beside it, with any number of threads, wherever its KV blocks lie, with
 * and without a cached prefix. A trace holds what a caller sees: ids and the hash of each row. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/requests.h"

enum { MAX_MODELS = 128, ANSWER = 24, LONG_ANSWER = TRACE_TOKENS, LONG_PROMPT = 150 };

static char models[MAX_MODELS][512];
static int model_count;

/* Under a sanitizer one model of each kind of state, or the test takes many minutes. */
static bool is_wanted(const char *name) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    static const char *const some[] = {"tiny-gqa-nvfp4", "tiny-mistral-window",
                                       "tiny-qwen3-moe-modelopt", "tiny-qwen3.5-moe",
                                       "tiny-gemma4-ple"};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        if (strcmp(name, some[i]) == 0) return true;
    }
    return false;
#else
    return name[0] != '.';
#endif
}

static int find_models(void **state) {
    (void)state;
    const char *root = IMP_SOURCE_DIR "/tests/data/models";
    DIR *dir = opendir(root);
    if (dir == NULL) return -1;
    for (struct dirent *d; (d = readdir(dir)) && model_count < MAX_MODELS;) {
        if (!is_wanted(d->d_name)) continue;
        char config[1024];
        snprintf(config, sizeof config, "%s/%s/config.json", root, d->d_name);
        FILE *f = fopen(config, "r");
        if (f == NULL) continue;
        fclose(f);
        snprintf(models[model_count++], sizeof models[0], "%s/%s", root, d->d_name);
    }
    closedir(dir);
    return model_count > 0 ? 0 : -1;
}

/* settings: "key=value" strings, NULL at the end. */
static struct imp_engine *open_with(const char *path, const char *const *settings) {
    struct imp_options *options = imp_options_new();
    struct imp_error err = {0};
    struct imp_engine *engine = NULL;
    assert_int_equal(imp_options_set(options, "runtime.device", "cpu", NULL), 0);
    for (; *settings; settings++) {
        if (options_add(options, *settings, &err) < 0) fail_msg("%s", err.message);
    }
    if (imp_open(path, options, &engine, &err) < 0) fail_msg("%s: %s", err.where, err.message);
    imp_options_free(options);
    return engine;
}

/* The least kv.memory with which the model opens, within a sixteenth. */
static size_t least_memory(const char *path, const char *const *settings) {
    for (size_t memory = 4096;; memory += memory / 16) {
        struct imp_options *options = imp_options_new();
        struct imp_engine *engine = NULL;
        char value[32];
        snprintf(value, sizeof value, "%zu", memory);
        assert_int_equal(imp_options_set(options, "runtime.device", "cpu", NULL), 0);
        for (const char *const *s = settings; *s; s++)
            assert_int_equal(options_add(options, *s, NULL), 0);
        assert_int_equal(imp_options_set(options, "kv.memory", value, NULL), 0);
        int rc = imp_open(path, options, &engine, NULL);
        imp_options_free(options);
        imp_close(engine);
        if (rc == 0) return memory;
    }
}

static struct imp_request request_of(const struct imp_engine *engine, const int32_t *ids, int n) {
    return drawn_request(engine, ids, n, ANSWER);
}

static void read_trace(struct imp_stream *stream, struct trace *t) {
    assert_true(trace_read(stream, 0, t));
}

static void run_one(struct imp_engine *engine, const struct imp_request *r, struct trace *t) {
    struct imp_stream *stream;
    struct imp_error err = {0};
    if (imp_submit(engine, r, 1, &stream, &err) < 0) fail_msg("%s", err.message);
    read_trace(stream, t);
    imp_release(stream);
}

static void assert_same(const struct trace *a, const struct trace *b, const char *what) {
    if (trace_same(a, b)) return;
    fail_msg("%s: the runs part at token %d of %d and %d", what, trace_parting(a, b), a->count,
             b->count);
}

static void same_whatever_the_settings(const char *path, const char *reference) {
    static const char *const variants[] = {
        "runtime.prefill_chunk=1", "runtime.prefill_chunk=7", "runtime.prefill_chunk=64",
        "runtime.threads=1",       "runtime.threads=2",       "runtime.threads=3",
        "kv.shuffle=12345",        "runtime.warmup=false",    "runtime.prefix_cache=false",
        "runtime.max_batch=1",     "runtime.preempt_every=3",
    };
    int32_t ids[LONG_PROMPT];
    struct trace first, other;
    const char *base[] = {reference, NULL};
    struct imp_engine *engine = open_with(path, base);
    random_prompt(engine, 1, ids, LONG_PROMPT);
    struct imp_request r = request_of(engine, ids, LONG_PROMPT);
    run_one(engine, &r, &first);
    assert_int_equal(first.count, ANSWER);
    imp_close(engine);
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        const char *with[] = {reference, variants[i], NULL};
        engine = open_with(path, with);
        run_one(engine, &r, &other);
        assert_same(&first, &other, variants[i]);
        imp_close(engine);
    }
}

static void same_beside_others_and_again(const char *path, const char *reference) {
    enum { OTHERS = 7 };
    int32_t ids[1 + OTHERS][LONG_PROMPT];
    struct imp_request r[1 + OTHERS];
    struct imp_stream *streams[1 + OTHERS];
    struct trace alone, t;
    const char *with[] = {reference, NULL};
    struct imp_engine *engine = open_with(path, with);
    random_prompt(engine, 1, ids[0], LONG_PROMPT);
    r[0] = request_of(engine, ids[0], LONG_PROMPT);
    run_one(engine, &r[0], &alone);
    for (int i = 0; i < 31; i++) { /* from the second on with a cached prefix */
        run_one(engine, &r[0], &t);
        assert_same(&alone, &t, "repeat");
    }
    for (int i = 1; i <= OTHERS; i++) {
        random_prompt(engine, (uint64_t)i + 50, ids[i], LONG_PROMPT);
        r[i] = request_of(engine, ids[i], 20 * i);
        r[i].seed = (uint64_t)i;
    }
    for (int place = 0; place <= OTHERS; place += OTHERS) {
        struct imp_request swap = r[0];
        r[0] = r[place];
        r[place] = swap;
        assert_int_equal(imp_submit(engine, r, 1 + OTHERS, streams, NULL), 0);
        for (int i = 0; i <= OTHERS; i++) {
            read_trace(streams[i], &t);
            if (i == place) assert_same(&alone, &t, "beside seven others");
            imp_release(streams[i]);
        }
        r[place] = r[0];
        r[0] = swap;
    }
    struct imp_info info;
    imp_info_get(engine, &info);
    assert_int_equal(info.step_allocations, 0);
    imp_close(engine);
}

/* Memory for little more than two whole sequences, and eight that want it. */
static void same_if_preempted(const char *path, const char *reference) {
    enum { SEQS = 8 };
    int32_t ids[SEQS][LONG_PROMPT];
    struct imp_request r[SEQS];
    struct imp_stream *streams[SEQS];
    struct trace alone[SEQS], t;
    struct imp_info info;
    const char *with[] = {reference, "runtime.context=256", NULL, NULL};
    struct imp_engine *engine = open_with(path, with);
    for (int i = 0; i < SEQS; i++) {
        random_prompt(engine, (uint64_t)i + 90, ids[i], LONG_PROMPT);
        r[i] = request_of(engine, ids[i], 110 + i);
        r[i].max_tokens = LONG_ANSWER;
        r[i].seed = (uint64_t)i;
        run_one(engine, &r[i], &alone[i]);
    }
    imp_close(engine);
    char setting[64];
    snprintf(setting, sizeof setting, "kv.memory=%zu", least_memory(path, with) * 23 / 10);
    with[2] = setting;
    engine = open_with(path, with);
    assert_int_equal(imp_submit(engine, r, SEQS, streams, NULL), 0);
    for (int i = 0; i < SEQS; i++) {
        read_trace(streams[i], &t);
        assert_same(&alone[i], &t, "preempted");
        imp_release(streams[i]);
    }
    imp_info_get(engine, &info);
    assert_true(info.preemptions > 0);
    imp_close(engine);
}

static void fast_path_is_one_arithmetic(void **state) {
    (void)state;
    for (int i = 0; i < model_count; i++) {
        same_whatever_the_settings(models[i], "runtime.reference=false");
        same_beside_others_and_again(models[i], "runtime.reference=false");
    }
    /* One whose layers all see everything: only their blocks can run out. */
    same_if_preempted(IMP_SOURCE_DIR "/tests/data/models/tiny-gqa-nvfp4",
                      "runtime.reference=false");
}

static void reference_is_one_arithmetic(void **state) {
    (void)state;
    for (int i = 0; i < model_count; i++)
        same_whatever_the_settings(models[i], "runtime.reference=true");
    same_beside_others_and_again(models[0], "runtime.reference=true");
}

/* Logits of the prompt's last position are those that the first token is drawn from. */
static void prompt_logits_are_the_same_rows(void **state) {
    (void)state;
    int32_t ids[LONG_PROMPT];
    const char *none[] = {NULL};
    struct imp_engine *engine = open_with(models[0], none);
    struct imp_stream *stream;
    struct imp_event event;
    struct imp_info info;
    imp_info_get(engine, &info);
    random_prompt(engine, 1, ids, LONG_PROMPT);
    struct imp_request r = request_of(engine, ids, LONG_PROMPT);
    r.temperature = 0;
    r.repetition_penalty = 1;
    r.max_tokens = 1;
    r.prompt_logits = 1;
    assert_int_equal(imp_submit(engine, &r, 1, &stream, NULL), 0);
    uint32_t rows = 0;
    int32_t best = -1;
    for (;;) {
        assert_int_equal(imp_next(stream, 60000, &event), 1);
        if (event.kind == IMP_EVENT_DONE) break;
        if (event.kind == IMP_EVENT_TOKEN) assert_int_equal(event.token, best);
        if (event.kind != IMP_EVENT_LOGITS) continue;
        assert_int_equal(event.position, rows);
        rows += event.rows;
        const float *last = event.logits + (size_t)(event.rows - 1) * info.vocab_size;
        best = 0;
        for (uint32_t i = 1; i < info.vocab_size; i++) {
            if (last[i] > last[best]) best = (int32_t)i;
        }
    }
    assert_int_equal(rows, LONG_PROMPT);
    imp_release(stream);
    imp_close(engine);
}

static void bad_requests_are_refused(void **state) {
    (void)state;
    int32_t ids[LONG_PROMPT];
    const char *with[] = {"runtime.context=200", NULL};
    struct imp_engine *engine = open_with(models[0], with);
    struct imp_stream *stream;
    struct imp_error err;
    random_prompt(engine, 1, ids, LONG_PROMPT);
    const struct imp_request good = request_of(engine, ids, LONG_PROMPT);
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        struct imp_request r = good;                                                               \
        change;                                                                                    \
        assert_int_equal(imp_submit(engine, &r, 1, &stream, &err), IMP_ERR_REQUEST);               \
        assert_true(err.message[0] != 0);                                                          \
    } while (0)
    REFUSED(r.prompt_tokens = 0);
    REFUSED(r.max_tokens = 51);
    REFUSED(r.temperature = -1);
    REFUSED(r.temperature = (float)(0.0 / 0.0 * 1.0));
    REFUSED(r.top_p = 0);
    REFUSED(r.top_p = 1.5f);
    REFUSED(r.min_p = -1);
    REFUSED(r.top_k = -2);
    REFUSED(r.repetition_penalty = 0);
    REFUSED(r.logprobs = 22);
    REFUSED(r.stop_count = 1; r.stop = (const char *const[]){""});
    int32_t wrong[2] = {1, 1 << 30};
    REFUSED(r.prompt = wrong; r.prompt_tokens = 2);
    wrong[1] = -1;
    REFUSED(r.prompt = wrong; r.prompt_tokens = 2);
#undef REFUSED
    struct trace t;
    run_one(engine, &good, &t); /* and the engine goes on */
    assert_int_equal(t.count, ANSWER);
    imp_close(engine);
}

static void cancelled_ends_once(void **state) {
    (void)state;
    int32_t ids[LONG_PROMPT];
    const char *with[] = {"runtime.max_batch=2", NULL};
    struct imp_engine *engine = open_with(models[0], with);
    struct imp_stream *streams[4];
    struct imp_request r[4];
    struct imp_event event;
    random_prompt(engine, 1, ids, LONG_PROMPT);
    for (int i = 0; i < 4; i++) {
        r[i] = request_of(engine, ids, LONG_PROMPT);
        r[i].max_tokens = IMP_MAX_TOKENS_REST;
    }
    assert_int_equal(imp_submit(engine, r, 4, streams, NULL), 0);
    imp_cancel(streams[3]); /* while it waits */
    imp_cancel(streams[3]);
    assert_int_equal(imp_next(streams[0], 60000, &event), 1);
    imp_cancel(streams[0]); /* while it runs */
    for (int i = 0; i < 4; i += 3) {
        do assert_int_equal(imp_next(streams[i], 60000, &event), 1);
        while (event.kind != IMP_EVENT_DONE);
        assert_int_equal(event.finish, IMP_FINISH_ERROR);
        assert_int_equal(event.error.code, IMP_ERR_CANCELLED);
        assert_int_equal(imp_next(streams[i], 0, &event), 0);
    }
    imp_release(streams[0]);
    imp_release(streams[1]); /* without reading it */
    imp_release(streams[3]);
    imp_close(engine); /* while the third may still run */
    do assert_int_equal(imp_next(streams[2], 60000, &event), 1);
    while (event.kind != IMP_EVENT_DONE);
    imp_release(streams[2]);
}

/* A reader that does not come stalls its own sequence and nobody else's. */
static void slow_reader_stalls_itself_only(void **state) {
    (void)state;
    int32_t ids[8];
    const char *none[] = {NULL};
    struct imp_engine *engine = open_with(models[0], none);
    struct imp_stream *slow;
    struct trace t;
    random_prompt(engine, 1, ids, 8);
    struct imp_request r = request_of(engine, ids, 8);
    r.max_tokens = 248; /* more events than the ring holds */
    assert_int_equal(imp_submit(engine, &r, 1, &slow, NULL), 0);
    struct imp_request quick = request_of(engine, ids, 8);
    for (int i = 0; i < 20; i++) run_one(engine, &quick, &t);
    struct imp_event event;
    uint32_t tokens = 0;
    do {
        assert_int_equal(imp_next(slow, 60000, &event), 1);
        tokens += event.kind == IMP_EVENT_TOKEN;
    } while (event.kind != IMP_EVENT_DONE);
    assert_int_equal(tokens, 248);
    assert_int_equal(event.generated_tokens, 248);
    imp_release(slow);
    imp_close(engine);
}

/* The text of one kind of part, from its events. */
static void read_parts(struct imp_engine *engine, const struct imp_request *r, imp_part kind,
                       char *text, size_t room) {
    struct imp_stream *stream;
    struct imp_event event;
    size_t used = 0;
    int tokens = 0;
    assert_int_equal(imp_submit(engine, r, 1, &stream, NULL), 0);
    do {
        assert_int_equal(imp_next(stream, 60000, &event), 1);
        tokens += event.kind == IMP_EVENT_TOKEN;
        if (event.text_bytes == 0) continue;
        assert_int_equal(event.part, kind);
        assert_true(used + event.text_bytes < room);
        memcpy(text + used, event.text, event.text_bytes);
        used += event.text_bytes;
    } while (event.kind != IMP_EVENT_DONE);
    assert_int_equal(event.generated_tokens, tokens);
    assert_int_equal(imp_next(stream, 1000, &event), 0);
    text[used] = 0;
    imp_release(stream);
}

/* Taking a reply apart changes no byte of it, and allocates nothing in a step. */
static void parts_are_the_same_text(void **state) {
    (void)state;
    static char whole[65536], content[65536], reasoning[65536];
    static const char template[] = "<tool_call></think>";
    const char *none[] = {NULL};
    struct imp_engine *engine = open_with(models[0], none);
    struct imp_info info;
    int32_t *ids;
    size_t count;
    assert_int_equal(imp_tokenize(engine, "go on", 5, 0, &ids, &count, NULL), 0);
    struct imp_request r = request_of(engine, ids, (int)count);
    r.max_tokens = 200;
    read_parts(engine, &r, IMP_PART_CONTENT, whole, sizeof whole);
    r.reply_parts = 1;
    r.chat_template = template;
    read_parts(engine, &r, IMP_PART_CONTENT, content, sizeof content);
    assert_string_equal(content, whole);
    imp_free(ids);
    assert_int_equal(imp_tokenize(engine, "go on <think>", 13, 0, &ids, &count, NULL), 0);
    r.prompt = ids;
    r.prompt_tokens = count;
    read_parts(engine, &r, IMP_PART_REASONING, reasoning, sizeof reasoning);
    r.reply_parts = 0;
    read_parts(engine, &r, IMP_PART_CONTENT, whole, sizeof whole);
    const char *text = whole + strspn(whole, "\n"); /* newlines before it belong to no part */
    assert_string_equal(reasoning, text);
    r.reply_parts = 1;
    r.tools = "{}";
    struct imp_error err = {0};
    struct imp_stream *stream;
    assert_int_equal(imp_submit(engine, &r, 1, &stream, &err), IMP_ERR_REQUEST);
    imp_info_get(engine, &info);
    assert_int_equal(info.step_allocations, 0);
    imp_free(ids);
    imp_close(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_the_same_text),
        cmocka_unit_test(fast_path_is_one_arithmetic),
        cmocka_unit_test(reference_is_one_arithmetic),
        cmocka_unit_test(prompt_logits_are_the_same_rows),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(cancelled_ends_once),
        cmocka_unit_test(slow_reader_stalls_itself_only),
    };
    return cmocka_run_group_tests(tests, find_models, NULL);
}
