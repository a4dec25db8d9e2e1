"""KL(source || artifact) as `lwqctl quantize` reports it equals the definition, worked out with
transformers from the two directories on the same windows: for each position, the sum over the
vocabulary of p (log p - log q); mean, median and 99th percentile over the positions."""
import os

import numpy as np
import torch

import lwq

WINDOW = 256  # what lwqctl takes by default
TOKENS = 4096
text_file = os.path.join(lwq.SAMPLE, "held-out.txt")
out = os.path.join(lwq.TMP, "out")
report = lwq.quantize(lwq.SAMPLE, out, "--budget", "3.25bpw", "--method", "rtn", "--scorer", "random", "--allocator", "knapsack",
                      "--eval-text", text_file,
                      "--eval-tokens", TOKENS)
ours = next(r["text"] for r in lwq.evaluations(report) if "text" in r and "kl" in r["text"])

with open(text_file, encoding="utf-8") as f:
    ids = torch.tensor(lwq.windows(lwq.SAMPLE, f.read(), WINDOW, TOKENS // WINDOW))
source, artifact, kl = lwq.load(lwq.SAMPLE), lwq.load(out), []
with torch.no_grad():
    for batch in ids.split(8):
        batch = batch[:, :-1]  # the last token of a window predicts nothing that is in it
        p = source(batch).logits.double().log_softmax(-1)
        q = artifact(batch).logits.double().log_softmax(-1)
        kl.append((p.exp() * (p - q)).sum(-1).numpy().ravel())
kl = np.concatenate(kl)
for name, theirs in (("mean", kl.mean()), ("median", np.median(kl)), ("p99", np.quantile(kl, 0.99))):
    # Logits agree to about 1e-5; KL is quadratic near zero, so a relative 1e-4 is roomy for the mean
    # and for quantiles of 4,096 values.
    lwq.below(f"KL {name}: {ours['kl'][name]:.6g}, by definition {theirs:.6g}: relative difference",
              abs(ours["kl"][name] / theirs - 1), 1e-4)
lwq.finish()
