/* Calls written as one JSON object, {"name": ..., "arguments": {...}}: Hermes, Qwen, Llama 3
 * ("parameters") and Mistral up to v7. Keys in any order, others ignored; and Mistral's later form,
 * where marks stand between name, id and arguments. */
#include <string.h>

#include "base/error.h"
#include "text/reply_internal.h"

static struct slice slice_str(const struct str *s) {
    return (struct slice){s->size ? s->data : "", s->size};
}

static enum call_step go(struct reply *r, int place) {
    r->place = place;
    str_clear(&r->word);
    return CALL_MORE;
}

/* ---- arguments ---- */

/* One byte of them: straight out once the name is known, else to `early`. */
static enum json_scan_result argument_byte(struct reply *r, char c) {
    size_t before = r->early.size;
    json_scan_escape(&r->scan, c, &r->early);
    enum json_scan_result result = json_scan_byte(&r->scan, c);
    if (result == JSON_SCAN_BROKEN || result == JSON_SCAN_PAST) {
        r->early.size = before;
    } else if (r->begun) {
        reply_arguments(r, r->early.data, r->early.size);
        str_clear(&r->early);
    }
    return result;
}

static bool is_callable(const struct reply *r) {
    return r->name.size > 0 && !(r->bare && !reply_find_tool(r, slice_str(&r->name)));
}

/* Some models write the object as a string with an object in it, whose own strings may then hold
 * control characters once the outer escapes are gone. */
static bool take_argument_text(struct reply *r) {
    struct json_scan s = {0};
    if (!json_unescape(slice_str(&r->word), &r->early)) return false;
    str_clear(&r->word);
    str_add(&r->word, r->early.data, r->early.size);
    str_clear(&r->early);
    struct slice text = slice_str(&r->word);
    while (text.size > 0 && json_is_blank(*text.data))
        text = (struct slice){text.data + 1, text.size - 1};
    if (text.size == 0 || text.data[0] != '{' || !json_scan_whole(text)) return false;
    for (size_t i = 0; i < text.size; i++) {
        json_scan_escape(&s, text.data[i], &r->early);
        json_scan_byte(&s, text.data[i]);
    }
    return true;
}

static void begin_if_complete(struct reply *r) {
    if (!r->begun && r->has_arguments && r->name.size > 0) reply_begin_call(r);
}

/* ---- members ---- */

static enum object_field field_of(struct slice key) {
    static const struct {
        const char *key;
        enum object_field field;
    } fields[] = {{"name", FIELD_NAME},
                  {"arguments", FIELD_ARGUMENTS},
                  {"parameters", FIELD_ARGUMENTS},
                  {"id", FIELD_ID}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (slice_equal(key, slice_of(fields[i].key))) return fields[i].field;
    }
    return FIELD_OTHER;
}

static enum call_step string_byte(struct reply *r, char c, size_t cap, bool *ends) {
    bool escaped = r->scan.state == JSON_SCAN_ESCAPE;
    enum json_scan_result result = json_scan_byte(&r->scan, c);
    if (result == JSON_SCAN_BROKEN) return CALL_BROKEN;
    *ends = c == '"' && !escaped;
    if (*ends) return CALL_MORE;
    return reply_collect(&r->word, c, cap) ? CALL_MORE : CALL_BROKEN;
}

static enum call_step key_byte(struct reply *r, char c) {
    bool ends = false;
    enum call_step step = string_byte(r, c, CAP_REPLY_NAME, &ends);
    if (step != CALL_MORE || !ends) return step;
    r->field = field_of(slice_str(&r->word));
    return go(r, OBJECT_COLON);
}

static enum call_step begin_string(struct reply *r, int place, char c) {
    r->scan = (struct json_scan){0};
    json_scan_byte(&r->scan, c);
    return go(r, place);
}

static bool take_word(struct reply *r) {
    struct str *to = r->field == FIELD_NAME ? &r->name : &r->id;
    if (r->field == FIELD_ARGUMENTS) {
        if (!take_argument_text(r)) return false;
        r->has_arguments = true;
        return true;
    }
    if (to->size > 0 || !json_unescape(slice_str(&r->word), to)) return false;
    return r->field == FIELD_ID || is_callable(r);
}

static enum call_step text_byte(struct reply *r, char c) {
    bool ends = false;
    size_t cap = r->field == FIELD_ARGUMENTS ? CAP_REPLY_HELD : CAP_REPLY_NAME;
    enum call_step step = string_byte(r, c, cap, &ends);
    if (step != CALL_MORE || !ends) return step;
    if (!take_word(r)) return CALL_BROKEN;
    begin_if_complete(r);
    if (r->begun && r->id.size > 0 && !r->id_said) {
        reply_parts_add(r->out, IMP_PART_CALL_ID, r->calls, r->id.data, r->id.size);
        r->id_said = true;
    }
    return go(r, OBJECT_COMMA);
}

static enum call_step value_byte(struct reply *r, char c) {
    if (json_is_blank(c)) return CALL_MORE;
    bool arguments = r->field == FIELD_ARGUMENTS;
    r->scan = (struct json_scan){0};
    if (arguments && r->has_arguments) return CALL_BROKEN;
    if (c == '"' && r->field != FIELD_OTHER) return begin_string(r, OBJECT_TEXT, c);
    if (arguments && c == '{') {
        r->has_arguments = true;
        begin_if_complete(r);
        argument_byte(r, c);
        return go(r, OBJECT_ARGUMENTS);
    }
    if ((arguments && c != 'n') || r->field == FIELD_NAME) return CALL_BROKEN;
    if (json_scan_byte(&r->scan, c) == JSON_SCAN_BROKEN) return CALL_BROKEN;
    return go(r, arguments ? OBJECT_NULL : OBJECT_OTHER);
}

/* The object is closed, or its arguments were whole and something follows that closes it. */
static enum call_step object_end(struct reply *r) {
    if (!r->has_arguments && !r->bare && r->name.size > 0) {
        r->has_arguments = true;
        str_add_text(&r->early, "{}");
        reply_begin_call(r);
    }
    return r->begun ? CALL_WHOLE : CALL_BROKEN;
}

static enum call_step comma_byte(struct reply *r, char c) {
    if (json_is_blank(c)) return CALL_MORE;
    if (c == ',') return go(r, OBJECT_KEY);
    if (c == '}') return object_end(r);
    /* A model that forgot the last bracket goes on to the end of the call. */
    return c == '<' && r->begun ? CALL_WHOLE_BEFORE : CALL_BROKEN;
}

static enum call_step other_byte(struct reply *r, char c) {
    switch (json_scan_byte(&r->scan, c)) {
    case JSON_SCAN_MORE:
        return CALL_MORE;
    case JSON_SCAN_PAST:
        go(r, OBJECT_COMMA);
        return comma_byte(r, c);
    case JSON_SCAN_DONE:
        return go(r, OBJECT_COMMA);
    default:
        return CALL_BROKEN;
    }
}

static enum call_step null_byte(struct reply *r, char c) {
    enum json_scan_result result = json_scan_byte(&r->scan, c);
    if (result == JSON_SCAN_BROKEN) return CALL_BROKEN;
    if (result != JSON_SCAN_DONE) return CALL_MORE;
    r->has_arguments = true;
    str_add_text(&r->early, "{}");
    begin_if_complete(r);
    return go(r, OBJECT_COMMA);
}

enum call_step reply_object_byte(struct reply *r, char c) {
    switch ((enum object_place)r->place) {
    case OBJECT_OPEN:
        if (json_is_blank(c)) return CALL_MORE;
        return c == '{' ? go(r, OBJECT_FIRST_KEY) : CALL_BROKEN;
    case OBJECT_FIRST_KEY:
    case OBJECT_KEY:
        if (json_is_blank(c)) return CALL_MORE;
        return c == '"' ? begin_string(r, OBJECT_KEY_TEXT, c) : CALL_BROKEN;
    case OBJECT_KEY_TEXT:
        return key_byte(r, c);
    case OBJECT_COLON:
        if (json_is_blank(c)) return CALL_MORE;
        return c == ':' ? go(r, OBJECT_VALUE) : CALL_BROKEN;
    case OBJECT_VALUE:
        return value_byte(r, c);
    case OBJECT_TEXT:
        return text_byte(r, c);
    case OBJECT_NULL:
        return null_byte(r, c);
    case OBJECT_OTHER:
        return other_byte(r, c);
    case OBJECT_ARGUMENTS:
        switch (argument_byte(r, c)) {
        case JSON_SCAN_MORE:
            return CALL_MORE;
        case JSON_SCAN_DONE:
            return go(r, OBJECT_COMMA);
        default:
            return CALL_BROKEN;
        }
    case OBJECT_COMMA:
        return comma_byte(r, c);
    }
    return CALL_BROKEN;
}

/* ---- Mistral: NAME[CALL_ID]ID[ARGS]{...} ---- */

static enum call_step begin_object(struct reply *r) {
    r->state = IN_OBJECT;
    return go(r, OBJECT_FIRST_KEY);
}

static enum call_step mistral_start(struct reply *r, char c) {
    if (json_is_blank(c)) return CALL_MORE;
    if (c == '[' && !r->list) {
        r->list = true;
        return CALL_MORE;
    }
    if (c == '{') return begin_object(r);
    if (r->list || !reply_name_byte(c)) return CALL_BROKEN;
    str_add_char(&r->name, c);
    return go(r, MISTRAL_NAME);
}

/* Inside a mark: its second letter tells the two apart. */
static enum call_step mistral_marker(struct reply *r, char c) {
    if (r->matched == 1 && c == 'C' && r->id.size == 0) r->match = "[CALL_ID]";
    enum call_step step = reply_match(r, c);
    if (step != CALL_WHOLE) return step;
    return go(r, r->match[1] == 'C' ? MISTRAL_ID : MISTRAL_ARGUMENTS);
}

static enum call_step begin_marker(struct reply *r, char c) {
    r->match = "[ARGS]";
    r->matched = 0;
    r->place = MISTRAL_MARKER;
    return mistral_marker(r, c);
}

static enum call_step mistral_arguments(struct reply *r, char c) {
    if (!r->begun && json_is_blank(c)) return CALL_MORE;
    if (!r->begun && c != '{') return CALL_BROKEN;
    if (!r->begun) reply_begin_call(r);
    switch (argument_byte(r, c)) {
    case JSON_SCAN_MORE:
        return CALL_MORE;
    case JSON_SCAN_DONE:
        return CALL_WHOLE;
    default:
        return CALL_BROKEN;
    }
}

static enum call_step mistral_next(struct reply *r, char c) {
    if (json_is_blank(c)) return CALL_MORE;
    if (c == ']') return CALL_WHOLE;
    if (c == ',') return go(r, MISTRAL_START);
    return CALL_BROKEN;
}

enum call_step reply_mistral_byte(struct reply *r, char c) {
    switch ((enum mistral_place)r->place) {
    case MISTRAL_START:
        return mistral_start(r, c);
    case MISTRAL_NAME:
        if (c == '[') return begin_marker(r, c);
        if (!reply_name_byte(c)) return CALL_BROKEN;
        return reply_collect(&r->name, c, CAP_REPLY_NAME) ? CALL_MORE : CALL_BROKEN;
    case MISTRAL_MARKER:
        return mistral_marker(r, c);
    case MISTRAL_ID:
        if (c == '[') return begin_marker(r, c);
        if (!reply_name_byte(c)) return CALL_BROKEN;
        return reply_collect(&r->id, c, CAP_REPLY_NAME) ? CALL_MORE : CALL_BROKEN;
    case MISTRAL_ARGUMENTS:
        return mistral_arguments(r, c);
    case MISTRAL_NEXT:
        return mistral_next(r, c);
    }
    return CALL_BROKEN;
}
