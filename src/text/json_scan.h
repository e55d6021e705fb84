/* One JSON value read byte by byte, only to know where it ends and whether it is one.
 *
 * Keeps no text, allocates nothing, does not recurse: open brackets are bits, at most
 * CAP_JSON_DEPTH of them. Follows RFC 8259 but for one thing that models write all the time: a
 * control character inside a string passes, and whoever copies the text escapes it
 * (json_scan_escape). A zeroed struct is ready. One thread. */
#ifndef IMP_TEXT_JSON_SCAN_H
#define IMP_TEXT_JSON_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/caps.h"
#include "base/str.h"

enum json_scan_state {
    JSON_SCAN_VALUE, /* white space, then a value */
    JSON_SCAN_FIRST_ITEM,
    JSON_SCAN_FIRST_KEY,
    JSON_SCAN_KEY,
    JSON_SCAN_COLON,
    JSON_SCAN_STRING,
    JSON_SCAN_ESCAPE,
    JSON_SCAN_HEX,
    JSON_SCAN_LITERAL,
    JSON_SCAN_MINUS,
    JSON_SCAN_ZERO,
    JSON_SCAN_DIGITS,
    JSON_SCAN_POINT,
    JSON_SCAN_FRACTION,
    JSON_SCAN_E,
    JSON_SCAN_E_SIGN,
    JSON_SCAN_EXPONENT,
    JSON_SCAN_AFTER_ITEM, /* a comma or the closing bracket */
    JSON_SCAN_END,
};

struct json_scan {
    enum json_scan_state state;
    bool key;                              /* the string is a key */
    uint8_t hex_left;                      /* of a \uXXXX */
    const char *literal;                   /* what is left of true, false, null */
    unsigned depth;                        /* open brackets */
    uint8_t in_object[CAP_JSON_DEPTH / 8]; /* one bit per open bracket */
};

enum json_scan_result {
    JSON_SCAN_MORE,
    JSON_SCAN_DONE,   /* the value ends with this byte */
    JSON_SCAN_PAST,   /* the value, a number, ended before this byte */
    JSON_SCAN_BROKEN, /* this byte cannot stand here */
};

enum json_scan_result json_scan_byte(struct json_scan *s, char c);
/* The text is one value and nothing else but white space around it. */
bool json_scan_whole(struct slice text);
/* Appends a byte of a scanned value as valid JSON has it. Call before json_scan_byte. */
void json_scan_escape(const struct json_scan *s, char c, struct str *out);
/* Appends a byte of plain text as the inside of a JSON string. */
void json_escape_byte(char c, struct str *out);
/* Appends the text of a JSON string, given without its quotes; false if it is not one. Halves of
 * surrogate pairs that stand alone become U+FFFD. */
bool json_unescape(struct slice inside, struct str *out);

static inline bool json_is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

#endif
