#include "text/unicode.h"

#include <utf8proc.h>

#include "base/str.h"

bool unicode_is_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool is_newer(uint32_t c, char major) {
    for (size_t i = 0; i < unicode_newer_count; i++) {
        const struct unicode_range *r = &unicode_newer_ranges[i];
        if (r->category[0] == major && c >= r->low && c <= r->high) return true;
    }
    return false;
}

bool unicode_is_numeric(uint32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    if (k == UTF8PROC_CATEGORY_CN) { /* the two ranges: Unicode 17, which Rust knows */
        return is_newer(c, 'N') || (c >= 0x11de0 && c <= 0x11de9) || (c >= 0x16ff4 && c <= 0x16ff6);
    }
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

static bool in_ranges(const uint32_t (*ranges)[2], size_t count, uint32_t c) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c > ranges[middle][1]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && c >= ranges[low][0];
}

bool unicode_is_punctuation(uint32_t c) {
    return in_ranges(unicode_punctuation_ranges, unicode_punctuation_count, c);
}

bool unicode_is_inert(uint32_t c) {
    return in_ranges(unicode_inert_ranges, unicode_inert_count, c);
}

bool unicode_is_mark(uint32_t c) {
    if (c < 0x300) return false;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME;
}

/* The 68 bytes outside ! to ~, U+00A1 to U+00AC and U+00AE to U+00FF, in order, are U+0100 on. */
uint32_t byte_level_encode(uint8_t byte) {
    if (byte < 33) return 256u + byte;
    if (byte < 127) return byte;
    if (byte < 161) return 256u + 33 + (byte - 127u);
    return byte == 173 ? 256u + 67 : byte;
}

int byte_level_decode(uint32_t c) {
    if (c >= 33 && c < 256) return c < 127 || (c > 160 && c != 173) ? (int)c : -1;
    if (c >= 256 && c < 289) return (int)c - 256;
    if (c >= 289 && c < 323) return (int)c - 289 + 127;
    return c == 323 ? 173 : -1;
}

uint32_t utf8_last(const char *p, size_t n, size_t *bytes) {
    size_t back = 1;
    *bytes = 0;
    if (n == 0) return 0;
    while (back < n && back < 4 && ((unsigned char)p[n - back] & 0xc0) == 0x80) back++;
    uint32_t c;
    *bytes = utf8_decode(p + n - back, back, &c);
    return c;
}
