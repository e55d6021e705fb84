#include "text/json_scan.h"

#include <stdio.h>
#include <string.h>

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static int hex_value(char c) {
    if (is_digit(c)) return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum json_scan_result go(struct json_scan *s, enum json_scan_state state) {
    s->state = state;
    return JSON_SCAN_MORE;
}

static bool in_object(const struct json_scan *s) {
    unsigned top = s->depth - 1;
    return (s->in_object[top / 8] >> top % 8 & 1) != 0;
}

static enum json_scan_result open_bracket(struct json_scan *s, bool object) {
    if (s->depth == CAP_JSON_DEPTH) return JSON_SCAN_BROKEN;
    uint8_t *byte = &s->in_object[s->depth / 8], bit = (uint8_t)(1u << s->depth % 8);
    *byte = (uint8_t)(object ? *byte | bit : *byte & ~bit);
    s->depth++;
    return go(s, object ? JSON_SCAN_FIRST_KEY : JSON_SCAN_FIRST_ITEM);
}

static enum json_scan_result end_value(struct json_scan *s) {
    s->state = s->depth > 0 ? JSON_SCAN_AFTER_ITEM : JSON_SCAN_END;
    return s->depth > 0 ? JSON_SCAN_MORE : JSON_SCAN_DONE;
}

static enum json_scan_result close_bracket(struct json_scan *s, char c) {
    if (s->depth == 0 || c != (in_object(s) ? '}' : ']')) return JSON_SCAN_BROKEN;
    s->depth--;
    return end_value(s);
}

static enum json_scan_result begin_string(struct json_scan *s, bool key) {
    s->key = key;
    return go(s, JSON_SCAN_STRING);
}

static enum json_scan_result begin_value(struct json_scan *s, char c) {
    switch (c) {
    case '{':
    case '[':
        return open_bracket(s, c == '{');
    case '"':
        return begin_string(s, false);
    case '-':
        return go(s, JSON_SCAN_MINUS);
    case 't':
    case 'f':
    case 'n':
        s->literal = c == 't' ? "rue" : c == 'f' ? "alse" : "ull";
        return go(s, JSON_SCAN_LITERAL);
    default:
        break;
    }
    if (!is_digit(c)) return JSON_SCAN_BROKEN;
    return go(s, c == '0' ? JSON_SCAN_ZERO : JSON_SCAN_DIGITS);
}

static enum json_scan_result after_item(struct json_scan *s, char c) {
    if (json_is_blank(c)) return JSON_SCAN_MORE;
    if (c == ',') return go(s, in_object(s) ? JSON_SCAN_KEY : JSON_SCAN_VALUE);
    return close_bracket(s, c);
}

static enum json_scan_result string_byte(struct json_scan *s, char c) {
    if (c == '\\') return go(s, JSON_SCAN_ESCAPE);
    if (c != '"') return JSON_SCAN_MORE;
    return s->key ? go(s, JSON_SCAN_COLON) : end_value(s);
}

static enum json_scan_result escape_byte(struct json_scan *s, char c) {
    if (c == 'u') {
        s->hex_left = 4;
        return go(s, JSON_SCAN_HEX);
    }
    return c && strchr("\"\\/bfnrt", c) ? go(s, JSON_SCAN_STRING) : JSON_SCAN_BROKEN;
}

/* A number ends where something else begins: that byte is looked at again, as what follows it. */
static enum json_scan_result number_end(struct json_scan *s, char c) {
    if (s->depth == 0) {
        s->state = JSON_SCAN_END;
        return JSON_SCAN_PAST;
    }
    s->state = JSON_SCAN_AFTER_ITEM;
    return after_item(s, c);
}

static enum json_scan_result number_byte(struct json_scan *s, char c) {
    bool digit = is_digit(c), e = c == 'e' || c == 'E';
    switch (s->state) {
    case JSON_SCAN_MINUS:
        if (!digit) return JSON_SCAN_BROKEN;
        return go(s, c == '0' ? JSON_SCAN_ZERO : JSON_SCAN_DIGITS);
    case JSON_SCAN_ZERO:
    case JSON_SCAN_DIGITS:
        if (digit && s->state == JSON_SCAN_ZERO) return JSON_SCAN_BROKEN;
        if (digit) return JSON_SCAN_MORE;
        if (c == '.') return go(s, JSON_SCAN_POINT);
        return e ? go(s, JSON_SCAN_E) : number_end(s, c);
    case JSON_SCAN_FRACTION:
        if (digit) return JSON_SCAN_MORE;
        return e ? go(s, JSON_SCAN_E) : number_end(s, c);
    case JSON_SCAN_POINT:
        return digit ? go(s, JSON_SCAN_FRACTION) : JSON_SCAN_BROKEN;
    case JSON_SCAN_E:
        if (c == '+' || c == '-') return go(s, JSON_SCAN_E_SIGN);
        return digit ? go(s, JSON_SCAN_EXPONENT) : JSON_SCAN_BROKEN;
    case JSON_SCAN_E_SIGN:
        return digit ? go(s, JSON_SCAN_EXPONENT) : JSON_SCAN_BROKEN;
    default: /* JSON_SCAN_EXPONENT */
        return digit ? JSON_SCAN_MORE : number_end(s, c);
    }
}

enum json_scan_result json_scan_byte(struct json_scan *s, char c) {
    switch (s->state) {
    case JSON_SCAN_STRING:
        return string_byte(s, c);
    case JSON_SCAN_ESCAPE:
        return escape_byte(s, c);
    case JSON_SCAN_HEX:
        if (hex_value(c) < 0) return JSON_SCAN_BROKEN;
        return --s->hex_left > 0 ? JSON_SCAN_MORE : go(s, JSON_SCAN_STRING);
    case JSON_SCAN_LITERAL:
        if (c != *s->literal) return JSON_SCAN_BROKEN;
        return *++s->literal ? JSON_SCAN_MORE : end_value(s);
    case JSON_SCAN_AFTER_ITEM:
        return after_item(s, c);
    case JSON_SCAN_END:
        return JSON_SCAN_BROKEN;
    case JSON_SCAN_VALUE:
    case JSON_SCAN_FIRST_ITEM:
        if (json_is_blank(c)) return JSON_SCAN_MORE;
        if (c == ']' && s->state == JSON_SCAN_FIRST_ITEM) return close_bracket(s, c);
        return begin_value(s, c);
    case JSON_SCAN_FIRST_KEY:
    case JSON_SCAN_KEY:
        if (json_is_blank(c)) return JSON_SCAN_MORE;
        if (c == '}' && s->state == JSON_SCAN_FIRST_KEY) return close_bracket(s, c);
        return c == '"' ? begin_string(s, true) : JSON_SCAN_BROKEN;
    case JSON_SCAN_COLON:
        if (json_is_blank(c)) return JSON_SCAN_MORE;
        return c == ':' ? go(s, JSON_SCAN_VALUE) : JSON_SCAN_BROKEN;
    default:
        return number_byte(s, c);
    }
}

bool json_scan_whole(struct slice text) {
    struct json_scan s = {0};
    enum json_scan_result result = JSON_SCAN_MORE;
    size_t i = 0;
    while (i < text.size && result == JSON_SCAN_MORE) result = json_scan_byte(&s, text.data[i++]);
    /* A number at the end of the text has nothing after it to end it. */
    if (result == JSON_SCAN_MORE) return json_scan_byte(&s, ' ') == JSON_SCAN_PAST;
    if (result == JSON_SCAN_BROKEN) return false;
    if (result == JSON_SCAN_PAST) i--;
    while (i < text.size && json_is_blank(text.data[i])) i++;
    return i == text.size;
}

/* ---- escapes ---- */

void json_escape_byte(char c, struct str *out) {
    static const char plain[] = "\b\t\n\f\r\"\\", letters[] = "btnfr\"\\";
    const char *at = c ? strchr(plain, c) : NULL;
    if (at) {
        str_add_char(out, '\\');
        str_add_char(out, letters[at - plain]);
    } else if ((unsigned char)c < 0x20) {
        static const char digits[] = "0123456789abcdef";
        str_add_text(out, "\\u00");
        str_add_char(out, digits[(unsigned char)c >> 4]);
        str_add_char(out, digits[c & 15]);
    } else {
        str_add_char(out, c);
    }
}

void json_scan_escape(const struct json_scan *s, char c, struct str *out) {
    if (s->state == JSON_SCAN_STRING && (unsigned char)c < 0x20) {
        json_escape_byte(c, out);
    } else {
        str_add_char(out, c);
    }
}

/* Four hexadecimal digits at p, or -1. */
static int32_t hex4(const char *p, size_t n) {
    int32_t value = 0;
    if (n < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(p[i]);
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* What follows "\u", n bytes; gives how many of them belong to it, 0 if they are no digits. */
static size_t unescape_unicode(const char *p, size_t n, struct str *out) {
    int32_t unit = hex4(p, n);
    if (unit < 0) return 0;
    if (unit >= 0xD800 && unit < 0xDC00 && n >= 10 && p[4] == '\\' && p[5] == 'u') {
        int32_t low = hex4(p + 6, n - 6);
        if (low >= 0xDC00 && low < 0xE000) {
            str_add_codepoint(out, (uint32_t)(0x10000 + ((unit - 0xD800) << 10) + low - 0xDC00));
            return 10;
        }
    }
    str_add_codepoint(out, unit >= 0xD800 && unit < 0xE000 ? 0xFFFD : (uint32_t)unit);
    return 4;
}

bool json_unescape(struct slice in, struct str *out) {
    static const char letters[] = "btnfr\"\\/", plain[] = "\b\t\n\f\r\"\\/";
    for (size_t i = 0; i < in.size; i++) {
        if (in.data[i] != '\\') {
            str_add_char(out, in.data[i]);
            continue;
        }
        if (++i == in.size) return false;
        const char *at = in.data[i] ? strchr(letters, in.data[i]) : NULL;
        if (at) {
            str_add_char(out, plain[at - letters]);
            continue;
        }
        size_t used =
            in.data[i] == 'u' ? unescape_unicode(in.data + i + 1, in.size - i - 1, out) : 0;
        if (used == 0) return false;
        i += used;
    }
    return true;
}
