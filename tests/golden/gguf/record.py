"""Records how the gguf package dequantizes blocks, for tests that must not depend on it.

usage: record.py > blocks.json, record.py quantized > quantized.json   (gguf 0.19.0, numpy)

For each type: random blocks, then one whose scale is subnormal, one infinite and one NaN; and the
bits of the values, the hexadecimal digits of a value in the order of the number. `quantized`: rows and the
bytes that the package makes of them.
"""
import json
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

TYPES = ["BF16", "F16", "F32", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"]
SCALE_AT = {"Q2_K": 80, "Q3_K": 108, "Q6_K": 208}  # elsewhere the block begins with it


def blocks_of(name, count, random):
    size = gguf.GGML_QUANT_SIZES[Type[name]][1]
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    if size > 4:
        at = SCALE_AT.get(name, 0)
        for row, scale in zip(blocks[1:], (0x0123, 0x7C00, 0x7E01)):
            row[at:at + 2] = np.frombuffer(np.uint16(scale).tobytes(), np.uint8)
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
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(blocks, Type[name]).astype(np.float32)
        cases.append({"type": name, "bytes": blocks.tobytes().hex(), "values": values.astype(">f4").tobytes().hex()})
    print("[" + ",\n ".join(json.dumps(c) for c in cases) + "]")
