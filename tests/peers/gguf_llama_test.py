"""GGUF files in llama.cpp (xllamacpp) and names against the gguf package. The sample with F16 and Q8_0 linears opens,
tokenizes the held-out text to lwq's own ids, with and without its tokenizer.model, and gives lwq's own next-token
log-probabilities. llama.cpp works in f16 and, with Q8_0, rounds activations to 8 bits, so these are close, not equal:
bounds are on the mean, and on perplexity as the 0.5 % that the results promise."""
import os
import shutil

import numpy as np

import lwq

try:
    import gguf
    from llama_cpp_model import LlamaCpp, log_softmax
except ImportError:
    lwq.skip("no gguf or xllamacpp package")

LAYER = ["input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm"]
MLP = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
NORMS = ["self_attn.q_norm", "self_attn.k_norm"]
FAMILIES = {
    "LlamaForCausalLM": ("LLAMA", LAYER + MLP),
    "MistralForCausalLM": ("LLAMA", LAYER + MLP),
    "MixtralForCausalLM": ("LLAMA", LAYER + ["block_sparse_moe.gate"] + [f"block_sparse_moe.experts.3.w{i}" for i in (1, 2, 3)]),
    "QWenLMHeadModel": ("QWEN", ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.w1", "mlp.w2", "mlp.c_proj"]),
    "Qwen2ForCausalLM": ("QWEN2", LAYER + MLP),
    "Qwen2MoeForCausalLM": ("QWEN2MOE", LAYER + ["mlp.gate", "mlp.shared_expert_gate"] + [m.replace("mlp.", "mlp.experts.3.") for m in MLP] + [m.replace("mlp.", "mlp.shared_expert.") for m in MLP]),
    "Qwen3ForCausalLM": ("QWEN3", LAYER + MLP + NORMS),
    "Qwen3MoeForCausalLM": ("QWEN3MOE", LAYER + NORMS + ["mlp.gate"] + [m.replace("mlp.", "mlp.experts.3.") for m in MLP]),
    "Gemma3ForCausalLM": ("GEMMA3", LAYER + MLP + NORMS + ["pre_feedforward_layernorm", "post_feedforward_layernorm"]),
    "Phi3ForCausalLM": ("PHI3", ["input_layernorm", "self_attn.qkv_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_up_proj", "mlp.down_proj"]),
}


def check_names():
    for model_class, (architecture, modules) in FAMILIES.items():
        first_qwen = architecture == "QWEN"
        tensors = ["transformer.wte.weight", "transformer.ln_f.weight"] if first_qwen else ["model.embed_tokens.weight", "model.norm.weight"]
        tensors.append("lm_head.weight")
        layer = "transformer.h.11" if first_qwen else "model.layers.11"
        for module in modules:
            tensors.append(f"{layer}.{module}.weight")
            tensors += [f"{layer}.{module}.bias"] if module.startswith(("self_attn", "attn.c_attn")) else []
        table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture], 12)
        found = [line.split() for line in lwq.run("gguf_probe", "names", model_class, *tensors).splitlines()]
        for tensor, (name, expert) in zip(tensors, found, strict=True):
            expected = table.get_name(tensor.replace("experts.3.", "experts."), try_suffixes=(".weight", ".bias"))
            if name != expected or int(expert) != (3 if "experts.3." in tensor else -1):
                lwq.equal(f"{model_class} {tensor}", f"{name} {expert}", expected)
        print(f"ok   {model_class}: {len(tensors)} names", flush=True)


def write(model, linears, name):
    path = os.path.join(lwq.TMP, name)
    forecast = lwq.run("write_gguf", model, path, linears, "F16")
    lwq.equal(f"{name}: forecast of its bytes", int(forecast), os.path.getsize(path))
    return path


def check_tokens(name, peer, model):
    text = lwq.sample_text(40000)
    texts = [text[at:at + 800] for at in range(0, len(text), 800)] + ["", " ", "  two  blanks\n\n\tand a tab ", "Straße, 東京, \U0001f600", "<s>x</s>"]
    texts = [t for t in texts if t]
    expected = [ids.tolist() for ids in lwq.tokens(model, texts, special=True)]
    differ = [t for t, ids in zip(texts, expected, strict=True) if peer.tokens(t) != ids]
    lwq.equal(f"{name}: texts of {len(texts)} that llama.cpp tokenizes differently", differ, [])


check_names()
ids = np.concatenate([[1], lwq.sample_ids(119)])
own = log_softmax(lwq.logits(lwq.SAMPLE, ids, len(ids)))
for linears in ("F16", "Q8_0"):
    name = f"sample-{linears}.gguf"
    peer = LlamaCpp(write(lwq.SAMPLE, linears, name))
    check_tokens(name, peer, lwq.SAMPLE)
    theirs = peer.log_probabilities(ids, own.shape[1])
    lwq.equal(f"{name}: log-probabilities are there", bool(np.isfinite(theirs).all()), True)
    divergence = (np.exp(own) * (own - theirs)).sum(-1)
    lwq.below(f"{name}: mean divergence", abs(divergence.mean()), 1e-4 if linears == "F16" else 5e-4)
    losses = [-rows[np.arange(len(ids) - 1), ids[1:]].mean() for rows in (own, theirs)]
    lwq.below(f"{name}: perplexity {np.exp(losses[1]):.4f}, lwq's {np.exp(losses[0]):.4f}: relative difference", abs(np.exp(losses[1] - losses[0]) - 1), 5e-3)

bare = os.path.join(lwq.TMP, "without-tokenizer-model")
shutil.copytree(lwq.SAMPLE, bare)
os.remove(os.path.join(bare, "tokenizer.model"))
check_tokens("tokenizer.json alone", LlamaCpp(write(bare, "Q4_0", "bare.gguf")), bare)
lwq.finish()
