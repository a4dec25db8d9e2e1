#!/usr/bin/env python3
"""Records what Hugging Face `tokenizers` / `transformers` make of the shared texts.

    python3 tests/peers/record_tokenizer_hashes.py SHARED_DATA > tests/golden/tokenizer-hashes.json

Needs tokenizers, transformers and sentencepiece. For each tokenizer and file: the number of ids and
the SHA-256 of the ids as little-endian int32, special tokens included. *.json and *.jsonl files are
encoded as plain text like any other. Also the ids of short strings that are hard to get right.
"""
import glob
import hashlib
import json
import os
import struct
import sys

import tokenizers

import slow_llama_tokenizer

HARD = [
    "", " ", "  ", "\n", " \n\n \t x", "Hello, world!", "  two  blanks ", "a</s>b <s> c<unk>",
    "<|endoftext|> x <|endoftext|>", "it's WE'LL I'D they'Ve 'tis", "1234567 12,345.678",
    "caf\u00e9 cafe\u0301 \u1e69 s\u0323\u0307 \ud55c\uad6d \u1112\u1161\u11ab", "\u2581x \u2581\u2581",
    "\u00a0\u2003\u3000x\u180ey\u200bz", "\U0001f600\U0001f468\u200d\U0001f469 \u2764\ufe0f",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0939\u093f\u0928\u094d\u0926\u0940", "x" * 300,
    " " * 100 + "y" + " " * 25, "\r\n\r\n  \r\n", "\x00\x01\x7f", "\u2126\u212b\ufb01",
    "'\u017f 'S \u212a", "(a)[b]{c}<d> a_b-c #$%^&*", "\u0e44\u0e17\u0e22\u0e04\u0e33",
]


def gpt2(folder):
    vocab = json.load(open(os.path.join(folder, "vocab.json"), encoding="utf-8"))
    lines = open(os.path.join(folder, "merges.txt"), encoding="utf-8").read().split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    tok = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    tok.add_special_tokens([tokenizers.AddedToken("<|endoftext|>", special=True, normalized=True)])
    tok.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    tok.decoder = tokenizers.decoders.ByteLevel()
    return tok


def digest(ids):
    return {"n": len(ids), "sha256": hashlib.sha256(struct.pack("<%di" % len(ids), *ids)).hexdigest()}


def main():
    root = sys.argv[1]
    here = os.path.dirname(os.path.abspath(__file__))
    sample = os.path.join(here, "..", "..", "examples", "lwq-books-10m")
    encoders = {}
    for name, tok in (
        ("sample-json", tokenizers.Tokenizer.from_file(os.path.join(sample, "tokenizer.json"))),
        ("gpt2", gpt2(os.path.join(root, "tokenizers/gpt2"))),
        *((n, tokenizers.Tokenizer.from_file(os.path.join(root, "tokenizers", n, "tokenizer.json")))
          for n in ("dolma2", "gpt-neox-20b", "torchtitan-test")),
    ):
        encoders[name] = lambda text, tok=tok: tok.encode(text).ids
    encoders["sample-model"] = slow_llama_tokenizer.load(os.path.join(sample, "tokenizer.model"))
    for name in ("llama2", "mistral-v1", "mistral-v3"):
        encoders[name] = slow_llama_tokenizer.load(os.path.join(root, "tokenizers", name, "tokenizer.model"))

    files = sorted(
        os.path.relpath(p, root)
        for pattern in ("gutenberg/*.txt", "wikitext-2/wiki.*", "c4/*.jsonl", "tinystories/*.txt",
                        "piqa/valid.jsonl", "arc_easy/*.jsonl", "hellaswag/*.jsonl",
                        "winogrande/*.jsonl", "gsm8k/*.jsonl", "nq_open/*.jsonl",
                        "lambada_openai/*.jsonl", "mmlu/*.jsonl", "models/lwq-books-10m/held-out.txt",
                        "models/lwq-books-10m/choices.jsonl")
        for p in glob.glob(os.path.join(root, pattern))
    )
    # Not all tokenizers read all files: the record and the test stay fast.
    few = {"gutenberg", "wikitext-2", "c4", "tinystories", "hellaswag"}
    result = {"tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__,
              "hard": HARD, "files": {}, "hard_ids": {}}
    everything = "--all" in sys.argv
    for name, encode in encoders.items():
        result["hard_ids"][name] = [list(encode(text)) for text in HARD]
        rows = result["files"][name] = {}
        for path in files:
            if not everything and not name.startswith("sample") and path.split("/")[0] not in few:
                continue
            text = open(os.path.join(root, path), encoding="utf-8", newline="").read()
            rows[path] = digest(list(encode(text)))
        print(name, len(rows), file=sys.stderr, flush=True)
    json.dump(result, sys.stdout, indent=0)
    print()


main()
