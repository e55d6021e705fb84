/* Calls as Qwen3-Coder and Qwen3.5 write them: <function=NAME><parameter=P>value</parameter>...
 * A value is raw text; what it is in JSON, the tool's schema says. */
#include <string.h>

#include "base/error.h"
#include "text/reply_internal.h"

static struct slice slice_str(const struct str *s) {
    return (struct slice){s->size ? s->data : "", s->size};
}

/* ---- types ---- */

/* A tool stands bare, or as OpenAI writes it: {"type": "function", "function": {...}}. */
static yyjson_val *function_of(yyjson_val *tool) {
    yyjson_val *inner = yyjson_obj_get(tool, "function");
    return yyjson_is_obj(inner) ? inner : tool;
}

yyjson_val *reply_find_tool(const struct reply *r, struct slice name) {
    yyjson_val *root = r->tools ? yyjson_doc_get_root(r->tools) : NULL, *tool;
    size_t i, n;
    if (root == NULL) return NULL;
    yyjson_arr_foreach(root, i, n, tool) {
        yyjson_val *function = function_of(tool), *known = yyjson_obj_get(function, "name");
        if (yyjson_is_str(known) && slice_equal(json_slice(known), name)) return function;
    }
    return NULL;
}

static unsigned type_bit(yyjson_val *name) {
    static const struct {
        const char *name;
        unsigned bit;
    } types[] = {{"string", TYPE_STRING},   {"number", TYPE_NUMBER}, {"integer", TYPE_NUMBER},
                 {"boolean", TYPE_BOOLEAN}, {"null", TYPE_NULL},     {"object", TYPE_OBJECT},
                 {"array", TYPE_ARRAY}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (yyjson_equals_str(name, types[i].name)) return types[i].bit;
    }
    return 0;
}

static unsigned type_of_value(yyjson_val *v) {
    if (yyjson_is_str(v)) return TYPE_STRING;
    if (yyjson_is_num(v)) return TYPE_NUMBER;
    if (yyjson_is_bool(v)) return TYPE_BOOLEAN;
    if (yyjson_is_null(v)) return TYPE_NULL;
    return yyjson_is_obj(v) ? TYPE_OBJECT : TYPE_ARRAY;
}

static unsigned types_of_array(yyjson_val *array, unsigned (*bit)(yyjson_val *)) {
    unsigned types = 0;
    size_t i, n;
    yyjson_val *item;
    if (!yyjson_is_arr(array)) return 0;
    yyjson_arr_foreach(array, i, n, item) types |= bit(item);
    return types;
}

static unsigned types_of_member(yyjson_val *schema) {
    yyjson_val *type = yyjson_obj_get(schema, "type");
    return yyjson_is_arr(type) ? types_of_array(type, type_bit) : type_bit(type);
}

static unsigned types_of_schema(yyjson_val *schema) {
    unsigned types = types_of_member(schema);
    if (types == 0) types = types_of_array(yyjson_obj_get(schema, "anyOf"), types_of_member);
    if (types == 0) types = types_of_array(yyjson_obj_get(schema, "oneOf"), types_of_member);
    if (types == 0) types = types_of_array(yyjson_obj_get(schema, "enum"), type_of_value);
    return types ? types : TYPE_ANY;
}

unsigned reply_parameter_types(yyjson_val *tool, struct slice parameter) {
    yyjson_val *schema = yyjson_obj_get(tool, "parameters");
    if (schema == NULL) schema = yyjson_obj_get(tool, "input_schema");
    yyjson_val *properties = yyjson_obj_get(schema, "properties");
    yyjson_val *own = yyjson_obj_getn(properties, parameter.data, parameter.size);
    return own ? types_of_schema(own) : TYPE_STRING;
}

/* ---- values ---- */

static void add_escaped(struct reply *r, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        str_clear(&r->word);
        json_escape_byte(text[i], &r->word);
        reply_arguments(r, r->word.data, r->word.size);
    }
}

static void add_string(struct reply *r, struct slice text) {
    reply_arguments_text(r, "\"");
    add_escaped(r, text.data, text.size);
    reply_arguments_text(r, "\"");
}

/* Text that is JSON, with the control characters in its strings escaped. */
static void add_json(struct reply *r, struct slice text) {
    struct json_scan s = {0};
    str_clear(&r->word);
    for (size_t i = 0; i < text.size; i++) {
        json_scan_escape(&s, text.data[i], &r->word);
        json_scan_byte(&s, text.data[i]);
    }
    reply_arguments(r, r->word.data, r->word.size);
    str_clear(&r->word);
}

static struct slice trimmed(struct slice s) {
    while (s.size > 0 && json_is_blank(s.data[0])) s = (struct slice){s.data + 1, s.size - 1};
    while (s.size > 0 && json_is_blank(s.data[s.size - 1])) s.size--;
    return s;
}

static bool is_word(struct slice s, const char *json, const char *python) {
    return slice_equal(s, slice_of(json)) || slice_equal(s, slice_of(python));
}

/* The type that a text has among those it may have; templates print Python's True and None. Where
 * a string will do, a number stays one: "007" is not 7. */
static void add_typed(struct reply *r, struct slice text) {
    struct slice t = trimmed(text);
    unsigned types = r->types, scalars = types & TYPE_STRING ? 0 : types;
    char first = t.size > 0 ? t.data[0] : 0;
    bool number = (scalars & TYPE_NUMBER) && (first == '-' || (first >= '0' && first <= '9'));
    bool nested = (first == '{' && types & TYPE_OBJECT) || (first == '[' && types & TYPE_ARRAY);
    if (types & TYPE_NULL && is_word(t, "null", "None")) {
        reply_arguments_text(r, "null");
    } else if (scalars & TYPE_BOOLEAN && is_word(t, "true", "True")) {
        reply_arguments_text(r, "true");
    } else if (scalars & TYPE_BOOLEAN && is_word(t, "false", "False")) {
        reply_arguments_text(r, "false");
    } else if ((number || nested) && json_scan_whole(t)) {
        add_json(r, t);
    } else if (nested && reply_python_to_json(t, &r->word)) {
        reply_arguments(r, r->word.data, r->word.size);
    } else {
        add_string(r, text);
    }
}

/* A long value that waited is let out as what it looks like: nothing waits without bound. */
static void stop_holding(struct reply *r) {
    struct slice text = slice_str(&r->early);
    bool nested = (text.data[0] == '{' && r->types & TYPE_OBJECT) ||
                  (text.data[0] == '[' && r->types & TYPE_ARRAY);
    if (nested && !r->scan_broken) {
        r->value = VALUE_JSON;
        add_json(r, text);
    } else {
        r->value = VALUE_TEXT;
        reply_arguments_text(r, "\"");
        add_escaped(r, text.data, text.size);
    }
    str_clear(&r->early);
}

static bool value_add(struct reply *r, char c) {
    if (r->value == VALUE_TEXT) {
        add_escaped(r, &c, 1);
        return true;
    }
    if (r->value == VALUE_JSON) {
        if (r->scan.state == JSON_SCAN_END) return json_is_blank(c);
        str_clear(&r->word);
        json_scan_escape(&r->scan, c, &r->word);
        if (json_scan_byte(&r->scan, c) == JSON_SCAN_BROKEN) return false;
        reply_arguments(r, r->word.data, r->word.size);
        return true;
    }
    bool over = r->scan_broken || (r->scan.state == JSON_SCAN_END && !json_is_blank(c));
    if (over || (r->scan.state != JSON_SCAN_END && json_scan_byte(&r->scan, c) == JSON_SCAN_BROKEN))
        r->scan_broken = true;
    str_add_char(&r->early, c);
    if (r->early.size >= CAP_REPLY_HELD) stop_holding(r);
    return true;
}

static bool value_end(struct reply *r) {
    if (r->value == VALUE_TEXT) {
        reply_arguments_text(r, "\"");
    } else if (r->value == VALUE_HELD) {
        add_typed(r, slice_str(&r->early));
        str_clear(&r->early);
    } else if (r->scan.state != JSON_SCAN_END) {
        return false;
    }
    r->place = XML_NEXT;
    str_clear(&r->word);
    return true;
}

static const char value_close[] = "</parameter>";

/* What waited as the beginning of the closing tag is part of the value. */
static bool value_release(struct reply *r) {
    size_t matched = r->matched;
    bool newline = r->newline;
    r->matched = 0;
    r->newline = false;
    if (newline && !value_add(r, '\n')) return false;
    for (size_t i = 0; i < matched; i++) {
        if (value_add(r, value_close[i])) continue;
        r->match = value_close; /* for what broke here to be looked at again */
        r->matched = matched;
        return false;
    }
    return true;
}

static enum call_step value_byte(struct reply *r, char c) {
    bool first = r->first_byte;
    r->first_byte = false;
    if (first && c == '\n') return CALL_MORE;
    if (c == value_close[r->matched]) {
        r->match = value_close;
        if (reply_match(r, c) == CALL_MORE) return CALL_MORE;
        r->newline = false;
        if (value_end(r)) return CALL_MORE;
        r->matched = sizeof value_close - 2; /* all but this byte */
        return CALL_BROKEN;
    }
    if (!value_release(r)) return CALL_BROKEN;
    if (c == '<') {
        r->matched = 1;
    } else if (c == '\n') {
        r->newline = true;
    } else if (!value_add(r, c)) {
        return CALL_BROKEN;
    }
    return CALL_MORE;
}

/* ---- tags ---- */

static enum call_step name_byte(struct reply *r, char c) {
    if (c != '>') {
        if (!reply_name_byte(c)) return CALL_BROKEN;
        return reply_collect(&r->name, c, CAP_REPLY_NAME) ? CALL_MORE : CALL_BROKEN;
    }
    if (r->name.size == 0) return CALL_BROKEN;
    r->tool = reply_find_tool(r, slice_str(&r->name));
    reply_begin_call(r);
    reply_arguments_text(r, "{");
    r->place = XML_NEXT;
    return CALL_MORE;
}

static enum call_step parameter_byte(struct reply *r, char c) {
    if (c != '>') {
        bool fits = c != '\n' && c != '<' && reply_collect(&r->early, c, CAP_REPLY_NAME);
        return fits ? CALL_MORE : CALL_BROKEN;
    }
    struct slice key = slice_str(&r->early);
    if (key.size == 0) return CALL_BROKEN;
    r->types = reply_parameter_types(r->tool, key);
    if (r->has_parameter) reply_arguments_text(r, ", ");
    add_string(r, key);
    reply_arguments_text(r, ": ");
    str_clear(&r->early);
    r->has_parameter = r->first_byte = true;
    r->newline = r->scan_broken = false;
    r->scan = (struct json_scan){0};
    r->value = r->types == TYPE_STRING ? VALUE_TEXT : VALUE_HELD;
    if (r->value == VALUE_TEXT) reply_arguments_text(r, "\"");
    r->place = XML_VALUE;
    return CALL_MORE;
}

/* Between parameters: one of three tags. A call may end without its </function>. */
static enum call_step next_byte(struct reply *r, char c) {
    static const char *const tags[] = {"<parameter=", "</function>", "</tool_call>"};
    if (r->matched == 0 && json_is_blank(c)) return CALL_MORE;
    for (int i = 0; i < 3; i++) {
        if (r->matched > 0 && strncmp(tags[i], r->match, r->matched) != 0) continue;
        if (tags[i][r->matched] != c) continue;
        r->match = tags[i];
        if (reply_match(r, c) == CALL_MORE) return CALL_MORE;
        if (i == 0) {
            r->place = XML_PARAMETER;
            str_clear(&r->early);
            return CALL_MORE;
        }
        reply_arguments_text(r, "}");
        return CALL_WHOLE;
    }
    return CALL_BROKEN;
}

enum call_step reply_xml_byte(struct reply *r, char c) {
    switch ((enum xml_place)r->place) {
    case XML_NAME:
        return name_byte(r, c);
    case XML_NEXT:
        return next_byte(r, c);
    case XML_PARAMETER:
        return parameter_byte(r, c);
    case XML_VALUE:
        return value_byte(r, c);
    }
    return CALL_BROKEN;
}
