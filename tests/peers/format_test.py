"""Every width and group size that lwq writes opens in transformers and gives lwq's own logits: mixed files from f16,
bf16 and f32 sources, in one file and in several, with tied and untied heads. No service here: this is about the
format alone (artifact_test.py runs whole jobs). Symmetric only: transformers 5.23 makes room for zero points before
it packs them and so refuses every asymmetric pack-quantized file."""
import os

import lwq

ids = lwq.sample_ids()
TINY = ["--layers", "4", "--hidden", "256", "--intermediate", "512"]
cases = {
    "sample": (None, []),
    "f16 untied, artifact in shards": (TINY + ["--dtype", "f16", "--untied"], ["--max-shard", 1500000]),
    "bf16 tied, source in shards": (TINY + ["--dtype", "bf16", "--shards", "3"], []),
    "f32 untied": (TINY + ["--dtype", "f32", "--untied"], []),
    "f32 tied": (TINY + ["--dtype", "f32"], []),
}
for number, (name, (make, options)) in enumerate(cases.items()):
    model, out = lwq.SAMPLE, os.path.join(lwq.TMP, f"out-{number}")
    if make is not None:
        model = os.path.join(lwq.TMP, f"model-{number}")
        lwq.run("make_model", model, *make)
    lwq.run("engine_probe", "artifact", model, os.path.join(lwq.TMP, "scratch"), out, *options)
    if "--max-shard" in options:
        lwq.equal(f"{name}: several weight files", sum(f.endswith(".safetensors") for f in os.listdir(out)) > 1, True)
    theirs, ours = lwq.transformers_logits(out, ids, 500), lwq.logits(out, ids, 500)
    lwq.below(f"{name}: largest difference of logits (theirs reach {abs(theirs).max():.1f})", abs(ours - theirs).max(), 1e-3)
    lwq.equal(f"{name}: the file is not the source", abs(ours - lwq.logits(model, ids, 500)).max() > 1e-2, True)
lwq.finish()
