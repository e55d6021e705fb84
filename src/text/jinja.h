/* Jinja2 3.1 as chat templates use it, rendering to text that remembers where each byte came from.
 *
 * A template is parsed once and is immutable; any number of threads may render it at once. A
 * rendering has its own arena, its own budget of steps and output, and reaches nothing but the
 * variables it is given: there are no host objects, no includes, no files.
 * Settings: trim_blocks, lstrip_blocks, loopcontrols, autoescape off, as Hugging Face sets them. */
#ifndef IMP_TEXT_JINJA_H
#define IMP_TEXT_JINJA_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/str.h"
#include "imp/imp.h"

struct jinja;

/* `name` stands for the file in messages ("chat_template.jinja: line 3"). */
int jinja_parse(const char *source, size_t size, const char *name, struct jinja **out,
                struct imp_error *err);
void jinja_free(struct jinja *t); /* NULL is fine */

/* A variable of the rendering, made from JSON. Strings inside count as coming from a message when
 * `message` is true: their bytes keep that mark through every operation that copies bytes. */
struct jinja_var {
    const char *name;
    yyjson_val *value; /* NULL: undefined */
    bool message;
    /* An array of objects: their member `role` does not count as a message's where it is one of
     * these. Templates write "<|" + role + "|>" and mean one token. NULL: none; ends with NULL. */
    const char *const *roles;
};

struct jinja_clock {
    int64_t now;        /* seconds since 1970 that strftime_now uses */
    int32_t utc_offset; /* seconds */
};

/* A run of rendered bytes with one origin; runs tile the output, no two neighbours are equal. */
struct jinja_run {
    size_t bytes;
    bool message;
};

struct jinja_output {
    struct str text;
    struct jinja_run *runs;
    size_t run_count, run_capacity;
};

/* IMP_ERR_TEMPLATE with the template's own words for raise_exception, and with a description and
 * the line for everything else that fails; *out is then empty. */
int jinja_render(const struct jinja *t, const struct jinja_var *vars, size_t var_count,
                 const struct jinja_clock *clock, struct jinja_output *out, struct imp_error *err);
void jinja_output_free(struct jinja_output *out);

#endif
