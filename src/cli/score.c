/* imp score MODEL: perplexity of a text, comparison with a reference, logits of given ids. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/terminal.h"

/* ---- --ids: logits to .npy ---- */

struct ids_run {
    int32_t *ids;
    size_t count;
    imp_stream *stream;
    struct out_file out;
    bool done;
};

/* Version 1.0 of the format: magic, header length, a Python dict padded to 64 bytes. */
static void write_npy_header(FILE *out, size_t rows, size_t cols) {
    char dict[256], header[128];
    snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }",
             rows, cols);
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char)(sizeof header - 10);
    header[9] = 0;
    memcpy(header + 10, dict, strlen(dict));
    header[sizeof header - 1] = '\n';
    fwrite(header, 1, sizeof header, out);
}

/* OUT.npy for one sequence, OUT.0.npy and so on for several. */
static void numbered_name(const char *path, size_t i, size_t count, struct str *out) {
    size_t stem = strlen(path);
    if (slice_ends(slice_of(path), ".npy")) stem -= 4;
    if (count == 1)
        str_add_text(out, path);
    else
        str_printf(out, "%.*s.%zu%s", (int)stem, path, i, path + stem);
}

static int read_ids_file(const char *path, struct ids_run *run, imp_error *err) {
    struct str text = {0};
    int rc = file_read(path, CAP_TOKENIZER_BYTES, &text, err);
    if (rc == 0) rc = parse_ids(text.data, text.size, path, &run->ids, &run->count, err);
    if (rc == 0 && run->count == 0) rc = error_set(err, IMP_ERR_FILE, path, "holds no token");
    str_free(&text);
    return rc;
}

static int open_outputs(const struct options *options, struct ids_run *runs, size_t count,
                        size_t vocab, imp_error *err) {
    const char *path = options_text(options, OPT_LOGITS);
    for (size_t i = 0; path && i < count; i++) {
        struct str name = {0};
        numbered_name(path, i, count, &name);
        int rc = out_file_open(&runs[i].out, name.data, err);
        str_free(&name);
        if (rc < 0) return rc;
        write_npy_header(runs[i].out.stream, runs[i].count, vocab);
    }
    return 0;
}

/* Takes events of all streams in turn: one whose events are not taken just waits for us. */
static int drain_logits(struct ids_run *runs, size_t count, size_t vocab, imp_error *err) {
    size_t left = count;
    while (left > 0) {
        for (size_t i = 0; i < count; i++) {
            imp_event event;
            if (runs[i].done || !imp_next(runs[i].stream, left == 1 ? 200 : 5, &event)) continue;
            if (interrupt_pending()) return error_set(err, IMP_ERR_CANCELLED, NULL, "interrupted");
            if (event.kind == IMP_EVENT_LOGITS && runs[i].out.stream)
                fwrite(event.logits, sizeof(float) * vocab, event.rows, runs[i].out.stream);
            if (event.kind != IMP_EVENT_DONE) continue;
            if (event.finish == IMP_FINISH_ERROR) {
                *err = event.error;
                return event.error.code;
            }
            runs[i].done = true;
            left--;
        }
    }
    return 0;
}

static int run_ids(struct ids_run *runs, size_t count, imp_engine *engine,
                   const struct options *options, imp_error *err) {
    imp_info info;
    imp_info_get(engine, &info);
    imp_request *requests = mem_zero(count, sizeof *requests);
    imp_stream **streams = mem_zero(count, sizeof *streams);
    for (size_t i = 0; i < count; i++) {
        imp_request_init(engine, &requests[i]);
        requests[i].prompt = runs[i].ids;
        requests[i].prompt_tokens = runs[i].count;
        requests[i].max_tokens = 0;
        requests[i].prompt_logits = 1;
    }
    int rc = open_outputs(options, runs, count, info.vocab_size, err);
    if (rc == 0) rc = imp_submit(engine, requests, count, streams, err);
    if (rc == 0) {
        for (size_t i = 0; i < count; i++) runs[i].stream = streams[i];
        rc = drain_logits(runs, count, info.vocab_size, err);
        for (size_t i = 0; i < count; i++) imp_release(streams[i]);
    }
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (runs[i].out.stream) rc = out_file_close(&runs[i].out, err);
    }
    free(requests);
    free(streams);
    return rc;
}

int score_ids(const struct options *options, imp_engine *engine, imp_error *err) {
    const struct option_value *files = &options->values[OPT_IDS];
    struct ids_run *runs = mem_zero(files->count, sizeof *runs);
    int rc = 0;
    for (size_t i = 0; i < files->count && rc == 0; i++)
        rc = read_ids_file(files->texts[i], &runs[i], err);
    if (rc == 0) rc = run_ids(runs, files->count, engine, options, err);
    for (size_t i = 0; i < files->count; i++) {
        out_file_drop(&runs[i].out);
        free(runs[i].ids);
    }
    free(runs);
    return rc;
}

/* ---- --text: perplexity ---- */

struct totals {
    uint64_t tokens; /* predicted */
    double nll, kl;  /* sums */
    uint64_t agree;
};

struct text_run {
    imp_engine *engine, *reference; /* reference: NULL without --reference */
    uint32_t vocab;
    const int32_t *ids;
    size_t count, window;
    double *p, *q; /* [vocab] log-probabilities of a row */
    struct totals sum;
};

static size_t log_softmax(const float *row, uint32_t n, double *out) {
    size_t best = 0;
    for (uint32_t i = 1; i < n; i++) {
        if (row[i] > row[best]) best = i;
    }
    double max = (double)row[best], total = 0;
    for (uint32_t i = 0; i < n; i++) total += exp((double)row[i] - max);
    double norm = max + log(total);
    for (uint32_t i = 0; i < n; i++) out[i] = (double)row[i] - norm;
    return best;
}

static void add_row(struct text_run *run, const float *row, const float *reference,
                    int32_t target) {
    size_t best = log_softmax(row, run->vocab, run->p);
    run->sum.tokens++;
    run->sum.nll -= run->p[target];
    if (reference == NULL) return;
    double kl = 0;
    run->sum.agree += log_softmax(reference, run->vocab, run->q) == best;
    for (uint32_t i = 0; i < run->vocab; i++) kl += exp(run->q[i]) * (run->q[i] - run->p[i]);
    run->sum.kl += kl;
}

/* The next rows of a stream; a DONE that is an error ends everything. */
static int next_logits(imp_stream *stream, imp_event *event, imp_error *err) {
    for (;;) {
        if (interrupt_pending()) return error_set(err, IMP_ERR_CANCELLED, NULL, "interrupted");
        if (!imp_next(stream, 200, event)) continue;
        if (event->kind == IMP_EVENT_LOGITS) return 0;
        if (event->kind != IMP_EVENT_DONE) continue;
        if (event->finish != IMP_FINISH_ERROR)
            return error_set(err, IMP_ERR_INTERNAL, NULL, "the logits ended early");
        *err = event->error;
        return event->error.code;
    }
}

static int submit_window(imp_engine *engine, const int32_t *ids, size_t count, imp_stream **stream,
                         imp_error *err) {
    imp_request request;
    imp_request_init(engine, &request);
    request.prompt = ids;
    request.prompt_tokens = count;
    request.max_tokens = 0;
    request.prompt_logits = 1;
    return imp_submit(engine, &request, 1, stream, err);
}

/* Both engines cut a prompt at the same places: limits come from the same options. */
static int walk_window(struct text_run *run, const int32_t *ids, size_t count, imp_stream *stream,
                       imp_stream *reference, imp_error *err) {
    imp_event mine, theirs = {0};
    for (size_t row = 0; row < count;) {
        int rc = next_logits(stream, &mine, err);
        if (rc == 0 && reference) rc = next_logits(reference, &theirs, err);
        if (rc < 0) return rc;
        if (reference && (theirs.rows != mine.rows || theirs.position != mine.position))
            return error_set(err, IMP_ERR_INTERNAL, NULL, "the two models lost step");
        for (uint32_t i = 0; i < mine.rows && row + 1 < count; i++, row++)
            add_row(run, mine.logits + (size_t)i * run->vocab,
                    reference ? theirs.logits + (size_t)i * run->vocab : NULL, ids[row + 1]);
        if (mine.position + mine.rows >= count) return 0;
    }
    return 0;
}

static int score_window(struct text_run *run, size_t first, size_t count, imp_error *err) {
    imp_stream *stream = NULL, *reference = NULL;
    const int32_t *ids = run->ids + first;
    int rc = submit_window(run->engine, ids, count, &stream, err);
    if (rc == 0 && run->reference) rc = submit_window(run->reference, ids, count, &reference, err);
    if (rc == 0) rc = walk_window(run, ids, count, stream, reference, err);
    imp_release(stream);
    imp_release(reference);
    return rc;
}

static int score_windows(struct text_run *run, const struct options *options, imp_error *err) {
    struct progress progress = {.quiet = options_flag(options, OPT_QUIET)};
    int rc = 0;
    for (size_t first = 0; first + 2 <= run->count && rc == 0; first += run->window) {
        size_t left = run->count - first, count = left < run->window ? left : run->window;
        rc = score_window(run, first, count, err);
        progress_step(&progress, "scoring", first + count, run->count, "tokens");
    }
    progress_end(&progress);
    return rc;
}

static void print_totals(const struct totals *t, bool json, bool reference) {
    double n = (double)t->tokens, nll = t->nll / n;
    if (json) {
        printf("{\"tokens\": %llu, \"nll\": %.9g, \"perplexity\": %.9g, ",
               (unsigned long long)t->tokens, nll, exp(nll));
        if (reference)
            printf("\"kl\": %.9g, \"top1_agreement\": %.9g}\n", t->kl / n, (double)t->agree / n);
        else
            printf("\"kl\": null, \"top1_agreement\": null}\n");
        return;
    }
    printf("tokens predicted  %llu\nnll per token     %.5f\nperplexity        %.4f\n",
           (unsigned long long)t->tokens, nll, exp(nll));
    if (reference)
        printf("KL divergence     %.5f\ntop-1 agreement   %.2f %%\n", t->kl / n,
               100 * (double)t->agree / n);
}

static int check_reference(const imp_info *mine, imp_engine *reference, imp_error *err) {
    imp_info theirs;
    imp_info_get(reference, &theirs);
    if (theirs.vocab_size == mine->vocab_size) return 0;
    return error_set(err, IMP_ERR_USAGE, "--reference", "has %u logits, the model has %u",
                     theirs.vocab_size, mine->vocab_size);
}

static int score_text(const struct options *options, imp_engine *engine, imp_engine *reference,
                      imp_error *err) {
    struct text_run run = {.engine = engine,
                           .reference = reference,
                           .window = (size_t)options_int(options, OPT_WINDOW)};
    struct str text = {0};
    imp_info info;
    int32_t *ids = NULL;
    imp_info_get(engine, &info);
    run.vocab = info.vocab_size;
    int rc = reference ? check_reference(&info, reference, err) : 0;
    if (rc == 0) rc = file_read(options_text(options, OPT_TEXT), CAP_TOKENIZER_BYTES, &text, err);
    if (rc == 0) rc = imp_tokenize(engine, text.data, text.size, 0, &ids, &run.count, err);
    run.ids = ids;
    if (options_given(options, OPT_TOKENS) && options_int(options, OPT_TOKENS) < run.count)
        run.count = (size_t)options_int(options, OPT_TOKENS);
    if (rc == 0 && run.count < 2)
        rc = error_set(err, IMP_ERR_REQUEST, options_text(options, OPT_TEXT),
                       "is too short: at least two tokens are needed");
    if (rc == 0) {
        run.p = mem_zero(run.vocab, sizeof *run.p);
        run.q = mem_zero(run.vocab, sizeof *run.q);
        rc = score_windows(&run, options, err);
    }
    if (rc == 0) print_totals(&run.sum, options_flag(options, OPT_JSON), reference != NULL);
    free(run.p);
    free(run.q);
    imp_free(ids);
    str_free(&text);
    return rc;
}

/* Activations of a reference are never rounded. A model that rounds its own is its own reference
 * where none is given: the divergence is then what that rounding costs. */
static int open_reference(struct options *options, const imp_engine *engine, imp_engine **out,
                          imp_error *err) {
    imp_info info;
    imp_info_get(engine, &info);
    const bool given = options_given(options, OPT_REFERENCE);
    if (!given && !info.nvfp4_activations) return 0;
    int rc = imp_options_set(options->engine, "numerics.activations", "bf16", err);
    if (rc == 0) rc = imp_options_set(options->engine, "debug.trace", "", err); /* the model's */
    const char *name = given ? options_text(options, OPT_REFERENCE) : options->arguments[0];
    return rc < 0 ? rc : open_model(options, name, false, out, err);
}

int command_score(struct options *options, imp_error *err) {
    imp_engine *engine = NULL, *reference = NULL;
    struct str trace = {0};
    bool ids = options_given(options, OPT_IDS), text = options_given(options, OPT_TEXT);
    if (ids == text)
        return error_set(err, IMP_ERR_USAGE, NULL, "give one of --text FILE, --ids FILE");
    if (text && options_given(options, OPT_LOGITS))
        return error_set(err, IMP_ERR_USAGE, "--logits", "goes with --ids");
    if (ids && !options_given(options, OPT_LOGITS) && !options_given(options, OPT_TRACE))
        return error_set(err, IMP_ERR_USAGE, "--ids", "needs --logits or --trace");
    if (ids && (options_given(options, OPT_REFERENCE) || options_given(options, OPT_TOKENS)))
        return error_set(err, IMP_ERR_USAGE, NULL, "--reference and --tokens go with --text");
    interrupt_catch();
    int rc = trace_table_begin(options, &trace, err);
    if (rc == 0) rc = open_model(options, options->arguments[0], false, &engine, err);
    if (rc == 0 && text) rc = open_reference(options, engine, &reference, err);
    if (rc == 0)
        rc = ids ? score_ids(options, engine, err) : score_text(options, engine, reference, err);
    imp_close(reference);
    imp_close(engine);
    return trace_table_end(&trace, rc, err);
}
