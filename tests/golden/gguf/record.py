"""Records how the gguf package dequantizes blocks, for tests that must not depend on it.

usage: record.py > blocks.json, record.py quantized > quantized.json   (gguf 0.19.0, numpy)

For each type: random blocks, then one whose scale is subnormal, one infinite and one NaN; and the
bits of the values, the hexadecimal digits of a value in the order of the number. `quantized`: rows and the
bytes that the package makes of them.

Of the types with codebooks there follow blocks that have every one of their points.
"""
import json
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

TYPES = ["BF16", "F16", "F32", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0",
         "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ3_S", "IQ3_XXS"]
SCALE_AT = {"Q2_K": 80, "Q3_K": 108, "Q6_K": 208}  # elsewhere the block begins with it


def blocks_of(name, count, random):
    size = gguf.GGML_QUANT_SIZES[Type[name]][1]
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    if size > 4:
        at = SCALE_AT.get(name, 0)
        for row, scale in zip(blocks[1:], (0x0123, 0x7C00, 0x7E01)):
            row[at:at + 2] = np.frombuffer(np.uint16(scale).tobytes(), np.uint8)
    return blocks


def all_points(name):
    """Blocks with the scale 1 and every point of the type's codebook, all bits but those of points zero."""
    size = gguf.GGML_QUANT_SIZES[Type[name]][1]
    points = {"IQ2_S": 1024, "IQ2_XS": 512, "IQ2_XXS": 256, "IQ3_S": 512, "IQ3_XXS": 256}[name]
    per_block = 64 if name.startswith("IQ3") else 32
    blocks = np.zeros((points // per_block, size), dtype=np.uint8)
    blocks[:, 1] = 0x3C
    for point in range(points):
        block, i = blocks[point // per_block], point % per_block
        if name == "IQ2_XXS":
            block[2 + i // 4 * 8 + i % 4] = point
        elif name == "IQ2_XS":
            block[2 + 2 * i:4 + 2 * i] = point & 255, point >> 8
        else:
            block[2 + i] = point & 255
            if name == "IQ2_S":
                block[66 + i // 4] |= point >> 8 << 2 * (i % 4)
            if name == "IQ3_S":
                block[66 + i // 8] |= point >> 8 << i % 8
    return blocks


def quantized(random):
    rows = (random.standard_t(4, (6, 32)) * 0.02).astype(np.float32)
    rows[3] = 0
    rows[4] = abs(rows[4])
    rows[5, 1:] = rows[5, 0]
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        blocks = gguf.quants.quantize(rows, Type[name])
        yield {"type": name, "values": rows.astype(">f4").tobytes().hex(), "bytes": blocks.tobytes().hex()}


if __name__ == "__main__" and sys.argv[1:] == ["quantized"]:
    print("[" + ",\n ".join(json.dumps(c) for c in quantized(np.random.default_rng(9))) + "]")
elif __name__ == "__main__":
    random = np.random.default_rng(7)
    cases = []
    for name in TYPES:
        blocks = blocks_of(name, 4 if gguf.GGML_QUANT_SIZES[Type[name]][1] > 4 else 16, random)
        if name.startswith(("IQ2", "IQ3")):
            blocks = np.concatenate([blocks, all_points(name)])
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(blocks, Type[name]).astype(np.float32)
        cases.append({"type": name, "bytes": blocks.tobytes().hex(), "values": values.astype(">f4").tobytes().hex()})
    print("[" + ",\n ".join(json.dumps(c) for c in cases) + "]")
