"""Records how the compressed-tensors library packs codes, for tests that must not depend on it.

usage: record.py > packed_streams.json   (compressed-tensors 0.20.0, torch)

For each width: signed codes of a small matrix, the words of its rows (weights) and of its columns
(zero points).
"""
import json

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

cases = []
generator = torch.Generator().manual_seed(5)
for bits in range(1, 9):
    rows, cols = 32, 32
    codes = torch.randint(0, 2**bits, (rows, cols), generator=generator)
    signed = (codes - 2 ** (bits - 1)).to(torch.int8)
    by_row = pack_to_int32(signed, bits, packed_dim=1)
    by_column = pack_to_int32(signed, bits, packed_dim=0)
    cases.append({
        "bits": bits, "rows": rows, "cols": cols, "codes": codes.flatten().tolist(),
        "row_words": by_row.flatten().tolist(), "row_words_shape": list(by_row.shape),
        "column_words": by_column.flatten().tolist(), "column_words_shape": list(by_column.shape)})
print("[" + ",\n ".join(json.dumps(c, separators=(",", ":")) for c in cases) + "]")
