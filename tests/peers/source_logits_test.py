"""lwq's logits of dense models equal transformers' in f32, over 2,000 tokens of real text.

The bound, 1e-3, is about 100 times what two orders of summation in f32 give for logits of size 10 after
12 layers (1e-6 relative each); a wrong rope, norm or mask is off by more than 0.1."""
import os

import lwq

ids = lwq.sample_ids()
cases = {
    "sample": None,
    "bf16 untied sharded": ["--dtype", "bf16", "--untied", "--shards", "3"],
    "f32 tied": ["--dtype", "f32", "--layers", "3"],
    "f16 outliers": ["--dtype", "f16", "--outliers", "4"],
}
for name, options in cases.items():
    model = lwq.SAMPLE
    if options is not None:
        model = os.path.join(lwq.TMP, name.replace(" ", "-"))
        lwq.run("make_model", model, *options)
    theirs = lwq.transformers_logits(model, ids, 500)
    ours = lwq.logits(model, ids, 500)
    lwq.below(f"{name}: largest difference of logits (theirs reach {abs(theirs).max():.1f})", abs(ours - theirs).max(), 1e-3)
lwq.finish()
