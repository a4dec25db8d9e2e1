"""A file with a stored activation order (desc_act) as GPTQModel itself makes it: lwq's logits of it against GPTQModel's own."""
import os

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import lwq
import torch

try:
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
except ImportError as error:
    lwq.skip(f"GPTQModel cannot be imported: {error}")

PASSAGES, LENGTH = 8, 256
ids = [int(i) for i in lwq.sample_ids(PASSAGES * LENGTH)]
calibration = [{"input_ids": ids[i:i + LENGTH], "attention_mask": [1] * LENGTH} for i in range(0, len(ids), LENGTH)]
tiny = os.path.join(lwq.TMP, "tiny")
lwq.run("make_model", tiny, "--layers", "2", "--hidden", "256", "--intermediate", "512", "--dtype", "f16", "--vocab", "4096")
for name, model, bits, group in (("sample", lwq.SAMPLE, 4, 64), ("tiny, 8 bits", tiny, 8, 32), ("tiny, 2 bits", tiny, 2, 64)):
    out = os.path.join(lwq.TMP, f"{bits}-{group}")
    quantizer = GPTQModel.load(model, QuantizeConfig(bits=bits, group_size=group, desc_act=True), device="cpu", dtype=torch.float32)
    quantizer.quantize(calibration, batch_size=1)
    quantizer.save(out)
    orders = [t for n, t in lwq.tensors(out).items() if n.endswith(".g_idx")]
    lwq.equal(f"{name}: {len(orders)} linears, inputs in order", all(bool((t[1:] >= t[:-1]).all()) for t in orders), False)
    theirs = lwq.transformers_logits(GPTQModel.load(out, device="cpu", backend=BACKEND.TORCH, dtype=torch.float16).model.eval().float(), ids[:500], 250)
    ours = lwq.logits(out, ids[:500], 250)
    lwq.below(f"{name}: largest difference of logits (theirs reach {abs(theirs).max():.1f})", abs(ours - theirs).max(), 1e-3)
    source = lwq.logits(model, ids[:500], 250)
    lwq.equal(f"{name}: the file is not the source", bool(abs(ours - source).max() > 1e-2), True)
lwq.finish()
