#!/usr/bin/env python3
"""A picture of a terminal: `tmux capture-pane -e -p | scripts/terminal_svg.py > chat.svg`.

Reads text with SGR colour escapes and draws it as SVG text, one element a run, on a dark ground.
"""
import html
import re
import sys

COLOURS = ["#2e3436", "#cc6666", "#8abf6a", "#d7b46a", "#6fa3d8", "#b48ead", "#6ac0c0", "#d3d7cf"]
BRIGHT = ["#888a85", "#ef7b7b", "#a5d985", "#f0d080", "#8fc1f0", "#d0a8d8", "#8adede", "#ffffff"]
CELL, LINE, PAD, GROUND, INK = 8.43, 19, 14, "#1c1e22", "#d8dade"


def apply(codes, style):
    """One SGR sequence onto a style."""
    numbers = [int(c or 0) for c in codes.split(";")]
    while numbers:
        n = numbers.pop(0)
        if n == 0:
            style.clear()
        elif n in (1, 2, 3, 4):
            style[{1: "bold", 2: "dim", 3: "italic", 4: "underline"}[n]] = True
        elif n == 22:
            style.pop("bold", None), style.pop("dim", None)
        elif n in (23, 24):
            style.pop({23: "italic", 24: "underline"}[n], None)
        elif 30 <= n <= 37:
            style["fill"] = COLOURS[n - 30]
        elif 90 <= n <= 97:
            style["fill"] = BRIGHT[n - 90]
        elif n == 39:
            style.pop("fill", None)
        elif n in (38, 48) and numbers[:1] == [5]:
            del numbers[:2]


def run_svg(text, x, y, style):
    attributes = [f'x="{PAD + x * CELL:.1f}"', f'y="{y}"', f'textLength="{len(text) * CELL:.1f}"']
    attributes.append(f'fill="{style.get("fill", INK)}"')
    if style.get("bold"):
        attributes.append('font-weight="bold"')
    if style.get("italic"):
        attributes.append('font-style="italic"')
    if style.get("underline"):
        attributes.append('text-decoration="underline"')
    if style.get("dim"):
        attributes.append('opacity="0.6"')
    return f'<text {" ".join(attributes)}>{html.escape(text)}</text>'


def main():
    lines = sys.stdin.read().rstrip("\n").split("\n")
    style, body, widest = {}, [], 0
    for row, line in enumerate(lines):
        x, y = 0, PAD + LINE * (row + 1) - 5
        for piece in re.split(r"(\x1b\[[0-9;]*m|\x1b\([A-B]|\x0f)", line):
            if piece.startswith("\x1b["):
                apply(piece[2:-1], style)
            elif piece and not piece.startswith(("\x1b", "\x0f")):
                if piece.strip():
                    body.append(run_svg(piece, x, y, style))
                x += len(piece)
        widest = max(widest, x)
    width, height = 2 * PAD + widest * CELL, 2 * PAD + LINE * len(lines)
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
          f'font-family="DejaVu Sans Mono, monospace" font-size="14" xml:space="preserve">')
    print(f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>')
    print("\n".join(body))
    print("</svg>")


if __name__ == "__main__":
    main()
