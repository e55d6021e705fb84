/* Methods that ask what a string consists of, for the table in jinja_methods.c, and what Python
 * knows of characters. */
#ifndef IMP_TEXT_JINJA_METHODS_H
#define IMP_TEXT_JINJA_METHODS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/jinja_internal.h"

/* Characters whose upper or title case is several, in UTF-8. */
struct special_case {
    uint32_t c;
    const char *upper, *title;
};
extern const struct special_case special_cases[];
extern const size_t special_case_count;
/* Ascending; of other categories than Ll, Lu, Nd and N*. */
extern const uint32_t other_lower_ranges[][2], other_upper_ranges[][2];
extern const uint32_t other_digit_ranges[][2], other_numeric_ranges[][2];
extern const size_t other_lower_count, other_upper_count, other_digit_count, other_numeric_count;

bool char_in_ranges(const uint32_t (*ranges)[2], size_t count, uint32_t c);
bool char_is_lower(uint32_t c);
bool char_is_upper(uint32_t c);
bool char_is_title(uint32_t c);

struct jv m_isalpha(struct jx *x, struct jcall *c);
struct jv m_isdigit(struct jx *x, struct jcall *c);
struct jv m_isalnum(struct jx *x, struct jcall *c);
struct jv m_isspace(struct jx *x, struct jcall *c);
struct jv m_isnumeric(struct jx *x, struct jcall *c);
struct jv m_isdecimal(struct jx *x, struct jcall *c);
struct jv m_isprintable(struct jx *x, struct jcall *c);
struct jv m_isascii(struct jx *x, struct jcall *c);
struct jv m_isupper(struct jx *x, struct jcall *c);
struct jv m_islower(struct jx *x, struct jcall *c);
struct jv m_istitle(struct jx *x, struct jcall *c);
struct jv m_isidentifier(struct jx *x, struct jcall *c);

struct jstr *method_str(struct jx *x, struct jv v); /* an argument that must be a string */
struct jv m_split(struct jx *x, struct jcall *c);
struct jv m_rsplit(struct jx *x, struct jcall *c);
struct jv m_partition(struct jx *x, struct jcall *c);
struct jv m_rpartition(struct jx *x, struct jcall *c);
struct jv m_splitlines(struct jx *x, struct jcall *c);
struct jv m_removeprefix(struct jx *x, struct jcall *c);
struct jv m_removesuffix(struct jx *x, struct jcall *c);
struct jv m_ljust(struct jx *x, struct jcall *c);
struct jv m_rjust(struct jx *x, struct jcall *c);
struct jv m_center(struct jx *x, struct jcall *c);
struct jv m_zfill(struct jx *x, struct jcall *c);
struct jv m_expandtabs(struct jx *x, struct jcall *c);

#endif
