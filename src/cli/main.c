/* imp: finds the subcommand, and maps the way it ends to an exit status. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/cli.h"

static int unknown_command(const char *name, imp_error *err) {
    struct nearest best = {0};
    nearest_offer(&best, name, "--help");
    nearest_offer(&best, name, "--version");
    for (const struct command *c = command_table; c->name; c++) nearest_offer(&best, name, c->name);
    err->code = IMP_ERR_USAGE;
    err->where[0] = 0;
    snprintf(err->message, sizeof err->message, "no command \"%.100s\"%s%s%s; see imp --help", name,
             best.word ? "; did you mean " : "", best.word ? best.word : "", best.word ? "?" : "");
    return IMP_ERR_USAGE;
}

static int run_command(const struct command *command, int argc, char **argv, imp_error *err) {
    struct options options;
    int rc = options_parse(&options, command, argc, argv, err);
    if (rc == 0 && options_flag(&options, OPT_HELP)) {
        help_print_command(stdout, command);
    } else if (rc == 0 && options_flag(&options, OPT_VERSION)) {
        printf("imp %s\n", imp_version());
    } else if (rc == 0) {
        rc = command->run(&options, err);
    }
    options_free(&options);
    return rc;
}

/* imp help [COMMAND], and imp __man [COMMAND] for the build of the man pages. */
static int print_about(bool manual, const char *name, imp_error *err) {
    const struct command *command = name ? command_find(name) : NULL;
    if (name && command == NULL) return unknown_command(name, err);
    if (manual)
        manual_print(stdout, command);
    else if (command)
        help_print_command(stdout, command);
    else
        help_print(stdout);
    return 0;
}

static int dispatch(int argc, char **argv, imp_error *err) {
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name == NULL) {
        help_print(stderr);
        return IMP_ERR_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return print_about(false, NULL, err);
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("imp %s\n", imp_version());
        return 0;
    }
    bool help = strcmp(name, "help") == 0;
    if (help || strcmp(name, "__man") == 0)
        return print_about(!help, argc > 2 ? argv[2] : NULL, err);
    const struct command *command = command_find(name);
    if (command == NULL) return unknown_command(name, err);
    return run_command(command, argc - 2, argv + 2, err);
}

/* What could not be written is an error, unless nobody is left to read it: `imp ... | head -1`. */
static int finish_output(imp_error *err) {
    bool failed = ferror(stdout) != 0;
    errno = 0;
    if (fflush(stdout) == 0 && !failed) return 0;
    const char *why = errno ? strerror(errno) : "an earlier write failed";
    struct pollfd reader = {.fd = STDOUT_FILENO, .events = POLLOUT};
    if (poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR)) return 0;
    return error_set(err, IMP_ERR_IO, "standard output", "cannot write: %s", why);
}

int main(int argc, char **argv) {
    imp_error err = {0};
    /* A reader that leaves, and a full disk, must reach the code that cleans up. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    int rc = dispatch(argc, argv, &err);
    const int written = rc < 0 ? 0 : finish_output(&err);
    if (written < 0) rc = written;
    if (rc < 0 && err.message[0]) report_error(&err);
    return exit_status(rc);
}
