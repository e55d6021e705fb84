/* Facts about single characters that the tokenizer needs, and GPT-2's printable alphabet for bytes.
 * Pure functions, any thread. Tables are utf8proc's. */
#ifndef IMP_TEXT_UNICODE_H
#define IMP_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool unicode_is_space(uint32_t c);       /* White_Space */
bool unicode_is_numeric(uint32_t c);     /* Nd, Nl, No */
bool unicode_is_punctuation(uint32_t c); /* P* of Unicode 8, and what ASCII calls punctuation */
bool unicode_is_mark(uint32_t c);        /* Mn, Mc, Me */
/* Younger than Unicode 9, whose normal forms the package `tokenizers` makes to this day: such a
 * character is never decomposed, reordered, composed or stripped as a mark. Only those that
 * otherwise would be. */
bool unicode_is_inert(uint32_t c);
extern const uint32_t unicode_inert_ranges[][2]; /* ascending */
extern const size_t unicode_inert_count;
extern const uint32_t unicode_punctuation_ranges[][2];
extern const size_t unicode_punctuation_count;

/* Characters of Unicode 15 and 16, which the libraries may not know yet. */
struct unicode_range {
    uint32_t low, high;
    char category[3];
};
extern const struct unicode_range unicode_newer_ranges[]; /* by category */
extern const size_t unicode_newer_count;

/* Byte-level vocabularies write each byte as one printable character: itself where it is printable
 * in Latin-1, else the next free one from U+0100. */
uint32_t byte_level_encode(uint8_t byte);
int byte_level_decode(uint32_t c); /* the byte, or -1 */

/* The character that ends at p[n); 0 if n is 0. p is valid UTF-8. */
uint32_t utf8_last(const char *p, size_t n, size_t *bytes);

#endif
