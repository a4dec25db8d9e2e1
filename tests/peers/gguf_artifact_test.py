"""lwq's own GGUF artifacts in llama.cpp: quantize jobs, service and all, whose one file opens there and predicts the text
as lwq's own evaluation of the file says, though llama.cpp rounds activations to 8 bits. The sample, and a model of
SmolLM2's shape, whose rows are no whole K-quant blocks."""
import os

import numpy as np

import lwq

try:
    from llama_cpp_model import LlamaCpp
except ImportError:
    lwq.skip("no xllamacpp package")

WINDOW, WINDOWS = 256, 2
SMOLLM2_SHAPE = ["--layers", "2", "--hidden", "576", "--intermediate", "1536", "--heads", "9", "--kv-heads", "3", "--dtype", "bf16"]


def perplexity(evaluations, subject):
    found = [e["text"]["token_perplexity"] for e in evaluations if e["subject"] == subject and "text" in e]
    assert len(found) == 1, evaluations
    return found[0]


def perplexity_there(path, text_tokens, vocabulary):
    """Windows that do not see each other, each first token not predicted, as lwq's evaluation has it."""
    peer = LlamaCpp(path)
    losses = []
    for window in text_tokens:
        rows = peer.log_probabilities(window[:-1], vocabulary)
        losses.extend(-rows[np.arange(len(window) - 1), window[1:]])
    return float(np.exp(np.mean(losses)))


text = lwq.sample_text(8000)
held = os.path.join(lwq.TMP, "held.txt")
with open(held, "w", encoding="utf-8") as f:
    f.write(text)
small = os.path.join(lwq.TMP, "smollm2-shaped")
lwq.run("make_model", small, *SMOLLM2_SHAPE)
cases = [
    ("sample", lwq.SAMPLE, ["--budget", "Q4_K_M", "--formats", "gguf-q3_k,gguf-q4_k,gguf-q6_k", "--calibration-tokens", "4096", "--allocator", "knapsack"]),
    ("sample-codebooks", lwq.SAMPLE, ["--budget", "2.8bpw", "--formats", "gguf-iq2_xxs,gguf-iq2_xs,gguf-iq2_s,gguf-iq3_xxs,gguf-iq3_s", "--method", "rtn", "--scorer", "random",
                                      "--allocator", "knapsack"]),
    ("smollm2-shaped", small, ["--budget", "5.4bpw", "--method", "rtn", "--scorer", "random", "--allocator", "knapsack"]),
]
for name, model, options in cases:
    out = os.path.join(lwq.TMP, name + ".gguf")
    answer = lwq.quantize(model, out, "--for", "llama.cpp", "--eval-text", held, "--eval-tokens", WINDOW * WINDOWS, *options)
    lwq.equal(f"{name}: forecast of its bytes", int(answer["weight_file_bytes"]), os.path.getsize(out))
    lwq.equal(f"{name}: several types in {answer['formats']}", len(answer["formats"]) > 1, True)
    ours = perplexity(lwq.evaluations(answer), "artifact")
    theirs = perplexity_there(out, lwq.windows(model, text, WINDOW, WINDOWS), 4096)
    lwq.below(f"{name}: perplexity {theirs:.4f}, lwq's of the file {ours:.4f}: relative difference", abs(theirs / ours - 1), 5e-3)
lwq.finish()
