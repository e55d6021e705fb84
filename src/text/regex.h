/* Regular expressions as tokenizer.json writes them: Oniguruma's Ruby syntax, run by PCRE2.
 *
 * A pattern is translated first, because the two disagree quietly: \s, \w, \h, {n,m}+ and script
 * names mean other things. What the translation does not know is refused, and so are patterns that
 * repeat a repetition without bound, which could take exponential time. Compiled expressions are
 * immutable, any thread; a regex_scratch belongs to one thread at a time. */
#ifndef IMP_TEXT_REGEX_H
#define IMP_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "imp/imp.h"

struct regex;

/* IMP_ERR_UNSUPPORTED with `where` if the pattern is not one that runs here. */
int regex_compile(struct slice pattern, const char *where, struct regex **out,
                  struct imp_error *err);
/* Matches this text and nothing else; not empty. */
int regex_compile_literal(struct slice literal, const char *where, struct regex **out,
                          struct imp_error *err);
/* What the Rust crate `regex` calls \w: one such character, which tells words apart around added
 * tokens, or (words) runs of them and runs of what is neither they nor space. */
struct regex *regex_word_new(bool words);
bool regex_matches_empty(const struct regex *regex);
void regex_free(struct regex *regex); /* NULL is fine */

struct regex_scratch {
    void *match_data, *match_context, *jit_stack;
};
void regex_scratch_init(struct regex_scratch *scratch);
void regex_scratch_free(struct regex_scratch *scratch);

/* Successive matches in one text. Zero-initialise; `from` may be set to start later. An empty match
 * right behind the last match is passed over. */
struct regex_iter {
    size_t from, last_end;
    size_t spent; /* bytes looked at beyond the first window of each match */
    bool matched;
};
/* text is valid UTF-8. False: no more; also if it is given up, after more steps or more reading
 * than CAP_PATTERN_STEPS and CAP_PATTERN_READS allow, which depends on pattern and text alone. */
bool regex_next(const struct regex *regex, struct regex_scratch *scratch, const char *text,
                size_t size, struct regex_iter *iter, size_t *start, size_t *end);

/* For the inside of a class: a category ("L", "Nd") as PCRE2 knows it, and what came later. */
void regex_add_category(struct str *out, const char *category);
/* The translation alone. */
int regex_translate(struct slice pattern, const char *where, struct str *out,
                    struct imp_error *err);

#endif
