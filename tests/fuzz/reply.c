/* Any text as the output of a model of any format, fed whole and in pieces.
 * Byte 0: format, thinking, tools, where the prompt ends; byte 1: how the text is cut. Seeds:
 * tests/fuzz/make_reply_seeds.py. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/json_scan.h"
#include "text/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char tools[] =
    "[{\"function\": {\"name\": \"f\", \"parameters\": {\"properties\": {\"s\": {\"type\": "
    "\"string\"}, \"n\": {\"type\": \"integer\"}, \"b\": {\"type\": [\"boolean\", \"null\"]}, "
    "\"l\": {\"type\": \"array\"}, \"o\": {\"type\": \"object\"}, \"a\": {}}}}}]";
static const char *const prompts[] = {"", "<think>\n", "<|start|>assistant", "[THINK]"};

static void feed(struct reply_style style, const char *prompt, bool with_tools, struct slice text,
                 unsigned cuts, struct reply_parts *all) {
    struct reply *r = NULL;
    struct slice known = {tools, with_tools ? sizeof tools - 1 : 0};
    struct imp_error err;
    check(reply_open(style, slice_of(prompt), known, &r, &err) == 0);
    unsigned state = cuts;
    for (size_t i = 0, n; i < text.size; i += n) {
        state = state * 1103515245u + 12345u;
        n = cuts == 0 ? text.size : 1 + (state >> 16) % (1 + cuts % 23);
        if (n > text.size - i) n = text.size - i;
        /* a copy of its own, so that a read past its end is seen */
        char *piece = mem_alloc(n);
        memcpy(piece, text.data + i, n);
        reply_feed(r, piece, n, all);
        free(piece);
    }
    reply_end(r, all);
    reply_close(r);
}

static void check_same(const struct reply_parts *a, const struct reply_parts *b) {
    check(a->count == b->count && a->text.size == b->text.size);
    for (size_t i = 0; i < a->count; i++) {
        check(a->part[i].kind == b->part[i].kind && a->part[i].call == b->part[i].call &&
              a->part[i].bytes == b->part[i].bytes);
    }
    check(a->text.size == 0 || memcmp(a->text.data, b->text.data, a->text.size) == 0);
}

/* A whole call's arguments are an object, for this scanner and for a JSON library. */
static void check_arguments(struct slice text) {
    check(text.size > 0 && text.data[0] == '{' && json_scan_whole(text));
    if (!utf8_valid(text.data, text.size)) return;
    yyjson_read_err why;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text.data, text.size,
                                       YYJSON_READ_NUMBER_AS_RAW, NULL, &why);
    /* Half a surrogate pair is text that models write and the library refuses. */
    check(doc != NULL || strstr(why.msg, "surrogate") != NULL);
    yyjson_doc_free(doc);
}

/* Calls come in order, each with its parts in order, and nothing between them. */
static void check_calls(const struct reply_parts *p) {
    uint32_t calls = 0;
    bool open = false;
    struct slice arguments = {"", 0};
    const char *at = p->text.data;
    for (size_t i = 0; i < p->count; at += p->part[i++].bytes) {
        const struct reply_part *part = &p->part[i];
        imp_part kind = part->kind;
        bool inside = kind != IMP_PART_CONTENT && kind != IMP_PART_REASONING;
        check(inside == open || kind == IMP_PART_CALL);
        if (!inside) continue;
        check(part->call == calls);
        if (kind == IMP_PART_CALL) {
            check(!open && part->bytes > 0 && part->bytes <= CAP_REPLY_NAME);
            open = true;
            arguments.size = 0;
        } else if (kind == IMP_PART_ARGUMENTS) {
            if (arguments.size == 0) arguments.data = at;
            /* an id between two pieces has its bytes between theirs */
            arguments.size = (size_t)(at + part->bytes - arguments.data);
        } else if (kind != IMP_PART_CALL_ID) {
            if (kind == IMP_PART_CALL_END) check_arguments(arguments);
            open = false;
            calls++;
        }
    }
    check(!open && calls <= CAP_REPLY_CALLS);
}

/* What is said is in the text, in that order; harmony puts newlines between messages. */
static void check_said(struct slice text, const struct reply_parts *p, bool harmony) {
    const char *at = p->text.data;
    size_t from = 0;
    for (size_t i = 0; i < p->count; at += p->part[i++].bytes) {
        if (p->part[i].kind != IMP_PART_CONTENT && p->part[i].kind != IMP_PART_REASONING) continue;
        for (size_t k = 0; k < p->part[i].bytes; k++) {
            const char *found = memchr(text.data + from, at[k], text.size - from);
            if (found == NULL && harmony && at[k] == '\n') continue;
            if (harmony && at[k] == '\n' && *found != text.data[from]) continue;
            check(found != NULL);
            from = (size_t)(found - text.data) + 1;
        }
    }
}

static bool contains(struct slice text, const char *word) {
    return memmem(text.data, text.size, word, strlen(word)) != NULL;
}

/* Where no reasoning was opened and no call begun, all of the text is content. */
static void check_kept(struct slice text, const char *prompt, const struct reply_parts *p) {
    static const char *const markers[] = {"<think>", "[THINK]", "<|channel>"};
    if (prompt[0] != 0) return;
    for (int i = 0; i < 3; i++) {
        if (contains(text, markers[i])) return;
    }
    for (size_t i = 0; i < p->count; i++) {
        if (p->part[i].kind != IMP_PART_CONTENT) return;
    }
    check(p->text.size == text.size);
    check(text.size == 0 || memcmp(p->text.data, text.data, text.size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    struct slice text = {(const char *)data + 2, size - 2};
    struct reply_style style = {(enum reply_format)(data[0] % 7), (data[0] / 7 & 1) != 0};
    const char *prompt = prompts[data[0] / 14 & 3];
    bool with_tools = data[0] / 56 & 1;
    struct reply_parts whole = {0}, cut = {0}, bytes = {0};
    feed(style, prompt, with_tools, text, 0, &whole);
    feed(style, prompt, with_tools, text, data[1], &cut);
    feed(style, prompt, with_tools, text, 23, &bytes); /* a byte at a time: 23 % 23 + 1 */
    check_same(&whole, &cut);
    check_same(&whole, &bytes);
    check_calls(&whole);
    check_said(text, &whole, style.format == REPLY_HARMONY);
    if (style.format != REPLY_HARMONY) check_kept(text, prompt, &whole);
    if (utf8_valid(text.data, text.size)) check(utf8_valid(whole.text.data, whole.text.size));
    reply_parts_free(&whole);
    reply_parts_free(&cut);
    reply_parts_free(&bytes);
    return 0;
}
