// config.json as well-known models ship it: none of their fields is taken for one that lwq lacks.
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/model/decoder_spec.h"

namespace lwq {
namespace {

// The fields that all have; `rest` is put behind them.
std::string Config(const std::string& architecture, const std::string& sizes,
                   const std::string& rest) {
  return "{\"architectures\":[\"" + architecture +
         "\"],\"attention_dropout\":0.0,\"bos_token_id\":1,\"eos_token_id\":[1,2],"
         "\"initializer_range\":0.02,\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4."
         "46\","
         "\"use_cache\":true,\"vocab_size\":1024,\"num_hidden_layers\":2,\"rms_norm_eps\":1e-05," +
         sizes + "," + rest + "}";
}

constexpr char kSizes[] =
    "\"hidden_size\":256,\"intermediate_size\":512,\"num_attention_heads\":8,"
    "\"num_key_value_heads\":4,\"max_position_embeddings\":4096";

struct KnownModel {
  const char *name, *architecture, *rest;
};

const KnownModel kModels[] = {
    {"Llama-2-7b", "LlamaForCausalLM",
     R"("_name_or_path":"x","hidden_act":"silu","model_type":"llama","pretraining_tp":1,)"
     R"("rope_scaling":null,"tie_word_embeddings":false)"},
    {"Llama-3.2-1B", "LlamaForCausalLM",
     R"("attention_bias":false,"head_dim":32,"hidden_act":"silu","mlp_bias":false,)"
     R"("model_type":"llama","pretraining_tp":1,"rope_scaling":{"factor":32.0,)"
     R"("high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,)"
     R"("rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":true)"},
    {"SmolLM2-135M", "LlamaForCausalLM",
     R"("attention_bias":false,"hidden_act":"silu","is_llama_config":true,"mlp_bias":false,)"
     R"("model_type":"llama","pretraining_tp":1,"rope_interleaved":false,"rope_scaling":null,)"
     R"("rope_theta":100000,"tie_word_embeddings":true,)"
     R"("transformers.js_config":{"kv_cache_dtype":{"q4f16":"float16"}})"},
    {"Mistral-7B-v0.1", "MistralForCausalLM",
     R"("hidden_act":"silu","model_type":"mistral","rope_theta":10000.0,"sliding_window":4096,)"
     R"("tie_word_embeddings":false)"},
    {"Qwen2.5-7B-1M", "Qwen2ForCausalLM",
     R"("hidden_act":"silu","max_window_layers":28,"model_type":"qwen2","rope_theta":1000000.0,)"
     R"("rope_scaling":{"factor":4.0,"original_max_position_embeddings":32768,"type":"yarn"},)"
     R"("sliding_window":131072,"tie_word_embeddings":false,"use_mrope":false,)"
     R"("use_sliding_window":false)"},
    {"Qwen3-0.6B", "Qwen3ForCausalLM",
     R"("attention_bias":false,"head_dim":128,"hidden_act":"silu","max_window_layers":28,)"
     R"("model_type":"qwen3","rope_scaling":null,"rope_theta":1000000,"sliding_window":null,)"
     R"("tie_word_embeddings":true,"use_sliding_window":false)"},
    {"Phi-3-mini-4k", "Phi3ForCausalLM",
     R"("attention_bias":false,"auto_map":{"AutoConfig":"configuration_phi3.Phi3Config"},)"
     R"("embd_pdrop":0.0,"hidden_act":"silu","model_type":"phi3",)"
     R"("original_max_position_embeddings":4096,"pad_token_id":0,"resid_pdrop":0.0,)"
     R"("rope_scaling":null,"rope_theta":10000.0,"sliding_window":2047,)"
     R"("tie_word_embeddings":false)"},
    {"Phi-4-mini", "Phi3ForCausalLM",
     R"("attention_bias":false,"embd_pdrop":0.0,"full_attn_mod":1,"hidden_act":"silu",)"
     R"("interpolate_factor":1,"lm_head_bias":false,"mlp_bias":false,"model_type":"phi3",)"
     R"("original_max_position_embeddings":4096,"partial_rotary_factor":0.75,"resid_pdrop":0.0,)"
     R"("rope_scaling":{"long_factor":[1,1.1,1.2,1.3,1.4,1.5,1.6,1.7,1.8,1.9,2,2.1],)"
     R"("short_factor":[1,1,1,1,1,1,1,1,1,1,1,1],"type":"longrope"},"rope_theta":10000.0,)"
     R"("sliding_window":262144,"tie_word_embeddings":true)"},
    {"gemma-2-9b", "Gemma2ForCausalLM",
     R"("attention_bias":false,"attn_logit_softcapping":50.0,"cache_implementation":"hybrid",)"
     R"("final_logit_softcapping":30.0,"head_dim":256,"hidden_act":"gelu_pytorch_tanh",)"
     R"("hidden_activation":"gelu_pytorch_tanh","model_type":"gemma2","pad_token_id":0,)"
     R"("query_pre_attn_scalar":256,"rope_theta":10000.0,"sliding_window":4096,)"
     R"("sliding_window_size":4096)"},
    {"gemma-3-1b", "Gemma3ForCausalLM",
     R"("attention_bias":false,"attn_logit_softcapping":null,"cache_implementation":"hybrid",)"
     R"("final_logit_softcapping":null,"head_dim":256,"hidden_activation":"gelu_pytorch_tanh",)"
     R"("model_type":"gemma3_text","pad_token_id":0,"query_pre_attn_scalar":256,)"
     R"("rope_local_base_freq":10000,"rope_scaling":null,"rope_theta":1000000,)"
     R"("sliding_window":512,"sliding_window_pattern":6)"}};

absl::StatusOr<DecoderSpec> Read(const std::string& config) {
  LWQ_ASSIGN_OR_RETURN(const TempDirectory directory, TempDirectory::Create());
  LWQ_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(directory.path(), "config.json"), config));
  return ReadDecoderSpec(directory.path());
}

TEST(DecoderSpecKnownTest, ConfigsOfWellKnownModelsAreRead) {
  for (const KnownModel& model : kModels) {
    EXPECT_OK(Read(Config(model.architecture, kSizes, model.rest)).status()) << model.name;
  }
}

TEST(DecoderSpecKnownTest, WhatTheySwitchOffMayNotBeOn) {
  std::string phi4 = Config(kModels[7].architecture, kSizes, kModels[7].rest);
  const std::string field = "\"full_attn_mod\":1";
  phi4.replace(phi4.find(field), field.size(), "\"full_attn_mod\":4");
  EXPECT_THAT(Read(phi4),
              testing::FailsWith("CONFIG_INVALID", ::testing::HasSubstr("full_attn_mod")));
  std::string gemma2 = Config(kModels[8].architecture, kSizes, kModels[8].rest);
  const std::string window = "\"sliding_window\":4096";
  gemma2.replace(gemma2.find(window), window.size(), "\"sliding_window\":2048");
  EXPECT_THAT(Read(gemma2),
              testing::FailsWith("CONFIG_INVALID", ::testing::HasSubstr("sliding_window_size")));
}

}  // namespace
}  // namespace lwq
