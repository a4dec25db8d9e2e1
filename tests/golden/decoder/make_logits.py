"""Records logits of transformers for tests/worker/engine/model/decoder_golden_test.cc.

Run from the repository root with torch, transformers and safetensors installed:
    python tests/golden/decoder/make_logits.py
Writes sample_logits.safetensors (the bundled model over 2,000 tokens of its held-out text) and
tiny/ (a random sharded F32 model with an untied head, grouped queries and llama3 rotary embedding)
with tiny_logits.safetensors.

Each file: tokens I32 [sequences, length]; rows I32 [n], columns I32 [n, 8] and logits F32 [n, 8] at
flattened token rows; log_sum F32 [n], the log of the sum of exponentials of the whole row.
"""

import os

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLE = os.path.join(HERE, "../../../examples/lwq-books-10m")


def record(model, tokens, path):
    with torch.no_grad():
        logits = model(tokens).logits.float().reshape(-1, model.config.vocab_size)
    generator = torch.Generator().manual_seed(1)
    columns = torch.randint(0, logits.shape[1], (logits.shape[0], 8), generator=generator)
    save_file(
        {
            "tokens": tokens.to(torch.int32),
            "rows": torch.arange(logits.shape[0], dtype=torch.int32),
            "columns": columns.to(torch.int32),
            "logits": logits.gather(1, columns).contiguous(),
            "log_sum": torch.logsumexp(logits, dim=1).contiguous(),
        },
        path,
    )


def sample():
    model = AutoModelForCausalLM.from_pretrained(SAMPLE, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE)
    with open(os.path.join(SAMPLE, "held-out.txt"), encoding="utf-8") as f:
        ids = tokenizer(f.read(40000), add_special_tokens=False)["input_ids"][:2000]
    tokens = torch.tensor(ids, dtype=torch.long).reshape(4, 500)
    record(model, tokens, os.path.join(HERE, "sample_logits.safetensors"))


def tiny():
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, vocab_size=96, max_position_embeddings=256,
        rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=[2, 3],
        rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0,
                         "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 64})
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(os.path.join(HERE, "tiny"), max_shard_size="120KB")
    tokens = torch.randint(0, config.vocab_size, (2, 100))
    record(model, tokens, os.path.join(HERE, "tiny_logits.safetensors"))


if __name__ == "__main__":
    sample()
    tiny()
