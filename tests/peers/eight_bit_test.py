"""Linears that are multiplied in 8 bits (int8-row-a8, fp8-row-a8), inputs rounded token by token: what lwq writes opens in
transformers with compressed-tensors, which rounds inputs as lwq's own evaluation of the file does.

An input on the edge of two steps falls to either side as the sums before it had another order, and from there on other inputs
are off their edges. So the comparison to the last digits is of one layer, where that happens to one position in thirty; of a
whole model it is how far the source's predictions are from either's."""
import os

import lwq
import numpy as np
import torch

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
lwq.finish()
