/* Requests to an engine and what comes of them: settings as text, prompts of random ids, and
 * traces, which hold what a caller sees. Without cmocka, for programs that run where it is not. */
#ifndef IMP_TESTS_SUPPORT_REQUESTS_H
#define IMP_TESTS_SUPPORT_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/rng.h"
#include "imp/imp.h"

enum { TRACE_TOKENS = 100, TRACE_TIMEOUT_MS = 60000 };

struct trace {
    int count;
    int32_t token[TRACE_TOKENS];
    uint64_t hash[TRACE_TOKENS]; /* of the logits that the token was drawn from */
    uint64_t prompt_hash;        /* of the prompt's logits, if they were asked for */
    struct imp_event done;       /* its error tells whether the stream went well */
};

/* setting: "key=value". */
static inline int options_add(struct imp_options *options, const char *setting,
                              struct imp_error *err) {
    char key[100];
    const size_t n = strcspn(setting, "=");
    snprintf(key, sizeof key, "%.*s", (int)n, setting);
    return imp_options_set(options, key, setting[n] ? setting + n + 1 : "", err);
}

static inline void random_prompt(const struct imp_engine *engine, uint64_t salt, int32_t *ids,
                                 int count) {
    struct imp_info info;
    imp_info_get(engine, &info);
    for (int i = 0; i < count; i++)
        ids[i] = (int32_t)(rng_uniform(salt, 0, (uint64_t)i) * info.vocab_size);
}

/* One that draws, with everything set that can change a draw; hot, since small models are sure of
 * themselves. */
static inline struct imp_request drawn_request(const struct imp_engine *engine, const int32_t *ids,
                                               int count, uint32_t answer) {
    struct imp_request r;
    imp_request_init(engine, &r);
    r.prompt = ids;
    r.prompt_tokens = (size_t)count;
    r.max_tokens = answer;
    r.temperature = 3;
    r.top_p = 0.95f;
    r.top_k = 0;
    r.repetition_penalty = 1.1f;
    r.seed = 42;
    r.ignore_eos = 1;
    return r;
}

/* Reads a stream to its end. False: nothing came for a minute. */
static inline bool trace_read(struct imp_stream *stream, uint32_t vocab, struct trace *t) {
    struct imp_event event;
    memset(t, 0, sizeof *t);
    for (;;) {
        if (imp_next(stream, TRACE_TIMEOUT_MS, &event) != 1) return false;
        if (event.kind == IMP_EVENT_DONE) break;
        for (uint32_t i = 0; event.kind == IMP_EVENT_LOGITS && i < event.rows; i++)
            t->prompt_hash =
                XXH64(event.logits + (size_t)i * vocab, vocab * sizeof(float), t->prompt_hash);
        if (event.kind != IMP_EVENT_TOKEN || t->count == TRACE_TOKENS) continue;
        t->token[t->count] = event.token;
        t->hash[t->count++] = event.logits_hash;
    }
    t->done = event;
    return true;
}

/* The first token at which the runs part, their common count if none, -1: the prompt's logits. */
static inline int trace_parting(const struct trace *a, const struct trace *b) {
    int i = 0;
    if (a->prompt_hash != b->prompt_hash) return -1;
    while (i < a->count && i < b->count && a->token[i] == b->token[i] && a->hash[i] == b->hash[i])
        i++;
    return i;
}

static inline bool trace_same(const struct trace *a, const struct trace *b) {
    return a->count == b->count && a->done.finish == b->done.finish &&
           trace_parting(a, b) == a->count;
}

#endif
