#!/usr/bin/env python3
"""A whole job on a device, phase by phase beside the floor that floor_times.py counts, and GPTQ of the same model by GPTQModel and
llm-compressor on the same card, where this Python has them.

usage: whole_job.py [--bin build/gpu/bin] [--device cuda:0] [--layers 4] [--model 7b|1b|tiny] [--tokens 32768] [--no-peers]
The model has random bf16 weights and as many layers as told; seconds are also given for as many as the real one has."""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

# hidden, intermediate, heads, key-value heads, vocabulary, layers of the real model
SHAPES = {"7b": (4096, 11008, 32, 32, 32000, 32), "1b": (2048, 8192, 32, 8, 128256, 16), "tiny": (128, 256, 4, 2, 4096, 2)}
LENGTH = 2048


def find(tree, key):
    """The first value under `key`, anywhere in parsed JSON; None where there is none."""
    for part in [tree] if isinstance(tree, dict) else tree if isinstance(tree, list) else []:
        if isinstance(part, dict) and key in part:
            return part[key]
        for value in part.values() if isinstance(part, dict) else [part]:
            if (found := find(value, key)) is not None:
                return found
    return None


def lwq_job(options, model, work):
    """Seconds of each phase, of a service of its own."""
    socket, ready = f"unix:{work}/lwq.sock", work / "ready"
    server = subprocess.Popen([options.bin / "lwq-server", "--listen", socket, "--data-dir", work / "server", "--ready-file", ready], stderr=open(work / "server.log", "w"))
    worker = None
    try:
        while not ready.exists():
            if server.poll() is not None:
                sys.exit((work / "server.log").read_text())
            time.sleep(0.1)
        worker = subprocess.Popen([options.bin / "lwq-worker", "--server", socket, "--work-dir", work / "worker", "--device", options.device],
                                  stderr=open(work / "worker.log", "w"))
        begin = time.monotonic()
        done = subprocess.run([options.bin / "lwqctl", "quantize", model, "--server", socket, "--out", work / "out", "--json", "--budget", "4.5bpw",
                               "--bits", "2,3,4,8", "--group-size", "128" if options.model != "tiny" else "64", "--scorer", "lim", "--allocator", "knapsack",
                               "--calibration-tokens", str(options.tokens), "--eval-tokens", "16384"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr + (work / "worker.log").read_text()[-3000:])
        phases = find(json.loads(done.stdout), "phases")
        return {p["phase"].lower().removeprefix("phase_"): float(p.get("seconds", 0)) for p in phases}, time.monotonic() - begin
    finally:
        for process in (worker, server):
            if process is not None:
                process.terminate()
                process.wait(60)


def calibration(options):
    import torch
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(5, SHAPES[options.model][4] - 5, (options.tokens // LENGTH, LENGTH), generator=generator).tolist()
    return [{"input_ids": ids, "attention_mask": [1] * LENGTH} for ids in rows]


def gptqmodel(options, model):
    from gptqmodel import GPTQModel, QuantizeConfig
    peer = GPTQModel.load(str(model), QuantizeConfig(bits=4, group_size=128, sym=True), device=options.device)
    begin = time.monotonic()
    peer.quantize(calibration(options), batch_size=4)
    return time.monotonic() - begin


def llm_compressor(options, model):
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier
    from transformers import AutoModelForCausalLM
    source = AutoModelForCausalLM.from_pretrained(model, dtype="bfloat16").to(options.device)
    data = Dataset.from_list(calibration(options))
    begin = time.monotonic()
    oneshot(model=source, dataset=data, recipe=GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"]), max_seq_length=LENGTH, num_calibration_samples=len(data))
    return time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--bin", type=pathlib.Path, default=root / "build/gpu/bin")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--model", choices=SHAPES, default="7b")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    options.bin = options.bin.resolve()
    hidden, inner, heads, kv, vocabulary, real = SHAPES[options.model]
    with tempfile.TemporaryDirectory(prefix="lwq-gpu-") as folder:
        work = pathlib.Path(folder)
        model = work / "model"
        subprocess.run([options.bin / "make_model", model, "--layers", str(options.layers), "--hidden", str(hidden), "--intermediate", str(inner), "--heads", str(heads),
                        "--kv-heads", str(kv), "--vocab", str(vocabulary), "--positions", "4096", "--dtype", "bf16"], check=True)
        phases, whole = lwq_job(options, model, work)
        print(f"\n{options.model}, {options.layers} of {real} layers, {options.tokens} tokens, on {options.device}: {whole:.1f} s from the command to its end\n")
        print("| phase | seconds | for all layers |\n| --- | --- | --- |")
        for phase, seconds in phases.items():
            print(f"| {phase} | {seconds:.2f} | {seconds * real / options.layers:.1f} |")
        ours = phases.get("calibrate", 0) + phases.get("quantize", 0)
        for name, run in (("GPTQModel", gptqmodel), ("llm-compressor", llm_compressor)) if not options.no_peers else ():
            try:
                seconds = run(options, model)
            except ImportError as missing:
                print(f"{name}: not here ({missing})")
                continue
            except Exception as error:  # a peer's trouble is no reason to lose what was measured
                print(f"{name}: failed ({type(error).__name__}: {str(error)[:300]})")
                continue
            print(f"{name}, one width: {seconds:.1f} s; lwq, four widths, calibrate and quantize: {ours:.1f} s, {ours / (4 * seconds):.2f} of four runs")


if __name__ == "__main__":
    main()
