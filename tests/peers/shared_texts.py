"""The bundled texts and all shared ones, in pieces that both sides of a comparison get."""
import glob
import json
import os

import lwq

MAX_PIECE = 20000  # characters; cut after a newline


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
