/* Requests from the caller's side: submission, events, cancelling. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "engine/engine.h"

void imp_request_init(const struct imp_engine *engine, struct imp_request *request) {
    *request = engine->defaults;
}

/* How the model talks: as the option says, else as the chat template does. */
static struct reply_style style_of(const struct imp_engine *e, const struct imp_request *r) {
    int64_t chosen = e->options.value[SETTING_REPLY_FORMAT];
    struct reply_style style = r->chat_template ? reply_style_of(slice_of(r->chat_template))
                                                : chat_reply_style(e->chat, r->tools != NULL);
    if (chosen == REPLY_FORMAT_AUTO) return style;
    if (chosen == REPLY_FORMAT_NONE) return (struct reply_style){REPLY_NONE, false};
    style.format = (enum reply_format)(chosen - REPLY_FORMAT_NONE);
    style.think |= style.format == REPLY_HERMES || style.format == REPLY_QWEN_XML;
    return style;
}

int imp_submit(struct imp_engine *e, const struct imp_request *requests, size_t count,
               struct imp_stream **streams, struct imp_error *err) {
    check(e->thread_started);
    for (size_t i = 0; i < count; i++) {
        int rc = stream_create(e, &e->limits, e->model.desc.vocab, e->tokenizer,
                               style_of(e, &requests[i]), &requests[i], &streams[i], err);
        if (rc == 0) continue;
        while (i > 0) { /* never queued: both references are ours */
            stream_unref(streams[--i]);
            stream_unref(streams[i]);
        }
        return rc;
    }
    engine_submit(e, streams, count);
    return 0;
}

static bool wait_for_event(struct imp_stream *s, int timeout_ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    if (timeout_ms > 0) {
        until.tv_sec += timeout_ms / 1000;
        until.tv_nsec += timeout_ms % 1000 * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000L;
        }
    }
    while (s->head == s->tail) {
        if (s->ended) return false; /* DONE was taken: there will be no more */
        if (timeout_ms < 0) {
            pthread_cond_wait(&s->wake, &s->lock);
        } else if (pthread_cond_timedwait(&s->wake, &s->lock, &until) == ETIMEDOUT) {
            return s->head != s->tail;
        }
    }
    return true;
}

/* The next part of the slot that was taken. A token's event is its first part's, the end's its
 * last one's: nothing comes after DONE. */
static void hand_out(struct imp_stream *s, struct imp_event *out) {
    size_t i = s->taken_parts++, count = s->taken_text.count;
    *out = s->taken.event;
    out->text = s->taken_text.text.data + s->taken_bytes;
    if (i < count) {
        const struct reply_part *part = &s->taken_text.part[i];
        out->part = part->kind;
        out->call = part->call;
        out->text_bytes = part->bytes;
        s->taken_bytes += part->bytes;
    }
    bool extra = out->kind == IMP_EVENT_DONE ? i + 1 < count : i > 0;
    if (extra) out->kind = IMP_EVENT_PART;
    out->top_ids = s->taken.top_ids;
    out->top_logprobs = s->taken.top_logprobs;
    if (out->kind == IMP_EVENT_LOGITS) out->logits = s->logits;
}

int imp_next(struct imp_stream *s, int timeout_ms, struct imp_event *out) {
    if (s->taken_parts < s->taken_text.count) {
        hand_out(s, out);
        return 1;
    }
    pthread_mutex_lock(&s->lock);
    if (s->taken.event.kind == IMP_EVENT_LOGITS && s->taken.event.rows > 0) {
        /* Giving `logits` back lets a paused sequence go on: say so before waiting for it. */
        s->logits_taken = false;
        s->taken.event.rows = 0;
        bool live = !s->ended;
        pthread_mutex_unlock(&s->lock);
        if (live) engine_wake(s->engine);
        pthread_mutex_lock(&s->lock);
    }
    if (!wait_for_event(s, timeout_ms)) {
        pthread_mutex_unlock(&s->lock);
        return 0;
    }
    /* Asked here and not before the wait: the ring may have filled up meanwhile. */
    bool was_full = !stream_has_room_locked(s);
    s->taken = s->ring[s->tail % STREAM_EVENTS];
    s->taken_parts = s->taken_bytes = 0;
    reply_parts_clear(&s->taken_text);
    reply_parts_append(&s->taken_text, s->text.part + s->taken.part_at, s->taken.part_count,
                       s->text.text.data + s->taken.text_at);
    s->tail++;
    if (s->head == s->tail) reply_parts_clear(&s->text);
    bool wake = was_full && !s->ended;
    pthread_mutex_unlock(&s->lock);
    if (wake) engine_wake(s->engine);
    hand_out(s, out);
    return 1;
}

void imp_cancel(struct imp_stream *s) {
    pthread_mutex_lock(&s->lock);
    bool live = !s->ended;
    atomic_store(&s->cancelled, 1);
    pthread_mutex_unlock(&s->lock);
    if (live) engine_wake(s->engine);
}

void imp_release(struct imp_stream *s) {
    if (s == NULL) return;
    imp_cancel(s);
    stream_unref(s);
}
