"""Records a weight in 8-bit floats with scales by block, and what torch makes of it.

usage: record.py model.safetensors   (torch 2.15, safetensors 0.8.0)

"w" has each of E4M3's 254 finite codes, blocks that the edges cut off, and scales that BF16 does not have. "w_read"
is torch's product in F32, rounded to BF16, as transformers and DeepSeek's own fp8_cast_bf16.py dequantize it.
"""
import sys

import torch
from safetensors.torch import save_file

ROWS, COLS, BLOCK = 140, 150, 128
generator = torch.Generator().manual_seed(1)
finite = torch.tensor([code for code in range(256) if code & 0x7F != 0x7F], dtype=torch.uint8)
picked = torch.randint(0, len(finite), (ROWS * COLS,), generator=generator)
picked[: len(finite)] = torch.arange(len(finite))
weight = finite[picked].reshape(ROWS, COLS).view(torch.float8_e4m3fn)
scales = torch.rand(-(-ROWS // BLOCK), -(-COLS // BLOCK), generator=generator) * 1e-3 + 1e-5
whole = scales.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:ROWS, :COLS]
read = (weight.float() * whole).to(torch.bfloat16)
save_file({"w": weight, "w_scale_inv": scales, "w_read": read}, sys.argv[1], metadata={"format": "pt"})
