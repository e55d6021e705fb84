#include "text/pretok.h"

#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

void pretok_free(struct pretok *p) {
    for (int i = 0; i < p->count; i++) regex_free(p->steps[i].pattern);
    p->count = 0;
}

void pretok_scratch_free(struct pretok_scratch *s) {
    free(s->pieces.data);
    free(s->spare.data);
    free(s->runs);
    str_free(&s->text);
    str_free(&s->spare_text);
    *s = (struct pretok_scratch){0};
}

static void add_piece(struct pieces *pieces, size_t start, size_t end) {
    if (start == end) return;
    if (pieces->count == pieces->capacity) {
        pieces->capacity = pieces->capacity ? pieces->capacity * 2 : 64;
        pieces->data = mem_grow(pieces->data, pieces->capacity * sizeof *pieces->data);
    }
    pieces->data[pieces->count++] = (struct piece){start, end - start};
}

static void add_run(struct pretok_scratch *s, size_t start, size_t end, bool match) {
    if (s->run_count == s->run_capacity) {
        s->run_capacity = s->run_capacity ? s->run_capacity * 2 : 64;
        s->runs = mem_grow(s->runs, s->run_capacity * sizeof *s->runs);
    }
    s->runs[s->run_count++] = (struct run){start, end, match};
}

/* ---- runs: the piece as matches and what lies between, in order, without gaps ---- */

static void runs_of_pattern(const struct pretok_step *step, struct pretok_scratch *s,
                            struct regex_scratch *regex, const char *p, size_t size) {
    struct regex_iter iter = {0};
    size_t start, end, last = 0;
    while (regex_next(step->pattern, regex, p, size, &iter, &start, &end)) {
        if (last != start) add_run(s, last, start, step->invert);
        add_run(s, start, end, !step->invert);
        last = end;
    }
    if (last != size) add_run(s, last, size, step->invert);
}

static bool character_matches(const struct pretok_step *step, uint32_t c) {
    switch (step->kind) {
    case PRETOK_NUMERIC:
        return unicode_is_numeric(c);
    case PRETOK_PUNCTUATION:
        return unicode_is_punctuation(c);
    case PRETOK_SPACE:
        return unicode_is_space(c);
    default:
        return c == step->character;
    }
}

static void runs_of_characters(const struct pretok_step *step, struct pretok_scratch *s,
                               const char *p, size_t size) {
    size_t last = 0;
    for (size_t i = 0, len; i < size; i += len) {
        uint32_t c;
        len = utf8_decode(p + i, size - i, &c);
        if (!character_matches(step, c)) continue;
        if (last < i) add_run(s, last, i, false);
        add_run(s, i, i + len, true);
        last = i + len;
    }
    if (last < size) add_run(s, last, size, false);
}

static void runs_of_length(const struct pretok_step *step, struct pretok_scratch *s, const char *p,
                           size_t size) {
    size_t last = 0, count = 0;
    for (size_t i = 0; i < size;) {
        i += utf8_sequence_length(p + i, size - i);
        if (++count % step->length != 0 && i < size) continue;
        add_run(s, last, i, true);
        last = i;
    }
}

/* ---- from runs to pieces ---- */

/* Whether a run is joined to its neighbour; before and this are their match flags. */
static bool joins(enum pretok_behaviour behaviour, bool before, bool this) {
    switch (behaviour) {
    case PRETOK_CONTIGUOUS:
        return this == before;
    case PRETOK_MERGED_WITH_PREVIOUS:
    case PRETOK_MERGED_WITH_NEXT:
        return this && !before;
    default:
        return false;
    }
}

static void cut_forward(const struct pretok_scratch *s, enum pretok_behaviour behaviour,
                        size_t base, struct pieces *out) {
    size_t start = 0, end = 0;
    bool before = false;
    for (size_t i = 0; i < s->run_count; i++) {
        struct run r = s->runs[i];
        if (behaviour == PRETOK_REMOVED && r.match) continue;
        if (i == 0 || !joins(behaviour, before, r.match)) {
            add_piece(out, base + start, base + end);
            start = r.start;
        }
        end = r.end;
        before = r.match;
    }
    add_piece(out, base + start, base + end);
}

/* A match goes with what follows: the same, read from the end. */
static void cut_backward(const struct pretok_scratch *s, size_t base, struct pieces *out) {
    size_t first = out->count, start = 0, end = 0;
    bool before = false;
    for (size_t i = s->run_count; i-- > 0;) {
        struct run r = s->runs[i];
        if (i + 1 == s->run_count || !joins(PRETOK_MERGED_WITH_NEXT, before, r.match)) {
            add_piece(out, base + start, base + end);
            end = r.end;
        }
        start = r.start;
        before = r.match;
    }
    add_piece(out, base + start, base + end);
    for (size_t a = first, b = out->count; a + 1 < b; a++) {
        struct piece swap = out->data[a];
        out->data[a] = out->data[--b];
        out->data[b] = swap;
    }
}

static void split(const struct pretok_step *step, struct pretok_scratch *s,
                  struct regex_scratch *regex, const char *text) {
    s->spare.count = 0;
    for (size_t i = 0; i < s->pieces.count; i++) {
        struct piece piece = s->pieces.data[i];
        const char *p = text + piece.start;
        s->run_count = 0;
        switch (step->kind) {
        case PRETOK_PATTERN:
            runs_of_pattern(step, s, regex, p, piece.size);
            break;
        case PRETOK_FIXED:
            runs_of_length(step, s, p, piece.size);
            break;
        default:
            runs_of_characters(step, s, p, piece.size);
            break;
        }
        if (step->behaviour == PRETOK_MERGED_WITH_NEXT) {
            cut_backward(s, piece.start, &s->spare);
        } else {
            cut_forward(s, step->behaviour, piece.start, &s->spare);
        }
    }
    struct pieces swap = s->pieces;
    s->pieces = s->spare;
    s->spare = swap;
    bool kept = s->pieces.count > 0 && s->pieces.data[0].start == s->spare.data[0].start;
    s->untouched = s->untouched && kept;
}

/* ---- steps that change the text ---- */

static void rewrite_piece(const struct pretok_step *step, struct str *out, const char *p,
                          size_t size, bool first) {
    size_t content = strlen(step->content);
    if (step->kind == PRETOK_PREFIX) {
        bool there = size >= content && memcmp(p, step->content, content) == 0;
        if (!there && (first || !step->first_only)) str_add(out, step->content, content);
        str_add(out, p, size);
        return;
    }
    str_reserve(out, size);
    for (size_t i = 0; i < size; i++) {
        if (step->kind == PRETOK_BYTES) {
            str_add_codepoint(out, byte_level_encode((unsigned char)p[i]));
        } else if (p[i] == ' ') {
            str_add(out, step->content, content);
        } else {
            str_add_char(out, p[i]);
        }
    }
}

static void rewrite(const struct pretok_step *step, struct pretok_scratch *s, struct slice *text,
                    bool at_start) {
    struct str *out = &s->spare_text;
    str_clear(out);
    for (size_t i = 0; i < s->pieces.count; i++) {
        struct piece *piece = &s->pieces.data[i];
        size_t start = out->size;
        rewrite_piece(step, out, text->data + piece->start, piece->size,
                      at_start && s->untouched && i == 0);
        *piece = (struct piece){start, out->size - start};
    }
    struct str swap = s->text;
    s->text = s->spare_text;
    s->spare_text = swap;
    *text = (struct slice){s->text.data ? s->text.data : "", s->text.size};
}

void pretok_run(const struct pretok *p, struct pretok_scratch *s, struct regex_scratch *regex,
                struct slice *text, bool at_start) {
    s->pieces.count = 0;
    s->untouched = true;
    add_piece(&s->pieces, 0, text->size);
    for (int i = 0; i < p->count; i++) {
        const struct pretok_step *step = &p->steps[i];
        switch (step->kind) {
        case PRETOK_PREFIX:
        case PRETOK_SPACES_TO:
        case PRETOK_BYTES:
            rewrite(step, s, text, at_start);
            break;
        default:
            split(step, s, regex, text->data);
            break;
        }
    }
}
