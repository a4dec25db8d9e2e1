"""`lwqctl artifact convert`: what it writes holds the weights that compressed-tensors' own library and gguf-py read, in every direction."""
import json
import os
import subprocess

import lwq
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

try:
    import gguf
except ImportError as error:
    lwq.skip(f"gguf-py cannot be imported: {error}")

start, ids = os.path.join(lwq.TMP, "start"), lwq.sample_ids(1000)
lwq.quantize(lwq.SAMPLE, start, "--budget", "3.6bpw", "--bits", "2,3,4,8", "--method", "rtn", "--scorer", "random", "--allocator", "knapsack")


def convert(source, kind, name):
    out = os.path.join(lwq.TMP, name)
    return out, json.loads(lwq.run("lwqctl", "artifact", "convert", source, "--format", kind, "--out", out, "--json"))


def library_weights(found):
    """Dense weights of a compressed-tensors file by the library's own unpacking, in F32."""
    weights = {}
    for name in found:
        if name.endswith(".weight_packed"):
            module = name.removesuffix(".weight_packed")
            rows, cols = (int(n) for n in found[module + ".weight_shape"])
            bits = found[name].shape[1] * 32 // cols
            codes = unpack_from_int32(found[name], bits, torch.Size((rows, cols))).float()
            scale = found[module + ".weight_scale"].float()
            weights[module] = (codes.reshape(rows, scale.shape[1], -1) * scale[:, :, None]).reshape(rows, cols).numpy()
    return weights


def gptq_weights(found):
    """The same of a GPTQ v1 file, by what artifact-formats B.2 and B.3 say."""
    weights = {}
    for name in found:
        if name.endswith(".qweight"):
            module = name.removesuffix(".qweight")
            order, scales = found[module + ".g_idx"].numpy(), found[module + ".scales"].float().numpy()
            bits = found[name].shape[0] * 32 // len(order)

            def stream(words):  # along axis 0
                as_bits = np.unpackbits(np.ascontiguousarray(words.T).view(np.uint8), axis=1, bitorder="little")
                return (as_bits.reshape(len(as_bits), -1, bits) * (1 << np.arange(bits))).sum(axis=2).T

            codes, zeros = stream(found[name].numpy()), stream(found[module + ".qzeros"].numpy().T).T + 1
            weights[module] = ((codes - zeros[order]) * scales[order]).T.astype(np.float32)
    return weights


expected = library_weights(lwq.tensors(start))
there, said = convert(start, "gptq", "there")
lwq.equal("compressed-tensors to gptq says that it is lossless", said["lossless"], True)
found = gptq_weights(lwq.tensors(there))
lwq.equal("gptq: linears with other weights than the library reads of the start",
          [m for m in expected if not np.array_equal(expected[m], found.get(m))], [])
lwq.equal("gptq: logits are those of the start to the bit", bool(np.array_equal(lwq.logits(start, ids, 500), lwq.logits(there, ids, 500))), True)
back, said = convert(there, "compressed-tensors", "back")
for file in ("model.safetensors", "config.json"):
    with open(os.path.join(start, file), "rb") as a, open(os.path.join(back, file), "rb") as b:
        lwq.equal(f"there and back gives the same {file}", a.read() == b.read(), True)
for directory in (there, back):
    lwq.run("lwqctl", "artifact", "verify", directory)

file, said = convert(start, "gguf", "file.gguf")
lwq.equal(f"gguf of {said['linears']} says that it is lossless", said["lossless"], True)
names = {"o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down", "v_proj": "attn_v"}
read = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(file).tensors}
differ = []
for module, weight in expected.items():
    layer, leaf = module.split(".")[2], module.split(".")[-1]
    if leaf in names and not np.array_equal(read[f"blk.{layer}.{names[leaf]}.weight"], weight):
        differ.append(module)
lwq.equal("gguf: linears with other weights in gguf-py than in the library (q and k are reordered)", differ, [])

# What cannot be kept is said, and nothing is left behind.
refused = subprocess.run([os.path.join(lwq.BIN, "lwqctl"), "artifact", "convert", lwq.SAMPLE, "--format", "gptq", "--out", os.path.join(lwq.TMP, "none")],
                         capture_output=True, text=True)
lwq.equal("a dense model is refused", (refused.returncode != 0, "nothing to convert" in refused.stderr), (True, True))
lwq.equal("nothing is left of it", [n for n in os.listdir(lwq.TMP) if n.startswith("none")], [])
lwq.finish()
