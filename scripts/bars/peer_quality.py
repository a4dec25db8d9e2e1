#!/usr/bin/env python3
"""Judges files of any quantizer, lwq's and other people's, by one measure on one text: mean KL to the source in F32.

usage: peer_quality.py [--model DIR] [--text FILE] FILE...      with the Python of scripts/make_peers_venv.sh, and gguf for .gguf files
Each FILE is a directory that transformers opens (compressed-tensors: lwq, plain_script.py; auto-round), a GPTQ directory (opened by
GPTQModel) or a .gguf (opened by the package gguf, which lies in llama.cpp as gguf-py). scripts/bars/peer_files.py makes other
people's. The text: 96 windows of 256 tokens of held-out.txt, no BOS. Bytes are those of the weight files alone. The error is the
standard error over windows: of each mean by itself, so two files that differ by less can still differ surely."""
import argparse
import contextlib
import json
import logging
import os
import sys
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", GPTQMODEL_CPU_WORKERS="2")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on a shared machine two threads that spin are slower than one
warnings.filterwarnings("ignore")
import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, logging as transformers_logging

import bars

WINDOWS, WINDOW, SEED = 96, 256, 5
GGUF_NAMES = dict(attn_q="self_attn.q_proj", attn_k="self_attn.k_proj", attn_v="self_attn.v_proj", attn_output="self_attn.o_proj",
                  ffn_gate="mlp.gate_proj", ffn_up="mlp.up_proj", ffn_down="mlp.down_proj", attn_norm="input_layernorm",
                  ffn_norm="post_attention_layernorm", token_embd="model.embed_tokens", output_norm="model.norm", output="lm_head")


def open_directory(path):
    with open(os.path.join(path, "config.json")) as f:
        method = json.load(f).get("quantization_config", {}).get("quant_method")
    if method == "gptq":
        from gptqmodel import BACKEND, GPTQModel
        return GPTQModel.load(path, device="cpu", backend=BACKEND.TORCH).model.float().eval()
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def open_gguf(path, source_dir):
    """The source's model with every weight replaced by the file's, dequantized."""
    import gguf
    model = open_directory(source_dir)
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    state = model.state_dict()
    missing = set(state) - ({"lm_head.weight"} if model.config.tie_word_embeddings else set())
    for tensor in gguf.GGUFReader(path).tensors:
        *layer, name, _ = tensor.name.split(".")
        if name not in GGUF_NAMES:
            continue  # rope_freqs
        w = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        if name in heads:  # GGUF keeps the two halves of a head interleaved
            w = w.reshape(heads[name], -1, 2, w.shape[-1]).transpose(1, 2).reshape(w.shape)
        key = (f"model.layers.{layer[1]}." if layer else "") + GGUF_NAMES[name] + ".weight"
        state[key].copy_(w.reshape(state[key].shape))
        missing.discard(key)
    if missing:
        raise SystemExit(f"{path} lacks {sorted(missing)}")
    return model


def windows_of(model_dir, text):
    with open(text, encoding="utf-8") as f:
        ids = np.array(Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json")).encode(f.read(), add_special_tokens=False).ids)
    begins = np.random.default_rng(SEED).integers(0, len(ids) - WINDOW - 1, WINDOWS)
    return torch.from_numpy(np.stack([ids[i:i + WINDOW] for i in begins])).split(8)


@torch.no_grad()
def log_probabilities(model, batches):
    for batch in batches:
        yield model(batch).logits.float().log_softmax(-1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=bars.SAMPLE)
    parser.add_argument("--text", default=bars.HELD_OUT)
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    batches = windows_of(options.model, options.text)
    source = list(log_probabilities(open_directory(options.model), batches))
    rows = []
    for path in options.files:
        with contextlib.redirect_stdout(open(os.devnull, "w")):
            model = open_gguf(path, options.model) if path.endswith(".gguf") else open_directory(path)
        kl = torch.cat([(p.exp() * (p - q)).sum(-1).double().mean(-1) for p, q in zip(source, log_probabilities(model, batches))])
        size = os.path.getsize(path) if path.endswith(".gguf") else bars.weight_bytes(path)
        rows.append((size, kl.mean().item(), kl.std().item() / len(kl) ** 0.5, path.rstrip("/")))
        print(f"{path}: {rows[-1][1]:.5f}", file=sys.stderr, flush=True)
    bars.header("weight bytes", "KL", "error", "file")
    for size, kl, error, name in sorted(rows):
        bars.row(f"{size:,}", f"{kl:.5f}", f"{error:.5f}", name)


if __name__ == "__main__":
    main()
