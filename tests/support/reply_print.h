/* Parts of a reply as one line of text: "R<thought>C<answer>F<name>I<id>A<{}>E<>". */
#ifndef IMP_TESTS_REPLY_PRINT_H
#define IMP_TESTS_REPLY_PRINT_H

#include <cmocka.h>

#include "text/reply.h"

static const char reply_letters[] = "CRFIAEX"; /* by imp_part */

/* Joins neighbours of one kind, which different feeds may have cut apart. */
static void reply_join(struct reply_parts *to, const struct reply_parts *from) {
    const char *text = from->text.data;
    for (size_t i = 0; i < from->count; text += from->part[i++].bytes) {
        const struct reply_part *p = &from->part[i];
        reply_parts_add(to, p->kind, p->call, text, p->bytes);
    }
}

/* Feeds `text` as two pieces cut at `cut`, or byte by byte with 0. */
static void reply_collect_parts(struct reply_style style, struct slice prompt, struct slice tools,
                                struct slice text, size_t cut, struct reply_parts *all) {
    struct reply *r = NULL;
    struct reply_parts some = {0};
    assert_int_equal(reply_open(style, prompt, tools, &r, NULL), 0);
    for (size_t i = 0, n; i < text.size; i += n) {
        n = cut == 0 ? 1 : i < cut && cut < text.size ? cut : text.size - i;
        reply_feed(r, text.data + i, n, &some);
        reply_join(all, &some);
        reply_parts_clear(&some);
    }
    reply_end(r, &some);
    reply_join(all, &some);
    reply_parts_free(&some);
    reply_close(r);
}

static inline void reply_print(struct reply_style style, struct slice prompt, struct slice tools,
                               struct slice text, size_t cut, struct str *out) {
    struct reply_parts all = {0};
    reply_collect_parts(style, prompt, tools, text, cut, &all);
    const char *at = all.text.data;
    for (size_t i = 0; i < all.count; at += all.part[i++].bytes) {
        str_add_char(out, reply_letters[all.part[i].kind]);
        str_add_char(out, '<');
        str_add(out, at, all.part[i].bytes);
        str_add_char(out, '>');
    }
    reply_parts_free(&all);
}

#endif
