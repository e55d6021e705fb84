#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/caps.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"

enum { STDIN_CAP_BYTES = 64 << 20 };

/* imp.h names the numbers: 2 is kept for a verdict, so all but usage move up by one. */
int exit_status(int status) {
    if (status >= 0) return status;
    return status == IMP_ERR_USAGE ? 1 : 1 - status;
}

void report_error(const imp_error *err) {
    fflush(stdout);
    if (err->where[0]) {
        fprintf(stderr, "imp: %s: %s\n", err->where, err->message);
    } else {
        fprintf(stderr, "imp: %s\n", err->message);
    }
}

void note(const struct options *options, const char *fmt, ...) {
    if (options_flag(options, OPT_QUIET)) return;
    va_list args;
    va_start(args, fmt);
    fputs("imp: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

void log_to_stderr(void *ctx, int level, const char *line) {
    const struct options *options = ctx;
    int shown = options_flag(options, OPT_QUIET) ? 0 : options_flag(options, OPT_VERBOSE) ? 3 : 1;
    if (level <= shown) fprintf(stderr, "imp: %s\n", line);
}

/* ---- models --------------------------------------------------------------------------------- */

static void hub_folder(struct str *out) {
    const char *cache = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME");
    if (cache && cache[0]) {
        str_add_text(out, cache);
    } else if (home && home[0]) {
        str_printf(out, "%s/hub", home);
    } else {
        const char *user = getenv("HOME");
        str_printf(out, "%s/.cache/huggingface/hub", user ? user : "");
    }
}

/* ORG/NAME[@REV]: two parts of the characters that the Hub allows. */
static bool is_hub_name(const char *name) {
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t org = strspn(name, allowed);
    if (org == 0 || name[org] != '/' || name[0] == '.') return false;
    const char *rest = name + org + 1;
    size_t repo = strspn(rest, allowed);
    if (repo == 0 || rest[0] == '.') return false;
    return rest[repo] == 0 ||
           (rest[repo] == '@' && rest[repo + 1] != 0 && strstr(rest + repo, "..") == NULL);
}

/* The cache is models--ORG--NAME/{refs/REV,snapshots/COMMIT}; REV may be a commit itself. */
static int hub_snapshot(const char *name, struct str *out, imp_error *err) {
    size_t length = strcspn(name, "@");
    const char *revision = name[length] == '@' ? name + length + 1 : "main";
    struct str folder = {0}, ref = {0}, commit = {0};
    hub_folder(&folder);
    str_add_text(&folder, "/models--");
    for (size_t i = 0; i < length; i++) {
        if (name[i] == '/') {
            str_add_text(&folder, "--");
        } else {
            str_add_char(&folder, name[i]);
        }
    }
    str_printf(&ref, "%s/refs/%s", folder.data, revision);
    if (!file_exists(ref.data) || file_read(ref.data, 4096, &commit, NULL) < 0) {
        str_clear(&commit);
        str_add_text(&commit, revision);
    }
    while (commit.size > 0 && strchr("\r\n ", commit.data[commit.size - 1])) {
        commit.data[--commit.size] = 0;
    }
    str_printf(out, "%s/snapshots/%s", folder.data, commit.data);
    int rc = 0;
    if (!file_is_folder(out->data)) {
        rc = error_set(err, IMP_ERR_IO, name, "no such file or folder, and not in the cache at %s",
                       folder.data);
    }
    str_free(&folder);
    str_free(&ref);
    str_free(&commit);
    return rc;
}

int model_path(const char *name, struct str *out, imp_error *err) {
    if (name[0] == 0) return error_set(err, IMP_ERR_USAGE, "MODEL", "must not be empty");
    if (!file_exists(name)) {
        if (is_hub_name(name)) return hub_snapshot(name, out, err);
        return error_set(err, IMP_ERR_IO, name, "no such file or folder");
    }
    struct slice path = slice_of(name);
    bool inside =
        !file_is_folder(name) && (slice_ends(path, ".safetensors") || slice_ends(path, ".json"));
    const char *slash = strrchr(name, '/');
    if (!inside) {
        str_add_text(out, name);
    } else if (slash == NULL) {
        str_add_text(out, ".");
    } else {
        str_add(out, name, slash == name ? 1 : (size_t)(slash - name));
    }
    return 0;
}

int open_model(const struct options *options, const char *name, bool text_only, imp_engine **out,
               imp_error *err) {
    struct str path = {0};
    int rc = model_path(name, &path, err);
    if (rc == 0 && text_only) rc = imp_open_text(path.data, options->engine, out, err);
    if (rc == 0 && !text_only) rc = imp_open(path.data, options->engine, out, err);
    str_free(&path);
    return rc;
}

/* ---- input and output ----------------------------------------------------------------------- */

int read_stdin(struct str *out, imp_error *err) {
    for (;;) {
        str_reserve(out, 65536);
        ssize_t n = read(STDIN_FILENO, out->data + out->size, 65536);
        if (n < 0 && errno == EINTR && !interrupt_pending()) continue;
        if (n < 0 && errno == EINTR) {
            return error_set(err, IMP_ERR_CANCELLED, "standard input", "interrupted");
        }
        if (n < 0) {
            return error_set(err, IMP_ERR_IO, "standard input", "cannot read: %s", strerror(errno));
        }
        out->size += (size_t)n;
        out->data[out->size] = 0;
        if (n == 0) return 0;
        if (out->size > STDIN_CAP_BYTES) {
            return error_set(err, IMP_ERR_USAGE, "standard input", "more than %d bytes",
                             STDIN_CAP_BYTES);
        }
    }
}

int parse_ids(const char *json, size_t bytes, const char *where, int32_t **ids, size_t *count,
              imp_error *err) {
    yyjson_doc *doc;
    int rc = json_read(json, bytes, where, &doc, err);
    if (rc < 0) return rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *item;
    if (!yyjson_is_arr(root)) {
        yyjson_doc_free(doc);
        return error_set(err, IMP_ERR_FILE, where, "must be a JSON array of token ids");
    }
    int32_t *list = mem_alloc(yyjson_arr_size(root) * sizeof *list);
    size_t i, n;
    yyjson_arr_foreach(root, i, n, item) {
        if (!yyjson_is_int(item) || yyjson_is_sint(item) || yyjson_get_uint(item) > INT32_MAX) {
            rc = error_set(err, IMP_ERR_FILE, where, "$[%zu] is not a token id", i);
            break;
        }
        list[i] = (int32_t)yyjson_get_uint(item);
    }
    *count = yyjson_arr_size(root);
    yyjson_doc_free(doc);
    if (rc < 0) {
        free(list);
        return rc;
    }
    *ids = list;
    return 0;
}

int out_file_open(struct out_file *file, const char *path, imp_error *err) {
    *file = (struct out_file){0};
    str_add_text(&file->path, path);
    str_printf(&file->temporary, "%s.%ld.partial", path, (long)getpid());
    file->stream = fopen(file->temporary.data, "wbx");
    if (file->stream != NULL) return 0;
    int rc = error_set(err, IMP_ERR_IO, path, "cannot create: %s", strerror(errno));
    str_clear(&file->temporary); /* not ours to remove */
    return rc;
}

int out_file_close(struct out_file *file, imp_error *err) {
    int bad = ferror(file->stream);
    bad |= fclose(file->stream);
    file->stream = NULL;
    if (bad)
        return error_set(err, IMP_ERR_IO, file->path.data, "cannot write: %s", strerror(errno));
    if (rename(file->temporary.data, file->path.data) != 0) {
        return error_set(err, IMP_ERR_IO, file->path.data, "cannot create: %s", strerror(errno));
    }
    str_clear(&file->temporary);
    return 0;
}

void out_file_drop(struct out_file *file) {
    if (file->stream) fclose(file->stream);
    if (file->temporary.size > 0) remove(file->temporary.data);
    str_free(&file->path);
    str_free(&file->temporary);
    file->stream = NULL;
}

/* ---- interrupts ----------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted; /* a signal handler has no other place to write to */

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}

void interrupt_catch(void) {
    /* Without SA_RESTART, so that a read of the terminal returns. */
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

bool interrupt_pending(void) {
    return interrupted != 0;
}

void interrupt_clear(void) {
    interrupted = 0;
}
