#!/usr/bin/env python3
"""Bar 11: damaged and hostile models and impossible requests: each ends within seconds with a typed error that
names the field or tensor, leaves no output directory, and does not take the service down.
usage: scripts/bars/bad_input.py"""
import json
import os
import shutil
import struct
import subprocess
import sys
import time

import bars

DATA = os.path.join(bars.TMP, "service")


def read_weights(directory):
    with open(os.path.join(directory, "model.safetensors"), "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        return json.loads(f.read(size)), f.read()


def write_weights(directory, header, data, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(os.path.join(directory, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text) if length is None else length) + text + data)


def truncated(d):
    os.truncate(os.path.join(d, "model.safetensors"), 12_000_000)


def huge_header(d):
    header, data = read_weights(d)
    write_weights(d, header, data, length=1 << 62)


def overlap(d):
    header, data = read_weights(d)
    names = [n for n in header if n != "__metadata__"]
    header[names[1]]["data_offsets"] = [o - 2 for o in header[names[1]]["data_offsets"]]
    write_weights(d, header, data)


def overflow(d):
    header, data = read_weights(d)
    header["model.norm.weight"]["shape"] = [1 << 40, 1 << 40]
    write_weights(d, header, data)


def missing_tensor(d):
    header, data = read_weights(d)
    header["model.layers.3.mlp.other.weight"] = header.pop("model.layers.3.mlp.up_proj.weight")
    write_weights(d, header, data)


def nan_weights(d):
    header, data = read_weights(d)
    begin = header["model.layers.5.mlp.down_proj.weight"]["data_offsets"][0]
    write_weights(d, header, data[:begin] + struct.pack("<H", 0x7E00) + data[begin + 2:])


def config(**fields):
    def change(d):
        path = os.path.join(d, "config.json")
        with open(path) as f:
            value = json.load(f)
        value.update(fields)
        with open(path, "w") as f:
            json.dump(value, f)
    return change


def deep_json(d):
    with open(os.path.join(d, "config.json"), "w") as f:
        f.write('{"a":' * 100_000 + "1" + "}" * 100_000)


def traversal(d):
    header, _ = read_weights(d)
    os.rename(os.path.join(d, "model.safetensors"), os.path.join(d, "model-00001-of-00001.safetensors"))
    with open(os.path.join(d, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": {n: "../../../etc/passwd" for n in header if n != "__metadata__"}}, f)


def no_tokenizer(d):
    for name in ("tokenizer.json", "tokenizer.model"):
        os.remove(os.path.join(d, name))


def nothing(d):
    pass


CASES = [  # name, what is done to a copy of the sample, other options, what the error must name
    ("truncated safetensors", truncated, [], "model.safetensors"),
    ("header of 2^62 bytes", huge_header, [], "header"),
    ("overlapping tensors", overlap, [], "overlap"),
    ("shape whose size overflows", overflow, [], "model.norm.weight"),
    ("missing tensor", missing_tensor, [], "model.layers.3.mlp.up_proj"),
    ("NaN weight", nan_weights, [], "model.layers.5.mlp.down_proj"),
    ("hidden_size of 10^12", config(hidden_size=10**12), [], "hidden_size"),
    ("negative num_hidden_layers", config(num_hidden_layers=-1), [], "num_hidden_layers"),
    ("heads that do not divide", config(num_attention_heads=5, head_dim=None), [], "num_attention_heads"),
    ("config nested 100,000 deep", deep_json, [], "config.json"),
    ("shard name that leaves the directory", traversal, [], "index"),
    ("no tokenizer", no_tokenizer, [], "tokenizer"),
    ("budget below the smallest plan", nothing, ["--budget", "1000000"], "smallest"),
    ("unknown method", nothing, ["--method", "magic"], "magic"),
    ("group size that does not divide", nothing, ["--group-size", "96"], "96"),
]

bad = 0
# A pair that outlives the commands, so that its survival is seen.
subprocess.run([bars.program("lwqctl"), "up", "--data-dir", DATA], check=True, capture_output=True)
before = bars.processes(DATA)
bars.header("input", "error", "seconds")
watch = bars.MemoryWatch(DATA)
watch.start()
for number, (name, change, options, must_name) in enumerate(CASES):
    model, out = os.path.join(bars.TMP, f"model-{number}"), os.path.join(bars.TMP, f"out-{number}")
    shutil.copytree(bars.SAMPLE, model)
    change(model)
    if "--budget" not in options:
        options = options + ["--budget", "3.25bpw"]
    begin = time.monotonic()
    try:
        done = subprocess.run(bars.quantize_command(model, out, DATA, *options), capture_output=True, text=True, timeout=60)
        code, error = done.returncode, done.stderr.strip()
    except subprocess.TimeoutExpired:
        code, error = None, "ran for more than a minute"
    seconds = time.monotonic() - begin
    why = next((line.strip() for line in error.splitlines() if line.strip().startswith("why:")), "(no reason on stderr)")
    wrong = [why for why, is_so in (("exit code", code in (0, None) or code < 0), ("output left", os.path.exists(out)),
                                    (f"does not name {must_name}", must_name.lower() not in error.lower()), ("slow", seconds > 20)) if is_so]
    bad += bool(wrong)
    bars.row(name, ("FAIL (" + ", ".join(wrong) + "): " if wrong else "") + "`" + why.replace("|", "/").replace(bars.TMP, "")[:230] + "`", f"{seconds:.1f}")
out = os.path.join(bars.TMP, "good")
bars.quantize(bars.SAMPLE, out, DATA, "--budget", "3.25bpw", "--method", "rtn")
peak = watch.stop()
after = bars.processes(DATA)
subprocess.run([bars.program("lwqctl"), "down", "--data-dir", DATA], capture_output=True)
print(f"\n{len(CASES) - bad} of {len(CASES)} as they should be; a good job on the same service afterwards succeeds; "
      + ("server and worker are the processes they were" if before and after == before else f"FAIL: processes {before} became {after}") + "; peak anonymous memory "
      + ", ".join(f"{k} {v / 2**20:.0f} MiB" for k, v in sorted(peak.items())))
sys.exit(bad > 0 or not before or after != before)
