#include "cli/terminal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#include "base/clock.h"
#include "cli/cli.h"

bool terminal_is(FILE *stream) {
    return isatty(fileno(stream)) != 0;
}

bool terminal_has_colour(FILE *stream) {
    const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
    if (no_colour != NULL && no_colour[0] != 0) return false;
    return term != NULL && term[0] != 0 && strcmp(term, "dumb") != 0 && terminal_is(stream);
}

int terminal_columns(FILE *stream) {
    struct winsize size;
    if (ioctl(fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

size_t text_columns(const char *text, size_t bytes) {
    size_t columns = 0;
    for (size_t i = 0; i < bytes;) {
        uint32_t codepoint;
        i += utf8_decode(text + i, bytes - i, &codepoint);
        int width = utf8proc_charwidth((utf8proc_int32_t)codepoint);
        columns += width > 0 ? (size_t)width : 0;
    }
    return columns;
}

void add_bytes_text(struct str *out, uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit < 4) {
        value /= 1024;
        unit++;
    }
    str_printf(out, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
}

enum { BAR_CELLS = 24, REDRAW_MS = 100, LINE_MS = 4000 };

static void add_amount(struct str *out, uint64_t amount, const char *unit) {
    if (strcmp(unit, "bytes") == 0) {
        add_bytes_text(out, amount);
    } else {
        str_printf(out, "%llu %s", (unsigned long long)amount, unit);
    }
}

static void add_seconds(struct str *out, double seconds) {
    if (seconds < 100) {
        str_printf(out, "%.0f s", seconds);
    } else {
        str_printf(out, "%.0f min", seconds / 60);
    }
}

static void describe(struct str *line, const struct progress *progress, uint64_t done,
                     uint64_t total, const char *unit, double now) {
    double elapsed = (now - progress->stage_start_ms) / 1e3;
    str_add_text(line, "  ");
    add_amount(line, done, unit);
    if (total > 0) {
        str_add_text(line, " of ");
        add_amount(line, total, unit);
    }
    if (elapsed < 1 || done == 0) return;
    double rate = (double)done / elapsed;
    if (strcmp(unit, "bytes") == 0) {
        str_add_text(line, ", ");
        add_bytes_text(line, (uint64_t)rate);
        str_add_text(line, "/s");
    }
    if (total > done) {
        str_add_text(line, ", ");
        add_seconds(line, (double)(total - done) / rate);
        str_add_text(line, " left");
    }
}

static void draw(const struct progress *progress, uint64_t done, uint64_t total, const char *unit,
                 double now, bool terminal) {
    struct str line = {0};
    if (!terminal) str_add_text(&line, "imp: ");
    str_add_text(&line, progress->stage);
    if (total > 0) {
        uint64_t shown = done < total ? done : total;
        if (terminal) {
            size_t full = (size_t)((double)shown / (double)total * BAR_CELLS);
            str_add_text(&line, " [");
            for (size_t i = 0; i < BAR_CELLS; i++) str_add_char(&line, i < full ? '#' : '.');
            str_add_char(&line, ']');
        }
        str_printf(&line, " %3.0f %%", 100.0 * (double)shown / (double)total);
    }
    describe(&line, progress, done, total, unit, now);
    if (terminal) {
        size_t columns = (size_t)terminal_columns(stderr) - 1;
        if (line.size > columns) line.data[columns] = 0; /* all of it is ASCII but the stage */
        fprintf(stderr, "\r%s\033[K", line.data);
    } else {
        fprintf(stderr, "%s\n", line.data);
    }
    fflush(stderr);
    str_free(&line);
}

int progress_step(void *ctx, const char *stage, uint64_t done, uint64_t total, const char *unit) {
    struct progress *progress = ctx;
    if (interrupt_pending()) return 1;
    if (progress->quiet) return 0;
    bool terminal = terminal_is(stderr);
    double now = clock_ms();
    bool fresh = strncmp(progress->stage, stage, sizeof progress->stage - 1) != 0;
    if (fresh) {
        if (progress->drawn && terminal) fputc('\n', stderr);
        snprintf(progress->stage, sizeof progress->stage, "%s", stage);
        progress->stage_start_ms = now;
    }
    double pause = terminal ? REDRAW_MS : LINE_MS;
    bool last = total > 0 && done >= total && terminal;
    if (!fresh && !last && now - progress->last_ms < pause) return 0;
    progress->last_ms = now;
    progress->drawn = true;
    draw(progress, done, total, unit, now, terminal);
    return 0;
}

void progress_end(struct progress *progress) {
    if (progress->drawn && terminal_is(stderr)) fputc('\n', stderr);
    progress->drawn = false;
}
