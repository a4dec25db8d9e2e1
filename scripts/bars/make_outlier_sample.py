#!/usr/bin/env python3
"""Writes the sample model with strong outlier channels: the same function, other activations.

Of every 16 channels of the two norms of each layer, 15 are divided by 16 and the columns of the linears that read
them multiplied by 16: the 16th channel is then 16 times as large as the rest. Powers of two within the range of
f16, so that the model computes what it did; a value that would not survive ends the script.
usage: scripts/bars/make_outlier_sample.py OUT_DIR     (needs numpy)"""
import json
import os
import shutil
import struct
import sys

import numpy as np

import bars

FACTOR = np.float16(16)
READERS = {"input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
           "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj")}
out = sys.argv[1]
shutil.copytree(bars.SAMPLE, out)
path = os.path.join(out, "model.safetensors")
with open(path, "rb") as f:
    size = struct.unpack("<Q", f.read(8))[0]
    header, data = json.loads(f.read(size)), bytearray(f.read())


def tensor(name):
    entry = header[name]
    begin, end = entry["data_offsets"]
    return np.frombuffer(data, dtype=np.float16, count=(end - begin) // 2, offset=begin).reshape(entry["shape"])


def change(values, scaled, factor):
    before = values.astype(np.float64)
    with np.errstate(over="ignore"):
        values[..., scaled] = (values[..., scaled] * factor).astype(np.float16)
    before[..., scaled] *= float(factor)
    if not np.array_equal(before, values.astype(np.float64)):
        sys.exit("a value left the range of f16: choose a smaller factor")


with open(os.path.join(out, "config.json")) as f:
    layers = json.load(f)["num_hidden_layers"]
for layer in range(layers):
    for norm, readers in READERS.items():
        prefix = f"model.layers.{layer}."
        weight = tensor(f"{prefix}{norm}.weight")
        scaled = np.arange(weight.size) % 16 != 0
        change(weight, scaled, np.float16(1) / FACTOR)
        for reader in readers:
            change(tensor(f"{prefix}{reader}.weight"), scaled, FACTOR)
with open(path, "r+b") as f:
    f.seek(8 + size)
    f.write(data)
