"""What the measuring scripts share: running jobs with the release binaries and reading what came out.
Standard library only. Every script prints Markdown that goes into docs/results/first-path.md."""
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("LWQ_BIN_DIR", os.path.join(ROOT, "build/release/bin"))
SAMPLE = os.path.join(ROOT, "examples/lwq-books-10m")
HELD_OUT = os.path.join(SAMPLE, "held-out.txt")
CHOICES = os.path.join(SAMPLE, "choices.jsonl")
_temporary = tempfile.TemporaryDirectory(prefix="lwq-bars-")
TMP = _temporary.name


def program(name):
    path = os.path.join(BIN, name)
    if not os.path.exists(path):
        sys.exit(f"{path} is missing: scripts/build.sh release lwq-server lwq-worker lwqctl")
    return path


def quantize_command(model, out, data_dir, *options):
    return [program("lwqctl"), "quantize", model, "--out", out, "--data-dir", data_dir, "--json", *map(str, options)]


def quantize(model, out, data_dir, *options, check=True):
    """One job; (seconds, what --json printed, finished process). Ends the script when it fails, unless told otherwise."""
    begin = time.monotonic()
    done = subprocess.run(quantize_command(model, out, data_dir, *options), capture_output=True, text=True)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(done.args)}\nended with {done.returncode}:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    seconds = time.monotonic() - begin
    return seconds, json.loads(done.stdout) if done.returncode == 0 else {}, done


def find(tree, key):
    """The first value under `key`, anywhere in parsed JSON; None where there is none."""
    if isinstance(tree, dict):
        if key in tree:
            return tree[key]
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            found = find(part, key)
            if found is not None:
                return found
    return None


def weight_bytes(out):
    return sum(os.path.getsize(os.path.join(out, f)) for f in os.listdir(out) if f.endswith(".safetensors"))


def digests(out):
    """{file: sha256}, without what lwqctl writes beside the artifact: the report has times in it, the card the job."""
    found = {}
    for name in sorted(os.listdir(out)):
        if name not in ("lwq-report.json", "README.md"):
            with open(os.path.join(out, name), "rb") as f:
                found[name] = hashlib.sha256(f.read()).hexdigest()
    return found


def processes(data_dir):
    """{pid: program} of the servers and workers whose command line names data_dir or a socket in it."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                line = f.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        name = os.path.basename(line[0])
        if name in ("lwq-server", "lwq-worker") and any(data_dir in part for part in line):
            found[int(pid)] = name
    return found


class MemoryWatch(threading.Thread):
    """Samples RssAnon of every server and worker of a data directory, ten times a second."""

    def __init__(self, data_dir):
        super().__init__(daemon=True)
        self.data_dir, self.peak, self.done = data_dir, {}, threading.Event()

    def run(self):
        while not self.done.wait(0.1):
            for pid, name in processes(self.data_dir).items():
                try:
                    with open(f"/proc/{pid}/status") as f:
                        line = next(l for l in f if l.startswith("RssAnon"))
                except (OSError, StopIteration):
                    continue
                self.peak[name] = max(self.peak.get(name, 0), int(line.split()[1]) * 1024)

    def stop(self):
        self.done.set()
        self.join()
        return self.peak


def row(*cells):
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def header(*cells):
    row(*cells)
    row(*["---"] * len(cells))
