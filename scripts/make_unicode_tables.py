#!/usr/bin/env python3
"""src/text/unicode_tables.c: where the package `tokenizers` knows another Unicode than our libraries.

    python3 scripts/make_unicode_tables.py >src/text/unicode_tables.c
        (Python 3.11, whose unicodedata is Unicode 14 like PCRE2 10.42; PyPI: tokenizers 0.23,
        unicodedata2 18)

Its regular expressions know Unicode 16; PCRE2 of Debian 12 knows 14 and utf8proc 15. Its normal
forms are those of Unicode 9, and models were trained with them: a character that came later has no
combining class and no decomposition there. Both are asked of the package, character by character.
What it calls punctuation is that of Unicode 8.
"""
import unicodedata

import unicodedata2 as newest
from tokenizers import Regex
from tokenizers.normalizers import NFD, NFKD, Replace, StripAccents
from tokenizers.pre_tokenizers import Punctuation

nfd, nfkd, strip = (n().normalize_str for n in (NFD, NFKD, StripAccents))
CHARS = [chr(c) for c in range(0x110000) if not 0xd800 <= c < 0xe000]
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp "
              "Cc Cf Co").split()


def inert(c):
    k = newest.combining(c)
    if k == 1:
        return nfd("\u0300" + c) == "\u0300" + c
    if k:
        return nfd(c + "\u0334") == c + "\u0334"
    if newest.category(c)[0] == "M" and strip(c):
        return True
    return newest.normalize("NFKD", c) != c and nfkd(c) == c


def inert_points():
    points = {ord(c) for c in CHARS if inert(c)}
    for c in CHARS:
        # A composite's parts must not be joined; those that came with it do nothing else.
        if ord(c) in points and newest.decomposition(c)[:1] not in ("", "<"):
            points.update(ord(p) for p in newest.normalize("NFD", c) if ord(p) > 0x10000)
    return points


def runs(points):
    out = []
    for p in sorted(points):
        if out and p == out[-1][1] + 1:
            out[-1][1] = p
        else:
            out.append([p, p])
    return out


def newer_runs():
    text = "".join(CHARS)
    for category in CATEGORIES:
        kept = set(Replace(Regex(rf"\p{{{category}}}+"), "").normalize_str(text))
        yield from ((low, high, category) for low, high in runs(
            ord(c) for c in CHARS if c not in kept and unicodedata.category(c) != category))


def punctuation_points():
    split = Punctuation(behavior="removed").pre_tokenize_str
    return [ord(c) for c in CHARS if not split(c)]


def table(cells):
    line = ""
    for cell in cells:
        if len(line) + len(cell) > 92:
            print("   " + line)
            line = ""
        line += " " + cell
    print("   " + line)
    print("};")


print("/* Made by scripts/make_unicode_tables.py. */")
print('#include "text/unicode.h"\n')
print("const uint32_t unicode_inert_ranges[][2] = {")
INERT = runs(inert_points())
table(f"{{0x{low:x}, 0x{high:x}}}," for low, high in INERT)
print(f"const size_t unicode_inert_count = {len(INERT)};\n")
print("const uint32_t unicode_punctuation_ranges[][2] = {")
PUNCTUATION = runs(punctuation_points())
table(f"{{0x{low:x}, 0x{high:x}}}," for low, high in PUNCTUATION)
print(f"const size_t unicode_punctuation_count = {len(PUNCTUATION)};\n")
print("const struct unicode_range unicode_newer_ranges[] = {")
NEWER = list(newer_runs())
table(f'{{0x{low:x}, 0x{high:x}, "{category}"}},' for low, high, category in NEWER)
print(f"const size_t unicode_newer_count = {len(NEWER)};")
