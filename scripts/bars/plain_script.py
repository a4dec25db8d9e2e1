#!/usr/bin/env python3
"""The plain script that lwq must not lose against: mixed widths as one would write them in an afternoon with torch.

GPTQ with act order and static groups, symmetric grids in groups of 128, scales by a search weighted with the Hessian's diagonal,
damping 0.01; 48 units (q+k+v, o, gate+up, down of each layer) at 2, 3, 4 and 8 bits, embeddings as they are; the cost of a unit at
a width is the KL to the source with that unit alone quantized; an exact dynamic programme over bytes picks the widths. Hessians and
costs come from passages of the calibration text that do not overlap. Writes one compressed-tensors directory for each budget and
uniform width. Nine minutes on one thread of a shared machine for the sample.

usage: plain_script.py --out DIR [--budgets BYTES,...] [--uniform 2,3,4]        with the Python of scripts/make_peers_venv.sh
A budget bounds the tensors' bytes plus --overhead, by default what the header of the file takes."""
import argparse
import json
import math
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on a shared machine two threads that spin are slower than one
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import bars

WIDTHS, GROUP, DAMPING = (2, 3, 4, 8), 128, 0.01
FACTORS = torch.linspace(0.3, 1.05, 76)  # of the scale that just holds the largest weight
UNITS = (("self_attn", ("q_proj", "k_proj", "v_proj")), ("self_attn", ("o_proj",)), ("mlp", ("gate_proj", "up_proj")), ("mlp", ("down_proj",)))


def passages(ids, count, length, shift):
    """`count` windows at even distances, begun `shift` of a distance in."""
    distance = len(ids) / count
    return torch.tensor([ids[(at := int((i + shift) * distance)):at + length] for i in range(count)])


def search_scales(w, column_weight, bits, mirrored):
    """[rows, groups]: the F16 scale of each group with the least weighted error; a mirrored grid has a negative one."""
    w, column_weight = w.reshape(len(w), -1, GROUP), column_weight.reshape(-1, GROUP)
    low, high = -2 ** (bits - 1), 2 ** (bits - 1) - 1
    best = torch.full(w.shape[:2], math.inf)
    scales = torch.ones(w.shape[:2])
    for sign in (1, -1) if mirrored else (1,):
        for factor in FACTORS:
            s = (w.abs().amax(-1) * (sign * factor / -low)).half().float()
            s = torch.where(s == 0, 1e-6, s)
            error = (w / s[..., None]).round_().clamp_(low, high).mul_(s[..., None]).sub_(w).square_().mul_(column_weight).sum(-1)
            scales = torch.where(error < best, s, scales)
            best = torch.minimum(error, best)
    return scales


def gptq(w, hessian, mirrored):
    """{bits: (codes, scales)} of w [rows, columns]; columns by falling diagonal, each error pushed onto the columns still to come."""
    hessian = hessian.double()
    hessian += torch.eye(len(hessian)) * DAMPING * hessian.diagonal().mean()
    diagonal = hessian.diagonal()
    order = diagonal.argsort(descending=True)
    inverse = torch.linalg.inv(hessian[order][:, order])
    u = torch.linalg.cholesky((inverse + inverse.T) / 2, upper=True).float()
    scales = torch.stack([search_scales(w, diagonal.float(), bits, mirrored) for bits in WIDTHS])
    work, s = w[:, order].expand(len(WIDTHS), -1, -1).clone(), scales[:, :, order // GROUP]
    half = torch.tensor([2.0 ** (bits - 1) for bits in WIDTHS])[:, None]
    codes = torch.empty_like(work)
    for first in range(0, w.shape[1], GROUP):
        last, errors = first + GROUP, torch.empty(*work.shape[:2], GROUP)
        for j in range(first, last):
            q = (work[..., j] / s[..., j]).round().clamp(-half, half - 1)
            codes[..., order[j]] = q
            errors[..., j - first] = error = (work[..., j] - q * s[..., j]) / u[j, j]
            work[..., j + 1:last] -= error[..., None] * u[j, j + 1:last]
        work[..., last:] -= errors @ u[first:last, last:]
    return {bits: (codes[i], scales[i]) for i, bits in enumerate(WIDTHS)}


def dense(quantized):
    codes, scales = quantized
    return codes * scales.repeat_interleave(GROUP, 1)


@torch.no_grad()
def quantize_all(model, ids, mirrored):
    """{linear's name: {bits: (codes, scales)}}, every linear with the inputs that it has in the source."""
    hessians, parts = {}, {}
    layers = [(f"model.layers.{i}.{block}.", names) for i in range(model.config.num_hidden_layers) for block, names in UNITS]
    for prefix, names in layers:
        def hook(_, inputs, key=prefix + names[0]):
            x = inputs[0].flatten(0, 1)
            hessians[key] = hessians.get(key, 0) + (x.T @ x).double()
        parts[prefix + names[0]] = model.get_submodule(prefix + names[0]).register_forward_pre_hook(hook)
    for batch in passages(ids, 64, 512, 0).split(8):
        model.model(batch)
    quantized = {}
    for prefix, names in layers:
        parts[prefix + names[0]].remove()
        linears = [model.get_submodule(prefix + name).weight for name in names]
        made = gptq(torch.cat(linears), hessians[prefix + names[0]], mirrored)
        split = {bits: zip(*(t.split([len(w) for w in linears]) for t in pair)) for bits, pair in made.items()}
        for name, *pairs in zip(names, *split.values()):
            quantized[prefix + name] = dict(zip(split, pairs))
    return [[prefix + name for name in names] for prefix, names in layers], quantized


@torch.no_grad()
def unit_costs(model, units, quantized, ids):
    """[unit][bits]: mean KL to the source with that unit alone quantized, on 6,144 tokens."""
    def run(batch, first):  # from the input of layer `first` to log-probabilities; keeps the inputs of layers when first is 0
        rotary = model.model.rotary_emb(batch[0], torch.arange(batch[0].shape[1])[None])
        x = batch[first]
        for layer in model.model.layers[first:]:
            x = layer(x, position_embeddings=rotary)
            if first == 0 and len(batch) < len(model.model.layers):
                batch.append(x)
        return model.lm_head(model.model.norm(x)).log_softmax(-1)
    tokens = passages(ids, 24, 256, 0.5).split(8)  # half a distance from the passages of the Hessians
    batches = [[model.model.embed_tokens(t)] for t in tokens]
    source = [run(batch, 0) for batch in batches]
    assert (source[0] - model(tokens[0]).logits.log_softmax(-1)).abs().max() < 1e-3
    costs = []
    for names in units:
        linears = {name: model.get_submodule(name).weight for name in names}
        kept = {name: w.clone() for name, w in linears.items()}
        costs.append({})
        for bits in WIDTHS:
            for name, w in linears.items():
                w.copy_(dense(quantized[name][bits]))
            costs[-1][bits] = sum((p.exp() * (p - run(batch, int(names[0].split(".")[2])))).sum(-1).double().mean().item()
                                  for p, batch in zip(source, batches)) / len(batches)
        for name, w in linears.items():
            w.copy_(kept[name])
    return costs


def allocate(costs, sizes, budget):
    """The width of each unit: least sum of costs with the sum of sizes at most `budget`, exactly."""
    step = math.gcd(*(size for unit in sizes for size in unit.values()))
    best, choices = np.zeros(budget // step + 1), []
    for cost, size in zip(costs, sizes):
        options = np.full((len(WIDTHS), len(best)), np.inf)
        for i, bits in enumerate(WIDTHS):
            n = size[bits] // step
            if n < len(best):
                options[i, n:] = best[:len(best) - n] + cost[bits]
        choices.append(options.argmin(0))
        best = options.min(0)
    if not np.isfinite(best[-1]):
        raise SystemExit(f"{budget} bytes are too few")
    at, picked = len(best) - 1, []
    for size, choice in zip(reversed(sizes), reversed(choices)):
        picked.append(WIDTHS[choice[at]])
        at -= size[picked[-1]] // step
    return picked[::-1], best[-1]


def packed(codes, bits):
    u = (codes.numpy() + 2 ** (bits - 1)).astype(np.uint8)
    raw = ((u[:, :, None] >> np.arange(bits, dtype=np.uint8)) & 1).reshape(len(u), -1)
    return torch.from_numpy(np.packbits(raw, axis=1, bitorder="little").view(np.int32))


def write(model_dir, state, out, width_of, quantized):
    """A compressed-tensors directory; its size in bytes."""
    os.makedirs(out, exist_ok=True)
    tensors = {name: t for name, t in state.items() if name.removesuffix(".weight") not in width_of}
    for name, bits in width_of.items():
        codes, scales = quantized[name][bits]
        tensors |= {name + ".weight_packed": packed(codes, bits), name + ".weight_scale": scales.half(), name + ".weight_shape": torch.tensor(codes.shape)}
    with open(os.path.join(model_dir, "config.json")) as f:
        config = json.load(f)
    config["quantization_config"] = dict(
        quant_method="compressed-tensors", format="pack-quantized", quantization_status="compressed", ignore=["lm_head"],
        config_groups={f"w{bits}": dict(targets=[name for name, b in width_of.items() if b == bits], weights=dict(
            num_bits=bits, type="int", symmetric=True, strategy="group", group_size=GROUP, dynamic=False)) for bits in sorted(set(width_of.values()))})
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
    for name in os.listdir(model_dir):
        if "token" in name:
            shutil.copy(os.path.join(model_dir, name), out)
    save_file({name: t.contiguous() for name, t in tensors.items()}, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    return bars.weight_bytes(out), sum(t.numel() * t.element_size() for t in tensors.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=bars.SAMPLE)
    parser.add_argument("--text", default=os.path.join(bars.ROOT, "examples/calibration/books.txt"))
    parser.add_argument("--out", required=True)
    parser.add_argument("--budgets", default="4771312,5180912,5664240,5959152,6262256,6737392,7146992")
    parser.add_argument("--uniform", default="2,3,4")
    parser.add_argument("--overhead", type=int, help="bytes that a budget counts beside the tensors")
    parser.add_argument("--mirrored", action=argparse.BooleanOptionalAction, default=True, help="let scales be negative")
    options = parser.parse_args()
    with open(options.text, encoding="utf-8") as f:
        ids = Tokenizer.from_file(os.path.join(options.model, "tokenizer.json")).encode(f.read(), add_special_tokens=False).ids
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    units, quantized = quantize_all(model, ids, options.mirrored)
    stored = {n: t for n, t in AutoModelForCausalLM.from_pretrained(options.model, dtype="auto").state_dict().items() if n != "lm_head.weight"}
    sizes = [{bits: sum(quantized[n][bits][0].numel() * bits // 8 + quantized[n][bits][1].numel() * 2 for n in names) for bits in WIDTHS} for names in units]
    path = lambda name: os.path.join(options.out, name)
    uniform = {int(bits): {n: int(bits) for names in units for n in names} for bits in options.uniform.split(",") if bits}
    for bits, width_of in uniform.items():
        print(f"uniform-{bits}", *write(options.model, stored, path(f"plain-uniform-{bits}"), width_of, quantized), flush=True)
    if not options.budgets:
        return
    costs = unit_costs(model, units, quantized, ids)
    size, tensors = write(options.model, stored, path("plain-header"), {n: 8 for names in units for n in names}, quantized)  # the longest header
    shutil.rmtree(path("plain-header"))
    fixed = tensors - sum(size_of[8] for size_of in sizes) + (size - tensors if options.overhead is None else options.overhead)
    for budget in map(int, options.budgets.split(",")):
        widths, cost = allocate(costs, sizes, budget - fixed)
        width_of = {n: bits for names, bits in zip(units, widths) for n in names}
        size, tensors = write(options.model, stored, path(f"plain-{budget}"), width_of, quantized)
        print(f"plain-{budget}: {size} bytes, {tensors} of them tensors, sum of costs {cost:.5f}, widths {''.join(map(str, widths))}", flush=True)


if __name__ == "__main__":
    main()
