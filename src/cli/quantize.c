/* imp quantize SOURCE DESTINATION. */
#include "base/clock.h"
#include "cli/cli.h"
#include "cli/terminal.h"

int command_quantize(struct options *options, imp_error *err) {
    struct progress progress = {.quiet = options_flag(options, OPT_QUIET)};
    double start_ms = clock_ms();
    interrupt_catch();
    imp_quantize_options request = {
        .source = options->arguments[0],
        .destination = options->arguments[1],
        .format = options_text(options, OPT_FORMAT),
        .method = options_text(options, OPT_METHOD),
        .threads =
            options_given(options, OPT_THREADS) ? (uint32_t)options_int(options, OPT_THREADS) : 0,
        .progress = progress_step,
        .progress_ctx = &progress,
        .log = log_to_stderr,
        .log_ctx = options,
    };
    int rc = imp_quantize(&request, err);
    progress_end(&progress);
    if (rc == 0)
        note(options, "wrote %s in %.1f s", request.destination, (clock_ms() - start_ms) / 1e3);
    return rc;
}
