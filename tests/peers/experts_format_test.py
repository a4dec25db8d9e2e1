"""compressed-tensors files of models with experts: every linear decompressed by the compressed-tensors library under the group
whose targets match it, and the dense model that comes of it run by transformers, which gives lwq's own logits of the file. (transformers
5.23 itself opens such files only where all experts of a model have one format, and rounds what it dequantizes.)"""
import os
import shutil

import lwq

try:
    import torch
    import family_models
    from decompressed import decompress
except ImportError as error:
    lwq.skip(f"a package is missing: {error}")

SIZES = dict(vocab_size=4096, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False, initializer_range=.09)
LENGTH = 240


def make(name, kind, options):
    directory = os.path.join(lwq.TMP, name)
    family_models.make(kind, options, SIZES, torch.float16).half().save_pretrained(directory)
    for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copy(os.path.join(lwq.SAMPLE, file), directory)
    return directory


ids = lwq.sample_ids(LENGTH)
for name, (kind, options) in family_models.cases(trained=100, window=24, pairs=16, head_dim=64).items():
    if "num_experts_per_tok" not in options:
        continue
    directory = make(name, kind, options)
    out, plain = directory + "-out", directory + "-plain"
    lwq.quantize(directory, out, "--bits", "3,4,8", "--budget", "4.6bpw", "--method", "gptq", "--scorer", "random", "--allocator", "knapsack")
    lwq.equal(f"{name}: several formats", decompress(out, plain) > 1, True)
    theirs, ours = lwq.transformers_logits(plain, ids, LENGTH), lwq.logits(out, ids, LENGTH)
    lwq.below(f"{name}, decompressed: largest difference of logits (theirs reach {abs(theirs).max():.1f})", abs(ours - theirs).max(), 1e-3)
    lwq.equal(f"{name}: the file is not the source", abs(ours - lwq.logits(directory, ids, LENGTH)).max() > 1e-2, True)
lwq.finish()
