/* Calls as Gemma 4 writes them: call:NAME{key:<|"|>text<|"|>,n:3,list:[true,{a:1}]}. Its notation
 * is turned into JSON as it comes. Keys stand bare or in <|"|>; a bare value that is no number,
 * true, false or null (None) becomes a string. */
#include <string.h>

#include "text/reply_internal.h"

static const char quote[] = "<|\"|>";

static struct slice slice_str(const struct str *s) {
    return (struct slice){s->size ? s->data : "", s->size};
}

static enum call_step go(struct reply *r, enum gemma_place place) {
    r->place = (int)place;
    return CALL_MORE;
}

static bool in_object(const struct reply *r) {
    unsigned top = r->depth - 1;
    return (r->in_object[top / 8] >> top % 8 & 1) != 0;
}

static enum call_step open_bracket(struct reply *r, char c) {
    if (r->depth == CAP_JSON_DEPTH) return CALL_BROKEN;
    bool object = c == '{';
    uint8_t *byte = &r->in_object[r->depth / 8], bit = (uint8_t)(1u << r->depth % 8);
    *byte = (uint8_t)(object ? *byte | bit : *byte & ~bit);
    r->depth++;
    reply_arguments(r, &c, 1);
    return go(r, object ? GEMMA_FIRST_KEY : GEMMA_FIRST_ITEM);
}

static enum call_step close_bracket(struct reply *r, char c) {
    if (in_object(r) != (c == '}')) return CALL_BROKEN;
    r->depth--;
    reply_arguments(r, &c, 1);
    return r->depth == 0 ? CALL_WHOLE : go(r, GEMMA_AFTER);
}

static void add_escaped(struct reply *r, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        str_clear(&r->early);
        json_escape_byte(text[i], &r->early);
        reply_arguments(r, r->early.data, r->early.size);
    }
    str_clear(&r->early);
}

static void add_string(struct reply *r, struct slice text) {
    reply_arguments_text(r, "\"");
    add_escaped(r, text.data, text.size);
    reply_arguments_text(r, "\"");
}

static enum call_step begin_quote(struct reply *r, char c, enum gemma_place place) {
    r->match = quote;
    r->matched = 0;
    r->place = (int)place;
    return reply_match(r, c);
}

/* Inside <|"|>: text, until the same mark comes again. */
static enum call_step quoted_byte(struct reply *r, char c, enum gemma_place after) {
    if (r->matched > 0 || c == '<') {
        enum call_step step = reply_match(r, c);
        if (step == CALL_MORE) return CALL_MORE;
        if (step == CALL_WHOLE) {
            reply_arguments_text(r, "\"");
            return go(r, after);
        }
        add_escaped(r, quote, r->matched); /* began like the mark and is none */
        r->matched = 0;
        if (c == '<') return reply_match(r, c);
    }
    add_escaped(r, &c, 1);
    return CALL_MORE;
}

static enum call_step opening_mark(struct reply *r, char c, enum gemma_place inside) {
    enum call_step step = reply_match(r, c);
    if (step != CALL_WHOLE) return step;
    reply_arguments_text(r, "\"");
    return go(r, inside);
}

/* ---- keys ---- */

static enum call_step key_start(struct reply *r, char c) {
    if (json_is_blank(c)) return CALL_MORE;
    if (c == '<') return begin_quote(r, c, GEMMA_KEY_MARK);
    if (!reply_name_byte(c) || c == ':') return CALL_BROKEN;
    str_clear(&r->word);
    str_add_char(&r->word, c);
    return go(r, GEMMA_KEY_BARE);
}

static enum call_step key_bare(struct reply *r, char c) {
    if (c == ':') {
        add_string(r, slice_str(&r->word));
        reply_arguments_text(r, ": ");
        str_clear(&r->word);
        return go(r, GEMMA_VALUE);
    }
    bool stray = strchr("{}[],<>\"\n", c) != NULL; /* a zero byte too */
    return !stray && reply_collect(&r->word, c, CAP_REPLY_NAME) ? CALL_MORE : CALL_BROKEN;
}

static enum call_step colon(struct reply *r, char c) {
    if (json_is_blank(c)) return CALL_MORE;
    if (c != ':') return CALL_BROKEN;
    reply_arguments_text(r, ": ");
    return go(r, GEMMA_VALUE);
}

/* ---- values ---- */

static enum call_step after_value(struct reply *r, char c) {
    if (json_is_blank(c)) return CALL_MORE;
    if (c != ',') return c == '}' || c == ']' ? close_bracket(r, c) : CALL_BROKEN;
    reply_arguments_text(r, ", ");
    return go(r, in_object(r) ? GEMMA_KEY : GEMMA_VALUE);
}

static void add_bare(struct reply *r) {
    struct slice s = slice_str(&r->word);
    while (s.size > 0 && json_is_blank(s.data[s.size - 1])) s.size--;
    if (slice_equal(s, slice_of("None"))) s = slice_of("null");
    if (slice_equal(s, slice_of("True"))) s = slice_of("true");
    if (slice_equal(s, slice_of("False"))) s = slice_of("false");
    if (json_scan_whole(s)) {
        reply_arguments(r, s.data, s.size);
    } else {
        add_string(r, s);
    }
    str_clear(&r->word);
}

static enum call_step bare_byte(struct reply *r, char c) {
    if (c == ',' || c == '}' || c == ']') {
        add_bare(r);
        return after_value(r, c);
    }
    bool stray = strchr("{[<>\"", c) != NULL;
    return !stray && reply_collect(&r->word, c, CAP_REPLY_NAME) ? CALL_MORE : CALL_BROKEN;
}

static enum call_step json_text_byte(struct reply *r, char c) {
    json_scan_escape(&r->scan, c, &r->early);
    enum json_scan_result result = json_scan_byte(&r->scan, c);
    if (result != JSON_SCAN_BROKEN) reply_arguments(r, r->early.data, r->early.size);
    str_clear(&r->early);
    if (result == JSON_SCAN_BROKEN) return CALL_BROKEN;
    return result == JSON_SCAN_DONE ? go(r, GEMMA_AFTER) : CALL_MORE;
}

static enum call_step value_start(struct reply *r, char c) {
    if (json_is_blank(c)) return CALL_MORE;
    if (c == '{' || c == '[') return open_bracket(r, c);
    if (c == '<') return begin_quote(r, c, GEMMA_VALUE_MARK);
    if (c == '"') {
        r->scan = (struct json_scan){0};
        go(r, GEMMA_JSON_TEXT);
        return json_text_byte(r, c);
    }
    if (strchr("}],:>", c)) return CALL_BROKEN;
    str_clear(&r->word);
    str_add_char(&r->word, c);
    return go(r, GEMMA_BARE);
}

/* ---- the call ---- */

static enum call_step head_byte(struct reply *r, char c) {
    if (r->match == NULL) r->match = "call:";
    enum call_step step = reply_match(r, c);
    return step == CALL_WHOLE ? go(r, GEMMA_NAME) : step;
}

static enum call_step name_byte(struct reply *r, char c) {
    if (c != '{') {
        if (!reply_name_byte(c)) return CALL_BROKEN;
        return reply_collect(&r->name, c, CAP_REPLY_NAME) ? CALL_MORE : CALL_BROKEN;
    }
    if (r->name.size == 0) return CALL_BROKEN;
    reply_begin_call(r);
    return open_bracket(r, c);
}

enum call_step reply_gemma_byte(struct reply *r, char c) {
    switch ((enum gemma_place)r->place) {
    case GEMMA_HEAD:
        return head_byte(r, c);
    case GEMMA_NAME:
        return name_byte(r, c);
    case GEMMA_FIRST_KEY:
        return c == '}' ? close_bracket(r, c) : key_start(r, c);
    case GEMMA_KEY:
        return key_start(r, c);
    case GEMMA_KEY_BARE:
        return key_bare(r, c);
    case GEMMA_KEY_MARK:
        return opening_mark(r, c, GEMMA_KEY_QUOTED);
    case GEMMA_KEY_QUOTED:
        return quoted_byte(r, c, GEMMA_COLON);
    case GEMMA_COLON:
        return colon(r, c);
    case GEMMA_FIRST_ITEM:
        return c == ']' ? close_bracket(r, c) : value_start(r, c);
    case GEMMA_VALUE:
        return value_start(r, c);
    case GEMMA_VALUE_MARK:
        return opening_mark(r, c, GEMMA_TEXT);
    case GEMMA_TEXT:
        return quoted_byte(r, c, GEMMA_AFTER);
    case GEMMA_JSON_TEXT:
        return json_text_byte(r, c);
    case GEMMA_BARE:
        return bare_byte(r, c);
    case GEMMA_AFTER:
        return after_value(r, c);
    }
    return CALL_BROKEN;
}
