/* imp synth CONFIG DESTINATION. */
#include "base/clock.h"
#include "cli/cli.h"
#include "cli/terminal.h"

static uint32_t count_of(const struct options *options, enum option_id id) {
    return options_given(options, id) ? (uint32_t)options_int(options, id) : 0;
}

int command_synth(struct options *options, imp_error *err) {
    struct progress progress = {.quiet = options_flag(options, OPT_QUIET)};
    double start_ms = clock_ms();
    interrupt_catch();
    imp_synth_options request = {
        .config = options->arguments[0],
        .destination = options->arguments[1],
        .format = options_text(options, OPT_SYNTH_FORMAT),
        .layers = count_of(options, OPT_LAYERS),
        .vocab = count_of(options, OPT_VOCAB),
        .seed = options_int(options, OPT_SYNTH_SEED),
        .threads = count_of(options, OPT_THREADS),
        .progress = progress_step,
        .progress_ctx = &progress,
        .log = log_to_stderr,
        .log_ctx = options,
    };
    int rc = imp_synth(&request, err);
    progress_end(&progress);
    if (rc == 0)
        note(options, "wrote %s in %.1f s", request.destination, (clock_ms() - start_ms) / 1e3);
    return rc;
}
