/* imp: NVFP4-quantised language models on a CPU or an NVIDIA GPU. The only public header.
 *
 * Owns nothing itself. An `imp_engine` is one opened model with one thread that runs its steps; an
 * `imp_stream` is one request inside it. Everything a call returns through an `out` pointer belongs
 * to the caller, who frees it with the function named beside it; strings handed out are UTF-8.
 *
 * Threads: any thread may call any function on any engine. Two threads may not use the same
 * imp_stream at once, except that imp_cancel may come from anywhere.
 *
 * Errors: functions return 0 or a negative imp_status and fill *err, which may be NULL. What a user
 * or a file can cause is always an error, never an abort; a NULL where none is allowed aborts.
 *
 * One arithmetic: the events of a request depend on the model's files, the device kind, the options
 * under `numerics.`, `kv.dtype` and `runtime.reference`, and on the request itself. Never on other
 * requests, threads, chunking, or what ran before. */
#ifndef IMP_IMP_H
#define IMP_IMP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IMP_VERSION "0.1.0"

/* The `imp` program exits with the number at the right; 2 is a verdict that failed. */
typedef enum imp_status {
    IMP_OK = 0,
    IMP_ERR_USAGE = -1,       /* the caller's arguments make no sense                    exit 1 */
    IMP_ERR_FILE = -2,        /* a file is broken, or not what it should be              exit 3 */
    IMP_ERR_UNSUPPORTED = -3, /* a sound file that asks for something imp does not have  exit 4 */
    IMP_ERR_IO = -4,          /* the system refused: open, read, write, full disk        exit 5 */
    IMP_ERR_MEMORY = -5,      /* does not fit: the message shows the sum                 exit 6 */
    IMP_ERR_REQUEST = -6,     /* this request cannot be served as asked                  exit 7 */
    IMP_ERR_TEMPLATE = -7,    /* the chat template refused the conversation              exit 8 */
    IMP_ERR_DEVICE = -8,      /* the device failed or is missing                         exit 9 */
    IMP_ERR_NUMERIC = -9,     /* a row of logits was not finite                          exit 10 */
    IMP_ERR_CANCELLED = -10,  /* ended by imp_cancel or by a signal                      exit 11 */
    IMP_ERR_INTERNAL = -11,   /* a fault of imp itself                                   exit 12 */
} imp_status;

typedef struct imp_error {
    int code;          /* an imp_status */
    char message[400]; /* one line, no newline at the end, control characters escaped */
    char where[200];   /* "FILE", "FILE: tensor NAME", "FILE: byte N", "FILE: $.json.path", or "" */
} imp_error;

const char *imp_version(void);
const char *imp_status_name(int status); /* "file", "memory", ...; static */

/* ---- options ------------------------------------------------------------------------------- */

/* Settings by name, as on the command line ("runtime.threads" = "2"). An unknown key or a value out
 * of range is IMP_ERR_USAGE and names the nearest key. imp_options_new gives the defaults. */
typedef struct imp_options imp_options;
imp_options *imp_options_new(void);
void imp_options_free(imp_options *options); /* NULL is fine */
int imp_options_set(imp_options *options, const char *key, const char *value, imp_error *err);
/* Row i of the table of all keys; returns 0, or -1 past the end. Strings are static. */
typedef struct imp_option_info {
    const char *key, *type, *default_value, *help; /* type: "int", "size", "text", "a|b|c", ... */
} imp_option_info;
int imp_options_describe(size_t i, imp_option_info *out);

/* Log lines of the library go here and nowhere else. level: 0 error, 1 warning, 2 info, 3 debug.
 * Called from any thread; must not call back into imp. */
typedef void (*imp_log_fn)(void *ctx, int level, const char *line);
void imp_options_set_log(imp_options *options, imp_log_fn fn, void *ctx);

/* Progress of a long call: done and total in `unit`; total 0 = not known. Non-zero cancels it. */
typedef int (*imp_progress_fn)(void *ctx, const char *stage, uint64_t done, uint64_t total,
                               const char *unit);

/* ---- engine -------------------------------------------------------------------------------- */

typedef struct imp_engine imp_engine;

/* Opens a model folder (config.json, tokenizer.json or tekken.json, *.safetensors), checks every
 * tensor, plans memory, allocates all of it, and starts the engine's thread. options may be NULL.
 */
int imp_open(const char *path, const imp_options *options, imp_engine **out, imp_error *err);
/* Only the tokenizer and the chat template, also those of a GGUF file: imp_tokenize,
 * imp_detokenize, imp_render_chat work. */
int imp_open_text(const char *path, const imp_options *options, imp_engine **out, imp_error *err);
void imp_close(imp_engine *engine); /* ends all streams with IMP_ERR_CANCELLED; NULL is fine */

typedef struct imp_info {
    const char *name, *family, *device, *quantisation; /* live as long as the engine */
    uint64_t parameters, weight_bytes;                 /* bytes as held for the device */
    uint64_t bytes_per_step; /* weights read by one decode step of one row */
    uint64_t kv_bytes_per_token;
    uint32_t vocab_size, context_tokens, layers, hidden_size, max_batch, threads;
    int nvfp4_activations; /* numerics.activations=nvfp4 is on */
    int32_t bos_id;        /* -1: none */
    uint32_t eos_count;
    const int32_t *eos_ids;
    float temperature, top_p, min_p; /* generation_config.json's defaults */
    int32_t top_k;
    float repetition_penalty;
    uint64_t step_allocations; /* allocations made inside steps so far: 0 */
    uint64_t preemptions;      /* how often a sequence gave its KV back to wait, so far */
} imp_info;
void imp_info_get(const imp_engine *engine, imp_info *out);

/* What is in a checkpoint, as a JSON document: tensors, dtypes, dialect, bits per weight, family,
 * shape, memory plan. A folder with config.json alone will do (no tensors then). Freed with
 * imp_free; also there when the files are sound but imp cannot run them (IMP_ERR_UNSUPPORTED). */
int imp_inspect(const char *path, const imp_options *options, char **json, imp_error *err);

/* ---- text ---------------------------------------------------------------------------------- */

#define IMP_TEXT_PLAIN       1u /* text that looks like a special token is plain text */
#define IMP_TEXT_ADD_SPECIAL 2u /* add what the tokenizer's post-processor adds (BOS) */

/* text need not be UTF-8: each broken byte counts as U+FFFD. *ids is freed with imp_free. */
int imp_tokenize(const imp_engine *engine, const char *text, size_t bytes, unsigned flags,
                 int32_t **ids, size_t *count, imp_error *err);
/* *text is zero-terminated besides *bytes; freed with imp_free. skip_special leaves out specials.
 */
int imp_detokenize(const imp_engine *engine, const int32_t *ids, size_t count, int skip_special,
                   char **text, size_t *bytes, imp_error *err);

/* A conversation as JSON: {"messages": [...], "tools": [...], "add_generation_prompt": true,
 * "kwargs": {...}}. Gives the rendered prompt and/or its ids (either may be NULL); bytes that came
 * from a message never become special ids unless text.special_in_messages is set.
 * template_source replaces the model's template when not NULL. */
int imp_render_chat(const imp_engine *engine, const char *conversation_json, size_t json_bytes,
                    const char *template_source, char **text, size_t *bytes, int32_t **ids,
                    size_t *count, imp_error *err);
void imp_free(void *p); /* what the functions above handed out; NULL is fine */

/* ---- requests ------------------------------------------------------------------------------ */

typedef struct imp_stream imp_stream;

#define IMP_MAX_TOKENS_REST UINT32_MAX

/* imp_request_init sets every field to the model's defaults (generation_config.json; temperature
 * 0.7, top_p 0.95, top_k 40 where it says nothing); then set what differs. */
typedef struct imp_request {
    const int32_t *prompt; /* ids; copied by imp_submit */
    size_t prompt_tokens;
    uint32_t max_tokens;      /* 0: prompt only; IMP_MAX_TOKENS_REST: what the context holds */
    float temperature;        /* 0: the most likely token */
    float top_p, min_p;       /* 1 and 0: off */
    int32_t top_k;            /* 0: off */
    float repetition_penalty; /* 1: off; divides or multiplies logits of tokens seen */
    float presence_penalty, frequency_penalty; /* 0: off; subtract, over generated tokens */
    uint64_t seed;
    const char *const *stop; /* strings that end the answer; not part of it */
    size_t stop_count;
    int ignore_eos;
    int logprobs; /* 0: none; 1: of the chosen token; 1 + n: and of the n most likely, n <= 20 */
    int prompt_logits; /* deliver the logits of every prompt position (IMP_EVENT_LOGITS) */
    /* 1: the prompt is a chat's, so events tell reasoning and tool calls from content, and stop
     * strings are looked for in the content alone. 0: all text is content, as it comes. */
    int reply_parts;
    const char *chat_template; /* that made the prompt; NULL: the model's own */
    const char *tools; /* the JSON array that the template was given; NULL: none. For reply_parts */
} imp_request;
void imp_request_init(const imp_engine *engine, imp_request *request);

/* Queues requests; all of them enter the same step if they fit. streams[i] is ended by
 * imp_release. One that can never fit is IMP_ERR_REQUEST, and then none is queued. */
int imp_submit(imp_engine *engine, const imp_request *requests, size_t count, imp_stream **streams,
               imp_error *err);

typedef enum imp_event_kind {
    IMP_EVENT_TOKEN,  /* one token; text is what became printable with it, maybe "" */
    IMP_EVENT_PART,   /* more text of the token before: another part of the reply begins */
    IMP_EVENT_LOGITS, /* prompt rows [rows, vocab_size], first row is prompt position `position` */
    IMP_EVENT_DONE,   /* the last event: finish tells why; text is what was still held back */
} imp_event_kind;

/* What a text is to the reply. A call is IMP_PART_CALL, perhaps IMP_PART_CALL_ID, arguments in any
 * number of pieces, and one of the two ends. */
typedef enum imp_part {
    IMP_PART_CONTENT,   /* the answer itself */
    IMP_PART_REASONING, /* what the model thinks before it */
    IMP_PART_CALL,      /* a tool call begins: text is the tool's name, all of it */
    IMP_PART_CALL_ID,   /* the id that the model gave the call; some do */
    IMP_PART_ARGUMENTS, /* more of the call's arguments, an object as JSON text */
    IMP_PART_CALL_END,  /* the call is whole; no text */
    IMP_PART_CALL_CUT,  /* the call broke off: what came of its arguments is no JSON; no text */
} imp_part;

typedef enum imp_finish { IMP_FINISH_STOP, IMP_FINISH_LENGTH, IMP_FINISH_ERROR } imp_finish;

typedef struct imp_event {
    imp_event_kind kind;
    int32_t token;
    const char *text; /* whole UTF-8 characters; pointers live until the next call on the stream */
    size_t text_bytes;
    imp_part part; /* what the text is; IMP_PART_CONTENT without reply_parts */
    uint32_t call; /* of the parts of a call: which one in the reply, from 0 */
    float logprob; /* natural log, of the model's own distribution; with logprobs only */
    uint32_t top_count;
    const int32_t *top_ids;
    const float *top_logprobs;
    const float *logits; /* IMP_EVENT_LOGITS */
    uint32_t rows, position;
    uint64_t logits_hash; /* of the fp32 row that the token was drawn from */
    imp_finish finish;    /* IMP_EVENT_DONE from here on */
    imp_error error;
    uint32_t prompt_tokens, generated_tokens;
    double queue_ms, prefill_ms, decode_ms; /* until the first step; to the first token; from it */
} imp_event;

/* Waits for the next event, timeout_ms < 0: for ever. Returns 1 with an event; 0 on time-out, and
 * at once after DONE was taken. */
int imp_next(imp_stream *stream, int timeout_ms, imp_event *out);
void imp_cancel(imp_stream *stream);  /* its DONE event then says IMP_ERR_CANCELLED */
void imp_release(imp_stream *stream); /* cancels if it must, frees; NULL is fine */

/* ---- making checkpoints -------------------------------------------------------------------- */

typedef struct imp_quantize_options {
    const char *source, *destination; /* source: GGUF file or folder; destination: a new folder */
    const char *format;               /* "compressed-tensors" (NULL) or "modelopt" */
    const char *method;               /* "none", "amax", "sweep", "weighted" (NULL) */
    uint32_t threads;                 /* 0: all */
    imp_progress_fn progress;
    void *progress_ctx;
    imp_log_fn log;
    void *log_ctx;
} imp_quantize_options;
/* The folder appears whole or not at all. */
int imp_quantize(const imp_quantize_options *options, imp_error *err);

typedef struct imp_synth_options {
    const char *config, *destination; /* config: a config.json or its folder */
    const char *format;               /* "bf16", "compressed-tensors" (NULL), "modelopt", "mxfp4" */
    uint32_t layers, vocab;           /* 0: the model's */
    uint64_t seed;
    uint32_t threads; /* 0: all */
    imp_progress_fn progress;
    void *progress_ctx;
    imp_log_fn log;
    void *log_ctx;
} imp_synth_options;
/* A checkpoint of random weights in the shapes of `config`. Appears whole or not at all. */
int imp_synth(const imp_synth_options *options, imp_error *err);

#ifdef __cplusplus
}
#endif
#endif
