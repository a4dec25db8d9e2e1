#!/usr/bin/env python3
"""Bars 10 and 13: peak anonymous memory of server and worker during one job, and the time of its phases.
usage: scripts/bars/memory.py MODEL_DIR [options of lwqctl quantize]
The 2 GB model: build/dev/bin/make_model DIR --layers 24 --hidden 2048 --intermediate 5632 --heads 16 --kv-heads 16"""
import os
import sys

import bars

model = sys.argv[1] if len(sys.argv) > 1 else bars.SAMPLE
options = sys.argv[2:] or ["--budget", "3.25bpw"]
data_dir, out = os.path.join(bars.TMP, "service"), os.path.join(bars.TMP, "out")
watch = bars.MemoryWatch(data_dir)
watch.start()
seconds, answer, _ = bars.quantize(model, out, data_dir, *options)
peak = watch.stop()
size = bars.weight_bytes(model)
bars.header("process", "peak anonymous MiB", "share of the model")
for name, value in sorted(peak.items()):
    bars.row(name, f"{value / 2**20:.0f}", f"{value / size:.2f}")
limit = size / 4 + 200 * 2**20
print(f"\nmodel {size / 2**20:.0f} MiB, {seconds:.0f} s; a quarter of it and 200 MiB, activations not counted: {limit / 2**20:.0f} MiB")
# Compute time by phase, summed over tasks.
for phase in bars.find(answer, "phases") or []:
    print(f"{phase.get('phase', '?').lower()}: {phase.get('seconds', 0):.1f} s in {phase.get('tasks_done', phase.get('tasksDone', '?'))} tasks")
