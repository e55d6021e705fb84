/* Containers as Python prints them, to JSON: the first template of Qwen3-Coder showed models their
 * own calls that way, and so they write them. */
#include <string.h>

#include "text/reply_internal.h"

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* A string from its opening quote on; gives the bytes it took, 0 if it does not end. \x and octal
 * are not Python's way of printing text and are left to fail. */
static size_t take_string(struct slice s, struct str *out) {
    char quote = s.data[0];
    str_add_char(out, '"');
    for (size_t i = 1; i < s.size; i++) {
        char c = s.data[i];
        if (c == quote) {
            str_add_char(out, '"');
            return i + 1;
        }
        if (c != '\\') {
            json_escape_byte(c, out);
            continue;
        }
        if (++i == s.size) return 0;
        if (s.data[i] == '\'') {
            str_add_char(out, '\'');
        } else {
            str_add_char(out, '\\');
            str_add_char(out, s.data[i]);
        }
    }
    return 0;
}

static size_t take_word(struct slice s, struct str *out) {
    static const char *const words[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"}};
    size_t n = 0;
    while (n < s.size && is_letter(s.data[n])) n++;
    for (int i = 0; i < 3; i++) {
        if (!slice_equal((struct slice){s.data, n}, slice_of(words[i][0]))) continue;
        str_add_text(out, words[i][1]);
        return n;
    }
    str_add(out, s.data, n);
    return n;
}

bool reply_python_to_json(struct slice s, struct str *out) {
    str_clear(out);
    while (s.size > 0) {
        size_t taken = 1;
        if (*s.data == '\'' || *s.data == '"') {
            taken = take_string(s, out);
        } else if (is_letter(*s.data)) {
            taken = take_word(s, out);
        } else {
            str_add_char(out, *s.data);
        }
        if (taken == 0) return false;
        s = (struct slice){s.data + taken, s.size - taken};
    }
    return out->size > 0 && json_scan_whole((struct slice){out->data, out->size});
}
