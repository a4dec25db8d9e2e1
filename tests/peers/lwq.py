"""What the comparisons share: running lwq's programs, reading what they write, and judging."""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
# Spinning threads of OpenMP waste the time of the tests that run beside these.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("LWQ_BIN_DIR", os.path.join(ROOT, "build/dev/bin"))
SAMPLE = os.path.join(ROOT, "examples/lwq-books-10m")
SHARED = os.environ.get("LWQ_SHARED_DATA", os.path.join(ROOT, "../shared/data"))
SKIP = 77  # what ctest takes for "skipped"

_failures = []
_temporary = tempfile.TemporaryDirectory(prefix="lwq-peers-")
TMP = _temporary.name


def run(program, *arguments):
    """Runs one of lwq's programs; its standard output. Ends the test with its error otherwise."""
    command = [os.path.join(BIN, program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def tokens(model, texts, special):
    """lwq's token ids of each text."""
    source, target = os.path.join(TMP, "texts"), os.path.join(TMP, "ids")
    with open(source, "wb") as f:
        for text in texts:
            f.write(text.encode() + b"\0")
    run("engine_probe", "tokens", model, source, target, *(["--special"] if special else []))
    flat = np.fromfile(target, dtype=np.int32)
    ends = np.flatnonzero(flat == -1)
    return [part[:-1] for part in np.split(flat, ends + 1)[:-1]]


def windows(model, text, window, count):
    """Windows as lwq's evaluation cuts a text, by the tokenizers library: what stands in front of a text (BOS) stands in front of
    each, and takes a place of it. [count, window]"""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    plain, special = (tokenizer.encode(text, add_special_tokens=s).ids for s in (False, True))
    front = special[:len(special) - len(plain)]
    assert special == front + plain
    piece = window - len(front)
    assert len(plain) >= count * piece
    return np.array([front + plain[i * piece:(i + 1) * piece] for i in range(count)])


def logits(model, ids, window, *options):
    """lwq's logits [len(ids), vocabulary] in f32, in windows that do not see each other."""
    source, target = os.path.join(TMP, "ids"), os.path.join(TMP, "logits")
    np.asarray(ids, dtype=np.int32).tofile(source)
    run("engine_probe", "logits", model, source, target, "--window", window, *options)
    return np.fromfile(target, dtype=np.float32).reshape(len(ids), -1)


def transformers_logits(model, ids, window):
    """The same by transformers, in f32; `model` is a directory or a loaded model."""
    import torch

    if isinstance(model, str):
        model = load(model)
    parts = []
    with torch.no_grad():
        for begin in range(0, len(ids), window):
            part = torch.tensor([list(map(int, ids[begin:begin + window]))])
            parts.append(model(part).logits[0].float().numpy())
    return np.concatenate(parts)


def load(directory):
    """The model in f32; fails where a weight is missing or left over."""
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[key]:
            sys.exit(f"{directory}: transformers found {key}: {sorted(info[key])[:5]}")
    return model.eval()


def tensors(directory):
    """All tensors of a directory's safetensors files, by name."""
    from safetensors import safe_open

    found = {}
    for file in sorted(os.listdir(directory)):
        if file.endswith(".safetensors"):
            with safe_open(os.path.join(directory, file), "pt") as f:
                found.update({name: f.get_tensor(name) for name in f.keys()})
    return found


def quantize(model, out, *options):
    """A real job, service and all, in a data directory of its own; what --json prints."""
    return json.loads(run("lwqctl", "quantize", model, "--out", out, "--data-dir", os.path.join(TMP, "service"), "--json", *options))


def sample_text(size=60000):
    with open(os.path.join(SAMPLE, "held-out.txt"), encoding="utf-8") as f:
        return f.read(size)


def sample_ids(count=2000):
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(os.path.join(SAMPLE, "tokenizer.json")).encode(sample_text(), add_special_tokens=False).ids
    assert len(ids) >= count
    return ids[:count]


def below(what, value, bound):
    good = bool(value < bound)  # false for NaN
    print(f"{'ok  ' if good else 'FAIL'} {what}: {value:.3g} (bound {bound:.3g})", flush=True)
    if not good:
        _failures.append(what)


def equal(what, found, expected):
    good = found == expected
    print(f"{'ok  ' if good else 'FAIL'} {what}: {found}" + ("" if good else f", expected {expected}"), flush=True)
    if not good:
        _failures.append(what)


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIP)


def finish():
    if _failures:
        sys.exit(f"{len(_failures)} comparison(s) failed: {'; '.join(_failures)}")


def evaluations(answer):
    """The list of results in what `lwqctl eval --json` prints or in a report, wherever it lies."""
    if isinstance(answer, dict):
        if isinstance(answer.get("evaluations"), list):
            return answer["evaluations"]
        answer = list(answer.values())
    if isinstance(answer, list):
        for part in answer:
            found = evaluations(part)
            if found:
                return found
    return []
