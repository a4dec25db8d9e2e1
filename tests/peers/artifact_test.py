"""What lwq writes opens in transformers with nothing else, and gives lwq's own logits for the file.

Every case is a real job. Two widths or more must be in each mixed file, or the case shows nothing."""
import collections
import json
import os
import re
import sys

import lwq
from safetensors import safe_open

ids = lwq.sample_ids()
TINY = ["--layers", "4", "--hidden", "256", "--intermediate", "512"]
ANY_WIDTHS = ["--method", "rtn", "--scorer", "random", "--allocator", "knapsack"]  # a mixture of all of them
cases = [
    # name, options of make_model (None: the sample), options of quantize
    ("sample", None, ["--budget", "3.25bpw", "--method", "gptq"]),
    ("f16 tied mixed", TINY + ["--dtype", "f16"], ["--budget", "3.6bpw"] + ANY_WIDTHS),
    ("bf16 untied sharded", TINY + ["--dtype", "bf16", "--untied", "--shards", "3"],
     ["--budget", "4.1bpw"] + ANY_WIDTHS),
    ("f32 untied", TINY + ["--dtype", "f32", "--untied"], ["--budget", "3.1bpw"] + ANY_WIDTHS),
]


def widths(directory):
    """How many linears the file has at each width, from the shapes that it stores."""
    count = collections.Counter()
    for file in sorted(os.listdir(directory)):
        if not file.endswith(".safetensors"):
            continue
        with safe_open(os.path.join(directory, file), "pt") as f:
            for name in f.keys():
                if name.endswith(".weight_packed"):
                    columns = int(f.get_tensor(re.sub("packed$", "shape", name))[1])
                    count[f.get_slice(name).get_shape()[1] * 32 // columns] += 1
    return dict(sorted(count.items()))


for name, make, quantize in cases:
    slug = name.replace(" ", "-")
    model, out = lwq.SAMPLE, os.path.join(lwq.TMP, slug + "-out")
    if make is not None:
        model = os.path.join(lwq.TMP, slug)
        lwq.run("make_model", model, *make)
    lwq.quantize(model, out, "--bits", "2,3,4,8", *quantize)
    found = widths(out)
    lwq.equal(f"{name}: more than one width in {found}", len(found) > 1, True)
    theirs = lwq.transformers_logits(out, ids, 500)
    ours = lwq.logits(out, ids, 500)
    lwq.below(f"{name}: largest difference of logits (theirs reach {abs(theirs).max():.1f})", abs(ours - theirs).max(), 1e-3)
    source = lwq.logits(model, ids, 500)
    lwq.equal(f"{name}: the file is not the source", abs(ours - source).max() > 1e-2, True)
lwq.finish()
