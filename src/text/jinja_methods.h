/* Methods that ask what a string consists of, for the table in jinja_methods.c. */
#ifndef IMP_TEXT_JINJA_METHODS_H
#define IMP_TEXT_JINJA_METHODS_H

#include "text/jinja_internal.h"

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

#endif
