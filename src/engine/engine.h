/* The engine: one opened model, one thread that steps it.
 *
 * The thread owns scheduler, KV, batch and everything in a running sequence. Others reach it
 * through the inbox (submissions) and through each stream (cancel, room in its ring); `wake` tells
 * it that something there changed. It never touches a socket, a template, or JSON. */
#ifndef IMP_ENGINE_ENGINE_H
#define IMP_ENGINE_ENGINE_H

#include "engine/batch.h"
#include "engine/trace.h"
#include "text/chat.h"

struct imp_engine {
    struct imp_options options;
    char *name; /* last part of the path */

    /* text: immutable after opening */
    struct tokenizer *tokenizer;
    struct chat *chat;

    /* model: immutable after opening but for what steps write; NULL backend: text only */
    struct checkpoint checkpoint;
    struct backend *backend;
    struct model model;
    struct limits limits;
    int64_t parameters;
    int64_t usable_vocab; /* ids that the tokenizer knows; the head may have more rows */
    struct imp_request defaults;
    char quantisation[64];

    /* the thread's own */
    struct kv kv;
    struct seats seats;
    struct scheduler scheduler;
    struct plan plan;
    struct trace *trace; /* NULL: none */
    int submitted;       /* requests so far */
    struct batch_arrays arrays;
    struct sample_row *sample_rows;       /* [max_batch] */
    struct sample_result *sample_results; /* [max_batch] */
    int32_t *sample_from;                 /* [max_batch] row of logits */
    int *sample_entry;                    /* [max_batch] index into plan.entry */

    /* shared */
    pthread_t thread;
    bool thread_started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct imp_stream *inbox, **inbox_end; /* in order of submission */
    bool stop, changed;
    atomic_ullong step_allocations, preemptions;
};

/* Starts the thread on an engine whose model is open and reserved. */
int engine_start(struct imp_engine *engine, struct imp_error *err);
/* Ends every stream with IMP_ERR_CANCELLED and joins the thread. */
void engine_stop(struct imp_engine *engine);
/* Appends `count` streams to the inbox at once. */
void engine_submit(struct imp_engine *engine, struct imp_stream **streams, size_t count);
void engine_wake(struct imp_engine *engine);

#endif
