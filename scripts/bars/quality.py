#!/usr/bin/env python3
"""Bar 6: held-out KL of each way to choose widths, at the same budgets, on the sample (or another model).
usage: scripts/bars/quality.py [--model DIR] [--methods rtn,gptq] [--budgets 2.5bpw,3.0bpw,...]"""
import argparse
import os

import bars

WAYS = {
    "lwq + kl": ["--allocator", "lwq", "--scorer", "kl"],
    "knapsack + kl": ["--allocator", "knapsack", "--scorer", "kl"],
    "two-level + lim": ["--allocator", "two-level", "--scorer", "lim"],
    "two-level + zd": ["--allocator", "two-level", "--scorer", "zd"],
    "uniform": ["--allocator", "uniform"],
    "two-level, reverse of lim": ["--allocator", "two-level", "--scorer", "reverse"],
    "two-level, random": ["--allocator", "two-level", "--scorer", "random"],
}
parser = argparse.ArgumentParser()
parser.add_argument("--model", default=bars.SAMPLE)
parser.add_argument("--methods", default="rtn,gptq")
parser.add_argument("--budgets", default="2.5bpw,3.0bpw,3.5bpw,4.0bpw,5.0bpw")
arguments = parser.parse_args()
for method in arguments.methods.split(","):
    print(f"\n{method}, {os.path.basename(arguments.model)}: mean KL on held-out text (weight bytes)\n")
    budgets = arguments.budgets.split(",")
    bars.header("", *budgets)
    for way, options in WAYS.items():
        cells = []
        for budget in budgets:
            out = os.path.join(bars.TMP, f"{method}-{way}-{budget}".replace(" ", "-").replace(",", ""))
            _, answer, done = bars.quantize(arguments.model, out, os.path.join(bars.TMP, "service"), "--method", method, "--budget", budget,
                                    "--eval-text", bars.HELD_OUT, *options, check=False)
            if done.returncode != 0:
                cells.append((done.stderr.strip().splitlines() or ["failed"])[-1][:60])
                continue
            kl = bars.find(bars.find(answer, "evaluations"), "kl")
            cells.append(f"{kl['mean']:.5f} ({bars.weight_bytes(out):,})")
        bars.row(way, *cells)
