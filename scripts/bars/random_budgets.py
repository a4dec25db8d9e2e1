#!/usr/bin/env python3
"""Bar 7: for 20 random budgets in bytes, the forecast is the written size, none is over, 99 % is used.
usage: scripts/bars/random_budgets.py [COUNT]"""
import os
import random
import sys

import bars

count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
draw = random.Random(7)
bad = 0
bars.header("budget", "forecast", "written", "used")
for i in range(count):
    budget = draw.randrange(4_700_000, 11_000_000)  # between all linears at 2 bits and at 8
    out = os.path.join(bars.TMP, f"out-{i}")
    _, answer, _ = bars.quantize(bars.SAMPLE, out, os.path.join(bars.TMP, "service"), "--method", "rtn", "--no-eval", "--budget", budget)
    forecast, written = int(answer["weight_file_bytes"]), bars.weight_bytes(out)
    good = forecast == written <= budget and written >= 0.99 * budget
    bad += not good
    bars.row(f"{budget:,}", f"{forecast:,}", f"{written:,}", f"{written / budget:.2%}" + ("" if good else " FAIL"))
print(f"\n{count - bad} of {count} exact, under the budget and at least 99 % used")
sys.exit(bad > 0)
