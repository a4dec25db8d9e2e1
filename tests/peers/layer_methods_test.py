"""What methods that change more than linears write opens in transformers: scales moved into norms (awq), and layers
left out (drop). Each file gives lwq's own logits, and the pruned model is transformers' source without those layers."""
import json
import os

import lwq
import torch
from safetensors import safe_open

ids = lwq.sample_ids()


def tensor(directory, name):
    with safe_open(os.path.join(directory, "model.safetensors"), "pt") as f:
        return f.get_tensor(name)


def check(name, directory):
    theirs = lwq.transformers_logits(directory, ids, 500)
    ours = lwq.logits(directory, ids, 500)
    lwq.below(f"{name}: largest difference of logits (theirs reach {abs(theirs).max():.1f})", abs(ours - theirs).max(), 1e-3)
    return theirs


for rounding in ("nearest", "gptq"):
    out = os.path.join(lwq.TMP, f"awq-{rounding}")
    lwq.quantize(lwq.SAMPLE, out, "--budget", "3.25bpw", "--method", "awq", "--method-option", f"rounding={rounding}",
                 "--allocator", "two-level", "--scorer", "lim", "--bits", "3,4,16", "--no-eval")
    check(f"awq, {rounding}", out)
    norms = [f"model.layers.{i}.{name}.weight" for i in range(12) for name in ("input_layernorm", "post_attention_layernorm")]
    edited = [norm for norm in norms if bool((tensor(out, norm) != tensor(lwq.SAMPLE, norm)).any())]
    print(f"     awq, {rounding}: {len(edited)} of {len(norms)} norms are not the source's")
    lwq.equal(f"awq, {rounding}: some norm is not the source's", len(edited) > 0, True)

for order in ("importance", "depth"):
    out = os.path.join(lwq.TMP, f"drop-{order}")
    lwq.quantize(lwq.SAMPLE, out, "--budget", "85%", "--allocator", "drop", "--allocator-option", f"order={order}", "--scorer", "bi",
                 "--no-eval")
    theirs = check(f"drop, {order}", out)
    with open(os.path.join(out, "lwq-manifest.json"), encoding="utf-8") as f:
        units = json.load(f)["plan"]["units"]
    dropped = sorted({int(unit["unit"].split(".")[1]) for unit in units if not unit["format"]})
    source = lwq.load(lwq.SAMPLE)
    kept = [layer for i, layer in enumerate(source.model.layers) if i not in dropped]
    print(f"     drop, {order}: layers {dropped} of {len(source.model.layers)} are left out")
    lwq.equal(f"drop, {order}: layers of the file", len(lwq.load(out).model.layers), len(kept))
    lwq.equal(f"drop, {order}: some layer is left out", len(dropped) > 0, True)
    source.model.layers = torch.nn.ModuleList(kept)
    for i, layer in enumerate(kept):
        layer.self_attn.layer_idx = i
    source.config.num_hidden_layers = len(kept)
    pruned = lwq.transformers_logits(source, ids, 500)
    lwq.below(f"drop, {order}: largest difference from transformers' own model without them", abs(theirs - pruned).max(), 1e-3)
lwq.finish()
