#!/usr/bin/env python3
"""Bar 13: GPTQ of a 2048 x 5632 layer, 32,768 tokens: GPTQModel's time a layer beside lwq's, in one run on one machine.
usage: scripts/bars/gptq_time.py [--dev-bin build/dev/bin] [--bench-bin build/bench/bin] [--compute f32|bf16]   (with the Python of make_peers_venv.sh)

GPTQModel quantizes a random model of a few such layers at 4 bits, symmetric, groups of 128; its time is that of quantize() alone, a
layer. lwq's is a whole job's: the compute seconds of calibrate and quantize, a layer, at 4 bits (before GPTQModel and after it, because
the clock moves) and at 2, 3, 4 and 8 together. gptq_bench then shows its parts. Both have all cores, and compute in bf16 where the
processor does, else in f32, or as --compute says."""
import argparse
import os
import subprocess
import time

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", GPTQMODEL_CPU_WORKERS="2")
import bars

SEQUENCES, LENGTH = 64, 512


def has_bf16():
    with open("/proc/cpuinfo") as f:
        return "avx512_bf16" in f.read()


def gptqmodel_seconds(model, layers, compute):
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    generator = torch.Generator().manual_seed(1)
    calibration = []
    for _ in range(SEQUENCES):
        ids = torch.randint(5, 250, (LENGTH,), generator=generator).tolist()
        calibration.append({"input_ids": ids, "attention_mask": [1] * LENGTH})
    peer = GPTQModel.load(model, QuantizeConfig(bits=4, group_size=128, sym=True), device="cpu",
                          dtype=torch.bfloat16 if compute == "bf16" else torch.float32)
    begin = time.monotonic()
    peer.quantize(calibration, batch_size=4)
    return (time.monotonic() - begin) / layers


def lwq_seconds(name, model, layers, compute, *options):
    """{phase: seconds a layer} of a job."""
    out = os.path.join(bars.TMP, f"lwq-{name}")
    _, answer, _ = bars.quantize(model, out, os.path.join(bars.TMP, f"service-{name}"), "--budget", "8bpw", "--compute", compute,
                                 "--calibration-tokens", SEQUENCES * LENGTH, "--no-eval", *options)
    phases = {p["phase"].lower().removeprefix("phase_"): p.get("seconds", 0) for p in bars.find(answer, "phases")}
    return {phase: phases[phase] / layers for phase in ("calibrate", "quantize")}


def row(name, seconds, peer):
    total = sum(seconds.values())
    bars.row(name, f"{seconds['calibrate']:.1f}", f"{seconds['quantize']:.1f}", f"{total:.1f}", f"{total / peer:.3f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dev-bin", type=os.path.abspath, default=os.path.join(bars.ROOT, "build/dev/bin"))
    parser.add_argument("--bench-bin", type=os.path.abspath, default=os.path.join(bars.ROOT, "build/bench/bin"))
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--compute", choices=["f32", "bf16"], default="bf16" if has_bf16() else "f32")
    options = parser.parse_args()
    compute = options.compute
    model, small = os.path.join(bars.TMP, "model"), os.path.join(bars.TMP, "small")
    make_model = os.path.join(options.dev_bin, "make_model")
    subprocess.run([make_model, model, "--layers", str(options.layers), "--hidden", "2048", "--intermediate",
                    "5632", "--heads", "16", "--kv-heads", "16", "--positions", str(LENGTH), "--dtype", "bf16"], check=True)
    subprocess.run([make_model, small, "--layers", "1", "--positions", str(LENGTH), "--dtype", "bf16"], check=True)
    os.chdir(bars.TMP)  # where GPTQModel leaves its log
    one_width = ("--bits", "4", "--allocator", "uniform")
    before = lwq_seconds("before", model, options.layers, compute, *one_width)
    gptqmodel_seconds(small, 1, compute)  # it compiles a kernel of its own when it is first used
    peer = gptqmodel_seconds(model, options.layers, compute)
    after = lwq_seconds("after", model, options.layers, compute, *one_width)
    # Scoring by KL wants every unit at every width; its own phase is not counted.
    four = lwq_seconds("four", model, options.layers, compute, "--bits", "2,3,4,8", "--allocator", "knapsack", "--score-tokens", LENGTH)
    bars.header(f"seconds a layer, {compute}", "calibrate", "quantize", "sum", "of GPTQModel's")
    bars.row("GPTQModel, 4 bits", "", "", f"{peer:.1f}", "1")
    row("lwq, 4 bits, before", before, peer)
    row("lwq, 4 bits, after", after, peer)
    row("lwq, 2, 3, 4 and 8 bits, of four runs", four, 4 * peer)
    subprocess.run([os.path.join(options.bench_bin, "gptq_bench"), str(SEQUENCES * LENGTH), compute, str(len(os.sched_getaffinity(0))), f"{peer:.1f}"],
                   check=True)


if __name__ == "__main__":
    main()
