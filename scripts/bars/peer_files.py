#!/usr/bin/env python3
"""Other people's quantized files of the sample, for peer_quality.py to judge; all calibrated with lwq's built-in text.

usage: peer_files.py gptqmodel --out DIR          GPTQModel, at 2, 3 and 4 bits
       peer_files.py auto-round --out DIR         auto-round's AutoScheme, 3.0 bits on average of 2/3/4/8, no tuning
       peer_files.py llama.cpp --out DIR --llama SOURCES --llama-bin DIR        with an importance matrix, embeddings in F16
GPTQModel: the Python of scripts/make_peers_venv.sh. auto-round: a venv of its own with `pip install "auto-round==0.16.*"
"transformers==5.23.*" accelerate compressed-tensors sentencepiece`. llama.cpp: `pip download --no-deps --no-binary llama-cpp-python
llama-cpp-python==0.3.36`; in vendor/llama.cpp of it (SOURCES), `cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF
-DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF` and `ninja -C build llama-quantize llama-imatrix` (into
build/bin); its converter runs with the Python of scripts/make_peers_venv.sh."""
import argparse
import json
import os
import subprocess
import sys

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", GPTQMODEL_CPU_WORKERS="2")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on a shared machine two threads that spin are slower than one
import bars

PASSAGES, LENGTH = 128, 512  # for the peers that take passages; llama.cpp reads the whole text


def passages(model, text, length=LENGTH):
    """Token ids of passages at even distances."""
    from tokenizers import Tokenizer
    with open(text, encoding="utf-8") as f:
        ids = Tokenizer.from_file(os.path.join(model, "tokenizer.json")).encode(f.read(), add_special_tokens=False).ids
    return [ids[i * len(ids) // PASSAGES:][:length] for i in range(PASSAGES)]


def store_half(out):
    """F16 in place of F32. The peers compute in F32, which is quick on any CPU and loses nothing of F16 weights (their own
    choice there is BF16), but then some also store the embeddings so."""
    from safetensors.torch import load_file, save_file
    for path in (os.path.join(out, name) for name in os.listdir(out) if name.endswith(".safetensors")):
        tensors = load_file(path)
        save_file({n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}, path, metadata={"format": "pt"})


def gptqmodel(options):
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig
    calibration = [{"input_ids": ids, "attention_mask": [1] * LENGTH} for ids in passages(options.model, options.text)]
    for bits in map(int, options.widths.split(",")):
        model = GPTQModel.load(options.model, QuantizeConfig(bits=bits, group_size=options.group_size), device="cpu", dtype=torch.float32)
        model.quantize(calibration, batch_size=1)
        out = os.path.join(options.out, f"gptqmodel-{bits}")
        model.save(out)
        store_half(out)


def auto_round(options):
    from auto_round import AutoRound, AutoScheme
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    path = os.path.join(options.out, "calibration.json")  # it takes texts only, and drops those under seqlen
    with open(path, "w", encoding="utf-8") as f:
        json.dump([{"text": tokenizer.decode(ids)} for ids in passages(options.model, options.text, LENGTH + 64)], f)
    out = os.path.join(options.out, "auto-round-3.0")
    scheme = AutoScheme(avg_bits=3.0, options=("W2A16", "W3A16", "W4A16", "W8A16"), dataset=path, seqlen=LENGTH)  # samples: its own choice, 16
    AutoRound(options.model, scheme=scheme, iters=0, dataset=path, nsamples=PASSAGES, seqlen=LENGTH, device_map="cpu",
              amp=False).quantize_and_save(out, format="auto_round")
    inner, = os.listdir(out)  # it writes into a folder of its own
    for name in os.listdir(os.path.join(out, inner)):
        os.rename(os.path.join(out, inner, name), os.path.join(out, name))
    os.rmdir(os.path.join(out, inner))
    store_half(out)


def llama_cpp(options):
    def run(*command):
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    tool = lambda name: os.path.join(options.llama_bin, name)
    path = lambda name: os.path.join(options.out, name)
    threads = os.environ["OMP_NUM_THREADS"]
    run(sys.executable, os.path.join(options.llama, "convert_hf_to_gguf.py"), options.model, "--outtype", "f16", "--outfile", path("f16.gguf"))
    run(tool("llama-imatrix"), "-m", path("f16.gguf"), "-f", options.text, "-o", path("imatrix.gguf"), "-c", LENGTH, "-t", threads)
    for kind in ("Q2_K", "IQ3_S", "Q3_K_M", "IQ4_XS"):
        run(tool("llama-quantize"), "--imatrix", path("imatrix.gguf"), "--token-embedding-type", "f16", path("f16.gguf"), path(f"llama-{kind}.gguf"), kind, threads)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=("gptqmodel", "auto-round", "llama.cpp"))
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", default=bars.SAMPLE)
    parser.add_argument("--text", default=os.path.join(bars.ROOT, "examples/calibration/books.txt"))
    parser.add_argument("--widths", default="2,3,4", help="for GPTQModel")
    parser.add_argument("--group-size", type=int, default=128, help="for GPTQModel")
    parser.add_argument("--llama", help="directory with convert_hf_to_gguf.py")
    parser.add_argument("--llama-bin", help="directory with llama-imatrix and llama-quantize")
    options = parser.parse_args()
    for name in ("out", "model", "text", "llama", "llama_bin"):
        setattr(options, name, getattr(options, name) and os.path.abspath(getattr(options, name)))
    os.makedirs(options.out, exist_ok=True)
    os.chdir(options.out)  # where GPTQModel leaves its log
    {"gptqmodel": gptqmodel, "auto-round": auto_round, "llama.cpp": llama_cpp}[options.peer](options)


if __name__ == "__main__":
    main()
