"""Quantizing to GGUF's types against other people's: reference rounding gives the gguf package's own bytes for the types
that it can write; weighted search has no more weighted error than llama.cpp's quantizer with the same importances, on
the sample's weights and on heavy-tailed ones. The error judged is sum of importance * (weight - stored)^2."""
import ctypes
import glob
import os
import time

import numpy as np

import lwq

try:
    import gguf
    import xllamacpp
except ImportError:
    lwq.skip("no gguf or xllamacpp package")

SEARCHED = ["Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS",
            "IQ3_S"]
COLS = 768
ggml = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(xllamacpp.__file__), "xllamacpp*.so"))[0])
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]


def ours(name, fit, weights, importance=None):
    paths = [os.path.join(lwq.TMP, part) for part in ("weights", "blocks", "importance")]
    weights.tofile(paths[0])
    arguments = [name, fit, weights.shape[1], *paths[:2]]
    if importance is not None:
        importance.tofile(paths[2])
        arguments.append(paths[2])
    begin = time.perf_counter()
    lwq.run("gguf_probe", "quantize", *arguments)
    return np.fromfile(paths[1], dtype=np.uint8).reshape(len(weights), -1), time.perf_counter() - begin


def theirs(name, weights, importance=None):
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros((len(weights), weights.shape[1] // block * size), dtype=np.uint8)
    pointer = None if importance is None else importance.ctypes.data
    begin = time.perf_counter()
    ggml.ggml_quantize_chunk(int(kind), weights.ctypes.data, out.ctypes.data, 0, len(weights), weights.shape[1], pointer)
    return out, time.perf_counter() - begin


def error(name, blocks, weights, importance):
    values = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name]).reshape(weights.shape)
    return float((importance * (weights.astype(np.float64) - values) ** 2).sum())


def sample_weights():
    from safetensors import safe_open

    with safe_open(os.path.join(lwq.SAMPLE, "model.safetensors"), "np") as file:
        return np.ascontiguousarray(file.get_tensor("model.layers.5.mlp.down_proj.weight"), dtype=np.float32)


random = np.random.default_rng(3)
made = np.ascontiguousarray(random.standard_t(4, (300, COLS)) * 0.02, dtype=np.float32)
made[7] = 0
made[8, 300:] = 0.01
for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
    expected = gguf.quants.quantize(made, gguf.GGMLQuantizationType[name])
    lwq.equal(f"{name}: reference bytes that differ", int((ours(name, "reference", made)[0] != expected).sum()), 0)

ones = np.ones(COLS, dtype=np.float32)
uneven = np.exp(random.normal(0, 1.2, COLS)).astype(np.float32)
for case, weights, importance in (("sample", sample_weights(), uneven), ("heavy tails", made, uneven), ("equal importances", made, ones)):
    for name in SEARCHED:
        (mine, my_time), (peer, peer_time) = ours(name, "search", weights, importance), theirs(name, weights, importance)
        plain = ours(name, "reference", weights)[0]
        found, bound, start = (error(name, blocks, weights, importance) for blocks in (mine, peer, plain))
        print(f"     {name}: reference {start:.4g}, llama.cpp {bound:.4g}, ours {found:.4g}; {peer_time / weights.size * 1e9:.0f} and {my_time / weights.size * 1e9:.0f} ns a weight")
        lwq.below(f"{case}, {name}: error over llama.cpp's", found / bound, 1.0)
        lwq.equal(f"{case}, {name}: not above reference rounding", found <= start, True)
lwq.finish()
