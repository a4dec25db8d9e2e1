#!/usr/bin/env python3
"""Bars 10 and 13: peak anonymous memory of server and worker during one job, and the time of its phases.
usage: scripts/bars/memory.py MODEL_DIR [options of lwqctl quantize]
The 2 GB model: build/dev/bin/make_model DIR --layers 24 --hidden 2048 --intermediate 5632 --heads 16 --kv-heads 16
One of Llama-3.2-1B's shape: build/dev/bin/make_model DIR --layers 16 --hidden 2048 --intermediate 8192 --heads 32 --kv-heads 8
--vocab 128256 --dtype bf16, measured with LWQ_WIDEST_INPUT=8192"""
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


def number(phase, name):
    """A field of a phase as JSON names it, either way; 64-bit numbers come as text."""
    first, *rest = name.split("_")
    return float(phase.get(name) or phase.get(first + "".join(word.capitalize() for word in rest)) or 0)


widest = int(os.environ.get("LWQ_WIDEST_INPUT", "0"))  # of a linear: its second moments once count beside the quarter
limit = size / 4 + 200 * 2**20 + 4 * widest**2
print(f"\nmodel {size / 2**20:.0f} MiB, {seconds:.0f} s; a quarter of it, 200 MiB and second moments of {widest} inputs: {limit / 2**20:.0f} MiB\n")
# Of a worker by phase: compute time summed over tasks, the peak of the task that took most, and the forecast.
bars.header("phase", "tasks", "seconds", "peak MiB", "forecast MiB", "peak / forecast", "peak / limit")
for phase in bars.find(bars.find(answer, "progress"), "phases") or []:
    peak, forecast = number(phase, "peak_bytes"), number(phase, "forecast_bytes")
    if peak > 0:
        bars.row(phase.get("phase", "?").lower(), int(number(phase, "tasks_done")), f"{number(phase, 'seconds'):.0f}", f"{peak / 2**20:.0f}",
                 f"{forecast / 2**20:.0f}", f"{peak / forecast:.2f}" if forecast else "-", f"{peak / limit:.2f}")
