"""What lwq writes in GPTQ's layout opens in GPTQModel, and gives lwq's own logits for the file; what GPTQModel packs is read to the
bit."""
import collections
import json
import os

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import lwq
import numpy as np
import torch

try:
    from gptqmodel import BACKEND, GPTQModel
except ImportError as error:
    lwq.skip(f"GPTQModel cannot be imported: {error}")

ids = lwq.sample_ids()
TINY = ["--layers", "4", "--hidden", "256", "--intermediate", "512"]
ANY_WIDTHS = ["--method", "rtn", "--scorer", "random", "--allocator", "knapsack"]  # a mixture of all of them
cases = [
    # name, options of make_model (None: the sample), options of quantize
    ("sample", None, ["--budget", "3.5bpw", "--method", "gptq", "--bits", "2,3,4,8,16"]),
    ("bf16 untied sharded", TINY + ["--dtype", "bf16", "--untied", "--shards", "3"], ["--budget", "3.6bpw", "--bits", "2,3,4,8,16"] + ANY_WIDTHS),
    ("f16 groups", TINY + ["--dtype", "f16"], ["--budget", "5bpw", "--bits", "3,4,8", "--group-size", "32,64,row"] + ANY_WIDTHS),
    ("one width", TINY + ["--dtype", "f16"], ["--budget", "3.3bpw", "--bits", "3", "--allocator", "uniform", "--method", "rtn", "--scorer", "random"]),
]


def widths(found):
    """How many linears the file has at each width, from the shapes that it stores."""
    return dict(sorted(collections.Counter(
        found[name].shape[0] * 32 // found[name.replace("qweight", "g_idx")].shape[0]
        for name in found if name.endswith(".qweight")).items()))


def weight_bytes(directory):
    return sum(os.path.getsize(os.path.join(directory, f)) for f in os.listdir(directory) if f.endswith(".safetensors"))


for name, make, quantize in cases:
    slug = name.replace(" ", "-")
    model, out = lwq.SAMPLE, os.path.join(lwq.TMP, slug + "-out")
    if make is not None:
        model = os.path.join(lwq.TMP, slug)
        lwq.run("make_model", model, *make)
    lwq.quantize(model, out, "--for", "gptqmodel", *quantize)
    with open(os.path.join(out, "lwq-manifest.json"), encoding="utf-8") as f:
        planned = json.load(f)["plan"]
    found = lwq.tensors(out)
    lwq.equal(f"{name}: widths {widths(found)}", len(widths(found)) > 1, name != "one width")
    # It takes 16 bits only; all of these files' scales and weights are exact in the type that it is told.
    sixteen = torch.bfloat16 if name.startswith("bf16") else torch.float16
    opened = GPTQModel.load(out, device="cpu", backend=BACKEND.TORCH, dtype=sixteen)
    theirs = lwq.transformers_logits(opened.model.eval().float(), ids, 500)
    ours = lwq.logits(out, ids, 500)
    lwq.below(f"{name}: largest difference of logits (theirs reach {abs(theirs).max():.1f})", abs(ours - theirs).max(), 1e-3)
    source = lwq.logits(model, ids, 500)
    lwq.equal(f"{name}: the file is not the source", bool(abs(ours - source).max() > 1e-2), True)
lwq.finish()
