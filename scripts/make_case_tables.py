#!/usr/bin/env python3
"""src/text/jinja_case_tables.c: what Python knows of letter case and numerals beyond utf8proc.

    python3 scripts/make_case_tables.py >src/text/jinja_case_tables.c    (Python 3.11: Unicode 14)
"""
import unicodedata

CHARS = [chr(c) for c in range(0x110000) if not 0xd800 <= c < 0xe000]


def runs(chars):
    out = []
    for p in sorted(map(ord, chars)):
        if out and p == out[-1][1] + 1:
            out[-1][1] = p
        else:
            out.append([p, p])
    return out


def literal(text):
    return '"' + "".join(f"\\x{b:02X}" if b >= 0x80 else chr(b) for b in text.encode()) + '"'


def piece(text):
    """A hexadecimal escape would swallow a digit or letter after it."""
    parts, out = [], []
    for c in text:
        parts.append(literal(c))
    for p in parts:
        if out and not p.startswith('"\\x') and "\\x" in out[-1]:
            out.append(p)
        elif out:
            out[-1] = out[-1][:-1] + p[1:]
        else:
            out.append(p)
    return " ".join(out)


def table(name, chars):
    print(f"\nconst uint32_t {name}_ranges[][2] = {{")
    rows = [f"{{0x{a:x}, 0x{b:x}}}," for a, b in runs(chars)]
    line = "   "
    for row in rows:
        if len(line) + len(row) + 1 > 100:
            print(line)
            line = "   "
        line += " " + row
    print(line + "\n};")
    print(f"const size_t {name}_count = sizeof {name}_ranges / sizeof *{name}_ranges;")


print("/* Made by scripts/make_case_tables.py. */")
print('#include "text/jinja_methods.h"')
print("\nconst struct special_case special_cases[] = {")
for c in CHARS:
    if len(c.upper()) > 1 or len(c.title()) > 1:
        print(f"    {{0x{ord(c):x}, {piece(c.upper())}, {piece(c.title())}}},")
print("};\nconst size_t special_case_count = sizeof special_cases / sizeof *special_cases;")
category = {c: unicodedata.category(c) for c in CHARS}
table("other_lower", [c for c in CHARS if c.islower() and category[c] != "Ll"])
table("other_upper", [c for c in CHARS if c.isupper() and category[c] != "Lu"])
table("other_digit", [c for c in CHARS if c.isdigit() and category[c] != "Nd"])
table("other_numeric", [c for c in CHARS if c.isnumeric() and category[c][0] != "N"])
