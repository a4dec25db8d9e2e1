"""The first Qwen, which transformers has not: models that compute the same under its names (family_models.qwen_cases). Logits; a job, whose
file has the published names, decompressed by the compressed-tensors library; a GGUF file in llama.cpp, whose architecture "qwen" it is."""
import json
import os
import unicodedata

import numpy as np

import lwq

try:
    import torch
    import family_models
    from decompressed import decompress
    from llama_cpp_model import LlamaCpp, log_softmax
    from odd_texts import fuzzed
    from qwen_ranks import made_ranks, write_ranks
except ImportError as error:
    lwq.skip(f"a package is missing: {error}")

SIZES = dict(vocab_size=4096, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=512, bos_token_id=None, eos_token_id=None, pad_token_id=None, tie_word_embeddings=False, initializer_range=.09)
LONG, SHORT, BOUND = 240, 60, 1e-3
POSITIONS, CONTEXT = 48, 256
ids, ranks = lwq.sample_ids(LONG), made_ranks()


def check_job(name, directory, other):
    out, plain, again = directory + "-out", directory + "-plain", directory + "-again"
    lwq.quantize(directory, out, "--bits", "3,4,8", "--budget", "4.6bpw", "--method", "gptq", "--scorer", "random", "--allocator", "knapsack")
    with open(os.path.join(directory, "qwen.tiktoken"), "rb") as f, open(os.path.join(out, "qwen.tiktoken"), "rb") as g:
        lwq.equal(f"{name}: the tokenizer goes along", f.read() == g.read(), True)
    lwq.equal(f"{name}: several formats", decompress(out, plain) > 1, True)
    family_models.read_as_other(plain, other, again)
    theirs, ours = lwq.transformers_logits(again, ids, LONG), lwq.logits(out, ids, LONG)
    lwq.below(f"{name}, quantized: largest difference of logits (theirs reach {abs(theirs).max():.1f})", abs(ours - theirs).max(), BOUND)
    lwq.equal(f"{name}: the file is not the source", abs(ours - lwq.logits(directory, ids, LONG)).max() > 1e-2, True)
    with open(os.path.join(out, "config.json"), encoding="utf-8") as f:
        targets = json.dumps(json.load(f)["quantization_config"])
    lwq.equal(f"{name}: engines' own module is named", "gate_up_proj" in targets and r"h\\.(?:" in targets, True)


def check_gguf(name, directory, model):
    few = np.array(ids[:POSITIONS])
    expected = log_softmax(lwq.transformers_logits(model, few, POSITIONS))
    path = directory + ".gguf"
    lwq.run("write_gguf", directory, path, "F16", "F16")
    llama = LlamaCpp(path, CONTEXT)
    found = llama.log_probabilities(few, SIZES["vocab_size"])
    divergence = (np.exp(expected) * (expected - found)).sum(-1)
    lwq.below(f"{name}: largest divergence in llama.cpp", abs(divergence).max(), 1e-3)
    texts = [lwq.sample_text(3000), "<|im_start|>user\nIt's 1234.<|im_end|>\n", *(t for t in fuzzed(300) if t)]
    texts = [t for t in texts if unicodedata.is_normalized("NFC", t)]  # llama.cpp composes nothing
    differ = [t for t, a in zip(texts, lwq.tokens(directory, texts, False)) if list(a) != llama.tokens(t)]
    lwq.equal(f"{name}: {len(texts)} texts with other tokens in llama.cpp", [t[:40] for t in differ][:3], [])
    again = lwq.logits(path, ids[:SHORT], SHORT)
    lwq.below(f"{name}: logits of the GGUF file read as a source", abs(again - lwq.logits(directory, ids[:SHORT], SHORT)).max(), BOUND)


for name, (kind, options) in family_models.qwen_cases().items():
    other, directory = os.path.join(lwq.TMP, name + "-other"), os.path.join(lwq.TMP, name)
    family_models.make(kind, options, SIZES, torch.float16).half().save_pretrained(other)
    family_models.write_as_qwen(other, directory)
    write_ranks(ranks, directory)
    model = lwq.load(other)
    for length in (SHORT, LONG):
        theirs = lwq.transformers_logits(model, ids[:length], length)
        for device in ("cpu", "reference"):
            ours = lwq.logits(directory, ids[:length], length, "--device", device)
            lwq.below(f"{name}, {length} tokens, {device}: largest difference of logits (theirs reach {abs(theirs).max():.1f})",
                      abs(ours - theirs).max(), BOUND)
    check_job(name, directory, other)
    if name == "qwen":  # llama.cpp has no other biases
        check_gguf(name, directory, model)
lwq.finish()
