"""A small random model of every family that has GGUF files, with the family's quirks switched on; weights exact in F16."""
import os
import shutil

import torch
import transformers

import lwq

SIZES = dict(vocab_size=4096, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False, initializer_range=0.09)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64, rope_theta=5000.0)
CASES = {
    "llama, llama3 rope, heads of another size": ("Llama", dict(head_dim=64, rope_parameters=LLAMA3)),
    "llama, biases, linear rope": ("Llama", dict(attention_bias=True, mlp_bias=True, rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0))),
    "llama, yarn": ("Llama", dict(rope_parameters=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128, rope_theta=10000.0))),
    "mistral": ("Mistral", dict(sliding_window=None)),
    "mistral, within its window": ("Mistral", dict(sliding_window=64)),
    "mixtral": ("Mixtral", dict(num_local_experts=8, num_experts_per_tok=2, sliding_window=None)),
    "qwen2, biases, tied": ("Qwen2", dict(tie_word_embeddings=True)),
    "qwen2_moe, shared expert": ("Qwen2Moe", dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=64, shared_expert_intermediate_size=128)),
    "qwen3": ("Qwen3", dict(head_dim=64)),
    "qwen3_moe": ("Qwen3Moe", dict(head_dim=64, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=64, norm_topk_prob=True, decoder_sparse_step=1)),
    "gemma3": ("Gemma3", dict(num_hidden_layers=7, head_dim=64, query_pre_attn_scalar=64, sliding_window=16, tie_word_embeddings=True)),
    "gemma3, linear rope": ("Gemma3", dict(num_hidden_layers=7, head_dim=64, query_pre_attn_scalar=64, sliding_window=16, tie_word_embeddings=True, rope_parameters=dict(
        full_attention=dict(rope_type="linear", factor=4.0, rope_theta=50000.0), sliding_attention=dict(rope_type="default", rope_theta=1000.0)))),
    "phi3": ("Phi3", dict(sliding_window=None)),
    "phi3, longrope with a factor of its own, within its window": ("Phi3", dict(sliding_window=300, original_max_position_embeddings=256, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, attention_factor=1.3, short_factor=[1 + i / 16 for i in range(16)], long_factor=[2 + i / 4 for i in range(16)]))),
    "phi3, longrope": ("Phi3", dict(original_max_position_embeddings=256, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, short_factor=[1 + i / 16 for i in range(16)], long_factor=[2 + i / 4 for i in range(16)]))),
}


def make(name, kind, changes):
    torch.manual_seed(1)
    class_name = f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config"
    config = getattr(transformers, class_name)(**{**SIZES, **changes})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.dim() == 1:  # norms and biases, which start as ones and zeros
                value.add_(torch.randn_like(value) * 0.1)
            value.copy_(value.half().float())
    # A plain name: llama.cpp looks for Phi-3's own tokens where general.name has "phi3".
    directory = os.path.join(lwq.TMP, f"model-{list(CASES).index(name)}")
    model.save_pretrained(directory)
    for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copy(os.path.join(lwq.SAMPLE, file), directory)
    return model, directory
