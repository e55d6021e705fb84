/* Byte strings: slices that own nothing, one growing buffer, UTF-8.
 *
 * A slice borrows; its owner says until when. A struct str owns its bytes until str_free. Growing
 * cannot fail: the process aborts when the machine has no memory for text, so sizes that come from
 * input are capped before (caps.h). Any thread, one at a time per object. */
#ifndef IMP_BASE_STR_H
#define IMP_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slice {
    const char *data; /* not zero-terminated */
    size_t size;      /* bytes */
};

struct str {
    char *data; /* zero-terminated once something was added; NULL before */
    size_t size, capacity;
};

struct slice slice_of(const char *zero_terminated);
bool slice_equal(struct slice a, struct slice b);
bool slice_starts(struct slice s, const char *prefix);
bool slice_ends(struct slice s, const char *suffix);

void str_reserve(struct str *s, size_t more);
void str_add(struct str *s, const void *data, size_t size);
void str_add_text(struct str *s, const char *zero_terminated);
void str_add_char(struct str *s, char c);
void str_add_codepoint(struct str *s, uint32_t codepoint);
void str_printf(struct str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void str_clear(struct str *s); /* keeps the memory */
char *str_take(struct str *s); /* hands the zero-terminated bytes over; free() them */
void str_free(struct str *s);
/* Writes text as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD. */
void str_add_json(struct str *s, const char *data, size_t size);

/* Edit distance of two short names, to find what a mistyped one meant. */
size_t text_distance(const char *a, const char *b);

/* Bytes of the valid UTF-8 sequence at p (1-4), 0 if the bytes there are not one. No surrogates, no
 * overlong forms, nothing past U+10FFFF. n: bytes left. */
size_t utf8_sequence_length(const char *p, size_t n);
/* Decodes the sequence at p into *codepoint and returns its bytes; a broken byte gives U+FFFD, 1.
 */
size_t utf8_decode(const char *p, size_t n, uint32_t *codepoint);
size_t utf8_encode(uint32_t codepoint, char out[4]);
bool utf8_valid(const char *p, size_t n);
/* Bytes at the end of p[0..n) that may be the start of a sequence still to be completed (0-3). */
size_t utf8_incomplete_tail(const char *p, size_t n);

/* malloc, calloc, realloc, strdup that abort when there is no memory: small host objects. */
void *mem_alloc(size_t bytes);
void *mem_zero(size_t count, size_t bytes);
void *mem_grow(void *p, size_t bytes);
char *mem_strndup(const char *p, size_t n);
uint64_t mem_calls(void); /* how often this thread has called the four so far */

#endif
