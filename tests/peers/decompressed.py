"""A compressed-tensors file of 2 to 8 bits as the dense model that it stands for, linear by linear by the compressed-tensors library."""
import json
import os
import re

import lwq
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import save_file


def matches(target, module):
    return re.match(target[3:], module) if target.startswith("re:") else target == module


def decompress(directory, plain):
    """Writes the model in F32; the number of formats in it."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    groups = QuantizationConfig.model_validate(config.pop("quantization_config")).config_groups.values()
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    tensors, dense = lwq.tensors(directory), {}
    for name, value in tensors.items():
        module, part = name.rsplit(".", 1)
        if part == "weight_packed":
            group, = [g for g in groups if any(matches(target, module) for target in g.targets)]
            packed = {"weight_packed": value, "weight_scale": tensors[module + ".weight_scale"].float(), "weight_shape": tensors[module + ".weight_shape"]}
            dense[module + ".weight"] = compressor.decompress(packed, group)["weight"].float().contiguous()
        elif part not in ("weight_scale", "weight_shape"):
            dense[name] = value.float().contiguous()
    os.makedirs(plain)
    with open(os.path.join(plain, "config.json"), "w", encoding="utf-8") as f:
        json.dump({**config, "dtype": "float32"}, f)
    save_file(dense, os.path.join(plain, "model.safetensors"), metadata={"format": "pt"})
    return len(groups)
