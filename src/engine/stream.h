/* One request from submission to its last event: the sequence inside the engine, the stream
 * outside.
 *
 * Two parties hold it, each with a reference: the caller and the engine's thread. The fields up to
 * `lock` are the engine's alone after submission; the ring between them is guarded by `lock`. All
 * memory a request will ever need is allocated at submission, so a step allocates nothing: when the
 * ring is full the sequence just is not stepped until the caller has taken events. */
#ifndef IMP_ENGINE_STREAM_H
#define IMP_ENGINE_STREAM_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/limits.h"
#include "engine/stop.h"
#include "text/reply.h"
#include "text/tokenizer.h"

struct imp_engine;

/* TEXT_ROOM is more than one step can make printable, but for tokens of absurd length and for what
 * a reply held back (REPLY_ROOM: a value of a call, escaped). */
enum {
    STREAM_EVENTS = 64,
    STREAM_PARTS = 4 * STREAM_EVENTS,
    STREAM_TEXT_BYTES = 32768,
    STREAM_TEXT_ROOM = 8192,
    STREAM_REPLY_ROOM = 6 * CAP_REPLY_HELD,
    STREAM_SHOWN = 32, /* at least the markers of any format */
};

/* One event of the engine; imp_next hands out one for each part of its text. */
struct event_slot {
    struct imp_event event; /* text, part, top_* and logits are filled in when it is handed out */
    size_t part_at, part_count, text_at; /* in the stream's parts */
    int32_t top_ids[20];
    float top_logprobs[20];
};

enum seq_state { SEQ_QUEUED, SEQ_RUNNING, SEQ_DONE };

struct imp_stream {
    /* the sequence: the engine's thread */
    struct imp_engine *engine;
    int number; /* in order of submission, from 0 */
    enum seq_state state;
    struct imp_request request; /* its pointers lead into our own copies */
    int32_t *tokens;            /* [capacity] prompt, then answer */
    int capacity, prompt_count, token_count;
    int computed;    /* tokens whose KV is in the cache */
    int published;   /* full blocks handed to the prefix cache */
    int delivered;   /* prompt tokens whose logits the caller got; prompt_count if it wants none */
    int32_t *blocks; /* [block_capacity] */
    int block_count, block_capacity;
    /* Of layers with a window: by logical block, -1 where none is held; those taken and not in use;
     * the first logical block that may be held. */
    int32_t *window_blocks; /* [block_capacity] or NULL */
    int32_t *spare_blocks;  /* [limits.window_blocks] */
    int spare_count, window_first;
    int32_t slot; /* of recurrent state, and of everything that a seat holds */
    int32_t *seen, *seen_generated,
        *seen_index; /* for penalties; index: [vocab] 1 + place in seen */
    int seen_count;
    struct detok detok;
    int32_t shown[STREAM_SHOWN]; /* special tokens that the reply must see */
    struct reply *reply;         /* NULL: all text is content */
    struct stop_filter stop;
    struct str piece, clear;        /* scratch: out of the detokenizer, out of the stop filter */
    struct reply_parts parts, said; /* scratch: out of the reply; what the event says */
    bool text_closed;               /* a stop string was found: no more text */
    float *logits;                  /* [stream_rows, vocab] with prompt_logits */
    double submitted_ms, started_ms, first_token_ms;
    struct imp_stream *next; /* in the inbox */

    /* between the two */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int refs, cancelled;
    struct event_slot *ring; /* [STREAM_EVENTS] */
    unsigned head, tail;     /* free-running; tail is the next to hand out */
    struct reply_parts text; /* of the events in the ring; emptied when the ring is */
    bool logits_taken;       /* an event with `logits` is in the ring or in the caller's hands */
    bool ended;              /* DONE is in the ring or was taken */

    /* the caller's: what the last imp_next handed out */
    struct event_slot taken;
    struct reply_parts taken_text;
    size_t taken_parts, taken_bytes; /* of it, handed out */
};

/* Checks the request against limits and allocates everything. IMP_ERR_REQUEST with the sum. style:
 * how the model talks, for a request with reply_parts. */
int stream_create(struct imp_engine *engine, const struct limits *limits, int64_t vocab,
                  const struct tokenizer *tokenizer, struct reply_style style,
                  const struct imp_request *request, struct imp_stream **out,
                  struct imp_error *err);
void stream_unref(struct imp_stream *stream);

/* Room for the events of one more step? */
bool stream_has_room(struct imp_stream *stream);
bool stream_has_room_locked(const struct imp_stream *stream); /* the caller holds `lock` */
/* Takes more of the text that the model made, as bytes: said gets what is certain of it, content
 * without what a stop string ends. Engine's thread. */
void stream_say(struct imp_stream *stream, const char *text, size_t bytes);
void stream_say_end(struct imp_stream *stream);
/* Puts an event with what `said` holds into the ring, and wakes the caller. Engine's thread. */
void stream_push(struct imp_stream *stream, const struct event_slot *slot);

/* Counts a token for the penalties, if they are on. generated: it belongs to the answer. */
void stream_count_token(struct imp_stream *stream, int32_t id, bool generated);

#endif
