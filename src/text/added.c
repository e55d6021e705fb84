#include "text/added.h"

#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

static int compare(const void *a, const void *b) {
    struct slice x = (*(const struct added_token *const *)a)->match;
    struct slice y = (*(const struct added_token *const *)b)->match;
    int order = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);
    if (order == 0) order = (x.size > y.size) - (x.size < y.size);
    if (order != 0) return order;
    /* Two that are the same when normalized: a special one wins, then the one listed first. */
    const struct added_token *p = *(const struct added_token *const *)a;
    const struct added_token *q = *(const struct added_token *const *)b;
    return p->special != q->special ? q->special - p->special : (p > q) - (p < q);
}

/* At most one that is special and one that is not have the same match. */
static void drop_repeated(struct added_set *set) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < set->count; i++) {
        const struct added_token *last = kept ? set->tokens[kept - 1] : NULL;
        bool repeated = last && last->special == set->tokens[i]->special &&
                        slice_equal(last->match, set->tokens[i]->match);
        if (!repeated) set->tokens[kept++] = set->tokens[i];
    }
    set->count = kept;
}

void added_set_build(struct added_set *set, const struct added_token *tokens, size_t count,
                     bool normalized) {
    set->tokens = mem_zero(count, sizeof *set->tokens);
    set->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (tokens[i].normalized != normalized || tokens[i].match.size == 0) continue;
        set->tokens[set->count++] = &tokens[i];
    }
    if (set->count > 0) qsort(set->tokens, set->count, sizeof *set->tokens, compare);
    drop_repeated(set);
    uint32_t i = 0;
    for (int b = 0; b < 256; b++) {
        set->first[b] = i;
        while (i < set->count && (unsigned char)set->tokens[i]->match.data[0] == b) i++;
    }
    set->first[256] = i;
}

void added_set_free(struct added_set *set) {
    free(set->tokens);
    *set = (struct added_set){0};
}

/* First of [low, high) whose byte at `depth` is at least `byte`; shorter tokens come first. */
static uint32_t lower_bound(const struct added_set *set, uint32_t low, uint32_t high, size_t depth,
                            int byte) {
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct slice match = set->tokens[middle]->match;
        int there = depth < match.size ? (unsigned char)match.data[depth] : -1;
        if (there < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* A special token that lies partly where it may and partly where it may not was never written by
 * anybody: it does not exist, and a shorter one may be there. One that lies wholly outside is
 * found, and then read as the plain text that it is. */
static bool crosses(const struct added_rules *rules, const struct added_token *token, size_t at) {
    if (rules->mask == NULL || !token->special || rules->plain) return false;
    size_t n = token->match.size;
    return memchr(rules->mask + at, 0, n) != NULL && memchr(rules->mask + at, 1, n) != NULL;
}

static const struct added_token *longest_at(const struct added_set *set,
                                            const struct added_rules *rules, const char *text,
                                            size_t size, size_t at) {
    unsigned char lead = (unsigned char)text[at];
    uint32_t low = set->first[lead], high = set->first[lead + 1];
    const struct added_token *best = NULL;
    for (size_t depth = 1; low < high; depth++) {
        uint32_t same = low;
        while (same < high && set->tokens[same]->match.size == depth &&
               crosses(rules, set->tokens[same], at)) {
            same++;
        }
        if (same < high && set->tokens[same]->match.size == depth) best = set->tokens[same];
        if (at + depth >= size) break;
        int byte = (unsigned char)text[at + depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
    }
    return best;
}

static bool is_word(const struct added_rules *rules, const char *p, size_t size) {
    struct regex_iter iter = {0};
    size_t start, end;
    return regex_next(rules->word, rules->regex, p, size, &iter, &start, &end);
}

static bool stands_alone(const struct added_rules *rules, const char *text, size_t size,
                         size_t start, size_t end) {
    size_t bytes;
    utf8_last(text, start, &bytes);
    if (bytes > 0 && is_word(rules, text + start - bytes, bytes)) return false;
    bytes = utf8_sequence_length(text + end, size - end);
    return bytes == 0 || !is_word(rules, text + end, bytes);
}

static bool applies(const struct added_rules *rules, const struct added_token *token,
                    const char *text, size_t size, size_t at) {
    size_t n = token->match.size;
    if (token->special && rules->plain) return false;
    if (token->special && rules->mask && memchr(rules->mask + at, 0, n) != NULL) return false;
    return !token->single_word || stands_alone(rules, text, size, at, at + n);
}

static void add_segment(struct segments *s, const struct added_token *token, size_t start,
                        size_t end) {
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 32;
        s->data = mem_grow(s->data, s->capacity * sizeof *s->data);
    }
    s->data[s->count++] = (struct segment){token, start, end};
}

static size_t strip_left(const char *text, size_t floor, size_t start) {
    while (start > floor) {
        size_t bytes;
        if (!unicode_is_space(utf8_last(text, start, &bytes))) break;
        start -= bytes;
    }
    return start;
}

static size_t strip_right(const char *text, size_t size, size_t end) {
    while (end < size) {
        uint32_t c;
        size_t bytes = utf8_decode(text + end, size - end, &c);
        if (!unicode_is_space(c)) break;
        end += bytes;
    }
    return end;
}

void added_find(const struct added_set *set, const struct added_rules *rules, const char *text,
                size_t size, struct segments *out) {
    size_t done = 0;  /* text before this is in a segment */
    size_t blank = 0; /* a run of spaces that was walked ends here: each is walked once */
    for (size_t at = 0; at < size;) {
        unsigned char lead = (unsigned char)text[at];
        const struct added_token *token = NULL;
        if (set->first[lead] < set->first[lead + 1]) {
            token = longest_at(set, rules, text, size, at);
        }
        if (token == NULL) {
            at++;
            continue;
        }
        size_t start = at, end = at + token->match.size;
        at = end; /* the search goes on behind the token, even if it does not count */
        if (!applies(rules, token, text, size, start)) continue;
        /* The token before may have swallowed the spaces that this one begins in. The package then
         * lets it be, or has nothing left of it if it strips on the left. */
        if (token->left_strip) start = done < start ? strip_left(text, done, start) : done;
        if (token->right_strip) end = blank = strip_right(text, size, end < blank ? blank : end);
        if (done < start) add_segment(out, NULL, done, start);
        if (start < end) add_segment(out, token, start, end);
        done = end;
    }
    if (done < size) add_segment(out, NULL, done, size);
}
