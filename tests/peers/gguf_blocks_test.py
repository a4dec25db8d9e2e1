"""Every block type of GGUF against the gguf package: random bytes, all bit patterns of scales included, dequantize to
the same bits. A NaN counts as equal to a NaN: its payload has no agreed value."""
import os
import sys

import numpy as np

import lwq

try:
    import gguf
except ImportError:
    lwq.skip("no gguf package")

sys.path.insert(0, os.path.join(lwq.ROOT, "tests/golden/gguf"))
from record import SCALE_AT, TYPES  # noqa: E402

BLOCKS = 66000  # more than there are F16 scales


def ours(name, data):
    source, target = os.path.join(lwq.TMP, "blocks"), os.path.join(lwq.TMP, "values")
    data.tofile(source)
    lwq.run("gguf_probe", "dequantize", name, source, target)
    return np.fromfile(target, dtype=np.float32)


random = np.random.default_rng(11)
for name in TYPES:
    kind = gguf.GGMLQuantizationType[name]
    size = gguf.GGML_QUANT_SIZES[kind][1]
    data = random.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    at = SCALE_AT.get(name, 0)
    data[:65536, at:at + 2] = np.arange(65536, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(data, kind).astype(np.float32).ravel()
    found = ours(name, data)
    both_nan = np.isnan(theirs) & np.isnan(found)
    differ = (theirs.view(np.uint32) != found.view(np.uint32)) & ~both_nan
    lwq.equal(f"{name}: values that differ of {theirs.size}", int(differ.sum()), 0)
lwq.finish()
