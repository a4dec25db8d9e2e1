"""lwq's tokens equal those of Hugging Face: of tokenizers (tokenizer.json) and of the slow
LlamaTokenizer (tokenizer.model), on the bundled text and, where they are, on all of the shared texts."""
import os

import lwq
import tokens_of
from shared_texts import read_texts

SPECIAL_EVERY = 20  # special tokens only add at the ends: these texts are enough to see it

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
