"""Small random models of every family that lwq reads, with the family's quirks switched on. For families_test.py and
tests/golden/families/record.py."""
import torch
import transformers

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
