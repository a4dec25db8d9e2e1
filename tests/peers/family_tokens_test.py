"""lwq's tokens equal Hugging Face's for the pipelines of all families: on text, and on thousands of strings over all scripts, with
controls, marks, long runs, odd blanks and the tokenizers' own special tokens in them."""
import os
import sys
import unicodedata

import lwq

try:
    import family_tokenizers
    import tokens_of
    from odd_texts import fuzzed
except ImportError as error:
    lwq.skip(f"a package is missing: {error}")

COUNT = 4000
REAL = ["dolma2", "gpt-neox-20b", "torchtitan-test", "llama2", "mistral-v1", "mistral-v3"]
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
