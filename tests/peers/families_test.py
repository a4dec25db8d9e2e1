"""Every family lwq reads, against transformers: logits of small random models with the family's quirks switched on, on both
devices, and then a real job: what it writes opens in transformers with nothing else and gives lwq's own logits for the file."""
import json
import os
import shutil
import subprocess
import sys

import lwq

try:
    import torch
    import transformers  # noqa: F401
    import family_models
except ImportError as error:
    lwq.skip(f"a package is missing: {error}")

SIZES = dict(vocab_size=4096, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False, initializer_range=.09)
LONG, SHORT, TRAINED, WINDOW = 240, 60, 100, 24
BOUND = 1e-3  # lwq's and torch's orders of summation differ by some 1e-5; any quirk left out by more than .1
# Methods and formats that need nothing else: what is judged is the file. gptq runs the layers with all their inputs observed.
JOBS = {name: ["--bits", "3,4,8", "--budget", "4.6bpw", "--method", method, "--scorer", "random", "--allocator", "knapsack"] for name, method in
        [("mistral", "rtn"), ("qwen2", "rtn"), ("qwen3", "gptq"), ("phi3", "gptq"), ("gemma2", "rtn"), ("gemma3", "gptq"), ("llama-longrope", "rtn")]}


def make(name, kind, options):
    dtype = torch.float16 if "num_experts_per_tok" in options else torch.bfloat16
    model = family_models.make(kind, options, SIZES, dtype)
    directory = os.path.join(lwq.TMP, name)
    model.to(dtype).save_pretrained(directory)  # rounds the rotations too, so what is compared is loaded anew
    for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copy(os.path.join(lwq.SAMPLE, file), directory)
    return directory


ids = lwq.sample_ids(LONG)
chosen = sys.argv[1:]
for name, (kind, options) in family_models.cases(TRAINED, WINDOW, pairs=16, head_dim=64).items():
    if chosen and name not in chosen:
        continue
    directory = make(name, kind, options)
    model = lwq.load(directory)
    for length in (SHORT, LONG):
        theirs = lwq.transformers_logits(model, ids[:length], length)
        for device in ("cpu", "reference"):
            ours = lwq.logits(directory, ids[:length], length, "--device", device)
            lwq.below(f"{name}, {length} tokens, {device}: largest difference of logits (theirs reach {abs(theirs).max():.1f})",
                      abs(ours - theirs).max(), BOUND)
    if name not in JOBS:
        continue
    out = directory + "-out"
    lwq.quantize(directory, out, *JOBS[name])
    with open(os.path.join(out, "config.json"), encoding="utf-8") as f:
        groups = json.load(f)["quantization_config"]["config_groups"]
    lwq.equal(f"{name}: more than one format in the file", len(groups) > 1, True)
    theirs, ours = lwq.transformers_logits(out, ids, LONG), lwq.logits(out, ids, LONG)
    lwq.below(f"{name}, quantized: largest difference of logits (theirs reach {abs(theirs).max():.1f})", abs(ours - theirs).max(), BOUND)
    lwq.equal(f"{name}: the file is not the source", abs(ours - lwq.logits(directory, ids, LONG)).max() > 1e-2, True)

# What lwq would compute otherwise than the model's makers it refuses, naming the field.
if not chosen:
    directory = make("refused", "Llama", {})
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    for changes, field in (({"logit_scale": .5}, "logit_scale"), ({"architectures": ["FalconForCausalLM"]}, "Phi3ForCausalLM"),
                           ({"rope_parameters": {"rope_type": "proportional", "factor": 2.0}}, "rope_type")):
        with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as f:
            json.dump({**config, **changes}, f)
        done = subprocess.run([os.path.join(lwq.BIN, "engine_probe"), "logits", directory, os.path.join(lwq.TMP, "ids"), "/dev/null"],
                              capture_output=True, text=True)
        lwq.equal(f"refused with {changes}, naming {field}", done.returncode != 0 and field in done.stderr, True)
lwq.finish()
