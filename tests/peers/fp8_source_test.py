"""A model in 8-bit floats with scales by block (Qwen3's and DeepSeek's layout) is read as transformers dequantizes it, and quantized as its BF16 model is."""
import json
import os
import shutil

import lwq
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

BLOCK = 128
dense, fp8, plain = (os.path.join(lwq.TMP, name) for name in ("dense", "fp8", "plain"))
# Sizes that are multiples of a block: transformers reads no others.
lwq.run("make_model", dense, "--layers", "3", "--hidden", "256", "--intermediate", "384", "--dtype", "bf16", "--untied")
for directory in (fp8, plain):
    shutil.copytree(dense, directory)
stored, read = {}, {}
for name, tensor in load_file(os.path.join(dense, "model.safetensors")).items():
    stored[name] = read[name] = tensor
    if tensor.dim() != 2 or "layers" not in name:
        continue
    rows, cols = tensor.shape
    blocks = tensor.float().reshape(rows // BLOCK, BLOCK, cols // BLOCK, BLOCK)
    scale = blocks.abs().amax(dim=(1, 3)) / 448
    codes = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
    stored[name] = codes.reshape(rows, cols)
    stored[name + "_scale_inv"] = scale
    read[name] = (codes.float() * scale[:, None, :, None]).reshape(rows, cols).to(torch.bfloat16)
save_file(stored, os.path.join(fp8, "model.safetensors"), {"format": "pt"})
save_file(read, os.path.join(plain, "model.safetensors"), {"format": "pt"})
path = os.path.join(fp8, "config.json")
with open(path, encoding="utf-8") as f:
    config = json.load(f)
config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}
with open(path, "w", encoding="utf-8") as f:
    json.dump(config, f)

# Without a GPU transformers dequantizes, to the type that is asked for; lwq's is BF16. The arithmetic is F32 on both sides.
model, info = AutoModelForCausalLM.from_pretrained(fp8, dtype=torch.bfloat16, device_map="cpu", output_loading_info=True)
lwq.equal("keys that transformers misses in the 8-bit model", sorted(info["missing_keys"]), [])
weights = model.state_dict()
lwq.equal("weights that transformers reads otherwise than torch's product", [n for n in read if not torch.equal(weights[n], read[n])], [])
ids = lwq.sample_ids(1000)
ours, theirs = lwq.logits(fp8, ids, 500), lwq.transformers_logits(model.float().eval(), ids, 500)
lwq.below(f"logits of the 8-bit model in lwq and in transformers (up to {abs(theirs).max():.1f})", abs(ours - theirs).max(), 1e-3)
lwq.equal("they are those of the BF16 model, to the bit", bool((ours == lwq.logits(plain, ids, 500)).all()), True)
lwq.equal("they are not the dense model's", bool(abs(ours - lwq.logits(dense, ids, 500)).max() > 1e-2), True)

options = ["--budget", "9bpw", "--bits", "4,16", "--scorer", "random", "--allocator", "knapsack"]
for method in ("rtn", "awq"):  # awq edits dense tensors too
    made = [f"{source}-{method}" for source in (fp8, plain)]
    for source, out in zip((fp8, plain), made):
        lwq.quantize(source, out, "--method", method, *options)
    a, b = (load_file(os.path.join(out, "model.safetensors")) for out in made)
    lwq.equal(f"{method}: its artifact has dense linears and others", [any(n.endswith(end) for n in a if "layers" in n and "norm" not in n) for end in (".weight", ".weight_packed")], [True, True])
    lwq.equal(f"{method}: its artifact is the BF16 model's", sorted(n for n in a.keys() | b.keys() if n not in a or n not in b or not torch.equal(a[n], b[n])), [])
with open(os.path.join(made[0], "config.json"), encoding="utf-8") as f:
    lwq.equal("which says nothing of 8-bit floats", "fp8" in f.read(), False)
sources = []
for out in made:
    with open(os.path.join(out, "lwq-manifest.json"), encoding="utf-8") as f:
        sources.append(json.load(f)["provenance"]["source"]["weights"])
lwq.equal("what the manifests say of the sources", sources, ["F8_E4M3 in blocks of 128 by 128, read as BF16", "BF16"])
lwq.finish()
