#include "text/reply.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/reply_internal.h"

/* ---- parts ---- */

static bool is_joined(imp_part kind) {
    return kind == IMP_PART_CONTENT || kind == IMP_PART_REASONING || kind == IMP_PART_ARGUMENTS;
}

void reply_parts_reserve(struct reply_parts *p, size_t count, size_t bytes) {
    str_reserve(&p->text, bytes);
    if (p->count + count <= p->capacity) return;
    p->capacity = p->count + count > 2 * p->capacity ? p->count + count : 2 * p->capacity;
    p->part = mem_grow(p->part, p->capacity * sizeof *p->part);
}

void reply_parts_append(struct reply_parts *p, const struct reply_part *from, size_t count,
                        const char *text) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += from[i].bytes;
    reply_parts_reserve(p, count, bytes);
    if (count > 0) memcpy(p->part + p->count, from, count * sizeof *from);
    p->count += count;
    str_add(&p->text, text, bytes);
}

void reply_parts_add(struct reply_parts *p, imp_part kind, uint32_t call, const char *text,
                     size_t bytes) {
    struct reply_part *last = p->count > 0 ? &p->part[p->count - 1] : NULL;
    str_add(&p->text, text, bytes);
    if (last && last->kind == kind && last->call == call && is_joined(kind)) {
        last->bytes += bytes;
        return;
    }
    reply_parts_reserve(p, 1, 0);
    p->part[p->count++] = (struct reply_part){kind, call, bytes};
}

void reply_parts_clear(struct reply_parts *p) {
    p->count = 0;
    str_clear(&p->text);
}

void reply_parts_free(struct reply_parts *p) {
    free(p->part);
    str_free(&p->text);
    *p = (struct reply_parts){0};
}

/* ---- markers ---- */

enum mark {
    MARK_NONE,
    MARK_THINK,
    MARK_UNTHINK,
    MARK_CHANNEL,
    MARK_CALL,
    MARK_CALL_END, /* of a call that has ended already: dropped */
    MARK_HEADER,   /* harmony: a message begins */
    MARK_MESSAGE_END,
};

#define IN(format) (1u << REPLY_##format)
#define TAGGED     (IN(HERMES) | IN(QWEN_XML))
#define ANY        (~0u)

/* No marker is the beginning of another. `state` and `place`: where MARK_CALL leads. */
static const struct marker {
    const char *text;
    unsigned formats;
    enum mark mark;
    enum reply_state state;
    int place;
} markers[] = {
    {"<think>", ANY, MARK_THINK, IN_TEXT, 0},
    {"</think>", ANY, MARK_UNTHINK, IN_TEXT, 0},
    {"<tool_call>", TAGGED, MARK_CALL, IN_TAG, 0},
    {"</tool_call>", TAGGED, MARK_CALL_END, IN_TEXT, 0},
    {"<function=", IN(QWEN_XML), MARK_CALL, IN_XML, XML_NAME},
    {"[THINK]", IN(MISTRAL), MARK_THINK, IN_TEXT, 0},
    {"[/THINK]", IN(MISTRAL), MARK_UNTHINK, IN_TEXT, 0},
    {"[TOOL_CALLS]", IN(MISTRAL), MARK_CALL, IN_MISTRAL, MISTRAL_START},
    {"<|python_tag|>", IN(LLAMA3), MARK_CALL, IN_OBJECT, OBJECT_OPEN},
    {"{", IN(LLAMA3), MARK_CALL, IN_OBJECT, OBJECT_FIRST_KEY},
    {";", IN(LLAMA3), MARK_CALL_END, IN_TEXT, 0},
    {"<|channel>", IN(GEMMA4), MARK_CHANNEL, IN_CHANNEL, 0},
    {"<channel|>", IN(GEMMA4), MARK_UNTHINK, IN_TEXT, 0},
    {"<|tool_call>", IN(GEMMA4), MARK_CALL, IN_GEMMA, GEMMA_HEAD},
    {"<tool_call|>", IN(GEMMA4), MARK_CALL_END, IN_TEXT, 0},
    {"<|start|>", IN(HARMONY), MARK_HEADER, IN_HEADER, 0},
    {"<|channel|>", IN(HARMONY), MARK_HEADER, IN_HEADER, 0},
    {"<|end|>", IN(HARMONY), MARK_MESSAGE_END, IN_TEXT, 0},
    {"<|call|>", IN(HARMONY), MARK_MESSAGE_END, IN_TEXT, 0},
    {"<|return|>", IN(HARMONY), MARK_MESSAGE_END, IN_TEXT, 0},
};
enum { MARKERS = sizeof markers / sizeof *markers };

/* What may be special tokens beyond the markers: they stand inside a call or a header. */
static const struct {
    const char *text;
    unsigned formats;
} inner_markers[] = {
    {"[CALL_ID]", IN(MISTRAL)},   {"[ARGS]", IN(MISTRAL)},        {"<|\"|>", IN(GEMMA4)},
    {"<|message|>", IN(HARMONY)}, {"<|constrain|>", IN(HARMONY)},
};
enum { INNER_MARKERS = sizeof inner_markers / sizeof *inner_markers };

static bool in_style(struct reply_style style, unsigned formats) {
    return formats == ANY ? style.think : (formats >> style.format & 1) != 0;
}

const char *reply_marker(struct reply_style style, size_t i) {
    for (size_t k = 0; k < MARKERS + INNER_MARKERS; k++) {
        bool outer = k < MARKERS;
        const char *text = outer ? markers[k].text : inner_markers[k - MARKERS].text;
        unsigned formats = outer ? markers[k].formats : inner_markers[k - MARKERS].formats;
        if (in_style(style, formats) && i-- == 0) return text;
    }
    return NULL;
}

static bool contains(struct slice text, const char *word) {
    return text.size > 0 && memmem(text.data, text.size, word, strlen(word)) != NULL;
}

struct reply_style reply_style_of(struct slice t) {
    bool tagged = contains(t, "<tool_call>"), think = contains(t, "</think>");
    if (contains(t, "<|channel|>") && contains(t, "<|message|>"))
        return (struct reply_style){REPLY_HARMONY, false};
    if (contains(t, "<|tool_call>") || contains(t, "<|channel>"))
        return (struct reply_style){REPLY_GEMMA4, false};
    if (contains(t, "[TOOL_CALLS]") || contains(t, "[THINK]"))
        return (struct reply_style){REPLY_MISTRAL, think};
    if (contains(t, "<function=") && contains(t, "<parameter="))
        return (struct reply_style){REPLY_QWEN_XML, true};
    /* GLM puts keys in tags of their own inside <tool_call>: another format. */
    if (tagged && !contains(t, "<arg_key>")) return (struct reply_style){REPLY_HERMES, true};
    if (contains(t, "<|python_tag|>") ||
        (contains(t, "<|start_header_id|>") && contains(t, "\"parameters\":")))
        return (struct reply_style){REPLY_LLAMA3, think};
    return (struct reply_style){REPLY_NONE, think};
}

static bool is_enabled(const struct reply *r, const struct marker *m) {
    if (!in_style(r->style, m->formats)) return false;
    bool content = r->kind == IMP_PART_CONTENT;
    switch (m->mark) {
    case MARK_THINK: /* a control token anywhere; a tag only before the answer */
        return content && (!r->said || m->formats != ANY);
    case MARK_UNTHINK:
        return !content && strcmp(m->text, r->close) == 0;
    case MARK_CALL:
        if (!content || r->calls >= CAP_REPLY_CALLS) return false;
        return m->text[0] != '{' || (r->tools != NULL && !r->said);
    case MARK_CALL_END:
        return content && r->beside_call;
    case MARK_CHANNEL:
        return content;
    default:
        return true;
    }
}

/* The marker that the n bytes at p are; or NULL, and then whether they begin one. */
static const struct marker *find_marker(const struct reply *r, const char *p, size_t n,
                                        bool *begins) {
    *begins = false;
    for (const struct marker *m = markers; m < markers + MARKERS; m++) {
        if (strncmp(m->text, p, n) != 0 || !is_enabled(r, m)) continue;
        *begins = true;
        if (m->text[n] == 0) return m;
    }
    return NULL;
}

/* ---- what leaves ---- */

void reply_emit(struct reply *r, imp_part kind, const char *text, size_t bytes) {
    if (bytes == 0) return;
    if (kind == IMP_PART_CONTENT) {
        r->said = true;
        r->beside_call = false;
    }
    if (r->separate) reply_parts_add(r->out, kind, 0, "\n", 1);
    r->separate = false;
    if (kind == IMP_PART_CONTENT) r->spoke_content = true;
    if (kind == IMP_PART_REASONING) r->spoke_reasoning = true;
    reply_parts_add(r->out, kind, 0, text, bytes);
}

void reply_arguments(struct reply *r, const char *text, size_t bytes) {
    if (bytes > 0) reply_parts_add(r->out, IMP_PART_ARGUMENTS, r->calls, text, bytes);
}

void reply_arguments_text(struct reply *r, const char *text) {
    reply_arguments(r, text, strlen(text));
}

static struct slice slice_str(const struct str *s) {
    return (struct slice){s->size ? s->data : "", s->size};
}

void reply_begin_call(struct reply *r) {
    struct slice name = slice_str(&r->name), id = slice_str(&r->id);
    check(!r->begun && name.size > 0);
    r->begun = true;
    str_clear(&r->held);
    r->blanks = 0;
    reply_parts_add(r->out, IMP_PART_CALL, r->calls, name.data, name.size);
    if (id.size > 0) {
        reply_parts_add(r->out, IMP_PART_CALL_ID, r->calls, id.data, id.size);
        r->id_said = true;
    }
    reply_arguments(r, r->early.data, r->early.size);
    str_clear(&r->early);
}

void reply_start_call(struct reply *r, enum reply_state state, int place) {
    r->state = state;
    r->place = place;
    r->begun = r->id_said = r->has_arguments = r->bare = r->has_parameter = false;
    r->match = NULL;
    r->matched = 0;
    r->depth = 0;
    r->scan = (struct json_scan){0};
    str_clear(&r->name);
    str_clear(&r->id);
    str_clear(&r->early);
    str_clear(&r->word);
}

bool reply_collect(struct str *word, char c, size_t cap) {
    if (word->size >= cap) return false;
    str_add_char(word, c);
    return true;
}

enum call_step reply_match(struct reply *r, char c) {
    if (c != r->match[r->matched]) return CALL_BROKEN;
    if (r->match[++r->matched]) return CALL_MORE;
    r->matched = 0;
    return CALL_WHOLE;
}

bool reply_name_byte(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c && strchr("_-.:/", c)) || (unsigned char)c >= 0x80;
}

static void look_again(struct reply *r, const char *bytes, size_t n) {
    check(r->again_count + n <= sizeof r->again);
    while (n > 0) r->again[r->again_count++] = bytes[--n];
}

/* ---- text ---- */

static bool waits_as_blank(const struct reply *r, char c) {
    if (r->style.format == REPLY_HARMONY) return false; /* its messages end where they end */
    return r->kind == IMP_PART_REASONING ? c == '\n' : json_is_blank(c);
}

static void let_out(struct reply *r, size_t bytes) {
    reply_emit(r, r->kind, r->held.data, bytes);
    if (bytes > 0) r->fresh = false;
    str_clear(&r->held);
    r->blanks = 0;
}

void reply_go_reasoning(struct reply *r, const char *close) {
    r->state = IN_TEXT;
    r->kind = IMP_PART_REASONING;
    r->close = close;
    r->fresh = true;
    str_clear(&r->held);
    r->blanks = 0;
}

void reply_go_content(struct reply *r, bool fresh) {
    r->state = IN_TEXT;
    r->kind = IMP_PART_CONTENT;
    r->fresh = fresh;
    str_clear(&r->held);
    r->blanks = 0;
}

/* `held` ends with the marker. A call keeps it, to give it back where it turns out to be none. */
static void take_marker(struct reply *r, const struct marker *m) {
    switch (m->mark) {
    case MARK_THINK:
        reply_go_reasoning(r, m->text[0] == '[' ? "[/THINK]" : "</think>");
        break;
    case MARK_UNTHINK:
        reply_go_content(r, true);
        break;
    case MARK_CHANNEL:
        reply_start_call(r, IN_CHANNEL, 0);
        r->match = "thought";
        break;
    case MARK_CALL:
        reply_start_call(r, m->state, m->place);
        r->bare = m->text[0] == '{';
        r->list = false;
        break;
    case MARK_HEADER:
        reply_start_call(r, IN_HEADER, 0);
        if (m->text[2] == 's') str_clear(&r->held); /* <|start|> itself says nothing */
        break;
    default:
        reply_go_content(r, false);
        break;
    }
}

static void text_byte(struct reply *r, char c) {
    bool begins;
    if (r->held.size == r->blanks && waits_as_blank(r, c)) {
        if (r->fresh && c == '\n') return;
        str_add_char(&r->held, c);
        if (++r->blanks > CAP_REPLY_BLANKS) let_out(r, r->held.size);
        return;
    }
    str_add_char(&r->held, c);
    size_t n = r->held.size - r->blanks;
    const struct marker *m = find_marker(r, r->held.data + r->blanks, n, &begins);
    if (m) {
        take_marker(r, m);
    } else if (!begins) { /* the first byte is text for certain, the others may begin a marker */
        look_again(r, r->held.data + r->blanks + 1, n - 1);
        let_out(r, r->blanks + 1);
    }
}

/* Bytes at the front that are text whatever follows: most of a reply. */
static size_t plain_run(const struct reply *r, const char *text, size_t n) {
    static const char stops[] = "<[{; \n\t\r";
    size_t i = 0;
    if (r->state != IN_TEXT || r->held.size > 0 || r->again_count > 0) return 0;
    while (i < n && !(text[i] && strchr(stops, text[i]))) i++;
    return i;
}

/* ---- calls ---- */

/* After <tool_call>. Qwen's two ways of writing a call are told apart by what comes now, not by the
 * model: some write both. */
static enum call_step tag_byte(struct reply *r, char c) {
    if (r->matched > 0) {
        enum call_step step = reply_match(r, c);
        if (step != CALL_WHOLE) return step;
        r->state = IN_XML;
        r->place = XML_NAME;
        return CALL_MORE;
    }
    if (json_is_blank(c)) return CALL_MORE;
    if (c == '{') {
        r->state = IN_OBJECT;
        r->place = OBJECT_FIRST_KEY;
        return CALL_MORE;
    }
    r->match = "<function=";
    return reply_match(r, c);
}

static enum call_step call_byte(struct reply *r, char c) {
    switch (r->state) {
    case IN_CHANNEL: /* only the channel of thoughts is known */
        return reply_match(r, c);
    case IN_HEADER:
        return reply_header_byte(r, c);
    case IN_TAG:
        return tag_byte(r, c);
    case IN_OBJECT:
        return reply_object_byte(r, c);
    case IN_XML:
        return reply_xml_byte(r, c);
    case IN_MISTRAL:
        return reply_mistral_byte(r, c);
    case IN_GEMMA:
        return reply_gemma_byte(r, c);
    default:
        return reply_message_byte(r, c);
    }
}

static void cut_call(struct reply *r) {
    /* A value that waited for its end, as it is: the arguments are no JSON any more. */
    reply_arguments(r, r->early.data, r->early.size);
    if (r->state == IN_GEMMA) reply_arguments(r, r->word.data, r->word.size);
    reply_parts_add(r->out, IMP_PART_CALL_CUT, r->calls++, "", 0);
    reply_go_content(r, false);
}

/* What is held is no call. Its last `keep` bytes are looked at again, as they may begin one. */
static void give_back(struct reply *r, size_t keep) {
    size_t bytes = r->held.size - keep;
    r->kind = IMP_PART_CONTENT;
    r->state = IN_TEXT;
    reply_emit(r, IMP_PART_CONTENT, r->held.data, bytes);
    r->fresh = false;
    str_clear(&r->held);
    r->blanks = 0;
}

/* The byte and the beginning of a literal before it are text. */
static void break_call(struct reply *r, char c) {
    size_t matched = r->matched;
    look_again(r, &c, 1);
    if (matched > 0) look_again(r, r->match, matched);
    r->matched = 0;
    if (r->begun) {
        cut_call(r);
    } else {
        give_back(r, matched < r->held.size ? matched : r->held.size);
    }
}

static void end_call(struct reply *r) {
    if (r->state == IN_CHANNEL) {
        reply_go_reasoning(r, "<channel|>");
        return;
    }
    if (r->begun) reply_parts_add(r->out, IMP_PART_CALL_END, r->calls++, "", 0);
    if (r->list && r->state == IN_OBJECT && r->calls < CAP_REPLY_CALLS) {
        reply_start_call(r, IN_MISTRAL, MISTRAL_NEXT);
        return;
    }
    reply_go_content(r, false);
    r->beside_call = true;
}

static void take_byte(struct reply *r, char c) {
    if (r->state == IN_TEXT) {
        text_byte(r, c);
        return;
    }
    enum call_step step = call_byte(r, c);
    if (step == CALL_MORE && r->state != IN_TEXT && !r->begun) {
        str_add_char(&r->held, c);
        if (r->held.size >= CAP_REPLY_HELD) {
            r->matched = 0;
            give_back(r, 0);
        }
    } else if (step == CALL_BROKEN) {
        break_call(r, c);
    } else if (step == CALL_WHOLE) {
        end_call(r);
    } else if (step == CALL_WHOLE_BEFORE) {
        look_again(r, &c, 1);
        end_call(r);
    }
}

static void take_again(struct reply *r) {
    while (r->again_count > 0) take_byte(r, r->again[--r->again_count]);
}

void reply_feed(struct reply *r, const char *text, size_t bytes, struct reply_parts *out) {
    r->out = out;
    for (size_t i = 0; i < bytes;) {
        size_t plain = plain_run(r, text + i, bytes - i);
        if (plain > 0) {
            reply_emit(r, r->kind, text + i, plain);
            r->fresh = false;
            i += plain;
            continue;
        }
        take_byte(r, text[i++]);
        take_again(r);
    }
    r->out = NULL;
}

/* A header that the end cut off is a marker that never became whole; anything else was text. */
static bool is_header_start(const struct reply *r) {
    struct slice s = slice_str(&r->held);
    while (s.size > 0 && s.data[0] == ' ') s = (struct slice){s.data + 1, s.size - 1};
    return s.size == 0 || slice_starts(s, "<|") || slice_starts(s, "to=") ||
           slice_starts(s, "assistant");
}

void reply_end(struct reply *r, struct reply_parts *out) {
    r->out = out;
    if (r->state == IN_TEXT) {
        bool drop = r->beside_call && r->held.size == r->blanks;
        let_out(r, drop ? 0 : r->held.size);
    } else if (r->begun) {
        cut_call(r);
    } else if (r->state == IN_MISTRAL && r->place == MISTRAL_NEXT) {
        reply_go_content(r, false); /* a list of whole calls whose bracket never came */
    } else if (r->state == IN_HEADER && is_header_start(r)) {
        reply_go_content(r, false);
    } else {
        give_back(r, 0);
    }
    r->out = NULL;
}

/* ---- opening ---- */

/* Tells from the end of the prompt where the reply begins: the last marker decides. */
static void read_prompt(struct reply *r, struct slice end) {
    struct reply_parts dropped = {0};
    size_t n = end.size;
    if (r->style.format == REPLY_HARMONY) {
        static const char start[] = "<|start|>";
        const size_t size = sizeof start - 1;
        while (n >= size && memcmp(end.data + n - size, start, size) != 0) n--;
        if (n < size) return;
        reply_feed(r, end.data + n - size, end.size - n + size, &dropped);
        r->said = r->separate = r->spoke_content = r->spoke_reasoning = false;
        if (r->state == IN_HEADER) { /* the role is the prompt's */
            if (slice_equal(slice_str(&r->held), slice_of("assistant"))) str_clear(&r->held);
            r->place = HEADER_AFTER_ROLE;
        }
        reply_parts_free(&dropped);
        return;
    }
    while (n > 0 && json_is_blank(end.data[n - 1])) n--;
    struct slice text = {end.data, n};
    if (r->style.think && slice_ends(text, "<think>")) reply_go_reasoning(r, "</think>");
    if (r->style.format == REPLY_MISTRAL && slice_ends(text, "[THINK]"))
        reply_go_reasoning(r, "[/THINK]");
    if (r->style.format == REPLY_GEMMA4 && slice_ends(text, "<|channel>thought"))
        reply_go_reasoning(r, "<channel|>");
    /* Reasoning that the prompt closed: newlines that come now still belong to it. */
    if (slice_ends(text, "</think>") || slice_ends(text, "<channel|>")) r->fresh = true;
}

static int read_tools(struct reply *r, struct slice tools, struct imp_error *err) {
    if (tools.size == 0) return 0;
    if (tools.size > CAP_REPLY_TOOLS_BYTES)
        return error_set(err, IMP_ERR_REQUEST, "tools", "more than %u bytes",
                         CAP_REPLY_TOOLS_BYTES);
    int rc = json_read(tools.data, tools.size, "tools", &r->tools, err);
    if (rc < 0) return err ? (err->code = IMP_ERR_REQUEST) : IMP_ERR_REQUEST;
    if (yyjson_is_arr(yyjson_doc_get_root(r->tools))) return 0;
    return error_set(err, IMP_ERR_REQUEST, "tools", "not an array");
}

int reply_open(struct reply_style style, struct slice prompt_end, struct slice tools,
               struct reply **out, struct imp_error *err) {
    struct reply *r = mem_zero(1, sizeof *r);
    r->style = style;
    r->close = "</think>";
    int rc = read_tools(r, tools, err);
    if (rc < 0) {
        reply_close(r);
        return rc;
    }
    if (r->tools && yyjson_arr_size(yyjson_doc_get_root(r->tools)) == 0) {
        yyjson_doc_free(r->tools);
        r->tools = NULL;
    }
    /* One byte more than any of them may hold is ever added before it is looked at. */
    if (style.format != REPLY_NONE) {
        str_reserve(&r->held, CAP_REPLY_HELD + 1);
        str_reserve(&r->early, CAP_REPLY_HELD * 6);
        str_reserve(&r->word, CAP_REPLY_HELD * 6);
        str_reserve(&r->name, CAP_REPLY_NAME + 1);
        str_reserve(&r->id, CAP_REPLY_NAME + 1);
    } else {
        str_reserve(&r->held, CAP_REPLY_BLANKS + 32);
    }
    read_prompt(r, prompt_end);
    *out = r;
    return 0;
}

void reply_close(struct reply *r) {
    if (r == NULL) return;
    yyjson_doc_free(r->tools);
    str_free(&r->held);
    str_free(&r->name);
    str_free(&r->id);
    str_free(&r->early);
    str_free(&r->word);
    free(r);
}
