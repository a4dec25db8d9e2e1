"""A GPTQ file in activation order (desc_act): a job's file whose inputs get groups by lot. lwq's logits of it against those of the dense
weights that the format's definition gives, s[g_idx[k], n] (u[k, n] - z), computed here."""
import json
import os
import shutil

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import lwq

BITS, MIDDLE = 4, 8
source, ordered, dense = (os.path.join(lwq.TMP, name) for name in ("gptq", "ordered", "dense"))
lwq.quantize(lwq.SAMPLE, source, "--for", "gptqmodel", "--budget", "4.5bpw", "--bits", str(BITS), "--group-size", "64", "--method", "rtn",
             "--allocator", "uniform", "--scorer", "random")
for directory in (ordered, dense):
    shutil.copytree(source, directory)
rng = np.random.default_rng(3)
stored = load_file(os.path.join(source, "model.safetensors"))
changed, weights = dict(stored), {}
for name, tensor in stored.items():
    module = name.rsplit(".", 1)[0]
    if name.endswith(".qweight"):
        words = tensor.numpy().view(np.uint32)
        codes = np.stack([(words >> (BITS * i)) & 15 for i in range(32 // BITS)], 1).reshape(-1, words.shape[1])
        groups = rng.permutation(stored[module + ".g_idx"].numpy())
        changed[module + ".g_idx"] = torch.from_numpy(groups.astype(np.int32))
        scales = stored[module + ".scales"].float().numpy()
        weights[module + ".weight"] = torch.from_numpy((scales[groups] * (codes.astype(np.float32) - MIDDLE)).T.copy())
    elif not name.endswith((".qzeros", ".scales", ".g_idx")):
        weights[name] = tensor.float()
save_file(changed, os.path.join(ordered, "model.safetensors"), metadata={"format": "pt"})
save_file(weights, os.path.join(dense, "model.safetensors"), metadata={"format": "pt"})
os.remove(os.path.join(dense, "quantize_config.json"))
for directory in (ordered, dense):
    path = os.path.join(directory, "config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    if directory == dense:
        del config["quantization_config"]
    else:
        config["quantization_config"]["desc_act"] = True
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)

ids = lwq.sample_ids(200)
found = lwq.logits(ordered, ids, len(ids))
lwq.below("largest difference to the dense weights", abs(found - lwq.logits(dense, ids, len(ids))).max(), 1e-3)
lwq.equal("the order is felt", bool(abs(found - lwq.logits(source, ids, len(ids))).max() > 1), True)
lwq.finish()
