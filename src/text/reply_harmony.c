/* gpt-oss's harmony: a reply is messages, each with a header that names its channel and, for a
 * call, its recipient: "<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>". The
 * recipient may stand before the channel, as the role's. */
#include <string.h>

#include "text/reply_internal.h"

static struct slice slice_str(const struct str *s) {
    return (struct slice){s->size ? s->data : "", s->size};
}

/* The word after the last `key` in a header; empty if it is not there. */
static struct slice word_after(struct slice header, const char *key) {
    size_t n = strlen(key);
    struct slice word = {"", 0};
    for (size_t i = 0; i + n <= header.size; i++) {
        if (memcmp(header.data + i, key, n) == 0)
            word = (struct slice){header.data + i + n, header.size - i - n};
    }
    size_t size = 0;
    while (size < word.size && !json_is_blank(word.data[size]) && word.data[size] != '<') size++;
    return (struct slice){word.data, size};
}

static enum call_step header_end(struct reply *r) {
    static const char own[] = "functions.";
    struct slice header = slice_str(&r->held);
    struct slice channel = word_after(header, "<|channel|>"), to = word_after(header, "to=");
    if (slice_starts(to, own))
        to = (struct slice){to.data + sizeof own - 1, to.size - sizeof own + 1};
    if (to.size > 0 && to.size <= CAP_REPLY_NAME && r->calls < CAP_REPLY_CALLS) {
        str_add(&r->name, to.data, to.size);
        r->state = IN_MESSAGE;
        return CALL_MORE;
    }
    bool thought = slice_equal(channel, slice_of("analysis"));
    if (thought) {
        reply_go_reasoning(r, "");
    } else {
        reply_go_content(r, false);
    }
    r->fresh = false;
    r->separate = thought ? r->spoke_reasoning : r->spoke_content;
    return CALL_MORE;
}

/* Marks that end a header that never had a message; in the text they mean what they always do. */
static bool ends_early(struct reply *r) {
    static const char *const marks[] = {"<|start|>", "<|end|>", "<|call|>", "<|return|>"};
    for (int i = 0; i < 4; i++) {
        size_t n = strlen(marks[i]) - 1;
        struct slice held = slice_str(&r->held);
        if (held.size < n || memcmp(held.data + held.size - n, marks[i], n) != 0) continue;
        r->match = marks[i];
        r->matched = n;
        return true;
    }
    return false;
}

enum call_step reply_header_byte(struct reply *r, char c) {
    if (r->held.size == 0 && r->place == HEADER_AFTER_ROLE && c != ' ' && c != '<')
        return CALL_BROKEN;
    if (r->held.size >= 4 * CAP_REPLY_NAME) return CALL_BROKEN;
    if (c != '>') return CALL_MORE;
    if (slice_ends(slice_str(&r->held), "<|message|")) return header_end(r);
    return ends_early(r) ? CALL_BROKEN : CALL_MORE;
}

/* The arguments of a call. Text for a recipient that is no object is given back with its header. */
enum call_step reply_message_byte(struct reply *r, char c) {
    if (!r->begun) {
        if (json_is_blank(c)) return CALL_MORE;
        if (c != '{') return CALL_BROKEN;
        reply_begin_call(r);
    }
    str_clear(&r->word);
    json_scan_escape(&r->scan, c, &r->word);
    enum json_scan_result result = json_scan_byte(&r->scan, c);
    if (result == JSON_SCAN_BROKEN) return CALL_BROKEN;
    reply_arguments(r, r->word.data, r->word.size);
    return result == JSON_SCAN_DONE ? CALL_WHOLE : CALL_MORE;
}
