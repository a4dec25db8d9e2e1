"""qwen.tiktoken: lwq's ids against those of the tiktoken library with the pattern, special tokens and normalization of the published
QWenTokenizer. The ranks are a byte-level BPE's, trained on the bundled text; LWQ_QWEN_TIKTOKEN names a published file to try too."""
import base64
import os
import random
import unicodedata

import lwq

try:
    import tiktoken
    import family_tokenizers
    from qwen_ranks import SPECIAL, made_ranks, write_ranks
except ImportError as error:
    lwq.skip(f"a package is missing: {error}")
from odd_texts import fuzzed
from shared_texts import read_texts

COUNT = 50000


def read_ranks(path):
    with open(path, "rb") as f:
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in f.read().splitlines() if line)}


def odd_ranks(count=800):
    """Ranks that no training gives: any strings of letters, so that tokens can be made in several ways, or never."""
    rng = random.Random(3)
    tokens = {bytes([b]) for b in range(256)}
    while len(tokens) < 256 + count:
        tokens.add("".join(rng.choice("abe' \u00e9") for _ in range(rng.randint(2, 6))).encode())
    order = list(tokens)
    order.sort()
    rng.shuffle(order)
    return {token: rank for rank, token in enumerate(order)}


def compare(name, ranks, texts):
    directory = os.path.join(lwq.TMP, name)
    os.makedirs(directory)
    write_ranks(ranks, directory)
    encoding = tiktoken.Encoding("qwen", pat_str=family_tokenizers.QWEN2, mergeable_ranks=ranks,
                                 special_tokens={token: len(ranks) + i for i, token in enumerate(SPECIAL)})
    theirs = [encoding.encode(unicodedata.normalize("NFC", text), allowed_special="all", disallowed_special=()) for text in texts]
    wrong = [(t[:60], list(a)[:12], b[:12]) for t, a, b in zip(texts, lwq.tokens(directory, texts, True), theirs) if list(a) != b]
    lwq.equal(f"{name}, {len(ranks)} ranks, {len(texts)} texts, {sum(map(len, theirs))} tokens: {len(wrong)} differ", wrong[:2], [])


# Characters that Python's Unicode 14 knows, as PCRE2's of Debian 12; and more special tokens, one with a mark behind it, which NFC joins.
strings = [s for s in fuzzed(COUNT) if all(unicodedata.category(c) != "Cn" for c in s)]
strings += [f"{a}{b}{c}" for a in ("x", "\n") for b in SPECIAL[:6] for c in ("", " y", "\u0338", "<|im_end|>", "<|extra_205|>")]
letters = [s for s in ("".join(c if c in "abe' \u00e9" else "abe' \u00e9"[ord(c) % 6] for c in s) for s in strings)]
texts = [piece for pieces in read_texts().values() for piece in pieces]
compare("made", made_ranks(), strings + texts)
compare("odd", odd_ranks(), letters)
if "LWQ_QWEN_TIKTOKEN" in os.environ:
    compare("published", read_ranks(os.environ["LWQ_QWEN_TIKTOKEN"]), strings + texts)
else:
    print("the published file is not here, left out (LWQ_QWEN_TIKTOKEN)")
lwq.finish()
