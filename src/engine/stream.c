#include "engine/stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/clock.h"
#include "base/error.h"

static int refuse(struct imp_error *err, const char *field, const char *range) {
    return error_set(err, IMP_ERR_REQUEST, field, "%s must be %s", field, range);
}

static int check_sampling(const struct imp_request *r, struct imp_error *err) {
    if (!(r->temperature >= 0 && r->temperature <= 100))
        return refuse(err, "temperature", "from 0 to 100");
    if (!(r->top_p > 0 && r->top_p <= 1)) return refuse(err, "top_p", "above 0 and at most 1");
    if (!(r->min_p >= 0 && r->min_p <= 1)) return refuse(err, "min_p", "from 0 to 1");
    if (r->top_k < 0) return refuse(err, "top_k", "0 or more");
    if (!(r->repetition_penalty > 0 && r->repetition_penalty <= 100))
        return refuse(err, "repetition_penalty", "above 0 and at most 100");
    if (!(fabsf(r->presence_penalty) <= 100))
        return refuse(err, "presence_penalty", "from -100 to 100");
    if (!(fabsf(r->frequency_penalty) <= 100))
        return refuse(err, "frequency_penalty", "from -100 to 100");
    if (r->logprobs < 0 || r->logprobs > 1 + CAP_LOGPROBS)
        return refuse(err, "logprobs", "from 0 to 21");
    if (r->stop_count > CAP_STOP_STRINGS) return refuse(err, "stop", "at most 64 strings");
    for (size_t i = 0; i < r->stop_count; i++) {
        size_t n = r->stop[i] ? strlen(r->stop[i]) : 0;
        if (n == 0 || n > CAP_STOP_BYTES) return refuse(err, "stop", "strings of 1 to 4096 bytes");
    }
    return 0;
}

static int check_lengths(const struct limits *limits, int64_t vocab, const struct imp_request *r,
                         struct imp_error *err) {
    if (r->prompt_tokens == 0) return refuse(err, "prompt", "at least one token");
    for (size_t i = 0; i < r->prompt_tokens; i++) {
        if (r->prompt[i] < 0 || r->prompt[i] >= vocab)
            return error_set(err, IMP_ERR_REQUEST, "prompt",
                             "token id %d at place %zu is not in the vocabulary of %lld",
                             r->prompt[i], i, (long long)vocab);
    }
    bool rest = r->max_tokens == IMP_MAX_TOKENS_REST;
    uint64_t need = r->prompt_tokens + (rest ? 1 : (uint64_t)r->max_tokens);
    if (need > (uint64_t)limits->context)
        return error_set(err, IMP_ERR_REQUEST, "prompt",
                         "%zu prompt tokens and %u to answer are more than the context of %lld",
                         r->prompt_tokens, rest ? 1 : r->max_tokens, (long long)limits->context);
    int64_t blocks = ((int64_t)need + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    if (blocks > limits->kv_blocks)
        return error_set(err, IMP_ERR_REQUEST, "prompt",
                         "needs %lld KV blocks of %d tokens, the engine has %d: raise kv.memory",
                         (long long)blocks, KV_BLOCK_TOKENS, limits->kv_blocks);
    return 0;
}

static bool has_penalties(const struct imp_request *r) {
    return r->repetition_penalty != 1 || r->presence_penalty != 0 || r->frequency_penalty != 0;
}

void stream_count_token(struct imp_stream *s, int32_t id, bool generated) {
    if (s->seen == NULL) return;
    int place = s->seen_index[id] - 1;
    if (place < 0) {
        place = s->seen_count++;
        s->seen_index[id] = place + 1;
        s->seen[place] = id;
        s->seen_generated[place] = 0;
    }
    if (generated) s->seen_generated[place]++;
}

static void allocate(struct imp_stream *s, const struct limits *limits, int64_t vocab,
                     const struct tokenizer *tokenizer, const struct imp_request *r, size_t shown) {
    int64_t room = limits->context - (int64_t)r->prompt_tokens;
    int64_t answer = r->max_tokens == IMP_MAX_TOKENS_REST ? room : r->max_tokens;
    s->request.max_tokens = (uint32_t)answer;
    s->prompt_count = s->token_count = (int)r->prompt_tokens;
    s->capacity = s->prompt_count + (int)answer;
    s->delivered = r->prompt_logits ? 0 : s->prompt_count;
    s->tokens = mem_alloc((size_t)s->capacity * sizeof *s->tokens);
    memcpy(s->tokens, r->prompt, r->prompt_tokens * sizeof *s->tokens);
    s->block_capacity = (s->capacity + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    if (s->block_capacity > limits->kv_blocks) { /* "the rest" of a small KV pool */
        s->block_capacity = limits->kv_blocks;
        s->capacity = limits->kv_blocks * KV_BLOCK_TOKENS;
        s->request.max_tokens = (uint32_t)(s->capacity - s->prompt_count);
    }
    s->blocks = mem_alloc((size_t)s->block_capacity * sizeof *s->blocks);
    if (limits->window_blocks > 0) {
        s->window_blocks = mem_alloc((size_t)s->block_capacity * sizeof *s->window_blocks);
        memset(s->window_blocks, 0xff, (size_t)s->block_capacity * sizeof *s->window_blocks);
        s->spare_blocks = mem_alloc((size_t)limits->window_blocks * sizeof *s->spare_blocks);
    }
    if (has_penalties(r)) {
        int64_t most = s->capacity < vocab ? s->capacity : vocab;
        s->seen = mem_alloc((size_t)most * sizeof *s->seen);
        s->seen_generated = mem_alloc((size_t)most * sizeof *s->seen_generated);
        s->seen_index = mem_zero((size_t)vocab, sizeof *s->seen_index);
        for (int i = 0; i < s->prompt_count; i++) stream_count_token(s, s->tokens[i], false);
    }
    if (r->prompt_logits)
        s->logits = mem_alloc((size_t)limits->stream_rows * (size_t)vocab * sizeof *s->logits);
    s->ring = mem_zero(STREAM_EVENTS, sizeof *s->ring);
    size_t held = s->reply ? STREAM_REPLY_ROOM : 0;
    reply_parts_reserve(&s->text, STREAM_PARTS, STREAM_TEXT_BYTES + held);
    reply_parts_reserve(&s->taken_text, 16, STREAM_TEXT_ROOM);
    reply_parts_reserve(&s->said, 16, STREAM_TEXT_ROOM + held);
    if (s->reply) reply_parts_reserve(&s->parts, 16, STREAM_TEXT_ROOM + held);
    stop_filter_init(&s->stop, r->stop, r->stop_count);
    str_reserve(&s->stop.held, CAP_STOP_BYTES + STREAM_TEXT_ROOM + held);
    str_reserve(&s->piece, STREAM_TEXT_ROOM);
    str_reserve(&s->clear, STREAM_TEXT_ROOM + held);
    detok_init(&s->detok, tokenizer, true);
    s->detok.shown = s->shown;
    s->detok.shown_count = shown;
}

/* ---- the reply ---- */

/* The end of the prompt as text: the last marker in it decides where the reply begins. Enough
 * tokens for any format's opening. */
static void prompt_end(const struct tokenizer *t, const struct imp_request *r, struct str *out) {
    const size_t most = 48, n = r->prompt_tokens < most ? r->prompt_tokens : most;
    tokenizer_decode(t, r->prompt + r->prompt_tokens - n, n, false, out);
}

/* Special tokens are not text, but for those that a format marks its parts with. */
static size_t find_shown(const struct tokenizer *t, struct reply_style style, int32_t *shown) {
    size_t count = 0;
    const char *marker;
    for (size_t i = 0; (marker = reply_marker(style, i)) != NULL; i++) {
        int32_t id = tokenizer_find(t, marker, strlen(marker));
        if (id < 0 || !tokenizer_is_special(t, id)) continue;
        check(count < STREAM_SHOWN);
        shown[count++] = id;
    }
    return count;
}

static int open_reply(struct imp_stream *s, const struct tokenizer *t, struct reply_style style,
                      const struct imp_request *r, struct imp_error *err) {
    struct str end = {0};
    prompt_end(t, r, &end);
    struct slice text = {end.size ? end.data : "", end.size};
    struct slice tools = r->tools ? slice_of(r->tools) : (struct slice){NULL, 0};
    int rc = reply_open(style, text, tools, &s->reply, err);
    str_free(&end);
    return rc;
}

static void say_content(struct imp_stream *s, const char *text, size_t bytes) {
    str_clear(&s->clear);
    s->text_closed = stop_filter_add(&s->stop, text, bytes, &s->clear);
    if (s->clear.size > 0)
        reply_parts_add(&s->said, IMP_PART_CONTENT, 0, s->clear.data, s->clear.size);
}

/* Stop strings are looked for in the content alone, and never across another part. */
static void say_parts(struct imp_stream *s) {
    const char *text = s->parts.text.data;
    for (size_t i = 0; i < s->parts.count && !s->text_closed; text += s->parts.part[i++].bytes) {
        const struct reply_part *p = &s->parts.part[i];
        if (p->kind == IMP_PART_CONTENT) {
            say_content(s, text, p->bytes);
            continue;
        }
        str_clear(&s->clear);
        stop_filter_end(&s->stop, &s->clear);
        if (s->clear.size > 0)
            reply_parts_add(&s->said, IMP_PART_CONTENT, 0, s->clear.data, s->clear.size);
        reply_parts_add(&s->said, p->kind, p->call, text, p->bytes);
    }
    reply_parts_clear(&s->parts);
}

void stream_say(struct imp_stream *s, const char *text, size_t bytes) {
    if (s->text_closed) return;
    if (s->reply == NULL) {
        say_content(s, text, bytes);
        return;
    }
    reply_feed(s->reply, text, bytes, &s->parts);
    say_parts(s);
}

void stream_say_end(struct imp_stream *s) {
    if (s->text_closed) return;
    if (s->reply) {
        reply_end(s->reply, &s->parts);
        say_parts(s);
    }
    if (s->text_closed) return;
    str_clear(&s->clear);
    stop_filter_end(&s->stop, &s->clear);
    if (s->clear.size > 0)
        reply_parts_add(&s->said, IMP_PART_CONTENT, 0, s->clear.data, s->clear.size);
    s->text_closed = true;
}

int stream_create(struct imp_engine *engine, const struct limits *limits, int64_t vocab,
                  const struct tokenizer *tokenizer, struct reply_style style,
                  const struct imp_request *request, struct imp_stream **out,
                  struct imp_error *err) {
    int rc;
    size_t shown = 0;
    if ((rc = check_sampling(request, err)) < 0 ||
        (rc = check_lengths(limits, vocab, request, err)) < 0)
        return rc;
    struct imp_stream *s = mem_zero(1, sizeof *s);
    s->engine = engine;
    s->request = *request;
    if (request->reply_parts && (style.think || style.format != REPLY_NONE)) {
        if ((rc = open_reply(s, tokenizer, style, request, err)) < 0) {
            free(s);
            return rc;
        }
        shown = find_shown(tokenizer, style, s->shown);
    }
    allocate(s, limits, vocab, tokenizer, request, shown);
    s->request.prompt = s->tokens;
    s->request.stop = NULL; /* the filter has its own copies */
    s->request.chat_template = s->request.tools = NULL;
    s->submitted_ms = clock_ms();
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    atomic_init(&s->refs, 2);
    *out = s;
    return 0;
}

void stream_unref(struct imp_stream *s) {
    if (atomic_fetch_sub(&s->refs, 1) != 1) return;
    free(s->tokens);
    free(s->blocks);
    free(s->window_blocks);
    free(s->spare_blocks);
    free(s->seen);
    free(s->seen_generated);
    free(s->seen_index);
    free(s->logits);
    free(s->ring);
    reply_parts_free(&s->text);
    reply_parts_free(&s->taken_text);
    reply_parts_free(&s->parts);
    reply_parts_free(&s->said);
    reply_close(s->reply);
    stop_filter_free(&s->stop);
    str_free(&s->piece);
    str_free(&s->clear);
    detok_free(&s->detok);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    free(s);
}

/* ---- the ring ---- */

bool stream_has_room_locked(const struct imp_stream *s) {
    /* Two slots: the token of this step and the end. */
    return s->head - s->tail + 2 <= STREAM_EVENTS &&
           s->text.text.size + 2 * STREAM_TEXT_ROOM <= STREAM_TEXT_BYTES && !s->logits_taken;
}

bool stream_has_room(struct imp_stream *s) {
    pthread_mutex_lock(&s->lock);
    bool room = stream_has_room_locked(s);
    pthread_mutex_unlock(&s->lock);
    return room;
}

void stream_push(struct imp_stream *s, const struct event_slot *slot) {
    pthread_mutex_lock(&s->lock);
    struct event_slot *to = &s->ring[s->head % STREAM_EVENTS];
    *to = *slot;
    to->part_at = s->text.count;
    to->part_count = s->said.count;
    to->text_at = s->text.text.size;
    reply_parts_append(&s->text, s->said.part, s->said.count, s->said.text.data);
    reply_parts_clear(&s->said);
    if (slot->event.kind == IMP_EVENT_LOGITS) s->logits_taken = true;
    if (slot->event.kind == IMP_EVENT_DONE) s->ended = true;
    s->head++;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}
