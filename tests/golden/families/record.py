"""Records logits of transformers for tests/worker/engine/model/families_golden_test.cc.

Run from the repository root with the peers' Python (scripts/make_peers_venv.sh):
    python tests/golden/families/record.py [CASE...]
Writes a folder per family, and per kind of rotary embedding one that has the weights of "llama": config.json,
model.safetensors (F16, random) and logits.safetensors: tokens I32 [n], lengths I32 [sequences], logits F32 [n, vocabulary].
"""
import os
import sys
import tempfile

import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../peers"))
import family_models  # noqa: E402

# One sequence that stays inside the positions of the first training, and one that does not.
LENGTHS = [20, 44]
SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=96, bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False, initializer_range=.2)

qwens = family_models.qwen_cases()
for name, (kind, options) in {**family_models.cases(trained=24, window=8, pairs=4, head_dim=16), **qwens}.items():
    if sys.argv[1:] and name not in sys.argv[1:]:
        continue
    directory = os.path.join(HERE, name)
    model = family_models.make(kind, options, SIZES, torch.float16)
    tokens = torch.randint(0, SIZES["vocab_size"], (sum(LENGTHS),), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = [model(part[None]).logits[0] for part in tokens.split(LENGTHS)]
    if name in qwens:
        with tempfile.TemporaryDirectory() as other:
            model.half().save_pretrained(other)
            family_models.write_as_qwen(other, directory)
    else:
        model.half().save_pretrained(directory)
        os.remove(os.path.join(directory, "generation_config.json"))
    if name.startswith("llama-"):
        os.remove(os.path.join(directory, "model.safetensors"))
    save_file({"tokens": tokens.to(torch.int32), "lengths": torch.tensor(LENGTHS, dtype=torch.int32), "logits": torch.cat(logits).contiguous()},
              os.path.join(directory, "logits.safetensors"))
    print(f"{name}: logits reach {torch.cat(logits).abs().max():.1f}, spread {torch.cat(logits).std():.2f}")
