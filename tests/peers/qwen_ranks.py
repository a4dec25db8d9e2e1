"""A qwen.tiktoken made of a byte-level BPE that was trained on the bundled text."""
import base64
import os

import family_tokenizers
import lwq
from tokenizers import pre_tokenizers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]


def made_ranks():
    """Bytes by rank, as a training makes them: single bytes, then what is merged."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xa1, 0xad), *range(0xae, 0x100)]
    byte_of = {chr(b): b for b in printable}
    byte_of.update({chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in printable)})
    assert set(byte_of) == set(pre_tokenizers.ByteLevel.alphabet())
    trained = family_tokenizers.byte_level(lwq.sample_text(200000).splitlines(keepends=True), family_tokenizers.split(family_tokenizers.QWEN2))
    vocabulary = trained.get_vocab(with_added_tokens=False)
    return {bytes(byte_of[c] for c in token): rank for token, rank in vocabulary.items()}


def write_ranks(ranks, directory):
    with open(os.path.join(directory, "qwen.tiktoken"), "wb") as f:
        for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
            f.write(base64.b64encode(token) + b" %d\n" % rank)
