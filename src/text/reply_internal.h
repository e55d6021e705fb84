/* What the files of reply_*.c share: the state of one reply and how bytes leave it.
 *
 * reply.c owns the text between the calls. Inside a call one byte at a time goes to the function of
 * its format, which says what it made of it (enum call_step); until a call has begun, reply.c keeps
 * its bytes in `held`, to give them back. */
#ifndef IMP_TEXT_REPLY_INTERNAL_H
#define IMP_TEXT_REPLY_INTERNAL_H

#include "text/json_scan.h"
#include "text/reply.h"

enum reply_state {
    IN_TEXT,    /* content or reasoning: `kind` */
    IN_CHANNEL, /* Gemma: the name of a channel */
    IN_HEADER,  /* harmony: up to <|message|> */
    IN_TAG,     /* after <tool_call>: an object or <function= */
    IN_OBJECT,  /* {"name": ..., "arguments": ...} */
    IN_XML,
    IN_MISTRAL,
    IN_GEMMA,
    IN_MESSAGE, /* harmony: the arguments of a call */
};

enum call_step {
    CALL_MORE,
    CALL_WHOLE,        /* ends with this byte */
    CALL_WHOLE_BEFORE, /* ended before this byte */
    CALL_BROKEN,       /* this byte cannot stand here */
};

/* Where inside {"name": ..., "arguments": ...}. */
enum object_place {
    OBJECT_OPEN,
    OBJECT_FIRST_KEY,
    OBJECT_KEY,
    OBJECT_KEY_TEXT,
    OBJECT_COLON,
    OBJECT_VALUE,
    OBJECT_TEXT,  /* a string that is kept */
    OBJECT_NULL,  /* the arguments are null */
    OBJECT_OTHER, /* a value that is not */
    OBJECT_ARGUMENTS,
    OBJECT_COMMA,
};
enum object_field { FIELD_OTHER, FIELD_NAME, FIELD_ID, FIELD_ARGUMENTS };

enum xml_place { XML_NAME, XML_NEXT, XML_PARAMETER, XML_VALUE };

/* Bits of what a parameter may be, by its schema. */
enum {
    TYPE_STRING = 1,
    TYPE_NUMBER = 2,
    TYPE_BOOLEAN = 4,
    TYPE_NULL = 8,
    TYPE_OBJECT = 16,
    TYPE_ARRAY = 32,
    TYPE_ANY = 62, /* no type given: a string is what nothing else fits */
};

enum mistral_place {
    MISTRAL_START, /* after [TOOL_CALLS] */
    MISTRAL_NAME,
    MISTRAL_MARKER, /* [CALL_ID] or [ARGS] */
    MISTRAL_ID,
    MISTRAL_ARGUMENTS,
    MISTRAL_NEXT, /* between the objects of a list */
};

enum gemma_place {
    GEMMA_HEAD, /* call: */
    GEMMA_NAME,
    GEMMA_FIRST_KEY,
    GEMMA_KEY,
    GEMMA_KEY_BARE,
    GEMMA_KEY_MARK, /* inside the <|"|> that opens a key */
    GEMMA_KEY_QUOTED,
    GEMMA_COLON,
    GEMMA_FIRST_ITEM,
    GEMMA_VALUE,
    GEMMA_VALUE_MARK, /* inside the <|"|> that opens a text */
    GEMMA_TEXT,
    GEMMA_JSON_TEXT, /* "..." */
    GEMMA_BARE,
    GEMMA_AFTER,
};

enum header_place { HEADER_START, HEADER_AFTER_ROLE };

enum { REPLY_AGAIN = 96 };

struct reply {
    struct reply_style style;
    yyjson_doc *tools; /* or NULL */
    enum reply_state state;
    struct reply_parts *out; /* of the call in progress */

    /* text */
    imp_part kind;
    const char *close; /* the marker that ends the reasoning */
    bool said;         /* content came */
    bool fresh;        /* nothing yet since reasoning began or ended: newlines are dropped */
    bool beside_call;  /* nothing but white space since a call */
    struct str held;   /* white space and the beginning of a marker; or a call not yet begun */
    size_t blanks;     /* of them white space, at the front */
    char again[REPLY_AGAIN]; /* bytes to be looked at once more, before any new one */
    size_t again_count;

    /* the call */
    uint32_t calls; /* begun so far */
    bool begun;
    int place; /* one of the enums above, by `state` */
    struct str name, id;
    bool id_said;
    struct str early;  /* arguments that cannot be let out yet */
    struct str word;   /* a key, a string, a bare value: what is being collected */
    const char *match; /* a literal of which `matched` bytes are there */
    size_t matched;
    struct json_scan scan;

    /* an object */
    enum object_field field;
    bool has_arguments;
    bool bare; /* Llama 3: no marker before it, so only the name of a tool makes it a call */
    bool list; /* Mistral: in [ ] */

    /* XML */
    yyjson_val *tool; /* that is called, or NULL */
    bool has_parameter;
    unsigned types;
    bool first_byte;  /* of a value */
    bool newline;     /* one is held: the last one before </parameter> is not part of the value */
    bool scan_broken; /* the value so far is no JSON */
    enum { VALUE_TEXT, VALUE_HELD, VALUE_JSON } value; /* how it leaves: as it comes, at its end */

    /* Gemma's nesting: one bit per open bracket, as json_scan has it */
    unsigned depth;
    uint8_t in_object[CAP_JSON_DEPTH / 8];

    /* harmony: a further message of a kind goes on a new line */
    bool spoke_content, spoke_reasoning, separate;
};

/* reply.c */
void reply_emit(struct reply *r, imp_part kind, const char *text, size_t bytes);
void reply_arguments(struct reply *r, const char *text, size_t bytes);
void reply_arguments_text(struct reply *r, const char *text); /* zero-terminated */
/* To the text that follows, with nothing held. fresh: newlines at its front are dropped. */
void reply_go_reasoning(struct reply *r, const char *close);
void reply_go_content(struct reply *r, bool fresh);
/* The call has its name, and its arguments begin: everything about it that waited comes out. */
void reply_begin_call(struct reply *r);
/* Forgets the call before. `held` stays. */
void reply_start_call(struct reply *r, enum reply_state state, int place);
/* Appends to a collected word; false where it grows past `cap`. */
bool reply_collect(struct str *word, char c, size_t cap);
/* The next byte of r->match; CALL_WHOLE when that was the last. */
enum call_step reply_match(struct reply *r, char c);
bool reply_name_byte(char c); /* may stand in the name of a tool */

/* one byte of a call, by format */
enum call_step reply_object_byte(struct reply *r, char c);
enum call_step reply_xml_byte(struct reply *r, char c);
enum call_step reply_mistral_byte(struct reply *r, char c);
enum call_step reply_gemma_byte(struct reply *r, char c);
enum call_step reply_message_byte(struct reply *r, char c);
enum call_step reply_header_byte(struct reply *r, char c);
/* The tool of that name among the request's, or NULL. */
yyjson_val *reply_find_tool(const struct reply *r, struct slice name);
/* A value as Python prints it, as JSON in *out; false if it is not one. */
bool reply_python_to_json(struct slice text, struct str *out);
/* What a parameter of a tool may be. Unknown ones are strings; tool may be NULL. */
unsigned reply_parameter_types(yyjson_val *tool, struct slice parameter);

#endif
