#include "text/decode.h"

#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

#define REPLACEMENT "\xEF\xBF\xBD"

enum { STREAM_RESERVE_BYTES = 1024 };

void decoder_free(struct decoder *d) {
    for (int i = 0; i < d->count; i++) regex_free(d->steps[i].pattern);
    d->count = 0;
}

struct decode_state *decode_start(const struct decoder *d) {
    struct decode_state *s = mem_zero(1, sizeof *s);
    s->decoder = d;
    /* Enough that a stream of ordinary tokens never grows them: steps of an engine allocate
     * nothing. */
    for (int i = 0; i < d->count; i++) {
        str_reserve(&s->steps[i].held, STREAM_RESERVE_BYTES);
        str_reserve(&s->steps[i].made, STREAM_RESERVE_BYTES);
    }
    return s;
}

void decode_free(struct decode_state *s) {
    if (s == NULL) return;
    for (int i = 0; i < CAP_TOKENIZER_STEPS; i++) {
        str_free(&s->steps[i].held);
        str_free(&s->steps[i].made);
    }
    if (s->regex_ready) regex_scratch_free(&s->regex);
    free(s);
}

/* A sequence that breaks off counts as one as far as it was valid: E4 B8 41 is U+FFFD, A. */
static size_t broken_length(const char *p, size_t n) {
    for (size_t k = n < 3 ? n : 3; k > 1; k--) {
        if (utf8_incomplete_tail(p, k) == k) return k;
    }
    return 1;
}

void decode_add_lossy(struct str *out, const char *p, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t len = utf8_sequence_length(p + i, n - i);
        if (len > 0) {
            str_add(out, p + i, len);
            i += len;
        } else {
            str_add_text(out, REPLACEMENT);
            i += broken_length(p + i, n - i);
        }
    }
}

/* The rest of the chain takes part of a token; `ends`: its last part. */
static void push(struct decode_state *s, int step, struct slice part, bool ends);

static struct slice slice_str(const struct str *s) {
    return (struct slice){s->data ? s->data : "", s->size};
}

/* ---- ByteLevel: all tokens are one string of bytes ---- */

static bool token_bytes(struct slice token, struct str *out) {
    size_t before = out->size;
    for (size_t i = 0; i < token.size;) {
        uint32_t c;
        i += utf8_decode(token.data + i, token.size - i, &c);
        int byte = byte_level_decode(c);
        if (byte < 0) {
            out->size = before;
            return false;
        }
        str_add_char(out, (char)byte);
    }
    return true;
}

static void byte_level_add(struct decode_state *s, int step, struct slice token) {
    struct decode_step_state *st = &s->steps[step];
    if (!token_bytes(token, &st->held)) str_add(&st->held, token.data, token.size);
    size_t tail = utf8_incomplete_tail(st->held.data, st->held.size);
    size_t whole = st->held.size - tail;
    if (whole == 0) return;
    str_clear(&st->made);
    decode_add_lossy(&st->made, st->held.data, whole);
    memmove(st->held.data, st->held.data + whole, tail);
    st->held.size = tail;
    push(s, step + 1, slice_str(&st->made), false);
}

static void byte_level_end(struct decode_state *s, int step) {
    struct decode_step_state *st = &s->steps[step];
    str_clear(&st->made);
    decode_add_lossy(&st->made, st->held.data, st->held.size);
    str_clear(&st->held);
    push(s, step + 1, slice_str(&st->made), true);
}

/* ---- ByteFallback: a run of "<0xNN>" is text if all of it is ---- */

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int fallback_byte(struct slice token) {
    if (token.size != 6 || !slice_starts(token, "<0x") || token.data[5] != '>') return -1;
    int low = hex_digit(token.data[4]);
    if (token.data[3] == '+') return low; /* Rust's number parser takes a sign */
    int high = hex_digit(token.data[3]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static void fallback_flush(struct decode_state *s, int step) {
    struct decode_step_state *st = &s->steps[step];
    if (st->held.size == 0) return;
    size_t n = st->held.size;
    if (utf8_valid(st->held.data, n)) {
        push(s, step + 1, slice_str(&st->held), true);
    } else {
        for (size_t i = 0; i < n; i++) push(s, step + 1, slice_of(REPLACEMENT), true);
    }
    str_clear(&st->held);
}

static void fallback_add(struct decode_state *s, int step, struct slice token) {
    int byte = fallback_byte(token);
    if (byte >= 0) {
        str_add_char(&s->steps[step].held, (char)byte);
        return;
    }
    fallback_flush(s, step);
    push(s, step + 1, token, true);
}

/* ---- Metaspace, Strip, Replace, Join ---- */

static void metaspace_add(struct decode_state *s, int step, struct slice part, bool ends) {
    const struct decode_step *how = &s->decoder->steps[step];
    struct decode_step_state *st = &s->steps[step];
    str_clear(&st->made);
    for (size_t i = 0, len; i < part.size; i += len) {
        uint32_t c;
        len = utf8_decode(part.data + i, part.size - i, &c);
        if (c != how->character) {
            str_add(&st->made, part.data + i, len);
        } else if (st->tokens > 0 || !how->drop_first) {
            str_add_char(&st->made, ' ');
        }
    }
    if (ends) st->tokens++;
    push(s, step + 1, slice_str(&st->made), ends);
}

static void add_repeated(struct str *out, uint32_t c, size_t times) {
    for (size_t i = 0; i < times; i++) str_add_codepoint(out, c);
}

static void strip_add(struct decode_state *s, int step, struct slice part, bool ends) {
    const struct decode_step *how = &s->decoder->steps[step];
    struct decode_step_state *st = &s->steps[step];
    str_clear(&st->made);
    for (size_t i = 0, len; i < part.size; i += len) {
        uint32_t c;
        len = utf8_decode(part.data + i, part.size - i, &c);
        if (c == how->character) {
            if (!st->inside && st->stripped < how->left) {
                st->stripped++;
            } else if (st->pending < how->right) {
                st->inside = true;
                st->pending++;
            } else { /* as many are held as may go: this one pushes an older one out */
                st->inside = true;
                str_add(&st->made, part.data + i, len);
            }
            continue;
        }
        st->inside = true;
        add_repeated(&st->made, how->character, st->pending);
        st->pending = 0;
        str_add(&st->made, part.data + i, len);
    }
    if (ends) {
        st->pending = st->stripped = 0;
        st->inside = false;
    }
    push(s, step + 1, slice_str(&st->made), ends);
}

static void replace_add(struct decode_state *s, int step, struct slice part, bool ends) {
    const struct decode_step *how = &s->decoder->steps[step];
    struct decode_step_state *st = &s->steps[step];
    if (!s->regex_ready) regex_scratch_init(&s->regex);
    s->regex_ready = true;
    str_clear(&st->made);
    struct regex_iter iter = {0};
    size_t start, end, last = 0;
    while (part.size > 0 &&
           regex_next(how->pattern, &s->regex, part.data, part.size, &iter, &start, &end)) {
        str_add(&st->made, part.data + last, start - last);
        str_add(&st->made, how->content.data, how->content.size);
        last = end;
    }
    str_add(&st->made, part.data + last, part.size - last);
    push(s, step + 1, slice_str(&st->made), ends);
}

static void join_add(struct decode_state *s, int step, struct slice part, bool ends) {
    struct decode_step_state *st = &s->steps[step];
    if (st->tokens > 0 && !st->inside) push(s, step + 1, slice_of(" "), false);
    st->inside = !ends;
    if (ends) st->tokens++;
    push(s, step + 1, part, ends);
}

static void push(struct decode_state *s, int step, struct slice part, bool ends) {
    if (step == s->decoder->count) {
        str_add(s->out, part.data, part.size);
        return;
    }
    switch (s->decoder->steps[step].kind) {
    case DECODE_BYTE_LEVEL:
        byte_level_add(s, step, part);
        break;
    case DECODE_BYTE_FALLBACK:
        fallback_add(s, step, part);
        break;
    case DECODE_METASPACE:
        metaspace_add(s, step, part, ends);
        break;
    case DECODE_FUSE:
        push(s, step + 1, part, false);
        break;
    case DECODE_STRIP:
        strip_add(s, step, part, ends);
        break;
    case DECODE_REPLACE:
        replace_add(s, step, part, ends);
        break;
    case DECODE_JOIN:
        join_add(s, step, part, ends);
        break;
    }
}

void decode_add(struct decode_state *s, struct slice token, struct str *out) {
    s->out = out;
    push(s, 0, token, true);
}

void decode_end(struct decode_state *s, struct str *out) {
    s->out = out;
    for (int i = 0; i < s->decoder->count; i++) {
        switch (s->decoder->steps[i].kind) {
        case DECODE_BYTE_LEVEL:
            byte_level_end(s, i);
            break;
        case DECODE_BYTE_FALLBACK:
            fallback_flush(s, i);
            break;
        case DECODE_FUSE:
            push(s, i + 1, (struct slice){"", 0}, true);
            break;
        default:
            break;
        }
    }
}
