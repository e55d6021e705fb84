#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

static void finish(struct imp_engine *e, struct imp_stream *seq, imp_finish why,
                   const struct imp_error *error) {
    struct event_slot slot = {.event = {.kind = IMP_EVENT_DONE, .finish = why}};
    double now = clock_ms();
    str_clear(&seq->piece);
    if (!seq->text_closed) {
        detok_end(&seq->detok, &seq->piece);
        stream_say(seq, seq->piece.data, seq->piece.size);
        stream_say_end(seq);
    }
    if (error) slot.event.error = *error;
    slot.event.prompt_tokens = (uint32_t)seq->prompt_count;
    slot.event.generated_tokens = (uint32_t)(seq->token_count - seq->prompt_count);
    double started = seq->started_ms > 0 ? seq->started_ms : now;
    double first = seq->first_token_ms > 0 ? seq->first_token_ms : now;
    slot.event.queue_ms = started - seq->submitted_ms;
    slot.event.prefill_ms = first - started;
    slot.event.decode_ms = now - first;
    scheduler_remove(&e->scheduler, seq);
    stream_push(seq, &slot);
    stream_unref(seq);
}

static void fail(struct imp_engine *e, struct imp_stream *seq, int code, const char *message) {
    struct imp_error error;
    error_set(&error, code, "", "%s", message);
    finish(e, seq, IMP_FINISH_ERROR, &error);
}

/* ---- commit: what a step's results do to the sequences ---- */

static bool is_eos(const struct imp_engine *e, int32_t id) {
    for (int i = 0; i < e->model.desc.eos_count; i++) {
        if (e->model.desc.eos[i] == id) return true;
    }
    return false;
}

static void push_token(struct imp_stream *seq, const struct sample_result *r) {
    struct event_slot slot = {.event = {.kind = IMP_EVENT_TOKEN, .token = r->token}};
    slot.event.logits_hash = r->logits_hash;
    if (seq->request.logprobs > 0) {
        slot.event.logprob = r->logprob;
        slot.event.top_count = (uint32_t)(seq->request.logprobs - 1);
        memcpy(slot.top_ids, r->top_ids, sizeof slot.top_ids);
        memcpy(slot.top_logprobs, r->top_logprobs, sizeof slot.top_logprobs);
    }
    stream_push(seq, &slot);
}

static void commit_token(struct imp_engine *e, struct imp_stream *seq,
                         const struct sample_result *r) {
    if (!r->finite) {
        fail(e, seq, IMP_ERR_NUMERIC, "the logits of this sequence are not finite");
        return;
    }
    if (seq->token_count == seq->prompt_count) seq->first_token_ms = clock_ms();
    bool end = is_eos(e, r->token) && !seq->request.ignore_eos;
    str_clear(&seq->piece);
    seq->tokens[seq->token_count++] = r->token;
    stream_count_token(seq, r->token, true);
    if (!end) {
        detok_add(&seq->detok, r->token, &seq->piece);
        stream_say(seq, seq->piece.data, seq->piece.size);
    }
    push_token(seq, r);
    int generated = seq->token_count - seq->prompt_count;
    if (end || seq->text_closed) {
        finish(e, seq, IMP_FINISH_STOP, NULL);
    } else if (generated >= (int)seq->request.max_tokens) {
        finish(e, seq, IMP_FINISH_LENGTH, NULL);
    }
}

static void push_prompt_logits(struct imp_engine *e, const struct plan_entry *entry, int out_row) {
    struct imp_stream *seq = entry->seq;
    const int64_t vocab = e->model.desc.vocab;
    e->backend->ops->read(e->backend, seq->logits, e->model.logits + out_row * vocab,
                          (size_t)entry->out_count * (size_t)vocab * sizeof(float));
    struct event_slot slot = {.event = {.kind = IMP_EVENT_LOGITS,
                                        .rows = (uint32_t)entry->out_count,
                                        .position = (uint32_t)seq->delivered}};
    seq->delivered += entry->out_count;
    stream_push(seq, &slot);
}

static struct sample_row sample_row_of(const struct imp_stream *seq) {
    const struct imp_request *r = &seq->request;
    return (struct sample_row){.temperature = r->temperature,
                               .top_p = r->top_p,
                               .min_p = r->min_p,
                               .repetition_penalty = r->repetition_penalty,
                               .presence_penalty = r->presence_penalty,
                               .frequency_penalty = r->frequency_penalty,
                               .top_k = r->top_k,
                               .seed = r->seed,
                               .position = (uint64_t)seq->token_count,
                               .seen = seq->seen,
                               .generated = seq->seen_generated,
                               .seen_count = seq->seen_count,
                               .top_count = r->logprobs > 0 ? r->logprobs - 1 : 0,
                               .want_logprob = r->logprobs > 0};
}

/* Lists the rows to be sampled. Returns how many. */
static int list_samples(struct imp_engine *e) {
    int samples = 0, out_row = 0;
    for (int i = 0; i < e->plan.count; i++) {
        const struct plan_entry *entry = &e->plan.entry[i];
        const struct imp_stream *seq = entry->seq;
        out_row += entry->out_count;
        if (seq->computed + entry->count < seq->token_count || seq->request.max_tokens == 0)
            continue;
        e->sample_rows[samples] = sample_row_of(seq);
        e->sample_from[samples] = out_row - 1;
        e->sample_entry[samples++] = i;
    }
    return samples;
}

/* The step's rows count from here on: their KV may be found by others, prompt logits go out. */
static void advance(struct imp_engine *e) {
    int out_row = 0;
    for (int i = 0; i < e->plan.count; i++) {
        const struct plan_entry *entry = &e->plan.entry[i];
        entry->seq->computed += entry->count;
        scheduler_computed(&e->scheduler, entry->seq);
        if (entry->prompt_logits && entry->out_count > 0) push_prompt_logits(e, entry, out_row);
        out_row += entry->out_count;
    }
}

/* Ends the step. */
static int sample(struct imp_engine *e, int samples, struct imp_error *err) {
    struct op_sample op = {.logits = e->model.logits,
                           .vocab = e->model.desc.vocab,
                           .usable = e->usable_vocab,
                           .row = e->sample_from,
                           .params = e->sample_rows,
                           .results = e->sample_results,
                           .count = samples};
    if (samples > 0) e->backend->ops->sample(e->backend, &op);
    return e->backend->ops->step_end(e->backend, err);
}

static void commit(struct imp_engine *e, int samples) {
    advance(e);
    for (int i = 0; i < samples; i++)
        commit_token(e, e->plan.entry[e->sample_entry[i]].seq, &e->sample_results[i]);
    for (int i = 0; i < e->plan.count; i++) {
        struct imp_stream *seq = e->plan.entry[i].seq;
        /* A sequence that ended above may be freed: only those without an answer are looked at. */
        bool sampled = false;
        for (int j = 0; j < samples; j++) sampled |= e->sample_entry[j] == i;
        if (!sampled && seq->computed == seq->token_count && seq->request.max_tokens == 0)
            finish(e, seq, IMP_FINISH_LENGTH, NULL);
    }
}

/* One step. False if no sequence could be stepped. */
static bool step(struct imp_engine *e) {
    scheduler_plan(&e->scheduler, &e->plan);
    if (e->plan.rows == 0) return false;
    uint64_t before = mem_calls();
    struct batch batch;
    struct imp_error error = {0};
    batch_fill(&e->arrays, &e->plan, &e->limits.step, &batch);
    model_queue(&e->model, &batch, trace_begin(e->trace, &e->plan, &batch));
    const int samples = list_samples(e);
    int rc = sample(e, samples, &error);
    if (rc == 0) rc = trace_end(e->trace, &error);
    if (rc == 0) {
        commit(e, samples);
    } else {
        for (int i = 0; i < e->plan.count; i++)
            finish(e, e->plan.entry[i].seq, IMP_FINISH_ERROR, &error);
    }
    atomic_fetch_add(&e->step_allocations, mem_calls() - before);
    atomic_store(&e->preemptions, e->scheduler.preemptions);
    return true;
}

/* ---- the thread ---- */

static void end_cancelled(struct imp_engine *e, bool all) {
    struct scheduler *s = &e->scheduler;
    for (int i = s->running_count; i-- > 0;) {
        if (all || atomic_load(&s->running[i]->cancelled))
            fail(e, s->running[i], IMP_ERR_CANCELLED, "cancelled");
    }
    for (int i = s->queue_count; i-- > 0;) {
        if (all || atomic_load(&s->queue[i]->cancelled))
            fail(e, s->queue[i], IMP_ERR_CANCELLED, "cancelled");
    }
}

/* Moves the inbox over. Waits first if nothing changed since the last step found no work. */
static bool take_inbox(struct imp_engine *e, bool idle) {
    pthread_mutex_lock(&e->lock);
    while (idle && !e->changed && !e->stop) pthread_cond_wait(&e->wake, &e->lock);
    e->changed = false;
    struct imp_stream *seq = e->inbox;
    e->inbox = NULL;
    e->inbox_end = &e->inbox;
    bool stop = e->stop;
    pthread_mutex_unlock(&e->lock);
    while (seq) {
        struct imp_stream *next = seq->next;
        seq->number = e->submitted++;
        scheduler_add(&e->scheduler, seq);
        seq = next;
    }
    return !stop;
}

static void *engine_main(void *arg) {
    struct imp_engine *e = arg;
    bool idle = false;
    while (take_inbox(e, idle)) {
        end_cancelled(e, false);
        idle = !step(e);
    }
    end_cancelled(e, true);
    return NULL;
}

int engine_start(struct imp_engine *e, struct imp_error *err) {
    const size_t batch = (size_t)e->limits.max_batch;
    kv_create(&e->kv, e->limits.kv_blocks, (uint64_t)e->options.value[SETTING_KV_SHUFFLE]);
    seats_create(&e->seats, &e->limits, (uint64_t)e->options.value[SETTING_KV_SHUFFLE]);
    scheduler_create(&e->scheduler, &e->limits, &e->kv, &e->seats,
                     e->options.value[SETTING_PREFIX_CACHE] != 0);
    e->scheduler.preempt_every = e->options.value[SETTING_PREEMPT_EVERY];
    batch_create(&e->arrays, &e->limits.step);
    e->plan.entry = mem_zero(batch, sizeof *e->plan.entry);
    e->sample_rows = mem_zero(batch, sizeof *e->sample_rows);
    e->sample_results = mem_zero(batch, sizeof *e->sample_results);
    e->sample_from = mem_zero(batch, sizeof *e->sample_from);
    e->sample_entry = mem_zero(batch, sizeof *e->sample_entry);
    e->inbox_end = &e->inbox;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->wake, NULL);
    int failed = pthread_create(&e->thread, NULL, engine_main, e);
    if (failed)
        return error_set(err, IMP_ERR_IO, NULL, "cannot start the engine's thread: %s",
                         strerror(failed));
    e->thread_started = true;
    return 0;
}

void engine_stop(struct imp_engine *e) {
    if (e->thread_started) {
        pthread_mutex_lock(&e->lock);
        e->stop = true;
        pthread_cond_signal(&e->wake);
        pthread_mutex_unlock(&e->lock);
        pthread_join(e->thread, NULL);
        pthread_mutex_destroy(&e->lock);
        pthread_cond_destroy(&e->wake);
        e->thread_started = false;
    }
    scheduler_destroy(&e->scheduler);
    seats_destroy(&e->seats);
    kv_destroy(&e->kv);
    batch_destroy(&e->arrays);
    free(e->plan.entry);
    free(e->sample_rows);
    free(e->sample_results);
    free(e->sample_from);
    free(e->sample_entry);
}

void engine_submit(struct imp_engine *e, struct imp_stream **streams, size_t count) {
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < count; i++) {
        *e->inbox_end = streams[i];
        e->inbox_end = &streams[i]->next;
    }
    e->changed = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
}

void engine_wake(struct imp_engine *e) {
    pthread_mutex_lock(&e->lock);
    e->changed = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
}
