#!/usr/bin/env python3
"""lwq's GGUF files beside llama.cpp's at the very sizes of its recipes, judged by one measure on one held-out text.

usage: gguf_recipes.py OUT --llama DIR --llama-bin DIR [--model DIR] [--recipes Q2_K,...] [--floor] [-- more options of lwqctl quantize]
with the Python of scripts/make_peers_venv.sh and the release binaries (or LWQ_BIN_DIR). --llama has convert_hf_to_gguf.py,
--llama-bin llama-imatrix and llama-quantize. llama.cpp's importance matrix and lwq's calibration are of the same text.

Three columns: the recipe as llama-quantize makes it with the importance matrix; with --floor llama.cpp's own types placed by measured KL
(every matrix at every type alone, on --floor-windows windows of the calibration text; exact dynamic programme over bytes; no file is written); lwq's
job at a budget of the recipe's bytes. Judged: mean KL to the source in F32 over 96 windows of 256 tokens of each held-out text, behind what
the model's tokenizer puts before a text. OUT keeps all files and is used again."""
import argparse
import json
import os
import subprocess
import sys

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
import gguf
import numpy as np
import torch

import bars
import peer_quality

RECIPES = "Q2_K,IQ3_S,Q3_K_M,IQ4_XS,Q4_K_S,Q4_K_M,Q5_K_M"
FLOOR_TYPES = {"Q2_K": "Q2_K", "IQ2_S": "IQ2_S", "IQ3_XXS": "IQ3_XXS", "IQ3_S": "IQ3_S", "Q3_K": "Q3_K_S", "IQ4_XS": "IQ4_XS",
               "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "Q6_K": "Q6_K", "Q8_0": "Q8_0"}  # of a tensor, and the recipe that is all of it
EMBEDDING_TYPES = ("Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
WINDOWS, WINDOW, BATCH = 96, 256, 8


class LlamaCpp:
    def __init__(self, options):
        self.options = options
        self.f16, self.imatrix = self.path("f16.gguf"), self.path("imatrix.gguf")
        if not os.path.exists(self.f16):
            self.run(sys.executable, os.path.join(options.llama, "convert_hf_to_gguf.py"), options.model, "--outtype", "f16", "--outfile", self.f16)
        if not os.path.exists(self.imatrix):
            self.run(self.tool("llama-imatrix"), "-m", self.f16, "-f", options.text, "-o", self.imatrix, "-c", "512", "--chunks", "64", "-t", "1")

    def path(self, name):
        return os.path.join(self.options.out, name)

    def tool(self, name):
        return os.path.join(self.options.llama_bin, name)

    def run(self, *command):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\n{(done.stdout + done.stderr)[-2000:]}")

    def quantize(self, recipe, out, *options):
        if not os.path.exists(out):
            self.run(self.tool("llama-quantize"), "--imatrix", self.imatrix, *options, self.f16, out, recipe, "1")
        return out

    def recipe(self, name):
        return self.quantize(name, self.path(f"llama-{name}.gguf"))

    def pure(self, kind):
        embedding = kind if kind in EMBEDDING_TYPES else "Q6_K"
        return self.quantize(FLOOR_TYPES[kind], self.path(f"pure-{kind}.gguf"), "--pure", "--token-embedding-type", embedding)


class Judge:
    """A model of the source whose matrices are exchanged. Norms are the same F32 in every file."""

    def __init__(self, options):
        self.stored = os.path.join(options.out, "judged.json")
        self.model = peer_quality.open_directory(options.model)
        self.config = self.model.config
        self.state = self.model.state_dict()
        self.own = {key: self.state[key].clone() for key in self.state if self.state[key].ndim == 2}
        self.head = self.model.lm_head.weight.detach().clone()
        self.layers = self.model.model.layers

    def windows(self, model_dir, path, count, seed):
        with open(path, encoding="utf-8") as f:
            tokenizer = peer_quality.Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))
            ids = np.array(tokenizer.encode(f.read(), add_special_tokens=False).ids)
        before = tokenizer.encode("").ids  # Gemma is no language model without its BOS
        begins = np.random.default_rng(seed).integers(0, len(ids) - WINDOW - 1, count)
        batches = torch.from_numpy(np.stack([np.concatenate([before, ids[i:i + WINDOW]]).astype(np.int64) for i in begins])).split(BATCH)
        with torch.no_grad():
            return [(batch, self.model.model(batch).last_hidden_state.clone()) for batch in batches]

    def tensors(self, path):
        """The matrices of a file by the source's names: values, bytes and type."""
        out = {}
        heads = {"attn_q": self.config.num_attention_heads, "attn_k": self.config.num_key_value_heads}
        for tensor in gguf.GGUFReader(path).tensors:
            *layer, name, _ = tensor.name.split(".")
            if len(tensor.shape) != 2 or name not in peer_quality.GGUF_NAMES:
                continue
            w = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
            if name in heads and self.config.model_type == "llama":
                w = w.reshape(heads[name], -1, 2, w.shape[-1]).transpose(1, 2).reshape(w.shape)
            key = (f"model.layers.{layer[1]}." if layer else "") + peer_quality.GGUF_NAMES[name] + ".weight"
            # A vocabulary may be padded.
            out[key] = (w[:self.state[key].shape[0]], int(tensor.n_bytes), tensor.tensor_type.name)
        return out

    @torch.no_grad()
    def put(self, weights):
        for key, w in weights.items():
            self.state[key].copy_(w)

    @torch.no_grad()
    def kl(self, text):
        """Mean over windows, and its standard error."""
        return self.kl_of_states(text, [self.model.model(batch).last_hidden_state for batch, _ in text])

    def kl_of_states(self, text, states):
        means = []
        for (_, source), ours in zip(text, states):
            for p, q in zip(source, ours):  # a window at a time: a large vocabulary's logits are many
                p, q = (p @ self.head.T).log_softmax(-1), (q @ self.model.lm_head.weight.T).log_softmax(-1)
                means.append((p.exp() * (p - q)).sum(-1).double().mean().item())
        return float(np.mean(means)), float(np.std(means) / len(means) ** 0.5)

    @torch.no_grad()
    def kls_alone(self, text, choices):
        """{matrix: {type: KL with that one exchanged}}, each from the layer on that it is in."""
        inputs, costs = [], {}
        for batch, _ in text:
            states = self.model.model(batch, output_hidden_states=True).hidden_states
            inputs.append([state.clone() for state in states])
        for key, kinds in choices.items():
            first = int(key.split(".")[2]) if ".layers." in key else None
            costs[key] = {}
            for kind, (w, _) in kinds.items():
                self.put({key: w})
                if first is None:
                    costs[key][kind] = self.kl(text)[0]
                else:
                    self.model.model.layers = self.layers[first:]
                    states = [self.model.model(inputs_embeds=state[first], use_cache=False).last_hidden_state for state in inputs]
                    self.model.model.layers = self.layers
                    costs[key][kind] = self.kl_of_states(text, states)[0]
            self.put({key: self.own[key]})
            print(f"{key}: {costs[key]}", file=sys.stderr, flush=True)
        return costs

    def kl_of(self, path, name, text):
        """As kl(); what was once judged is not judged again. `name` is the text's."""
        judged = {}
        if os.path.exists(self.stored):
            with open(self.stored) as f:
                judged = json.load(f)
        key = f"{os.path.basename(path)}, {name}, {sum(len(batch) for batch, _ in text)} windows"
        if key not in judged:
            self.put({key: w for key, (w, _, _) in self.tensors(path).items()})
            judged[key] = self.kl(text)
            self.put(self.own)
            with open(self.stored, "w") as f:
                json.dump(judged, f, indent=1)
        return judged[key]


class Floor:
    """llama.cpp's types, each matrix's placed by what it costs alone."""

    def __init__(self, judge, llama, options):
        self.judge = judge
        self.choices = {}  # matrix -> type -> (values, bytes)
        for kind in FLOOR_TYPES:
            tensors = judge.tensors(llama.pure(kind))
            for key, (w, size, name) in tensors.items():
                if "embed" not in key or kind in EMBEDDING_TYPES:
                    self.choices.setdefault(key, {}).setdefault(name, (w, size))
        self.fixed = os.path.getsize(llama.pure("Q2_K")) - sum(size for _, size, _ in judge.tensors(llama.pure("Q2_K")).values())
        stored = llama.path("costs.json")
        if not os.path.exists(stored):
            costs = judge.kls_alone(judge.windows(options.model, options.text, options.floor_windows, 3), self.choices)
            with open(stored, "w") as f:
                json.dump(costs, f)
        with open(stored) as f:
            self.costs = json.load(f)

    def plan(self, budget):
        grain = 64
        room = (budget - self.fixed) // grain
        best, steps = np.zeros(room + 1), []
        for key, kinds in self.choices.items():
            names = list(kinds)
            totals = np.full((len(names), room + 1), np.inf)
            for i, name in enumerate(names):
                size = -(-kinds[name][1] // grain)
                totals[i, size:] = best[:room + 1 - size] + max(self.costs[key][name], 0)
            steps.append((key, names, totals.argmin(0)))
            best = totals.min(0)
        plan, left = {}, room
        for key, names, chosen in reversed(steps):
            plan[key] = names[chosen[left]]
            left -= -(-self.choices[key][plan[key]][1] // grain)
        return plan

    def kl(self, budget, text):
        plan = self.plan(budget)
        self.judge.put({key: self.choices[key][kind][0] for key, kind in plan.items()})
        answer = self.judge.kl(text)
        self.judge.put(self.judge.own)
        return self.fixed + sum(self.choices[key][kind][1] for key, kind in plan.items()), answer


def lwq_file(options, recipe, size, more):
    path = os.path.join(options.out, f"lwq-{options.name}-{recipe}.gguf")
    if not os.path.exists(path):
        bars.quantize(options.model, path, os.path.join(options.out, "data"), "--budget", size, "--for", "llama.cpp", "--calibration", options.text,
                      "--no-eval", *more)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--llama", required=True)
    parser.add_argument("--llama-bin", required=True)
    parser.add_argument("--model", default=bars.SAMPLE)
    parser.add_argument("--text", default=os.path.join(bars.ROOT, "examples/calibration/books.txt"), help="calibration")
    parser.add_argument("--held-out", nargs="+", default=[bars.HELD_OUT])
    parser.add_argument("--recipes", default=RECIPES)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--floor", action="store_true")
    parser.add_argument("--floor-windows", type=int, default=24)
    parser.add_argument("--name", default="default", help="of lwq's files, where several sets of options are tried in one OUT")
    parser.add_argument("more", nargs="*", help="options of lwqctl quantize")
    options = parser.parse_args()
    for name in ("out", "model", "text", "llama", "llama_bin"):
        setattr(options, name, os.path.abspath(getattr(options, name)))
    os.makedirs(options.out, exist_ok=True)
    llama, judge = LlamaCpp(options), Judge(options)
    texts = {os.path.basename(path): judge.windows(options.model, path, options.windows, 5) for path in options.held_out}
    floor = Floor(judge, llama, options) if options.floor else None
    bars.header("recipe", "text", "bytes", "its KL", *(["floor's bytes", "floor's KL"] if floor else []), "lwq's bytes", "lwq's KL", "of the recipe's",
                *(["of the floor's"] if floor else []))
    for recipe in options.recipes.split(","):
        path = llama.recipe(recipe)
        size = os.path.getsize(path)
        ours_path = lwq_file(options, recipe, size, options.more)
        for name, text in texts.items():
            theirs, error = judge.kl_of(path, name, text)
            row = [recipe, name, f"{size:,}", f"{theirs:.5f} ± {error:.5f}"]
            if floor:
                floor_size, (placed, error) = floor.kl(size, text)
                row += [f"{floor_size:,}", f"{placed:.5f} ± {error:.5f}"]
            ours, error = judge.kl_of(ours_path, name, text)
            row += [f"{os.path.getsize(ours_path):,}", f"{ours:.5f} ± {error:.5f}", f"{ours / theirs:.2f}"]
            bars.row(*row, *([f"{ours / placed:.2f}"] if floor else []))


if __name__ == "__main__":
    main()
