"""lwq's tokens equal Hugging Face's for the pipelines of all families: on text, and on thousands of strings over all scripts, with
controls, marks, long runs, odd blanks and the tokenizers' own special tokens in them."""
import os
import random
import sys
import unicodedata

import lwq

try:
    import family_tokenizers
    import tokens_of
except ImportError as error:
    lwq.skip(f"a package is missing: {error}")

COUNT = 4000
REAL = ["dolma2", "gpt-neox-20b", "torchtitan-test", "llama2", "mistral-v1", "mistral-v3"]
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


text = lwq.sample_text(200000)
pieces = [text[i:i + 2000] for i in range(0, len(text), 2000)]
strings = fuzzed(COUNT)
for name, tokenizer in family_tokenizers.all_of(text.splitlines(keepends=True)):
    if sys.argv[1:] and name not in sys.argv[1:]:
        continue
    directory = os.path.join(lwq.TMP, name.replace(" ", "-"))
    family_tokenizers.save(tokenizer, directory)
    for special in (False, True):
        texts = pieces[::10 if special else 1] + strings[::5 if special else 1]
        ours = lwq.tokens(directory, texts, special)
        theirs = [t.ids for t in tokenizer.encode_batch(texts, add_special_tokens=special)]
        wrong = [(t[:60], list(a)[:12], b[:12]) for t, a, b in zip(texts, ours, theirs) if list(a) != b]
        lwq.equal(f"{name}, special tokens {special}, {len(texts)} texts, {sum(map(len, theirs))} tokens: {len(wrong)} differ", wrong[:2], [])

# Real files, where they are, on the same strings.
if not sys.argv[1:]:
    for directory in [lwq.SAMPLE, *(os.path.join(lwq.SHARED, "tokenizers", name) for name in REAL)]:
        if not os.path.isdir(directory):
            print(f"not here, left out: {directory}")
            continue
        kind, encode = tokens_of.peer(directory)
        ours = lwq.tokens(directory, strings, False)
        wrong = [(t[:60], list(a)[:12], list(b)[:12]) for t, a, b in ((t, a, encode(t, False)) for t, a in zip(strings, ours)) if list(a) != list(b)]
        lwq.equal(f"{os.path.basename(directory)} against {kind}, {len(strings)} strings: {len(wrong)} differ", wrong[:2], [])

# Constructs of patterns that Oniguruma and PCRE2 read differently: what matches is taken out, so that it shows.
PATTERNS = [r"\w+", r"\W+", r"[\w-]+", r"[^\w]+", r"\bthe\b", r"\B.", r"^.", r".$", r"\n$", r"^\n", r"[a[bc]x-z]+", r"[^a[e-i]]", r"[]a]+", r"[^]a]", r"\d+", r"[\s\d]", r"\S\s", r"(?i)straße|ſ", r"x*$"]
if not sys.argv[1:]:
    # Characters that Python's Unicode 14 knows, as PCRE2's of Debian 12: Oniguruma is newer, and has letters that came later.
    lines = [s for s in strings if all(unicodedata.category(c) != "Cn" for c in s)] + ["a\n\nb\n\n", "\n", "the other\nthe\n", "tea\r\nx"]
    for i, pattern in enumerate(PATTERNS):
        tokenizer = family_tokenizers.byte_level([], family_tokenizers.split(pattern, "removed"))
        directory = os.path.join(lwq.TMP, f"pattern-{i}")
        family_tokenizers.save(tokenizer, directory)
        theirs = [t.ids for t in tokenizer.encode_batch(lines, add_special_tokens=False)]
        wrong = [t[:60] for t, a, b in zip(lines, lwq.tokens(directory, lines, False), theirs) if list(a) != b]
        lwq.equal(f"pattern {pattern}, {len(lines)} texts: {len(wrong)} differ", wrong[:2], [])
lwq.finish()
