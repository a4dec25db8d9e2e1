"""Every family's GGUF file in llama.cpp against transformers: small random models with the family's quirks switched on
(biases, head norms, windows that are felt, every kind of rope, experts), weights exact in F16, so that what differs is
llama.cpp's own f16 arithmetic. A wrong name, key, permutation or rope shows as a divergence hundreds of times the bound."""
import numpy as np

import lwq

try:
    import gguf  # noqa: F401
    from gguf_models import CASES, SIZES, make
    from llama_cpp_model import LlamaCpp, log_softmax
except ImportError as error:
    lwq.skip(f"a package is missing: {error}")

POSITIONS = 48
CONTEXT = 256  # llama.cpp chooses longrope's factors by its context, transformers by the length of the text
ids = np.concatenate([[1], lwq.sample_ids(POSITIONS - 1)])
for name, (kind, changes) in CASES.items():
    model, directory = make(name, kind, changes)
    expected = log_softmax(lwq.transformers_logits(model, ids, len(ids)))
    path = directory + ".gguf"
    lwq.run("write_gguf", directory, path, "F16", "F16")
    found = LlamaCpp(path, CONTEXT).log_probabilities(ids, SIZES["vocab_size"])
    divergence = (np.exp(expected) * (expected - found)).sum(-1)
    # An expert on the edge of the top k changes places in f16, and all positions behind it differ a little: the middle one counts.
    judged, what = (np.median, "median") if "num_experts_per_tok" in changes else (np.max, "largest")
    spread = -(np.exp(expected) * expected).sum(-1).mean()
    lwq.below(f"{name}: {what} divergence (entropy {spread:.2f} of {np.log(SIZES['vocab_size']):.2f})", judged(abs(divergence)), 1e-3)
lwq.finish()
