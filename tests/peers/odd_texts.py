"""Strings over all scripts, with controls, marks, long runs, odd blanks and special tokens in them."""
import random
import unicodedata

import lwq

SCRIPTS = [(0x20, 0x7e), (0xa0, 0x24f), (0x250, 0x2af), (0x300, 0x36f), (0x370, 0x3ff), (0x400, 0x52f), (0x530, 0x58f), (0x591, 0x5f4), (0x600, 0x6ff), (0x700, 0x74f),
           (0x900, 0x97f), (0x980, 0x9ff), (0xb80, 0xbff), (0xe00, 0xe7f), (0xf00, 0xfff), (0x1000, 0x109f), (0x10a0, 0x10ff), (0x1100, 0x11ff), (0x1200, 0x137f),
           (0x13a0, 0x13ff), (0x1780, 0x17ff), (0x1e00, 0x1fff), (0x2000, 0x206f), (0x2070, 0x20cf), (0x2100, 0x23ff), (0x2460, 0x27bf), (0x2c00, 0x2dff), (0x3000, 0x30ff),
           (0x3100, 0x33ff), (0x4e00, 0x9fff), (0xa000, 0xa4cf), (0xa640, 0xa8ff), (0xac00, 0xd7a3), (0xf900, 0xfaff), (0xfb00, 0xfdff), (0xfe00, 0xffef), (0x10000, 0x100ff),
           (0x10330, 0x1034a), (0x1d400, 0x1d7ff), (0x1f1e6, 0x1f1ff), (0x1f300, 0x1faff), (0x20000, 0x2a6df), (0xe0020, 0xe007f), (0x0, 0x1f), (0x80, 0x9f)]
PARTS = ["'s", "'LL", "'\u017f", "'\u212a", "'tis", "\r\n", "\n\n\n", " \n ", "\t\t", "   ", "\u00a0", "\u2003\u3000", "\u200b\u200d", "\ufeff", "\u0085", "\u2028", "\u180e", "\u2581", "\u2581\u2581a",
         "1234567", "\u0663\u0664", "\u00bd\u2167", "e\u0301\u0323", "\u1112\u1161\u11ab", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e6\U0001f1f9", "<|endoftext|>", "<|im_start|> x", "<|end|>\n",
         " <|end|> ", "<s>", "</s>", "<think>", "<unk>", "<0x41>", "<table>", "[@BOS@]", "\u4f60\u597d", "\u3053\u3093\u306b\u3061\u306f", "the", " The", "don't", "DON'T", "_x_", "a.b,c;d", "/path\\to"]


def fuzzed(count, seed=1):
    rng = random.Random(seed)

    def character():
        low, high = rng.choice(SCRIPTS)
        c = chr(rng.randint(low, high))
        return c if unicodedata.category(c) != "Cs" and c != "\0" else "x"

    def part():
        kind = rng.randrange(6)
        if kind == 0:
            return rng.choice(PARTS)
        if kind == 1:
            return character() * rng.choice([1, 2, 7, 40])
        if kind == 2:
            return " " * rng.randint(1, 4)
        if kind == 3:
            low, high = rng.choice(SCRIPTS)
            return "".join(chr(rng.randint(max(low, 1), high)) for _ in range(rng.randint(1, 12)))
        if kind == 4:
            return "".join(character() for _ in range(rng.randint(1, 6)))
        return rng.choice(words)

    words = lwq.sample_text(20000).split(" ")
    return ["".join(part() for _ in range(rng.randint(1, 12))) for _ in range(count)] + ["", " ", "a" * 5000, " " * 3000, "\u0e01" * 2000]
