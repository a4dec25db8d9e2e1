"""lwq's tokens equal those of Hugging Face: of tokenizers (tokenizer.json) and of the slow
LlamaTokenizer (tokenizer.model), on the bundled text and, where they are, on all of the shared texts."""
import glob
import json
import os

import lwq
import tokens_of

MAX_PIECE = 20000  # characters; both sides get the same pieces, cut after a newline
SPECIAL_EVERY = 20  # special tokens only add at the ends: these texts are enough to see it


def read_texts():
    texts = {"sample held-out": lwq.sample_text(500000)}
    with open(os.path.join(lwq.SAMPLE, "choices.jsonl"), encoding="utf-8") as f:
        items = [json.loads(line) for line in f]
    texts["sample choices"] = [t for item in items for t in [item["context"], *item["choices"]]]
    for path in sorted(glob.glob(os.path.join(lwq.SHARED, "*", "*.txt")) + glob.glob(os.path.join(lwq.SHARED, "*", "*.jsonl"))
                       + glob.glob(os.path.join(lwq.SHARED, "tokenizers/vectors/*.inp.txt"))):
        with open(path, encoding="utf-8", errors="replace") as f:
            texts[os.path.relpath(path, lwq.SHARED)] = f.read()
    return {name: pieces(text) for name, text in texts.items()}


def pieces(text):
    if isinstance(text, list):
        return text
    cut, now = [], ""
    for line in text.replace("\0", "").splitlines(keepends=True):
        if now and len(now) + len(line) > MAX_PIECE:
            cut.append(now)
            now = ""
        now += line
    return cut + ([now] if now else [])


directories = [lwq.SAMPLE]
for name in ("dolma2", "gpt-neox-20b", "torchtitan-test", "llama2", "mistral-v1"):
    directory = os.path.join(lwq.SHARED, "tokenizers", name)
    if os.path.isdir(directory):
        directories.append(directory)
    else:
        print(f"not here, left out: {directory}")
texts = read_texts()
for directory in directories:
    kind, encode = tokens_of.peer(directory)
    for special in (False, True):
        flat = [(name, piece) for name, parts in texts.items() for piece in parts][::SPECIAL_EVERY if special else 1]
        ours = lwq.tokens(directory, [piece for _, piece in flat], special)
        count, wrong = 0, []
        for (name, piece), ids in zip(flat, ours):
            expected = encode(piece, special)
            count += len(expected)
            if list(ids) != list(expected):
                at = next((i for i, (a, b) in enumerate(zip(ids, expected)) if a != b), min(len(ids), len(expected)))
                wrong.append(f"{name} at token {at}: {list(ids[at:at + 5])}, expected {list(expected[at:at + 5])}")
        lwq.equal(f"{os.path.basename(directory)} against {kind}, special tokens {special}, {len(flat)} texts, "
                  f"{count} tokens: texts that differ", wrong[:5], [])
lwq.finish()
