"""Mixtures of experts, whole jobs: random mixtral and qwen3_moe models of 16 experts, of which the router starves some. The file
for llama.cpp opens there and predicts the text as lwq's own evaluation of it says, though llama.cpp rounds activations to 8 bits;
and the report names the experts that few tokens reached, with what they were fitted to instead."""
import os
import shutil

import numpy as np

import lwq

try:
    import torch
    import transformers
    from llama_cpp_model import LlamaCpp
except ImportError as error:
    lwq.skip(f"a package is missing: {error}")

WINDOW, WINDOWS, VOCABULARY = 256, 2, 4096
SIZES = dict(vocab_size=VOCABULARY, hidden_size=256, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False, initializer_range=.06)
CASES = {
    "mixtral": ("Mixtral", dict(num_local_experts=16, num_experts_per_tok=2, sliding_window=None)),
    "qwen3_moe": ("Qwen3Moe", dict(head_dim=64, num_experts=16, num_experts_per_tok=4, moe_intermediate_size=256, norm_topk_prob=True)),
}
STARVED = 3  # of each layer
# An expert on the edge of the top k that changes places moves what a random model says of a position by tenths of a nat, and the
# mean over 510 positions by some thousandths: more than the rounding of activations itself.
BOUND = 1e-2


def make(name, kind, options):
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **options})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith("mlp.gate.weight"):
                value[:STARVED] = 0  # a logit of zero is hardly ever among the greatest of many
                value[STARVED:] *= 4
            value.copy_(value.half().float())
    directory = os.path.join(lwq.TMP, name)
    model.half().save_pretrained(directory)
    for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copy(os.path.join(lwq.SAMPLE, file), directory)
    return directory


def perplexity_there(path, windows):
    """Windows that do not see each other, each first token not predicted, as lwq's evaluation has it."""
    peer = LlamaCpp(path)
    losses = []
    for window in windows:
        rows = peer.log_probabilities(window[:-1], VOCABULARY)
        losses.extend(-rows[np.arange(len(window) - 1), window[1:]])
    return float(np.exp(np.mean(losses)))


def notes(answer):
    """Of every linear in the answer's layer reports."""
    found = []
    if isinstance(answer, dict):
        if "module" in answer and "note" in answer:
            found.append((answer["module"], answer["note"]))
        answer = list(answer.values())
    if isinstance(answer, list):
        for part in answer:
            found += notes(part)
    return found


text = lwq.sample_text(8000)
held = os.path.join(lwq.TMP, "held.txt")
with open(held, "w", encoding="utf-8") as f:
    f.write(text)
for name, (kind, options) in CASES.items():
    model = make(name, kind, options)
    out = model + ".gguf"
    answer = lwq.quantize(model, out, "--for", "llama.cpp", "--budget", "5.1bpw", "--method", "gptq", "--scorer", "random", "--allocator", "knapsack",
                          "--calibration-tokens", "4096", "--eval-text", held, "--eval-tokens", WINDOW * WINDOWS)
    lwq.equal(f"{name}: forecast of its bytes", int(answer["weight_file_bytes"]), os.path.getsize(out))
    lwq.equal(f"{name}: several types in {answer['formats']}", len(answer["formats"]) > 1, True)
    ours = [e["text"]["token_perplexity"] for e in lwq.evaluations(answer) if e["subject"] == "artifact" and "text" in e][0]
    theirs = perplexity_there(out, lwq.windows(model, text, WINDOW, WINDOWS))
    lwq.below(f"{name}: perplexity {theirs:.4f}, lwq's of the file {ours:.4f}: relative difference", abs(theirs / ours - 1), BOUND)
    starved = {module: note for module, note in notes(answer) if "starved expert" in note}
    for module in sorted(starved)[:3]:
        print(f"     {module}: {starved[module]}", flush=True)
    named = [e for e in range(STARVED) if sum(f".experts.{e}." in module for module in starved) == 3 * SIZES["num_hidden_layers"]]
    # The first of those with a logit of zero comes in where less than a token's share of the others is above it.
    lwq.equal(f"{name}: the experts that the router starves are named in the report ({named})", set(named) >= {1, 2}, True)
lwq.finish()
