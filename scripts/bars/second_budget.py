#!/usr/bin/env python3
"""Bar 9: a second budget for the same model: how many layer tasks come from the cache, and the time.
usage: scripts/bars/second_budget.py [METHOD [OPTIONS of lwqctl quantize]]"""
import os
import sys

import bars

method = sys.argv[1] if len(sys.argv) > 1 else "gptq"
data_dir = os.path.join(bars.TMP, "service")
bars.header("run", "budget", "seconds", "tasks", "from the cache")
for run, budget in (("first", "3.25bpw"), ("second", "4.0bpw"), ("third", "3.0bpw")):
    out = os.path.join(bars.TMP, run.replace(" ", "-"))
    seconds, answer, _ = bars.quantize(bars.SAMPLE, out, data_dir, "--method", method, "--budget", budget, *sys.argv[2:])
    total, cached = int(answer["tasks_total"]), int(answer["tasks_cached"])
    bars.row(run, budget, f"{seconds:.1f}", total, f"{cached} ({cached / max(total, 1):.0%})")
