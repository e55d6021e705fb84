/* Every call of the CUDA runtime fails once: what follows is a clean error, never a wrong token.
 *
 *     device_failpoints MODEL [--device cuda] [--set KEY=VALUE ...] [--seconds 120] [--all 1500]
 *
 * runtime.fail_call = 1, 2, 3, ...: open, an answer of 20 tokens, another one, close. Opening may
 * fail and so may the answers, with a code and a message; an answer that does not fail has the
 * right tokens. After each the model is opened again without a failure, must answer rightly, and
 * must leave as much memory of the GPU as was free before. Past call --all every seventh is tried.
 * It ends where no call fails any more: past the last one that was seen to fail, MARGIN calls did
 * nothing. The calls of closing fail unseen and leave what they should have freed: only calls that
 * were seen to fail count for the memory lost in all. */
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "support/requests.h"

enum { ANSWER = 20, PROMPT = 70, MARGIN = 256, STRIDE = 7, MAX_SETTINGS = 24 };
static const int64_t EACH_BYTES = 4 << 20, ALL_BYTES = 16 << 20; /* that may be lost */

struct failpoints {
    const char *model;
    const char *settings[MAX_SETTINGS];
    int setting_count;
    double seconds;
    int64_t all;
    int32_t ids[PROMPT];
    struct trace right;
    int (*memory_info)(size_t *, size_t *); /* cuMemGetInfo; NULL without a driver */
    int64_t refused, broken, whole, faults;
    struct imp_error last;
};

enum outcome { REFUSED, BROKEN, WHOLE }; /* opening failed; an answer failed; nothing did */

static volatile sig_atomic_t current_call;

static void say_where(int signal_number) {
    char text[80];
    int n = snprintf(text, sizeof text, "device_failpoints: signal %d at call %d\n", signal_number,
                     (int)current_call);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) _exit(3);
    _exit(2);
}

static void fault(struct failpoints *f, int64_t call, const char *what, const char *detail) {
    f->faults++;
    printf("call %lld: %s%s%s\n", (long long)call, what, detail[0] ? ": " : "", detail);
    fflush(stdout);
}

static void find_driver(struct failpoints *f) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    void *symbol = driver ? dlsym(driver, "cuMemGetInfo_v2") : NULL;
    memcpy(&f->memory_info, &symbol, sizeof symbol); /* ISO C has no cast from object to function */
}

/* Bytes free on the GPU, for the context that opening made this thread's; 0 if nobody knows. */
static int64_t free_bytes(const struct failpoints *f) {
    size_t bytes = 0, total;
    return f->memory_info && f->memory_info(&bytes, &total) == 0 ? (int64_t)bytes : 0;
}

static void check_error(struct failpoints *f, int64_t call, const struct imp_error *err) {
    f->last = *err;
    if (err->code != IMP_ERR_DEVICE && err->code != IMP_ERR_MEMORY)
        fault(f, call, imp_status_name(err->code), err->message);
    else if (err->message[0] == 0)
        fault(f, call, "an error without a message", "");
}

/* One answer. False if it failed. */
static bool answer(struct failpoints *f, struct imp_engine *engine, int64_t call) {
    static struct trace t;
    struct imp_error err = {0};
    struct imp_stream *stream;
    struct imp_info info;
    imp_info_get(engine, &info);
    if (f->right.count == 0) random_prompt(engine, 1, f->ids, PROMPT);
    const struct imp_request r = drawn_request(engine, f->ids, PROMPT, ANSWER);
    if (imp_submit(engine, &r, 1, &stream, &err) < 0) {
        check_error(f, call, &err);
        return false;
    }
    if (!trace_read(stream, info.vocab_size, &t)) {
        fault(f, call, "nothing came for a minute", "");
        _exit(1);
    }
    imp_release(stream);
    if (t.done.finish == IMP_FINISH_ERROR) {
        check_error(f, call, &t.done.error);
        return false;
    }
    if (f->right.count == 0) f->right = t;
    if (!trace_same(&f->right, &t)) fault(f, call, "wrong tokens, and no error", "");
    return true;
}

static enum outcome attempt(struct failpoints *f, int64_t call) {
    struct imp_options *options = imp_options_new();
    struct imp_engine *engine = NULL;
    struct imp_error err = {0};
    char text[60];
    current_call = (sig_atomic_t)call;
    snprintf(text, sizeof text, "runtime.fail_call=%lld", (long long)call);
    int rc = options_add(options, text, &err);
    for (int i = 0; i < f->setting_count && rc == 0; i++)
        rc = options_add(options, f->settings[i], &err);
    if (rc < 0) {
        fprintf(stderr, "device_failpoints: %s\n", err.message);
        exit(2);
    }
    rc = imp_open(f->model, options, &engine, &err);
    imp_options_free(options);
    if (rc < 0) {
        check_error(f, call, &err);
        return REFUSED;
    }
    const bool first = answer(f, engine, call), second = answer(f, engine, call);
    imp_close(engine);
    return first && second ? WHOLE : BROKEN;
}

/* With call `call` failing, and again without. The bytes that are free less than before. */
static int64_t try_call(struct failpoints *f, int64_t call, enum outcome *outcome) {
    const int64_t before = free_bytes(f);
    *outcome = attempt(f, call);
    f->refused += *outcome == REFUSED;
    f->broken += *outcome == BROKEN;
    f->whole += *outcome == WHOLE;
    if (attempt(f, 0) != WHOLE) fault(f, call, "and the next opening fails", "");
    const int64_t lost = before - free_bytes(f);
    char text[60];
    snprintf(text, sizeof text, "%lld bytes", (long long)lost);
    if (lost > EACH_BYTES) fault(f, call, "memory of the GPU is lost", text);
    return lost;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void try_all(struct failpoints *f) {
    const double start = now();
    int64_t call = 1, last = 0, loading = 0, lost = 0;
    attempt(f, 0);
    attempt(f, 0); /* what the driver keeps for itself is there now */
    if (f->right.count == 0) {
        printf("no answer, though no call is made to fail: %s\n", f->last.message);
        exit(1);
    }
    for (; call - last <= MARGIN && now() - start < f->seconds;
         call += call < f->all ? 1 : STRIDE) {
        enum outcome outcome;
        const int64_t lost_here = try_call(f, call, &outcome);
        if (outcome != WHOLE) lost += lost_here;
        if (outcome != WHOLE) last = call;
        if (outcome == REFUSED) loading = call;
    }
    if (call - last <= MARGIN) fault(f, call, "time is up: not all calls were tried", "");
    if (lost > ALL_BYTES) fault(f, 0, "memory of the GPU is lost in all", "");
    printf("calls: %lld to open, %lld seen to fail, %lld tried to; %.0f s\n", (long long)loading,
           (long long)last, (long long)(f->refused + f->broken + f->whole), now() - start);
    printf("opening failed %lld, answers failed %lld, nothing failed %lld; %lld KB lost%s\n",
           (long long)f->refused, (long long)f->broken, (long long)f->whole, (long long)lost >> 10,
           f->memory_info ? "" : " (no driver: not measured)");
}

static bool parse(struct failpoints *f, char **argument) {
    static char device[64] = "runtime.device=cuda";
    f->settings[f->setting_count++] = device;
    for (; *argument; argument++) {
        const char *name = *argument;
        if (name[0] != '-')
            f->model = name;
        else if (*++argument == NULL)
            return false;
        else if (strcmp(name, "--seconds") == 0)
            f->seconds = atof(*argument);
        else if (strcmp(name, "--all") == 0)
            f->all = atoll(*argument);
        else if (strcmp(name, "--set") == 0 && f->setting_count < MAX_SETTINGS)
            f->settings[f->setting_count++] = *argument;
        else if (strcmp(name, "--device") == 0)
            snprintf(device, sizeof device, "runtime.device=%s", *argument);
        else
            return false;
    }
    return f->model != NULL;
}

int main(int argc, char **argv) {
    static struct failpoints f = {.seconds = 120, .all = 1500};
    if (argc < 2 || !parse(&f, argv + 1)) {
        fputs("device_failpoints MODEL [--device D] [--set KEY=VALUE] [--seconds S] [--all N]\n",
              stderr);
        return 2;
    }
    signal(SIGABRT, say_where);
    signal(SIGSEGV, say_where);
    find_driver(&f);
    try_all(&f);
    printf("failpoints: %lld faults\n", (long long)f.faults);
    return f.faults > 0;
}
