/* What the model says: its output text taken apart into content, reasoning and tool calls.
 *
 * Feed the text as it comes, cut anywhere; out come parts (imp_part of imp.h), each as soon as it
 * is certain. Joined, they are the same wherever the text was cut. The rules:
 *  - The markers of a format belong to no part; nor do the newlines around reasoning, nor the white
 *    space before a tool call, between two, and after the last one at the end.
 *  - Text that begins like a marker and is none comes out as it is.
 *  - A call begins when its name and the first byte of its arguments are there. What breaks before
 *    that is content, byte for byte, markers included.
 *  - Once begun, a call's arguments are JSON text as far as they come. It ends whole (CALL_END) or,
 *    where the text ends or is no longer an object, broken (CALL_CUT); the text from the byte that
 *    broke it is content again.
 *  - Raw control characters in JSON strings are escaped: models forget to.
 *
 * Memory is reserved by reply_open; what the text alone can drive is capped (CAP_REPLY_*), work is
 * linear in it, nothing recurses. One thread at a time. */
#ifndef IMP_TEXT_REPLY_H
#define IMP_TEXT_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/str.h"
#include "imp/imp.h"

enum reply_format {
    REPLY_NONE,     /* no tool calls */
    REPLY_HERMES,   /* <tool_call>{"name": ..., "arguments": ...}</tool_call> */
    REPLY_QWEN_XML, /* <tool_call><function=NAME><parameter=P>value</parameter></function>... */
    REPLY_MISTRAL,  /* [TOOL_CALLS], a list of objects or NAME[CALL_ID]ID[ARGS]{...}; [THINK] */
    REPLY_LLAMA3,   /* {"name": ..., "parameters": ...}, perhaps after <|python_tag|> */
    REPLY_GEMMA4,   /* <|tool_call>call:NAME{key:<|"|>text<|"|>}<tool_call|>; <|channel>thought */
    REPLY_HARMONY,  /* <|channel|>analysis<|message|>...<|end|>; to=functions.NAME ...<|call|> */
};

/* How a model talks. think: reasoning may stand in <think> tags besides. */
struct reply_style {
    enum reply_format format;
    bool think;
};

/* From the source of the chat template: the one place where a model says it. */
struct reply_style reply_style_of(struct slice template_source);
/* The i-th marker that may be a special token, so that the text must show it; NULL at the end. */
const char *reply_marker(struct reply_style style, size_t i);

struct reply_part {
    imp_part kind;
    uint32_t call; /* of the kinds of a call: its number in the reply, from 0 */
    size_t bytes;  /* of the text, after those of the parts before */
};

/* Owned by the caller, emptied with reply_parts_clear, freed with reply_parts_free. */
struct reply_parts {
    struct reply_part *part;
    size_t count, capacity;
    struct str text;
};
void reply_parts_add(struct reply_parts *parts, imp_part kind, uint32_t call, const char *text,
                     size_t bytes); /* text is joined to a part of its own kind before it */
/* All parts of `from`, joined to nothing. */
void reply_parts_append(struct reply_parts *parts, const struct reply_part *from, size_t count,
                        const char *text);
void reply_parts_clear(struct reply_parts *parts);
void reply_parts_free(struct reply_parts *parts);

void reply_parts_reserve(struct reply_parts *parts, size_t count, size_t bytes);

struct reply;

/* prompt_end: the last bytes of the prompt's text, which may have opened the reasoning already.
 * tools: the JSON array that the template was given, or {NULL, 0}; IMP_ERR_REQUEST if it is none.
 */
int reply_open(struct reply_style style, struct slice prompt_end, struct slice tools,
               struct reply **out, struct imp_error *err);
void reply_close(struct reply *reply); /* NULL is fine */
void reply_feed(struct reply *reply, const char *text, size_t bytes, struct reply_parts *out);
void reply_end(struct reply *reply, struct reply_parts *out);

#endif
