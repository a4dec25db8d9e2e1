"""Small random models of every family that lwq reads, with the family's quirks switched on. For families_test.py and
tests/golden/families/record.py."""
import json
import os
import re

import torch
import transformers
from safetensors.torch import load_file, save_file

def factors(pairs, step):
    return [1 + i * step for i in range(pairs)]


def rope(kind, theta=1000.0, **fields):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta, **fields))


def cases(trained, window, pairs, head_dim):
    """By name: transformers' class and its options. `trained`: positions of the first training, shorter than some of the
    sequences; `window`: of sliding attention; `pairs`: half of hidden_size / num_attention_heads; `head_dim`: of heads where that is
    another number."""
    llama3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=trained)
    yarn = dict(factor=4.0, beta_fast=3.0, beta_slow=.8, truncate=False, original_max_position_embeddings=trained)
    longrope = dict(short_factor=factors(pairs, .1), long_factor=factors(pairs, .9), original_max_position_embeddings=trained)
    mixed = ["sliding_attention", "full_attention"]
    gemma = dict(head_dim=head_dim, query_pre_attn_scalar=24, sliding_window=window, attention_bias=True, final_logit_softcapping=12.0,
                 tie_word_embeddings=True)
    return {
        "llama": ("Llama", dict(attention_bias=True, mlp_bias=True)),
        "llama-linear": ("Llama", dict(attention_bias=True, mlp_bias=True, **rope("linear", factor=4.0))),
        "llama-dynamic": ("Llama", dict(attention_bias=True, mlp_bias=True, max_position_embeddings=trained, **rope("dynamic", factor=3.0))),
        "llama-llama3": ("Llama", dict(attention_bias=True, mlp_bias=True, **rope("llama3", **llama3))),
        "llama-yarn": ("Llama", dict(attention_bias=True, mlp_bias=True, **rope("yarn", theta=10.0, **yarn))),
        "llama-longrope": ("Llama", dict(attention_bias=True, mlp_bias=True, **rope("longrope", **longrope))),
        "mistral": ("Mistral", dict(sliding_window=window)),
        "mixtral": ("Mixtral", dict(num_local_experts=5, num_experts_per_tok=2, sliding_window=window)),
        "qwen2_moe": ("Qwen2Moe", dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=64, shared_expert_intermediate_size=96,
                                       mlp_only_layers=[1], use_sliding_window=True, sliding_window=window, max_window_layers=1)),
        "qwen3_moe": ("Qwen3Moe", dict(head_dim=head_dim, num_experts=7, num_experts_per_tok=3, moe_intermediate_size=64, norm_topk_prob=True,
                                       decoder_sparse_step=2, attention_bias=True, use_sliding_window=True, sliding_window=window)),
        "qwen2": ("Qwen2", dict(use_sliding_window=True, sliding_window=window, max_window_layers=1, tie_word_embeddings=True)),
        "qwen3": ("Qwen3", dict(head_dim=head_dim, attention_bias=True, use_sliding_window=True, sliding_window=window, layer_types=mixed)),
        "phi3": ("Phi3", dict(sliding_window=window, original_max_position_embeddings=trained, **rope("longrope", partial_rotary_factor=.5, **{
            **longrope, "short_factor": factors(pairs // 2, .1), "long_factor": factors(pairs // 2, 1.5)}))),
        "gemma2": ("Gemma2", dict(layer_types=mixed, attn_logit_softcapping=4.0, **gemma)),
        "gemma3": ("Gemma3", dict(layer_types=mixed, **gemma, rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=4.0, rope_theta=5000.0), sliding_attention=dict(rope_type="default", rope_theta=100.0)))),
    }


def make(kind, options, sizes, dtype, seed=1):
    """The model in f32, its weights exact in `dtype`."""
    torch.manual_seed(seed)
    name = f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config"
    config = getattr(transformers, name)(**{**sizes, **options})
    model = getattr(transformers, f"{kind}ForCausalLM")._from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() == 1:  # norms and biases, which start as ones and zeros
                value.add_(torch.randn_like(value) * .3)
            value.copy_(value.to(dtype).float())
    return model


def qwen_cases():
    """The first Qwen, which transformers has not: models that compute the same under other names. Published ones have no bias but that of
    c_attn."""
    return {
        "qwen": ("Qwen2", dict(num_key_value_heads=4, rms_norm_eps=1e-5, **rope("default"))),
        "qwen-bias": ("Llama", dict(num_key_value_heads=4, attention_bias=True, mlp_bias=True, **rope("default", theta=500.0))),
    }


QWEN_NAMES = [(r"model\.embed_tokens\.", "transformer.wte."), (r"model\.norm\.", "transformer.ln_f."), (r"model\.layers\.", "transformer.h."),
              (r"self_attn\.[qkv]_proj\.", "attn.c_attn."), (r"self_attn\.o_proj\.", "attn.c_proj."), (r"input_layernorm\.", "ln_1."),
              (r"post_attention_layernorm\.", "ln_2."), (r"mlp\.up_proj\.", "mlp.w1."), (r"mlp\.gate_proj\.", "mlp.w2."), (r"mlp\.down_proj\.", "mlp.c_proj.")]


def qwen_name(name):
    for pattern, replacement in QWEN_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def write_as_qwen(directory, out):
    """The model in `directory`, made of one of qwen_cases, as a published first Qwen has it: q, k and v in one; w1(x) * silu(w2(x)), so
    that w2 is the gate; intermediate_size of both together; positions as its seq_length."""
    tensors = {}
    for name, value in load_file(os.path.join(directory, "model.safetensors")).items():
        tensors.setdefault(qwen_name(name), {})[name] = value
    order = ["q_proj", "k_proj", "v_proj"]
    fused = {name: torch.cat([parts[key] for key in sorted(parts, key=lambda key: order.index(key.split(".")[-2]))]) if len(parts) > 1 else next(iter(parts.values()))
             for name, parts in tensors.items()}
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        old = json.load(f)
    heads, positions = old["num_attention_heads"], old["max_position_embeddings"]
    config = {"architectures": ["QWenLMHeadModel"], "attn_dropout_prob": 0.0, "bf16": old["dtype"] == "bfloat16", "emb_dropout_prob": 0.0,
              "fp16": old["dtype"] == "float16", "fp32": False, "hidden_size": old["hidden_size"], "initializer_range": 0.02,
              "intermediate_size": 2 * old["intermediate_size"], "kv_channels": old["hidden_size"] // heads, "layer_norm_epsilon": old["rms_norm_eps"],
              "max_position_embeddings": 4 * positions, "model_type": "qwen", "no_bias": not old.get("mlp_bias", False), "num_attention_heads": heads,
              "num_hidden_layers": old["num_hidden_layers"], "onnx_safe": None, "rotary_emb_base": old["rope_parameters"]["rope_theta"],
              "rotary_pct": 1.0, "scale_attn_weights": True, "seq_length": positions, "tie_word_embeddings": False, "tokenizer_class": "QWenTokenizer",
              "torch_dtype": old["dtype"], "use_cache": True, "use_dynamic_ntk": True, "use_flash_attn": "auto", "use_logn_attn": True,
              "vocab_size": old["vocab_size"]}
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f, indent=2)
        f.write("\n")
    save_file({name: value.contiguous() for name, value in fused.items()}, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})


def read_as_other(directory, kind_directory, out):
    """The other way round, of a directory with write_as_qwen's names: for transformers, with the config.json of `kind_directory`."""
    with open(os.path.join(kind_directory, "config.json"), encoding="utf-8") as f:
        config = {**json.load(f), "dtype": "float32"}
    old = load_file(os.path.join(directory, "model.safetensors"))
    tensors = {}
    for name in load_file(os.path.join(kind_directory, "model.safetensors")):
        value = old[qwen_name(name)]
        part = re.search(r"self_attn\.([qkv])_proj", name)
        tensors[name] = (value.chunk(3)["qkv".index(part[1])] if part else value).float().contiguous()
    os.makedirs(out)
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    save_file(tensors, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
