"""Generated texts for comparing tokenizers: all scripts, marks, controls, joiners, special tokens."""
import random

BLOCKS = [
    (0x20, 0x7e), (0x20, 0x7e), (0x20, 0x7e), (0x00, 0x1f), (0x7f, 0x9f), (0xa0, 0xff),
    (0x100, 0x24f), (0x250, 0x36f), (0x300, 0x36f), (0x370, 0x3ff), (0x400, 0x52f),
    (0x531, 0x5f4), (0x600, 0x77f), (0x900, 0xdff), (0xe00, 0xeff), (0xf00, 0xfff),
    (0x1000, 0x109f), (0x1100, 0x11ff), (0x1200, 0x139f), (0x13a0, 0x167f), (0x1780, 0x18aa),
    (0x1ab0, 0x1aff), (0x1d00, 0x1dff), (0x1e00, 0x1fff), (0x2000, 0x206f), (0x2070, 0x218f),
    (0x2190, 0x2bff), (0x2c00, 0x2dff), (0x3000, 0x30ff), (0x3130, 0x33ff), (0x4e00, 0x9fff),
    (0xa000, 0xa4cf), (0xa640, 0xabff), (0xac00, 0xd7a3), (0xe000, 0xe0ff), (0xf900, 0xfaff),
    (0xfb00, 0xfdff), (0xfe00, 0xfe6f), (0xff00, 0xffef), (0xfff0, 0xffff), (0x10000, 0x105ff),
    (0x10a00, 0x10bff), (0x11000, 0x116ff), (0x12000, 0x123ff), (0x1d100, 0x1d1ff),
    (0x1d400, 0x1d7ff), (0x1e900, 0x1e95f), (0x1f100, 0x1f6ff), (0x1f900, 0x1f9ff),
    (0x20000, 0x2a6df), (0x2f800, 0x2fa1f), (0xe0000, 0xe01ef),
]
SNIPPETS = [
    " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\t\t", " \n", "\n ", "\u00a0", "\u2003",
    "\u3000", "\u0085", "\u180e", "\u200b", "\u200c", "\u200d", "\ufeff", "\u2028", "'s", "'S",
    "'\u017f", "'ll", "'RE", "'Ve", "don't", "it's", "12", "1234567", "3.14", "\u0664\u0665",
    "\u00bd", "\u2167", "e\u0301", "o\u0323\u0302", "\u1100\u1161\u11a8", "A\u030a", "\u212b",
    "\ufb01", "\u0130", "\u1e9e", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "Hello", "WORLD", "camelCase", "the", "The",
    "and", "And", "hum", "human beings", "return x;", "//", "/*", "...", "!?", "(", ")", "{}",
    "__init__", "\u4e2d\u6587", "\u3053\u3093", "\u0e01\u0e33", "q", "zz", "<", ">", "|",
    "<|", "|>", "[", "]", "\u2581", "\u2581\u2581", "<0x41>", "<unk>", "\ufffd",
]


def generate(count, seed, specials=()):
    rng = random.Random(seed)

    def piece():
        kind = rng.random()
        if kind < 0.35:
            return rng.choice(SNIPPETS)
        if kind < 0.42 and specials:
            text = rng.choice(specials)
            return text if rng.random() < 0.8 else text[: rng.randrange(1, len(text) + 1)]
        if kind < 0.5:
            return rng.choice(SNIPPETS) * rng.randrange(1, 9)
        low, high = rng.choice(BLOCKS)
        if kind < 0.6:
            low, high = 0, 0x10ffff
        chars = []
        for _ in range(rng.randrange(1, 9)):
            c = rng.randrange(low, high + 1)
            if not 0xd800 <= c < 0xe000:
                chars.append(chr(c))
        return "".join(chars)

    for _ in range(count):
        yield "".join(piece() for _ in range(rng.randrange(0, 14)))
