/* Python's numbers: ints without bound (64 bits, then words), floats, and what mixes them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "text/jinja_internal.h"

enum { MAX_WORDS = CAP_TEMPLATE_DIGITS / 9 };

/* A view of an int of any size; `small` holds the words of a 64-bit one. */
struct big {
    bool negative;
    size_t n;
    const uint32_t *d;
    uint32_t small[2];
};

static void view_int(struct jv v, struct big *out) {
    if (v.type == J_BIG) {
        *out = (struct big){v.u.big->negative, v.u.big->n, v.u.big->d, {0}};
        return;
    }
    int64_t i = v.type == J_BOOL ? v.u.b : v.u.i;
    uint64_t m = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    *out = (struct big){i < 0, m >> 32 ? 2 : m ? 1 : 0, NULL, {(uint32_t)m, (uint32_t)(m >> 32)}};
    out->d = out->small;
}

static struct jv finish_int(struct arena *arena, bool negative, const uint32_t *d, size_t n) {
    while (n > 0 && d[n - 1] == 0) n--;
    if (n <= 2) {
        uint64_t m = (n > 0 ? d[0] : 0) | (n > 1 ? (uint64_t)d[1] << 32 : 0);
        if (m <= INT64_MAX) return jv_int(negative ? -(int64_t)m : (int64_t)m);
        if (negative && m == (uint64_t)INT64_MAX + 1) return jv_int(INT64_MIN);
    }
    struct jbig *big = arena_alloc(arena, sizeof *big + n * sizeof *d);
    big->negative = negative;
    big->n = (uint32_t)n;
    memcpy(big->d, d, n * sizeof *d);
    return (struct jv){J_BIG, {.big = big}};
}

struct jv big_from_words(struct jx *x, struct arena *arena, bool negative, const uint32_t *d,
                         size_t n) {
    if (n > MAX_WORDS) jx_fail(x, "an int of too many digits");
    return finish_int(arena, negative, d, n);
}

struct jv int_from_u64(struct jx *x, uint64_t u) {
    uint32_t d[2] = {(uint32_t)u, (uint32_t)(u >> 32)};
    return finish_int(&x->arena, false, d, 2);
}

struct jv big_parse_decimal(struct arena *arena, struct slice s, int base) {
    size_t cap = s.size / 7 + 2, n = 0;
    uint32_t *d = mem_zero(cap, sizeof *d);
    for (size_t i = 0; i < s.size; i++) {
        char c = s.data[i];
        uint64_t carry = (uint64_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
        for (size_t k = 0; k < n; k++) {
            carry += (uint64_t)d[k] * (uint32_t)base;
            d[k] = (uint32_t)carry;
            carry >>= 32;
        }
        if (carry) d[n++] = (uint32_t)carry;
    }
    struct jv v = finish_int(arena, false, d, n);
    free(d);
    return v;
}

static int big_compare_size(const struct big *a, const struct big *b) {
    if (a->n != b->n) return a->n > b->n ? 1 : -1;
    for (size_t i = a->n; i-- > 0;) {
        if (a->d[i] != b->d[i]) return a->d[i] > b->d[i] ? 1 : -1;
    }
    return 0;
}

static uint32_t *words(struct jx *x, size_t n) {
    if (n > MAX_WORDS + 2) jx_fail(x, "an int of too many digits");
    jx_steps(x, n / 8 + 1);
    return jx_alloc(x, (n + 1) * sizeof(uint32_t));
}

/* a + b, or a - b with `subtract`. */
static struct jv big_add(struct jx *x, const struct big *a, const struct big *b, bool subtract) {
    bool b_negative = b->negative != subtract;
    size_t n = (a->n > b->n ? a->n : b->n) + 1;
    uint32_t *d = words(x, n);
    if (a->negative == b_negative) {
        uint64_t carry = 0;
        for (size_t i = 0; i < n; i++) {
            carry += (uint64_t)(i < a->n ? a->d[i] : 0) + (i < b->n ? b->d[i] : 0);
            d[i] = (uint32_t)carry;
            carry >>= 32;
        }
        return big_from_words(x, &x->arena, a->negative, d, n);
    }
    bool swap = big_compare_size(a, b) < 0;
    const struct big *l = swap ? b : a, *s = swap ? a : b;
    int64_t borrow = 0;
    for (size_t i = 0; i < l->n; i++) {
        borrow += (int64_t)l->d[i] - (i < s->n ? s->d[i] : 0);
        d[i] = (uint32_t)borrow;
        borrow >>= 32;
    }
    return big_from_words(x, &x->arena, swap ? b_negative : a->negative, d, l->n);
}

static struct jv big_mul(struct jx *x, const struct big *a, const struct big *b) {
    uint32_t *d = words(x, a->n + b->n);
    jx_steps(x, a->n * b->n / 16);
    for (size_t i = 0; i < a->n; i++) {
        uint64_t carry = 0;
        for (size_t k = 0; k < b->n; k++) {
            carry += (uint64_t)a->d[i] * b->d[k] + d[i + k];
            d[i + k] = (uint32_t)carry;
            carry >>= 32;
        }
        d[i + b->n] = (uint32_t)carry;
    }
    return big_from_words(x, &x->arena, a->negative != b->negative, d, a->n + b->n);
}

/* Magnitudes only, one bit at a time: rest and quotient get a->n + 1 words. */
static void divide_words(const struct big *a, const struct big *b, uint32_t *q, uint32_t *r) {
    for (size_t bit = a->n * 32; bit-- > 0;) {
        uint32_t carry = a->d[bit / 32] >> (bit % 32) & 1;
        for (size_t k = 0; k <= b->n; k++) {
            uint32_t top = r[k] >> 31;
            r[k] = r[k] << 1 | carry;
            carry = top;
        }
        struct big rest = {false, b->n + 1, r, {0}};
        while (rest.n > 0 && r[rest.n - 1] == 0) rest.n--;
        if (big_compare_size(&rest, b) < 0) continue;
        int64_t borrow = 0;
        for (size_t k = 0; k <= b->n; k++) {
            borrow += (int64_t)r[k] - (k < b->n ? b->d[k] : 0);
            r[k] = (uint32_t)borrow;
            borrow >>= 32;
        }
        q[bit / 32] |= 1u << (bit % 32);
    }
}

/* Python rounds the quotient down, and the rest has the divisor's sign. */
static struct jv big_divide(struct jx *x, const struct big *a, const struct big *b, bool rest) {
    if (b->n == 0) jx_fail(x, "integer division or modulo by zero");
    size_t room = (a->n > b->n ? a->n : b->n) + 2;
    uint32_t *q = words(x, room), *r = words(x, room);
    jx_steps(x, a->n * b->n * 8);
    divide_words(a, b, q, r);
    struct jv vq = big_from_words(x, &x->arena, a->negative != b->negative, q, a->n);
    struct jv vr = big_from_words(x, &x->arena, a->negative, r, b->n);
    bool exact = vr.type == J_INT && vr.u.i == 0;
    struct big t;
    if (!exact && a->negative != b->negative) {
        if (rest) {
            view_int(vr, &t);
            return big_add(x, &t, b, false);
        }
        struct big one;
        view_int(jv_int(1), &one);
        view_int(vq, &t);
        return big_add(x, &t, &one, true);
    }
    return rest ? vr : vq;
}

static double big_double(const struct big *a) {
    /* The top 64 bits with a sticky last one round like the whole. */
    size_t n = a->n;
    if (n == 0) return 0;
    uint64_t top = 0;
    int taken = 0;
    bool sticky = false;
    for (size_t bit = n * 32; bit-- > 0;) {
        uint32_t b = a->d[bit / 32] >> (bit % 32) & 1;
        if (taken == 0 && b == 0) continue;
        if (taken < 62) {
            top = top << 1 | b;
            taken++;
        } else {
            sticky = sticky || b;
            taken++;
        }
    }
    int shift = taken > 62 ? taken - 62 : 0;
    double f = ldexp((double)(top << 1 | sticky), shift - 1);
    return a->negative ? -f : f;
}

double num_double(struct jx *x, struct jv v) {
    if (v.type == J_FLOAT) return v.u.f;
    if (v.type == J_INT) return (double)v.u.i;
    if (v.type == J_BOOL) return v.u.b;
    struct big b;
    view_int(v, &b);
    double f = big_double(&b);
    if (isinf(f)) jx_fail(x, "int too large to convert to float");
    return f;
}

int num_compare(struct jv a, struct jv b) {
    if (a.type != J_FLOAT && b.type != J_FLOAT) {
        struct big l, r;
        if (a.type != J_BIG && b.type != J_BIG) {
            int64_t i = a.type == J_BOOL ? a.u.b : a.u.i, k = b.type == J_BOOL ? b.u.b : b.u.i;
            return (i > k) - (i < k);
        }
        view_int(a, &l);
        view_int(b, &r);
        if (l.negative != r.negative) return l.negative ? -1 : 1;
        int c = big_compare_size(&l, &r);
        return l.negative ? -c : c;
    }
    struct big t;
    double f = a.type == J_FLOAT ? a.u.f : 0, g = b.type == J_FLOAT ? b.u.f : 0;
    if (isnan(f) || isnan(g)) return 2;
    if (a.type != J_FLOAT) {
        int c = num_compare(b, a);
        return c == 2 ? 2 : -c;
    }
    if (b.type == J_FLOAT) return (f > g) - (f < g);
    view_int(b, &t);
    g = big_double(&t);
    if (f != g || fabs(f) < 9007199254740992.0 || isinf(f)) return (f > g) - (f < g);
    /* Equal after rounding: compare as ints, the float is one. */
    uint32_t d[40] = {0};
    int e;
    uint64_t m = (uint64_t)ldexp(frexp(fabs(f), &e), 53);
    e -= 53;
    for (int i = 0; i < 53; i++) {
        if (m >> i & 1) d[(e + i) / 32] |= 1u << ((e + i) % 32);
    }
    struct big l = {f < 0, 40, d, {0}};
    while (l.n > 0 && d[l.n - 1] == 0) l.n--;
    int c = big_compare_size(&l, &t);
    return f < 0 ? -c : c;
}

uint64_t num_hash(struct jv v) {
    uint64_t h = 0;
    if (v.type == J_FLOAT) {
        if (v.u.f == floor(v.u.f) && fabs(v.u.f) < 9.2e18) return num_hash(jv_int((int64_t)v.u.f));
        memcpy(&h, &v.u.f, sizeof h);
    } else if (v.type == J_BIG) { /* equal floats must hash alike */
        struct big b;
        view_int(v, &b);
        double f = big_double(&b);
        memcpy(&h, &f, sizeof h);
    } else {
        h = (uint64_t)(v.type == J_BOOL ? v.u.b : v.u.i);
    }
    return (h ^ h >> 29) * 0xbf58476d1ce4e5b9u;
}

struct jv int_from_double(struct jx *x, double f) {
    if (isnan(f)) jx_fail(x, "cannot convert float NaN to integer");
    if (isinf(f)) jx_fail(x, "cannot convert float infinity to integer");
    f = trunc(f);
    if (fabs(f) < 9.2e18) return jv_int((int64_t)f);
    uint32_t d[40] = {0};
    int e;
    uint64_t m = (uint64_t)ldexp(frexp(fabs(f), &e), 53);
    e -= 53;
    for (int i = 0; i < 53; i++) {
        if (m >> i & 1) d[(e + i) / 32] |= 1u << ((e + i) % 32);
    }
    return big_from_words(x, &x->arena, f < 0, d, 40);
}

void int_digits(struct jx *x, struct jv v, int base, bool upper, struct str *out) {
    const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    struct big b;
    view_int(v, &b);
    size_t n = b.n, room = n * 32 + 1, at = room;
    if (base == 10 && n > 450) { /* CPython refuses more than 4300 digits */
        double bits = (double)n * 32;
        if (bits * 0.30103 > 4310) {
            str_free(out);
            jx_fail(x, "exceeds the limit (4300 digits) for integer string conversion");
        }
    }
    uint32_t *d = jx_alloc(x, (n + 1) * sizeof *d);
    char *text = jx_alloc(x, room + 1);
    jx_steps(x, n * n / 2);
    if (n) memcpy(d, b.d, n * sizeof *d);
    while (n > 0) {
        uint64_t rest = 0;
        for (size_t i = n; i-- > 0;) {
            rest = rest << 32 | d[i];
            d[i] = (uint32_t)(rest / (uint32_t)base);
            rest %= (uint32_t)base;
        }
        while (n > 0 && d[n - 1] == 0) n--;
        text[--at] = digits[rest];
    }
    if (at == room) text[--at] = '0';
    if (b.negative) str_add_char(out, '-');
    str_add(out, text + at, room - at);
}

/* The only ints whose power to an exponent beyond 64 bits can be held. */
static struct jv power_of_one(struct jx *x, struct jv base, struct jv exponent) {
    int64_t i = base.type == J_BIG ? 2 : int_of(x, base);
    if (i < -1 || i > 1 || exponent.u.big->negative) jx_fail(x, "a power too large");
    if (i == -1 && (exponent.u.big->d[0] & 1) == 0) i = 1;
    return jv_int(i);
}

static struct jv int_power(struct jx *x, struct jv base, struct jv exponent) {
    if (exponent.type == J_BIG) return power_of_one(x, base, exponent);
    int64_t e = int_of(x, exponent);
    if (e < 0) {
        double f = num_double(x, base);
        if (f == 0) jx_fail(x, "0.0 cannot be raised to a negative power");
        return jv_float(pow(f, (double)e));
    }
    struct jv result = jv_int(1);
    if (base.type == J_BOOL) base = jv_int(base.u.b);
    while (e > 0) {
        if (e & 1) result = num_binary(x, OP_MUL, result, base);
        e >>= 1;
        if (e) base = num_binary(x, OP_MUL, base, base);
    }
    return result;
}

static int bits_of(const struct big *a) {
    int bits = (int)a->n * 32;
    for (; bits > 0 && (a->d[(bits - 1) / 32] >> ((bits - 1) % 32) & 1) == 0; bits--) continue;
    return bits;
}

static struct jv shifted(struct jx *x, struct jv v, int bits) {
    return num_binary(x, OP_MUL, v, num_binary(x, OP_POW, jv_int(2), jv_int(bits)));
}

/* a / b rounded once: from a quotient of 66 bits and whether anything is left. */
static struct jv int_divide(struct jx *x, struct jv a, struct jv b) {
    struct big l, r, q;
    view_int(a, &l);
    view_int(b, &r);
    if (r.n == 0) jx_fail(x, "division by zero");
    int bits = bits_of(&l), shift = 66 - (bits - bits_of(&r));
    if (bits <= 53 && bits_of(&r) <= 53) return jv_float(num_double(x, a) / num_double(x, b));
    bool negative = l.negative != r.negative;
    if (l.negative) a = num_negate(x, a);
    if (r.negative) b = num_negate(x, b);
    if (shift > 0) a = shifted(x, a, shift);
    if (shift < 0) b = shifted(x, b, -shift);
    struct jv rest = num_binary(x, OP_MOD, a, b);
    struct jv whole = shifted(x, num_binary(x, OP_FLOORDIV, a, b), 1);
    if (num_compare(rest, jv_int(0)) != 0) whole = num_binary(x, OP_ADD, whole, jv_int(1));
    view_int(whole, &q);
    double f = ldexp(big_double(&q), -shift - 1);
    if (isinf(f)) jx_fail(x, "integer division result too large for a float");
    return jv_float(negative ? -f : f);
}

static struct jv int_binary(struct jx *x, enum op op, struct jv a, struct jv b) {
    if (op == OP_POW) return int_power(x, a, b);
    if (op == OP_DIV) return int_divide(x, a, b);
    if (a.type != J_BIG && b.type != J_BIG) {
        int64_t i = a.type == J_BOOL ? a.u.b : a.u.i, k = b.type == J_BOOL ? b.u.b : b.u.i, r;
        if (op == OP_ADD && !__builtin_add_overflow(i, k, &r)) return jv_int(r);
        if (op == OP_SUB && !__builtin_sub_overflow(i, k, &r)) return jv_int(r);
        if (op == OP_MUL && !__builtin_mul_overflow(i, k, &r)) return jv_int(r);
        if (op >= OP_FLOORDIV && k == 0) jx_fail(x, "integer division or modulo by zero");
        bool extreme = i == INT64_MIN && k == -1;
        if (op == OP_FLOORDIV && !extreme) {
            r = i / k;
            return jv_int(i % k != 0 && (i < 0) != (k < 0) ? r - 1 : r);
        }
        if (op == OP_MOD) {
            if (extreme) return jv_int(0);
            r = i % k;
            return jv_int(r != 0 && (r < 0) != (k < 0) ? r + k : r);
        }
    }
    struct big l, r;
    view_int(a, &l);
    view_int(b, &r);
    if (op == OP_ADD || op == OP_SUB) return big_add(x, &l, &r, op == OP_SUB);
    if (op == OP_MUL) return big_mul(x, &l, &r);
    return big_divide(x, &l, &r, op == OP_MOD);
}

static struct jv float_binary(struct jx *x, enum op op, double f, double g) {
    double r;
    switch (op) {
    case OP_ADD:
        return jv_float(f + g);
    case OP_SUB:
        return jv_float(f - g);
    case OP_MUL:
        return jv_float(f * g);
    case OP_DIV:
        if (g == 0) jx_fail(x, "float division by zero");
        return jv_float(f / g);
    case OP_POW:
        if (f == 0 && g < 0) jx_fail(x, "0.0 cannot be raised to a negative power");
        if (f < 0 && g != floor(g) && !isinf(g) && !isnan(g)) jx_fail(x, "complex numbers");
        r = pow(f, g);
        if (isinf(r) && !isinf(f) && !isinf(g)) jx_fail(x, "Numerical result out of range");
        return jv_float(r);
    default:
        break;
    }
    if (g == 0) jx_fail(x, "float floor division by zero");
    double mod = fmod(f, g), div = (f - mod) / g;
    if (mod != 0) {
        if ((g < 0) != (mod < 0)) {
            mod += g;
            div -= 1;
        }
    } else {
        mod = copysign(0.0, g);
    }
    if (op == OP_MOD) return jv_float(mod);
    if (div == 0) return jv_float(copysign(0.0, f / g));
    r = floor(div);
    return jv_float(div - r > 0.5 ? r + 1 : r);
}

struct jv num_binary(struct jx *x, enum op op, struct jv a, struct jv b) {
    if (is_int(a) && is_int(b)) return int_binary(x, op, a, b);
    return float_binary(x, op, num_double(x, a), num_double(x, b));
}

struct jv num_negate(struct jx *x, struct jv a) {
    if (a.type == J_FLOAT) return jv_float(-a.u.f);
    return num_binary(x, OP_SUB, jv_int(0), a);
}

static struct slice trim_blanks(struct slice s) {
    while (s.size > 0) {
        uint32_t c;
        size_t n = utf8_decode(s.data, s.size, &c);
        if (!char_is_space(c)) break;
        s.data += n;
        s.size -= n;
    }
    while (s.size > 0) {
        size_t n = 1;
        while (n < s.size && n < 4 && ((unsigned char)s.data[s.size - n] & 0xc0) == 0x80) n++;
        uint32_t c;
        utf8_decode(s.data + s.size - n, n, &c);
        if (!char_is_space(c)) break;
        s.size -= n;
    }
    return s;
}

static int digit_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

struct jv int_parse(struct jx *x, struct slice s, int base, bool *ok) {
    *ok = false;
    s = trim_blanks(s);
    bool negative = s.size > 0 && s.data[0] == '-';
    if (s.size > 0 && (s.data[0] == '-' || s.data[0] == '+')) s.data++, s.size--;
    if (s.size > 2 && s.data[0] == '0') {
        int k = s.data[1] | 32, named = k == 'x' ? 16 : k == 'o' ? 8 : k == 'b' ? 2 : 0;
        if (named && (base == 0 || base == named)) {
            base = named;
            s.data += 2;
            s.size -= 2;
            if (s.size > 1 && s.data[0] == '_') s.data++, s.size--;
        }
    }
    bool any_base = base == 0, nonzero = false;
    if (any_base) base = 10;
    if (base < 2 || base > 36 || s.size == 0 || s.size > CAP_TEMPLATE_LITERAL) return jv_int(0);
    char *digits = jx_alloc(x, s.size + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.size; i++) {
        if (s.data[i] == '_') {
            if (i == 0 || i + 1 == s.size || s.data[i - 1] == '_') return jv_int(0);
            continue;
        }
        if (digit_value(s.data[i]) >= base) return jv_int(0);
        nonzero = nonzero || s.data[i] != '0';
        digits[n++] = s.data[i];
    }
    if (any_base && n > 1 && digits[0] == '0' && nonzero) return jv_int(0);
    *ok = true;
    jx_steps(x, n * n / 256);
    struct jv v = big_parse_decimal(&x->arena, (struct slice){digits, n}, base);
    return negative ? num_negate(x, v) : v;
}

bool float_parse(struct slice s, double *out) {
    char text[512];
    size_t n = 0;
    s = trim_blanks(s);
    if (s.size == 0 || s.size >= sizeof text) return false;
    bool digits = false;
    for (size_t i = 0; i < s.size; i++) {
        char c = s.data[i];
        bool is_digit = c >= '0' && c <= '9';
        if (c == '_') {
            bool between = i > 0 && i + 1 < s.size && digit_value(s.data[i - 1]) < 10 &&
                           digit_value(s.data[i + 1]) < 10;
            if (!between) return false;
            continue;
        }
        if (c == 'x' || c == 'X' || c == '(' || c == 0) return false; /* strtod's own forms */
        digits = digits || is_digit;
        text[n++] = c;
    }
    text[n] = 0;
    char *end;
    *out = strtod(text, &end);
    return *end == 0 && end != text && (digits || !strpbrk(text, "0123456789."));
}
