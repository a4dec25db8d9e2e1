"""Linears that are multiplied in 8 bits (int8-row-a8, fp8-row-a8), inputs rounded token by token: what lwq writes opens in
transformers with compressed-tensors, which rounds inputs as lwq's own evaluation of the file does.

An input on the edge of two steps falls to either side as the sums before it had another order, and from there on other inputs
are off their edges. So the comparison to the last digits is of one layer, where that happens to one position in thirty; of a
whole model it is how far the source's predictions are from either's."""
import json
import os
import shutil

import lwq
import numpy as np
import torch
from safetensors.torch import load_file, save_file

ids = lwq.sample_ids(1000)
WINDOW = 250
SMALL = ["--hidden", "256", "--intermediate", "512", "--dtype", "f32", "--layers"]
RTN = ["--method", "rtn", "--no-eval"]
ALL = ["--budget", "9bpw", "--allocator", "uniform", "--scorer", "lim"]
MIXED = ["--budget", "11bpw", "--allocator", "knapsack", "--scorer", "random"]
cases = [
    # name, options of make_model (None: the sample), options of quantize, types of the file's linears
    ("w8a8, one layer", SMALL + ["1"], ["--profile", "w8a8"] + ALL + RTN, {torch.int8}),
    ("fp8, one layer", SMALL + ["1"], ["--profile", "fp8"] + ALL + RTN, {torch.float8_e4m3fn}),
    ("untied, w8a8 and dense", SMALL + ["4", "--untied"], ["--profile", "w8a8"] + MIXED + RTN, {torch.int8, torch.float32}),
    ("sample, w8a8", None, ["--profile", "w8a8"] + ALL + RTN, {torch.int8}),
    ("sample, w8a8 smoothquant", None, ["--profile", "w8a8", "--method", "smoothquant", "--no-eval"] + ALL, {torch.int8}),
    ("sample, w8a8 and dense", None, ["--profile", "w8a8"] + MIXED + RTN, {torch.int8, torch.float16}),
    ("sample, fp8", None, ["--profile", "fp8"] + ALL + RTN, {torch.float8_e4m3fn}),
]


def divergence(a, b):
    """Mean over positions of KL(a || b)."""
    p, q = (torch.from_numpy(x).double().log_softmax(-1) for x in (a, b))
    return float((p.exp() * (p - q)).sum(-1).mean())


for name, make, quantize, types in cases:
    slug = name.replace(" ", "-").replace(",", "")
    model, out = lwq.SAMPLE, os.path.join(lwq.TMP, slug + "-out")
    if make is not None:
        model = os.path.join(lwq.TMP, slug)
        lwq.run("make_model", model, *make)
    lwq.quantize(model, out, *quantize)
    stored = lwq.tensors(out)
    lwq.equal(f"{name}: types of linears", {t.dtype for n, t in stored.items() if n.endswith("proj.weight")}, types)
    theirs, ours = lwq.transformers_logits(out, ids, WINDOW), lwq.logits(out, ids, WINDOW)
    apart = abs(ours - theirs).max(axis=1)  # by position
    if "one layer" in name:
        lwq.below(f"{name}: median over positions of the largest difference (logits reach {abs(theirs).max():.1f})", np.median(apart), 1e-4)
        lwq.below(f"{name}: share of positions that are off by more than 1e-3", np.mean(apart > 1e-3), 0.1)
    source = lwq.logits(model, ids, WINDOW)
    to_ours, to_theirs = divergence(source, ours), divergence(source, theirs)
    lwq.below(f"{name}: KL of the source {to_ours:.3g}, {to_theirs:.3g} in transformers: relative difference", abs(to_ours / to_theirs - 1), 0.2)

# One file with both kinds. Of two formats of one size the planner takes the integers, so the file is put together here: the
# odd layers of one job's, the even ones of the other's, each kind a group as lwq-written configurations have them.
int8, fp8 = (os.path.join(lwq.TMP, f"sample-{kind}-out") for kind in ("w8a8", "fp8"))
both = os.path.join(lwq.TMP, "both")
shutil.copytree(int8, both)
tensors = load_file(os.path.join(int8, "model.safetensors"))
other = load_file(os.path.join(fp8, "model.safetensors"))
even = {n for n in other if n.startswith("model.layers.") and int(n.split(".")[2]) % 2 == 0}
save_file({**tensors, **{n: other[n] for n in even}}, os.path.join(both, "model.safetensors"), metadata={"format": "pt"})
groups = {}
for directory, wanted in ((int8, False), (fp8, True)):
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    for name, group in config["quantization_config"]["config_groups"].items():
        modules = sorted(n.removesuffix(".weight_scale") for n in tensors if n.endswith(".weight_scale") and (n in even) == wanted)
        groups[name] = {**group, "targets": modules, "format": group.get("format", config["quantization_config"]["format"])}
config["quantization_config"].update(config_groups=groups, format="mixed-precision")
with open(os.path.join(both, "config.json"), "w", encoding="utf-8") as f:
    json.dump(config, f)
stored = lwq.tensors(both)
lwq.equal("both kinds: types of linears", {t.dtype for n, t in stored.items() if n.endswith("proj.weight")}, {torch.int8, torch.float8_e4m3fn})
theirs, ours, source = lwq.transformers_logits(both, ids, WINDOW), lwq.logits(both, ids, WINDOW), lwq.logits(lwq.SAMPLE, ids, WINDOW)
to_ours, to_theirs = divergence(source, ours), divergence(source, theirs)
lwq.below(f"both kinds: KL of the source {to_ours:.3g}, {to_theirs:.3g} in transformers: relative difference", abs(to_ours / to_theirs - 1), 0.2)
lwq.finish()
