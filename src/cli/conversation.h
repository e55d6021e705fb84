/* A conversation: the system message and the turns, as the chat keeps, renders and saves it.
 *
 * Contents are UTF-8; zero bytes are allowed in a turn. A zeroed struct is an empty conversation;
 * conversation_free frees what it holds and leaves it empty. One thread. */
#ifndef IMP_CLI_CONVERSATION_H
#define IMP_CLI_CONVERSATION_H

#include <stdbool.h>

#include "base/str.h"
#include "imp/imp.h"

struct turn {
    bool from_user; /* otherwise the model's */
    struct str text;
    struct str reasoning; /* of the model's turn; empty: none */
};

struct conversation {
    struct str system; /* empty: none */
    struct turn *turns;
    size_t count, capacity;
};

void conversation_add(struct conversation *c, bool from_user, const char *text, size_t bytes);
/* Of the last turn, which is the model's. */
void conversation_add_reasoning(struct conversation *c, const char *text, size_t bytes);
void conversation_drop_last(struct conversation *c);
void conversation_clear(struct conversation *c); /* the system message stays */
void conversation_free(struct conversation *c);

/* {"messages": [...], "add_generation_prompt": true}, for imp_render_chat. */
void conversation_add_request(const struct conversation *c, struct str *out);
/* {"system": TEXT, "messages": [{"role", "content", "reasoning_content"}]}; saving replaces the
 * file as a whole. */
int conversation_save(const struct conversation *c, const char *path, imp_error *err);
int conversation_load(struct conversation *c, const char *path, imp_error *err); /* or no change */

#endif
