#!/usr/bin/env python3
"""A random model with experts, mixtral or qwen3_moe, in which experts are nearly all of the bytes: what bar 7's memory figures are of.

usage: make_experts_model.py mixtral|qwen3_moe OUT [--layers 3 --hidden 1024 --intermediate 2048 --experts 16 --starved 2]
with the Python of scripts/make_peers_venv.sh. BF16, the sample's tokenizer. The router of each layer sends next to nothing to the first
--starved experts. A file a layer, under the published names, so that a model larger than memory can be made."""
import argparse
import json
import os
import shutil

import torch
from safetensors.torch import save_file

import bars

HEAD = 64


def config(options):
    heads = options.hidden // HEAD
    common = dict(vocab_size=4096, hidden_size=options.hidden, num_hidden_layers=options.layers, num_attention_heads=heads, num_key_value_heads=heads // 2,
                  hidden_act="silu", max_position_embeddings=2048, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, bos_token_id=1,
                  eos_token_id=2, torch_dtype="bfloat16", intermediate_size=options.intermediate)
    if options.kind == "mixtral":
        return dict(common, architectures=["MixtralForCausalLM"], model_type="mixtral", num_local_experts=options.experts, num_experts_per_tok=2,
                    sliding_window=None)
    return dict(common, architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", head_dim=HEAD, num_experts=options.experts, num_experts_per_tok=4,
                moe_intermediate_size=options.intermediate, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[], attention_bias=False)


def layer(options, number, random):
    """The tensors of a layer, one after the other."""
    hidden, wide, at = options.hidden, options.intermediate, f"model.layers.{number}."
    qwen = options.kind == "qwen3_moe"
    for name, rows, columns in (("q", hidden, hidden), ("k", hidden // 2, hidden), ("v", hidden // 2, hidden), ("o", hidden, hidden)):
        yield f"{at}self_attn.{name}_proj.weight", random(rows, columns)
    for name, size in ([("self_attn.q_norm", HEAD), ("self_attn.k_norm", HEAD)] if qwen else []) + [("input_layernorm", hidden), ("post_attention_layernorm", hidden)]:
        yield f"{at}{name}.weight", torch.ones(size, dtype=torch.bfloat16)
    router = random(options.experts, hidden)
    router[:options.starved] = 0  # a logit of zero is hardly ever among the greatest of many
    router[options.starved:] *= 4
    yield (f"{at}mlp.gate.weight" if qwen else f"{at}block_sparse_moe.gate.weight"), router
    gate, down, up = ("gate_proj", "down_proj", "up_proj") if qwen else ("w1", "w2", "w3")
    experts = f"{at}mlp.experts." if qwen else f"{at}block_sparse_moe.experts."
    for expert in range(options.experts):
        yield f"{experts}{expert}.{gate}.weight", random(wide, hidden)
        yield f"{experts}{expert}.{up}.weight", random(wide, hidden)
        yield f"{experts}{expert}.{down}.weight", random(hidden, wide)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("mixtral", "qwen3_moe"))
    parser.add_argument("out")
    for name, value in dict(layers=3, hidden=1024, intermediate=2048, experts=16, starved=2).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(1)

    def random(rows, columns):
        return (torch.randn(rows, columns, generator=generator) * .06).bfloat16()

    os.makedirs(options.out)
    parts, where = options.layers + 1, {}
    for number in range(parts):
        if number > 0:
            tensors = dict(layer(options, number - 1, random))
        else:
            tensors = {"model.embed_tokens.weight": random(4096, options.hidden), "lm_head.weight": random(4096, options.hidden),
                       "model.norm.weight": torch.ones(options.hidden, dtype=torch.bfloat16)}
        name = f"model-{number + 1:05d}-of-{parts:05d}.safetensors"
        save_file(tensors, os.path.join(options.out, name), metadata={"format": "pt"})
        where.update({key: name for key in tensors})
    with open(os.path.join(options.out, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": where}, f)
    with open(os.path.join(options.out, "config.json"), "w") as f:
        json.dump(config(options), f, indent=1)
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copy(os.path.join(bars.SAMPLE, name), options.out)
    expert = 3 * options.hidden * options.intermediate
    print(f"{bars.weight_bytes(options.out) / 2**20:.0f} MiB, of which {options.layers} x {options.experts} experts of {2 * expert / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
