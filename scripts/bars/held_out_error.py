#!/usr/bin/env python3
"""What quantizing costs on tokens that it has seen and on tokens that it has not: the error of each linear under the second moments of both.

usage: held_out_error.py split TEXT DIR                    the two halves of TEXT: DIR/seen.txt, DIR/unseen.txt
       held_out_error.py judge MODEL DIR ARTIFACT...       of artifacts that were calibrated with DIR/seen.txt
Error: tr(E H E^T) / tr(W H W^T) with E = W - Q and H the source's own second moments over sequences of 512 tokens, by transformers
in F32 (sums in F64). By kind of linear, the mean over layers; then how much of H's trace lies in a few channels, which is what a
damping by the mean of its diagonal goes by. Runs with the Python of scripts/make_peers_venv.sh."""
import os
import sys

SEQUENCE = 512
# A linear of each input; q, k and v read one input, gate and up too.
READERS = {"q_proj": ["q_proj", "k_proj", "v_proj"], "o_proj": ["o_proj"], "gate_proj": ["gate_proj", "up_proj"], "down_proj": ["down_proj"]}


def split(text, directory):
    with open(text, encoding="utf-8") as f:
        lines = f.read().splitlines(keepends=True)
    os.makedirs(directory, exist_ok=True)
    # Passages by turns, so that both halves have every kind of text.
    passages = ["".join(lines[i:i + 40]) for i in range(0, len(lines), 40)]
    for name, part in (("seen.txt", passages[0::2]), ("unseen.txt", passages[1::2])):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
            f.write("".join(part))


def second_moments(model, tokenizer, path, tokens):
    """{module of READERS: (H [K, K], the diagonal's part of first tokens [K])}."""
    import torch
    with open(path, encoding="utf-8") as f:
        ids = tokenizer(f.read(), add_special_tokens=False).input_ids[:tokens]
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    sums, hooks = {}, []

    def hook(name):
        def add(module, inputs, output):
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            h, first = sums.get(name, (0, 0))
            sums[name] = (h + (x.T @ x).double(), first + x[0].double() ** 2)
        return add
    for name, module in model.named_modules():
        if ".layers." in name and name.rsplit(".", 1)[-1] in READERS:
            hooks.append(module.register_forward_hook(hook(name)))
    step = SEQUENCE - len(bos)
    with torch.no_grad():
        for begin in range(0, len(ids) - step + 1, step):
            model.model(torch.tensor([bos + ids[begin:begin + step]]))
    for h in hooks:
        h.remove()
    return sums


def weights_of(directory):
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        model(torch.tensor([[0]]))  # weights become floats when a model first runs
    return {name: module.weight.detach() for name, module in model.named_modules() if getattr(module, "weight", None) is not None}


def judge(model_directory, directory, artifacts, tokens):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32).eval()
    moments = [second_moments(model, tokenizer, os.path.join(directory, name), tokens) for name in ("seen.txt", "unseen.txt")]
    source = {name: module.weight.detach() for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}

    def relative(name, read, w, e, side):
        h = moments[side][read][0].float()
        return (((e @ h) * e).sum() / ((w @ h) * w).sum()).item()
    for artifact in artifacts:
        quantized = weights_of(artifact)
        print(artifact)
        for kind, readers in READERS.items():
            errors = []
            for read in (name for name in moments[0] if name.endswith(kind)):
                for reader in readers:
                    name = read[:-len(kind)] + reader
                    e = source[name] - quantized[name].float()
                    errors.append([relative(name, read, source[name], e, side) for side in (0, 1)])
            seen, unseen = torch.tensor(errors, dtype=torch.float64).mean(0).tolist()
            print(f"  {'/'.join(readers):22s} seen {seen:.6f}  unseen {unseen:.6f}  ratio {unseen / seen:.3f}")
    shares = []
    for name, (h, first) in moments[0].items():
        diagonal = h.diagonal()
        shares.append((diagonal.mean() / diagonal.median(), name, diagonal.topk(3).values.sum() / diagonal.sum(), first.sum() / diagonal.sum()))
    print("inputs whose second moments lie in few channels (mean of the diagonal over its median, three largest channels' share, first tokens' share)")
    for ratio, name, top, first in sorted(shares, reverse=True)[:8]:
        print(f"  {name:36s} {ratio:8.1f} {top:.3f} {first:.3f}")


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "split":
        return split(sys.argv[2], sys.argv[3])
    if len(sys.argv) > 4 and sys.argv[1] == "judge":
        return judge(sys.argv[2], sys.argv[3], sys.argv[4:], int(os.environ.get("LWQ_TOKENS", "16384")))
    sys.exit(__doc__)


if __name__ == "__main__":
    main()
