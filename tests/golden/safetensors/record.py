"""Records a file of the reference safetensors writer, for tests that must not depend on it.

usage: record.py reference.safetensors   (safetensors 0.8.0, torch)
"""
import sys

import torch
from safetensors.torch import save_file

tensors = {
    "model.b.weight": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "model.a.weight": torch.arange(4, dtype=torch.bfloat16),
    "model.a.weight_packed": torch.arange(5, dtype=torch.int32).reshape(1, 5),
    "model.a.weight_shape": torch.tensor([2, 3]),
    "norm": torch.ones(3, dtype=torch.float32),
    "flags": torch.tensor([True, False, True]),
    "bytes": torch.arange(3, dtype=torch.uint8),
    "scalar": torch.tensor(1.5, dtype=torch.float64),
    "empty": torch.zeros(0, 4, dtype=torch.float16),
}
save_file(tensors, sys.argv[1], metadata={"format": "pt"})
